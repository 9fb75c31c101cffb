//! `check`: one pass over the mounts, with the parts of the agent.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::CheckResult;
use super::core::Core;
use super::run::build;
use crate::config::Config;
use crate::mounts::filter::Filter;
use crate::mounts::table::{ById, Table, through};
use crate::mounts::{Mount, View};

/// One pass over all network mounts, or over those that hold the named paths (absolute).
///
/// It ends after a few deadlines, whatever the mounts do: probes of different superblocks run side by side.
///
/// # Errors
/// What keeps the pass from being made: the mount table cannot be read, no worker can be started.
pub async fn check(config: &Config, paths: &[PathBuf]) -> anyhow::Result<CheckResult> {
    pass(config, paths, false).await
}

/// The same over the mount that holds a path (absolute), and if reading is well a canary is written there, once, as the
/// configured identity.
///
/// # Errors
/// As of [`check`].
pub(crate) async fn check_by_writing(config: &Config, path: PathBuf) -> anyhow::Result<CheckResult> {
    pass(config, &[path], true).await
}

async fn pass(config: &Config, paths: &[PathBuf], write: bool) -> anyhow::Result<CheckResult> {
    // One round: no target comes due twice.
    let config =
        Config { interval: Duration::from_secs(3600), backoff_max: Duration::from_secs(3600), ..config.clone() };
    let table = Table::read(&config.proc_root)?;
    let limit = Instant::now() + config.timeout.saturating_mul(6) + Duration::from_secs(2);
    let mut core = build(config, true)?;
    let (only, not_monitored) = narrow(&table, &core.filter, paths);
    core.only = only;
    if write {
        let held = paths.iter().filter_map(|path| holder(&table.mounts, path));
        core.canaries.switch.request(held.map(|mount| mount.mountpoint.clone()).collect());
    }
    core.stats.host_error = table.host_error.as_ref().map(ToString::to_string);
    core.take_table(table);
    drive(&mut core, limit).await.context("the pass did not come to its end")?;
    Ok(CheckResult { snapshot: core.snapshot(), not_monitored })
}

/// Runs the loop until every target is judged and every silent server was asked once.
pub(super) async fn drive(core: &mut Core, limit: Instant) -> anyhow::Result<()> {
    loop {
        core.tick();
        if core.ready() && core.suspected.is_empty() && !core.writing() && !core.servers.asking() && !core.asking() {
            return Ok(());
        }
        let wake = core.next_wake().map_or(limit, |at| core.start + at);
        let event = tokio::select! {
            event = timeout_at(limit, core.running.join_next()), if !core.running.is_empty() => event,
            () = sleep_until(wake.min(limit)) => Ok(None),
        };
        if let Ok(Some(event)) = event {
            core.take(event.context("a part of the pass failed")?);
        }
        if Instant::now() >= limit {
            // What was not judged by now is `unknown`, and says so.
            return Ok(());
        }
    }
}

/// The mounts that hold the named paths (`None`: all), and the paths that are on no monitored mount.
fn narrow(table: &Table, filter: &Filter, paths: &[PathBuf]) -> (Option<HashSet<(View, u64)>>, Vec<PathBuf>) {
    if paths.is_empty() {
        return (None, Vec::new());
    }
    let mut wanted = Vec::new();
    let mut strangers = Vec::new();
    for path in paths {
        match holder(&table.mounts, path).filter(|mount| filter.wants(mount)) {
            Some(mount) => wanted.push((mount.view, mount.id)),
            None => strangers.push(path.clone()),
        }
    }
    add_the_way(&table.mounts, &mut wanted);
    (Some(wanted.into_iter().collect()), strangers)
}

/// Adds the network mounts that the wanted ones are reached through: a dead one among them is what is the matter with the
/// path, and without it nobody could tell.
fn add_the_way(mounts: &[Mount], wanted: &mut Vec<(View, u64)>) {
    let by_id: ById<'_> = mounts.iter().map(|mount| ((mount.view, mount.id), mount)).collect();
    let mut from = 0;
    while let Some(other) = wanted.get(from).map(|key| by_id.get(key).and_then(|mount| through(mount, &by_id))) {
        let key = other.map(|other| (other.view, other.id));
        wanted.extend(key.filter(|key| !wanted.contains(key)));
        from += 1;
    }
}

/// The mount that a path is on: the deepest mountpoint above it that nothing hides.
pub(crate) fn holder<'table>(mounts: &'table [Mount], path: &Path) -> Option<&'table Mount> {
    mounts
        .iter()
        .filter(|mount| mount.hidden_by.is_none() && path.starts_with(&mount.mountpoint))
        .max_by_key(|mount| mount.mountpoint.components().count())
}
