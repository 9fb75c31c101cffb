use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::pods::cgroup::Owner;
use crate::pods::namespaces::Holder;

fn volume(name: &str, claim: Option<&str>, origin: VolumeOrigin) -> VolumeName {
    VolumeName { volume: name.into(), claim: claim.map(str::to_owned), origin: Some(origin), ..VolumeName::default() }
}

/// A pod with one container that has each of its volumes at `/NAME`, by this sub-path.
fn pod(namespace: &str, volumes: Vec<VolumeName>, sub_path: &str) -> PodName {
    let mount = |volume: &VolumeName| WantedMount {
        container: "app".into(),
        volume: volume.volume.clone(),
        path: format!("/{}", volume.volume).into(),
        sub_path: sub_path.into(),
        read_only: false,
    };
    PodName { namespace: namespace.into(), mounts: volumes.iter().map(mount).collect(), volumes, ..PodName::default() }
}

fn directory() -> VolumeName {
    volume("data", None, VolumeOrigin::HostPath("/mnt/data".into()))
}

fn names(pods: [PodName; 2]) -> PodNames {
    PodNames::new(pods.into_iter().enumerate().map(|(index, pod)| (format!("uid-{index}"), pod)).collect(), true)
}

/// What these two pods are meant to share, in words.
fn shared(pods: [PodName; 2]) -> Vec<String> {
    commons(&names(pods)).iter().map(Common::words).collect()
}

#[test]
fn pods_share_what_their_specifications_name_alike() {
    let one = |namespace: &str| pod(namespace, vec![directory()], "");
    assert_eq!(shared([one("shop"), one("shop")]), ["hostPath /mnt/data"]);
    assert!(shared([one("shop"), one("bank")]).is_empty(), "they are nothing to each other");
    let below = |path: &str| pod("shop", vec![directory()], path);
    assert_eq!(shared([below("a"), below("a")]), ["hostPath /mnt/data, directory a"]);
    assert!(shared([below("a"), below("b")]).is_empty());
    assert!(shared([below("$(POD)"), below("$(POD)")]).is_empty(), "it leads elsewhere in each pod");
    let claim = |name: &str| pod("shop", vec![volume("data", Some(name), VolumeOrigin::Local)], "");
    assert_eq!(shared([claim("files"), claim("files")]), ["claim files"]);
    assert!(shared([claim("files-0"), claim("files-1")]).is_empty());
    let scratch = || pod("shop", vec![volume("data", None, VolumeOrigin::Local)], "");
    assert!(shared([scratch(), scratch()]).is_empty(), "an emptyDir is each pod's own");
    assert!(shared([one("shop"), PodName { terminating: true, ..one("shop") }]).is_empty());
}

const AT: fn(u64) -> Now = Duration::from_secs;

fn reading(second: u64) -> Reading {
    Reading { asked: AT(second), answered: AT(second) + Duration::from_millis(500) }
}

fn seen() -> Seen {
    let holder = Holder::Of(Arc::new(Owner::Other("a container".into())));
    Seen::new(holder, Now::ZERO)
}

fn row(mount: u64, network: bool) -> PlaceRow {
    let fstype = if network { "nfs4" } else { "ext4" };
    PlaceRow { index: 0, mount, network, fstype: fstype.into(), source: b"srv:/x".to_vec() }
}

/// How many pairs there are of two containers with these readings: second, and on the network or not.
fn apart(first: &[(u64, bool)], second: &[(u64, bool)]) -> usize {
    let pods = names([pod("shop", vec![directory()], ""), pod("shop", vec![directory()], "")]);
    let compared = compared(pods.pod("uid-0").unwrap(), "app", &commons(&pods));
    assert_eq!(compared.len(), 1);
    let one = |pid: i32, readings: &[(u64, bool)]| {
        let mut seen = seen();
        for (second, network) in readings {
            seen.take_places(&compared, vec![row(u64::from(*network), *network)], reading(*second));
        }
        (Process { pid, start: 1 }, seen)
    };
    pairs(&HashMap::from([one(1, first), one(2, second)])).len()
}

#[test]
fn containers_are_apart_only_where_there_was_one_moment_at_which_both_were_so() {
    let (disk, share) = (false, true);
    assert_eq!(apart(&[(1, disk)], &[(1, share)]), 0, "either may have changed since");
    assert_eq!(apart(&[(1, disk), (60, disk)], &[(2, share), (60, share)]), 1);
    assert_eq!(apart(&[(1, share), (60, share)], &[(2, disk), (60, disk)]), 1);
    // The host's mount came between the two looks, and reached both.
    assert_eq!(apart(&[(1, disk), (60, disk)], &[(61, share), (120, share)]), 0);
    assert_eq!(apart(&[(1, disk), (60, disk), (120, share)], &[(61, share), (120, share)]), 0);
    assert_eq!(apart(&[(1, share), (60, share)], &[(1, share), (60, share)]), 0);
    assert_eq!(apart(&[(1, disk), (60, disk)], &[(1, disk), (60, disk)]), 0);
}

#[test]
fn an_unchanged_table_confirms_what_it_had() {
    let pods = names([pod("shop", vec![directory()], ""), pod("shop", vec![directory()], "")]);
    let compared = compared(pods.pod("uid-0").unwrap(), "app", &commons(&pods));
    let mut views = HashMap::new();
    for network in [false, true] {
        let mut seen = seen();
        seen.take_places(&compared, vec![row(7, network)], reading(1));
        seen.confirm_places(reading(60));
        views.insert(Process { pid: i32::from(network), start: 1 }, seen);
    }
    assert_eq!(pairs(&views).len(), 1);
    // Nothing is asked any more: nothing is known.
    views.values_mut().for_each(|seen| seen.take_places(&[], Vec::new(), reading(120)));
    assert!(pairs(&views).is_empty());
}

#[test]
fn a_sentence_names_a_few_and_counts_the_rest() {
    let words = |count: usize| sentence((0..count).map(|index| format!("pod {index}")).collect::<Vec<_>>().into_iter());
    assert_eq!(words(1), "pod 0");
    assert_eq!(words(5), "pod 0; pod 1; pod 2; and 2 more");
}
