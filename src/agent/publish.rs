//! The loop's state as a [`Snapshot`]: what the outside sees.

use std::collections::BTreeMap;
use std::time::Duration;

use super::core::Core;
use super::judging::advice_for;
use super::target::Target;
use crate::mounts::octal;
use crate::probe::schedule::Now;
use crate::snapshot::{AutofsTrigger, MountStatus, SCHEMA, Snapshot, StepStatus};
use crate::verdict::judge::words::errno_name;
use crate::verdict::{Finding, State};

/// Paths of one target that are listed; all are counted.
const LISTED_PATHS: usize = 64;

impl Core {
    /// What is known now.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        let ready = self.ready();
        let now = self.now();
        let mut targets: Vec<&Target> = self.registry.targets.values().collect();
        targets.sort_by(|a, b| a.labels.cmp(&b.labels));
        let mut summary: BTreeMap<String, usize> = State::ALL.iter().map(|state| (state.to_string(), 0)).collect();
        for target in &targets {
            *summary.entry(target.verdict.state.to_string()).or_default() += 1;
        }
        let pool = self.pool.counts();
        let mut agent = self.stats.clone();
        agent.workers_idle = pool.idle;
        agent.workers_busy = pool.busy;
        agent.workers_stuck = pool.stuck;
        agent.workers_killed_total = pool.killed;
        agent.workers_started_total = pool.started;
        agent.workers_lost_total = pool.lost;
        agent.worker_protocol_errors_total = pool.protocol_errors;
        agent.worker_spawn_errors_total = pool.spawn_errors;
        agent.worker_cap_hits_total = pool.cap_hits;
        agent.durations = self.durations.values().cloned().collect();
        Snapshot {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            generated: super::unix_now(),
            ready,
            interval_seconds: self.config.interval.as_secs_f64(),
            timeout_seconds: self.config.timeout.as_secs_f64(),
            summary,
            mounts: targets.into_iter().map(|target| status(target, now, &self.config.silence_findings)).collect(),
            autofs: self.autofs(),
            agent,
        }
    }

    fn autofs(&self) -> Vec<AutofsTrigger> {
        self.table
            .autofs()
            .map(|mount| AutofsTrigger {
                mountpoint: octal::label(mount.mountpoint.as_os_str()),
                source: octal::label(&mount.source),
            })
            .collect()
    }
}

fn status(target: &Target, now: Now, silenced: &[Finding]) -> MountStatus {
    let blocked = target.blocked_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
    let paths = target.members.iter().take(LISTED_PATHS);
    MountStatus {
        mountpoint: target.labels.mountpoint.clone(),
        source: target.labels.source.clone(),
        fstype: target.labels.fstype.clone(),
        paths: paths.map(|member| octal::label(member.mountpoint.as_os_str())).collect(),
        path_count: target.members.len(),
        dev: target.dev.to_string(),
        origin: target.origin.clone(),
        state: target.verdict.state,
        cause: target.verdict.cause,
        since: target.since,
        evidence: target.verdict.evidence.clone(),
        advice: if target.verdict.state == State::Healthy { String::new() } else { advice_for(target) },
        inherited: target.verdict.inherited,
        findings: target.findings(silenced).into_iter().collect(),
        blocked_seconds: if target.verdict.state == State::Hung { blocked.as_secs_f64() } else { 0.0 },
        last_probe: target.last_probe,
        last_success: target.last_success,
        steps: target
            .steps
            .iter()
            .map(|result| StepStatus {
                step: result.step.as_str().to_owned(),
                seconds: Duration::from_micros(result.micros).as_secs_f64(),
                error: result.errno.map(errno_name),
            })
            .collect(),
        probes: target.probes.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
        transitions: target.transitions.iter().map(|(state, count)| (state.to_string(), *count)).collect(),
        blocked_seconds_total: target.blocked_total.as_secs_f64(),
        decision: target.decision.as_ref().and_then(|decision| serde_json::to_value(decision).ok()),
    }
}
