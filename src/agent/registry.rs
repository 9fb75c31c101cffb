//! From the mount table to targets: which mounts are new, whose roots are the same, which paths lead where.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::containers::AbsentMount;
use super::target::{Key, Labels, Member, Target, choose_labels};
use crate::mounts::filter::Filter;
use crate::mounts::table::{ById, through};
use crate::mounts::{Dev, Mount, View};
use crate::probe::Identity;
use crate::probe::schedule::TargetId;
use crate::snapshot::UnixSeconds;
use crate::verdict::Facts;

/// A mount as one reading of the table knows it. Ids and numbers are reused, so all of it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MountKey {
    view: View,
    id: u64,
    dev: Dev,
    source: OsString,
    mountpoint: OsString,
}

impl MountKey {
    pub(super) fn of(mount: &Mount) -> MountKey {
        MountKey {
            view: mount.view,
            id: mount.id,
            dev: mount.dev,
            source: mount.source.clone(),
            mountpoint: mount.mountpoint.clone().into_os_string(),
        }
    }
}

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

/// A mount that was not there before.
#[derive(Debug, Clone)]
pub(super) struct Newcomer {
    pub(super) mount: Mount,
    pub(super) through: Option<u64>,
    /// The path that it is known by where its own says nothing outside its container.
    pub(super) label: Option<PathBuf>,
    /// Whose workers it counts against, where its path does not say it.
    pub(super) owner: Option<String>,
    /// It may become a target of its own; otherwise it only joins one that is there.
    pub(super) alone: bool,
}

impl Newcomer {
    /// A container's mount that cannot be identified cannot be probed either.
    fn may_stand_alone(&self, identity: Option<&Identity>) -> bool {
        self.alone && (identity.is_some() || !self.mount.view.is_container())
    }

    /// What it is to its target.
    pub(super) fn member(&self, identity: Option<&Identity>) -> Member {
        Member {
            mount_id: self.mount.id,
            unique_mount_id: identity.and_then(|identity| identity.unique_mount_id),
            view: self.mount.view,
            mountpoint: self.mount.mountpoint.clone(),
            hidden: self.mount.hidden_by.is_some(),
            through: self.through,
        }
    }
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

    /// Takes over what a container lacks: gives the targets that are new, and those that are no more.
    pub(super) fn update_absent(
        &mut self,
        view: View,
        absent: Vec<AbsentMount>,
        now: UnixSeconds,
    ) -> (Vec<TargetId>, Vec<Target>) {
        let key = |absent: &AbsentMount| Key::Absent { view, path: absent.path.clone() };
        let present: HashSet<Key> = absent.iter().map(key).collect();
        let of_view = |key: &&Key| matches!(key, Key::Absent { view: of, .. } if *of == view);
        let gone: Vec<Key> =
            self.by_key.keys().filter(of_view).filter(|key| !present.contains(*key)).cloned().collect();
        let removed = gone.iter().filter_map(|key| self.forget_absent(key)).collect();
        let mut new = Vec::new();
        for absent in absent {
            let key = key(&absent);
            if self.by_key.contains_key(&key) {
                continue;
            }
            let mount = absent.stand_in(view);
            let labels = choose_labels(&mount, &absent.label, |labels| self.labels.contains(labels));
            self.labels.insert(labels.clone());
            self.next_id += 1;
            self.by_key.insert(key.clone(), self.next_id);
            let mut target = Target::new(self.next_id, key, labels, &mount, now);
            (target.on_host, target.absent) = (Some(absent.what.clone()), Some(absent));
            self.targets.insert(self.next_id, target);
            new.push(self.next_id);
        }
        (new, removed)
    }

    fn forget_absent(&mut self, key: &Key) -> Option<Target> {
        let target = self.targets.remove(&self.by_key.remove(key)?)?;
        self.labels.remove(&target.labels);
        Some(target)
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

/// What may change while a mount stays: options by a remount, what lies on top of it or on the way to it.
/// `first`: the first mount of the target in this reading.
fn renew(target: &mut Target, watched: &Watched<'_>, first: bool) {
    let mount = watched.mount;
    let facts = Facts::of(mount);
    target.facts = if first { facts } else { facts.joined(&target.facts) };
    if first && target.mount != *mount {
        target.mount = mount.clone();
    }
    for member in &mut target.members {
        if (member.view, member.mount_id) == (mount.view, mount.id) {
            member.hidden = mount.hidden_by.is_some();
            member.through = watched.through;
        }
    }
}

/// A mount that the agent watches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched<'table> {
    pub(super) mount: &'table Mount,
    /// Mount id of the network mount that its path leads through.
    pub(super) through: Option<u64>,
}

/// The mounts that the filter wants, each with the network mount on its way.
pub(super) fn watched<'table>(mounts: &'table [Mount], filter: &Filter) -> Vec<Watched<'table>> {
    let by_id: ById<'_> = mounts.iter().map(|mount| ((mount.view, mount.id), mount)).collect();
    let watch = |mount| Watched { mount, through: through(mount, &by_id).map(|other| other.id) };
    mounts.iter().filter(|mount| filter.wants(mount)).map(watch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::table::Table;

    /// Two binds of one export.
    const TABLE: &str = "20 1 0:5 / / rw - ext4 /dev/vda rw\n\
                         30 20 0:40 / /a rw - nfs4 srv:/x rw,hard\n\
                         31 20 0:40 / /b rw - nfs4 srv:/x rw,hard\n";

    #[expect(clippy::disallowed_methods, reason = "a test writes the table that it reads")]
    fn mounts() -> Vec<Mount> {
        let proc_root = tempfile::tempdir().unwrap();
        for process in ["self", "1"] {
            std::fs::create_dir(proc_root.path().join(process)).unwrap();
            std::fs::write(proc_root.path().join(process).join("mountinfo"), TABLE).unwrap();
        }
        Table::read(proc_root.path()).unwrap().mounts.into_iter().filter(|mount| mount.id >= 30).collect()
    }

    fn identity() -> Identity {
        Identity { handle: vec![1, 2, 3], ino: 2, unique_mount_id: Some(7) }
    }

    /// A registry that could not identify the mounts, and their targets.
    fn unidentified(mounts: &[Mount]) -> (Registry, Vec<TargetId>) {
        let mut registry = Registry::default();
        let watched: Vec<_> = mounts.iter().map(|mount| Watched { mount, through: None }).collect();
        let newcomers = registry.update(&watched).to_identify;
        let ids = newcomers.iter().filter_map(|newcomer| registry.identified(newcomer, None, 0.0)).collect();
        (registry, ids)
    }

    #[test]
    fn a_mount_that_is_identified_late_keeps_its_target() {
        let mounts = mounts();
        let (mut registry, ids) = unidentified(&mounts[..1]);
        assert!(registry.take_identity(ids[0], &mounts[0], &identity()));
        let watched: Vec<_> = mounts.iter().map(|mount| Watched { mount, through: None }).collect();
        let newcomers = registry.update(&watched).to_identify;
        assert_eq!(newcomers.len(), 1, "only the other bind is new");
        assert_eq!(registry.identified(&newcomers[0], Some(&identity()), 0.0), None, "and it is the same target");
        assert_eq!(registry.targets[&ids[0]].members.len(), 2);
        assert_eq!(registry.targets[&ids[0]].members[0].unique_mount_id, Some(7));
    }

    #[test]
    fn a_root_that_another_target_has_is_not_taken_twice() {
        let mounts = mounts();
        let (mut registry, ids) = unidentified(&mounts);
        assert!(registry.take_identity(ids[0], &mounts[0], &identity()));
        assert!(!registry.take_identity(ids[1], &mounts[1], &identity()));
        assert!(!registry.take_identity(ids[1], &mounts[0], &identity()), "a mount of somebody else's");
        assert_eq!(registry.dissolve(ids[1]).map(|target| target.id), Some(ids[1]));
    }
}
