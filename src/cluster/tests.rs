//! The whole cluster's side against the fake API server, with all its times many times shorter.
#![allow(clippy::disallowed_methods, reason = "the test's own thread may sleep")]

#[path = "../../tests/common/admission.rs"]
#[allow(unreachable_pub, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "shared with others")]
mod policy;
#[path = "../../tests/common/table.rs"]
#[allow(unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "shared with the integration tests")]
mod table;

mod admission;
pub(super) mod bench;
mod faults;
mod load;
mod rights;

use std::time::Duration;

use serde_json::{Value, json};

use self::bench::{Bench, NODE, dead, healthy, uid};
use crate::apiserver::{Fault, On, objects};
use crate::verdict::State;

#[test]
fn a_dead_mount_is_told_in_every_place_once_and_its_end_too() {
    let bench = Bench::start(100);
    bench.pods(2, "data");
    bench.until("the names", |bench| bench.names().iter().count() == 2 && bench.volume_known(0));
    bench.show(&[healthy("srv:/a", &[0, 1])]);
    bench.until("the condition is True", |bench| bench.condition()["status"] == "True");
    bench.show(&[dead("srv:/a", State::Hung, &[0, 1], 1000.0)]);
    bench.until("three Events", |bench| bench.events("MountHung").len() == 3);
    bench.until("the condition is False", |bench| bench.condition()["status"] == "False");
    let event = &bench.events_about("Pod", "MountHung")[0];
    assert_eq!(event["regarding"]["uid"], uid(0));
    assert_eq!(event["eventTime"], "1970-01-01T00:16:40.000000Z");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.starts_with("volume data (claim data, srv:/a) is hung since 1970-01-01T00:16:40Z: server_refused."),
        "{note}"
    );
    assert_eq!(bench.events_about("PersistentVolumeClaim", "MountHung").len(), 1);
    bench.until("nm", |bench| bench.node_mounts()["status"]["dead"] == 1);
    let object = bench.node_mounts();
    assert_eq!((&object["status"]["pods"], &object["status"]["worst"]), (&json!(2), &json!("hung")));
    assert_eq!(object["status"]["mounts"][0]["pods"], json!(["shop/web-0", "shop/web-1"]));
    let node = bench.server.object("nodes", "", NODE).unwrap();
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], node["metadata"]["uid"]);

    bench.show(&[dead("srv:/a", State::Hung, &[0, 1], 1000.0)]);
    bench.show(&[healthy("srv:/a", &[0, 1])]);
    bench.until("three ends", |bench| bench.events("MountRecovered").len() == 3);
    bench.until("the condition is True again", |bench| bench.condition()["status"] == "True");
    assert_eq!(bench.events("MountHung").len(), 3, "none twice");
    bench.end();
    let condition = bench_condition(&bench.server.object("nodes", "", NODE).unwrap());
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("Unknown"), &json!("AgentStopped")));
}

fn bench_condition(node: &Value) -> Value {
    bench::condition_of(node)
}

#[test]
fn flapping_counts_up_one_event() {
    let bench = Bench::start(100);
    bench.pods(1, "data");
    bench.until("the names", |bench| bench.volume_known(0));
    for round in 0_u32..3 {
        bench.show(&[dead("srv:/a", State::Hung, &[0], 1000.0 + f64::from(round))]);
        bench.until("said", |bench| bench.stats().events_sent.get("MountHung") == Some(&(u64::from(round) + 1)));
        bench.show(&[healthy("srv:/a", &[0])]);
        bench.until("ended", |bench| bench.stats().events_sent.get("MountRecovered") == Some(&(u64::from(round) + 1)));
    }
    let events = bench.events("MountHung");
    assert_eq!((events.len(), &events[0]["series"]["count"]), (1, &json!(3)));
}

#[test]
fn a_restarted_agent_finds_its_event_and_counts_it_up() {
    let bench = Bench::start(100);
    bench.pods(1, "data");
    bench.show(&[dead("srv:/a", State::Stale, &[0], 1000.0)]);
    bench.until("the Event", |bench| bench.events("MountStale").len() == 1);
    let bench = bench.restart();
    bench.show(&[dead("srv:/a", State::Stale, &[0], 2000.0)]);
    bench.until("counted up", |bench| bench.events("MountStale")[0]["series"]["count"] == 2);
    assert_eq!(bench.events("MountStale").len(), 1);
}

#[test]
fn without_the_crd_everything_else_works_and_it_is_said() {
    let bench = Bench::start(100);
    bench.server.crds(false);
    bench.pods(1, "data");
    bench.show(&[dead("srv:/a", State::Lost, &[0], 1000.0)]);
    bench.until("the Event", |bench| bench.events("MountLost").len() == 1);
    bench.until("said", |bench| bench.stats().troubles.get("node_mounts").is_some_and(|words| words.contains("CRD")));
    bench.server.crds(true);
    bench.until("written", |bench| bench.node_mounts()["status"]["dead"] == 1);
    bench.until("no trouble left", |bench| bench.stats().troubles.is_empty());
}

#[test]
fn a_right_that_is_missing_is_named_and_the_rest_works() {
    let bench = Bench::start(100);
    bench.server.fault(On::path("/persistentvolumeclaims"), Fault::Status(403));
    bench.pods(1, "data");
    bench.until("said", |bench| {
        bench.stats().troubles.get("persistentvolumeclaims").is_some_and(|words| words.contains("cannot get resource"))
    });
    bench.show(&[dead("srv:/a", State::Hung, &[0], 1000.0)]);
    bench.until("the Event", |bench| bench.events("MountHung").len() == 1);
    let note = bench.events("MountHung")[0]["note"].as_str().unwrap().to_owned();
    assert!(note.starts_with("volume pv-data (srv:/a)"), "the directory names the volume: {note}");
    bench.server.heal();
    bench.until("named", |bench| bench.volume_known(0));
}

#[test]
fn an_event_that_nobody_can_take_does_not_hold_up_the_others() {
    let bench = Bench::start(100);
    bench.pods(2, "data");
    bench.until("the names", |bench| bench.names().iter().count() == 2 && bench.volume_known(0));
    bench.server.fault_times(1, On::method("POST", "/events"), Fault::Status(422));
    bench.show(&[dead("srv:/a", State::Hung, &[0, 1], 1000.0)]);
    bench.until("the others", |bench| bench.events("MountHung").len() == 2);
    assert_eq!(bench.stats().events_dropped.get("refused"), Some(&1));
}

#[test]
fn an_event_whose_namespace_is_gone_is_given_up_and_one_whose_is_there_is_not() {
    let bench = Bench::start(100);
    bench.pods(1, "data");
    bench.until("the names", |bench| bench.volume_known(0));
    bench.server.fault_times(2, On::method("POST", "/events"), Fault::Status(404));
    bench.show(&[dead("srv:/a", State::Hung, &[0], 1000.0)]);
    bench.until("sent at the third try", |bench| bench.events("MountHung").len() == 1);
    assert_eq!(bench.stats().events_dropped.get("refused"), None);
    bench.server.forget_asked();
    bench.server.fault(On::method("POST", "/events"), Fault::Status(404));
    bench.server.fault(On::path("/namespaces/shop"), Fault::Status(404));
    bench.show(&[dead("srv:/a", State::Stale, &[0], 2000.0)]);
    bench.until("given up", |bench| bench.stats().events_dropped.get("refused") == Some(&1));
    assert!(bench.server.asked_for("GET", "/namespaces/default").len() == 1, "the server was asked for one that is");
}

#[test]
fn an_event_outlives_a_server_that_gets_well_while_it_is_asked_for_the_namespace() {
    let bench = Bench::start(100);
    bench.pods(1, "data");
    bench.until("the names", |bench| bench.volume_known(0));
    bench.server.fault_times(1, On::method("POST", "/events"), Fault::Status(404));
    bench.server.fault_times(1, On::read("/api/v1/namespaces/"), Fault::Status(404));
    bench.show(&[dead("srv:/a", State::Hung, &[0], 1000.0)]);
    bench.until("sent or given up", |bench| {
        !bench.events("MountHung").is_empty() || !bench.stats().events_dropped.is_empty()
    });
    assert_eq!(bench.stats().events_dropped.get("refused"), None);
}

#[test]
fn a_lost_answer_makes_no_second_event() {
    let bench = Bench::start(20);
    bench.pods(1, "data");
    bench.until("the names", |bench| bench.volume_known(0));
    // Longer than the deadline: the server takes it, and nobody hears.
    bench.server.fault_times(1, On::method("POST", "/events"), Fault::Slow(Duration::from_millis(700)));
    bench.show(&[dead("srv:/a", State::Hung, &[0], 1000.0)]);
    bench.until("sent", |bench| bench.stats().events_sent.get("MountHung") == Some(&1));
    let events = bench.events("MountHung");
    assert!(events.len() == 1 && events[0]["series"].is_null(), "{events:?}");
}

#[test]
fn tenants_text_stays_in_its_line() {
    let bench = Bench::start(100);
    bench.pods(1, "data");
    bench.until("the names", |bench| bench.volume_known(0));
    bench.show(&[dead("srv:/a\nlevel=error pod=\"x\"\u{202e}", State::Hung, &[0], 1000.0)]);
    bench.until("the Event", |bench| bench.events("MountHung").len() == 1);
    let note = bench.events("MountHung")[0]["note"].as_str().unwrap().to_owned();
    assert!(!note.chars().any(|c| c.is_control() || c == '"' || c == '\u{202e}'), "{note}");
}

#[test]
fn a_node_whose_name_is_wrong_is_told_so() {
    let bench = Bench::start(100);
    bench.server.remove("nodes", "", NODE);
    bench.until("said", |bench| bench.stats().troubles.get("node").is_some_and(|words| words.contains("NODE_NAME")));
    bench.server.put(objects::node(NODE));
    bench.until("found", |bench| bench.stats().troubles.is_empty());
}

#[test]
fn cleanup_removes_what_agents_left_and_nothing_else() {
    let bench = Bench::start(100);
    bench.show(&[healthy("srv:/a", &[])]);
    bench.until("both", |bench| bench.condition()["status"] == "True" && bench.node_mounts()["status"]["healthy"] == 1);
    bench.end();
    let run = |dry| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(super::cleanup::run(Some(bench.kubeconfig()), dry)).unwrap()
    };
    let expected = [format!("nodemounts/{NODE}"), format!("condition NetworkMountsHealthy of node/{NODE}")];
    assert_eq!(run(true).done, expected);
    assert!(!bench.node_mounts().is_null(), "nothing was removed yet");
    let removed = run(false);
    assert_eq!((removed.done.as_slice(), removed.failed.len()), (&expected[..], 0));
    assert!(bench.node_mounts().is_null() && bench.condition().is_null());
    let node = bench.server.object("nodes", "", NODE).unwrap();
    assert_eq!(node["status"]["conditions"].as_array().unwrap().len(), 1, "the kubelet's own condition stays");
    assert!(run(false).done.is_empty());
    bench.server.fault(On::path("/nodes"), Fault::Status(403));
    assert!(run(false).failed[0].contains("cannot list nodes"), "a right that is missing is named");
}

#[test]
fn a_disk_for_one_node_that_a_pod_elsewhere_has_is_named_with_that_pod() {
    let bench = Bench::start(100);
    let mut claim = objects::claim("shop", "disk", "pv-disk");
    claim["spec"]["accessModes"] = json!(["ReadWriteOnce"]);
    bench.server.put(claim);
    let mut volume = objects::volume("pv-disk", "", "", ("shop", "disk"));
    volume["spec"]["nfs"] = Value::Null;
    volume["spec"]["csi"] = json!({"driver": "ebs.csi.aws.com", "volumeHandle": "vol-0a"});
    bench.server.put(volume);
    let mut other = bench::pod(1, "disk");
    other["spec"]["nodeName"] = json!("node-b");
    bench.server.put(other);
    let held = |bench: &Bench| {
        let names = bench.names();
        names.pod(&uid(0)).and_then(|pod| pod.volumes.first()?.held.clone())
    };
    bench.server.put(bench::pod(0, "disk"));
    bench.until("its volume is known", |bench| {
        bench.names().pod(&uid(0)).is_some_and(|pod| pod.volume_in("pv-disk").is_some())
    });
    let lists = |bench: &Bench| bench.server.asked_for("GET", "/namespaces/shop/pods").len();
    assert_eq!((held(&bench), lists(&bench)), (None, 0), "it runs, and nobody is asked");
    bench.server.modify("pods", "shop", "web-0", |pod| {
        pod["status"] = json!({"phase": "Pending", "startTime": "2026-11-21T03:00:00Z",
            "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "ContainerCreating"}}}]});
    });
    bench.until("it is named", |bench| held(bench).as_deref() == Some("pod shop/web-1 on node node-b"));
    bench.server.terminate("shop", "web-1");
    bench.until("one that goes hands it over", |bench| held(bench).is_none());
}
