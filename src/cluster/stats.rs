//! What the cluster's side counts about itself; read by the agent's loop for its snapshot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Why Events are not sent.
pub const WHY_DROPPED: [&str; 3] = ["budget", "refused", "superseded"];

/// Requests, Events and the state of the watch. Every key is from a fixed set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterStats {
    /// The watch of this node's pods is up and has been heard of lately.
    pub watching: bool,
    /// A whole list of this node's pods was read since the start.
    pub listed: bool,
    /// Pods of this node that are known.
    pub pods: u64,
    /// Pods left out because the node has more than are kept.
    pub pods_left_out: u64,
    /// Requests by resource and result (`ok`, or the class of the failure).
    pub requests: BTreeMap<String, BTreeMap<String, u64>>,
    /// Events that the API server took, by reason.
    pub events_sent: BTreeMap<String, u64>,
    /// Events that were not sent, by why (`budget`, `refused`, `superseded`).
    pub events_dropped: BTreeMap<String, u64>,
    /// Events that wait.
    pub events_waiting: u64,
    /// What does not work at present, by part (`pods`, `events`, `condition`, `node_mounts`, `volumes`), in words.
    pub troubles: BTreeMap<String, String>,
}

/// Shared by all parts; locked for a few instructions at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Stats(Arc<Mutex<ClusterStats>>);

impl Stats {
    /// A copy.
    pub(super) fn get(&self) -> ClusterStats {
        self.lock().clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut ClusterStats)) {
        change(&mut self.lock());
    }

    pub(super) fn request(&self, resource: &'static str, result: &'static str) {
        self.change(|stats| count(stats.requests.entry(resource.to_owned()).or_default(), result));
    }

    pub(super) fn sent(&self, reason: &'static str) {
        self.change(|stats| count(&mut stats.events_sent, reason));
    }

    pub(super) fn dropped(&self, why: &'static str) {
        self.change(|stats| count(&mut stats.events_dropped, why));
    }

    /// A part works, or does not and why. What changes is said once; each way in which it fails counts as a change.
    pub(super) fn trouble(&self, part: &'static str, trouble: Option<String>) {
        let news = {
            let mut stats = self.lock();
            match &trouble {
                Some(words) => {
                    stats.troubles.insert(part.to_owned(), words.clone()).is_none_or(|before| before != *words)
                }
                None => stats.troubles.remove(part).is_some(),
            }
        };
        match trouble {
            Some(words) if news => tracing::warn!(part, "cluster: {words}"),
            None if news => tracing::info!(part, "cluster: {part} works again"),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, ClusterStats> {
        // A count that was half made is no reason to stop counting.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(counts: &mut BTreeMap<String, u64>, key: &str) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => {
            counts.insert(key.to_owned(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_troubles_are_kept_by_key() {
        let stats = Stats::default();
        stats.request("pods", "ok");
        stats.request("pods", "ok");
        stats.trouble("pods", Some("no".into()));
        let seen = stats.get();
        assert_eq!((seen.requests["pods"]["ok"], seen.troubles["pods"].as_str()), (2, "no"));
        stats.trouble("pods", None);
        assert!(stats.get().troubles.is_empty());
    }
}
