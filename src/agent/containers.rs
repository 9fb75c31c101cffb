//! What containers and services of this node have mounted: when it is looked for, and what becomes targets.
//!
//! Workers look: first through the processes (which mount namespaces are there, through which process each can be seen),
//! then at the tables of those that are new or may have changed. A mount that is the same as one of the host joins its
//! target; one that differs is a target of its own, probed through its container.

mod apart;
#[cfg(test)]
mod cost;
mod looking;
mod on_host;
mod tables;
#[cfg(test)]
mod tests;
mod users;
mod volumes;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::core::Core;
use super::target::Target;
use crate::mounts::kubelet::pod_uid;
use crate::mounts::{Process, View};
use crate::pods::namespaces::{Holder, Namespaces};
use crate::probe::pool::Outcome;
use crate::probe::schedule::{Now, TargetId};
use crate::probe::wire::Answer;
use crate::verdict::OnHost;
use crate::verdict::judge::words::errno_name;

pub(super) use apart::commons;
use apart::{Common, Compared, Place};
pub(super) use users::Users;
pub(super) use volumes::Volumes;

/// Mount namespaces that are looked into.
const MAX_VIEWS: usize = 4096;

/// A container is set up in steps: its table is read again at each look for so long after it was first seen.
const YOUNG: Duration = Duration::from_secs(30);

/// What could not be settled in one table is looked at again after this, then after twice as long, up to [`FULL`].
const AGAIN: Duration = Duration::from_secs(5);

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
    /// Something changed while the processes were looked through: once more, soon.
    once_more: bool,
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
    /// Namespaces that are not looked into, and tables whose counters are not read.
    namespaces_left_out: usize,
    counters_left_out: usize,
    /// What more than one container is meant to have.
    pub(super) commons: HashSet<Common>,
}

/// A mount namespace that was looked into.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) holder: Holder,
    first: Now,
    hash: u64,
    /// Its network mounts, by id.
    pub(super) mounts: HashMap<u64, SeenMount>,
    /// How many more it has.
    left_out: u32,
    /// What it has where others are meant to have the same.
    places: Vec<Place>,
    /// Its table is read once more then: something in it could not be settled.
    again: Option<Now>,
    /// How long the last such wait was.
    waited: Duration,
}

impl Seen {
    pub(super) fn new(holder: Holder, first: Now) -> Seen {
        Seen {
            holder,
            first,
            hash: 0,
            mounts: HashMap::new(),
            left_out: 0,
            places: Vec::new(),
            again: None,
            waited: Duration::ZERO,
        }
    }

    /// Reads it again, sooner at first than later.
    fn later(&mut self, now: Now) {
        self.hash = 0;
        // One of its mounts has seen to it already.
        if self.again.is_some_and(|at| at > now) {
            return;
        }
        self.waited = (self.waited * 2).clamp(AGAIN, FULL);
        self.again = Some(now + self.waited);
    }

    /// It is to be read now, for another reason than that all are.
    fn is_due(&self, now: Now) -> bool {
        now.saturating_sub(self.first) < YOUNG || self.again.is_some_and(|at| at <= now)
    }
}

/// What is asked about one table.
#[derive(Debug)]
pub(super) struct Question {
    process: Process,
    wanted: Vec<AbsentMount>,
    compared: Vec<Compared>,
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

/// What is over a limit: not all of it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) namespaces: u64,
    pub(super) mounts: u64,
    pub(super) counters: u64,
}

impl Containers {
    /// What is left out now.
    pub(super) fn left_out(&self) -> LeftOut {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        LeftOut {
            namespaces: number(self.namespaces_left_out),
            mounts: self.views.values().map(|seen| u64::from(seen.left_out)).sum(),
            counters: number(self.counters_left_out),
        }
    }

    /// Nothing is left to be looked at for the first time.
    pub(super) fn settled(&self) -> bool {
        self.settled
    }

    pub(super) fn next_wake(&self) -> Option<Now> {
        (!self.scanning && !self.off).then_some(self.next_scan)
    }

    /// Looks through the processes soon, and not only when it is due.
    fn look_soon(&mut self, now: Now) {
        self.next_scan = self.next_scan.min(now + GAP);
        self.once_more |= self.scanning;
    }

    /// The host's table changed: what was mounted there may be mounted in containers too, and a container may start.
    pub(super) fn host_changed(&mut self, now: Now) {
        self.epoch += 1;
        self.look_soon(now);
        self.next_full = self.next_full.min(now + self.pass_took.saturating_mul(COST).min(FULL));
    }
}

impl Core {
    /// What only containers have is in their mountstats alone.
    pub(super) fn count_in_containers(&mut self, now: Now) {
        if std::mem::replace(&mut self.containers.counted, self.containers.epoch) == self.containers.epoch {
            return;
        }
        let nfs = self.registry.targets.values().filter(|target| target.facts.is_nfs());
        let views: BTreeSet<View> = nfs.filter_map(Target::view).filter(|view| view.is_container()).collect();
        self.containers.counters_left_out = views.len().saturating_sub(MAX_COUNTED);
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
        let users = users::of(target, &self.containers.views, &self.volumes, &self.names, epoch, &|member| {
            self.own_cause(target, member)
        });
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
