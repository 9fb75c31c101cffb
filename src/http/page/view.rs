//! What the templates print, worked out beforehand: a template decides nothing.

use std::collections::BTreeSet;

use super::filter::{Filter, server_of, severity_word};
use super::html::{Moment, Piece, age, many, pieces, seconds, setting};
use super::incident::{Incident, incidents};
use crate::snapshot::{Change, Intent, MountStatus, PendingVolume, PodPlan, Snapshot};
use crate::verdict::{Severity, State};

/// Incidents that are shown; each has one server and one fault.
const MAX_INCIDENTS: usize = 50;

/// Healthy mounts listed by name.
const MAX_ROWS: usize = 500;

/// Servers that the filter offers.
const MAX_SERVERS: usize = 200;

/// Volumes that pods wait for, listed by name.
const MAX_WAITING: usize = 40;

/// Pods whose plan is told.
const MAX_PLANS: usize = 60;

/// Changes of the last hour that are told.
const MAX_CHANGES: usize = 60;

/// Mountpoints of one change that are named.
const NAMED: usize = 3;

/// A snapshot older than this gets a warning: the agent's loop makes one every few seconds.
const OLD_SECONDS: f64 = 30.0;

/// The whole page.
pub(super) struct View<'a> {
    pub(super) node: &'a str,
    pub(super) version: &'a str,
    pub(super) title: String,
    /// Class of the worst state.
    pub(super) worst: &'static str,
    pub(super) headline: String,
    /// The worst of it in one sentence; empty where nothing is wrong.
    pub(super) first: String,
    /// The snapshot's time.
    pub(super) made: Moment,
    pub(super) notes: Vec<String>,
    pub(super) counts: Vec<Count>,
    pub(super) filter: &'a Filter,
    pub(super) states: Vec<&'static str>,
    pub(super) servers: Vec<&'a str>,
    /// Mounts that the filter hides.
    pub(super) filtered_out: usize,
    pub(super) incidents: Vec<Incident<'a>>,
    pub(super) incidents_left_out: usize,
    pub(super) healthy: Vec<Row<'a>>,
    pub(super) healthy_count: usize,
    pub(super) waiting: Vec<Waiting<'a>>,
    pub(super) waiting_count: usize,
    pub(super) plan: Vec<Plan<'a>>,
    pub(super) changes: Vec<Told<'a>>,
    pub(super) changes_left_out: usize,
    pub(super) autofs: Vec<(&'a str, &'a str)>,
    pub(super) interval: String,
    pub(super) timeout: String,
    pub(super) workers: [u64; 3],
}

/// How many mounts are in a class.
pub(super) struct Count {
    pub(super) class: &'static str,
    pub(super) number: usize,
    /// `2 hung, 1 stale`
    pub(super) states: String,
    pub(super) chosen: bool,
}

/// A healthy mount.
pub(super) struct Row<'a> {
    pub(super) mountpoint: &'a str,
    pub(super) source: &'a str,
    pub(super) fstype: &'a str,
    pub(super) findings: String,
    pub(super) probed: String,
    pub(super) took: String,
}

/// A volume that a pod waits for.
pub(super) struct Waiting<'a> {
    pub(super) pod: String,
    pub(super) volume: &'a str,
    pub(super) source: &'a str,
    pub(super) since: Moment,
    pub(super) cause: Option<&'static str>,
    pub(super) evidence: &'a str,
    pub(super) advice: Vec<Piece<'a>>,
}

/// What is planned for a pod on a dead mount.
pub(super) struct Plan<'a> {
    pub(super) pod: String,
    pub(super) state: &'static str,
    pub(super) mounts: String,
    /// Eviction, and the release of its mounts.
    pub(super) remedies: [Remedy<'a>; 2],
}

/// A remedy that would be applied, or the guard that says no.
pub(super) struct Remedy<'a> {
    pub(super) name: &'static str,
    pub(super) go: bool,
    pub(super) guard: Option<&'a str>,
    pub(super) words: &'a str,
    pub(super) advice: Vec<Piece<'a>>,
}

/// A change, as it is told.
pub(super) struct Told<'a> {
    pub(super) at: Moment,
    /// Place on a line of 3,600 seconds.
    pub(super) x: String,
    pub(super) class: &'static str,
    pub(super) server: &'a str,
    pub(super) what: String,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) cause: Option<&'static str>,
}

impl<'a> View<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, filter: &'a Filter, now: f64) -> View<'a> {
        let shown: Vec<&MountStatus> = snapshot.mounts.iter().filter(|mount| filter.admits(mount)).collect();
        let healthy: Vec<&MountStatus> = shown.iter().copied().filter(|mount| mount.state == State::Healthy).collect();
        let pending: Vec<&PendingVolume> =
            snapshot.pending.iter().filter(|pending| filter.admits_pending(pending)).collect();
        let mut incidents = incidents(snapshot, &shown, now);
        let incidents_left_out = incidents.len().saturating_sub(MAX_INCIDENTS);
        incidents.truncate(MAX_INCIDENTS);
        let servers: BTreeSet<&str> = snapshot.mounts.iter().map(server_of).collect();
        let agent = &snapshot.agent;
        let dead = count(snapshot, Severity::Dead);
        let changes: Vec<&Change> = snapshot.history.iter().rev().collect();
        View {
            node: &snapshot.node,
            version: &snapshot.version,
            title: if dead > 0 { format!("{dead} dead on {}", snapshot.node) } else { snapshot.node.clone() },
            worst: severity_word(worst(snapshot)),
            headline: headline(snapshot),
            first: incidents.first().map(first).unwrap_or_default(),
            made: Moment::of(snapshot.generated, now),
            notes: notes(snapshot, now),
            counts: counts(snapshot, filter),
            filter,
            states: State::ALL.iter().map(|state| state.as_str()).collect(),
            servers: servers.into_iter().take(MAX_SERVERS).collect(),
            filtered_out: snapshot.mounts.len() - shown.len(),
            incidents,
            incidents_left_out,
            healthy_count: healthy.len(),
            healthy: healthy.into_iter().take(MAX_ROWS).map(|mount| row(mount, now)).collect(),
            waiting: pending.iter().take(MAX_WAITING).map(|pending| waiting(pending, now)).collect(),
            waiting_count: if filter.is_empty() { snapshot.pending_count } else { pending.len() },
            plan: snapshot.plan.iter().filter(|pod| is_on(pod, &shown)).take(MAX_PLANS).map(plan).collect(),
            changes_left_out: changes.len().saturating_sub(MAX_CHANGES),
            changes: changes.into_iter().take(MAX_CHANGES).map(|change| told(change, now)).collect(),
            autofs: snapshot.autofs.iter().map(|a| (a.mountpoint.as_str(), a.source.as_str())).take(MAX_ROWS).collect(),
            interval: setting(snapshot.interval_seconds),
            timeout: setting(snapshot.timeout_seconds),
            workers: [agent.workers_idle, agent.workers_busy, agent.workers_stuck],
        }
    }
}

/// The pod is on one of these mounts.
fn is_on(plan: &PodPlan, mounts: &[&MountStatus]) -> bool {
    let uses = |mount: &&MountStatus| {
        mount.users.iter().any(|user| user.pod_uid == plan.pod_uid)
            || mount.paths.iter().any(|path| plan.mounts.contains(path))
    };
    mounts.iter().filter(|mount| mount.state != State::Healthy).any(uses)
}

fn count(snapshot: &Snapshot, severity: Severity) -> usize {
    snapshot.mounts.iter().filter(|mount| mount.severity() == severity).count()
}

fn worst(snapshot: &Snapshot) -> Severity {
    let order = [Severity::Dead, Severity::Degraded, Severity::Unknown];
    order.into_iter().find(|severity| count(snapshot, *severity) > 0).unwrap_or(Severity::Healthy)
}

/// The first sentence.
fn headline(snapshot: &Snapshot) -> String {
    let all = many(snapshot.mounts.len(), "mount");
    let number = |severity| count(snapshot, severity);
    match worst(snapshot) {
        _ if snapshot.mounts.is_empty() && snapshot.ready => "This node has no network mounts.".to_owned(),
        _ if snapshot.mounts.is_empty() => "No mount has been probed yet.".to_owned(),
        Severity::Dead => format!("{} of {all} dead.", number(Severity::Dead)),
        Severity::Degraded => format!("{} of {all} degraded.", number(Severity::Degraded)),
        Severity::Unknown => format!("{} of {all} could not be probed.", number(Severity::Unknown)),
        Severity::Healthy if snapshot.mounts.len() == 1 => "The one mount of this node answers.".to_owned(),
        Severity::Healthy => format!("All {all} answer."),
    }
}

/// Where to begin: the first incident, and who feels it.
fn first(incident: &Incident<'_>) -> String {
    let why = incident.cause.unwrap_or(incident.state).replace('_', " ");
    let pods = if incident.pods_count > 0 { format!(", {} hit", incident.pods_told) } else { String::new() };
    format!("First {}: {why} for {}{pods}.", incident.what, incident.since.ago)
}

fn notes(snapshot: &Snapshot, now: f64) -> Vec<String> {
    let agent = &snapshot.agent;
    let mut notes = Vec::new();
    if now - snapshot.generated > OLD_SECONDS {
        let words = "This page is old: the agent has made no new snapshot. Look at its log and at /healthz.";
        notes.push(words.to_owned());
    }
    if !snapshot.ready {
        notes.push("The first pass over all mounts is still under way.".to_owned());
    }
    if agent.workers_stuck > 0 {
        let workers = many(usize::try_from(agent.workers_stuck).unwrap_or(usize::MAX), "killed probe worker");
        notes.push(format!("The kernel holds {workers} until the mount answers. Nothing waits for that."));
    }
    if let Some(error) = &agent.host_error {
        notes.push(format!("Mounts that only the host has are missing here: {error}"));
    }
    if !agent.config_ok {
        notes.push("The configuration file is not valid: the one before it is in force. The log says why.".to_owned());
    }
    let troubles = agent.cluster.iter().flat_map(|cluster| &cluster.troubles);
    notes.extend(troubles.map(|(part, words)| format!("Cluster, {}: {words}", part.replace('_', " "))));
    notes
}

fn counts(snapshot: &Snapshot, filter: &Filter) -> Vec<Count> {
    let of = |severity: Severity| {
        let class = severity_word(severity);
        let states = State::ALL.iter().filter(|state| state.severity() == severity && state.as_str() != class);
        let told = states.filter_map(|state| {
            let number = snapshot.summary.get(state.as_str()).copied().filter(|number| *number > 0)?;
            Some(format!("{number} {state}"))
        });
        let states = told.collect::<Vec<_>>().join(", ");
        Count { class, number: count(snapshot, severity), states, chosen: filter.state == class }
    };
    [Severity::Dead, Severity::Degraded, Severity::Unknown, Severity::Healthy].map(of).into()
}

fn row(mount: &MountStatus, now: f64) -> Row<'_> {
    let findings: Vec<&str> = mount.findings.iter().map(|finding| mount.finding_words(*finding)).collect();
    Row {
        mountpoint: &mount.mountpoint,
        source: &mount.source,
        fstype: &mount.fstype,
        findings: findings.join("; "),
        probed: mount.last_probe.map_or_else(|| "never".to_owned(), |at| format!("{} ago", age(now - at))),
        took: seconds(mount.steps.iter().map(|step| step.seconds).sum()),
    }
}

fn plan(plan: &PodPlan) -> Plan<'_> {
    let remedies = [remedy("evict", &plan.evict), remedy("unstick", &plan.unstick)];
    Plan { pod: plan.pod_label(), state: plan.state.as_str(), mounts: plan.mounts.join(", "), remedies }
}

fn remedy<'a>(name: &'static str, intent: &'a Intent) -> Remedy<'a> {
    let (words, advice) = (&intent.words, pieces(&intent.advice));
    Remedy { name, go: intent.go, guard: intent.guard.as_deref(), words, advice }
}

fn waiting(pending: &PendingVolume, now: f64) -> Waiting<'_> {
    Waiting {
        pod: pending.pod_label(),
        volume: &pending.volume,
        source: &pending.source,
        since: Moment::of(pending.since, now),
        cause: pending.cause.map(|cause| cause.as_str()),
        evidence: &pending.evidence,
        advice: pieces(&pending.advice),
    }
}

fn told(change: &Change, now: f64) -> Told<'_> {
    let named = change.mountpoints.get(..NAMED).unwrap_or(&change.mountpoints);
    let what = match (named, change.count) {
        ([one], 1) => one.clone(),
        (named, count) => match count.saturating_sub(named.len()) {
            0 => format!("{}: {}", many(count, "mount"), named.join(", ")),
            more => format!("{}: {} and {more} more", many(count, "mount"), named.join(", ")),
        },
    };
    Told {
        at: Moment::of(change.first, now),
        x: format!("{:.0}", (3600.0 - (now - change.first)).clamp(0.0, 3600.0)),
        class: change.to.map_or("unknown", |state| severity_word(state.severity())),
        server: &change.server,
        what,
        from: change.from.map_or("first seen", State::as_str),
        to: change.to.map_or("unmounted", State::as_str),
        cause: change.cause.map(|cause| cause.as_str()),
    }
}
