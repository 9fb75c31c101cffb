//! What the host has in place of a mount that only containers and services have.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::AbsentMount;
use crate::agent::core::Core;
use crate::agent::target::Target;
use crate::mounts::{Kind, Mount, Origin, Process, View, octal};
use crate::pods::names::VolumeOrigin;
use crate::probe::schedule::TargetId;
use crate::verdict::{NotRun, OnHost};

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
        let of_members = target.members.iter().filter_map(|member| {
            let View::Container(process) = member.view else { return None };
            let seen = self.containers.views.get(&process)?;
            Some((seen.holder.pod_uid(), &*member.mountpoint, seen.mounts.get(&member.mount_id)?))
        });
        let mut known = target.was_on_host;
        for (uid, path, mount) in of_members {
            if let Some((host_path, mount_id)) = self.volumes.of_this_source(uid, &mount.source, path) {
                return Some(remounted(host_path, self.registry.by_mount_id(mount_id), target));
            }
            let Some(uid) = uid else { continue };
            // A directory of a volume, whose own mount the host gave up: the volume itself was mounted anew, or is there
            // as ever. Of the latter nothing is known to have changed.
            let volume = self.volumes.of_source(uid, None, mount.source.as_bytes());
            if let Some(volume) = volume.filter(|volume| target.was_on_host || volume.dev() != target.dev) {
                return Some(remounted(&volume.mountpoint, None, target));
            }
            known |= self.wanted_in(uid, target);
        }
        known.then_some(OnHost::Unmounted)
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

    /// Paths at which a container must have a network volume, by the pod's specification.
    pub(super) fn wanted_paths(&self, process: Process) -> Vec<AbsentMount> {
        let Some(holder) = self.containers.views.get(&process).map(|seen| &seen.holder) else { return Vec::new() };
        let pod = holder.pod_uid().and_then(|uid| Some((uid, self.names.pod(uid)?)));
        let Some((uid, pod)) = pod.filter(|(_, pod)| !pod.terminating) else { return Vec::new() };
        // What runs containers of its own has processes of them in its control group: its own namespace is the oldest.
        let older = |other: &Process| (other.start, other.pid) < (process.start, process.pid);
        if self.containers.views.iter().any(|(other, seen)| older(other) && seen.holder == *holder) {
            return Vec::new();
        }
        let Some(container) = holder.container_id().and_then(|id| pod.container(id)) else { return Vec::new() };
        let of_container = pod.mounts.iter().filter(|wanted| wanted.container == container);
        let absent = of_container.filter_map(|wanted| {
            let volume = pod.volume(&wanted.volume)?;
            let Some(VolumeOrigin::Network { source, fstype }) = &volume.origin else { return None };
            Some(AbsentMount {
                uid: uid.to_owned(),
                container_id: holder.container_id().map(str::to_owned),
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
