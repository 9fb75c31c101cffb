//! Pods that do not start because a volume of theirs cannot be mounted.
//!
//! A kubelet whose mount of NFSv4.1 gets no answer says nothing, for ever: no Event, no condition, a pod in
//! ContainerCreating (KUBELET.md 3). There is no mount that could be probed, and none is made: which pods wait is known from
//! the API and the host's mount table, why from questions to the server ([`diagnose`](crate::diagnose::server::offered)), and
//! that the kubelet really sits there from its `mount` processes ([`mounting`]).
//!
//! Cost: nothing while no pod waits. Otherwise at most [`book::IN_FLIGHT`] servers are asked at a time, each about one
//! export at a time, and what is true of a whole server is not asked again for its other exports.

pub mod book;
pub mod mounting;

use std::collections::HashSet;
use std::path::Path;

use crate::diagnose::subject::Subject;
use crate::mounts::Mount;
use crate::mounts::kubelet::KubeletPath;
use crate::pods::names::{PodName, PodNames, VolumeName, VolumeOrigin};
use crate::server::proxy;
use crate::snapshot::PendingVolume;
use crate::verdict::Finding;
use crate::verdict::findings::advice_to_share;

/// A volume that a pod waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The pod by the UID of its directories.
    pub pod_uid: String,
    /// Name of the volume's directory there.
    pub directory: String,
    /// Source as the specification has it.
    pub source: String,
    /// What is to be mounted.
    pub wanted: Wanted,
    /// Since when the pod waits, in seconds since the epoch.
    pub since: u64,
}

/// An export as the kubelet would mount it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wanted {
    /// The server and how it is to be asked.
    pub server: Server,
    /// Path on it.
    pub export: String,
}

/// A server, with the options that decide what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Server {
    /// Name or address, without brackets.
    pub name: String,
    /// It is a mount target of EFS.
    pub efs: bool,
    /// Options as mount(8) takes them.
    pub options: String,
}

impl Wanted {
    /// What a volume's specification asks for; `None` for what is no NFS, or says not where.
    fn of(volume: &VolumeName, region: Option<&str>) -> Option<(String, Wanted)> {
        let Some(VolumeOrigin::Network { source, fstype }) = &volume.origin else { return None };
        if !is_nfs(fstype) {
            return None;
        }
        let (name, export, efs) = match Subject::parse(source).ok()? {
            Subject::Server { server, export } => (server, export, false),
            Subject::Efs { file_system, directory } => (proxy::dns_name(&file_system, region?)?, directory, true),
            Subject::Path(_) => return None,
        };
        let server = Server { name, efs, options: volume.mount_options.clone() };
        Some((source.clone(), Wanted { server, export }))
    }
}

/// In-tree, or a CSI driver that mounts NFS: `nfs.csi.k8s.io`, `efs.csi.aws.com`, `filestore.csi.storage.gke.io`, ...
fn is_nfs(fstype: &str) -> bool {
    ["nfs", "efs", "filestore"].iter().any(|word| fstype.contains(word))
}

/// The volumes that pods of this node wait for, longest first. `mounted`: those that the host has.
#[must_use]
pub fn waiting(names: &PodNames, mounted: &HashSet<(String, String)>) -> Vec<Waiting> {
    let of_pod = |uid: &str, pod: &PodName, since: u64| -> Vec<Waiting> {
        let missing = |volume: &&VolumeName| !mounted.contains(&(uid.to_owned(), volume.directory.clone()));
        let wait = |volume: &VolumeName| {
            let (source, wanted) = Wanted::of(volume, names.region())?;
            Some(Waiting { pod_uid: uid.to_owned(), directory: volume.directory.clone(), source, wanted, since })
        };
        pod.volumes.iter().filter(missing).filter_map(wait).collect()
    };
    let pods = names.iter().filter_map(|(uid, pod)| Some(of_pod(uid, pod, pod.waits_since?)));
    let mut all: Vec<Waiting> = pods.flatten().collect();
    all.sort_by(|a, b| (a.since, &a.pod_uid, &a.directory).cmp(&(b.since, &b.pod_uid, &b.directory)));
    all
}

/// Volumes for one node at a time that a pod of another node has: pods that expect to share what is not shared.
#[must_use]
pub fn not_shared(names: &PodNames) -> Vec<PendingVolume> {
    let rows = |uid: &str, pod: &PodName, since: u64| -> Vec<PendingVolume> {
        let row = |volume: &VolumeName| {
            let (holder, claim) = (volume.held.as_ref()?, volume.claim.as_ref()?);
            Some(PendingVolume {
                pod_uid: uid.to_owned(),
                volume: volume.directory.clone(),
                source: volume.persistent_volume.clone().unwrap_or_default(),
                since: book::seconds(since),
                blocked: true,
                finding: Some(Finding::NotShared),
                evidence: format!("Claim {claim} is for one node at a time (ReadWriteOnce), and {holder} has it."),
                advice: format!("To start this pod {}.", advice_to_share()),
                ..PendingVolume::default()
            })
        };
        pod.volumes.iter().filter_map(row).collect()
    };
    let pods = names.iter().filter_map(|(uid, pod)| Some(rows(uid, pod, pod.waits_since?)));
    let mut all: Vec<PendingVolume> = pods.flatten().collect();
    all.sort_by(|a, b| a.since.total_cmp(&b.since).then_with(|| a.pod_uid.cmp(&b.pod_uid)));
    all
}

/// Pods' volumes in a mount table: UID and directory.
#[must_use]
pub fn mounted(table: &[Mount]) -> HashSet<(String, String)> {
    let volume = |mount: &Mount| match KubeletPath::parse(Path::new(&mount.mountpoint))? {
        KubeletPath::Volume { pod_uid, directory, below, .. } if below.is_empty() => Some((pod_uid, directory)),
        _ => None,
    };
    table.iter().filter_map(volume).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";

    fn volume(name: &str, source: &str, fstype: &str, options: &str) -> VolumeName {
        VolumeName {
            directory: format!("pv-{name}"),
            volume: name.into(),
            origin: Some(VolumeOrigin::Network { source: source.into(), fstype: fstype.into() }),
            mount_options: options.into(),
            ..VolumeName::default()
        }
    }

    fn names(volumes: Vec<VolumeName>, waits_since: Option<u64>) -> PodNames {
        let pod = PodName { namespace: "shop".into(), name: "web".into(), volumes, waits_since, ..PodName::default() };
        PodNames::new(HashMap::from([(UID.to_owned(), pod)]), true)
    }

    #[test]
    fn only_nfs_volumes_that_are_not_mounted_are_waited_for() {
        let local = VolumeName { origin: Some(VolumeOrigin::Local), ..volume("l", "", "", "") };
        let volumes = vec![
            volume("a", "srv:/a", "nfs", "vers=3,hard"),
            volume("b", "[fd00::1]:/b", "nfs.csi.k8s.io", ""),
            volume("c", "//srv/share", "smb.csi.k8s.io", ""),
            volume("d", "mon:/", "cephfs", ""),
            local,
        ];
        let table = format!(
            "20 1 0:5 / / rw - ext4 /dev/vda rw\n\
             30 20 0:40 / /var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~nfs/pv-a rw - nfs4 srv:/a rw\n"
        );
        let table = crate::mounts::table::Table::of(table.as_bytes(), Ok(table.clone().into_bytes()));
        let nothing = waiting(&names(volumes.clone(), Some(7)), &HashSet::new());
        let found: Vec<_> =
            nothing.iter().map(|one| (one.wanted.server.name.as_str(), one.wanted.export.as_str())).collect();
        assert_eq!(found, [("srv", "/a"), ("fd00::1", "/b")]);
        assert_eq!(nothing[0].wanted.server.options, "vers=3,hard");
        let one = waiting(&names(volumes.clone(), Some(7)), &mounted(&table.mounts));
        assert_eq!(one.iter().map(|one| one.directory.as_str()).collect::<Vec<_>>(), ["pv-b"]);
        assert!(waiting(&names(volumes, None), &HashSet::new()).is_empty(), "its sandbox stands");
    }

    #[test]
    fn a_disk_that_a_pod_of_another_node_has_is_not_shared() {
        let disk = |held: Option<&str>| VolumeName {
            claim: Some("data".into()),
            origin: None,
            held: held.map(str::to_owned),
            ..volume("data", "", "", "")
        };
        let held = || vec![disk(Some("pod shop/web-1 on node node-b"))];
        let rows = not_shared(&names(held(), Some(7)));
        assert_eq!((rows.len(), rows[0].blocked, rows[0].why()), (1, true, "not_shared"));
        assert!(rows[0].advice.contains("ReadWriteMany") && !rows[0].advice.contains("anew"), "{rows:?}");
        assert!(rows[0].evidence.contains("Claim data") && rows[0].evidence.contains("on node node-b"), "{rows:?}");
        assert!(not_shared(&names(held(), None)).is_empty(), "it does not wait");
        assert!(not_shared(&names(vec![disk(None)], Some(7))).is_empty());
    }

    #[test]
    fn a_file_system_of_efs_is_asked_by_its_regions_name() {
        let volumes = || vec![volume("e", "fs-0123456789abcdef0:/data", "efs.csi.aws.com", "tls")];
        assert!(waiting(&names(volumes(), Some(7)), &HashSet::new()).is_empty(), "the region is not known");
        let known = names(volumes(), Some(7)).in_region(Some("eu-west-1".into()));
        let [one] = &waiting(&known, &HashSet::new())[..] else { panic!("one") };
        assert_eq!(one.wanted.server.name, "fs-0123456789abcdef0.efs.eu-west-1.amazonaws.com");
        assert!(one.wanted.server.efs && one.wanted.export == "/data");
    }
}
