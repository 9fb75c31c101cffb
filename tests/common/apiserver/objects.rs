//! Objects to put into the server.

use serde_json::{Value, json};

/// A namespace.
pub fn namespace(name: &str) -> Value {
    json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}, "status": {"phase": "Active"}})
}

/// A node.
pub fn node(name: &str) -> Value {
    json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
            "lastHeartbeatTime": "2026-11-21T03:00:00Z", "lastTransitionTime": "2026-11-21T03:00:00Z"}]}})
}

/// A running pod as recorded (`pod-terminating.json`, before its deletion), with one claim `data` at `/data` and, by
/// sub-path, at `/sub`.
pub fn pod(namespace: &str, name: &str, uid: &str, node: &str) -> Value {
    let recording: Value = serde_json::from_str(include_str!("../../fixtures/api/pod-terminating.json")).unwrap();
    let mut pod = recording["response"]["body"].clone();
    pod["metadata"] = json!({"name": name, "namespace": namespace, "uid": uid, "labels": {"app": name},
        "creationTimestamp": "2026-11-21T03:50:06Z"});
    pod["spec"]["nodeName"] = json!(node);
    let conditions = pod["status"]["conditions"].as_array_mut().unwrap();
    conditions.retain(|condition| condition["type"] != "DisruptionTarget");
    pod
}

/// A claim bound to this volume, as recorded.
pub fn claim(namespace: &str, name: &str, volume: &str) -> Value {
    let recording: Value = serde_json::from_str(include_str!("../../fixtures/api/pvc-get.json")).unwrap();
    let mut claim = recording["response"]["body"].clone();
    claim["metadata"] = json!({"name": name, "namespace": namespace});
    claim["spec"]["volumeName"] = json!(volume);
    claim
}

/// An NFS volume, as recorded, for this claim.
pub fn volume(name: &str, server: &str, path: &str, claim: (&str, &str)) -> Value {
    let recording: Value = serde_json::from_str(include_str!("../../fixtures/api/pv-get.json")).unwrap();
    let mut volume = recording["response"]["body"].clone();
    volume["metadata"] = json!({"name": name});
    volume["spec"]["nfs"] = json!({"server": server, "path": path});
    volume["spec"]["claimRef"] = json!({"kind": "PersistentVolumeClaim", "namespace": claim.0, "name": claim.1});
    volume
}

/// A budget over pods with the label `app`, as recorded.
pub fn budget(namespace: &str, name: &str, app: &str, allowed: i64) -> Value {
    let recording: Value = serde_json::from_str(include_str!("../../fixtures/api/pdb-get.json")).unwrap();
    let mut budget = recording["response"]["body"].clone();
    budget["metadata"] = json!({"name": name, "namespace": namespace, "generation": 1});
    budget["spec"]["selector"]["matchLabels"] = json!({"app": app});
    budget["status"]["disruptionsAllowed"] = json!(allowed);
    budget
}
