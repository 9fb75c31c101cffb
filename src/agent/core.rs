//! The loop's state: what is mounted, what is under way, what is due. Each method is one event.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::book::{Book, Turn};
use super::canary::{self, Begun, Canaries};
use super::containers::{Containers, Question, Volumes, commons};
use super::history::History;
use super::inquiry::{self, Inquiries};
use super::kernel_log;
use super::memory::StateFile;
use super::pending::Pending;
use super::registry::{Newcomer, Registry};
use super::rescue::Rescues;
use super::servers::{ServerKey, Servers};
use super::signals::Readings;
use super::suspicion::Suspicion;
use super::transports::Transports;
use super::unstick::{LastLook, Released, Unsticks};
use super::wall::WallClock;
use crate::cluster::RightNow;
use crate::config::Config;
use crate::mounts::efs::StateFiles;
use crate::mounts::filter::Filter;
use crate::mounts::table::Table;
use crate::mounts::{Dev, View};
use crate::pending::Wanted;
use crate::pending::book::Answer;
use crate::pending::mounting::Mounting;
use crate::pods::names::PodNames;
use crate::probe::pool::{Blocked, Limits, Outcome, Pool};
use crate::probe::schedule::{Due, Now, Pace, Schedule, TargetId};
use crate::probe::survey::{Survey, SurveySpec};
use crate::probe::trial::TrialReport;
use crate::server::ServerAnswer;
use crate::server::dns::Resolver;
use crate::snapshot::{AgentStats, DurationHistogram};
use crate::verdict::{Finding, Tuning};

/// It is looked so often whom to ask the servers about: that walks over all targets.
const INQUIRY_GRAIN: Duration = Duration::from_secs(1);

/// Something under way came to its end.
pub(super) enum Event {
    /// Roots were identified, or not.
    Identified { newcomers: Vec<Newcomer>, outcome: Outcome },
    /// A probe ended.
    Probed { id: TargetId, dev: Dev, way: Way, outcome: Outcome },
    /// The kernel let a killed worker go.
    Reaped { dev: Dev },
    /// A server answered, or did not.
    Answered { key: ServerKey, answer: ServerAnswer, turn: Turn },
    /// A server was asked about one mount.
    Examined { id: TargetId, report: Box<inquiry::Report>, turn: Turn },
    /// Transport counters were read.
    Counted { view: View, outcome: Outcome, took: Duration },
    /// Transport states and FUSE queues were read.
    Signalled { outcome: Outcome, took: Duration },
    /// The state files of the EFS mount helper were read.
    EfsState { outcome: Outcome },
    /// The processes of the node were looked through.
    Scanned { outcome: Outcome, took: Duration },
    /// Mount tables of containers were read.
    TablesRead { asked: Vec<Question>, at: Now, outcome: Outcome, took: Duration },
    /// A canary ended.
    Canaried { id: TargetId, dev: Dev, begun: Begun, outcome: Outcome },
    /// A killed worker whose miss proved nothing is still held by the kernel.
    Held { id: TargetId, dev: Dev, blocked: Blocked, gone: oneshot::Receiver<()> },
    /// A canary's worker was killed and does not die.
    CanaryStuck { id: TargetId, dev: Dev, gone: oneshot::Receiver<()> },
    /// What canaries say of this machine was read.
    CanaryHome { outcome: Outcome },
    /// A trial mount of a dead target came to its end.
    Tried { id: TargetId, trial: Box<Result<TrialReport, String>> },
    /// A server was asked what stands in the way of a mount that a pod waits for.
    Offered { wanted: Box<Wanted>, answer: Box<Answer> },
    /// The kubelet's mounts were looked for.
    MountsScanned(Mounting),
    /// What speaks for and against releases was looked at; `last_look`: right before one.
    Surveyed { spec: SurveySpec, survey: Result<Survey, String>, last_look: Option<LastLook> },
    /// The kill switch was read.
    Switch { right_now: RightNow },
    /// A release came to its end.
    Released(Box<Released>),
    /// The state file was written, or not.
    Kept { outcome: Outcome },
    /// The configuration was read again.
    Reloaded(anyhow::Result<Box<Config>>),
}

/// Which of its mounts a target was probed by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) mount_id: u64,
    /// Its path leads through another network mount.
    pub(super) through: bool,
}

/// Everything that the loop owns.
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) filter: Filter,
    pub(super) start: Instant,
    pub(super) wall: WallClock,
    pub(super) node: String,
    pub(super) table: Table,
    pub(super) registry: Registry,
    pub(super) schedule: Schedule,
    pub(super) pool: Pool,
    pub(super) canaries: Canaries,
    pub(super) running: JoinSet<Event>,
    /// Whoever asks a server takes his turn here.
    pub(super) book: Book,
    /// The host's resolver: one for all, because its lookups cannot be cut short and are counted.
    pub(super) resolver: Resolver,
    pub(super) servers: Servers,
    pub(super) inquiries: Inquiries,
    pub(super) transports: Transports,
    pub(super) kernel_log: kernel_log::Book,
    pub(super) signals: Readings,
    pub(super) efs: StateFiles,
    pub(super) containers: Containers,
    /// Where the host has the pods' volumes.
    pub(super) volumes: Volumes,
    pub(super) rescues: Rescues,
    pub(super) unsticks: Unsticks,
    pub(super) state_file: StateFile,
    pub(super) history: History,
    /// What the cluster calls this node's pods; empty without one.
    pub(super) names: Arc<PodNames>,
    pub(super) pending_pods: Pending,
    pub(super) stats: AgentStats,
    pub(super) durations: BTreeMap<(String, &'static str), DurationHistogram>,
    /// Numbers changed since the last publication.
    pub(super) changed: bool,
    /// Somebody waits for what changed: a state, a target that came or went.
    pub(super) news: bool,
    pub(super) reread: bool,
    /// When it is next looked whom to ask about.
    pub(super) next_inquiry: Now,
    pub(super) one_pass: bool,
    /// A configuration that was read again and is not in force yet.
    pub(super) reloaded: Option<anyhow::Result<Config>>,
    /// Only these mounts are asked for (`check PATH`).
    pub(super) only: Option<HashSet<(View, u64)>>,
    /// The first pass is done, and stays so whatever is mounted later.
    pub(super) was_ready: bool,
    /// A table whose local proxies wait to be decoded.
    pub(super) pending: Option<Table>,
    /// When targets without identity were last given up to be identified anew.
    pub(super) reidentified: Option<Now>,
    /// Looks that are not judged yet ([`super::suspicion`]).
    pub(super) suspected: HashMap<TargetId, Suspicion>,
    pub(super) growing: BTreeSet<(Now, TargetId)>,
    /// What the last reading of the table says of each mount beside its state.
    pub(super) table_findings: HashMap<(View, u64), Vec<Finding>>,
    /// When the table was last read for the sake of local filesystems.
    pub(super) flips_looked_for: Now,
}

impl Core {
    /// The loop's state; nothing is under way yet.
    pub(super) fn new(config: Config, filter: Filter, pool: Pool, node: String, one_pass: bool) -> Core {
        let pace = pace(&config);
        let mut canaries = Canaries::new(&pool);
        // A single pass writes only where it is asked to ([`super::lookup::check_by_writing`]).
        if !one_pass {
            canaries.switch.set_globs(canary::globs(&config));
        }
        Core {
            canaries,
            filter,
            start: Instant::now(),
            wall: WallClock::default(),
            node,
            table: Table::default(),
            registry: Registry::default(),
            schedule: Schedule::new(pace, fastrand::Rng::new()),
            pool,
            running: JoinSet::new(),
            book: Book::default(),
            resolver: Resolver::default(),
            servers: Servers::new(config.timeout),
            inquiries: Inquiries::default(),
            transports: Transports::default(),
            kernel_log: kernel_log::Book::default(),
            signals: Readings::default(),
            efs: StateFiles::default(),
            containers: Containers::default(),
            volumes: Volumes::default(),
            rescues: Rescues::default(),
            unsticks: Unsticks::default(),
            state_file: StateFile::default(),
            history: History::default(),
            names: Arc::default(),
            pending_pods: Pending::default(),
            stats: AgentStats { config_ok: true, ..AgentStats::default() },
            durations: BTreeMap::new(),
            changed: true,
            news: true,
            reread: false,
            next_inquiry: Now::ZERO,
            one_pass,
            reloaded: None,
            only: None,
            was_ready: false,
            pending: None,
            reidentified: None,
            suspected: HashMap::new(),
            growing: BTreeSet::new(),
            table_findings: HashMap::new(),
            flips_looked_for: Now::ZERO,
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
        self.unsticks.look_again();
        self.schedule.set_pace(pace(&config), self.now());
        self.servers.set_timeout(config.timeout);
        self.canaries.switch.set_globs(canary::globs(&config));
        self.config = config;
        self.filter = filter;
        self.reread = true;
    }

    /// The cluster's side tells other names, or other things of the pods.
    pub(super) fn take_names(&mut self, names: Arc<PodNames>) {
        self.containers.commons = commons(&names);
        self.names = names;
        self.containers.epoch += 1;
        self.changed = true;
        self.remember_pods();
    }

    /// The first pass is done: every mount is identified and every target was judged once.
    pub(super) fn ready(&mut self) -> bool {
        if !self.was_ready {
            let judged = self.registry.targets.values().all(|target| target.judged);
            self.was_ready = self.pending.is_none() && self.containers.settled() && self.registry.settled() && judged;
        }
        self.was_ready
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
        for (key, version, turn) in self.servers.take_due(now, &self.book) {
            let deadline = self.servers.deadline();
            self.running.spawn(async move {
                Event::Answered { key, answer: crate::server::ask(key.address(), version, deadline).await, turn }
            });
        }
        self.count_in_containers(now);
        for view in self.transports.take_due(now) {
            self.count(view);
        }
        if now >= self.next_inquiry {
            self.next_inquiry = now + INQUIRY_GRAIN;
            self.inquire(now);
        }
        self.look_at_containers(now);
        if !self.one_pass {
            self.read_signals(now);
            self.try_mounts(now);
            self.look_for_waiting(now);
            self.look_for_stuck(now);
            self.keep(now);
        }
    }

    /// When [`Core::tick`] has something to do next.
    pub(super) fn next_wake(&self) -> Option<Now> {
        let growing = self.growing.first().map(|(at, _)| *at);
        let signals = self.signals.next_wake().filter(|_| !self.one_pass);
        let (servers, transports) = (self.servers.next_wake(&self.book), self.transports.next_wake());
        let candidates = [
            self.schedule.next_wake(),
            growing,
            servers,
            transports,
            signals,
            Some(self.next_inquiry).filter(|_| self.one_pass),
            self.rescues.next_wake(),
            self.pending_pods.next_wake(),
            self.next_unstick(),
            self.next_keep(),
            self.containers.next_wake(),
        ];
        candidates.into_iter().flatten().min()
    }
}

fn pace(config: &Config) -> Pace {
    Pace { interval: config.interval, backoff_max: config.backoff_max, per_server: config.probes_per_server }
}

pub(super) fn limits(config: &Config) -> Limits {
    Limits { warm: config.workers_warm, max: config.workers_max, per_owner: config.workers_per_owner }
}
