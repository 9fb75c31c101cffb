//! From the mount table to targets: which mounts are new, whose roots are the same, which paths lead where.

mod absent;
mod newcomer;
#[cfg(test)]
mod tests;
mod watched;

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;

use super::target::{Key, Labels, Member, Target, choose_labels};
use crate::mounts::{Mount, View};
use crate::probe::Identity;
use crate::probe::schedule::TargetId;
use crate::snapshot::UnixSeconds;

pub(super) use newcomer::{MountKey, Newcomer};
use watched::renew;
pub(super) use watched::{Watched, watched};

/// All targets and how to find them.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) targets: HashMap<TargetId, Target>,
    by_key: HashMap<Key, TargetId>,
    by_mount: HashMap<MountKey, TargetId>,
    by_mount_id: HashMap<u64, TargetId>,
    /// The mounts of each container that are targets or are being identified.
    by_view: HashMap<View, HashSet<MountKey>>,
    labels: HashSet<Labels>,
    identifying: HashSet<MountKey>,
    /// Mount ids of network mounts that others are reached through.
    ways: HashSet<u64>,
    next_id: TargetId,
}

/// What a reading of the table asks for.
pub(super) struct Changes {
    /// Mounts whose root is not identified yet.
    pub(super) to_identify: Vec<Newcomer>,
    /// Targets whose last mount is gone.
    pub(super) removed: Vec<Target>,
}

impl Registry {
    /// Takes over a reading of the host's table: forgets what is gone, renews paths, and says what is new.
    pub(super) fn update(&mut self, watched: &[Watched<'_>]) -> Changes {
        let present: HashSet<MountKey> = watched.iter().map(|watched| MountKey::of(watched.mount)).collect();
        let gone = |key: &&MountKey| !key.view.is_container() && !present.contains(*key);
        let gone: Vec<MountKey> = self.by_mount.keys().filter(gone).cloned().collect();
        let removed = gone.iter().filter_map(|key| self.forget(key)).collect();
        self.identifying.retain(|key| key.view.is_container() || present.contains(key));
        let mut renewed = HashSet::new();
        self.ways = watched.iter().filter_map(|watched| watched.through).collect();
        for watched in watched {
            let id = self.by_mount.get(&MountKey::of(watched.mount));
            if let Some(target) = id.and_then(|id| self.targets.get_mut(id)) {
                renew(target, watched, renewed.insert(target.id));
            }
        }
        let to_identify = watched
            .iter()
            .filter(|watched| !self.by_mount.contains_key(&MountKey::of(watched.mount)))
            .filter(|watched| self.identifying.insert(MountKey::of(watched.mount)))
            .map(|watched| Newcomer {
                mount: watched.mount.clone(),
                through: watched.through,
                label: None,
                owner: None,
                alone: true,
            })
            .collect();
        Changes { to_identify, removed }
    }

    /// Takes over a reading of one container's table, in the same way.
    pub(super) fn update_view(&mut self, view: View, mut mounts: Vec<Newcomer>) -> Changes {
        let present: HashSet<MountKey> = mounts.iter().map(|newcomer| MountKey::of(&newcomer.mount)).collect();
        let known = self.by_view.remove(&view).unwrap_or_default();
        let mut removed = Vec::new();
        for key in known.difference(&present) {
            self.identifying.remove(key);
            removed.extend(self.forget(key));
        }
        for newcomer in &mounts {
            let id = self.by_mount.get(&MountKey::of(&newcomer.mount));
            if let Some(target) = id.and_then(|id| self.targets.get_mut(id)) {
                let same = |member: &&mut Member| (member.view, member.mount_id) == (view, newcomer.mount.id);
                target.members.iter_mut().filter(same).for_each(|member| member.through = newcomer.through);
            }
        }
        mounts.retain(|newcomer| {
            let key = MountKey::of(&newcomer.mount);
            !self.by_mount.contains_key(&key) && self.identifying.insert(key)
        });
        self.by_view.insert(view, present);
        Changes { to_identify: mounts, removed }
    }

    /// A container is gone, or is looked at through another process.
    pub(super) fn forget_view(&mut self, view: View) -> Vec<Target> {
        let keys = self.by_view.remove(&view).unwrap_or_default();
        self.identifying.retain(|key| !keys.contains(key));
        let (_, mut removed) = self.update_absent(view, Vec::new(), 0.0);
        removed.extend(keys.iter().filter_map(|key| self.forget(key)));
        removed
    }

    /// A mount's root is identified, or cannot be. Gives the target's id if it is a new one; `None` also when the mount
    /// went away meanwhile.
    pub(super) fn identified(
        &mut self,
        newcomer: &Newcomer,
        identity: Option<&Identity>,
        now: UnixSeconds,
    ) -> Option<TargetId> {
        let mount = &newcomer.mount;
        let mount_key = MountKey::of(mount);
        if !self.identifying.remove(&mount_key) {
            return None;
        }
        let key = Key::of(mount, identity);
        let known = self.by_key.get(&key).copied().or_else(|| self.akin(mount, identity));
        if known.is_none() && !newcomer.may_stand_alone(identity) {
            return None;
        }
        let id = known.unwrap_or_else(|| {
            let path = newcomer.label.as_ref().unwrap_or(&mount.mountpoint);
            let labels = choose_labels(mount, path, |labels| self.labels.contains(labels));
            self.labels.insert(labels.clone());
            self.next_id += 1;
            self.by_key.insert(key.clone(), self.next_id);
            let mut target = Target::new(self.next_id, key, labels, mount, now);
            target.owner = newcomer.owner.clone().unwrap_or(target.owner);
            self.targets.insert(self.next_id, target);
            self.next_id
        });
        self.by_mount.insert(mount_key, id);
        self.by_mount_id.insert(mount.id, id);
        if let Some(target) = self.targets.get_mut(&id) {
            target.was_on_host |= !mount.view.is_container();
            target.members.push(newcomer.member(identity));
        }
        known.is_none().then_some(id)
    }

    /// Without the right to look into containers (CAP_SYS_PTRACE) their mounts have no identity. Where the node has one
    /// target of this superblock and source it is most likely that one; more are not told apart.
    fn akin(&self, mount: &Mount, identity: Option<&Identity>) -> Option<TargetId> {
        if !mount.view.is_container() || identity.is_some() {
            return None;
        }
        let akin = |target: &&Target| match &target.key {
            Key::Root { dev, root, source, .. } => {
                *dev == mount.dev && root == mount.root.as_bytes() && source == mount.source.as_bytes()
            }
            Key::Mount { .. } | Key::Absent { .. } => false,
        };
        let mut found = self.targets.values().filter(akin);
        found.next().filter(|_| found.next().is_none()).map(|target| target.id)
    }

    /// A target that had no identity has one now and stays what it is; false when another one has it already.
    pub(super) fn take_identity(&mut self, id: TargetId, mount: &Mount, identity: &Identity) -> bool {
        let key = Key::of(mount, Some(identity));
        let taken = self.by_key.contains_key(&key) || self.by_mount.get(&MountKey::of(mount)) != Some(&id);
        let Some(target) = self.targets.get_mut(&id).filter(|_| !taken) else { return false };
        self.by_key.remove(&target.key);
        self.by_key.insert(key.clone(), id);
        target.key = key;
        for member in target.members.iter_mut().filter(|member| member.mount_id == mount.id) {
            member.unique_mount_id = identity.unique_mount_id;
        }
        true
    }

    /// A probe found another root under a target's path: its mounts are identified anew at the next reading.
    pub(super) fn dissolve(&mut self, id: TargetId) -> Option<Target> {
        let keys: Vec<MountKey> =
            self.by_mount.iter().filter(|(_, target)| **target == id).map(|(key, _)| key.clone()).collect();
        keys.iter().filter_map(|key| self.forget(key)).last()
    }

    /// The target whose member has this mount id.
    pub(super) fn by_mount_id(&self, mount_id: u64) -> Option<&Target> {
        self.targets.get(self.by_mount_id.get(&mount_id)?)
    }

    /// The target that a mount of a container belongs to.
    pub(super) fn of_view(&self, view: View, mount_id: u64) -> Option<TargetId> {
        let key = self.by_view.get(&view)?.iter().find(|key| key.id == mount_id)?;
        self.by_mount.get(key).copied()
    }

    /// Targets that are reached through a mount of this one.
    pub(super) fn behind(&self, id: TargetId) -> Vec<TargetId> {
        let members = self.targets.get(&id).into_iter().flat_map(|target| &target.members);
        let ways: HashSet<u64> = members.map(|member| member.mount_id).filter(|id| self.ways.contains(id)).collect();
        if ways.is_empty() {
            return Vec::new();
        }
        let leads = |member: &Member| member.through.is_some_and(|mount_id| ways.contains(&mount_id));
        self.targets.values().filter(|target| target.members.iter().any(leads)).map(|target| target.id).collect()
    }

    /// The mount with this id is being identified.
    pub(super) fn identifies(&self, mount_id: u64) -> bool {
        self.identifying.iter().any(|key| key.id == mount_id)
    }

    /// Mounts of the host are being identified.
    pub(super) fn identifies_on_host(&self) -> bool {
        self.identifying.iter().any(|key| !key.view.is_container())
    }

    /// Nothing is being identified.
    pub(super) fn settled(&self) -> bool {
        self.identifying.is_empty()
    }

    /// Forgets one mount; gives the target back when that was its last.
    fn forget(&mut self, key: &MountKey) -> Option<Target> {
        let id = self.by_mount.remove(key)?;
        if self.by_mount_id.get(&key.id) == Some(&id) {
            self.by_mount_id.remove(&key.id);
        }
        let target = self.targets.get_mut(&id)?;
        target.members.retain(|member| (member.view, member.mount_id) != (key.view, key.id));
        if !target.members.is_empty() {
            return None;
        }
        let target = self.targets.remove(&id)?;
        self.by_key.remove(&target.key);
        self.labels.remove(&target.labels);
        Some(target)
    }
}
