//! Rescue requests: which pods would be healed by a fresh mount. The agent asks; the coordinator believes of it only what it
//! cannot read itself, and decides.

use super::node_mounts::RescueRequest;
use super::{text, uses};
use crate::pods::names::{PodNames, VolumeName};
use crate::snapshot::rfc3339 as time;
use crate::snapshot::{MountStatus, Snapshot};
use crate::verdict::State;

/// Longest text of a request.
const LONGEST: usize = 512;

/// One request for each volume of a pod on a dead mount whose gate is open.
///
/// `refreshed` is when the agent's loop made the snapshot: a loop that stands still refreshes nothing, and after 60 s its
/// requests are void. A pod without a name cannot be asked for, and one that is being deleted needs no eviction.
pub(super) fn of(snapshot: &Snapshot, names: &PodNames) -> Vec<RescueRequest> {
    let refreshed = time(snapshot.generated);
    let mut requests = Vec::new();
    for mount in snapshot.mounts.iter().filter(|mount| is_dead(mount)) {
        let Some(gate) = mount.gate.as_ref().and_then(|gate| gate.report.clone()) else { continue };
        for place in uses::places(mount, names) {
            let Some(pod) = names.pod(&place.uid).filter(|pod| !pod.terminating) else { continue };
            let named = pod.volume_in(&place.directory);
            // The kubelet mounts no directory of the node: a new pod would get just what the host has there.
            if named.is_some_and(VolumeName::is_of_the_node) {
                continue;
            }
            let volume = named.map_or(&place.directory, |volume| &volume.volume);
            let uid = if pod.api_uid.is_empty() { &place.uid } else { &pod.api_uid };
            requests.push(RescueRequest {
                namespace: text::word(&pod.namespace),
                pod: text::word(&pod.name),
                uid: text::word(uid),
                volume: text::word(volume),
                server: text::line(mount.origin.server.as_deref().unwrap_or_default(), LONGEST),
                export: text::line(mount.origin.export.as_deref().unwrap_or_default(), LONGEST),
                state: mount.state.to_string(),
                cause: uses::cause_of(mount, &place, names).map(|cause| cause.to_string()).unwrap_or_default(),
                since: time(mount.since),
                refreshed: refreshed.clone(),
                gate: gate.clone(),
            });
        }
    }
    requests
}

/// What a new pod heals, if its gate is open.
fn is_dead(mount: &MountStatus) -> bool {
    matches!(mount.state, State::Stale | State::Lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::node_mounts::{GateReport, GateRoot};
    use crate::pods::names::{PodName, VolumeOrigin};
    use crate::snapshot::{GateStatus, MountUser};
    use std::collections::HashMap;

    const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";

    fn snapshot(state: State, open: bool) -> Snapshot {
        let golden = include_str!("../../tests/fixtures/golden/snapshot.json");
        let mut snapshot: Snapshot = serde_json::from_str(golden).unwrap();
        snapshot.generated = 1_700_000_000.0;
        snapshot.mounts.truncate(1);
        let report = GateReport { root: GateRoot::Same, words: "the same".to_owned(), ..GateReport::default() };
        for mount in &mut snapshot.mounts {
            mount.state = state;
            mount.paths = vec![format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~nfs/pv-data")];
            mount.gate = Some(GateStatus { open, words: String::new(), report: open.then(|| report.clone()) });
        }
        snapshot
    }

    fn names(terminating: bool) -> PodNames {
        let volume = VolumeName { directory: "pv-data".into(), volume: "data".into(), ..VolumeName::default() };
        let pod = PodName {
            namespace: "shop".into(),
            name: "web-0".into(),
            terminating,
            volumes: vec![volume],
            ..PodName::default()
        };
        PodNames::new(HashMap::from([(UID.to_owned(), pod)]), true)
    }

    #[test]
    fn a_pod_on_a_dead_mount_with_an_open_gate_is_asked_for_by_its_names() {
        let requests = of(&snapshot(State::Stale, true), &names(false));
        let [request] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!(
            (request.namespace.as_str(), request.pod.as_str(), request.uid.as_str(), request.volume.as_str()),
            ("shop", "web-0", UID, "data")
        );
        assert_eq!((request.state.as_str(), request.refreshed.as_str()), ("stale", "2023-11-14T22:13:20Z"));
        assert_eq!(request.gate.root, GateRoot::Same);
    }

    #[test]
    fn what_only_containers_have_is_asked_for_and_a_directory_of_the_node_never() {
        let mut snapshot = snapshot(State::Lost, true);
        let user = MountUser { pod_uid: UID.to_owned(), volume: "data".to_owned(), ..MountUser::default() };
        for mount in &mut snapshot.mounts {
            (mount.paths, mount.users) = (Vec::new(), vec![user.clone()]);
        }
        assert_eq!(of(&snapshot, &names(false)).len(), 1);
        let mut pod = names(false).pod(UID).unwrap().clone();
        pod.volumes[0].origin = Some(VolumeOrigin::HostPath("/mnt/nfs".into()));
        assert!(of(&snapshot, &PodNames::new(HashMap::from([(UID.to_owned(), pod)]), true)).is_empty());
    }

    #[test]
    fn nothing_else_is_asked_for() {
        assert!(of(&snapshot(State::Stale, false), &names(false)).is_empty(), "the gate is closed");
        assert!(of(&snapshot(State::Hung, true), &names(false)).is_empty(), "it hangs");
        assert!(of(&snapshot(State::Stale, true), &names(true)).is_empty(), "the pod is being deleted");
        assert!(of(&snapshot(State::Stale, true), &PodNames::default()).is_empty(), "nobody knows its name");
    }
}
