//! Builds the parts and owns the loop.

use std::path::PathBuf;

use crate::config::Config;
use crate::logging::Logs;
use crate::snapshot::Snapshot;

/// What one pass over the mounts found.
#[derive(Debug)]
pub struct CheckResult {
    /// The mounts asked for.
    pub snapshot: Snapshot,
    /// Paths that lie on no monitored mount.
    pub not_monitored: Vec<PathBuf>,
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the agent from running.
pub async fn run(
    _config: Config,
    _reload: Box<dyn FnMut() -> anyhow::Result<Config>>,
    _logs: Logs,
) -> anyhow::Result<()> {
    anyhow::bail!("the agent's loop is not in this build")
}

/// One pass over all mounts, or over those that hold the named paths.
///
/// # Errors
/// What keeps the pass from being made.
pub async fn check(_config: &Config, _paths: &[PathBuf]) -> anyhow::Result<CheckResult> {
    anyhow::bail!("the agent's loop is not in this build")
}
