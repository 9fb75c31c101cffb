//! What is wrong, as a person is told: one incident for all mounts of a server that fail in the same way.

use std::collections::BTreeMap;

use super::filter::{server_of, severity_word};
use super::html::{Moment, Piece, age, many, pieces, seconds};
use crate::snapshot::{MountStatus, Snapshot, StepStatus};
use crate::verdict::State;

/// Mounts of one incident that are shown with their evidence; all are counted.
const LISTED_MOUNTS: usize = 50;

/// Pods of one incident that are named.
const LISTED_PODS: usize = 200;

/// With more pods than this, namespaces are told before names.
const FEW_PODS: usize = 12;

/// Paths of one mount that are named.
const LISTED_PATHS: usize = 16;

/// Mounts of one server in one state for one cause.
pub(super) struct Incident<'a> {
    pub(super) id: String,
    pub(super) severity: &'static str,
    pub(super) state: &'static str,
    pub(super) cause: Option<&'static str>,
    /// `server`, or `source` of what has none.
    pub(super) server_word: &'static str,
    pub(super) server: &'a str,
    /// `/mnt/data`, or `12 mounts`.
    pub(super) what: String,
    pub(super) since: Moment,
    pub(super) pods: Vec<Pod>,
    pub(super) pods_count: usize,
    /// `3 pods`
    pub(super) pods_told: String,
    /// Namespaces with their pods, where there are many.
    pub(super) namespaces: Vec<(String, usize)>,
    pub(super) pods_left_out: usize,
    pub(super) evidence: &'a str,
    pub(super) advice: Vec<Piece<'a>>,
    pub(super) checks: Vec<Check<'a>>,
    pub(super) mounts: Vec<MountView<'a>>,
    pub(super) mounts_left_out: usize,
}

/// A pod that is hit.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) volume: String,
}

/// What a server said to one question.
pub(super) struct Check<'a> {
    pub(super) check: &'a str,
    pub(super) up: bool,
    pub(super) took: String,
    pub(super) ago: String,
}

/// One mount with all that is known of it.
pub(super) struct MountView<'a> {
    pub(super) mountpoint: &'a str,
    pub(super) source: &'a str,
    pub(super) fstype: &'a str,
    pub(super) version: Option<&'a str>,
    pub(super) since: Moment,
    pub(super) inherited: bool,
    pub(super) evidence: &'a str,
    pub(super) advice: Vec<Piece<'a>>,
    pub(super) steps: Vec<Step<'a>>,
    pub(super) blocked: Option<String>,
    pub(super) answered: Option<Moment>,
    pub(super) findings: Vec<&'a str>,
    pub(super) canary: Option<String>,
    pub(super) paths: &'a [String],
    pub(super) path_count: usize,
}

/// One step of a probe.
pub(super) struct Step<'a> {
    pub(super) step: &'a str,
    pub(super) took: String,
    pub(super) error: Option<&'a str>,
}

/// The incidents among these mounts: the dead before the degraded, then the oldest first.
pub(super) fn incidents<'a>(snapshot: &'a Snapshot, mounts: &[&'a MountStatus], now: f64) -> Vec<Incident<'a>> {
    let mut groups: BTreeMap<_, Vec<&MountStatus>> = BTreeMap::new();
    for mount in mounts.iter().filter(|mount| mount.state != State::Healthy) {
        groups.entry((mount.state, mount.cause, server_of(mount))).or_default().push(mount);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    for group in &mut groups {
        // The verdict of its own before those that are inherited from it.
        group.sort_by(|a, b| a.inherited.cmp(&b.inherited).then(a.since.total_cmp(&b.since)));
    }
    let key = |group: &Vec<&MountStatus>| {
        group.first().map(|mount| (mount.severity().rank(), group.iter().map(|m| m.since).fold(f64::MAX, f64::min)))
    };
    groups.sort_by(|a, b| match (key(a), key(b)) {
        (Some(a), Some(b)) => a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)),
        (a, b) => a.is_none().cmp(&b.is_none()),
    });
    let numbered = groups.iter().enumerate();
    numbered.filter_map(|(index, group)| incident(snapshot, index, group, now)).collect()
}

fn incident<'a>(snapshot: &'a Snapshot, index: usize, group: &[&'a MountStatus], now: f64) -> Option<Incident<'a>> {
    let leader = *group.first()?;
    let mut pods: Vec<Pod> = group.iter().flat_map(|mount| users(mount)).collect();
    pods.sort();
    pods.dedup();
    // Some are only counted: those beyond the list of a mount.
    let unlisted: usize = group.iter().map(|mount| mount.pod_count.saturating_sub(mount.users.len())).sum();
    let mut names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    names.dedup();
    let pods_count = names.len() + unlisted;
    let first = group.iter().map(|mount| mount.since).fold(f64::MAX, f64::min);
    let namespaces = if pods_count > FEW_PODS { namespaces(&names) } else { Vec::new() };
    pods.truncate(LISTED_PODS);
    Some(Incident {
        id: format!("incident-{}", index + 1),
        severity: severity_word(leader.severity()),
        state: leader.state.as_str(),
        cause: leader.cause.map(|cause| cause.as_str()),
        server_word: if leader.origin.server.is_some() { "server" } else { "source" },
        server: server_of(leader),
        what: if group.len() == 1 {
            leader.mountpoint.clone()
        } else {
            format!("{} of {}", many(group.len(), "mount"), server_of(leader))
        },
        since: Moment::of(first, now),
        pods_left_out: pods_count.saturating_sub(pods.len()),
        pods_told: many(pods_count, "pod"),
        pods_count,
        namespaces,
        pods,
        evidence: &leader.evidence,
        advice: pieces(&leader.advice),
        checks: checks(snapshot, leader, now),
        mounts: group.iter().take(LISTED_MOUNTS).map(|mount| mount_view(mount, now)).collect(),
        mounts_left_out: group.len().saturating_sub(LISTED_MOUNTS),
    })
}

/// How many pods of each namespace there are; the ones without a name are together.
fn namespaces(names: &[&str]) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name.split_once('/').map_or("names not known", |(namespace, _)| namespace)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().map(|(namespace, count)| (namespace.to_owned(), count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(LISTED_PODS);
    counts
}

fn users(mount: &MountStatus) -> impl Iterator<Item = Pod> + '_ {
    mount.users.iter().map(|user| Pod { name: user.pod_label(), volume: user.volume.clone() })
}

fn checks<'a>(snapshot: &'a Snapshot, mount: &MountStatus, now: f64) -> Vec<Check<'a>> {
    let port = mount.origin.port;
    let of_it = snapshot.servers.iter().filter(|server| {
        Some(server.server.as_str()) == mount.origin.server.as_deref() && port.is_none_or(|port| port == server.port)
    });
    let told = of_it.flat_map(|server| server.checks.iter().map(move |check| (server, check)));
    told.map(|(server, check)| Check {
        check: &check.check,
        up: check.up,
        took: seconds(check.seconds),
        ago: age(now - server.checked),
    })
    .collect()
}

fn mount_view(mount: &MountStatus, now: f64) -> MountView<'_> {
    MountView {
        mountpoint: &mount.mountpoint,
        source: &mount.source,
        fstype: &mount.fstype,
        version: mount.origin.version.as_deref(),
        since: Moment::of(mount.since, now),
        inherited: mount.inherited,
        evidence: &mount.evidence,
        advice: pieces(&mount.advice),
        // What an earlier probe took, before this one was blocked, is no evidence of anything.
        steps: mount.steps.iter().filter(|_| mount.blocked_seconds <= 0.0).map(step).collect(),
        blocked: (mount.blocked_seconds > 0.0).then(|| age(mount.blocked_seconds)),
        answered: mount.last_success.map(|at| Moment::of(at, now)),
        findings: mount.findings.iter().map(|finding| mount.finding_words(*finding)).collect(),
        canary: mount.canary.as_ref().map(|canary| format!("{}: {}", canary.result, canary.detail)),
        paths: mount.paths.get(..LISTED_PATHS).unwrap_or(&mount.paths),
        path_count: mount.path_count,
    }
}

fn step(step: &StepStatus) -> Step<'_> {
    Step { step: &step.step, took: seconds(step.seconds), error: step.error.as_deref() }
}
