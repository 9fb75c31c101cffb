//! Names for what the node alone knows by number: what the cluster's side tells the agent's loop about this node's pods.
//!
//! Whoever knows the API makes a whole [`PodNames`] and sends it as one value (`tokio::sync::watch`, an [`std::sync::Arc`]);
//! the loop only reads it. Without a cluster it stays empty, and everything works with UIDs. Nothing here is believed
//! about the node: which pod uses which mount is read from the kernel, names are only put beside it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::remedy::permission::Annotations;
use crate::snapshot::UnixSeconds;

/// This node's pods, by the UID that their directories and cgroups carry.
///
/// For static pods that is not the UID of the API object but the hash of their manifest (annotation
/// `kubernetes.io/config.hash`): the maker of this map keys by it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodNames {
    pods: HashMap<String, PodName>,
    complete: bool,
    region: Option<String>,
}

/// One pod as its API object has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID of the API object: differs from the key for static pods only.
    pub api_uid: String,
    /// It has a `deletionTimestamp`: its containers are not probed through any more.
    pub terminating: bool,
    /// When its grace period is over: its `deletionTimestamp` lies there (Kubernetes API, ObjectMeta). `None` where it is
    /// not being deleted, or the time cannot be read.
    pub deletion: Option<UnixSeconds>,
    /// How long its grace period is, once it is being deleted.
    pub grace: Option<Duration>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`. It does not say whether processes are left.
    pub phase: String,
    /// Kind of the controller that made it (`StatefulSet`); empty for a bare pod.
    pub controller: String,
    /// What `mountwarden.io/remedy` says on it, its namespace and its node.
    pub remedy: RemedyWords,
    /// Since when it waits for its volumes, by the kubelet's clock in seconds since the epoch; `None` once something shows
    /// that they are mounted (a sandbox, a container, a pulled image).
    pub waits_since: Option<u64>,
    /// Volumes that lie on the network, or may.
    pub volumes: Vec<VolumeName>,
    /// Containers that the status knows, init and ephemeral ones too.
    pub containers: Vec<ContainerName>,
    /// What the specification wants to see mounted.
    pub mounts: Vec<WantedMount>,
}

/// The annotation `mountwarden.io/remedy` at the three places where it may stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemedyWords {
    /// The pod's; `None`: it has none.
    pub pod: Option<String>,
    /// Its namespace's.
    pub namespace: Reading,
    /// Its node's.
    pub node: Reading,
}

/// An annotation of an object that is read apart from the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reading {
    /// The object was not read yet: nothing may be concluded.
    #[default]
    Unread,
    /// It was read; `None`: it has no such annotation.
    Read(Option<String>),
}

impl RemedyWords {
    /// All three; `None` while one of the objects was not read.
    #[must_use]
    pub fn annotations(&self) -> Option<Annotations<'_>> {
        let (Reading::Read(namespace), Reading::Read(node)) = (&self.namespace, &self.node) else { return None };
        Some(Annotations { pod: self.pod.as_deref(), namespace: namespace.as_deref(), node: node.as_deref() })
    }
}

/// One volume of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeName {
    /// Name of its directory on the node: the PersistentVolume's where there is one, otherwise the volume's own name.
    pub directory: String,
    /// Name in the pod's specification.
    pub volume: String,
    /// Claim in the pod's namespace.
    pub claim: Option<String>,
    /// PersistentVolume.
    pub persistent_volume: Option<String>,
    /// Its class.
    pub storage_class: Option<String>,
    /// Where it comes from, as far as the specification says it. `None`: unknown (a CSI driver's own business).
    pub origin: Option<VolumeOrigin>,
    /// `mountOptions` of the PersistentVolume, as mount(8) takes them.
    pub mount_options: String,
    /// The volume is for one node at a time, the pod waits for it, and this pod of another node has it (`pod shop/a on node b`).
    pub held: Option<String>,
}

impl VolumeName {
    /// It lies on the node itself: a new pod would get just what the node has there.
    #[must_use]
    pub fn is_of_the_node(&self) -> bool {
        matches!(self.origin, Some(VolumeOrigin::HostPath(_) | VolumeOrigin::Local))
    }
}

/// Where a volume comes from, by its specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeOrigin {
    /// A network filesystem: source as a mount table would show it (`srv:/export`), and its type (`nfs`).
    Network {
        /// `srv:/export`.
        source: String,
        /// `nfs`, `cephfs`, `azure_file`, ... or the name of a CSI driver.
        fstype: String,
    },
    /// A directory of the node.
    HostPath(PathBuf),
    /// Anything else that lies on this node: emptyDir, ConfigMap, a disk.
    Local,
}

/// A container's name by the runtime's id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerName {
    /// The id without its scheme (`containerd://`).
    pub id: String,
    /// Name in the pod's specification.
    pub name: String,
    /// It runs, by the status.
    pub running: bool,
}

/// A `volumeMount` of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedMount {
    /// Name of the container.
    pub container: String,
    /// Name of the volume in the pod's specification.
    pub volume: String,
    /// Path in the container.
    pub path: PathBuf,
    /// Directory of the volume that is mounted; empty for the whole of it.
    pub sub_path: String,
    /// Asked for read-only.
    pub read_only: bool,
}

impl PodNames {
    /// The pods of this node. `complete`: a fresh list, so that a pod which is not in it does not exist.
    #[must_use]
    pub fn new(pods: HashMap<String, PodName>, complete: bool) -> PodNames {
        PodNames { pods, complete, region: None }
    }

    /// The same, on a node in this region of its cloud.
    #[must_use]
    pub fn in_region(self, region: Option<String>) -> PodNames {
        PodNames { region, ..self }
    }

    /// The node's region, where its labels name one: names of EFS file systems depend on it.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// The pod whose directories and cgroups carry `uid`.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<&PodName> {
        self.pods.get(uid)
    }

    /// All pods with their UIDs, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PodName)> {
        self.pods.iter().map(|(uid, pod)| (uid.as_str(), pod))
    }

    /// The API server gave a whole list and has been heard of since: a UID that is not in it has no pod.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The pod is being deleted. False where nobody knows.
    #[must_use]
    pub fn terminating(&self, uid: &str) -> bool {
        self.pod(uid).is_some_and(|pod| pod.terminating)
    }
}

impl PodName {
    /// `namespace/name`.
    #[must_use]
    pub fn full(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The volume with this directory on the node.
    #[must_use]
    pub fn volume_in(&self, directory: &str) -> Option<&VolumeName> {
        self.volumes.iter().find(|volume| volume.directory == directory)
    }

    /// The volume of this name in the specification.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&VolumeName> {
        self.volumes.iter().find(|volume| volume.volume == name)
    }

    /// The name of the container with the runtime's `id`.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<&str> {
        self.containers.iter().find(|container| container.id == id).map(|container| container.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_told_is_not_known_and_nothing_is_terminating() {
        let names = PodNames::default();
        assert_eq!(names.pod("a"), None);
        assert!(!names.terminating("a") && !names.is_complete());
    }

    #[test]
    fn what_was_not_read_is_not_taken_for_absent() {
        let mut words = RemedyWords { pod: Some("unstick".into()), ..RemedyWords::default() };
        assert_eq!(words.annotations(), None);
        words.namespace = Reading::Read(None);
        assert_eq!(words.annotations(), None, "the node was not read");
        words.node = Reading::Read(Some("none".into()));
        assert!(!words.annotations().unwrap().allowed().unstick, "the node says none");
        words.node = Reading::Read(None);
        assert!(words.annotations().unwrap().allowed().unstick);
    }

    #[test]
    fn volumes_are_found_by_either_name() {
        let volume = VolumeName { directory: "pvc-1".into(), volume: "data".into(), ..VolumeName::default() };
        let container = ContainerName { id: "ab".into(), name: "app".into(), running: true };
        let pod = PodName {
            namespace: "shop".into(),
            name: "web-0".into(),
            terminating: true,
            volumes: vec![volume],
            containers: vec![container],
            ..PodName::default()
        };
        let names = PodNames::new(HashMap::from([("uid".to_owned(), pod)]), true);
        let pod = names.pod("uid").unwrap();
        assert_eq!(pod.full(), "shop/web-0");
        assert_eq!(pod.volume_in("pvc-1"), pod.volume("data"));
        assert_eq!((pod.volume_in("data"), pod.container("ab"), pod.container("cd")), (None, Some("app"), None));
        assert!(names.terminating("uid"));
    }
}
