//! The loop's state: what is mounted, what is under way, what is due. Each method is one event.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::registry::{self, Newcomer, Registry};
use super::servers::{ServerKey, Servers};
use super::target::{Key, Target, place};
use super::transports::Transports;
use crate::config::Config;
use crate::mounts::efs::StateFiles;
use crate::mounts::filter::Filter;
use crate::mounts::table::Table;
use crate::mounts::{Dev, Kind, Mount, View};
use crate::probe::pool::{Blocked, Class, Limits, Outcome, Pool};
use crate::probe::schedule::{Due, Ended, Now, Pace, Schedule, TargetId};
use crate::probe::wire::{Answer, Job, MAX_BATCH, Place, ProbeSpec};
use crate::probe::{Identity, ProbeReport, SentinelFate, Step, StepResult};
use crate::server::ServerAnswer;
use crate::snapshot::{AgentStats, DurationHistogram};
use crate::verdict::{NotRun, Severity, State, Tuning};

/// Sentinels are chosen anew at most so often: each time costs a directory read.
const LEARN_EVERY: Duration = Duration::from_secs(600);

/// The totals of a filesystem are read every so many rounds.
const SPACE_ROUNDS: usize = 4;

/// Mounts without identity are identified anew so often at most.
const REIDENTIFY_EVERY: Duration = Duration::from_secs(60);

/// Something under way came to its end.
pub(super) enum Event {
    /// Roots were identified, or not.
    Identified { newcomers: Vec<Newcomer>, outcome: Outcome },
    /// A probe ended.
    Probed { id: TargetId, dev: Dev, way: Way, outcome: Outcome },
    /// The kernel let a killed worker go.
    Reaped { dev: Dev },
    /// A server answered, or did not.
    Answered { key: ServerKey, answer: ServerAnswer },
    /// Transport counters were read.
    Counted { view: View, outcome: Outcome, took: Duration },
    /// The state files of the EFS mount helper were read.
    EfsState { outcome: Outcome },
    /// The configuration was read again.
    Reloaded(anyhow::Result<Config>),
}

/// Which of its mounts a target was probed by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    mount_id: u64,
    /// Its path leads through another network mount.
    through: bool,
}

/// Everything that the loop owns.
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) filter: Filter,
    pub(super) start: Instant,
    pub(super) node: String,
    pub(super) table: Table,
    pub(super) registry: Registry,
    pub(super) schedule: Schedule,
    pub(super) pool: Pool,
    pub(super) running: JoinSet<Event>,
    pub(super) servers: Servers,
    pub(super) transports: Transports,
    pub(super) efs: StateFiles,
    pub(super) stats: AgentStats,
    pub(super) durations: BTreeMap<(String, &'static str), DurationHistogram>,
    /// Numbers changed since the last publication.
    pub(super) changed: bool,
    /// Somebody waits for what changed: a state, a target that came or went.
    pub(super) news: bool,
    pub(super) reread: bool,
    pub(super) one_pass: bool,
    /// A configuration that was read again and is not in force yet.
    pub(super) reloaded: Option<anyhow::Result<Config>>,
    /// Only these mounts are asked for (`check PATH`).
    pub(super) only: Option<HashSet<(View, u64)>>,
    /// The first pass is done, and stays so whatever is mounted later.
    was_ready: bool,
    /// A table whose local proxies wait to be decoded.
    pending: Option<Table>,
    /// When targets without identity were last given up to be identified anew.
    reidentified: Option<Now>,
    /// Suspicions that wait for fresh counters before they are judged.
    pub(super) suspected: HashMap<TargetId, (View, ProbeReport)>,
    growing: BTreeSet<(Now, TargetId)>,
}

/// Why a target cannot be probed now.
enum NoWay {
    /// The mount on its way was not judged yet; once it is, this one's turn comes.
    Yet,
    For(NotRun),
}

impl Core {
    /// The loop's state; nothing is under way yet.
    pub(super) fn new(config: Config, filter: Filter, pool: Pool, node: String, one_pass: bool) -> Core {
        let pace = pace(&config);
        Core {
            filter,
            start: Instant::now(),
            node,
            table: Table::default(),
            registry: Registry::default(),
            schedule: Schedule::new(pace, fastrand::Rng::new()),
            pool,
            running: JoinSet::new(),
            servers: Servers::new(config.timeout),
            transports: Transports::default(),
            efs: StateFiles::default(),
            stats: AgentStats { config_ok: true, ..AgentStats::default() },
            durations: BTreeMap::new(),
            changed: true,
            news: true,
            reread: false,
            one_pass,
            reloaded: None,
            only: None,
            was_ready: false,
            pending: None,
            reidentified: None,
            suspected: HashMap::new(),
            growing: BTreeSet::new(),
            config,
        }
    }

    pub(super) fn now(&self) -> Now {
        self.start.elapsed()
    }

    /// How a target is judged. One that is asked less often keeps its verdict for longer.
    pub(super) fn tuning(&self, id: TargetId) -> Tuning {
        let pause = self.schedule.backoff(id).unwrap_or_default();
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Tuning {
            slow_millis: millis(self.config.slow),
            stale_after_millis: millis(self.config.interval * 2 + self.config.timeout + pause),
            agree: if self.one_pass { 1 } else { 2 },
            without: self.config.without.clone(),
        }
    }

    /// A new configuration is in force.
    pub(super) fn reconfigure(&mut self, config: Config, filter: Filter) {
        self.schedule.set_pace(pace(&config), self.now());
        self.servers.set_timeout(config.timeout);
        self.config = config;
        self.filter = filter;
        self.reread = true;
    }

    /// The first pass is done: every mount is identified and every target was judged once.
    pub(super) fn ready(&mut self) -> bool {
        if !self.was_ready {
            let judged = self.registry.targets.values().all(|target| target.judged);
            self.was_ready = self.pending.is_none() && self.registry.settled() && judged;
        }
        self.was_ready
    }

    /// Takes a reading of the mount table over. Mounts through a local proxy are decoded first: names are chosen once.
    pub(super) fn take_table(&mut self, mut table: Table) {
        self.stats.mountinfo_reads_total += 1;
        self.stats.mountinfo_errors_total += table.bad_count;
        self.decode(&mut table);
        let unknown = |mount: &Mount| mount.origin.proxy_port.is_some() && mount.origin.efs_file_system.is_none();
        if table.mounts.iter().any(unknown) {
            let host = table.mounts.iter().any(|mount| mount.view == View::Host);
            if self.pending.replace(table).is_none() {
                self.read_efs_state(host);
            }
            return;
        }
        self.adopt_table(table);
    }

    /// What waited for the state files goes on, whether they could be read or not.
    pub(super) fn take_pending(&mut self) {
        if let Some(mut table) = self.pending.take() {
            self.decode(&mut table);
            self.adopt_table(table);
        }
    }

    fn decode(&self, table: &mut Table) {
        table.apply(&self.efs);
    }

    fn adopt_table(&mut self, table: Table) {
        self.stats.mountinfo_mounts = table.mounts.len() as u64;
        self.table = table;
        let now = self.now();
        self.transports.take_table(&self.table, now);
        self.update_targets();
    }

    pub(super) fn update_targets(&mut self) {
        let now = self.now();
        let mut watched = registry::watched(&self.table.mounts, &self.filter);
        if let Some(only) = &self.only {
            watched.retain(|watched| only.contains(&(watched.mount.view, watched.mount.id)));
        }
        let changes = self.registry.update(&watched);
        let news = !changes.removed.is_empty();
        for target in changes.removed {
            tracing::info!(
                mountpoint = target.labels.mountpoint,
                source = target.labels.source,
                fstype = target.labels.fstype,
                "{} is no longer mounted",
                target.labels.mountpoint
            );
            self.forget(&target, now);
        }
        let mut batches: BTreeMap<(Dev, bool), Vec<Newcomer>> = BTreeMap::new();
        for newcomer in changes.to_identify {
            if newcomer.mount.hidden_by.is_some() {
                // No path leads to it: it can be listed, not asked.
                self.identified(&newcomer, None);
                continue;
            }
            batches.entry((newcomer.mount.dev, newcomer.through.is_some())).or_default().push(newcomer);
        }
        for newcomers in batches.into_values() {
            for batch in newcomers.chunks(MAX_BATCH) {
                self.identify(batch.to_vec());
            }
        }
        self.news |= news;
    }

    fn forget(&mut self, target: &Target, now: Now) {
        let server = target.server_label();
        if !self.registry.targets.values().any(|other| other.server_label() == server) {
            self.durations.retain(|(name, _), _| *name != server);
        }
        self.schedule.remove(target.id, now);
        self.servers.forget(target);
        self.suspected.remove(&target.id);
    }

    fn identify(&mut self, newcomers: Vec<Newcomer>) {
        let places = newcomers.iter().map(|newcomer| self.place_of(&newcomer.mount, newcomer.through)).collect();
        let (pool, deadline) = (self.pool.clone(), self.config.timeout);
        self.running.spawn(async move {
            let outcome = pool.run(Job::Identify(places), "identify", Class::Hopeful, deadline, deadline).await;
            Event::Identified { newcomers, outcome }
        });
    }

    fn place_of(&self, mount: &Mount, through: Option<u64>) -> Place {
        let member = super::target::Member {
            mount_id: mount.id,
            unique_mount_id: None,
            view: mount.view,
            mountpoint: mount.mountpoint.clone(),
            hidden: false,
            through,
        };
        place(&member, mount.dev, &self.config.proc_root)
    }

    /// Roots were identified, or could not be in time: then each mount is a target of its own.
    pub(super) fn on_identified(&mut self, newcomers: &[Newcomer], outcome: Outcome) {
        let identities: Vec<Option<Identity>> = match outcome {
            Outcome::Answered(Answer::Identities(identities)) => identities,
            Outcome::Missed { blocked, gone } => {
                tracing::debug!(?blocked, "identifying new mounts blocked");
                if let Some(newcomer) = newcomers.first() {
                    self.schedule.occupy(newcomer.mount.dev);
                    self.await_end(newcomer.mount.dev, gone);
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        for (index, newcomer) in newcomers.iter().enumerate() {
            let identity = identities.get(index).and_then(Option::as_ref);
            self.identified(newcomer, identity);
        }
        self.news = true;
    }

    fn identified(&mut self, newcomer: &Newcomer, identity: Option<&Identity>) {
        let (now, unix) = (self.now(), super::unix_now());
        let Some(id) = self.registry.identified(newcomer, identity, unix) else { return };
        let Some(target) = self.registry.targets.get(&id) else { return };
        self.schedule.add(id, target.dev, &target.server_label(), target.watched(), now);
        if target.takes_sentinels() {
            // The last reading does not have this mount; a replacement is proven by comparing with an early one.
            self.transports.ask_now(newcomer.mount.view, now);
        }
    }

    /// Starts what is due.
    pub(super) fn tick(&mut self) {
        let now = self.now();
        while let Some(&(at, id)) = self.growing.first().filter(|(at, _)| *at <= now) {
            self.growing.remove(&(at, id));
            let young = self.registry.targets.get(&id).and_then(|target| target.started_at);
            // A later probe of the same target has its own entry.
            if young.is_some_and(|started| started + self.config.slow <= now) {
                self.schedule.grow_up(id);
            }
        }
        for due in self.schedule.take_due(now) {
            match due {
                Due::Probe(id) => self.probe(id, now),
                Due::Inherit(id, from) => self.inherit(id, from),
            }
        }
        for (key, address, version) in self.servers.take_due(now) {
            let deadline = self.servers.deadline();
            self.running.spawn(async move {
                Event::Answered { key, answer: crate::server::ask(address, version, deadline).await }
            });
        }
        for view in self.transports.take_due(now) {
            self.count(view);
        }
    }

    /// When [`Core::tick`] has something to do next.
    pub(super) fn next_wake(&self) -> Option<Now> {
        let growing = self.growing.first().map(|(at, _)| *at);
        let candidates = [self.schedule.next_wake(), growing, self.servers.next_wake(), self.transports.next_wake()];
        candidates.into_iter().flatten().min()
    }

    fn probe(&mut self, id: TargetId, now: Now) {
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
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        target.started_at = Some(now);
        target.rounds += 1;
        let learn_due = target.learned_at.is_none_or(|at| now.saturating_sub(at) >= LEARN_EVERY);
        let wants_learning = target.takes_sentinels() && target.sentinels.is_empty() && learn_due;
        let on = |detector: &str| !self.config.without.iter().any(|off| off == detector);
        let spec = ProbeSpec {
            place: place(&member, target.dev, &self.config.proc_root),
            statx_root: on("statx_root"),
            sentinels: target.sentinels.clone(),
            first: target.rounds,
            // A full filesystem is looked at each time: it is full until the numbers say otherwise.
            statfs: target.rounds % SPACE_ROUNDS == 1 || target.memory.state == State::Full,
            learn: if wants_learning && !self.one_pass && on("sentinels") { self.config.sentinels } else { 0 },
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
        let open: Vec<_> = target.members.iter().filter(|member| !member.hidden).collect();
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
                self.await_end(dev, gone);
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

    fn await_end(&mut self, dev: Dev, gone: oneshot::Receiver<()>) {
        self.running.spawn(async move {
            // Closed without a word when the pool itself ends.
            let _ = gone.await;
            Event::Reaped { dev }
        });
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
        if let Some(target) = self.registry.targets.get_mut(&id) {
            let waited = Duration::from_millis(blocked.millis);
            target.blocked_total += waited;
            target.blocked_since.get_or_insert(now.saturating_sub(waited));
        }
        self.judge_blocked(id, blocked);
    }

    fn on_report(&mut self, id: TargetId, way: Way, report: ProbeReport, now: Now) {
        let lost_way = |step: &StepResult| matches!(step.errno, Some(libc::ENOENT | libc::ELOOP));
        self.reread |= report.mismatch || report.step(Step::Open).is_some_and(lost_way);
        let gone = |fate| matches!(fate, SentinelFate::Gone | SentinelFate::Changed);
        let suspicious = !report.sentinels.is_empty() && report.sentinels.iter().all(|check| gone(check.fate));
        if self.root_replaced(id, way, &report) || self.may_identify(id, &report, now) {
            // Unmounted and mounted again between two readings of the table: another root under the same numbers. Or a root
            // that could not be identified and now can.
            if let Some(target) = self.registry.dissolve(id) {
                self.forget(&target, now);
            }
            self.reread = true;
            return;
        }
        self.count_durations(id, &report);
        if let Some(target) = self.registry.targets.get_mut(&id) {
            target.blocked_since = None;
            target.steps.clone_from(&report.steps);
            if report.step(Step::Learn).is_some() {
                // Also when it failed: a directory that we may not read is not read every round.
                target.learned_at = Some(now);
                target.sentinels = report.learned.clone().unwrap_or_default();
            }
        }
        if suspicious && self.want_fresh_counters(id, now) {
            self.suspected.insert(id, (self.view_of(id), report));
            return;
        }
        self.judge_report(id, report);
    }

    fn view_of(&self, id: TargetId) -> View {
        let member = self.registry.targets.get(&id).and_then(|target| target.members.first());
        member.map_or(View::Own, |member| member.view)
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
            Key::Mount { .. } => false,
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

    /// Entries are gone: did the transport reconnect? Asks for counters that are younger than the probe.
    fn want_fresh_counters(&mut self, id: TargetId, now: Now) -> bool {
        let view = self.view_of(id);
        self.transports.ask_now(view, now)
    }

    fn count(&mut self, view: View) {
        use std::os::unix::ffi::OsStrExt;
        let process = match view {
            View::Own => "self",
            View::Host => "1",
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

fn pace(config: &Config) -> Pace {
    Pace { interval: config.interval, backoff_max: config.backoff_max, per_server: config.probes_per_server }
}

pub(super) fn limits(config: &Config) -> Limits {
    Limits { warm: config.workers_warm, max: config.workers_max, per_owner: config.workers_per_owner }
}
