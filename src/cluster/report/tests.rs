use std::collections::HashMap;

use super::*;
use crate::cluster::tests::bench::{dead, healthy, snapshot, uid};

fn names(pods: &[usize]) -> PodNames {
    let pod = |index: &usize| {
        let name = PodName {
            namespace: "shop".into(),
            name: format!("web-{index}"),
            api_uid: uid(*index),
            ..PodName::default()
        };
        (uid(*index), name)
    };
    PodNames::new(pods.iter().map(pod).collect::<HashMap<_, _>>(), true)
}

fn look(reporter: &mut Reporter, mount: crate::snapshot::MountStatus, names: &PodNames) -> (usize, Vec<&'static str>) {
    let news = reporter.look(&snapshot(&[mount]), names, &Objects::default());
    (news.lines.len(), news.wishes.iter().map(|wish| wish.reason).collect())
}

#[test]
fn one_line_and_one_event_per_transition() {
    let (mut reporter, names) = (Reporter::default(), names(&[0]));
    let mut see = |state, since| look(&mut reporter, dead("srv:/a", state, &[0], since), &names);
    assert_eq!(see(State::Healthy, 1.0), (0, vec![]), "what was always well is no news");
    assert_eq!(see(State::Hung, 2.0), (1, vec!["MountHung"]));
    assert_eq!(see(State::Hung, 2.0), (0, vec![]));
    assert_eq!(see(State::Unknown, 3.0), (0, vec![]), "nothing is known, and nothing is said");
    assert_eq!(see(State::Hung, 2.0), (0, vec![]));
    assert_eq!(see(State::Stale, 4.0), (1, vec!["MountStale"]));
    assert_eq!(see(State::Healthy, 5.0), (1, vec!["MountRecovered"]));
    assert_eq!(see(State::Slow, 6.0), (1, vec![]), "slow needs nobody's attention in the cluster");
    assert_eq!(see(State::Healthy, 7.0), (1, vec![]), "nor does its end");
}

#[test]
fn a_pod_whose_name_comes_late_gets_its_event_then() {
    let mut reporter = Reporter::default();
    let hung = || dead("srv:/a", State::Hung, &[0], 2.0);
    assert_eq!(look(&mut reporter, hung(), &PodNames::default()), (1, vec![]));
    assert_eq!(look(&mut reporter, hung(), &PodNames::default()), (0, vec![]));
    assert_eq!(look(&mut reporter, hung(), &names(&[0])), (1, vec!["MountHung"]), "the line again, with its name");
    assert_eq!(look(&mut reporter, hung(), &PodNames::default()), (0, vec![]));
}

#[test]
fn a_volume_that_went_away_did_not_recover() {
    let (mut reporter, names) = (Reporter::default(), names(&[0, 1]));
    look(&mut reporter, dead("srv:/a", State::Hung, &[0], 2.0), &names);
    assert_eq!(look(&mut reporter, healthy("srv:/a", &[1]), &names), (0, vec![]));
    assert_eq!(look(&mut reporter, healthy("srv:/a", &[0]), &names), (0, vec![]));
}

#[test]
fn the_note_says_since_when_it_has_not_been_well() {
    let (mut reporter, names) = (Reporter::default(), names(&[0]));
    look(&mut reporter, dead("srv:/a", State::Hung, &[0], 60.0), &names);
    let news = reporter.look(&snapshot(&[dead("srv:/a", State::Stale, &[0], 120.0)]), &names, &Objects::default());
    let expected =
        "is stale since 1970-01-01T00:02:00Z (not healthy since 1970-01-01T00:01:00Z): server_refused. Start";
    assert!(news.wishes[0].note.contains(expected), "{}", news.wishes[0].note);
    assert!(news.lines[0].words.starts_with("shop/web-0: volume pv-data (srv:/a) is stale"), "{:?}", news.lines);
}

#[test]
fn a_pod_that_the_api_does_not_know_is_called_an_orphan_after_a_minute() {
    let (mut reporter, names) = (Reporter::default(), names(&[]));
    let mut at = |seconds| {
        let mut snapshot = snapshot(&[dead("srv:/a", State::Hung, &[0], 60.0)]);
        snapshot.generated = seconds;
        let news = reporter.look(&snapshot, &names, &Objects::default());
        (news.lines.into_iter().map(|line| line.pod).collect::<Vec<_>>(), news.wishes.len())
    };
    assert_eq!(at(100.0), (vec![uid(0)], 0));
    assert_eq!(at(130.0), (vec![], 0));
    assert_eq!(at(170.0), (vec![format!("orphan {}", uid(0))], 0), "there is no pod to send an Event to");
    assert_eq!(at(180.0), (vec![], 0));
}

#[test]
fn two_pods_of_one_name_in_succession_are_two() {
    let named = |uid: &str| {
        let pod = PodName { namespace: "shop".into(), name: "web-0".into(), api_uid: uid.into(), ..PodName::default() };
        PodNames::new(HashMap::from([(uid.to_owned(), pod)]), true)
    };
    let mut reporter = Reporter::default();
    let mut topics = |index: usize| {
        let news = reporter.look(
            &snapshot(&[dead("srv:/a", State::Hung, &[index], 60.0)]),
            &named(&uid(index)),
            &Objects::default(),
        );
        news.wishes.into_iter().map(|wish| (wish.about.uid, wish.topic)).collect::<Vec<_>>()
    };
    let (first, second) = (topics(0), topics(1));
    assert_eq!((first.len(), second.len()), (1, 1), "each has its own Event");
    assert!(first[0].0 == uid(0) && second[0].0 == uid(1) && first[0].1 != second[0].1, "{first:?} {second:?}");
}

#[test]
fn a_static_pod_is_found_by_its_manifest_and_told_by_its_object() {
    const MANIFEST: &str = "8d2d9a3d1b7e4c6f9a0b1c2d3e4f5061";
    let pod = PodName {
        namespace: "kube-system".into(),
        name: "backup-node-a".into(),
        api_uid: "api-uid".into(),
        ..PodName::default()
    };
    let names = PodNames::new(HashMap::from([(MANIFEST.to_owned(), pod)]), true);
    let mut mount = dead("srv:/a", State::Hung, &[], 60.0);
    mount.paths = vec![format!("/var/lib/kubelet/pods/{MANIFEST}/volumes/kubernetes.io~nfs/data")];
    let news = Reporter::default().look(&snapshot(&[mount]), &names, &Objects::default());
    assert_eq!(news.lines[0].pod, "kube-system/backup-node-a");
    assert_eq!((news.wishes[0].about.uid.as_str(), news.wishes[0].about.name.as_str()), ("api-uid", "backup-node-a"));
}
