//! The loop's state as a [`Snapshot`]: what the outside sees.

use std::collections::BTreeMap;
use std::time::Duration;

use super::core::Core;
use super::judging::advice_for;
use super::target::{Member, Target};
use crate::mounts::mountstats::OpCounters;
use crate::mounts::octal;
use crate::probe::StepResult;
use crate::probe::schedule::Now;
use crate::snapshot::{
    AutofsTrigger, FilesystemStatus, MountStatus, MountUser, OperationStatus, SCHEMA, Snapshot, StepStatus,
};
use crate::verdict::judge::words::errno_name;
use crate::verdict::{Cause, Finding, State};

/// With more NFS targets than this their operations are summed up: each target has up to 72 series of them, and a page of
/// 72,000 could not be served in 10 ms, nor kept in memory.
const TOLD_APART: usize = 200;

/// Paths of one target that are listed; all are counted. Of one that is not healthy more: each pod behind them is to be told.
const LISTED_PATHS: usize = 64;
const LISTED_BAD_PATHS: usize = 512;

impl Core {
    /// What is known now.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        let ready = self.ready();
        let (now, generated) = (self.now(), self.unix_now());
        self.count_users();
        let mut targets: Vec<&Target> = self.registry.targets.values().collect();
        targets.sort_by(|a, b| a.labels.cmp(&b.labels));
        let mut summary: BTreeMap<String, usize> = State::ALL.iter().map(|state| (state.to_string(), 0)).collect();
        for target in &targets {
            *summary.entry(target.verdict.state.to_string()).or_default() += 1;
        }
        let told_apart = targets.iter().filter(|target| target.facts.is_nfs()).count() <= TOLD_APART;
        let pool = self.pool.counts();
        let (pending, pending_count, kubelet_mounts) = self.pending_rows(generated);
        let mut agent = self.stats.clone();
        let canaries = self.canaries.pool.counts();
        agent.workers_idle = pool.idle;
        agent.workers_busy = pool.busy + canaries.busy;
        agent.workers_stuck = pool.stuck + canaries.stuck;
        agent.workers_killed_total = pool.killed + canaries.killed;
        agent.workers_started_total = pool.started + canaries.started;
        agent.workers_lost_total = pool.lost + canaries.lost;
        agent.worker_protocol_errors_total = pool.protocol_errors + canaries.protocol_errors;
        agent.worker_spawn_errors_total = pool.spawn_errors + canaries.spawn_errors;
        agent.worker_cap_hits_total = pool.cap_hits + canaries.cap_hits;
        let left_out = self.containers.left_out();
        agent.container_namespaces_left_out = left_out.namespaces;
        agent.container_mounts_left_out = left_out.mounts;
        agent.container_counters_left_out = left_out.counters;
        agent.remedies = self.remedy_counts();
        agent.remedies_enabled = [("unstick".to_owned(), self.unstick_enabled())].into();
        agent.durations = self.durations.values().cloned().collect();
        Snapshot {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            generated,
            ready,
            interval_seconds: self.config.interval.as_secs_f64(),
            timeout_seconds: self.config.timeout.as_secs_f64(),
            canary_interval_seconds: self.config.canary_interval.as_secs_f64(),
            summary,
            mounts: targets
                .into_iter()
                .map(|target| {
                    let status = status(target, now, told_apart, &self.config.silence_findings);
                    MountStatus { gate: self.rescues.status(target.id), ..status }
                })
                .collect(),
            servers: self.inquiries.checks(),
            pending,
            pending_count,
            kubelet_mounts,
            plan: self.plan(),
            history: self.history.since(generated),
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

fn status(target: &Target, now: Now, told_apart: bool, silenced: &[Finding]) -> MountStatus {
    let blocked = target.blocked_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
    let listed = if target.verdict.state == State::Healthy { LISTED_PATHS } else { LISTED_BAD_PATHS };
    // Paths in containers are told with their pods: a service's copy may stand at a path where the host has a fresh mount.
    let shown = |member: &&Member| !member.view.is_container();
    let paths = target.members.iter().filter(shown).take(listed);
    let findings = target.findings(silenced);
    MountStatus {
        mountpoint: target.labels.mountpoint.clone(),
        source: target.labels.source.clone(),
        fstype: target.labels.fstype.clone(),
        paths: paths.map(|member| octal::label(member.mountpoint.as_os_str())).collect(),
        path_count: target.members.iter().filter(shown).count(),
        dev: target.dev.to_string(),
        origin: target.mount.origin.clone(),
        state: target.verdict.state,
        cause: target.verdict.cause,
        since: target.since,
        evidence: target.verdict.evidence.clone(),
        advice: if target.verdict.state == State::Healthy { String::new() } else { advice_for(target) },
        inherited: target.verdict.inherited,
        finding_evidence: findings.iter().filter_map(|of| Some((*of, target.finding_words(*of)?))).collect(),
        findings: findings.into_iter().collect(),
        users: target.users.listed.iter().take(listed).map(|user| with_cause(user, target)).collect(),
        holders: target.users.holders.clone(),
        volumes: Vec::new(),
        pod_count: target.users.pods,
        gate: None,
        blocked_seconds: if target.verdict.state == State::Hung { blocked.as_secs_f64() } else { 0.0 },
        last_probe: target.last_probe,
        last_success: target.last_success,
        steps: target.steps.iter().map(step_status).collect(),
        probes: target.probes.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
        transitions: target.transitions.iter().map(|(state, count)| (state.to_string(), *count)).collect(),
        blocked_seconds_total: target.blocked_total.as_secs_f64(),
        filesystem: filesystem(target),
        nfs: if told_apart {
            target.operations.iter().map(operation).collect()
        } else {
            OpCounters::total(&target.operations).iter().map(operation).collect()
        },
        canary: target.canary.as_deref().map(super::canary::status),
        decision: target.decision.as_ref().and_then(|decision| serde_json::to_value(decision).ok()),
    }
}

/// One step, for people.
pub(super) fn step_status(result: &StepResult) -> StepStatus {
    StepStatus {
        step: result.step.as_str().to_owned(),
        seconds: Duration::from_micros(result.micros).as_secs_f64(),
        error: result.errno.map(errno_name),
    }
}

/// The totals that were last read. A mount that hangs keeps them: its filesystem is the same, and a capacity alert that
/// resolves because the server went away would say the opposite of what happened. What is stale or lost has no filesystem
/// behind its path any more, and the totals of the old one would be read as those of the new one.
fn filesystem(target: &Target) -> Option<FilesystemStatus> {
    let gone = matches!(target.verdict.state, State::Stale | State::Lost);
    // FUSE daemons without a statfs of their own answer all zeros: that is no answer, and no full disk.
    let (space, read) = target.space.filter(|(space, _)| !gone && space.size > 0)?;
    Some(FilesystemStatus {
        size_bytes: space.size,
        free_bytes: space.free,
        avail_bytes: space.avail,
        files: space.files,
        files_free: space.files_free,
        read,
    })
}

fn operation(counters: &OpCounters) -> OperationStatus {
    let seconds = |millis| Duration::from_millis(millis).as_secs_f64();
    OperationStatus {
        operation: counters.operation,
        operations: counters.operations,
        retransmissions: counters.retransmissions,
        timeouts: counters.timeouts,
        errors: counters.errors,
        rtt_seconds: seconds(counters.rtt_ms),
        execute_seconds: seconds(counters.execute_ms),
    }
}

/// One container's row: its own cause where another one is told of the mount.
fn with_cause(user: &MountUser, target: &Target) -> MountUser {
    let of_host = matches!(target.cause(), Some(Cause::RemountedOnHost | Cause::UnmountedOnHost));
    let own = user.cause.filter(|own| of_host && target.cause() != Some(*own));
    MountUser { cause: own, ..user.clone() }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::agent::target::{Key, Labels, Member};
    use crate::mounts::{Dev, Mount, Origin, View};
    use crate::probe::Space;
    use crate::verdict::Cause;

    fn target() -> Target {
        let options = OsStr::new("rw,vers=4.1,hard,addr=10.0.0.1");
        let mount = Mount {
            id: 40,
            parent: 1,
            dev: Dev { major: 0, minor: 51 },
            root: "/".into(),
            mountpoint: "/mnt/a".into(),
            fstype: "nfs4".to_owned(),
            source: "srv:/a".into(),
            options: "rw".into(),
            super_options: options.to_owned(),
            kind: crate::mounts::Kind::from_fstype("nfs4"),
            origin: Origin::parse("nfs4", OsStr::new("srv:/a"), options),
            view: View::Own,
            hidden_by: None,
        };
        let labels = Labels { mountpoint: "/mnt/a".into(), source: "srv:/a".into(), fstype: "nfs4".into() };
        let mut target = Target::new(1, Key::of(&mount, None), labels, &mount, 0.0);
        target.space = Some((Space { size: 100, free: 50, avail: 40, files: 10, files_free: 5 }, 7.0));
        target
    }

    #[test]
    fn a_replaced_filesystem_is_forgotten_with_the_last_mount_that_had_it() {
        let mut target = target();
        let member = |mount_id| Member {
            mount_id,
            unique_mount_id: None,
            view: View::Own,
            mountpoint: "/mnt/a".into(),
            hidden: false,
            through: None,
        };
        target.members = vec![member(7)];
        (target.verdict.state, target.verdict.cause) = (State::Lost, Some(Cause::FilesystemReplaced));
        target.note_replaced();
        target.members.push(member(9));
        target.note_replaced();
        assert!(!target.outlived_replacement(), "the old mount is still there");
        target.members.retain(|member| member.mount_id == 9);
        assert!(target.outlived_replacement());
        target.verdict.state = State::Hung;
        target.note_replaced();
        assert!(!target.outlived_replacement(), "it is another verdict now");
    }

    #[test]
    fn totals_outlive_a_hang_and_end_with_the_filesystem() {
        let mut target = target();
        for state in [State::Healthy, State::Slow, State::Hung, State::Full, State::Error, State::Unknown] {
            target.verdict.state = state;
            assert_eq!(filesystem(&target).map(|totals| (totals.size_bytes, totals.read)), Some((100, 7.0)), "{state}");
        }
        for state in [State::Stale, State::Lost] {
            target.verdict.state = state;
            assert_eq!(filesystem(&target), None, "{state}");
        }
    }

    #[test]
    fn all_zeros_are_no_totals() {
        let mut target = target();
        target.space = Some((Space { size: 0, free: 0, avail: 0, files: 0, files_free: 0 }, 7.0));
        assert_eq!(filesystem(&target), None);
    }

    #[test]
    fn a_trend_needs_two_readings_and_a_lost_one_ends_it() {
        use crate::mounts::mountstats::TransportCounters;
        let mut target = target();
        let seconds = Duration::from_secs;
        let at = |sends| TransportCounters { connects: 1, sends, recvs: 1 };
        target.counted(at(1), Vec::new(), seconds(10));
        assert_eq!(target.trend, None);
        target.counted(at(4), Vec::new(), seconds(15));
        assert_eq!(target.trend.map(|trend| (trend.millis, trend.unanswered())), Some((5000, 3)));
        target.no_counters();
        target.counted(at(9), Vec::new(), seconds(20));
        assert_eq!(target.trend, None);
    }
}
