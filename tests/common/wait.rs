//! Waiting for a condition instead of sleeping for a guessed time.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything that is expected to happen on a busy two-core machine; nobody waits it out when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `condition` gives a value and returns it; panics with `what` when `patience` is over.
pub fn eventually<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "after {patience:?} still not: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
