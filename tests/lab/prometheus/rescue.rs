//! The coordinator of the run: the real one, for the panels and rules about rescues.
//!
//! The guest has no API server, so the nodes' reports are written for it, into a fake one: one pod of a Deployment asks to be
//! rescued while the server of the run has another filesystem.

use std::net::SocketAddr;
use std::path::Path;

use super::coordinator::Coordinator;
use super::shop::Cluster;

const NODE: &str = "n0";

/// The cluster and its coordinator, until dropped.
pub(super) struct Rescue {
    cluster: Cluster,
    coordinator: Coordinator,
}

impl Rescue {
    /// Everything is well.
    pub(super) fn start(agent: &Path) -> Rescue {
        let cluster = Cluster::with_history();
        cluster.web(1);
        cluster.asks(NODE, &[]);
        let coordinator = Coordinator::start_binary(agent, &cluster, &["--remedy-mode", "enforce"]);
        Rescue { cluster, coordinator }
    }

    /// Where its `/metrics` are.
    pub(super) fn address(&self) -> SocketAddr {
        self.coordinator.public()
    }

    /// The pod's mount is stale, and a fresh one would heal it.
    pub(super) fn ask(&self) {
        self.cluster.asks(NODE, &[self.cluster.request("web-0", "u0")]);
    }

    /// The pod was evicted and its replacement works.
    pub(super) fn replaced(&self) {
        self.cluster.replaced("web-0", "web-1", "u1", true);
        self.cluster.asks(NODE, &[]);
    }
}
