//! Whether a pod that stays in Terminating may be helped by taking its dead mounts away, and how. Pure.
//!
//! The kubelet cleans up by itself as long as it can; this is for what it cannot: it looks at the path before it unmounts
//! it, and sits in the kernel as long as the server is away (KUBELET.md 3). Everything here is looked at right before
//! the act; what can change between this decision and the call the worker looks at again ([`super::release`]).

mod guard;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use guard::Guard;

use super::guards::with_detail;
use super::processes::Left;
use super::release::Manner;
use crate::mounts::Dev;
use crate::mounts::kubelet::{is_volume, pod_uid};
use crate::verdict::State;

/// The pod's own grace must be over for so long.
pub const AFTER_GRACE: Duration = Duration::from_secs(30);

/// Somebody must have been blocked on the superblock within so long, or there is nothing to abort.
pub const BLOCKED_WITHIN: Duration = Duration::from_secs(10);

/// A directory of a pod that nobody knows counts as orphaned after so long.
pub const ORPHAN_AFTER: Duration = Duration::from_secs(600);

/// What the configuration, the annotations and the kill switch allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// `remedy.mode` is `dry-run` or `enforce`.
    pub mode: bool,
    /// Why the kill switch stops: it is set, or it could not be read. `None`: it was read right now, and is not set.
    pub stopped: Option<String>,
    /// Annotations of pod, namespace and node allow it, and somebody opted in where that is demanded.
    pub permitted: bool,
    /// `unstick.hung`.
    pub hung: bool,
    /// `unstick.hung_after`.
    pub hung_after: Duration,
    /// `unstick.orphans`.
    pub orphans: bool,
}

/// What the API server says of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pod {
    /// It exists.
    Known {
        /// How long ago its `deletionTimestamp` passed. That lies at the end of its grace period (Kubernetes API, ObjectMeta).
        /// `None`: it is not being deleted, or not yet over.
        overdue: Option<Duration>,
        /// A StatefulSet made it: its name and its volume are given to the next one at once.
        stateful: bool,
    },
    /// A fresh, complete list of this node's pods does not have it, and no static pod's hash is its UID.
    Orphan {
        /// For how long.
        age: Duration,
        /// As in [`Pod::Known`], from when it was still known; `None`: this agent never knew it.
        stateful: Option<bool>,
    },
    /// Nobody knows: no list, or an old one.
    Unknown,
}

/// Somebody who has a mount of a superblock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// UID of the pod that it is; `None`: it is none.
    pub pod: Option<String>,
    /// In words.
    pub name: String,
}

/// One dead mount of the pod in the host's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadMount {
    /// Its path.
    pub path: PathBuf,
    /// Its id.
    pub mount_id: u64,
    /// Its id that is never reused, where the kernel has one.
    pub unique_mount_id: Option<u64>,
    /// Its superblock.
    pub dev: Dev,
    /// Its verdict, and since when it holds.
    pub state: State,
    /// For how long.
    pub for_how_long: Duration,
    /// The verdict is fresh, and not that of another mount.
    pub judged: bool,
    /// A FUSE mount: it has a daemon, and no connection to a server.
    pub fuse: bool,
    /// Everything else that has a mount of this superblock; `None` where a mount table could not be read. Copies of
    /// this pod's own paths that services of the host hold do not count.
    pub others: Option<Vec<Holder>>,
    /// How long ago a worker, or a thread of the kubelet, was last seen blocked on it; `None`: never.
    pub blocked: Option<Duration>,
    /// A TCP connection of this client to the server is up; `None` where that could not be told.
    pub connected: Option<bool>,
}

/// Everything about one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its UID, as its directories have it.
    pub uid: String,
    /// What the API server says of it.
    pub pod: Pod,
    /// Its processes, read right now, or why they could not be.
    pub left: Result<Left, String>,
    /// Its dead mounts.
    pub mounts: Vec<DeadMount>,
}

/// A guard that says no, and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The guard.
    pub guard: Guard,
    /// What is particular about this case; may be empty.
    pub detail: String,
}

impl Refusal {
    /// What the guard says, with what is particular.
    #[must_use]
    pub fn words(&self) -> String {
        with_detail(self.guard.says(), &self.detail)
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The mounts that block somebody, in their order, to be aborted; and those that answer, to be detached. One release
    /// each: what answers is never forced.
    pub releases: Vec<(Manner, Vec<DeadMount>)>,
}

/// Decides about all pods of the node at once: pods on one superblock are no others to each other where all of them may
/// go. One that may not go keeps those that share with it; its own refusal is the one that is told.
#[must_use]
pub fn plan_together(cases: &[(Case, Allowed)]) -> Vec<Result<Plan, Refusal>> {
    let mut going: BTreeSet<String> = cases.iter().map(|(case, _)| case.uid.clone()).collect();
    let mut plans: Vec<_> = cases.iter().map(|(case, allowed)| plan(case, allowed, &going)).collect();
    loop {
        let before = going.len();
        for ((case, _), plan) in cases.iter().zip(&plans) {
            if plan.is_err() {
                going.remove(&case.uid);
            }
        }
        if going.len() == before {
            return plans;
        }
        for ((case, allowed), decision) in cases.iter().zip(&mut plans).filter(|(_, decision)| decision.is_ok()) {
            *decision = plan(case, allowed, &going);
        }
    }
}

/// Decides about one. Every guard is asked in the order of [`Guard::ALL`]; the first that says no is told. `going`: UIDs
/// of pods that are released too.
///
/// # Errors
/// The guard that forbids it.
pub fn plan(case: &Case, allowed: &Allowed, going: &BTreeSet<String>) -> Result<Plan, Refusal> {
    may_act(allowed)?;
    may_be_helped(case, allowed)?;
    let left = case.left.as_ref().map_err(|error| refusal(Guard::ProcessesUnknown, error.clone()))?;
    if let Some(pid) = left.alive.first() {
        return no(Guard::ProcessAlive, format!("{} of them, the first is {pid}", left.alive.len()));
    }
    if case.mounts.is_empty() {
        return no(Guard::NothingDead, String::new());
    }
    for mount in &case.mounts {
        mount_may_go(case, mount, allowed, left, going)?;
    }
    let manner = |mount: &DeadMount| if mount.state == State::Hung { Manner::Abort } else { Manner::Detach };
    let of = |wanted: Manner| {
        let mut mounts: Vec<DeadMount> = case.mounts.iter().filter(|mount| manner(mount) == wanted).cloned().collect();
        mounts.sort_by_key(|mount| order(&mount.path));
        (wanted, mounts)
    };
    // First what blocks: a killed writer lets go of the other mounts too.
    let releases = [of(Manner::Abort), of(Manner::Detach)].into_iter().filter(|(_, mounts)| !mounts.is_empty());
    Ok(Plan { releases: releases.collect() })
}

/// subPaths are mounts of a mount and go first; the deepest of each first.
fn order(path: &Path) -> (bool, std::cmp::Reverse<usize>, PathBuf) {
    (is_volume(path), std::cmp::Reverse(path.components().count()), path.to_owned())
}

fn may_act(allowed: &Allowed) -> Result<(), Refusal> {
    check(allowed.mode, Guard::Mode)?;
    if let Some(why) = &allowed.stopped {
        return no(Guard::KillSwitch, why.clone());
    }
    check(allowed.permitted, Guard::Forbidden)
}

fn may_be_helped(case: &Case, allowed: &Allowed) -> Result<(), Refusal> {
    match &case.pod {
        Pod::Unknown => no(Guard::PodUnknown, String::new()),
        Pod::Known { overdue: None, .. } => no(Guard::NotTerminating, String::new()),
        Pod::Known { overdue: Some(overdue), .. } if *overdue < AFTER_GRACE => {
            no(Guard::Grace, format!("{} s of {} s", overdue.as_secs(), AFTER_GRACE.as_secs()))
        }
        Pod::Known { .. } => Ok(()),
        Pod::Orphan { .. } if !allowed.orphans => no(Guard::Orphan, String::new()),
        Pod::Orphan { age, .. } if *age < ORPHAN_AFTER => {
            no(Guard::OrphanYoung, format!("{} s of {} s", age.as_secs(), ORPHAN_AFTER.as_secs()))
        }
        Pod::Orphan { .. } => Ok(()),
    }
}

fn mount_may_go(
    case: &Case,
    mount: &DeadMount,
    allowed: &Allowed,
    left: &Left,
    going: &BTreeSet<String>,
) -> Result<(), Refusal> {
    let path = || mount.path.display().to_string();
    let ours = pod_uid(&mount.path).is_some_and(|uid| uid == case.uid);
    check_with(ours, Guard::NotThePods, path)?;
    check_with(mount.judged, Guard::NotJudged, path)?;
    match mount.state {
        State::Stale | State::Lost => {
            // Killed writers may sit on a mount of the same pod that hangs: that one goes first, and it is looked again then.
            let hangs = case.mounts.iter().any(|other| other.state == State::Hung);
            let words = || format!("{} of them, on {}", left.processes.len(), path());
            return check_with(left.processes.is_empty() || hangs, Guard::ProcessLeft, words);
        }
        State::Hung => {}
        other => return no(Guard::NotDead, format!("{} is {other}", path())),
    }
    check_with(allowed.hung, Guard::Hung, path)?;
    match case.pod {
        Pod::Known { stateful: false, .. } | Pod::Orphan { stateful: Some(false), .. } => {}
        Pod::Orphan { stateful: None, .. } => {
            return no(Guard::Stateful, format!("{}: nobody knows any more what made the pod", path()));
        }
        Pod::Known { .. } | Pod::Orphan { .. } | Pod::Unknown => return no(Guard::Stateful, path()),
    }
    let young = || format!("{}: {} s of {} s", path(), mount.for_how_long.as_secs(), allowed.hung_after.as_secs());
    check_with(mount.for_how_long >= allowed.hung_after, Guard::HungYoung, young)?;
    let Some(others) = &mount.others else { return no(Guard::SharedUnknown, path()) };
    let stays = |other: &&Holder| other.pod.as_ref().is_none_or(|pod| !going.contains(pod));
    let others: Vec<&str> = others.iter().filter(stays).map(|other| other.name.as_str()).collect();
    check_with(others.is_empty(), Guard::Shared, || format!("{}: {}", path(), named(&others)))?;
    match mount.connected {
        _ if mount.fuse => {}
        Some(false) => {}
        Some(true) => return no(Guard::Connected, path()),
        None => return no(Guard::ConnectionUnknown, path()),
    }
    let blocked = mount.blocked.is_some_and(|ago| ago <= BLOCKED_WITHIN);
    check_with(blocked, Guard::NobodyBlocked, path)
}

/// The first few names.
fn named(others: &[&str]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = others.iter().take(SHOWN).copied().collect();
    match others.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn check(holds: bool, guard: Guard) -> Result<(), Refusal> {
    check_with(holds, guard, String::new)
}

fn check_with(holds: bool, guard: Guard, detail: impl FnOnce() -> String) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(refusal(guard, detail())) }
}

fn no<T>(guard: Guard, detail: String) -> Result<T, Refusal> {
    Err(refusal(guard, detail))
}

fn refusal(guard: Guard, detail: String) -> Refusal {
    Refusal { guard, detail }
}

#[cfg(test)]
mod tests;
