//! A node with a cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::apiserver::{ApiServer, objects};
use crate::cluster::ClusterStats;
use crate::cluster::pace::Pace;
use crate::cluster::run::{Cluster, Setup};
use crate::config::OnOff;
use crate::mounts::Origin;
use crate::pods::names::PodNames;
use crate::snapshot::{MountStatus, SCHEMA, Snapshot};
use crate::verdict::{Cause, State};

/// Our node.
pub(super) const NODE: &str = "node-a";

const PATIENCE: Duration = Duration::from_secs(60);

/// The server and the agent's side of the cluster.
pub(super) struct Bench {
    pub(super) server: ApiServer,
    cluster: Cluster,
    scale: u32,
    directory: tempfile::TempDir,
}

impl Bench {
    /// All times so many times shorter.
    pub(super) fn start(scale: u32) -> Bench {
        Bench::start_with(scale, |_| {})
    }

    /// The same with a server that was prepared so.
    pub(super) fn start_with(scale: u32, prepare: impl FnOnce(&ApiServer)) -> Bench {
        let server = ApiServer::start();
        prepare(&server);
        server.bookmark_every(Duration::from_secs(60) / scale);
        server.put(objects::namespace("shop"));
        server.put(objects::node(NODE));
        let directory = tempfile::tempdir().unwrap();
        let cluster = cluster(&server, &directory, scale);
        Bench { server, cluster, scale, directory }
    }

    /// Another agent in the place of this one.
    pub(super) fn restart(self) -> Bench {
        let cluster = cluster(&self.server, &self.directory, self.scale);
        Bench { cluster, ..self }
    }

    pub(super) fn kubeconfig(&self) -> std::path::PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// So many pods `web-N` that share this claim.
    pub(super) fn pods(&self, count: usize, claim: &str) {
        let volume = format!("pv-{claim}");
        self.server.put(objects::claim("shop", claim, &volume));
        self.server.put(objects::volume(&volume, "srv", "/a", ("shop", claim)));
        for index in 0..count {
            self.server.put(pod(index, claim));
        }
    }

    /// What the agent's loop sees now.
    pub(super) fn show(&self, mounts: &[MountStatus]) {
        self.cluster.publish(Arc::new(snapshot(mounts)));
    }

    pub(super) fn names(&self) -> Arc<PodNames> {
        self.cluster.names()
    }

    pub(super) fn stats(&self) -> ClusterStats {
        self.cluster.stats()
    }

    /// The pod's volume has the name of its claim.
    pub(super) fn volume_known(&self, index: usize) -> bool {
        self.names().pod(&uid(index)).is_some_and(|pod| pod.volume_in("pv-data").is_some())
    }

    pub(super) fn events(&self, reason: &str) -> Vec<Value> {
        self.server.objects("events").into_iter().filter(|event| event["reason"] == reason).collect()
    }

    pub(super) fn events_about(&self, kind: &str, reason: &str) -> Vec<Value> {
        let mut events = self.events(reason);
        events.retain(|event| event["regarding"]["kind"] == kind);
        events.sort_by_key(|event| event["regarding"]["name"].to_string());
        events
    }

    pub(super) fn condition(&self) -> Value {
        self.server.object("nodes", "", NODE).map_or(Value::Null, |node| condition_of(&node))
    }

    pub(super) fn node_mounts(&self) -> Value {
        self.server.object("nodemounts", "", NODE).unwrap_or(Value::Null)
    }

    /// Waits for it, and says how long that took.
    pub(super) fn until(&self, what: &str, mut holds: impl FnMut(&Bench) -> bool) -> Duration {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}; {:#?}", self.stats());
            std::thread::sleep(Duration::from_millis(1));
        }
        start.elapsed()
    }

    /// The agent ends as on SIGTERM.
    pub(super) fn end(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.cluster.stop(Duration::from_secs(5)));
    }
}

/// `NetworkMountsHealthy` of a Node.
pub(super) fn condition_of(node: &Value) -> Value {
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == "NetworkMountsHealthy").unwrap_or(Value::Null)
}

fn cluster(server: &ApiServer, directory: &tempfile::TempDir, scale: u32) -> Cluster {
    let setup = Setup {
        wanted: OnOff::Auto,
        kubeconfig: Some(server.kubeconfig(directory.path())),
        node: NODE.to_owned(),
        events: true,
        condition: true,
        pace: Pace::scaled(scale),
    };
    Cluster::start_with(setup).unwrap().unwrap()
}

/// UID of the pod `web-N`.
pub(in crate::cluster) fn uid(index: usize) -> String {
    format!("0b2e7d6c-9f0c-4c29-8a40-{index:012x}")
}

/// The pod `web-N`.
pub(super) fn pod(index: usize, claim: &str) -> Value {
    let mut pod = objects::pod("shop", &format!("web-{index}"), &uid(index), NODE);
    pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = json!(claim);
    pod
}

pub(in crate::cluster) fn snapshot(mounts: &[MountStatus]) -> Snapshot {
    let mut document = json!({"schema": SCHEMA, "version": "0", "node": NODE, "generated": 5000.0, "ready": true,
        "interval_seconds": 15.0, "timeout_seconds": 5.0, "summary": {}, "mounts": [], "autofs": [], "agent": {}});
    document["mounts"] = serde_json::to_value(mounts).unwrap();
    serde_json::from_value(document).unwrap()
}

/// A target that these pods sit on.
pub(in crate::cluster) fn dead(source: &str, state: State, pods: &[usize], since: f64) -> MountStatus {
    let path = |index: &usize| format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~nfs/pv-data", uid(*index));
    let bad = state != State::Healthy;
    MountStatus {
        gate: None,
        mountpoint: "/var/lib/kubelet/pods/*/volumes/kubernetes.io~nfs/pv-data".to_owned(),
        source: source.to_owned(),
        fstype: "nfs4".to_owned(),
        paths: pods.iter().map(path).collect(),
        path_count: pods.len(),
        dev: "0:51".to_owned(),
        origin: Origin { server: Some("srv".to_owned()), ..Origin::default() },
        state,
        cause: bad.then_some(Cause::ServerRefused),
        since,
        evidence: String::new(),
        advice: if bad { "Start the server.".to_owned() } else { String::new() },
        inherited: false,
        findings: Vec::new(),
        finding_evidence: std::collections::BTreeMap::new(),
        users: Vec::new(),
        holders: Vec::new(),
        volumes: Vec::new(),
        canary: None,
        pod_count: pods.len(),
        blocked_seconds: 0.0,
        last_probe: None,
        last_success: None,
        steps: Vec::new(),
        probes: Default::default(),
        transitions: Default::default(),
        blocked_seconds_total: 0.0,
        filesystem: None,
        nfs: Vec::new(),
        decision: None,
    }
}

/// The same, well.
pub(in crate::cluster) fn healthy(source: &str, pods: &[usize]) -> MountStatus {
    dead(source, State::Healthy, pods, 3000.0)
}
