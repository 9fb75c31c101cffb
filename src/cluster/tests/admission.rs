//! The admission policy of the manifests, evaluated: what the agent writes passes, and what a stolen token of it could
//! write beyond its own node does not.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::bench::{Bench, NODE, dead};
use super::policy::{Policy, Who};
use super::rights;
use crate::apiserver::Review;
use crate::verdict::State;

const AGENT: &str = "system:serviceaccount:mountwarden:mountwarden-agent";
const OWN: Who<'_> = Who { user: AGENT, node: Some(NODE) };
const OTHER: Who<'_> = Who { user: AGENT, node: Some("node-b") };
const NAMELESS: Who<'_> = Who { user: AGENT, node: None };

fn policy() -> Policy {
    Policy::of(&rights::manifest(), "mountwarden-agent")
}

/// What the agent writes in its life, and what the policy sees of it.
fn writes(who: Who<'static>) -> (Bench, Arc<Mutex<Vec<Review>>>) {
    let (policy, seen) = (policy(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&seen);
    let bench = Bench::start_with(100, move |server| {
        server.admit_by(Box::new(move |review| {
            kept.lock().unwrap().push(review.clone());
            policy.refuses(who, &review.request, &review.object, &review.old)
        }));
    });
    (bench, seen)
}

#[test]
fn what_the_agent_writes_about_its_own_node_is_admitted() {
    let (bench, seen) = writes(OWN);
    assert_eq!(rights::all_work(&bench, &[]), None);
    bench.end();
    assert_eq!(bench.stats().events_dropped.get("refused"), None);
    let refused: Vec<_> = bench.server.asked().into_iter().filter(|asked| asked.status == 422).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let kinds: std::collections::BTreeSet<String> = seen.lock().unwrap().iter().map(name).collect();
    let expected =
        ["CREATE events", "CREATE nodemounts", "UPDATE events", "UPDATE nodemounts/status", "UPDATE nodes/status"];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected, "the policy saw each kind of write");
}

fn name(review: &Review) -> String {
    let request = &review.request;
    let sub = request["subResource"].as_str().unwrap();
    let slash = if sub.is_empty() { "" } else { "/" };
    format!(
        "{} {}{slash}{sub}",
        request["operation"].as_str().unwrap(),
        request["resource"]["resource"].as_str().unwrap()
    )
}

#[test]
fn a_token_of_another_node_or_of_none_writes_nothing_here() {
    for (who, words) in [(OTHER, "its own node"), (NAMELESS, "this token names no node")] {
        let (bench, _) = writes(who);
        bench.pods(1, "data");
        bench.show(&[dead("srv:/a", State::Hung, &[0], 1000.0)]);
        bench.until("every part is refused", |bench| {
            let stats = bench.stats();
            let said = |part: &str| stats.troubles.get(part).is_some_and(|text| text.contains(words));
            said("condition") && said("node_mounts") && stats.events_dropped.contains_key("refused")
        });
        assert_eq!((bench.node_mounts(), bench.condition()), (Value::Null, Value::Null));
        assert!(bench.server.objects("events").is_empty());
    }
}

/// An update of the Node's status, as recorded from a real server, changed so.
fn node_update(change: impl FnOnce(&mut Value)) -> (Value, Value, Value) {
    let recording: Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/api/node-condition-patch.json")).unwrap();
    let mut old = recording["response"]["body"].clone();
    old["status"]["conditions"].as_array_mut().unwrap().insert(0, json!({"type": "Ready", "status": "True"}));
    let name = old["metadata"]["name"].clone();
    let mut new = old.clone();
    change(&mut new);
    let request = json!({"resource": {"group": "", "version": "v1", "resource": "nodes"}, "subResource": "status",
        "name": name, "namespace": "", "operation": "UPDATE"});
    (request, new, old)
}

fn refused(who: Who<'_>, (request, new, old): (Value, Value, Value)) -> Option<String> {
    policy().refuses(who, &request, &new, &old)
}

#[test]
fn of_its_nodes_status_an_agent_changes_one_condition() {
    let own = Who { node: Some("rec-node"), ..OWN };
    let condition = |kind: &str| json!({"type": kind, "status": "False", "reason": "x", "message": "x"});
    let ours = |node: &mut Value| {
        let all = node["status"]["conditions"].as_array_mut().unwrap();
        all.iter_mut().find(|one| one["type"] == "NetworkMountsHealthy").unwrap()["status"] = json!("Unknown");
    };
    assert_eq!(refused(own, node_update(ours)), None);
    assert_eq!(refused(own, node_update(|_| {})), None, "a heartbeat");
    assert!(refused(OWN, node_update(ours)).unwrap().contains("its own node"));
    let add = |kind: &'static str| {
        move |node: &mut Value| node["status"]["conditions"].as_array_mut().unwrap().push(condition(kind))
    };
    for kind in ["MemoryPressure", "Other", "networkmountshealthy"] {
        assert!(refused(own, node_update(add(kind))).unwrap().contains("no condition but"), "{kind}");
    }
    let drop_all = |node: &mut Value| node["status"]["conditions"] = json!([]);
    assert!(refused(own, node_update(drop_all)).unwrap().contains("no condition but"));
    let turn = |node: &mut Value| node["status"]["conditions"][0]["status"] = json!("Turned");
    assert!(refused(own, node_update(turn)).unwrap().contains("no condition but"));
}

/// Every other field of a `NodeStatus`, up to Kubernetes 1.36.
#[test]
fn no_other_field_of_the_status_and_no_metadata_may_change() {
    let own = Who { node: Some("rec-node"), ..OWN };
    let fields = json!({"capacity": {"cpu": "900"}, "allocatable": {"cpu": "900"}, "phase": "Running",
        "addresses": [{"type": "InternalIP", "address": "10.0.0.9"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
        "nodeInfo": {"machineID": "x"}, "images": [{"names": ["x"], "sizeBytes": 1}], "volumesInUse": ["x"],
        "volumesAttached": [{"name": "x", "devicePath": "x"}], "config": {"error": "x"},
        "runtimeHandlers": [{"name": "x"}], "features": {"supplementalGroupsPolicy": true}, "declaredFeatures": ["x"]});
    for (field, value) in fields.as_object().unwrap() {
        let changed = node_update(|node| node["status"][field] = value.clone());
        assert!(refused(own, changed).unwrap().contains("nothing in its node's status"), "{field} set");
        let (request, with, mut without) = node_update(|node| node["status"][field] = value.clone());
        without["status"].as_object_mut().unwrap().remove(field);
        assert!(refused(own, (request, without, with)).is_some(), "{field} removed");
    }
    let metadata = json!({"labels": {"x": "y"}, "annotations": {"x": "y"}, "finalizers": ["x/y"],
        "ownerReferences": [{"kind": "Pod", "name": "x"}]});
    for (field, value) in metadata.as_object().unwrap() {
        let changed = node_update(|node| node["metadata"][field] = value.clone());
        assert!(refused(own, changed).unwrap().contains("metadata"), "{field}");
    }
}

fn event(operation: &str, new: Value, old: Value) -> (Value, Value, Value) {
    let request = json!({"resource": {"group": "events.k8s.io", "version": "v1", "resource": "events"}, "subResource": "",
        "name": "x", "namespace": "shop", "operation": operation});
    (request, new, old)
}

#[test]
fn an_agent_neither_speaks_for_others_nor_takes_their_events_over() {
    let by = |controller: &str, node: &str| json!({"metadata": {"name": "x", "namespace": "shop"}, "reportingController": controller, "reportingInstance": node});
    let own = by("mountwarden.io/agent", NODE);
    assert_eq!(refused(OWN, event("CREATE", own.clone(), Value::Null)), None);
    assert_eq!(refused(OWN, event("UPDATE", own.clone(), own.clone())), None);
    let others =
        [by("mountwarden.io/agent", "node-b"), by("kubelet", NODE), by("kubelet", "node-b"), json!({"metadata": {}})];
    for other in others {
        assert!(refused(OWN, event("CREATE", other.clone(), Value::Null)).is_some(), "{other}");
        assert!(refused(OWN, event("UPDATE", other.clone(), other.clone())).is_some(), "{other}");
        assert!(refused(OWN, event("UPDATE", own.clone(), other.clone())).is_some(), "taken over: {other}");
        assert!(refused(OWN, event("UPDATE", other.clone(), own.clone())).is_some(), "given away: {other}");
    }
    // In the core group the controller's field has another name.
    let (mut request, mut core, _) = event("CREATE", own, Value::Null);
    request["resource"] = json!({"group": "", "version": "v1", "resource": "events"});
    core["reportingComponent"] = core["reportingController"].take();
    core.as_object_mut().unwrap().remove("reportingController");
    assert_eq!(refused(OWN, (request.clone(), core.clone(), Value::Null)), None);
    core["reportingComponent"] = json!("kubelet");
    assert!(refused(OWN, (request, core, Value::Null)).is_some());
}

#[test]
fn a_report_is_its_own_nodes() {
    let report = |node: &str, sub: &str, operation: &str| {
        let object = json!({"metadata": {"name": node}});
        let old = if operation == "CREATE" { Value::Null } else { object.clone() };
        let request = json!({"resource": {"group": "mountwarden.io", "version": "v1alpha1", "resource": "nodemounts"},
            "subResource": sub, "name": node, "namespace": "", "operation": operation});
        (request, object, old)
    };
    for (sub, operation) in [("", "CREATE"), ("", "UPDATE"), ("status", "UPDATE")] {
        assert_eq!(refused(OWN, report(NODE, sub, operation)), None);
        assert!(refused(OTHER, report(NODE, sub, operation)).unwrap().contains("its own node"));
        assert!(refused(NAMELESS, report(NODE, sub, operation)).unwrap().contains("names no node"));
    }
}

#[test]
fn nobody_else_is_looked_at() {
    let other = Who { user: "system:serviceaccount:mountwarden:mountwarden-coordinator", node: None };
    let label = |node: &mut Value| node["metadata"]["labels"] = json!({"x": "y"});
    assert_eq!(refused(other, node_update(label)), None);
    assert!(refused(Who { node: Some("rec-node"), ..OWN }, node_update(label)).is_some());
}
