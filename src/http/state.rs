//! What the agent's loop and the connections share.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::renderer::{Handover, Rendered};
use crate::snapshot::Snapshot;

/// The agent's loop beats every second; after this long without one it counts as dead. Shorter than three liveness
/// probes of a kubelet, longer than a throttled CPU pauses a process (CFS bandwidth periods are 100 ms).
const BEAT_LIMIT: Duration = Duration::from_secs(10);

/// Why HTTP could not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The rendering thread did not start.
    #[error(
        "cannot start the thread that renders /metrics: {0}; check the limits of threads and memory (ulimit -u, pids.max)"
    )]
    Thread(#[source] io::Error),
}

/// Shared by the agent's loop, which publishes and beats, and by the connections, which only read.
#[derive(Debug)]
pub struct HttpState {
    handover: Arc<Handover>,
    started: Instant,
    /// Milliseconds after `started` of the last beat.
    last_beat: AtomicU64,
    refused: AtomicU64,
}

impl HttpState {
    /// Starts the rendering thread; `process_*` come from `/proc`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new() -> Result<Arc<HttpState>, HttpError> {
        Self::with_proc_root(PathBuf::from("/proc"))
    }

    /// Like [`HttpState::new`], for another place of procfs (`--proc-root`).
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn with_proc_root(proc_root: PathBuf) -> Result<Arc<HttpState>, HttpError> {
        let handover = Handover::start(proc_root).map_err(HttpError::Thread)?;
        Ok(Arc::new(HttpState {
            handover,
            started: Instant::now(),
            last_beat: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// Hands a snapshot to the rendering thread and returns at once. Of several that wait the newest wins.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.handover.publish(snapshot);
    }

    /// The agent's loop is alive; to be called every second.
    pub fn beat(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_beat.store(now, Ordering::Relaxed);
    }

    /// A snapshot that says `ready` is published and rendered.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.rendered().is_some_and(|rendered| rendered.snapshot.ready)
    }

    /// Connections refused because too many were open, or because the process had no descriptor left.
    #[must_use]
    pub fn refused_total(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The newest finished bodies.
    pub(super) fn rendered(&self) -> Option<Arc<Rendered>> {
        self.handover.rendered()
    }

    /// How long ago the last beat was, as `Err` when that is too long.
    pub(super) fn alive(&self) -> Result<Duration, Duration> {
        let last = Duration::from_millis(self.last_beat.load(Ordering::Relaxed));
        judge_beat(self.started.elapsed().saturating_sub(last))
    }
}

impl Drop for HttpState {
    fn drop(&mut self) {
        self.handover.close();
    }
}

fn judge_beat(age: Duration) -> Result<Duration, Duration> {
    if age > BEAT_LIMIT { Err(age) } else { Ok(age) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_older_than_the_limit_is_a_dead_loop() {
        assert!(judge_beat(BEAT_LIMIT).is_ok());
        assert!(judge_beat(BEAT_LIMIT + Duration::from_millis(1)).is_err());
    }

    #[test]
    fn a_beat_makes_the_loop_alive() {
        let state = HttpState::new().expect("thread");
        state.beat();
        assert!(state.alive().expect("alive") < BEAT_LIMIT);
    }
}
