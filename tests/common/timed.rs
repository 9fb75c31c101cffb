//! For tests that measure times.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time between two probes in [`config`].
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Deadline of a probe in [`config`].
pub const DEADLINE: Duration = Duration::from_millis(500);
/// What a busy two-core machine and a debug build may add to a time that the contract promises.
pub const SLACK: Duration = Duration::from_secs(2);

/// Few cores and measured times: the tests of one file run one after the other (`.config/nextest.toml` says it to
/// nextest).
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Like [`config`] with a deadline that a busy machine keeps in a single pass too, where nothing is measured.
pub fn patient_config(dir: &Path) -> String {
    let path = dir.join("patient.yaml");
    std::fs::write(&path, "interval: 4s\ntimeout: 2s\nslow: 1s\n").unwrap();
    path.to_str().unwrap().to_owned()
}

/// Writes a configuration with short times, in the proportions of the defaults, and gives its path.
pub fn config(dir: &Path) -> String {
    let path = dir.join("config.yaml");
    std::fs::write(&path, "interval: 1s\ntimeout: 500ms\nslow: 400ms\n").unwrap();
    path.to_str().unwrap().to_owned()
}
