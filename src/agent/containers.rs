//! What containers and services of this node have mounted: when it is looked for, and what becomes targets.
//!
//! Workers look: first through the processes (which mount namespaces are there, through which process each can be seen),
//! then at the tables of those that are new or may have changed. A mount that is the same as one of the host joins its
//! target; one that differs is a target of its own, probed through its container.

#[cfg(test)]
mod cost;
mod on_host;
mod users;
mod volumes;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::core::{Core, Event};
use super::registry::Newcomer;
use super::target::Target;
use crate::config::OnOff;
use crate::mounts::kubelet::pod_uid;
use crate::mounts::{Kind, Mount, Process, View};
use crate::pods::namespaces::{Holder, Namespace, Namespaces};
use crate::probe::pool::{Class, Outcome};
use crate::probe::schedule::{Now, TargetId};
use crate::probe::tables::{Asked, Filesystem, MAX_TABLES, TableFate, TableRow, TablesJob};
use crate::probe::wire::{Answer, Job};
use crate::verdict::OnHost;
use crate::verdict::judge::words::errno_name;

pub(super) use users::Users;
pub(super) use volumes::Volumes;

/// Mount namespaces that are looked into.
const MAX_VIEWS: usize = 4096;

/// A container is set up in steps: its table is read again at each look for so long after it was first seen.
const YOUNG: Duration = Duration::from_secs(30);

/// The tables of all containers are read again so often, and so much later than the host's table changed at the latest.
const FULL: Duration = Duration::from_secs(60);

/// Looking through the processes, and reading all tables, may take so much of the time: the next one waits so many times
/// as long as the last one took.
const COST: u32 = 100;

/// Tables of containers in which counters are read: without its own a target does with probes alone.
const MAX_COUNTED: usize = 32;

/// Two looks are at least so far apart.
const GAP: Duration = Duration::from_secs(1);

/// Containers of this node, and what they have mounted.
#[derive(Debug, Default)]
pub(super) struct Containers {
    pub(super) namespaces: Namespaces,
    pub(super) views: HashMap<Process, Seen>,
    /// Those whose tables are to be read.
    unread: BTreeSet<Process>,
    next_scan: Now,
    scanning: bool,
    reading: bool,
    /// When all tables are due again; what reading them has taken in this pass, and took in the last one.
    next_full: Now,
    took: Duration,
    pass_took: Duration,
    /// A container ended while it was looked at: who is left is counted at the next look.
    lost: bool,
    /// Nobody wants to know.
    off: bool,
    /// The node was looked through once, and every table was read that could be.
    settled: bool,
    /// Raised whenever who uses what may have changed.
    pub(super) epoch: u64,
    /// At which of these it was last settled in whose tables counters are read.
    counted: u64,
}

/// A mount namespace that was looked into.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) holder: Holder,
    first: Now,
    hash: u64,
    /// Its network mounts, by id.
    pub(super) mounts: HashMap<u64, SeenMount>,
}

/// What of a mount in a container is kept beside its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenMount {
    pub(super) source: OsString,
    pub(super) root: OsString,
    pub(super) read_only: bool,
}

/// A network volume that a container does not have where it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AbsentMount {
    pub(super) uid: String,
    pub(super) container_id: Option<String>,
    /// Name of the volume's directory.
    pub(super) directory: String,
    /// Path in the container.
    pub(super) path: PathBuf,
    /// The path that it is known by.
    pub(super) label: PathBuf,
    /// What should be there, or what is.
    pub(super) source: String,
    pub(super) fstype: String,
    pub(super) what: OnHost,
}

impl Containers {
    /// Nothing is left to be looked at for the first time.
    pub(super) fn settled(&self) -> bool {
        self.settled
    }

    pub(super) fn next_wake(&self) -> Option<Now> {
        (!self.scanning && !self.off).then_some(self.next_scan)
    }

    /// The host's table changed: what was mounted there may be mounted in containers too, and a container may start.
    pub(super) fn host_changed(&mut self, now: Now) {
        self.epoch += 1;
        self.next_scan = self.next_scan.min(now + GAP);
        self.next_full = self.next_full.min(now + self.pass_took.saturating_mul(COST).min(FULL));
    }
}

impl Core {
    fn watches_containers(&self) -> bool {
        self.config.containers != OnOff::Off
    }

    /// Starts what is due.
    pub(super) fn look_at_containers(&mut self, now: Now) {
        let off = !self.watches_containers();
        if std::mem::replace(&mut self.containers.off, off) != off {
            self.containers.next_scan = now;
        }
        if off {
            self.stop_looking();
            return;
        }
        if !self.containers.scanning && self.containers.next_scan <= now {
            self.scan(now);
        }
        // What containers have joins what the host has, so that comes first.
        let host_first = self.pending.is_none() && !self.registry.identifies_on_host();
        if host_first && !self.containers.reading && !self.containers.unread.is_empty() {
            self.read_tables();
        }
    }

    /// Nobody wants to know any more: what was seen in containers is forgotten.
    fn stop_looking(&mut self) {
        self.containers.settled = true;
        let known: Vec<Process> = self.containers.views.keys().copied().collect();
        known.into_iter().for_each(|process| self.forget_container(process));
        if self.containers.namespaces.scanned() {
            self.containers.namespaces = Namespaces::default();
        }
    }

    fn scan(&mut self, now: Now) {
        self.containers.scanning = true;
        let job = self.containers.namespaces.job(self.config.proc_root.as_os_str().as_bytes(), now);
        let (pool, deadline) = (self.pool.clone(), self.config.timeout);
        let started = Instant::now();
        self.running.spawn(async move {
            let outcome = pool.run(Job::Processes(job), "containers", Class::Hopeful, deadline, deadline).await;
            Event::Scanned { outcome, took: started.elapsed() }
        });
    }

    /// The processes were looked through.
    pub(super) fn on_scanned(&mut self, outcome: Outcome, took: Duration) {
        let now = self.now();
        self.containers.scanning = false;
        if self.containers.off {
            return;
        }
        // A look that missed its deadline on a busy machine must not blind us for minutes.
        let pause = self.config.interval.max(GAP).max(took.saturating_mul(COST).min(FULL));
        self.containers.next_scan = now + pause;
        let scan = match outcome {
            Outcome::Answered(Answer::Processes(scan)) => scan,
            other => {
                self.containers.next_scan = now + self.config.interval.max(GAP);
                self.evidence_from("containers", Some(format!("look through the processes: {}", why(&other))));
                self.containers.settled = true;
                return;
            }
        };
        if scan.more {
            self.containers.next_scan = now;
        }
        let changed = self.containers.namespaces.take(scan, now);
        self.evidence_from("containers", self.containers.namespaces.blind());
        if std::mem::take(&mut self.containers.lost) || changed {
            self.take_namespaces(now);
        }
        let young = |seen: &Seen| now.saturating_sub(seen.first) < YOUNG;
        let full = now >= self.containers.next_full;
        if full {
            self.containers.next_full = now + FULL.max(self.containers.pass_took.saturating_mul(COST));
        }
        let again = self.containers.views.iter().filter(|(_, seen)| full || young(seen)).map(|(process, _)| *process);
        let again: Vec<Process> = again.collect();
        self.containers.unread.extend(again);
        self.settle_containers();
    }

    /// Other namespaces, other holders, or another process to look through.
    fn take_namespaces(&mut self, now: Now) {
        let looked_into = |namespace: &&Namespace| matches!(namespace.holder, Holder::Of(_));
        let wanted: HashMap<Process, Holder> = self
            .containers
            .namespaces
            .iter()
            .filter(looked_into)
            .take(MAX_VIEWS)
            .map(|namespace| (namespace.process, namespace.holder.clone()))
            .collect();
        let gone: Vec<Process> =
            self.containers.views.keys().filter(|process| !wanted.contains_key(process)).copied().collect();
        for process in gone {
            self.forget_container(process);
        }
        for (process, holder) in wanted {
            let Containers { views, unread, .. } = &mut self.containers;
            let seen = views.entry(process).or_insert_with(|| {
                unread.insert(process);
                Seen { holder: holder.clone(), first: now, hash: 0, mounts: HashMap::new() }
            });
            if seen.holder != holder {
                seen.holder = holder;
                // What is joined and what stands alone depends on whose it is.
                seen.hash = 0;
                unread.insert(process);
            }
        }
        self.containers.epoch += 1;
        self.changed = true;
    }

    fn forget_container(&mut self, process: Process) {
        self.containers.views.remove(&process);
        self.containers.unread.remove(&process);
        self.containers.epoch += 1;
        let removed = self.registry.forget_view(View::Container(process));
        self.drop_targets(removed);
    }

    /// Targets whose last mount is gone.
    pub(super) fn drop_targets(&mut self, removed: Vec<Target>) {
        let now = self.now();
        let unix = self.unix_now();
        self.news |= !removed.is_empty();
        for target in removed {
            tracing::info!(
                mountpoint = target.labels.mountpoint,
                source = target.labels.source,
                fstype = target.labels.fstype,
                "{} is no longer mounted",
                target.labels.mountpoint
            );
            self.history.unmounted(&target, unix);
            self.forget(&target, now);
        }
    }

    fn read_tables(&mut self) {
        let mut asked = Vec::new();
        let mut wanted_of = Vec::new();
        while let Some(process) = self.containers.unread.pop_first() {
            let Some(seen) = self.containers.views.get(&process) else { continue };
            let hash = seen.hash;
            let wanted = self.wanted_paths(process);
            let paths = wanted.iter().map(|wanted| wanted.path.as_os_str().as_bytes().to_vec()).collect();
            asked.push(Asked { process, hash, wanted: paths });
            wanted_of.push((process, wanted));
            if asked.len() == MAX_TABLES {
                break;
            }
        }
        if asked.is_empty() {
            return;
        }
        self.containers.reading = true;
        let proc_root = self.config.proc_root.as_os_str().as_bytes().to_vec();
        let job = Job::Tables(TablesJob { proc_root, tables: asked });
        let (pool, deadline) = (self.pool.clone(), self.config.timeout);
        let started = Instant::now();
        self.running.spawn(async move {
            let outcome = pool.run(job, "containers", Class::Hopeful, deadline, deadline).await;
            Event::TablesRead { asked: wanted_of, outcome, took: started.elapsed() }
        });
    }

    /// Tables of containers were read.
    pub(super) fn on_tables(&mut self, asked: Vec<(Process, Vec<AbsentMount>)>, outcome: Outcome, took: Duration) {
        self.containers.reading = false;
        self.containers.took += took;
        match outcome {
            Outcome::Answered(Answer::Tables(tables)) => {
                for ((process, wanted), fate) in asked.into_iter().zip(tables.tables) {
                    self.take_fate(process, &wanted, fate, &tables.filesystems);
                }
            }
            other => {
                // Nothing waits for the end of a worker that missed its deadline; the pool reaps it.
                tracing::debug!(processes = asked.len(), why = why(&other), "tables of containers not read");
            }
        }
        self.settle_containers();
    }

    fn take_fate(&mut self, process: Process, wanted: &[AbsentMount], fate: TableFate, filesystems: &[Filesystem]) {
        match fate {
            TableFate::Read(row) => self.take_container(process, wanted, row, filesystems),
            TableFate::Same => {}
            // It ended while we looked: no error, and the next look through the processes says who is left.
            TableFate::Gone => {
                self.forget_container(process);
                self.containers.lost = true;
                self.containers.next_scan = self.containers.next_scan.min(self.now() + GAP);
            }
            TableFate::Later => {
                self.containers.unread.insert(process);
            }
            TableFate::Failed(errno) => {
                tracing::debug!(pid = process.pid, errno = errno_name(errno), "a container's table cannot be read");
            }
        }
    }

    /// A container's table is another one than before.
    fn take_container(&mut self, process: Process, wanted: &[AbsentMount], row: TableRow, filesystems: &[Filesystem]) {
        let (view, now) = (View::Container(process), self.now());
        let Some(seen) = self.containers.views.get_mut(&process) else { return };
        // Only seconds after its start a container's table is whole: until then nothing is missing, and it is read again.
        let young = now.saturating_sub(seen.first) < YOUNG;
        seen.hash = if young && !row.missing.is_empty() { 0 } else { row.hash };
        let holder = seen.holder.clone();
        let of_container = holder.container_id().is_some();
        let mut mounts = HashMap::new();
        let mut newcomers = Vec::new();
        let missing = row.missing.iter().filter_map(|index| wanted.get(usize::try_from(*index).ok()?));
        let mut absent: Vec<AbsentMount> = missing.filter(|_| !young).cloned().collect();
        for told in row.mounts {
            let Some(mut mount) = told.mount(filesystems, view) else { continue };
            if told.on_disk {
                absent.extend(self.on_disk(&mount, &holder));
                continue;
            }
            self.efs.apply(&mut mount);
            // What follows the host and is the same as there goes when that goes: the copies that services hold.
            if !of_container && told.follows && self.volumes.has(&mount) {
                continue;
            }
            let seen =
                SeenMount { source: mount.source.clone(), root: mount.root.clone(), read_only: mount.has_option("ro") };
            mounts.insert(mount.id, seen);
            newcomers.push(self.newcomer(mount, told.through, &holder));
        }
        if let Some(seen) = self.containers.views.get_mut(&process) {
            seen.mounts = mounts;
        }
        let changes = self.registry.update_view(view, newcomers);
        self.take_absent(process, absent);
        self.containers.epoch += 1;
        self.changed = true;
        self.drop_targets(changes.removed);
        self.identify_all(changes.to_identify);
    }

    fn newcomer(&self, mount: Mount, through: Option<u64>, holder: &Holder) -> Newcomer {
        let uid = holder.pod_uid();
        let place = uid.and_then(|uid| self.volumes.of_mount(uid, &mount));
        let label: Option<PathBuf> = place.map(|place| place.mountpoint.clone());
        // What a session or a service has mounted for itself (flatpak, a rootless container's overlay) is its own affair.
        let known = holder.container_id().is_some() || mount.kind != Some(Kind::Fuse) && self.volumes.knows(&mount);
        let alone = self.only.is_none() && known && self.filter.wants(&mount);
        Newcomer { mount, through, label, owner: uid.map(str::to_owned), alone }
    }

    /// A container's mount joined no target and may not be one: it is tried again when all tables are read, since what it
    /// belongs to may have been on its way.
    pub(super) fn try_again(&mut self, view: View) {
        if let View::Container(process) = view
            && let Some(seen) = self.containers.views.get_mut(&process)
        {
            seen.hash = 0;
        }
    }

    fn settle_containers(&mut self) {
        let containers = &mut self.containers;
        if containers.unread.is_empty() && !containers.reading && !containers.took.is_zero() {
            containers.pass_took = std::mem::take(&mut containers.took);
        }
        containers.settled |= containers.namespaces.scanned() && containers.unread.is_empty() && !containers.reading;
    }

    /// What only containers have is in their mountstats alone.
    pub(super) fn count_in_containers(&mut self, now: Now) {
        if std::mem::replace(&mut self.containers.counted, self.containers.epoch) == self.containers.epoch {
            return;
        }
        let nfs = self.registry.targets.values().filter(|target| target.facts.is_nfs());
        let views: BTreeSet<View> = nfs.filter_map(Target::view).filter(|view| view.is_container()).collect();
        self.transports.want(&views.into_iter().take(MAX_COUNTED).collect(), now);
    }

    /// A pod has it mounted: by the kubelet's path, or in one of its containers.
    pub(super) fn is_of_a_pod(&self, target: &Target) -> bool {
        target.members.iter().any(|member| match member.view {
            View::Container(process) => {
                self.containers.views.get(&process).is_some_and(|seen| seen.holder.pod_uid().is_some())
            }
            View::Own | View::Host => pod_uid(&member.mountpoint).is_some(),
        })
    }

    /// The host's table is another one: which volumes are where.
    pub(super) fn note_volumes(&mut self) {
        self.volumes = Volumes::of(&self.table.mounts);
        let now = self.now();
        self.containers.host_changed(now);
    }

    /// The pod is being deleted, or nobody knows of it: nothing is probed through its containers.
    pub(super) fn may_look_through(&self, view: View) -> bool {
        let View::Container(process) = view else { return true };
        let holder = self.containers.views.get(&process).map(|seen| &seen.holder);
        holder.is_some_and(|holder| holder.pod_uid().is_none_or(|uid| !self.names.terminating(uid)))
    }

    /// Who uses one target, now.
    pub(super) fn count_users_of(&mut self, id: TargetId) {
        let epoch = self.containers.epoch;
        let Some(target) = self.registry.targets.get(&id).filter(|target| target.users.epoch != epoch) else { return };
        let users = users::of(target, &self.containers.views, &self.volumes, &self.names, epoch);
        if let Some(target) = self.registry.targets.get_mut(&id) {
            target.users = users;
        }
    }

    /// Who uses each target, brought up to date where that may have changed.
    pub(super) fn count_users(&mut self) {
        let epoch = self.containers.epoch;
        let stale = self.registry.targets.values().filter(|target| target.users.epoch != epoch);
        let stale: Vec<TargetId> = stale.map(|target| target.id).collect();
        stale.into_iter().for_each(|id| self.count_users_of(id));
    }
}

fn why(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered(Answer::Failed { errno }) => errno_name(*errno),
        other => other.no_answer("the worker did not come back in time"),
    }
}
