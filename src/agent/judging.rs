//! From what came back to a verdict, and from a verdict that changed to one log line.

use super::core::Core;
use super::kernel_log;
use super::target::{Member, Target, Transition};
use crate::mounts::octal;
use crate::probe::pool::Blocked;
use crate::probe::schedule::TargetId;
use crate::probe::{ProbeReport, Step};
use crate::snapshot::UnixSeconds;
use crate::verdict::advice::{AdviceFacts, advice};
use crate::verdict::{Cause, Evidence, Finding, NotRun, Observation, OnHost, Passive, Severity, State, judge};

impl Core {
    pub(super) fn judge_report(&mut self, id: TargetId, report: ProbeReport) {
        if let Some(target) = self.registry.targets.get(&id).filter(|target| target.facts.is_nfs()) {
            self.servers.note_refusal(target, refused_root(&report));
        }
        let answers = report.steps.iter().all(|step| step.errno.is_none());
        self.judge_target(id, Observation::Report(report), true);
        let silent = self.registry.targets.get(&id).is_some_and(|target| target.memory.state == State::Hung);
        // Where reads are answered and only the canary is not, there is nothing to spare.
        if silent && !answers {
            let now = self.now();
            self.schedule.back_off(id, now);
        }
        self.watch_server(id, silent);
    }

    /// Judges the look that a canary followed again, with what the canary found.
    pub(super) fn judge_with_canary(&mut self, id: TargetId, observation: Observation) {
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        // It voted already.
        target.memory.votes.pop();
        self.judge_target(id, observation, false);
        let silent = self.registry.targets.get(&id).is_some_and(|target| target.memory.state == State::Hung);
        self.watch_server(id, silent);
    }

    pub(super) fn judge_blocked(&mut self, id: TargetId, blocked: Blocked) {
        let proven = blocked.is_evidence();
        self.judge_target(id, Observation::Blocked(blocked), true);
        if proven {
            self.watch_server(id, true);
        }
    }

    pub(super) fn judge_not_run(&mut self, id: TargetId, reason: NotRun) {
        self.judge_target(id, Observation::NotRun(reason), true);
    }

    /// A sibling's probe is blocked: this target is not tried.
    pub(super) fn inherit(&mut self, id: TargetId, from: TargetId) {
        let Some(other) = self.registry.targets.get(&from) else { return };
        if other.memory.state != State::Hung {
            let waits = format!("a probe of {} on the same superblock comes first", other.labels.mountpoint);
            self.judge_not_run(id, NotRun::Overloaded(waits));
            return;
        }
        let observation = Observation::Inherited { from: other.labels.mountpoint.clone(), cause: other.cause() };
        self.judge_target(id, observation, true);
        self.watch_server(id, true);
    }

    /// Judges a target anew with what its server just said: the state stays, the cause may become known.
    pub(super) fn judge_again(&mut self, id: TargetId) {
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        if !matches!(target.memory.state, State::Hung | State::Stale | State::Unknown) {
            return;
        }
        // It stays in its place: what the matter is with the target, and so what was found out about it, is told by it.
        let Some(decision) = target.decision.clone() else { return };
        target.memory = decision.before;
        self.judge_target(id, decision.evidence.observation, false);
    }

    /// `ended`: a probe just came to its end; otherwise an older look is judged again.
    fn judge_target(&mut self, id: TargetId, observation: Observation, ended: bool) {
        let (now, unix, tuning) = (self.now(), self.unix_now(), self.tuning(id));
        let on_host = self.on_host(id);
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        let evidence = Evidence {
            at_millis: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            facts: target.facts.clone(),
            server: self.servers.view(target, now),
            examined: self.inquiries.examined(target, now),
            transport: target.transport,
            // Where nothing is mounted, nothing of the kernel's is about it.
            passive: if target.absent.is_some() {
                Passive::default()
            } else {
                Passive {
                    trend: target.trend,
                    kernel_log: kernel_log::words(&self.kernel_log, target, now),
                    fileid_changed: target.fileid_changed,
                    transports: self.signals.transports(target),
                    waiting: self.signals.waiting(target, now),
                }
            },
            many_refuse: refused(&observation) && self.servers.many_refuse(),
            canary: target.canary.as_ref().and_then(|canary| canary.view(now, &self.config)),
            on_host: on_host.clone(),
            observation,
        };
        target.on_host = on_host;
        let judgement = judge(&target.memory, &evidence, &tuning);
        tracing::debug!(mountpoint = target.labels.mountpoint, ?evidence, memory = ?target.memory, "judged");
        if ended {
            *target.probes.entry(result_word(&evidence.observation)).or_default() += 1;
            if !matches!(evidence.observation, Observation::NotRun(_) | Observation::Inherited { .. }) {
                target.last_probe = Some(unix);
            }
            if judgement.good {
                target.last_success = Some(unix);
            }
        }
        if judgement.relearn {
            target.sentinels.clear();
        }
        target.fileid_changed &= !judgement.good;
        let before = target.cause();
        if let Some(transition) = target.accept(judgement, evidence, tuning, unix) {
            self.news = true;
            // It is asked about at once.
            self.next_inquiry = now;
            self.state_file.touch(now);
            self.history.changed(target, &transition, unix);
            let (dev, target_state) = (target.dev, target.verdict.state);
            self.call_off(dev, target_state);
            self.count_users_of(id);
            if let Some(target) = self.registry.targets.get(&id) {
                log_transition(target, &transition, unix);
            }
            self.hurry_behind(id);
        } else if target.cause() != before && matches!(target.verdict.state, State::Hung | State::Stale) {
            self.news = true;
            log_cause(target);
            self.history.explained(target);
        }
        self.changed = true;
        self.mind_gate(id);
        self.announce_findings(id);
    }

    /// Takes over what the last reading of the table says of a target's mounts.
    pub(super) fn note_findings(&mut self, id: TargetId) {
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        let of = |member: &Member| self.table_findings.get(&(member.view, member.mount_id));
        target.table_findings = target.members.iter().filter_map(of).flatten().copied().collect();
        self.announce_findings(id);
    }

    pub(super) fn announce_findings(&mut self, id: TargetId) {
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        for finding in target.new_findings(&self.config.silence_findings) {
            self.changed = true;
            log_finding(target, finding);
        }
    }

    /// A target was judged for the first time, or its state changed: what its paths lead to is looked at now.
    fn hurry_behind(&mut self, id: TargetId) {
        let now = self.now();
        for other in self.registry.behind(id) {
            self.schedule.hurry(other, now);
        }
    }

    /// Asks the server of a target that does not answer, again and again until it does.
    fn watch_server(&mut self, id: TargetId, silent: bool) {
        let now = self.now();
        if let Some(target) = self.registry.targets.get(&id) {
            self.servers.watch(target, silent, now);
        }
    }
}

/// The server, or our own rights, refused even the root.
fn refused_root(report: &ProbeReport) -> bool {
    matches!(report.step(Step::StatxRoot).and_then(|step| step.errno), Some(libc::EACCES | libc::EPERM))
}

/// The last look at a target was refused at its root.
pub(super) fn refused_root_in(target: &Target) -> bool {
    target.decision.as_ref().is_some_and(|decision| refused(&decision.evidence.observation))
}

fn refused(observation: &Observation) -> bool {
    matches!(observation, Observation::Report(report) if refused_root(report))
}

/// The `result` label of `mountwarden_probes_total`.
fn result_word(observation: &Observation) -> &'static str {
    match observation {
        Observation::Report(report) if report.steps.iter().any(|step| step.errno.is_some()) => "error",
        Observation::Report(_) => "ok",
        Observation::Blocked(_) => "timeout",
        Observation::Inherited { .. } => "inherited",
        Observation::NotRun(_) => "not_run",
    }
}

/// The sentence that says what to do about a target.
pub(super) fn advice_for(target: &Target) -> String {
    let cause = target.cause().unwrap_or(Cause::Unknown);
    if let Some(OnHost::OnDisk { directory }) = &target.on_host {
        return format!(
            "Stop the pod before it writes more: `kubectl delete pod POD`; then save what lies in `{directory}` on this node while nothing is mounted there, and find out who unmounted the volume."
        );
    }
    // The label may hide a pod's UID: commands need the path itself.
    let shown = target.members.iter().find(|member| !member.hidden).or(target.members.first());
    let path = shown.map(|member| {
        let below = member.mountpoint.strip_prefix("/").unwrap_or(&member.mountpoint);
        // A container's path says nothing on the host.
        let root = member.view.root("/proc".as_ref()).filter(|_| member.view.is_container());
        octal::label(root.map_or_else(|| member.mountpoint.clone(), |root| root.join(below)).as_os_str())
    });
    let facts = AdviceFacts {
        mountpoint: path.as_deref().unwrap_or(&target.labels.mountpoint),
        server: target.mount.origin.server.as_deref(),
        export: target.mount.origin.export.as_deref(),
        port: target.mount.origin.port,
        fstype: &target.labels.fstype,
    };
    advice(target.verdict.state, cause, &facts)
}

/// One line for each change: what, since when, why, what to do. Never one per probe.
fn log_transition(target: &Target, transition: &Transition, now: UnixSeconds) {
    let state = target.verdict.state;
    let labels = &target.labels;
    let cause = target.cause().map_or("", Cause::as_str);
    let since = super::rfc3339(now);
    let previous = if transition.first { "" } else { transition.from.as_str() };
    let (evidence, advice) = (&target.verdict.evidence, advice_for(target));
    let pods = target.users.words();
    macro_rules! line {
        ($level:ident, $message:expr) => {
            tracing::$level!(
                mountpoint = labels.mountpoint,
                source = labels.source,
                fstype = labels.fstype,
                state = state.as_str(),
                previous,
                cause,
                since,
                evidence,
                advice,
                pods,
                "{}",
                $message
            )
        };
    }
    let path = &labels.mountpoint;
    match (state.severity(), transition.first) {
        (Severity::Healthy, true) => line!(info, format_args!("{path} is watched, healthy")),
        (Severity::Healthy, false) => line!(info, format_args!("{path} is healthy again, was {previous}")),
        (Severity::Dead, _) => line!(error, format_args!("{path} is {state}")),
        (Severity::Degraded, _) => line!(warn, format_args!("{path} is {state}")),
        (Severity::Unknown, _) => line!(warn, format_args!("{path} could not be probed")),
    }
}

fn log_cause(target: &Target) {
    let (labels, advice) = (&target.labels, advice_for(target));
    tracing::error!(
        mountpoint = labels.mountpoint,
        source = labels.source,
        fstype = labels.fstype,
        state = target.verdict.state.as_str(),
        cause = target.cause().map_or("", Cause::as_str),
        since = super::rfc3339(target.since),
        evidence = target.verdict.evidence,
        advice,
        "{} is still {}, and the cause is {} now",
        labels.mountpoint,
        target.verdict.state,
        target.cause().map_or("unknown", Cause::as_str)
    );
}

/// One line when a canary begins to end otherwise. What makes a state of it has that state's line.
pub(super) fn log_canary(target: &Target) {
    let labels = &target.labels;
    let Some(canary) = &target.canary else { return };
    tracing::warn!(
        mountpoint = labels.mountpoint,
        source = labels.source,
        fstype = labels.fstype,
        result = canary.result,
        "{}: no good canary: {}",
        labels.mountpoint,
        canary.detail
    );
}

/// One line when a finding appears, however long it stays.
fn log_finding(target: &Target, finding: Finding) {
    let labels = &target.labels;
    tracing::info!(
        mountpoint = labels.mountpoint,
        source = labels.source,
        fstype = labels.fstype,
        finding = finding.as_str(),
        consequence = finding.consequence(),
        advice = finding.advice(),
        "{}: {}",
        labels.mountpoint,
        target.finding_words(finding).unwrap_or_else(|| finding.means().to_owned())
    );
}
