//! What the coordinator shows: the last decisions, its counters, whether it is alive. The loop writes, HTTP reads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::guard::Guard;

mod render;

/// Decisions that are kept.
pub const KEPT: usize = 200;

/// The loop beats each round; a round is a few calls of 4 s at most each. After this long without one it is stuck.
const BEAT_LIMIT: Duration = Duration::from_secs(120);

/// A decision as `/api/v1/decisions` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// When, RFC 3339.
    pub at: String,
    /// `evict` or `refuse`.
    pub decision: &'static str,
    /// The mode in which it was made.
    pub mode: &'static str,
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// The dead server.
    pub server: String,
    /// The guard that said no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<&'static str>,
    /// `wait` or `permanent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<&'static str>,
    /// What became of it, or why not, in words.
    pub words: String,
    /// What the agent saw.
    pub evidence: String,
}

/// What the last round saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// May act.
    pub leader: bool,
    /// Evictions are really made.
    pub enabled: bool,
    /// What was done before is known.
    pub history_known: bool,
    /// Nodes that report.
    pub nodes: usize,
    /// Requests of all nodes.
    pub requests: usize,
    /// Requests that nobody reads.
    pub left_out: usize,
    /// Evictions in flight.
    pub in_flight: usize,
    /// Servers whose breaker is open.
    pub breakers: Vec<String>,
}

#[derive(Debug)]
struct Inner {
    beat: Instant,
    ready: bool,
    standing: Standing,
    rounds: u64,
    refused_connections: u64,
    decisions: VecDeque<Told>,
    guards: BTreeMap<Option<Guard>, u64>,
    results: BTreeMap<&'static str, u64>,
    errors: BTreeMap<&'static str, u64>,
}

/// Shared by the loop and the connections.
#[derive(Debug)]
pub struct Board(Mutex<Inner>);

impl Default for Board {
    fn default() -> Self {
        Board(Mutex::new(Inner {
            beat: Instant::now(),
            ready: false,
            standing: Standing::default(),
            rounds: 0,
            refused_connections: 0,
            decisions: VecDeque::new(),
            guards: BTreeMap::new(),
            results: BTreeMap::new(),
            errors: BTreeMap::new(),
        }))
    }
}

impl Board {
    /// The loop is alive.
    pub fn beat(&self) {
        self.inner().beat = Instant::now();
    }

    /// All nodes' reports were read once.
    pub fn set_ready(&self) {
        self.inner().ready = true;
    }

    /// What the round saw.
    pub fn standing(&self, standing: Standing) {
        let mut inner = self.inner();
        inner.rounds += u64::from(standing.leader);
        inner.standing = standing;
    }

    /// A decision that is new.
    pub fn tell(&self, told: Told, guard: Option<Guard>) {
        let mut inner = self.inner();
        *inner.guards.entry(guard).or_insert(0) += 1;
        if inner.decisions.len() == KEPT {
            inner.decisions.pop_front();
        }
        inner.decisions.push_back(told);
    }

    /// What became of an eviction.
    pub fn result(&self, result: &'static str) {
        *self.inner().results.entry(result).or_insert(0) += 1;
    }

    /// A call failed.
    pub fn error(&self, call: &'static str) {
        *self.inner().errors.entry(call).or_insert(0) += 1;
    }

    pub(super) fn count_refused(&self) {
        self.inner().refused_connections += 1;
    }

    /// How long ago the last beat was, as `Err` when that is too long.
    pub(super) fn alive(&self) -> Result<Duration, Duration> {
        let age = self.inner().beat.elapsed();
        if age > BEAT_LIMIT { Err(age) } else { Ok(age) }
    }

    pub(super) fn ready(&self) -> bool {
        self.inner().ready
    }

    /// The decisions, oldest first, as JSON.
    #[must_use]
    pub fn decisions(&self) -> String {
        let inner = self.inner();
        // Plain data.
        serde_json::to_string(&inner.decisions).unwrap_or_default() + "\n"
    }

    /// The exposition.
    #[must_use]
    pub fn metrics(&self) -> String {
        render::metrics(&self.inner())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::catalog::COORDINATOR;

    fn told(pod: usize) -> Told {
        Told {
            at: "2026-11-21T03:00:00Z".to_owned(),
            decision: "refuse",
            mode: "enforce",
            namespace: "shop".to_owned(),
            pod: pod.to_string(),
            uid: "u".to_owned(),
            node: "n".to_owned(),
            server: "srv".to_owned(),
            guard: Some(Guard::Gate.as_str()),
            holds: Some("wait"),
            words: String::new(),
            evidence: String::new(),
        }
    }

    #[tokio::test]
    async fn the_last_two_hundred_decisions_are_kept() {
        let board = Board::default();
        (0..KEPT + 5).for_each(|pod| board.tell(told(pod), Some(Guard::Gate)));
        let shown: serde_json::Value = serde_json::from_str(&board.decisions()).unwrap();
        assert_eq!((shown.as_array().unwrap().len(), &shown[0]["pod"]), (KEPT, &serde_json::json!("5")));
        assert!(board.metrics().contains("mountwarden_coordinator_decisions_total{guard=\"gate\"} 205\n"));
    }

    #[tokio::test]
    async fn every_metric_of_the_catalog_is_shown_and_no_other() {
        let board = Board::default();
        board.standing(Standing { breakers: vec!["a\"b\n".to_owned()], leader: true, ..Standing::default() });
        board.error("history");
        let text = board.metrics();
        for metric in COORDINATOR {
            assert!(text.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind.as_str())), "{}", metric.name);
            let sample = text.lines().find(|line| line.split(['{', ' ']).next() == Some(metric.name));
            let sample = sample.unwrap_or_else(|| panic!("{} has no series", metric.name));
            assert!(metric.labels.iter().all(|label| sample.contains(&format!("{label}=\""))), "{sample}");
        }
        let named = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(named, COORDINATOR.len());
        assert!(text.contains("breaker_open{server=\"a\\\"b\\n\"} 1\n"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_is_stuck_is_not_alive() {
        let board = Board::default();
        assert!(board.alive().is_ok());
        tokio::time::advance(BEAT_LIMIT + Duration::from_secs(1)).await;
        assert!(board.alive().is_err());
        board.beat();
        assert!(board.alive().is_ok());
    }
}
