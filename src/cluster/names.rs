//! Pods, claims and volumes as the agent's loop knows them ([`PodNames`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::api_pod::{ApiPod, REGION, Volume};
use super::objects::{Annotated, Objects, VolumeSpec};
use super::pods::Pods;
use crate::pods::names::{
    ContainerName, PodName, PodNames, Reading, RemedyWords, VolumeName, VolumeOrigin, WantedMount,
};
use crate::remedy::permission::ANNOTATION;
use crate::snapshot::UnixSeconds;

/// Everything that is known by now.
pub(super) fn names(pods: &Pods, objects: &Objects) -> PodNames {
    let named = |pod: &ApiPod| (pod.node_uid().to_owned(), name_of(pod, objects));
    let pods_by_uid: HashMap<String, PodName> = pods.pods.values().map(|pod| named(pod)).collect();
    let region = objects.node.as_ref().and_then(|node| node.metadata.labels.0.get(REGION).cloned());
    PodNames::new(pods_by_uid, pods.complete).in_region(region)
}

fn name_of(pod: &ApiPod, objects: &Objects) -> PodName {
    let meta = &pod.metadata;
    PodName {
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        api_uid: meta.uid.clone(),
        terminating: meta.deletion_timestamp.is_some(),
        deletion: meta.deletion_timestamp.as_deref().and_then(unix),
        grace: meta
            .deletion_grace_period_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
        phase: pod.status.phase.clone(),
        controller: pod.controller().to_owned(),
        remedy: RemedyWords {
            pod: meta.annotations.0.get(ANNOTATION).cloned(),
            namespace: remedy_of(objects.namespaces.get(&meta.namespace)),
            node: remedy_of(objects.node.as_ref()),
        },
        waits_since: pod.waits_since(),
        volumes: pod.spec.volumes.iter().map(|volume| volume_of(pod, volume, objects)).collect(),
        containers: pod
            .statuses()
            .filter_map(|status| {
                let (_, id) = status.container_id.split_once("://")?;
                let running = status.state.running.is_some();
                Some(ContainerName { id: id.to_owned(), name: status.name.clone(), running })
            })
            .collect(),
        mounts: pod
            .containers()
            .flat_map(|container| container.volume_mounts.iter().map(move |mount| (container, mount)))
            .map(|(container, mount)| WantedMount {
                container: container.name.clone(),
                volume: mount.name.clone(),
                path: mount.mount_path.clone().into(),
                sub_path: if mount.sub_path_expr.is_empty() {
                    mount.sub_path.clone()
                } else {
                    mount.sub_path_expr.clone()
                },
                read_only: mount.read_only,
            })
            .collect(),
    }
}

/// What the annotation of an object says that is read apart from the pod.
fn remedy_of(object: Option<&Arc<Annotated>>) -> Reading {
    object.map_or(Reading::Unread, |object| Reading::Read(object.metadata.annotations.0.get(ANNOTATION).cloned()))
}

/// RFC 3339 as seconds since the epoch.
pub(super) fn unix(text: &str) -> Option<UnixSeconds> {
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}

fn volume_of(pod: &ApiPod, volume: &Volume, objects: &Objects) -> VolumeName {
    let mut name = VolumeName {
        directory: volume.name.clone(),
        volume: volume.name.clone(),
        claim: pod.claim_of(volume),
        ..VolumeName::default()
    };
    let Some(claim) = &name.claim else {
        name.origin = own_origin(volume);
        return name;
    };
    let Some(claim) = objects.claim(&pod.metadata.namespace, claim) else { return name };
    name.storage_class.clone_from(&claim.spec.storage_class_name);
    let Some((persistent, of_claim)) = objects.volume_of(claim) else { return name };
    persistent.clone_into(&mut name.directory);
    name.persistent_volume = Some(persistent.to_owned());
    if let Some(volume) = of_claim {
        name.origin = claimed_origin(&volume.spec);
        name.mount_options = volume.spec.mount_options.join(",");
        let claim = (pod.metadata.namespace.clone(), name.claim.clone().unwrap_or_default());
        name.held = objects.holders.get(&claim).filter(|_| pod.waits_since().is_some()).cloned();
        name.storage_class = name.storage_class.or_else(|| volume.spec.storage_class_name.clone());
    }
    name.storage_class = name.storage_class.filter(|class| !class.is_empty());
    name
}

fn own_origin(volume: &Volume) -> Option<VolumeOrigin> {
    if let Some((source, fstype)) = volume.network.source() {
        return (!source.is_empty()).then_some(VolumeOrigin::Network { source, fstype });
    }
    match &volume.host_path {
        Some(path) => Some(VolumeOrigin::HostPath(path.path.clone().into())),
        None => Some(VolumeOrigin::Local),
    }
}

/// A CSI volume of which nothing says that it lies on the network: a disk, as far as anybody can tell.
pub(super) fn is_disk(spec: &VolumeSpec) -> bool {
    let shared =
        ["nfs", "efs", "smb", "cifs", "filestore", "fsx", "file", "cephfs", "gluster", "lustre", "juicefs", "fuse"];
    let driver = spec.network.csi.as_ref().map_or("", |csi| csi.driver.as_str());
    claimed_origin(spec).is_none() && !shared.iter().any(|word| driver.contains(word))
}

/// A CSI volume may be a disk as well as a share: only a source that says where it leads is on the network for sure.
fn claimed_origin(spec: &VolumeSpec) -> Option<VolumeOrigin> {
    if let Some(csi) = &spec.network.csi {
        let (source, fstype) = spec.network.source()?;
        return (source.contains(":/") || csi.driver.contains("efs"))
            .then_some(VolumeOrigin::Network { source, fstype });
    }
    if let Some((source, fstype)) = spec.network.source() {
        return Some(VolumeOrigin::Network { source, fstype });
    }
    match &spec.host_path {
        Some(path) => Some(VolumeOrigin::HostPath(path.path.clone().into())),
        None => Some(VolumeOrigin::Local),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::objects as fixture;

    #[test]
    fn a_recorded_pod_gets_the_names_of_its_claim_and_volume() {
        let pod: ApiPod = serde_json::from_value(fixture::pod("rec", "app-0", "uid-1", "n")).unwrap();
        let claim = serde_json::from_value(fixture::claim("rec", "data", "rec-pv")).unwrap();
        let volume =
            serde_json::from_value(fixture::volume("rec-pv", "10.99.0.2", "/export", ("rec", "data"))).unwrap();
        let pods = Pods { pods: HashMap::from([("uid-1".into(), Arc::new(pod.trimmed()))]), complete: true };
        let early = names(&pods, &Objects::default());
        assert_eq!(early.pod("uid-1").unwrap().volumes[0].directory, "data", "the volume is not known yet");
        let objects = Objects {
            claims: HashMap::from([(("rec".into(), "data".into()), Arc::new(claim))]),
            volumes: HashMap::from([("rec-pv".into(), Arc::new(volume))]),
            ..Objects::default()
        };
        let known = names(&pods, &objects);
        let pod = known.pod("uid-1").unwrap();
        let volume = pod.volume_in("rec-pv").unwrap();
        assert_eq!((volume.volume.as_str(), volume.claim.as_deref()), ("data", Some("data")));
        let network = VolumeOrigin::Network { source: "10.99.0.2:/export".into(), fstype: "nfs".into() };
        assert_eq!(volume.origin, Some(network));
        assert_eq!(pod.mounts.len(), 2);
        assert_eq!(pod.containers[0].id.len(), 64);
        assert!(known.is_complete() && !pod.terminating);
    }

    #[test]
    fn a_recorded_pod_in_terminating_has_what_a_release_asks_for() {
        let text = include_str!("../../tests/fixtures/api/pod-terminating.json");
        let recording: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut pod: ApiPod = serde_json::from_value(recording["response"]["body"].clone()).unwrap();
        pod.metadata.annotations.0.insert(ANNOTATION.into(), "unstick".into());
        let (uid, namespace) = (pod.metadata.uid.clone(), pod.metadata.namespace.clone());
        let pods = Pods { pods: HashMap::from([(uid.as_str().into(), Arc::new(pod))]), complete: true };
        let early = names(&pods, &Objects::default());
        let early = early.pod(&uid).unwrap();
        assert!(early.terminating && early.grace.is_some() && !early.phase.is_empty(), "{early:?}");
        assert!(early.deletion.is_some_and(|at| at > 1_700_000_000.0), "{:?}", early.deletion);
        assert_eq!(early.remedy.annotations(), None, "namespace and node were not read");
        let objects = Objects {
            namespaces: HashMap::from([(namespace, Arc::default())]),
            node: Some(Arc::default()),
            ..Objects::default()
        };
        let known = names(&pods, &objects);
        let words = &known.pod(&uid).unwrap().remedy;
        assert!(words.annotations().unwrap().asked().unstick);
    }

    #[test]
    fn static_pods_are_known_by_their_manifest() {
        let mut pod = fixture::pod("kube-system", "etcd-n", "api-uid", "n");
        pod["metadata"]["annotations"] = serde_json::json!({"kubernetes.io/config.hash": "hash"});
        let pod: ApiPod = serde_json::from_value(pod).unwrap();
        let pods = Pods { pods: HashMap::from([("api-uid".into(), Arc::new(pod))]), complete: true };
        let names = names(&pods, &Objects::default());
        assert_eq!(names.pod("hash").unwrap().api_uid, "api-uid");
        assert!(names.pod("api-uid").is_none());
    }
}
