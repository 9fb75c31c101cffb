//! Pods that the API does not know though the node has volumes of theirs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::uses;
use crate::pods::names::PodNames;
use crate::snapshot::{Snapshot, UnixSeconds};

/// So long the API must not know a pod before it counts as an orphan: a pod that was just made is heard of a moment later.
const LONG: f64 = 60.0;

/// UIDs in the kubelet's paths without an object.
#[derive(Debug, Default)]
pub(super) struct Absent {
    since: BTreeMap<String, UnixSeconds>,
    now: UnixSeconds,
}

impl Absent {
    /// Takes a look over. While the API's list is not complete nobody is absent.
    pub(super) fn look(&mut self, snapshot: &Snapshot, names: &PodNames) {
        self.now = snapshot.generated;
        if !names.is_complete() {
            self.since.clear();
            return;
        }
        let places = snapshot.mounts.iter().flat_map(|mount| uses::places(mount, names));
        let absent: BTreeSet<String> = places.map(|place| place.uid).filter(|uid| names.pod(uid).is_none()).collect();
        self.since.retain(|uid, _| absent.contains(uid));
        for uid in absent {
            self.since.entry(uid).or_insert(snapshot.generated);
        }
    }

    /// The node has volumes of this pod, and for a minute the API has known no such pod: it was deleted by force, or its
    /// teardown is stuck.
    pub(super) fn is_orphan(&self, uid: &str) -> bool {
        self.since.get(uid).is_some_and(|since| self.now - since >= LONG)
    }

    /// The pod's name, or what is to be said in its place.
    pub(super) fn name(&self, uid: &str, names: &PodNames) -> String {
        match names.pod(uid) {
            Some(pod) => pod.full(),
            None if self.is_orphan(uid) => format!("orphan {uid}"),
            None => uid.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::cluster::tests::bench::{healthy, snapshot, uid};
    use crate::pods::names::PodName;

    fn at(seconds: f64) -> Snapshot {
        Snapshot { generated: seconds, ..snapshot(&[healthy("srv:/a", &[0, 1])]) }
    }

    #[test]
    fn a_pod_is_an_orphan_once_a_complete_list_has_lacked_it_for_a_minute() {
        let known = PodName { namespace: "shop".into(), name: "web-0".into(), ..PodName::default() };
        let names = |complete| PodNames::new(HashMap::from([(uid(0), known.clone())]), complete);
        let mut absent = Absent::default();
        absent.look(&at(100.0), &names(true));
        assert_eq!(absent.name(&uid(1), &names(true)), uid(1), "it may have been made just now");
        absent.look(&at(161.0), &names(true));
        assert_eq!(absent.name(&uid(1), &names(true)), format!("orphan {}", uid(1)));
        assert_eq!(absent.name(&uid(0), &names(true)), "shop/web-0");
        absent.look(&at(170.0), &names(false));
        assert!(!absent.is_orphan(&uid(1)), "without an API server nobody is one");
    }
}
