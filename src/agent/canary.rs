//! When a canary is written, and what is remembered of it.
//!
//! A canary follows a good look at the same target and holds its superblock's lane meanwhile, so that never more than
//! one worker is at one superblock. What it finds stands until the next one and is judged with each look.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use tokio::sync::oneshot;

use super::core::{Core, Event};
use super::judging::log_canary;
use super::target::{Member, Target, place};
use crate::canary::peers::{Peer, PeerState, Peers};
use crate::canary::record::{Record, id_of};
use crate::canary::{DIRECTORY, Ids, Switch};
use crate::config::Config;
use crate::mounts::{Dev, Process, View, octal};
use crate::pods::namespaces::Holder;
use crate::probe::canary::cgroup::{CgroupSpec, Home, Isolation};
use crate::probe::canary::{CanaryEnd, CanaryReport, CanarySpec, Entries, EntryUser, ReaderEnd, Refusal, Skip};
use crate::probe::pool::{Blocked, Class, Limits, Outcome, Pool};
use crate::probe::schedule::{Now, TargetId};
use crate::probe::wire::{Answer, Job};
use crate::probe::{ProbeReport, Space, StepResult};
use crate::snapshot::{CanaryStatus, PeerStatus, UnixSeconds};
use crate::verdict::judge::words::errno_name;
use crate::verdict::{CanaryOutcome, CanaryView, Finding, Observation, State};

/// Canaries at a time, and for one owner. Each is a process of its own that mostly takes milliseconds.
const LIMITS: Limits = Limits { warm: 0, max: 16, per_owner: 4 };

/// Records of other nodes that are looked at in a round, and of those that worry besides.
const SAMPLE: usize = 4;

/// Other nodes that are shown one by one; the worst come first.
const SHOWN_PEERS: usize = 16;

/// The root's entries are looked at so often, and with the next canary where other containers have the mount.
const ENTRIES_EVERY: Duration = Duration::from_secs(600);

/// Containers whose ids are tried on the entries of one mount, and those that are told.
const MOST_USERS: usize = 32;
const TOLD_USERS: usize = 3;

/// What earlier agents left is looked for so often, and more often while there is some.
const HOME_EVERY: Duration = Duration::from_secs(60);
const HOME_EVERY_WITH_STRAYS: Duration = Duration::from_secs(5);

/// A killed worker that is not gone after this is stuck in the kernel (63 ms is the longest that was measured for one
/// that can be killed at all).
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// What all canaries of this agent share.
pub(super) struct Canaries {
    pub(super) switch: Switch,
    pub(super) pool: Pool,
    /// This run of the agent, for the names of its workers' cgroups.
    run: String,
    home: Option<Home>,
    asked: Option<Now>,
    isolation: Option<Isolation>,
}

impl Canaries {
    /// This run of the agent, as the cgroups of its workers are named.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// Nothing is written yet. `probes`: the pool whose program the workers are.
    pub(super) fn new(probes: &Pool) -> Canaries {
        Canaries {
            switch: Switch::default(),
            pool: probes.beside(LIMITS),
            run: format!("{:08x}", fastrand::u32(..)),
            home: None,
            asked: None,
            isolation: None,
        }
    }
}

/// The patterns of `canary.mounts`; the configuration has checked them.
pub(super) fn globs(config: &Config) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for pattern in &config.canary_mounts {
        if let Ok(glob) = GlobBuilder::new(pattern).build() {
            set.add(glob);
        }
    }
    set.build().unwrap_or_else(|_| GlobSet::empty())
}

/// What a canary was begun with.
#[derive(Debug)]
pub(super) struct Begun {
    /// The look that it followed.
    report: ProbeReport,
    /// That look was judged.
    judged: bool,
    /// On whose behalf entries are looked at.
    users: Vec<EntryUser>,
}

/// What is known of one target's canary.
#[derive(Debug, Default)]
pub(super) struct Canary {
    pub(super) outcome: Option<CanaryOutcome>,
    /// Rounds in a row that ended alike.
    rounds: u32,
    as_root: bool,
    space: Option<Space>,
    ended: Now,
    due: Now,
    pause: Option<Duration>,
    pub(super) seq: u64,
    /// The mark of the directory that a canary was written to, once a look at the mount after it was good.
    pub(super) directory: Option<Vec<u8>>,
    /// The same of the last canary: it may be another filesystem's already.
    written_to: Option<Vec<u8>>,
    cursor: u64,
    entries_at: Option<Now>,
    /// On whose behalf they were looked at.
    entries_for: Vec<EntryUser>,
    entries: Option<Entries>,
    reader: Option<ReaderEnd>,
    refusal: Option<Refusal>,
    pub(super) peers: Peers,
    /// The word and the sentence of the last end.
    pub(super) result: &'static str,
    pub(super) detail: String,
    pub(super) results: BTreeMap<&'static str, u64>,
    pub(super) steps: Vec<StepResult>,
    pub(super) last: Option<UnixSeconds>,
    pub(super) last_success: Option<UnixSeconds>,
}

impl Canary {
    /// What the judge may know of it: nothing once it is too old.
    pub(super) fn view(&self, now: Now, config: &Config) -> Option<CanaryView> {
        let valid = (config.canary_interval + config.interval) * 2 + config.timeout;
        let outcome = self.outcome.clone().filter(|_| now.saturating_sub(self.ended) <= valid)?;
        Some(CanaryView { outcome, rounds: self.rounds, as_root: self.as_root, space: self.space })
    }

    /// A look was good: the directory that was written to before it is this mount's.
    fn confirm_directory(&mut self) {
        self.directory = self.written_to.take().or(self.directory.take());
    }

    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        let unread = self.reader.is_some_and(|reader| reader != ReaderEnd::Read);
        let closed = self.entries.as_ref().is_some_and(|entries| entries.closed > 0 || !entries.users.is_empty());
        [
            (self.refusal.is_some(), Finding::CanaryRefused),
            (unread, Finding::UnreadableByB),
            (closed, Finding::UnreadableEntries),
            (self.peers.any(PeerState::Silent), Finding::PeerSilent),
            (self.peers.any(PeerState::Late), Finding::PeerLate),
        ]
        .into_iter()
        .filter_map(|(holds, finding)| holds.then_some(finding))
    }

    /// Who cannot pass which entries, in words.
    pub(super) fn closed_words(&self) -> Option<String> {
        let entries = self.entries.as_ref()?;
        let line = |who: &str, closed: usize, example: &[u8]| {
            let example = octal::label(OsStr::from_bytes(example));
            format!("{who} cannot pass {closed} of {} entries at the root, `{example}` for one", entries.looked)
        };
        let configured = (entries.closed > 0).then(|| line("the configured ids", entries.closed, &entries.example));
        let users = entries.users.iter().map(|user| line(&user.name, user.closed, &user.example));
        let all: Vec<String> = configured.into_iter().chain(users).collect();
        let more = all.len().saturating_sub(TOLD_USERS);
        let told = all.get(..TOLD_USERS).unwrap_or(&all).join("; ");
        let more = if more > 0 { format!("; nor can {more} more pass all of them") } else { String::new() };
        (!told.is_empty()).then(|| format!("{told}{more}"))
    }

    /// Takes an end over. Ends alike are counted: one that differs alone proves nothing.
    fn end(&mut self, outcome: Option<CanaryOutcome>, word: &'static str, detail: String, now: Now, unix: UnixSeconds) {
        let alike = match (&self.outcome, &outcome) {
            (Some(CanaryOutcome::Failed(before)), Some(CanaryOutcome::Failed(after))) => before.errno == after.errno,
            (Some(before), Some(after)) => std::mem::discriminant(before) == std::mem::discriminant(after),
            _ => false,
        };
        self.rounds = if alike { self.rounds.saturating_add(1) } else { 1 };
        self.outcome = outcome;
        self.ended = now;
        (self.result, self.detail) = (word, detail);
        *self.results.entry(word).or_default() += 1;
        self.last = Some(unix);
        if word == "ok" || word == "late" {
            self.last_success = Some(unix);
        }
    }

    /// The root's entries are to be looked at again.
    fn wants_entries(&self, users: &[EntryUser], now: Now) -> bool {
        self.entries_at.is_none_or(|at| now.saturating_sub(at) >= ENTRIES_EVERY) || self.entries_for != users
    }

    /// After a good end the next one comes an interval later; after a bad one sooner, and ever less so.
    fn plan(&mut self, now: Now, config: &Config) {
        let good = matches!(self.outcome, Some(CanaryOutcome::Good | CanaryOutcome::Late));
        let longest = config.canary_interval.max(config.interval);
        self.pause = (!good).then(|| self.pause.map_or(config.interval, |before| (before * 2).min(longest)));
        self.due = now + self.pause.unwrap_or(config.canary_interval);
    }

    /// Nothing was learned, and not for the mount's sake (a server that restarts in the middle of a write): the next look
    /// tries again. Only once: a machine that is too busy is not helped by more canaries.
    fn try_again(&mut self, now: Now, config: &Config) {
        let first = self.pause.is_none();
        self.plan(now, config);
        if first {
            self.due = now;
        }
    }
}

impl Core {
    /// A look at a mount that did not answer was good, and it has a canary, which is written at once: it is well when that is
    /// done, too. After its restart a server may let read and keep writers waiting, and a mount that is called healthy in
    /// between alarms twice.
    pub(super) fn may_recover(&mut self, id: TargetId, report: &ProbeReport) -> bool {
        let now = self.now();
        let Some(target) = self.registry.targets.get(&id) else { return false };
        let slow = self.config.slow;
        // Where only its canary hangs, the next one comes in its turn.
        let read = target.decision.as_ref().is_none_or(|decision| match &decision.evidence.observation {
            Observation::Report(before) => fits(before, slow),
            _ => false,
        });
        let stray = self.canaries.home.as_ref().is_some_and(|home| home.stray_on(target.dev).is_some());
        let hung = target.memory.state == State::Hung && !read;
        if !hung || stray || self.one_pass || !fits(report, slow) || self.canary_member(target).is_none() {
            return false;
        }
        if let Some(canary) = self.registry.targets.get_mut(&id).and_then(|target| target.canary.as_mut()) {
            canary.due = now;
        }
        true
    }

    /// A look at a target ended: writes its canary if it has one and all was well. Says whether it did. `judged`: that look was.
    pub(super) fn begin_canary(&mut self, id: TargetId, report: &ProbeReport, judged: bool) -> bool {
        let now = self.now();
        self.drop_unwanted_canary(id);
        if !fits(report, self.config.slow) {
            return false;
        }
        if let Some(canary) = self.registry.targets.get_mut(&id).and_then(|target| target.canary.as_mut()) {
            canary.confirm_directory();
        }
        if self.canaries.switch.is_off() {
            return false;
        }
        let Some(target) = self.registry.targets.get(&id) else { return false };
        // Probes come a little early at random; a canary is not put off a whole round for that.
        let due = target.canary.as_ref().is_none_or(|canary| canary.due <= now + self.config.interval / 2);
        if !due {
            return false;
        }
        let Some(member) = self.canary_member(target).cloned() else { return false };
        let Some(home) = &self.canaries.home else { return false };
        let dev = target.dev;
        if let Some(stray) = home.stray_on(dev) {
            // One that began just now may come back yet.
            let stuck = stray.stuck_millis.filter(|age| u128::from(*age) >= self.config.timeout.as_millis());
            self.canary_waits(id, stuck);
            self.judge_with_canary(id, Observation::Report(report.clone()));
            return false;
        }
        let spec = self.canary_spec(target, &member, home, now);
        let (pool, owner) = (self.canaries.pool.clone(), target.owner.clone());
        let (deadline, report, users) = (self.config.timeout, report.clone(), spec.users.clone());
        // The probe that was in the lane has just ended; nobody else may come before the canary is done.
        self.schedule.occupy(dev);
        self.running.spawn(async move {
            let outcome = pool.run(Job::Canary(Box::new(spec)), &owner, Class::Hopeful, deadline, deadline).await;
            Event::Canaried { id, dev, begun: Begun { report, judged, users }, outcome }
        });
        true
    }

    /// A canary is wanted where all is well so far, and did not come to its end yet: a pass that writes waits for it.
    pub(super) fn writing(&self) -> bool {
        let wanted = |target: &&Target| target.canary.is_none() && target.verdict.state == State::Healthy;
        let mut targets = self.registry.targets.values().filter(wanted);
        !self.canaries.switch.is_off() && targets.any(|target| self.canary_member(target).is_some())
    }

    /// What a canary found is no news of a mount that has none any more.
    fn drop_unwanted_canary(&mut self, id: TargetId) {
        let had = |target: &&Target| target.canary.is_some() && self.canary_member(target).is_none();
        if self.registry.targets.get(&id).filter(had).is_some()
            && let Some(target) = self.registry.targets.get_mut(&id)
        {
            target.canary = None;
        }
    }

    /// A mount of the target that somebody wants a canary on and that may be written to.
    fn canary_member<'a>(&self, target: &'a Target) -> Option<&'a Member> {
        let open = |member: &&Member| !member.hidden && member.through.is_none();
        let wanted = |member: &&Member| self.canaries.switch.wants(&member.mountpoint);
        let mut members = target.members.iter().filter(open).filter(wanted);
        members.find(|member| {
            let same = |mount: &&crate::mounts::Mount| (mount.view, mount.id) == (member.view, member.mount_id);
            // One whose superblock turned read-only is written to all the same: that is what the canary is for.
            self.table.mounts.iter().find(same).is_some_and(|mount| !mount.has_option("ro"))
        })
    }

    fn canary_spec(&self, target: &Target, member: &Member, home: &Home, now: Now) -> CanarySpec {
        let known = target.canary.as_deref();
        let promise = self.config.canary_interval + self.config.interval;
        let record = Record {
            id: id_of(&home.machine_id, &self.node),
            node: self.node.clone(),
            boot: String::from_utf8_lossy(&home.boot_id).into_owned(),
            seq: known.map_or(0, |canary| canary.seq),
            interval: promise.as_secs().max(1),
        };
        let users = if self.one_pass { Vec::new() } else { self.entry_users(target) };
        let look = !self.one_pass && known.is_none_or(|canary| canary.wants_entries(&users, now));
        CanarySpec {
            place: place(member, target.dev, &self.config.proc_root),
            record,
            writer: self.config.canary_identity.clone(),
            // A single canary is gone before anybody else could read it.
            reader: self.config.canary_reader.clone().filter(|_| !self.one_pass),
            allow_empty_root: self.config.canary_empty_root,
            once: self.one_pass,
            sample: if self.one_pass { 0 } else { SAMPLE },
            cursor: known.map_or(0, |canary| canary.cursor),
            ask: known.map(|canary| canary.peers.to_ask(SAMPLE)).unwrap_or_default(),
            users: if look { users } else { Vec::new() },
            entries: look,
            cgroup: CgroupSpec { proc_root: self.proc_root_bytes(), run: self.canaries.run.clone(), dev: target.dev },
        }
    }

    /// Containers that have this very mount, with the ids of their processes. None where mode and owner do not decide who
    /// may pass: FUSE and SMB judge by themselves, Kerberos by its tickets, an EFS access point by its own user.
    pub(super) fn entry_users(&self, target: &Target) -> Vec<EntryUser> {
        let proxy = target.mount.origin.proxy_port.and_then(|port| self.efs.lookup(port, &target.mount.mountpoint));
        let access_point = proxy.is_some_and(|efs| efs.access_point.is_some());
        if !target.facts.is_nfs() || !target.facts.plain_security || access_point {
            return Vec::new();
        }
        let processes = target.members.iter().filter_map(|member| match member.view {
            View::Container(process) => Some(process),
            View::Own | View::Host => None,
        });
        let processes: BTreeSet<Process> = processes.collect();
        let of_target = self.containers.namespaces.iter().filter(|namespace| processes.contains(&namespace.process));
        let known = of_target.filter(|namespace| !namespace.ids.is_empty()).filter_map(|namespace| {
            let name = self.container_words(&namespace.holder)?;
            let user = EntryUser { name, ids: namespace.ids.iter().map(|ids| Ids::clone(ids)).collect() };
            Some((namespace.process.start, user))
        });
        let mut users: Vec<(u64, EntryUser)> = known.collect();
        users.sort_by(|(a_start, a), (b_start, b)| (&a.name, a_start).cmp(&(&b.name, b_start)));
        // What runs containers of its own is one of the cluster's all the same: its own namespace is the oldest.
        users.dedup_by(|(_, a), (_, b)| a.name == b.name);
        users.into_iter().take(MOST_USERS).map(|(_, user)| user).collect()
    }

    /// A container of a pod that stays, and whom it runs as: by name where the cluster tells it.
    fn container_words(&self, holder: &Holder) -> Option<String> {
        let (uid, id) = (holder.pod_uid()?, holder.container_id()?);
        if self.names.terminating(uid) {
            return None;
        }
        let pod = self.names.pod(uid);
        let name = pod.map_or_else(|| format!("pod {uid}"), |pod| pod.full());
        let container = pod.and_then(|pod| pod.container(id)).or(id.get(..12)).unwrap_or(id);
        Some(format!("{name} ({container})"))
    }

    fn proc_root_bytes(&self) -> Vec<u8> {
        self.config.proc_root.as_os_str().as_bytes().to_vec()
    }

    /// A look at a target begins, which a canary may follow.
    pub(super) fn prepare_canary(&mut self, id: TargetId, now: Now) {
        let wanted = |target: &&Target| !self.canaries.switch.is_off() && self.canary_member(target).is_some();
        if self.registry.targets.get(&id).filter(wanted).is_some() {
            self.ask_home(now);
        }
    }

    /// Asks a worker for the machine's id and for what earlier agents left, before the first canary and now and then.
    fn ask_home(&mut self, now: Now) {
        let strays = self.canaries.home.as_ref().is_some_and(|home| !home.strays.is_empty());
        let every = if strays { HOME_EVERY_WITH_STRAYS } else { HOME_EVERY };
        if self.canaries.asked.is_some_and(|at| now.saturating_sub(at) < every) {
            return;
        }
        self.canaries.asked = Some(now);
        let job = Job::CanaryHome { proc_root: self.proc_root_bytes(), run: self.canaries.run.clone() };
        let (pool, deadline) = (self.pool.clone(), self.config.timeout);
        self.running.spawn(async move {
            Event::CanaryHome { outcome: pool.run(job, "canary", Class::Hopeful, deadline, deadline).await }
        });
    }

    pub(super) fn on_canary_home(&mut self, outcome: Outcome) {
        let Outcome::Answered(Answer::CanaryHome(home)) = outcome else {
            // Without a name of its own no canary is written; asked again at the next round.
            self.canaries.asked = self.canaries.home.is_some().then(|| self.now());
            return;
        };
        let processes: usize = home.strays.iter().map(|stray| stray.processes).sum();
        self.stats.canary_strays = processes as u64;
        let stuck: Vec<Dev> = home.strays.iter().map(|stray| stray.dev).collect();
        let before = self.canaries.home.replace(home);
        let first = before.is_none();
        if first && processes > 0 {
            tracing::warn!(
                stuck = processes,
                "canary workers of an earlier agent are still stuck in the kernel; their mounts get no canary until they are gone"
            );
        }
        let before: Vec<Dev> = before.into_iter().flat_map(|home| home.strays).map(|stray| stray.dev).collect();
        self.hurry_canaries(|dev| first || before.contains(&dev) && !stuck.contains(&dev));
    }

    /// Writes the canaries on these superblocks as soon as their mounts were looked at again.
    fn hurry_canaries(&mut self, wanted: impl Fn(Dev) -> bool) {
        let now = self.now();
        let with_canary = |target: &&Target| wanted(target.dev) && self.canary_member(target).is_some();
        let ids: Vec<TargetId> = self.registry.targets.values().filter(with_canary).map(|target| target.id).collect();
        for id in ids {
            if let Some(canary) = self.registry.targets.get_mut(&id).and_then(|target| target.canary.as_mut()) {
                canary.due = now;
            }
            self.schedule.hurry(id, now);
        }
    }

    /// A canary came to its end, or missed a deadline.
    pub(super) fn on_canaried(
        &mut self,
        id: TargetId,
        dev: Dev,
        Begun { report, judged, users }: Begun,
        outcome: Outcome,
    ) {
        let now = self.now();
        if !matches!(outcome, Outcome::Missed { .. }) {
            self.schedule.reaped(dev, now);
        }
        match outcome {
            Outcome::Answered(Answer::Canary(canary)) => self.take_canary(id, *canary, users),
            Outcome::Missed { blocked, gone } => {
                self.await_canary(id, dev, gone);
                self.canary_missed(id, blocked);
            }
            Outcome::Answered(_) => self.canary_skipped(id, "the worker answered another question".to_owned()),
            Outcome::Lost(why) => self.canary_skipped(id, why),
            Outcome::NoRoom => self.canary_skipped(id, "no worker was free".to_owned()),
            Outcome::NotStarted(error) => self.canary_skipped(id, format!("no worker could be started: {error}")),
        }
        if judged {
            self.judge_with_canary(id, Observation::Report(report));
        } else {
            self.judge_report(id, report);
        }
    }

    /// The lane stays taken until the killed worker is gone. One that does not die is said to the siblings.
    fn await_canary(&mut self, id: TargetId, dev: Dev, mut gone: oneshot::Receiver<()>) {
        self.running.spawn(async move {
            match tokio::time::timeout(STUCK_AFTER, &mut gone).await {
                Ok(_) => Event::Reaped { dev },
                Err(_) => Event::CanaryStuck { id, dev, gone },
            }
        });
    }

    pub(super) fn on_canary_stuck(&mut self, id: TargetId, dev: Dev, gone: oneshot::Receiver<()>) {
        let now = self.now();
        self.schedule.stuck(id, dev, now);
        self.await_end(dev, gone);
    }

    fn canary_missed(&mut self, id: TargetId, blocked: Blocked) {
        if blocked.is_evidence() {
            let detail = format!("{} did not return", blocked.step.map_or("it", crate::probe::Step::as_str));
            return self.canary_ended(id, Some(CanaryOutcome::Blocked(blocked)), "timeout", detail);
        }
        let (now, unix) = (self.now(), self.unix_now());
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        self.stats.overloads_total += 1;
        let canary = target.canary.get_or_insert_default();
        canary.end(None, "skipped", "the agent itself was too late to tell".to_owned(), now, unix);
        canary.try_again(now, &self.config);
    }

    /// A worker of an earlier agent is on the superblock. `stuck`: for so many milliseconds, by which it is known not to come
    /// back.
    fn canary_waits(&mut self, id: TargetId, stuck: Option<u64>) {
        let why = "a canary of an earlier agent is still stuck on this superblock".to_owned();
        match stuck {
            Some(millis) => self.canary_ended(id, Some(CanaryOutcome::Stray(millis)), "timeout", why),
            None => self.canary_skipped(id, why),
        }
    }

    fn canary_skipped(&mut self, id: TargetId, why: String) {
        self.canary_ended(id, None, "skipped", why);
    }

    fn canary_ended(&mut self, id: TargetId, outcome: Option<CanaryOutcome>, word: &'static str, detail: String) {
        let (now, unix) = (self.now(), self.unix_now());
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        let canary = target.canary.get_or_insert_default();
        canary.end(outcome, word, detail, now, unix);
        canary.plan(now, &self.config);
        self.changed = true;
    }

    fn take_canary(&mut self, id: TargetId, report: CanaryReport, users: Vec<EntryUser>) {
        self.note_isolation(report.isolation);
        self.stats.canary_records_refused_total += report.peers.refused;
        self.stats.canary_records_collected_total += report.peers.collected;
        self.reread |= report.end == CanaryEnd::Mismatch;
        let (now, unix) = (self.now(), self.unix_now());
        let as_root = self.config.canary_identity.as_ref().map_or(nix::unistd::geteuid().is_root(), |ids| ids.uid == 0);
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        let canary = target.canary.get_or_insert_default();
        let before = canary.result;
        let (outcome, word, detail) = describe(&report);
        canary.end(outcome, word, detail, now, unix);
        canary.plan(now, &self.config);
        (canary.as_root, canary.space) = (as_root, report.space);
        canary.refusal = match report.end {
            CanaryEnd::Refused(refusal) => Some(refusal),
            _ => None,
        };
        canary.seq = report.seq.unwrap_or(canary.seq);
        // It took its directory away itself, it is somebody else's matter what stands there, or nothing does.
        let forgotten = match report.end {
            CanaryEnd::Skipped(Skip::EmptyRoot) | CanaryEnd::Refused(_) => true,
            _ => report.failure().is_some_and(|step| matches!(step.errno, Some(libc::ENOENT | libc::ESTALE))),
        };
        if forgotten {
            (canary.directory, canary.written_to) = (None, None);
        } else if matches!(report.end, CanaryEnd::Good | CanaryEnd::Late) {
            canary.written_to = report.directory;
        }
        if report.entries.is_some() {
            (canary.entries_at, canary.entries, canary.entries_for) = (Some(now), report.entries, users);
        }
        if let Some(own) = report.written {
            let asked = canary.peers.to_ask(SAMPLE);
            canary.cursor = report.peers.cursor;
            let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            canary.peers.take(own, report.peers.looks, &asked, millis);
            canary.reader = report.reader;
        }
        canary.steps = report.steps;
        if before != canary.result && !matches!(canary.result, "ok" | "failed") {
            log_canary(target);
        }
        self.changed = true;
    }

    /// Whether workers leave the agent's cgroup is said once, and again when it changes.
    fn note_isolation(&mut self, isolation: Isolation) {
        if self.canaries.isolation.replace(isolation) == Some(isolation) {
            return;
        }
        self.stats.canary_isolated = Some(isolation == Isolation::Own);
        let why = match isolation {
            Isolation::Own => return,
            Isolation::Version1 => "this host has cgroups of version 1".to_owned(),
            Isolation::Failed(errno) => errno_name(errno),
        };
        tracing::warn!(
            why,
            "canary workers stay in the agent's cgroup ({why}): should one get stuck in the kernel, the agent's pod cannot end before its server is back"
        );
    }
}

/// What the outside sees of a canary.
pub(super) fn status(canary: &Canary) -> CanaryStatus {
    let all = canary.peers.all();
    let count = |state: PeerState| all.iter().filter(|peer| peer.state == state).count();
    let known = |node: &str| all.iter().filter(|peer| peer.look.node == node).count();
    let peer = |peer: &&Peer| PeerStatus {
        node: match known(&peer.look.node) {
            1 if !peer.look.node.is_empty() => peer.look.node.clone(),
            _ => peer.look.id.clone(),
        },
        state: peer.state.as_str().to_owned(),
        lag_seconds: Duration::from_micros(peer.lag_micros).as_secs_f64(),
        sequence: peer.look.seq,
    };
    CanaryStatus {
        result: canary.result.to_owned(),
        detail: canary.detail.clone(),
        last: canary.last,
        last_success: canary.last_success,
        sequence: canary.seq,
        steps: canary.steps.iter().map(super::publish::step_status).collect(),
        results: canary.results.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
        peer_states: PeerState::ALL.iter().map(|state| (state.as_str().to_owned(), count(*state))).collect(),
        peers: all.iter().take(SHOWN_PEERS).map(peer).collect(),
    }
}

/// All was well in this round, and promptly so.
fn fits(report: &ProbeReport, slow: Duration) -> bool {
    let prompt = |step: &StepResult| step.errno.is_none() && Duration::from_micros(step.micros) < slow;
    let there = report.root.is_some_and(|root| root.nlink > 0);
    there && !report.mismatch && !report.sentinels_gone() && report.steps.iter().all(prompt)
}

/// What an end means to the judge, its word, and a sentence.
fn describe(report: &CanaryReport) -> (Option<CanaryOutcome>, &'static str, String) {
    let reader = match report.reader {
        Some(ReaderEnd::Failed(errno)) => format!("; the second identity cannot read it: {}", errno_name(errno)),
        Some(ReaderEnd::Differs) => "; the second identity reads something else".to_owned(),
        _ => String::new(),
    };
    match report.end {
        CanaryEnd::Good => (Some(CanaryOutcome::Good), "ok", format!("written and read back{reader}")),
        CanaryEnd::Late => (
            Some(CanaryOutcome::Late),
            "late",
            "another record of this node came back: a write was run late, or another process here wrote meanwhile"
                .to_owned(),
        ),
        CanaryEnd::Differs => {
            (Some(CanaryOutcome::Differs), "differs", "what was read back is not what was written".to_owned())
        }
        CanaryEnd::Failed => match report.failure() {
            Some(step) => {
                let said = format!("{} failed with {}", step.step.as_str(), errno_name(step.errno.unwrap_or(0)));
                (Some(CanaryOutcome::Failed(step.clone())), "failed", said)
            }
            None => (None, "skipped", "it failed without a step".to_owned()),
        },
        CanaryEnd::Mismatch => (None, "skipped", "the mount table changed meanwhile".to_owned()),
        CanaryEnd::Skipped(skip) => (None, "skipped", skip_words(skip)),
        CanaryEnd::Refused(refusal) => (None, "refused", refusal_words(refusal)),
    }
}

fn skip_words(skip: Skip) -> String {
    match skip {
        Skip::EmptyRoot => "the root is empty, and canary.allow_empty_root is off".to_owned(),
        Skip::CannotList => {
            "the root may be written to and not listed, so it may be empty; canary.allow_empty_root is off".to_owned()
        }
        Skip::Identity(errno) => format!("the worker cannot act as the configured identity: {}", errno_name(errno)),
    }
}

fn refusal_words(refusal: Refusal) -> String {
    let what = match refusal {
        Refusal::Directory => return format!("{DIRECTORY} is no directory of this mount"),
        Refusal::DirectoryOwner => {
            return format!("{DIRECTORY} belongs to another user and refuses this one: remove it, and it is made anew");
        }
        Refusal::FileKind => "is no regular file",
        Refusal::Links => "has other names too",
        Refusal::Size => "is larger than a record",
        Refusal::Owner => "belongs to another user",
        Refusal::Contents => "holds something else than a record of this node",
    };
    format!("this node's file in {DIRECTORY} {what}; it is not written to")
}

#[cfg(test)]
mod tests;
