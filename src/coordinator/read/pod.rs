//! A pod of the API, as facts. Pure.

use k8s_openapi::api::core::v1::{PersistentVolumeSpec, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::annotation;
use crate::coordinator::facts::{Facts, Owner, OwnerKind, VolumeServer};
use crate::coordinator::time::Time;

/// The priority from which on a pod belongs to the system (`scheduling.SystemCriticalPriority`).
const SYSTEM_PRIORITY: i32 = 2_000_000_000;

const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";

/// Set by the kubelet on the API's image of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What the pod itself says; the rest is filled in by the reader.
pub(super) fn facts(pod: &Pod) -> Option<Facts> {
    let spec = pod.spec.as_ref()?;
    let metadata = &pod.metadata;
    let says = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name));
    let class = spec.priority_class_name.as_deref().unwrap_or_default();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let owner = owner(pod);
    Some(Facts {
        uid: metadata.uid.clone()?,
        node: spec.node_name.clone().unwrap_or_default(),
        created: created(pod)?,
        terminating: metadata.deletion_timestamp.is_some(),
        completed: matches!(phase, "Succeeded" | "Failed"),
        mirror: says(MIRROR).is_some() || controller(metadata).is_some_and(|owner| owner.kind == "Node"),
        owner,
        volume: None,
        local_data: true,
        safe_to_evict_denied: says(SAFE_TO_EVICT).is_some_and(|value| value == "false"),
        critical: class.starts_with("system-") || spec.priority.is_some_and(|value| value >= SYSTEM_PRIORITY),
        controller: controller(metadata).map(|owner| owner.uid.clone()).unwrap_or_default(),
        pod_annotation: annotation(metadata),
        namespace_annotation: None,
        node_annotation: None,
        budgets: Vec::new(),
        newest_sibling: created(pod)?,
    })
}

/// When the API server made it.
#[must_use]
pub fn created(pod: &Pod) -> Option<Time> {
    pod.metadata.creation_timestamp.as_ref().map(|time| Time(time.0.as_second()))
}

/// Whether its condition `Ready` is true.
#[must_use]
pub fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The owner that makes new ones.
pub(super) fn controller(object: &ObjectMeta) -> Option<&OwnerReference> {
    object.owner_references.as_deref()?.iter().find(|owner| owner.controller == Some(true))
}

/// Who stands behind the pod, by its controller.
pub(super) fn owner(pod: &Pod) -> Owner {
    let Some(owner) = controller(&pod.metadata) else {
        let name = pod.metadata.name.clone().unwrap_or_default();
        return Owner { kind: OwnerKind::None, workload: format!("Pod/{name}") };
    };
    let kind = match owner.kind.as_str() {
        "StatefulSet" => OwnerKind::StatefulSet,
        "DaemonSet" => OwnerKind::DaemonSet,
        "Job" | "CronJob" => OwnerKind::Job,
        "VirtualMachineInstance" | "VirtualMachine" => OwnerKind::VirtualMachine,
        _ => OwnerKind::Controller,
    };
    Owner { kind, workload: format!("{}/{}", owner.kind, owner.name) }
}

/// The claim behind a volume; that of a generic ephemeral volume is named after the pod.
pub(super) fn claim(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(claim.claim_name.clone());
    }
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", pod.metadata.name.as_deref()?, volume.name))
}

/// Which server a volume leads to; `None` for one that is not on a network.
pub(super) fn server(volume: &Volume, bound: Option<&PersistentVolumeSpec>) -> Option<VolumeServer> {
    if let Some(nfs) = &volume.nfs {
        return Some(VolumeServer::Named(nfs.server.clone()));
    }
    // A directory of the host may be a network mount there.
    if volume.csi.is_some() || volume.host_path.is_some() {
        return Some(VolumeServer::Unsaid);
    }
    let bound = bound?;
    if let Some(nfs) = &bound.nfs {
        return Some(VolumeServer::Named(nfs.server.clone()));
    }
    if let Some(csi) = &bound.csi {
        let attributes = csi.volume_attributes.as_ref();
        let named = attributes.and_then(|all| all.get("server")).filter(|_| csi.driver == "nfs.csi.k8s.io");
        return Some(named.map_or(VolumeServer::Unsaid, |server| VolumeServer::Named(server.clone())));
    }
    bound.local.is_none().then_some(VolumeServer::Unsaid)
}

/// Whether a volume holds data that the next pod, elsewhere, will not have. `asked`: it is the dead one itself.
pub(super) fn local_data(volume: &Volume, bound: Option<&PersistentVolumeSpec>, asked: bool) -> bool {
    if let Some(empty) = &volume.empty_dir {
        return empty.medium.as_deref() != Some("Memory");
    }
    if volume.host_path.is_some() {
        return !asked;
    }
    // Its claim ends with the pod.
    if volume.ephemeral.is_some() {
        return true;
    }
    bound.is_some_and(|bound| bound.local.is_some() || bound.host_path.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let recording: Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/api/pod-terminating.json")).unwrap();
        let mut pod = recording["response"]["body"].clone();
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    fn volume(value: Value) -> Volume {
        let mut value = value;
        value["name"] = json!("data");
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_recorded_pod_is_read() {
        let facts = facts(&pod(|_| ())).unwrap();
        assert_eq!((facts.uid.as_str(), facts.node.as_str()), ("c35f273c-b541-4dde-8895-8a47f4e9710b", "rec-node"));
        assert!(facts.terminating && !facts.completed && !facts.mirror && !facts.critical);
        assert_eq!(facts.owner, Owner { kind: OwnerKind::None, workload: "Pod/free-0".to_owned() });
        assert_eq!(Some(facts.created), Time::parse("2026-11-21T03:50:06Z"));
    }

    #[test]
    fn owners_are_told_apart() {
        let kind = |kind: &str| {
            let owner = json!([{"apiVersion": "v1", "kind": kind, "name": "x", "uid": "o", "controller": true}]);
            facts(&pod(|pod| pod["metadata"]["ownerReferences"] = owner)).unwrap()
        };
        assert_eq!(kind("ReplicaSet").owner.kind, OwnerKind::Controller);
        assert_eq!(kind("StatefulSet").owner.kind, OwnerKind::StatefulSet);
        assert_eq!(kind("DaemonSet").owner.kind, OwnerKind::DaemonSet);
        assert_eq!(kind("Job").owner.kind, OwnerKind::Job);
        assert_eq!(kind("VirtualMachineInstance").owner.kind, OwnerKind::VirtualMachine);
        assert!(kind("Node").mirror);
        assert_eq!(kind("ReplicaSet").controller, "o");
    }

    #[test]
    fn what_protects_a_pod_is_seen() {
        let mark = |name: &str, value: &str| {
            let marks = json!({name: value});
            facts(&pod(|pod| pod["metadata"]["annotations"] = marks)).unwrap()
        };
        assert!(mark("kubernetes.io/config.mirror", "x").mirror);
        assert!(mark(SAFE_TO_EVICT, "false").safe_to_evict_denied && !mark(SAFE_TO_EVICT, "true").safe_to_evict_denied);
        assert_eq!(mark("mountwarden.io/remedy", "none").pod_annotation.as_deref(), Some("none"));
        let critical = |key: &str, value: Value| facts(&pod(|pod| pod["spec"][key] = value)).unwrap().critical;
        assert!(critical("priorityClassName", json!("system-node-critical")));
        assert!(critical("priority", json!(2_000_000_001)) && !critical("priority", json!(1000)));
        assert!(facts(&pod(|pod| pod["status"]["phase"] = json!("Failed"))).unwrap().completed);
    }

    #[test]
    fn network_volumes_say_their_server_where_they_can() {
        let bound = |value: Value| -> PersistentVolumeSpec { serde_json::from_value(value).unwrap() };
        let named = |server: &str| Some(VolumeServer::Named(server.to_owned()));
        assert_eq!(server(&volume(json!({"nfs": {"server": "s", "path": "/"}})), None), named("s"));
        let claim = volume(json!({"persistentVolumeClaim": {"claimName": "c"}}));
        assert_eq!(server(&claim, Some(&bound(json!({"nfs": {"server": "s", "path": "/"}})))), named("s"));
        let csi = |driver: &str| {
            bound(json!({"csi": {"driver": driver, "volumeHandle": "h", "volumeAttributes": {"server": "s"}}}))
        };
        assert_eq!(server(&claim, Some(&csi("nfs.csi.k8s.io"))), named("s"));
        assert_eq!(server(&claim, Some(&csi("efs.csi.aws.com"))), Some(VolumeServer::Unsaid));
        let local = bound(json!({"local": {"path": "/d"}}));
        for (volume, bound) in [
            (volume(json!({"emptyDir": {}})), None),
            (volume(json!({"configMap": {"name": "c"}})), None),
            (claim.clone(), None),
            (claim.clone(), Some(&local)),
        ] {
            assert_eq!(server(&volume, bound), None, "{volume:?}");
        }
    }

    #[test]
    fn data_on_the_node_is_seen_and_that_of_the_dead_mount_does_not_count() {
        assert!(local_data(&volume(json!({"emptyDir": {}})), None, false));
        assert!(!local_data(&volume(json!({"emptyDir": {"medium": "Memory"}})), None, false));
        assert!(local_data(&volume(json!({"hostPath": {"path": "/d"}})), None, false));
        assert!(!local_data(&volume(json!({"hostPath": {"path": "/d"}})), None, true));
        let local: PersistentVolumeSpec = serde_json::from_value(json!({"local": {"path": "/d"}})).unwrap();
        assert!(local_data(&volume(json!({"persistentVolumeClaim": {"claimName": "c"}})), Some(&local), false));
        assert!(!local_data(&volume(json!({"secret": {"secretName": "c"}})), None, false));
        assert!(local_data(&volume(json!({"ephemeral": {}})), None, false));
        assert_eq!(claim(&pod(|_| ()), &volume(json!({"ephemeral": {}}))).as_deref(), Some("free-0-data"));
    }
}
