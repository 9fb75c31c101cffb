//! One target's probe: the way to it, what is asked, and what came back.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::core::{Core, Event, Way};
use super::target::{Key, place};
use crate::mounts::{Dev, Kind, View};
use crate::probe::pool::{Blocked, Class, Outcome, OwnClock};
use crate::probe::schedule::{Ended, Now, TargetId};
use crate::probe::wire::{Answer, Job, ProbeSpec};
use crate::probe::{ProbeReport, Step, StepResult};
use crate::snapshot::DurationHistogram;
use crate::verdict::{NotRun, Severity, State};

/// Sentinels are chosen anew at most so often: each time costs a directory read.
const LEARN_EVERY: Duration = Duration::from_secs(600);

/// The totals of a filesystem are read every so many rounds.
const SPACE_ROUNDS: usize = 4;

/// Mounts without identity are identified anew so often at most.
const REIDENTIFY_EVERY: Duration = Duration::from_secs(60);

/// Why a target cannot be probed now.
enum NoWay {
    /// The mount on its way was not judged yet; once it is, this one's turn comes.
    Yet,
    For(NotRun),
}

impl Core {
    pub(super) fn probe(&mut self, id: TargetId, now: Now) {
        let member = match self.way_to(id) {
            Ok(member) => member,
            Err(no_way) => {
                let dev = self.registry.targets.get(&id).map(|target| target.dev);
                if let Some(dev) = dev {
                    self.schedule.ended(id, dev, Ended::Skipped, now);
                }
                if let NoWay::For(reason) = no_way {
                    self.judge_not_run(id, reason);
                }
                return;
            }
        };
        self.prepare_canary(id, now);
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        target.started_at = Some(now);
        target.rounds += 1;
        let learn_due = target.learned_at.is_none_or(|at| now.saturating_sub(at) >= LEARN_EVERY);
        let wants_learning = target.takes_sentinels() && target.sentinels.is_empty() && learn_due;
        let spec = ProbeSpec {
            place: place(&member, target.dev, &self.config.proc_root),
            device: target.facts.local.then(|| format!("/sys/dev/block/{}", target.dev).into_bytes()),
            statx_root: self.config.has_detector("statx_root"),
            sentinels: target.sentinels.clone(),
            first: target.rounds,
            own: target.canary.as_ref().and_then(|canary| canary.directory.clone()),
            // A full filesystem is looked at each time: it is full until the numbers say otherwise.
            statfs: target.rounds % SPACE_ROUNDS == 1 || target.memory.state == State::Full,
            learn: if wants_learning && !self.one_pass && self.config.has_detector("sentinels") {
                self.config.sentinels
            } else {
                0
            },
        };
        let (dev, owner) = (target.dev, target.owner.clone());
        let way = Way { mount_id: member.mount_id, through: member.through.is_some() };
        let class = if target.memory.state == State::Hung { Class::Suspect } else { Class::Hopeful };
        let (pool, deadline, patience) = (self.pool.clone(), self.config.timeout, self.config.interval);
        self.growing.insert((now + self.config.slow, id));
        self.running.spawn(async move {
            let outcome = pool.run(Job::Probe(spec), &owner, class, deadline, patience).await;
            Event::Probed { id, dev, way, outcome }
        });
    }

    /// A member whose path leads to the target without asking another dead mount.
    fn way_to(&self, id: TargetId) -> Result<super::target::Member, NoWay> {
        let target = self.registry.targets.get(&id).ok_or(NoWay::For(NotRun::TableChanged))?;
        let open = target.members.iter().filter(|member| !member.hidden);
        let mut open: Vec<_> = open.filter(|member| self.may_look_through(member.view)).collect();
        if open.is_empty() && target.members.iter().all(|member| member.view.is_container()) {
            return Err(NoWay::For(NotRun::Terminating));
        }
        // The host's paths outlive every container.
        open.sort_by_key(|member| member.view.is_container());
        if let Some(member) = open.iter().find(|member| member.through.is_none()) {
            return Ok((*member).clone());
        }
        let mut blocked_by = None;
        for member in open {
            let on_the_way = member.through.and_then(|mount_id| self.registry.by_mount_id(mount_id));
            match on_the_way {
                Some(other) if !other.judged => return Err(NoWay::Yet),
                Some(other) if other.memory.state.severity() == Severity::Dead => {
                    blocked_by = Some(other.labels.mountpoint.clone());
                }
                None if member.through.is_some_and(|mount_id| self.registry.identifies(mount_id)) => {
                    return Err(NoWay::Yet);
                }
                // Alive, or not watched: the worker only goes where the kernel's cache leads (`Place::cached_only`).
                Some(_) | None => return Ok(member.clone()),
            }
        }
        Err(NoWay::For(blocked_by.map_or(NotRun::Hidden, NotRun::ThroughDeadMount)))
    }

    /// A probe ended.
    pub(super) fn on_probed(&mut self, id: TargetId, dev: Dev, way: Way, outcome: Outcome) {
        let now = self.now();
        self.changed = true;
        // Most probes end long before they are slow: no need to be woken for them.
        if let Some(started) = self.registry.targets.get(&id).and_then(|target| target.started_at) {
            self.growing.remove(&(started + self.config.slow, id));
        }
        match outcome {
            Outcome::Answered(Answer::Report(report)) => {
                self.schedule.ended(id, dev, Ended::Answered, now);
                self.on_report(id, way, report, now);
            }
            Outcome::Answered(_) => {
                self.schedule.ended(id, dev, Ended::NotRun, now);
                self.judge_not_run(id, NotRun::WorkerLost("the worker answered another question".to_owned()));
            }
            Outcome::Missed { blocked, gone } => {
                // The lane stays taken until the worker is gone, whatever the miss proves.
                if blocked.is_evidence() || (way.through && blocked.step == Some(Step::Open)) {
                    self.await_end(dev, gone);
                } else {
                    self.await_killed(id, dev, blocked.clone(), gone);
                }
                self.on_missed(id, dev, way, blocked, now);
            }
            Outcome::Lost(why) => {
                self.schedule.ended(id, dev, Ended::NotRun, now);
                self.judge_not_run(id, NotRun::WorkerLost(why));
            }
            Outcome::NoRoom => {
                self.schedule.ended(id, dev, Ended::NotRun, now);
                self.judge_not_run(id, NotRun::WorkerCap);
            }
            Outcome::NotStarted(error) => {
                self.schedule.ended(id, dev, Ended::NotRun, now);
                self.judge_not_run(id, NotRun::WorkerNotStarted(error.to_string()));
            }
        }
    }

    pub(super) fn await_end(&mut self, dev: Dev, gone: oneshot::Receiver<()>) {
        self.running.spawn(async move {
            // Closed without a word when the pool itself ends.
            let _ = gone.await;
            Event::Reaped { dev }
        });
    }

    /// We were too late to tell, and the worker was killed. One that the kernel still holds a deadline later tells after all:
    /// without that nobody would, since its lane stays taken for as long as the mount hangs.
    fn await_killed(&mut self, id: TargetId, dev: Dev, mut blocked: Blocked, mut gone: oneshot::Receiver<()>) {
        let limit = self.config.timeout;
        self.running.spawn(async move {
            loop {
                let clock = OwnClock::start(limit);
                if tokio::time::timeout(limit, &mut gone).await.is_ok() {
                    return Event::Reaped { dev };
                }
                if blocked.outlasted(limit, &clock) {
                    return Event::Held { id, dev, blocked, gone };
                }
            }
        });
    }

    pub(super) fn on_held(&mut self, id: TargetId, dev: Dev, blocked: Blocked, gone: oneshot::Receiver<()>) {
        self.await_end(dev, gone);
        if !blocked.is_evidence() {
            return;
        }
        let now = self.now();
        self.changed = true;
        self.schedule.stuck(id, dev, now);
        self.stands_blocked(id, dev, &blocked, now);
        self.judge_blocked(id, blocked);
    }

    fn on_missed(&mut self, id: TargetId, dev: Dev, way: Way, blocked: Blocked, now: Now) {
        let on_the_way = way.through && blocked.step == Some(Step::Open);
        if !blocked.is_evidence() || on_the_way {
            self.schedule.ended(id, dev, Ended::Unproven, now);
            self.stats.overloads_total += u64::from(!on_the_way);
            if on_the_way {
                // It was another mount that did not let us through.
                self.judge_not_run(id, NotRun::NotCached);
            } else {
                self.judge_blocked(id, blocked);
            }
            return;
        }
        self.schedule.ended(id, dev, Ended::Blocked, now);
        self.stands_blocked(id, dev, &blocked, now);
        self.judge_blocked(id, blocked);
    }

    fn stands_blocked(&mut self, id: TargetId, dev: Dev, blocked: &Blocked, now: Now) {
        if let Some(target) = self.registry.targets.get_mut(&id) {
            let waited = Duration::from_millis(blocked.millis);
            target.blocked_total += waited;
            target.blocked_since.get_or_insert(now.saturating_sub(waited));
        }
        self.saw_blocked(dev, now);
    }

    /// The kernel turns a local filesystem read-only without an event: the table is read again once an interval.
    fn look_for_flip(&mut self, id: TargetId, now: Now) {
        let local = self.registry.targets.get(&id).is_some_and(|target| target.facts.local);
        if local && now.saturating_sub(self.flips_looked_for) >= self.config.interval {
            self.flips_looked_for = now;
            self.reread = true;
        }
    }

    fn on_report(&mut self, id: TargetId, way: Way, report: ProbeReport, now: Now) {
        let lost_way = |step: &StepResult| matches!(step.errno, Some(libc::ENOENT | libc::ELOOP));
        self.reread |= report.mismatch || report.step(Step::Open).is_some_and(lost_way);
        let joins_another = self.may_identify(id, &report, now) && !self.take_identity(id, way, &report);
        if joins_another || self.root_replaced(id, way, &report) {
            // Unmounted and mounted again between two readings of the table: another root under the same numbers. Or a root
            // that could not be identified, and now turns out to be another target's.
            self.dissolve(id, now);
            return;
        }
        self.look_for_flip(id, now);
        self.count_durations(id, &report);
        if let Some(target) = self.registry.targets.get_mut(&id) {
            target.blocked_since = None;
            target.steps.clone_from(&report.steps);
            if let Some(space) = report.space {
                target.space = Some((space, super::unix_now()));
            }
            if report.step(Step::Learn).is_some() {
                // Also when it failed: a directory that we may not read is not read every round.
                target.learned_at = Some(now);
                target.sentinels = report.learned.clone().unwrap_or_default();
                self.state_file.touch(now);
            }
        }
        if self.suspect(id, &report, now) {
            return;
        }
        if self.may_recover(id, &report) && self.begin_canary(id, &report, false) {
            return;
        }
        self.judge_report(id, report.clone());
        self.begin_canary(id, &report, true);
    }

    /// A target without identity, whose root could be identified now. Tried once a minute: the reason may come back.
    fn may_identify(&mut self, id: TargetId, report: &ProbeReport, now: Now) -> bool {
        let separate = self.registry.targets.get(&id).is_some_and(|target| matches!(target.key, Key::Mount { .. }));
        let rested = self.reidentified.is_none_or(|at| now.saturating_sub(at) >= REIDENTIFY_EVERY);
        let due = separate && rested && !self.one_pass && report.identity.is_some();
        if due {
            self.reidentified = Some(now);
        }
        due
    }

    /// A root could be identified after all. What is known of the mount stays, unless another target has this root already.
    fn take_identity(&mut self, id: TargetId, way: Way, report: &ProbeReport) -> bool {
        let mount = self.table.mounts.iter().find(|mount| mount.id == way.mount_id);
        let found = mount.zip(report.identity.as_ref());
        found.is_some_and(|(mount, identity)| self.registry.take_identity(id, mount, identity))
    }

    fn root_replaced(&self, id: TargetId, way: Way, report: &ProbeReport) -> bool {
        let Some((target, identity)) = self.registry.targets.get(&id).zip(report.identity.as_ref()) else {
            return false;
        };
        let member = target.members.iter().find(|member| member.mount_id == way.mount_id);
        let unique = member.and_then(|member| member.unique_mount_id).zip(identity.unique_mount_id);
        if unique.is_some_and(|(before, now)| before != now) {
            return true;
        }
        match &target.key {
            Key::Root { handle, .. } if !handle.is_empty() => *handle != identity.handle,
            // Inode numbers of other filesystems may change under the same root.
            Key::Root { ino, .. } => target.facts.kind.is_some_and(Kind::stable_inodes) && *ino != identity.ino,
            Key::Mount { .. } | Key::Absent { .. } => false,
        }
    }

    fn count_durations(&mut self, id: TargetId, report: &ProbeReport) {
        let Some(target) = self.registry.targets.get(&id) else { return };
        let server = target.server_label();
        for step in &report.steps {
            let key = (server.clone(), step.step.as_str());
            let histogram = self.durations.entry(key).or_insert_with(|| DurationHistogram {
                server: server.clone(),
                step: step.step.as_str().to_owned(),
                buckets: vec![0; DurationHistogram::BOUNDS.len()],
                ..DurationHistogram::default()
            });
            histogram.observe(Duration::from_micros(step.micros));
        }
    }

    pub(super) fn count(&mut self, view: View) {
        use std::os::unix::ffi::OsStrExt;
        let process = match view {
            View::Own => "self".to_owned(),
            View::Host => "1".to_owned(),
            View::Container(process) => process.pid.to_string(),
        };
        let path = self.config.proc_root.join(process).join("mountstats").as_os_str().as_bytes().to_vec();
        let (pool, deadline) = (self.pool.clone(), self.config.timeout);
        let started = Instant::now();
        self.running.spawn(async move {
            let outcome = pool.run(Job::Counters(path), "counters", Class::Hopeful, deadline, deadline).await;
            Event::Counted { view, outcome, took: started.elapsed() }
        });
    }
}
