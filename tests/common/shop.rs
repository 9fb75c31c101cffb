//! A small shop: a Deployment whose pods mount one NFS server, one pod per node.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::apiserver::{ApiServer, Asked, objects};
use super::wait::eventually;

const SERVER: &str = "10.99.0.2";

/// The API server with the shop in it.
pub struct Cluster {
    pub api: ApiServer,
    /// Of the coordinator.
    namespace: &'static str,
    scratch: tempfile::TempDir,
}

/// So many seconds ago.
fn ago(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() - Duration::from_secs(seconds)).to_string()
}

impl Cluster {
    /// Without a history.
    pub fn new() -> Cluster {
        Cluster::in_namespace("default")
    }

    /// Without a history, and with the coordinator in this namespace.
    pub fn in_namespace(own: &'static str) -> Cluster {
        let api = ApiServer::start();
        api.put(objects::namespace(own));
        let mut namespace = objects::namespace("shop");
        namespace["metadata"]["annotations"] = json!({"mountwarden.io/remedy": "evict,unstick"});
        api.put(namespace);
        api.put(objects::claim("shop", "data", "pv"));
        api.put(objects::volume("pv", SERVER, "/export", ("shop", "data")));
        Cluster { api, namespace: own, scratch: tempfile::tempdir().unwrap() }
    }

    /// With a history that knows everything and has nothing in it.
    pub fn with_history() -> Cluster {
        let cluster = Cluster::new();
        cluster.begin_history();
        cluster
    }

    /// Puts a history there that knows everything and has nothing in it.
    pub fn begin_history(&self) {
        let empty = json!({"version": 1, "began": 0, "written": 0, "records": []}).to_string();
        self.api.put(json!({"kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "mountwarden-history", "namespace": self.namespace},
            "data": {"enforce": empty, "dry-run": empty}}));
    }

    pub fn set_history(&self, key: &str, text: &str) {
        self.api.modify("configmaps", self.namespace, "mountwarden-history", |map| map["data"][key] = json!(text));
    }

    pub fn history(&self, key: &str) -> Value {
        let map = self.api.object("configmaps", self.namespace, "mountwarden-history").unwrap_or_default();
        serde_json::from_str(map["data"][key].as_str().unwrap_or("null")).unwrap_or_default()
    }

    /// Sets or lifts the kill switch.
    pub fn stop(&self, value: Option<&str>) {
        let data = value.map_or(json!({}), |value| json!({"stop": value}));
        self.api.put(json!({"kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "mountwarden-remedy", "namespace": self.namespace}, "data": data}));
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.api.kubeconfig_in(self.scratch.path(), self.namespace)
    }

    /// A Deployment with so many pods `web-N` (UID `uN`) on nodes `nN`.
    pub fn web(&self, pods: usize) {
        self.api.put(json!({"kind": "ReplicaSet", "apiVersion": "apps/v1",
            "metadata": {"name": "web-rs", "namespace": "shop", "uid": "rs", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]},
            "spec": {"selector": {"matchLabels": {"app": "web"}}}}));
        for n in 0..pods {
            self.api.put(objects::node(&format!("n{n}")));
            self.api.put(self.web_pod(&format!("web-{n}"), &format!("u{n}"), &format!("n{n}"), "2026-11-21T03:50:06Z"));
        }
    }

    fn web_pod(&self, name: &str, uid: &str, node: &str, created: &str) -> Value {
        let mut pod = objects::pod("shop", name, uid, node);
        pod["metadata"]["labels"] = json!({"app": "web"});
        pod["metadata"]["creationTimestamp"] = json!(created);
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-rs", "uid": "rs", "controller": true}]);
        pod
    }

    /// The old pod is gone, a new one is there, as controller and kubelet do it.
    pub fn replaced(&self, old: &str, new: &str, uid: &str, ready: bool) {
        self.api.remove("pods", "shop", old);
        let mut pod = self.web_pod(new, uid, "n0", &ago(0));
        for condition in pod["status"]["conditions"].as_array_mut().unwrap() {
            if condition["type"] == "Ready" {
                condition["status"] = json!(if ready { "True" } else { "False" });
            }
        }
        self.api.put(pod);
    }

    pub fn pod(&self, name: &str) -> Value {
        self.api.object("pods", "shop", name).unwrap()
    }

    pub fn annotate(&self, pod: &str, value: Option<&str>) {
        self.api.modify("pods", "shop", pod, |pod| {
            pod["metadata"]["annotations"] = value.map_or(json!({}), |value| json!({"mountwarden.io/remedy": value}));
        });
    }

    /// A budget over the web pods.
    pub fn budget(&self, name: &str, allowed: i64, healthy: i64, desired: i64, expected: i64) {
        let mut budget = objects::budget("shop", name, "web", allowed);
        budget["status"]["currentHealthy"] = json!(healthy);
        budget["status"]["desiredHealthy"] = json!(desired);
        budget["status"]["expectedPods"] = json!(expected);
        self.api.put(budget);
    }

    /// What an agent asks for a pod whose mount is stale and whose gate is open.
    pub fn request(&self, pod: &str, uid: &str) -> Value {
        json!({"namespace": "shop", "pod": pod, "uid": uid, "volume": "data", "server": SERVER, "export": "/export",
            "state": "stale", "cause": "handle_invalid", "since": ago(300), "refreshed": ago(0),
            "gate": {"firstTrial": ago(60), "secondTrial": ago(20), "root": "same", "namesFound": 0, "namesKnown": 0,
                "words": "both trials show the pod's own root"}})
    }

    /// The node's report with these requests.
    pub fn asks(&self, node: &str, requests: &[Value]) {
        self.asks_of(node, SERVER, requests);
    }

    pub fn asks_of(&self, node: &str, server: &str, requests: &[Value]) {
        let dead = usize::from(!requests.is_empty());
        self.api.put(json!({"kind": "NodeMounts", "apiVersion": "mountwarden.io/v1alpha1", "metadata": {"name": node},
            "spec": {}, "status": {"healthy": 1, "degraded": 0, "dead": dead, "unknown": 0, "pods": dead,
                "reported": ago(0), "version": "0", "requests": requests,
                "servers": [{"server": server, "mounts": 1, "dead": dead, "gatesOpen": dead}]}}));
    }

    /// Refreshes the request for `web-0` until `condition` gives a value.
    pub fn keeps_asking<T>(&self, condition: impl FnMut() -> Option<T>) -> T {
        self.keeps_asking_for("n0", "web-0", "u0", condition)
    }

    pub fn keeps_asking_for<T>(&self, node: &str, pod: &str, uid: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let mut refreshed = None::<Instant>;
        eventually("what was asked for", Duration::from_secs(60), || {
            if refreshed.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                self.asks(node, &[self.request(pod, uid)]);
                refreshed = Some(Instant::now());
            }
            condition()
        })
    }

    /// The whole time through.
    pub fn stays_so(&self, time: Duration, condition: impl Fn() -> bool) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            assert!(condition(), "it changed");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The calls that evict, in their order.
    pub fn evictions(&self) -> Vec<Asked> {
        self.api.asked_for("POST", "/eviction")
    }

    /// An Event of this reason about this pod.
    pub fn event(&self, pod: &str, reason: &str) -> Option<Value> {
        let hit = |event: &Value| event["regarding"]["name"] == pod && event["reason"] == reason;
        self.api.objects("events").into_iter().find(hit)
    }
}
