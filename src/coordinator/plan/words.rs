//! The sentence that stands in the Event and the log of an eviction.

use super::{Case, Refusal};
use crate::cluster::node_mounts::GateRoot;
use crate::coordinator::guard::Guard;

/// Why a pod is evicted, with the evidence.
#[must_use]
pub fn evidence(case: &Case<'_>) -> String {
    let request = case.request;
    let root = match request.gate.root {
        GateRoot::Same => "the same directory",
        GateRoot::Different => "another directory",
        GateRoot::Empty => "an empty directory",
        GateRoot::Pseudo => "a directory where nothing is exported",
        GateRoot::Unknown => "something that could not be compared",
    };
    let trials = [request.gate.first, request.gate.second].into_iter().flatten().map(|time| time.to_string());
    format!(
        "volume {} ({}:{}) is {} ({}) since {}; trial mounts at {} found {root} ({})",
        request.volume,
        request.server,
        request.export,
        request.state.as_str(),
        request.cause,
        request.since,
        trials.collect::<Vec<_>>().join(" and "),
        request.gate.words
    )
}

impl Refusal {
    /// What a person reads who must do something about it.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!("not evicted: {}. {}", self.words(), self.guard.advice())
    }

    /// Worth an Event on the pod: not what passes by itself within minutes, nor what concerns no pod of the cluster.
    #[must_use]
    pub fn worth_telling(&self) -> bool {
        use Guard::{
            Backoff, Breaker, Fleet, Malformed, Mode, NotReady, OtherNode, OtherPod, PodGone, Repeated, Replacement,
        };
        let waiting = [Backoff, Breaker, Fleet, NotReady, Replacement, Repeated];
        let nobody = [Mode, Malformed, PodGone, OtherPod, OtherNode];
        match self.guard.holds() {
            crate::coordinator::guard::Holds::Permanent => !nobody.contains(&self.guard),
            crate::coordinator::guard::Holds::Wait => waiting.contains(&self.guard),
        }
    }
}
