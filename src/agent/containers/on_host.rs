//! What the host has in place of a mount that only containers and services have.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::AbsentMount;
use crate::agent::core::Core;
use crate::agent::target::{Key, Member, Target};
use crate::mounts::kubelet::KubeletPath;
use crate::mounts::{Kind, Mount, Origin, Process, View, octal};
use crate::pods::names::{PodName, VolumeOrigin};
use crate::pods::namespaces::Holder;
use crate::probe::schedule::TargetId;
use crate::verdict::{Cause, NotRun, OnHost};

/// A container of a pod, by name.
pub(super) struct InPod<'a> {
    pub(super) uid: &'a str,
    pub(super) pod: &'a PodName,
    pub(super) container: &'a str,
    /// The runtime's id.
    pub(super) id: &'a str,
}

/// What the host has in place of a container's mount.
enum InPlace<'a> {
    /// Another mount.
    Anew(OnHost),
    /// Most likely the very same one.
    Same,
    /// Nothing, as far as can be told; the container is of this pod.
    Nothing { uid: Option<&'a str> },
    /// The container's table is not known.
    Unknown,
}

impl Core {
    /// Compares a target that no path of the host leads to with what the host has mounted instead.
    pub(in crate::agent) fn on_host(&self, id: TargetId) -> Option<OnHost> {
        let target = self.registry.targets.get(&id)?;
        if let Some(absent) = &target.absent {
            return Some(absent.what.clone());
        }
        if target.members.is_empty() || target.members.iter().any(|member| !member.view.is_container()) {
            return None;
        }
        // What is true of the first of them for which the host has anything in place of the mount. Where it has nothing for
        // one of the others, that one's row says so ([`own_cause`](Self::own_cause)).
        let mut known = target.was_on_host;
        for member in &target.members {
            match self.in_place_of(target, member) {
                InPlace::Anew(on_host) => return Some(on_host),
                InPlace::Same => return None,
                InPlace::Nothing { uid } => known |= uid.is_some_and(|uid| self.wanted_in(uid, target)),
                InPlace::Unknown => {}
            }
        }
        known.then_some(OnHost::Unmounted)
    }

    /// What the host has in place of one container's mount.
    fn in_place_of(&self, target: &Target, member: &Member) -> InPlace<'_> {
        let View::Container(process) = member.view else { return InPlace::Unknown };
        let seen = self.containers.views.get(&process);
        let Some((seen, mount)) = seen.and_then(|seen| Some((seen, seen.mounts.get(&member.mount_id)?))) else {
            return InPlace::Unknown;
        };
        let uid = seen.holder.pod_uid();
        if let Some((host_path, mount_id)) = self.volumes.of_this_source(uid, &mount.source, &member.mountpoint) {
            let there = self.registry.by_mount_id(mount_id);
            // The same superblock, and a root that could not be identified in time: most likely the very same mount.
            if there.is_some_and(|there| there.dev == target.dev && !matches!(there.key, Key::Root { .. })) {
                return InPlace::Same;
            }
            return InPlace::Anew(remounted(host_path, there, target));
        }
        // A directory of a volume, whose own mount the host gave up: the volume itself was mounted anew, or is there
        // as ever. Of the latter nothing is known to have changed.
        let volume = uid.and_then(|uid| self.volumes.of_source(uid, None, mount.source.as_bytes()));
        match volume.filter(|volume| target.was_on_host || volume.dev() != target.dev) {
            Some(volume) => InPlace::Anew(remounted(&volume.mountpoint, None, target)),
            None => InPlace::Nothing { uid },
        }
    }

    /// Why the target is lost for one container of a pod, where the host alone decides that: one path of it may have been
    /// mounted anew, and another one unmounted.
    pub(super) fn own_cause(&self, target: &Target, member: &Member) -> Option<Cause> {
        match self.in_place_of(target, member) {
            InPlace::Anew(_) => Some(Cause::RemountedOnHost),
            // What a pod has of other pods' volumes by a directory of the node was never unmounted for it.
            InPlace::Nothing { uid: Some(uid) } => {
                let known = self.names.pod(uid).is_some();
                let was_there = if known { self.wanted_in(uid, target) } else { target.was_on_host };
                was_there.then_some(Cause::UnmountedOnHost)
            }
            InPlace::Nothing { .. } | InPlace::Same | InPlace::Unknown => None,
        }
    }

    /// The pod's specification has a network volume at one of the target's paths: the host must have had it.
    fn wanted_in(&self, uid: &str, target: &Target) -> bool {
        let Some(pod) = self.names.pod(uid) else { return false };
        let network = |name: &str| {
            pod.volume(name).is_some_and(|volume| matches!(volume.origin, Some(VolumeOrigin::Network { .. })))
        };
        let here = |path: &Path| target.members.iter().any(|member| member.mountpoint == path);
        pod.mounts.iter().any(|wanted| here(&wanted.path) && network(&wanted.volume))
    }

    /// The container of a pod whose processes these are: only where the pod is known and stays.
    pub(super) fn in_pod(&self, process: Process) -> Option<InPod<'_>> {
        let holder = &self.containers.views.get(&process)?.holder;
        let (uid, id) = (holder.pod_uid()?, holder.container_id()?);
        let pod = self.names.pod(uid).filter(|pod| !pod.terminating)?;
        let container = pod.container(id)?;
        // What runs containers of its own has processes of them in its control group: its own namespace is the oldest.
        let older = |other: &Process| (other.start, other.pid) < (process.start, process.pid);
        let inner = self.containers.views.iter().any(|(other, seen)| older(other) && seen.holder == *holder);
        (!inner).then_some(InPod { uid, pod, container, id })
    }

    /// Paths at which a container must have a network volume, by the pod's specification.
    pub(super) fn wanted_paths(&self, process: Process) -> Vec<AbsentMount> {
        let Some(InPod { uid, pod, container, id }) = self.in_pod(process) else { return Vec::new() };
        let of_container = pod.mounts.iter().filter(|wanted| wanted.container == container);
        let absent = of_container.filter_map(|wanted| {
            let volume = pod.volume(&wanted.volume)?;
            let Some(VolumeOrigin::Network { source, fstype }) = &volume.origin else { return None };
            Some(AbsentMount {
                uid: uid.to_owned(),
                container_id: Some(id.to_owned()),
                directory: volume.directory.clone(),
                path: wanted.path.clone(),
                label: wanted.path.clone(),
                source: source.clone(),
                fstype: fstype.clone(),
                what: OnHost::Missing,
            })
        });
        absent.collect()
    }

    /// A bind of the kubelet's directory of a network volume, on the node's disk.
    pub(super) fn on_disk(&self, mount: &Mount, holder: &Holder) -> Option<AbsentMount> {
        let volume = KubeletPath::parse(mount.root.as_ref())?;
        // A container's table tells the directory within the filesystem. Commands need the host's path.
        let label = self.table.path_on_host(mount.dev, mount.root.as_ref());
        let label = label.unwrap_or_else(|| mount.root.clone().into());
        Some(AbsentMount {
            uid: holder.pod_uid().or(volume.pod_uid())?.to_owned(),
            container_id: holder.container_id().map(str::to_owned),
            directory: volume.directory().to_owned(),
            path: mount.mountpoint.clone(),
            what: OnHost::OnDisk { directory: octal::label(label.as_os_str()) },
            label,
            source: octal::label(&mount.source),
            fstype: mount.fstype.clone(),
        })
    }

    /// Takes over what a container lacks.
    pub(super) fn take_absent(&mut self, process: Process, absent: Vec<AbsentMount>) {
        let unix = self.unix_now();
        let (new, removed) = self.registry.update_absent(View::Container(process), absent, unix);
        self.drop_targets(removed);
        for id in new {
            self.judge_not_run(id, NotRun::Absent);
        }
    }
}

fn remounted(path: &Path, there: Option<&Target>, target: &Target) -> OnHost {
    let stable = target.facts.kind.is_some_and(Kind::stable_inodes);
    let differs = there.is_some_and(|there| there.id != target.id && target.key.differs(&there.key, stable));
    OnHost::Remounted { path: octal::label(path.as_os_str()), differs }
}

impl AbsentMount {
    /// What the missing mount would be, for its labels.
    pub(in crate::agent) fn stand_in(&self, view: View) -> Mount {
        let number = match view {
            View::Container(process) => u64::try_from(process.pid).unwrap_or_default(),
            View::Own | View::Host => 0,
        };
        Mount {
            id: number,
            parent: number,
            dev: crate::mounts::Dev { major: 0, minor: 0 },
            root: "/".into(),
            mountpoint: self.path.clone(),
            fstype: self.fstype.clone(),
            source: self.source.clone().into(),
            options: "rw".into(),
            super_options: "rw".into(),
            kind: None,
            origin: Origin::parse(&self.fstype, self.source.as_ref(), "rw".as_ref()),
            view,
            hidden_by: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::super::{Seen, SeenMount, Volumes};
    use super::*;
    use crate::agent::registry::{Newcomer, watched};
    use crate::config::Config;
    use crate::mounts::filter::Filter;
    use crate::mounts::mountinfo;
    use crate::pods::cgroup::Owner;
    use crate::pods::namespaces::Holder;
    use crate::probe::Identity;
    use crate::probe::image::Image;
    use crate::probe::pool::{Limits, Pool};
    use crate::probe::schedule::Now;

    const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";

    /// What the host has of a pod's volume on superblock `host`, identified as this root, beside a container that has root 1
    /// of superblock 40.
    fn beside(host: u32, root: Option<u8>) -> Option<OnHost> {
        let pool = Pool::new(Image::of_this_binary().unwrap(), Limits { warm: 1, max: 4, per_owner: 4 });
        let mut core = Core::new(Config::default(), Filter::default(), pool, "node".to_owned(), true);
        let identity = |root| Identity { handle: vec![root], ino: 2, unique_mount_id: None };
        let line =
            |id: u32, dev: u32, path: &str| format!("{id} 1 0:{dev} / {path} rw - nfs4 srv:/x rw,addr=10.0.0.1\n");
        let volume = format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~nfs/pv-1");
        let of_host = mountinfo::parse(line(30, host, &volume).as_bytes(), View::Host).mounts;
        core.volumes = Volumes::of(&of_host);
        for newcomer in core.registry.update(&watched(&of_host, &core.filter)).to_identify {
            core.registry.identified(&newcomer, root.map(identity).as_ref(), 0.0).unwrap();
        }
        let process = Process { pid: 7, start: 1 };
        let of_container = mountinfo::parse(line(90, 40, "/data").as_bytes(), View::Container(process)).mounts;
        let seen =
            |mount: &Mount| SeenMount { source: mount.source.clone(), root: mount.root.clone(), read_only: false };
        let mounts: HashMap<u64, SeenMount> = of_container.iter().map(|mount| (mount.id, seen(mount))).collect();
        let holder = Holder::Of(Arc::new(Owner::parse(
            format!("0::/kubepods/besteffort/pod{UID}/{}\n", "a".repeat(64)).as_bytes(),
        )));
        assert_eq!(holder.pod_uid(), Some(UID));
        core.containers.views.insert(process, Seen { mounts, ..Seen::new(holder, Now::ZERO) });
        let alone = |mount| Newcomer { mount, through: None, label: None, owner: None, alone: true };
        let newcomers = of_container.into_iter().map(alone).collect();
        let changes = core.registry.update_view(View::Container(process), newcomers);
        let id = core.registry.identified(&changes.to_identify[0], Some(&identity(1)), 0.0).unwrap();
        core.on_host(id)
    }

    #[tokio::test]
    async fn one_pod_may_have_been_mounted_anew_and_another_one_unmounted() {
        let pool = Pool::new(Image::of_this_binary().unwrap(), Limits { warm: 1, max: 4, per_owner: 4 });
        let mut core = Core::new(Config::default(), Filter::default(), pool, "node".to_owned(), true);
        let uid = |pod: u8| format!("0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a1{pod}");
        let identity = Identity { handle: vec![1], ino: 2, unique_mount_id: None };
        let line =
            |id: u8, dev: u32, path: &str| format!("{id} 1 0:{dev} / {path} rw - nfs4 srv:/x rw,addr=10.0.0.1\n");
        // Of the pods 1 and 2 the first one's volume is there anew.
        let volume = format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~nfs/pv-1", uid(1));
        core.volumes = Volumes::of(&mountinfo::parse(line(30, 41, &volume).as_bytes(), View::Host).mounts);
        let mut joined = Vec::new();
        for pod in [2, 1] {
            let process = Process { pid: i32::from(pod), start: 1 };
            let view = View::Container(process);
            let mount = mountinfo::parse(line(90 + pod, 40, "/data").as_bytes(), view).mounts.remove(0);
            let seen = SeenMount { source: mount.source.clone(), root: mount.root.clone(), read_only: false };
            let group = format!("0::/kubepods/besteffort/pod{}/{}\n", uid(pod), "a".repeat(64));
            let holder = Holder::Of(Arc::new(Owner::parse(group.as_bytes())));
            let mounts = HashMap::from([(mount.id, seen)]);
            core.containers.views.insert(process, Seen { mounts, ..Seen::new(holder, Now::ZERO) });
            let newcomer = Newcomer { mount, through: None, label: None, owner: None, alone: true };
            let changes = core.registry.update_view(view, vec![newcomer]);
            joined.push(core.registry.identified(&changes.to_identify[0], Some(&identity), 0.0));
        }
        let [Some(id), _] = joined[..] else { panic!("no target") };
        core.registry.targets.get_mut(&id).unwrap().was_on_host = true;
        assert!(matches!(core.on_host(id), Some(OnHost::Remounted { .. })), "what is told of the mount");
        core.containers.epoch += 1;
        core.count_users_of(id);
        let rows = &core.registry.targets[&id].users.listed;
        let rows: Vec<_> = rows.iter().map(|user| (user.pod_uid.clone(), user.cause)).collect();
        assert_eq!(rows, [(uid(1), Some(Cause::RemountedOnHost)), (uid(2), Some(Cause::UnmountedOnHost))]);
    }

    #[tokio::test]
    async fn a_mount_of_the_host_that_could_not_be_identified_is_no_new_one() {
        let remounted = |differs| {
            Some(OnHost::Remounted {
                path: format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~nfs/pv-1"),
                differs,
            })
        };
        assert_eq!(beside(40, None), None, "the same superblock, and nobody knows which root");
        assert_eq!(beside(40, Some(2)), remounted(true));
        assert_eq!(beside(41, None), remounted(false));
        assert_eq!(beside(41, Some(1)), remounted(false));
    }
}
