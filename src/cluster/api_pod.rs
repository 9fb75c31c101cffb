//! A pod as it is kept: the fields that are used and nothing else. Read straight from the answer, so that what is thrown
//! away (a spec of 20 kB) is never built.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Our annotations, and those by which static pods are told; of labels the Node's region.
const OURS: &str = "mountwarden.io/";
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
pub(super) const REGION: &str = "topology.kubernetes.io/region";

/// Annotations of ours that are kept of one object, and how much of each: nonsense must not cost memory.
const MAX_ANNOTATIONS: usize = 16;
const LONGEST_ANNOTATION: usize = 256;

/// Volumes and mounts that are kept of one pod.
const MAX_VOLUMES: usize = 256;
const MAX_MOUNTS: usize = 1024;

/// One pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct ApiPod {
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
    pub(super) status: PodStatus,
}

/// Identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
    pub(super) creation_timestamp: String,
    pub(super) deletion_timestamp: Option<String>,
    pub(super) deletion_grace_period_seconds: Option<i64>,
    pub(super) owner_references: Vec<Owner>,
    pub(super) annotations: Annotations,
}

/// Who made it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) controller: bool,
}

/// `mountwarden.io/*` and the hash of a static pod's manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Annotations(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ours;
        impl<'de> Visitor<'de> for Ours {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_unit<E>(self) -> Result<Annotations, E> {
                Ok(Annotations::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut kept = BTreeMap::new();
                while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    let ours = name.starts_with(OURS) || name == CONFIG_HASH || name == REGION;
                    if !ours || kept.len() >= MAX_ANNOTATIONS {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let mut value: String = map.next_value()?;
                    if value.len() > LONGEST_ANNOTATION {
                        let cut = (0..=LONGEST_ANNOTATION).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
                        value.truncate(cut);
                    }
                    value.shrink_to_fit();
                    kept.insert(name.into_owned(), value);
                }
                Ok(Annotations(kept))
            }
        }
        deserializer.deserialize_any(Ours)
    }
}

/// What it wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub(super) volumes: Vec<Volume>,
    pub(super) containers: Vec<Container>,
    pub(super) init_containers: Vec<Container>,
    pub(super) ephemeral_containers: Vec<Container>,
    #[serde(rename = "hostPID")]
    pub(super) host_pid: bool,
    pub(super) host_network: bool,
    pub(super) termination_grace_period_seconds: Option<i64>,
}

/// One container's mounts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) volume_mounts: Vec<VolumeMount>,
}

/// A `volumeMount`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct VolumeMount {
    pub(super) name: String,
    pub(super) mount_path: String,
    pub(super) sub_path: String,
    /// Expanded by the kubelet; the text here is not the path.
    pub(super) sub_path_expr: String,
    pub(super) read_only: bool,
}

/// A volume: its name and the sources that matter; all of them null for what lies on the node anyway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) persistent_volume_claim: Option<ClaimSource>,
    /// A generic ephemeral volume: its claim is named `<pod>-<volume>`.
    pub(super) ephemeral: Option<Empty>,
    pub(super) host_path: Option<PathSource>,
    pub(super) empty_dir: Option<EmptyDir>,
    #[serde(flatten)]
    pub(super) network: Network,
    pub(super) config_map: Option<Empty>,
    pub(super) secret: Option<Empty>,
    pub(super) projected: Option<Empty>,
    #[serde(rename = "downwardAPI")]
    pub(super) downward_api: Option<Empty>,
    pub(super) image: Option<Empty>,
}

/// Sources on the network, of pods and of PersistentVolumes alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Network {
    pub(super) nfs: Option<NfsSource>,
    pub(super) csi: Option<CsiSource>,
    pub(super) cephfs: Option<CephSource>,
    pub(super) glusterfs: Option<GlusterSource>,
    pub(super) azure_file: Option<AzureSource>,
    pub(super) flex_volume: Option<FlexSource>,
}

/// There, and nothing more is needed of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Empty {}

macro_rules! sources {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* })*) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub(super) struct $name { $(pub(super) $field: $type,)* })*
    };
}

sources! {
    /// `persistentVolumeClaim`.
    ClaimSource { claim_name: String }
    /// `hostPath`, `local`.
    PathSource { path: String }
    /// `emptyDir`.
    EmptyDir { medium: String }
    /// `nfs`.
    NfsSource { server: String, path: String }
    /// `csi`: inline in a pod, or of a PersistentVolume.
    CsiSource { driver: String, volume_handle: String, volume_attributes: BTreeMap<String, String> }
    /// `cephfs`.
    CephSource { monitors: Vec<String>, path: String }
    /// `glusterfs`.
    GlusterSource { endpoints: String, path: String }
    /// `azureFile`.
    AzureSource { share_name: String }
    /// `flexVolume`.
    FlexSource { driver: String }
}

/// What it is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    pub(super) phase: String,
    pub(super) start_time: Option<String>,
    pub(super) conditions: Conditions,
    pub(super) container_statuses: Vec<ContainerStatus>,
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    pub(super) ephemeral_container_statuses: Vec<ContainerStatus>,
}

/// Of its conditions only what is asked about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// `PodReadyToStartContainers` (Kubernetes 1.29) is True: the sandbox stands, and volumes are mounted before that.
    pub(super) sandbox: bool,
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Condition<'a> {
            #[serde(borrow, default)]
            r#type: std::borrow::Cow<'a, str>,
            #[serde(borrow, default)]
            status: std::borrow::Cow<'a, str>,
        }
        let all: Option<Vec<Condition<'_>>> = Deserialize::deserialize(deserializer)?;
        let is = |one: &Condition<'_>| one.r#type == "PodReadyToStartContainers" && one.status == "True";
        Ok(Conditions { sandbox: all.iter().flatten().any(is) })
    }
}

/// One container by the runtime's word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
    pub(super) state: ContainerState,
}

/// Of its states only what is asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct ContainerState {
    pub(super) running: Option<Empty>,
    pub(super) waiting: Option<Waiting>,
}

/// Why a container does not run yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Waiting {
    pub(super) reason: String,
}

impl ApiPod {
    /// The UID that its directories and cgroups carry: of a static pod the hash of its manifest (the kubelet names them
    /// before there is an API object).
    pub(super) fn node_uid(&self) -> &str {
        self.metadata.annotations.0.get(CONFIG_HASH).map_or(&self.metadata.uid, String::as_str)
    }

    /// Kind of the controller that made it; empty for a bare pod.
    pub(super) fn controller(&self) -> &str {
        let owner = self.metadata.owner_references.iter().find(|owner| owner.controller);
        owner.map_or("", |owner| owner.kind.as_str())
    }

    /// All containers of the specification.
    pub(super) fn containers(&self) -> impl Iterator<Item = &Container> {
        let spec = &self.spec;
        spec.init_containers.iter().chain(&spec.containers).chain(&spec.ephemeral_containers)
    }

    /// All containers of the status.
    pub(super) fn statuses(&self) -> impl Iterator<Item = &ContainerStatus> {
        let status = &self.status;
        status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .chain(&status.ephemeral_container_statuses)
    }

    /// It was accepted by this node's kubelet, and nothing shows yet that its volumes are mounted: no sandbox, no container,
    /// no image that was asked for. Since when, by the kubelet's clock.
    pub(super) fn waits_since(&self) -> Option<u64> {
        const BEFORE: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];
        let status = &self.status;
        let begun = |one: &ContainerStatus| {
            let reason = one.state.waiting.as_ref().map_or("", |waiting| &waiting.reason);
            !one.container_id.is_empty() || one.state.running.is_some() || !BEFORE.contains(&reason)
        };
        let waits = status.phase == "Pending"
            && self.metadata.deletion_timestamp.is_none()
            && !status.conditions.sandbox
            && !self.statuses().any(begun);
        let since = humantime::parse_rfc3339(status.start_time.as_deref().filter(|_| waits)?).ok()?;
        Some(since.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs())
    }

    /// The claim behind a volume.
    pub(super) fn claim_of(&self, volume: &Volume) -> Option<String> {
        match (&volume.persistent_volume_claim, volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(Empty {})) => Some(format!("{}-{}", self.metadata.name, volume.name)),
            (None, None) => None,
        }
    }

    /// Throws away what is not used: volumes that the kubelet makes by itself and the mounts of them.
    pub(super) fn trimmed(mut self) -> ApiPod {
        self.spec.volumes.retain(|volume| !volume.is_made_by_the_kubelet());
        self.spec.volumes.truncate(MAX_VOLUMES);
        self.spec.volumes.shrink_to_fit();
        let names: Vec<String> = self.spec.volumes.iter().map(|volume| volume.name.clone()).collect();
        let mut left = MAX_MOUNTS;
        let spec = &mut self.spec;
        for container in
            spec.init_containers.iter_mut().chain(&mut spec.containers).chain(&mut spec.ephemeral_containers)
        {
            container.volume_mounts.retain(|mount| names.contains(&mount.name));
            container.volume_mounts.truncate(left);
            container.volume_mounts.shrink_to_fit();
            left -= container.volume_mounts.len();
        }
        self.metadata.owner_references.retain(|owner| owner.controller);
        self.metadata.owner_references.truncate(1);
        self
    }
}

impl Volume {
    fn is_made_by_the_kubelet(&self) -> bool {
        [self.config_map, self.secret, self.projected, self.downward_api, self.image].iter().any(Option::is_some)
    }
}

impl Network {
    /// Source as a mount table would show it, and its type or driver.
    pub(super) fn source(&self) -> Option<(String, String)> {
        if let Some(nfs) = &self.nfs {
            return Some((format!("{}:{}", nfs.server, nfs.path), "nfs".to_owned()));
        }
        if let Some(csi) = &self.csi {
            return Some((csi.source(), csi.driver.clone()));
        }
        if let Some(ceph) = &self.cephfs {
            let path = if ceph.path.is_empty() { "/" } else { &ceph.path };
            return Some((format!("{}:{path}", ceph.monitors.join(",")), "cephfs".to_owned()));
        }
        if let Some(gluster) = &self.glusterfs {
            return Some((format!("{}:{}", gluster.endpoints, gluster.path), "glusterfs".to_owned()));
        }
        if let Some(azure) = &self.azure_file {
            return Some((azure.share_name.clone(), "azure_file".to_owned()));
        }
        self.flex_volume.as_ref().map(|flex| (String::new(), flex.driver.clone()))
    }
}

impl CsiSource {
    /// `server:/share` where the driver says so (csi-driver-nfs, csi-driver-smb), `fs-...:/` for EFS, else its handle.
    fn source(&self) -> String {
        let of = |name: &str| self.volume_attributes.get(name).filter(|text| !text.is_empty());
        if let (Some(server), Some(share)) = (of("server"), of("share")) {
            return format!("{server}:{share}");
        }
        if let Some(source) = of("source") {
            return source.clone();
        }
        // EFS: `fs-0123[:path][:access point]` (its driver's README).
        match self.volume_handle.split_once(':') {
            None if self.volume_handle.starts_with("fs-") => format!("{}:/", self.volume_handle),
            Some((system, rest)) if system.starts_with("fs-") => {
                let path = rest.split(':').next().filter(|path| !path.is_empty()).unwrap_or("/");
                format!("{system}:{path}")
            }
            _ => self.volume_handle.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(index: usize) -> ApiPod {
        let text = include_str!("../../tests/fixtures/api/pods-list-by-node.json");
        let recording: serde_json::Value = serde_json::from_str(text).unwrap();
        let pod: ApiPod = serde_json::from_value(recording["response"]["body"]["items"][index].clone()).unwrap();
        pod.trimmed()
    }

    #[test]
    fn a_recorded_pod_is_kept_with_its_claim_and_mounts_only() {
        let pod = recorded(0);
        assert_eq!((pod.metadata.namespace.as_str(), pod.metadata.name.as_str()), ("rec", "app-0"));
        assert_eq!(pod.spec.volumes.len(), 1, "the token's volume is left out");
        assert_eq!(pod.claim_of(&pod.spec.volumes[0]).as_deref(), Some("data"));
        let mounts: Vec<(&str, &str)> = pod
            .containers()
            .flat_map(|container| &container.volume_mounts)
            .map(|mount| (mount.mount_path.as_str(), mount.sub_path.as_str()))
            .collect();
        assert_eq!(mounts, [("/data", ""), ("/sub", "a/b")]);
        assert!(pod.statuses().next().unwrap().container_id.starts_with("containerd://abab"));
        assert_eq!(pod.node_uid(), pod.metadata.uid);
    }

    #[test]
    fn only_our_annotations_are_kept_and_bounded() {
        let text = format!(
            r#"{{"metadata": {{"annotations": {{"x": "{0}", "mountwarden.io/remedy": "{0}",
            "kubernetes.io/config.hash": "abc"}}}}}}"#,
            "ä".repeat(300)
        );
        let pod: ApiPod = serde_json::from_str(&text).unwrap();
        assert_eq!(pod.metadata.annotations.0.len(), 2);
        assert_eq!(pod.metadata.annotations.0["mountwarden.io/remedy"].len(), LONGEST_ANNOTATION);
        assert_eq!(pod.node_uid(), "abc");
        let none: ApiPod = serde_json::from_str(r#"{"metadata": {"annotations": null}}"#).unwrap();
        assert!(none.metadata.annotations.0.is_empty());
    }

    #[test]
    fn a_pod_waits_for_its_volumes_until_something_shows_that_they_are_there() {
        let waits = |status: serde_json::Value| {
            let pod = serde_json::json!({"metadata": {}, "spec": {}, "status": status});
            serde_json::from_value::<ApiPod>(pod).unwrap().waits_since()
        };
        let start = "2026-11-21T03:00:00Z";
        let waiting = |reason: &str| {
            serde_json::json!({"phase": "Pending", "startTime": start,
            "conditions": [{"type": "PodReadyToStartContainers", "status": "False"}, {"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": reason}}}]})
        };
        assert_eq!(waits(waiting("ContainerCreating")), Some(1_795_230_000));
        assert_eq!(waits(waiting("PodInitializing")), Some(1_795_230_000), "an init container waits");
        assert_eq!(waits(waiting("ErrImagePull")), None, "volumes are mounted before images are pulled");
        let mut sandbox = waiting("ContainerCreating");
        sandbox["conditions"][0]["status"] = "True".into();
        assert_eq!(waits(sandbox), None, "and before the sandbox is made");
        assert_eq!(waits(serde_json::json!({"phase": "Pending"})), None, "no kubelet has seen it");
        assert_eq!(waits(serde_json::json!({"phase": "Running", "startTime": start})), None);
        let created = serde_json::json!({"phase": "Pending", "startTime": start, "conditions": null,
            "initContainerStatuses": [{"containerID": "containerd://a", "state": {"terminated": {}}}]});
        assert_eq!(waits(created), None);
        assert_eq!(recorded(0).waits_since(), None);
    }

    #[test]
    fn two_hundred_volumes_are_kept_and_more_than_a_pod_can_have_are_not() {
        let pod = |volumes: usize| -> ApiPod {
            let name = |index: usize| format!("v{index}");
            let mounts = |index| serde_json::json!({"name": name(index), "mountPath": format!("/mnt/{index}")});
            let pod = serde_json::json!({"metadata": {}, "spec": {
                "volumes": (0..volumes).map(|at| serde_json::json!({"name": name(at), "nfs": {"server": "s", "path": "/"}}))
                    .collect::<Vec<_>>(),
                "containers": (0..8).map(|_| serde_json::json!({"name": "c", "volumeMounts":
                    (0..volumes).map(mounts).collect::<Vec<_>>()})).collect::<Vec<_>>(),
            }});
            serde_json::from_value::<ApiPod>(pod).unwrap().trimmed()
        };
        let mounts = |pod: &ApiPod| pod.containers().map(|container| container.volume_mounts.len()).sum::<usize>();
        assert_eq!(pod(200).spec.volumes.len(), 200);
        let many = pod(5_000);
        assert_eq!((many.spec.volumes.len(), mounts(&many)), (MAX_VOLUMES, MAX_MOUNTS));
    }

    #[test]
    fn sources_read_like_those_of_a_mount_table() {
        for (spec, source, fstype) in [
            (r#"{"nfs": {"server": "srv", "path": "/a"}}"#, "srv:/a", "nfs"),
            (r#"{"csi": {"driver": "efs.csi.aws.com", "volumeHandle": "fs-01"}}"#, "fs-01:/", "efs.csi.aws.com"),
            (
                r#"{"csi": {"driver": "efs.csi.aws.com", "volumeHandle": "fs-01::fsap-2"}}"#,
                "fs-01:/",
                "efs.csi.aws.com",
            ),
            (r#"{"csi": {"driver": "efs.csi.aws.com", "volumeHandle": "fs-01:/d"}}"#, "fs-01:/d", "efs.csi.aws.com"),
            (
                r#"{"csi": {"driver": "nfs.csi.k8s.io", "volumeHandle": "x", "volumeAttributes": {"server": "s", "share": "/e"}}}"#,
                "s:/e",
                "nfs.csi.k8s.io",
            ),
        ] {
            let network: Network = serde_json::from_str(spec).unwrap();
            assert_eq!(network.source(), Some((source.to_owned(), fstype.to_owned())), "{spec}");
        }
    }
}
