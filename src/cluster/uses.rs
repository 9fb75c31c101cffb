//! Which pod sits on which mount, by the kubelet's paths.

use std::collections::{BTreeMap, BTreeSet};

use crate::pods::names::PodNames;
use crate::snapshot::{MountStatus, MountUser, MountVolume, Snapshot, UnixSeconds};
use crate::verdict::advice::{AdviceFacts, advice};
use crate::verdict::{Cause, State};

/// A pod's volume: the pod's UID and the volume's directory, as the node has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) uid: String,
    pub(super) directory: String,
}

/// What a pod's volume is like.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Use {
    pub(super) state: State,
    pub(super) cause: Option<Cause>,
    pub(super) since: UnixSeconds,
    pub(super) source: String,
    pub(super) advice: String,
    /// Labels of its target: mountpoint, source, fstype.
    pub(super) triple: [String; 3],
}

/// The pod and the volume's directory in a path below the kubelet's.
pub(super) fn place_of(path: &str) -> Option<Place> {
    let uid = crate::mounts::kubelet::pod_uid(path.as_ref())?;
    let mut words = path.split('/').skip_while(|word| *word != uid).skip(1);
    let directory = match words.next()? {
        // volumes/<plugin>/<volume>, volumeDevices/<plugin>/<volume>
        "volumes" | "volumeDevices" => words.nth(1)?,
        // volume-subpaths/<volume>/<container>/<index>
        "volume-subpaths" => words.next()?,
        _ => return None,
    };
    (!directory.is_empty()).then(|| Place { uid, directory: directory.to_owned() })
}

/// The worst target of every pod's volume.
pub(super) fn of(snapshot: &Snapshot, names: &PodNames) -> BTreeMap<Place, Use> {
    let mut uses: BTreeMap<Place, Use> = BTreeMap::new();
    for mount in &snapshot.mounts {
        for place in places(mount, names) {
            let present = uses.get(&place);
            if present.is_none_or(|present| rank(present.state) < rank(mount.state)) {
                let found = use_of(mount, &place, names);
                uses.insert(place, found);
            }
        }
    }
    uses
}

/// The pods' volumes that lie on a target: by the kubelet's paths, and by what containers see.
pub(super) fn places(mount: &MountStatus, names: &PodNames) -> BTreeSet<Place> {
    let seen = mount.users.iter().filter(|user| !user.volume.is_empty()).map(|user| place_of_user(user, names));
    mount.paths.iter().filter_map(|path| place_of(path)).chain(seen).collect()
}

fn place_of_user(user: &MountUser, names: &PodNames) -> Place {
    // The snapshot may have the name of the specification; everything here goes by the directory.
    let volume = names.pod(&user.pod_uid).and_then(|pod| pod.volume(&user.volume));
    let directory = volume.map_or(&user.volume, |volume| &volume.directory).clone();
    Place { uid: user.pod_uid.clone(), directory }
}

/// Why a volume is not well: what is told of its containers alone, else the mount's cause.
pub(super) fn cause_of(mount: &MountStatus, place: &Place, names: &PodNames) -> Option<Cause> {
    let own = mount.users.iter().filter_map(|user| Some((user, user.cause?)));
    let own = own.map(|(user, cause)| (place_of_user(user, names), cause)).find(|(of, _)| of == place);
    own.map(|(_, cause)| cause).or(mount.cause)
}

/// Volumes of one mount that are listed.
const MAX_VOLUMES: usize = 64;

/// Puts beside each mount what the cluster calls the volumes that lie on it, and beside each volume that is waited for.
pub fn name_volumes(snapshot: &mut Snapshot, names: &PodNames) {
    for mount in &mut snapshot.mounts {
        let named = |place: &Place| {
            let pod = names.pod(&place.uid)?;
            let volume = pod.volume_in(&place.directory)?;
            Some(MountVolume {
                persistent_volume: volume.persistent_volume.clone()?,
                claim: volume.claim.clone()?,
                namespace: pod.namespace.clone(),
                storage_class: volume.storage_class.clone(),
            })
        };
        let volumes: BTreeSet<MountVolume> = places(mount, names).iter().filter_map(named).collect();
        mount.volumes = volumes.into_iter().take(MAX_VOLUMES).collect();
    }
    for row in &mut snapshot.pending {
        let Some(pod) = names.pod(&row.pod_uid) else { continue };
        row.namespace.clone_from(&pod.namespace);
        row.pod.clone_from(&pod.name);
        let Some(volume) = pod.volume_in(&row.volume) else { continue };
        row.persistent_volume.clone_from(&volume.persistent_volume);
        row.claim.clone_from(&volume.claim);
        row.volume.clone_from(&volume.volume);
    }
}

fn use_of(mount: &MountStatus, place: &Place, names: &PodNames) -> Use {
    let cause = cause_of(mount, place, names);
    let advice = match cause {
        Some(own) if cause != mount.cause => {
            let facts = AdviceFacts {
                mountpoint: &mount.mountpoint,
                server: mount.origin.server.as_deref(),
                export: mount.origin.export.as_deref(),
                port: mount.origin.port,
                fstype: &mount.fstype,
            };
            advice(mount.state, own, &facts)
        }
        _ => mount.advice.clone(),
    };
    Use {
        state: mount.state,
        cause,
        since: mount.since,
        source: mount.source.clone(),
        advice,
        triple: [mount.mountpoint.clone(), mount.source.clone(), mount.fstype.clone()],
    }
}

/// Worse is higher; what cannot be told is better than what is known to be bad.
pub(super) fn rank(state: State) -> u8 {
    match state {
        State::Healthy => 0,
        State::Unknown => 1,
        State::Slow => 2,
        State::Readonly => 3,
        State::Full => 4,
        State::Denied => 5,
        State::Error => 6,
        State::Hung => 7,
        State::Stale => 8,
        State::Lost => 9,
        State::Corrupt => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_for_which_the_host_did_something_else_is_told_with_its_own_cause() {
        let golden = include_str!("../../tests/fixtures/golden/snapshot.json");
        let mut snapshot: Snapshot = serde_json::from_str(golden).unwrap();
        snapshot.mounts.truncate(1);
        let mount = &mut snapshot.mounts[0];
        (mount.state, mount.cause, mount.paths) = (State::Lost, Some(Cause::RemountedOnHost), Vec::new());
        let user = |uid: &str, cause| MountUser {
            pod_uid: uid.to_owned(),
            volume: "pv-data".to_owned(),
            cause,
            ..MountUser::default()
        };
        mount.users = vec![user("uid-0", None), user("uid-1", Some(Cause::UnmountedOnHost))];
        assert!(mount.users[1].words().ends_with(", unmounted_on_host"), "{}", mount.users[1].words());
        let found = of(&snapshot, &PodNames::default());
        let told = |uid: &str| &found[&Place { uid: uid.to_owned(), directory: "pv-data".to_owned() }];
        assert_eq!((told("uid-0").state, told("uid-0").cause), (State::Lost, Some(Cause::RemountedOnHost)));
        assert_eq!((told("uid-1").state, told("uid-1").cause), (State::Lost, Some(Cause::UnmountedOnHost)));
        assert!(told("uid-1").advice.contains("unmounted on the host"), "{}", told("uid-1").advice);
    }

    #[test]
    fn volumes_and_their_sub_paths_are_one_place() {
        const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";
        let place =
            |below: &str| place_of(&format!("/var/lib/kubelet/pods/{UID}/{below}")).map(|place| place.directory);
        for below in
            ["volumes/kubernetes.io~nfs/pv-1", "volumes/kubernetes.io~csi/pv-1/mount", "volume-subpaths/pv-1/app/0"]
        {
            assert_eq!(place(below).as_deref(), Some("pv-1"), "{below}");
        }
        assert_eq!(place("etc-hosts"), None);
        assert_eq!(place("volumes/kubernetes.io~nfs"), None);
    }
}
