//! Who uses a target: the pods on it, each volume as one container sees it, and who else holds a copy. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{AbsentMount, Seen, Volumes};
use crate::agent::target::{Member, Target};
use crate::mounts::kubelet::KubeletPath;
use crate::mounts::{Process, View, octal};
use crate::pods::names::{PodName, PodNames};
use crate::snapshot::{MountHolder, MountUser};
use crate::verdict::Cause;

/// Users of one target that are kept; all pods are counted. Each pod behind one that is dead is to be told.
const KEPT: usize = 512;

/// Others who hold a copy that are kept by name.
const HOLDERS: usize = 16;

/// Who uses a target.
#[derive(Debug, Default)]
pub(in crate::agent) struct Users {
    /// Of which look this is.
    pub(in crate::agent) epoch: u64,
    pub(in crate::agent) listed: Vec<MountUser>,
    pub(in crate::agent) pods: usize,
    pub(in crate::agent) holders: Vec<MountHolder>,
}

impl Users {
    /// For a line of the log: the first pods by name, and how many more.
    pub(in crate::agent) fn words(&self) -> String {
        const TOLD: usize = 3;
        let named: BTreeSet<String> = self.listed.iter().map(MountUser::pod_words).collect();
        let holders = self.holders.iter().map(|holder| holder.who.clone());
        let told: Vec<String> = named.into_iter().chain(holders).take(TOLD).collect();
        let more = (self.pods + self.holders.len()).saturating_sub(told.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", told.join(", "))
    }
}

/// Reads it from a target's mounts.
pub(super) fn of(
    target: &Target,
    views: &HashMap<Process, Seen>,
    volumes: &Volumes,
    names: &PodNames,
    epoch: u64,
    own_cause: &dyn Fn(&Member) -> Option<Cause>,
) -> Users {
    let alone = target.absent.is_none() && target.members.iter().all(|member| member.view.is_container());
    let mut users = Users { epoch, ..Users::default() };
    // By pod and volume: what containers see says more than the kubelet's path.
    let mut found: BTreeMap<(String, String), BTreeSet<MountUser>> = BTreeMap::new();
    let mut pods = BTreeSet::new();
    let mut kept = 0;
    for member in &target.members {
        let user = match member.view {
            View::Container(process) => {
                let Some(seen) = views.get(&process) else { continue };
                match seen.holder.pod_uid() {
                    Some(_) => in_container(member, seen, target, volumes, names).map(|user| {
                        let cause = if alone { own_cause(member) } else { None };
                        MountUser { cause, ..user }
                    }),
                    None if users.holders.len() < HOLDERS => {
                        users.holders.push(holder(member, process, seen));
                        continue;
                    }
                    None => continue,
                }
            }
            View::Own | View::Host => on_host(member, names),
        };
        let Some(user) = user else { continue };
        pods.insert(user.pod_uid.clone());
        if kept >= KEPT {
            continue;
        }
        kept += 1;
        found.entry((user.pod_uid.clone(), user.volume.clone())).or_default().insert(user);
    }
    if let Some(absent) = &target.absent {
        pods.insert(absent.uid.clone());
        let user = lacking(absent, names);
        found.entry((user.pod_uid.clone(), user.volume.clone())).or_default().insert(user);
    }
    users.pods = pods.len();
    for mut of_volume in found.into_values() {
        if of_volume.iter().any(|user| user.path.is_some()) {
            of_volume.retain(|user| user.path.is_some());
        }
        users.listed.extend(of_volume);
    }
    users.holders.sort();
    users
}

/// A pod by the kubelet's path.
fn on_host(member: &Member, names: &PodNames) -> Option<MountUser> {
    let path = KubeletPath::parse(&member.mountpoint)?;
    let uid = path.pod_uid()?;
    let mut user = named(uid, path.directory(), names.pod(uid));
    if let KubeletPath::SubPath { container, .. } = &path {
        user.container = Some(container.clone());
    }
    Some(user)
}

/// A pod by what one of its containers has mounted.
fn in_container(
    member: &Member,
    seen: &Seen,
    target: &Target,
    volumes: &Volumes,
    names: &PodNames,
) -> Option<MountUser> {
    use std::os::unix::ffi::OsStrExt;
    let uid = seen.holder.pod_uid()?;
    let mount = seen.mounts.get(&member.mount_id)?;
    let pod = names.pod(uid);
    let id = seen.holder.container_id();
    let container = pod.zip(id).and_then(|(pod, id)| pod.container(id));
    let wanted = pod.and_then(|pod| {
        let here =
            |container: &str| pod.mounts.iter().find(|m| m.container == container && m.path == member.mountpoint);
        container.and_then(here)
    });
    let on_host = volumes.of_source(uid, Some(target.dev), mount.source.as_bytes());
    let directory = pod
        .zip(wanted)
        .and_then(|(pod, wanted)| pod.volume(&wanted.volume))
        .map(|volume| volume.directory.as_str())
        .or(on_host.map(|volume| volume.directory.as_str()));
    let mut user = named(uid, directory.unwrap_or_default(), pod);
    // Of a subPath's own mount nothing is below; what is wanted is where in the volume it lies.
    let whole = on_host.and_then(|volume| volumes.of_directory(uid, &volume.directory)).or(on_host);
    let below = whole.map(|volume| volume.directory_of(mount.source.as_bytes(), mount.root.as_bytes()));
    user.container_id = id.map(str::to_owned);
    user.container = container.map(str::to_owned);
    user.path = Some(octal::label(member.mountpoint.as_os_str()));
    user.sub_directory =
        below.filter(|below| !below.is_empty()).map(|below| octal::label(std::ffi::OsStr::from_bytes(&below)));
    user.read_only = mount.read_only;
    Some(user)
}

/// A pod whose container has no such mount.
fn lacking(absent: &AbsentMount, names: &PodNames) -> MountUser {
    let pod = names.pod(&absent.uid);
    let mut user = named(&absent.uid, &absent.directory, pod);
    user.container = pod.zip(absent.container_id.as_deref()).and_then(|(pod, id)| pod.container(id)).map(str::to_owned);
    user.container_id.clone_from(&absent.container_id);
    user.path = Some(octal::label(absent.path.as_os_str()));
    user
}

fn named(uid: &str, directory: &str, pod: Option<&PodName>) -> MountUser {
    let volume = pod.and_then(|pod| pod.volume_in(directory));
    MountUser {
        pod_uid: uid.to_owned(),
        namespace: pod.map(|pod| pod.namespace.clone()),
        pod: pod.map(|pod| pod.name.clone()),
        volume: volume.map_or_else(|| directory.to_owned(), |volume| volume.volume.clone()),
        claim: volume.and_then(|volume| volume.claim.clone()),
        ..MountUser::default()
    }
}

fn holder(member: &Member, process: Process, seen: &Seen) -> MountHolder {
    MountHolder { who: seen.holder.words(), pid: process.pid, path: octal::label(member.mountpoint.as_os_str()) }
}
