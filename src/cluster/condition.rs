//! The Node's condition `NetworkMountsHealthy`.
//!
//! Kubernetes never times a condition out that is not its own, so it has a heartbeat and becomes Unknown when the agent
//! ends. It turns False at once (a verdict is evidence enough) and True only after a while without a dead mount.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::api::{Failure, Kube, Patch};
use super::backoff::Backoff;
use super::pace::Pace;
use super::stats::Stats;
use super::text;
use super::uses::rank;
use crate::snapshot::rfc3339 as time;
use crate::snapshot::{Snapshot, UnixSeconds};
use crate::verdict::{Severity, State};

/// Its type.
pub(super) const TYPE: &str = "NetworkMountsHealthy";

/// Longest message.
const MESSAGE: usize = 512;

/// What the condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    /// One word.
    pub(super) reason: String,
    /// One sentence.
    pub(super) message: String,
}

impl Condition {
    /// What this snapshot says.
    pub(super) fn of(snapshot: &Snapshot) -> Option<Condition> {
        if !snapshot.ready {
            return None;
        }
        let dead: Vec<_> = snapshot.mounts.iter().filter(|mount| mount.severity() == Severity::Dead).collect();
        let worst = dead.iter().max_by(|a, b| rank(a.state).cmp(&rank(b.state)).then(b.since.total_cmp(&a.since)));
        let Some(worst) = worst else {
            let mounts = snapshot.mounts.len();
            let message = format!("{mounts} network mount{} and none is dead", if mounts == 1 { "" } else { "s" });
            let message = text::line(&format!("{message}{}", waiting(snapshot)), MESSAGE);
            return Some(Condition { status: "True", reason: "MountsHealthy".to_owned(), message });
        };
        let count = |state: State| (state, dead.iter().filter(|mount| mount.state == state).count());
        let counts: Vec<String> = State::ALL
            .iter()
            .map(|state| count(*state))
            .filter(|(_, count)| *count > 0)
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        let cause = worst.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        let message = format!(
            "{}; worst: {} is {}{cause} since {}{}",
            counts.join(", "),
            text::word(&worst.source),
            worst.state,
            time(worst.since),
            waiting(snapshot)
        );
        Some(Condition { status: "False", reason: word(worst.state), message: text::line(&message, MESSAGE) })
    }

    /// What it says when the agent is gone.
    pub(super) fn stopped() -> Condition {
        Condition {
            status: "Unknown",
            reason: "AgentStopped".to_owned(),
            message: "the agent of this node ended; nobody looks at its mounts".to_owned(),
        }
    }
}

/// Volumes that pods wait for. They are no mounts of this node yet, so they turn nothing False: the reason why pods do not
/// start here is what people look for in this place.
fn waiting(snapshot: &Snapshot) -> String {
    let mut blocked = snapshot.pending.iter().filter(|row| row.blocked);
    let Some(longest) = blocked.next() else { return String::new() };
    let others = blocked.count();
    let more = if others > 0 { format!(" and {others} more") } else { String::new() };
    let cause = longest.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    format!("; pods wait for {}{cause}{more}, which cannot be mounted", text::word(&longest.source))
}

/// `MountsHung`, as the reasons of Events are worded.
fn word(state: State) -> String {
    let state = state.as_str();
    let (first, rest) = state.split_at(1);
    format!("Mounts{}{rest}", first.to_ascii_uppercase())
}

/// What was said, and what is to be said next.
#[derive(Debug)]
pub(super) struct Voice {
    pace: Pace,
    /// As it stands in the cluster.
    said: Option<Condition>,
    /// Since when its status is what it is.
    transition: UnixSeconds,
    wanted: Option<Condition>,
    /// Since when all mounts work.
    calm: Option<Instant>,
    last: Option<Instant>,
}

impl Voice {
    pub(super) fn new(pace: Pace) -> Voice {
        Voice { pace, said: None, transition: 0.0, wanted: None, calm: None, last: None }
    }

    /// What an agent before this one left.
    fn found(&mut self, status: &str, transition: UnixSeconds) {
        let status = ["True", "False"].into_iter().find(|known| *known == status).unwrap_or("Unknown");
        self.said = Some(Condition { status, reason: String::new(), message: String::new() });
        self.transition = transition;
    }

    pub(super) fn hear(&mut self, condition: Condition, now: Instant) {
        if condition.status == "True" {
            self.calm.get_or_insert(now);
        } else {
            self.calm = None;
        }
        self.wanted = Some(condition);
    }

    /// What to write now, and whether its status is another one.
    fn next(&self, now: Instant) -> Option<(Condition, bool)> {
        let mut wanted = self.wanted.clone()?;
        let said = self.said.as_ref();
        let worse = said.filter(|said| said.status == "False" && wanted.status == "True");
        if let Some(said) = worse.filter(|_| !self.is_calm(now)) {
            // The heartbeat goes on with what was said; of an agent before this one only the status is known.
            wanted = if said.reason.is_empty() {
                Condition { status: "False", reason: "MountsHealthy".to_owned(), ..wanted }
            } else {
                said.clone()
            };
        }
        let turned = said.is_none_or(|said| said.status != wanted.status);
        let other = said != Some(&wanted);
        let since = |gap| self.last.is_none_or(|last| now.duration_since(last) >= gap);
        let due = turned || (other && since(self.pace.condition_gap)) || since(self.pace.heartbeat);
        due.then_some((wanted, turned))
    }

    fn is_calm(&self, now: Instant) -> bool {
        self.calm.is_some_and(|calm| now.duration_since(calm) >= self.pace.calm)
    }

    fn written(&mut self, condition: Condition, transition: UnixSeconds, now: Instant) {
        self.said = Some(condition);
        self.transition = transition;
        self.last = Some(now);
    }

    /// When something may be due next.
    fn wake(&self, now: Instant) -> Instant {
        let heartbeat = self.last.map_or(now, |last| last + self.pace.heartbeat);
        let gap = self.last.map_or(now, |last| last + self.pace.condition_gap);
        let calm = self.calm.map(|calm| calm + self.pace.calm);
        let other = self.said != self.wanted;
        let mut wake = heartbeat;
        for at in [other.then_some(gap), calm].into_iter().flatten() {
            if at > now {
                wake = wake.min(at);
            }
        }
        wake
    }
}

/// The patch that says it.
fn patch(condition: &Condition, transition: UnixSeconds, now: UnixSeconds) -> Value {
    json!({"status": {"conditions": [{
        "type": TYPE,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastHeartbeatTime": time(now),
        "lastTransitionTime": time(transition),
    }]}})
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    conditions: Vec<Present>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Present {
    r#type: String,
    status: String,
    last_transition_time: Option<String>,
}

/// Writes the condition of one node.
pub(super) struct Writer {
    kube: Kube,
    path: String,
    pace: Pace,
    stats: Stats,
    voice: Voice,
}

impl Writer {
    pub(super) fn new(kube: Kube, node: &str, pace: Pace, stats: Stats) -> Writer {
        Writer { kube, path: format!("/api/v1/nodes/{node}"), pace, stats, voice: Voice::new(pace) }
    }

    /// Until the agent stops; then it says so.
    pub(super) async fn run(mut self, mut heard: watch::Receiver<Option<Condition>>, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.keep(&mut heard) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        // An agent that never said anything has nothing to take back.
        if self.voice.said.is_some() {
            let now = super::now();
            let _ = self
                .kube
                .patch(
                    "nodes",
                    &format!("{}/status", self.path),
                    Patch::Strategic,
                    &patch(&Condition::stopped(), now, now),
                )
                .await;
        }
    }

    async fn keep(&mut self, heard: &mut watch::Receiver<Option<Condition>>) {
        let mut backoff = Backoff::new(self.pace.first_retry, self.pace.longest_retry);
        let mut known = false;
        let mut not_before = Instant::now();
        loop {
            let now = Instant::now();
            let condition = heard.borrow_and_update().clone();
            if let Some(condition) = condition {
                self.voice.hear(condition, now);
            }
            if self.voice.wanted.is_some() && now >= not_before {
                match self.speak(&mut known, now).await {
                    Ok(()) => {
                        backoff.reset();
                        self.stats.trouble("condition", None);
                    }
                    Err(failure) => {
                        let words = format!("the condition {TYPE} of this Node is not up to date: {failure}");
                        self.stats.trouble("condition", Some(words));
                        not_before = Instant::now() + backoff.after(&failure);
                    }
                }
            }
            let wake = self.voice.wake(Instant::now()).max(not_before);
            tokio::select! {
                changed = heard.changed() => if changed.is_err() { return },
                () = sleep_until(wake) => {}
            }
        }
    }

    async fn speak(&mut self, known: &mut bool, now: Instant) -> Result<(), Failure> {
        if !*known {
            let node: Node = self.kube.get("nodes", &self.path).await?;
            *known = true;
            if let Some(present) = node.status.conditions.iter().find(|present| present.r#type == TYPE) {
                let at = present.last_transition_time.as_deref().and_then(|text| humantime::parse_rfc3339(text).ok());
                let at =
                    at.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0.0, |at| at.as_secs_f64());
                self.voice.found(&present.status, at);
            }
        }
        let Some((condition, turned)) = self.voice.next(now) else { return Ok(()) };
        let wall = super::now();
        let transition = if turned || self.voice.transition == 0.0 { wall } else { self.voice.transition };
        let body = patch(&condition, transition, wall);
        self.kube.patch("nodes", &format!("{}/status", self.path), Patch::Strategic, &body).await?;
        self.voice.written(condition, transition, Instant::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
