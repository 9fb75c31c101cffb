//! What each right of the agent's account is for: all of them at work, then each taken away in turn. The rights are those
//! of the manifests, and the table in docs/privileges.md is made here.

use serde_json::Value;

use super::bench::{Bench, NODE, dead, healthy, pod};
use super::table;
use crate::apiserver::{Right, Rights};
use crate::verdict::State;

const MANIFEST: &str = include_str!("../../../k8s/install-remedy-enforce.yaml");

/// Used by the part that releases dead mounts, which is not at work here (tests/unstick.rs).
const OTHERS: [&str; 2] = ["get configmaps mountwarden-remedy", "get pods"];

/// Something that the agent does in the cluster, and how it is seen that it did.
struct Work {
    name: &'static str,
    without: &'static str,
    done: fn(&Bench) -> bool,
}

const WORK: [Work; 10] = [
    Work {
        name: "pods",
        without: "no pod has a name: metrics and page show UIDs",
        done: |bench| bench.names().iter().count() > 1,
    },
    Work {
        name: "later pods",
        without: "pods that come later have no names",
        done: |bench| bench.names().iter().any(|(_, pod)| pod.name == "web-2"),
    },
    Work {
        name: "claims",
        without: "volumes have the names of their directories",
        done: |bench| bench.volume_known(0),
    },
    Work {
        name: "sources",
        without: "nobody knows which server a volume is meant to be on",
        done: |bench| {
            bench.names().iter().any(|(_, pod)| pod.volume_in("pv-data").is_some_and(|known| known.origin.is_some()))
        },
    },
    Work {
        name: "namespaces",
        without: "annotations of namespaces are unknown: nothing is released there",
        done: |bench| read(bench, "namespaces"),
    },
    Work {
        name: "node",
        without: "`NodeMounts` belongs to no Node and stays when the Node goes; annotations of the Node are unknown",
        done: |bench| bench.node_mounts()["metadata"]["ownerReferences"][0]["uid"].is_string(),
    },
    Work {
        name: "condition",
        without: "no `NetworkMountsHealthy` at the Node",
        done: |bench| bench.condition()["status"].is_string(),
    },
    Work { name: "Events", without: "no Event", done: |bench| !bench.events("MountHung").is_empty() },
    Work {
        name: "repeats",
        without: "a second incident of a volume is not counted up, and the Events behind it in its namespace wait",
        done: |bench| bench.events("MountHung").iter().any(|event| event["series"]["count"].as_u64() > Some(1)),
    },
    Work {
        name: "report",
        without: "nothing new in `kubectl get nm`, no requests for rescue",
        done: |bench| bench.node_mounts()["status"]["dead"].is_number(),
    },
];

fn read(bench: &Bench, resource: &str) -> bool {
    bench.stats().requests.get(resource).is_some_and(|results| results.contains_key("ok"))
}

/// The objects of the manifest.
pub(super) fn manifest() -> Vec<Value> {
    MANIFEST.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

/// Incidents and a pod that comes later, until all work but this is done, and said to be forbidden; in these words.
pub(super) fn all_work(bench: &Bench, undone: &[&str]) -> Option<String> {
    bench.pods(2, "data");
    let (mut round, mut said) = (0.0, None);
    bench.until("the work is done", |bench| {
        if bench.names().iter().count() > 1 && bench.server.object("pods", "shop", "web-2").is_none() {
            bench.server.put(pod(2, "data"));
        }
        round += 1.0;
        for state in [healthy("srv:/a", &[0, 1]), dead("srv:/a", State::Hung, &[0, 1], 1000.0 + round)] {
            bench.show(&[state]);
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        // Whoever cannot read the Node cannot write its condition either: the first is the reason.
        let is_it =
            |words: &String| words.contains("Forbidden") && (!words.contains("condition") || undone == ["condition"]);
        let forbidden = || bench.stats().troubles.into_values().find(is_it);
        said = said.take().or_else(forbidden);
        WORK.iter().all(|work| undone.contains(&work.name) || (work.done)(bench)) && said.is_some() != undone.is_empty()
    });
    said
}

/// What cannot be done without this right.
fn undone_without(right: &Right) -> &'static [&'static str] {
    match right.to_string().as_str() {
        "list pods" => &["pods", "later pods", "claims", "sources", "namespaces", "Events", "repeats"],
        "watch pods" => &["later pods"],
        "get persistentvolumeclaims" => &["claims", "sources"],
        "get persistentvolumes" => &["sources"],
        "get namespaces" => &["namespaces"],
        "get nodes" => &["node", "condition"],
        "patch nodes/status" => &["condition"],
        "create events.events.k8s.io" => &["Events", "repeats"],
        "patch events.events.k8s.io" => &["repeats"],
        "get nodemounts.mountwarden.io" | "create nodemounts.mountwarden.io" => &["node", "report"],
        "update nodemounts/status.mountwarden.io" => &["report"],
        other => panic!("{other} is granted, and nobody says what for"),
    }
}

#[test]
fn every_right_of_the_agent_is_needed_and_no_other() {
    let rights = Rights::of(&manifest(), "mountwarden-agent");
    let granted: Vec<Right> =
        rights.iter().filter(|right| !OTHERS.contains(&right.to_string().as_str())).cloned().collect();
    assert!(granted.len() > 10, "{granted:?}");
    let bench = Bench::start_with(20, |server| server.grant(rights.clone()));
    all_work(&bench, &[]);
    bench.end();
    let used: Vec<Right> = rights.used(&bench.server.asked()).into_iter().collect();
    assert_eq!(used, granted, "granted and not used, or the other way round");
    let rows = std::thread::scope(|scope| {
        let runs: Vec<_> = granted
            .iter()
            .map(|right| {
                let rights = &rights;
                scope.spawn(move || {
                    let undone = undone_without(right);
                    let bench = Bench::start_with(20, |server| server.grant(rights.without(right)));
                    let said = all_work(&bench, undone).unwrap();
                    for work in WORK.iter().filter(|work| undone.contains(&work.name)) {
                        assert!(!(work.done)(&bench), "without {right} the agent still does: {}", work.name);
                    }
                    row(right, undone, &said)
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
    });
    let head = "| right | without it | and the agent says (log, `/api/v1/mounts`, page) |\n|---|---|---|\n";
    table::hold("docs/privileges.md", "agent rights", &(head.to_owned() + &rows.join("\n")));
}

fn row(right: &Right, undone: &[&str], said: &str) -> String {
    let lost = WORK.iter().filter(|work| undone.contains(&work.name));
    let lost: Vec<&str> = lost.map(|work| work.without).collect();
    format!(
        "| {right} | {} | {} |",
        lost.join("; "),
        said.replace(NODE, "NODE").replace("system:serviceaccount:mountwarden:", "...")
    )
}
