//! The fake API server answers as the recorded one did: a test against it proves nothing otherwise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common {
    #![allow(
        dead_code,
        unreachable_pub,
        clippy::indexing_slicing,
        reason = "shared: each test crate uses its part of it"
    )]
    pub mod apiserver;
}

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use common::apiserver::{ApiServer, Fault, On, Order, objects};
use serde_json::{Value, json};

fn recording(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/api").join(format!("{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A request on a connection of its own.
fn open(server: &ApiServer, method: &str, path: &str, content_type: &str, body: &Value) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    BufReader::new(stream)
}

fn head(reader: &mut BufReader<TcpStream>) -> (u16, Vec<String>) {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_ascii_lowercase());
    }
    let status = lines.first().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, lines)
}

fn ask(server: &ApiServer, method: &str, path: &str, content_type: &str, body: &Value) -> (u16, Value) {
    let mut reader = open(server, method, path, content_type, body);
    let (status, _) = head(&mut reader);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

/// What the recordings were made of.
fn recorded_cluster() -> ApiServer {
    let server = ApiServer::start();
    server.put(objects::namespace("rec"));
    server.put(objects::node("rec-node"));
    let uid = "c35f273c-b541-4dde-8895-8a47f4e9710b";
    server.put(objects::pod("rec", "free-0", uid, "rec-node"));
    let mut guarded = objects::pod("rec", "app-0", "0c257ae2-98d8-4ffa-a6ff-53a0ab4a316d", "rec-node");
    guarded["metadata"]["labels"]["app"] = json!("pdb");
    server.put(guarded);
    server.put(objects::budget("rec", "pdb", "pdb", 0));
    server.put(objects::claim("rec", "data", "rec-pv"));
    server.put(objects::volume("rec-pv", "10.99.0.2", "/export", ("rec", "data")));
    server
}

/// Sends the recorded request and compares the answer: the status, and every field but those that are the server's to
/// choose (UIDs, versions, times).
fn replays(server: &ApiServer, name: &str) {
    let recording = recording(name);
    let request = &recording["request"];
    let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
    let content_type = request["content_type"].as_str().unwrap_or_default();
    let (status, body) = ask(server, method, path, content_type, &request["body"]);
    assert_eq!(u64::from(status), recording["response"]["status"].as_u64().unwrap(), "{name}: {body}");
    for field in ["kind", "apiVersion", "status", "reason", "message", "code", "details", "note", "series"] {
        let (expected, got) = (&recording["response"]["body"][field], &body[field]);
        if field == "status" && expected.is_object() {
            continue;
        }
        assert_eq!(expected, got, "{name}: {field}");
    }
}

#[test]
fn recorded_requests_get_the_recorded_answers() {
    let server = recorded_cluster();
    for name in [
        "event-create",
        "event-series-patch",
        "event-invalid-422",
        "eviction-404",
        "eviction-409-uid",
        "eviction-429-pdb",
        "lease-create",
        "lease-create-409",
        "node-condition-patch",
        "pdb-get",
        "pv-get",
        "pvc-get",
        "list-continue-410",
        "eviction-201-dryrun",
        "eviction-201",
        "pod-terminating",
        "eviction-again-terminating",
    ] {
        let recording = recording(name);
        if name == "list-continue-410" {
            server.fault_times(1, On::read("/pods"), Fault::Status(410));
        }
        assert!(recording["request"]["method"].is_string(), "{name}");
        replays(&server, name);
    }
    let condition = &server.object("nodes", "", "rec-node").unwrap()["status"]["conditions"];
    assert_eq!(condition.as_array().unwrap().len(), 2, "the patch adds one and keeps the kubelet's: {condition}");
}

#[test]
fn an_update_with_an_old_version_is_a_conflict() {
    let server = recorded_cluster();
    replays(&server, "lease-create");
    let path = "/apis/coordination.k8s.io/v1/namespaces/rec/leases/mountwarden-eviction-slot-0";
    let (_, mut lease) = ask(&server, "GET", path, "", &Value::Null);
    lease["spec"]["holderIdentity"] = json!("node-b");
    assert_eq!(ask(&server, "PUT", path, "application/json", &lease).0, 200);
    let (status, body) = ask(&server, "PUT", path, "application/json", &lease);
    assert_eq!((status, &body["message"]), (409, &recording("lease-update-409")["response"]["body"]["message"]));
}

/// The next line of a watch.
fn line(reader: &mut BufReader<TcpStream>) -> Value {
    let mut text = String::new();
    reader.read_line(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

#[test]
fn a_watch_reports_one_node_in_the_recorded_order() {
    let server = recorded_cluster();
    server.bookmark_every(Duration::from_millis(200));
    let select = "fieldSelector=spec.nodeName%3Drec-node";
    let (_, list) = ask(&server, "GET", &format!("/api/v1/pods?{select}&limit=500"), "", &Value::Null);
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("/api/v1/pods?watch=true&allowWatchBookmarks=true&{select}&resourceVersion={version}");
    let mut watch = open(&server, "GET", &path, "", &Value::Null);
    assert_eq!(head(&mut watch).0, 200);
    server.put(objects::pod("rec", "elsewhere", "1", "other-node"));
    replays(&server, "eviction-201");
    server.remove("pods", "rec", "free-0");
    let recorded = recording("pods-watch");
    let expected: Vec<&str> =
        recorded["events"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    // The recording has one line more: the kubelet's word that the containers ended.
    assert_eq!(expected, ["MODIFIED", "MODIFIED", "MODIFIED", "DELETED", "BOOKMARK", "BOOKMARK"]);
    let lines: Vec<Value> = (0..4).map(|_| line(&mut watch)).collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["MODIFIED", "MODIFIED", "DELETED", "BOOKMARK"]);
    assert!(lines[0]["object"]["metadata"]["deletionTimestamp"].is_null());
    assert!(lines[1]["object"]["metadata"]["deletionTimestamp"].is_string());
    let names = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(names(&lines[3]["object"]), names(&recorded["events"][4]["object"]));
}

#[test]
fn a_watch_from_before_the_compaction_is_told_so() {
    let server = recorded_cluster();
    server.compact();
    let mut watch = open(&server, "GET", "/api/v1/pods?watch=1&resourceVersion=1", "", &Value::Null);
    head(&mut watch);
    let told = line(&mut watch);
    assert_eq!((&told["type"], &told["object"]["code"]), (&json!("ERROR"), &json!(410)));
}

#[test]
fn every_fault_is_seen_on_the_wire() {
    let server = recorded_cluster();
    let get = |path: &str| ask(&server, "GET", path, "", &Value::Null).0;
    for code in [401, 403, 404, 409, 410, 422, 429, 500, 503] {
        server.fault_times(1, On::path("/pods"), Fault::Status(code));
        assert_eq!(get("/api/v1/pods"), code);
    }
    assert_eq!(get("/api/v1/pods"), 200, "a fault ends after its times");
    server.fault_times(1, On::ALL, Fault::TooMany { retry_after: 7 });
    let mut reader = open(&server, "GET", "/api/v1/nodes", "", &Value::Null);
    let (status, lines) = head(&mut reader);
    assert!(status == 429 && lines.contains(&"retry-after: 7".to_owned()), "{lines:?}");
    server.fault_times(1, On::ALL, Fault::Other(json!({"kind": "Banana"})));
    assert_eq!(ask(&server, "GET", "/api/v1/pods", "", &Value::Null), (200, json!({"kind": "Banana"})));

    server.fault_times(1, On::ALL, Fault::Cut);
    let mut reader = open(&server, "GET", "/api/v1/pods", "", &Value::Null);
    head(&mut reader);
    let mut text = Vec::new();
    let ended = reader.read_to_end(&mut text);
    assert!(!text.is_empty() && serde_json::from_slice::<Value>(&text).is_err(), "half a line, then {ended:?}");
    server.fault_times(1, On::ALL, Fault::Reset);
    let mut reader = open(&server, "GET", "/api/v1/pods", "", &Value::Null);
    let ended = reader.read_to_end(&mut text);
    assert!(ended.is_err() || ended.is_ok_and(|read| read == 0));
    server.fault_times(1, On::ALL, Fault::Slow(Duration::from_millis(150)));
    let asked = Instant::now();
    assert_eq!(get("/api/v1/pods"), 200);
    assert!(asked.elapsed() >= Duration::from_millis(150));
    server.clock_off(-86_400);
    let mut reader = open(&server, "GET", "/api/v1/pods", "", &Value::Null);
    let wrong = head(&mut reader).1;
    server.heal();
    let mut reader = open(&server, "GET", "/api/v1/pods", "", &Value::Null);
    assert_ne!(
        wrong.iter().find(|line| line.starts_with("date")),
        head(&mut reader).1.iter().find(|line| line.starts_with("date"))
    );
}

#[test]
fn open_watches_go_silent_end_or_are_cut_on_order() {
    let server = recorded_cluster();
    let watch = || {
        let mut watch = open(&server, "GET", "/api/v1/pods?watch=1&resourceVersion=0", "", &Value::Null);
        head(&mut watch);
        line(&mut watch);
        line(&mut watch);
        watch
    };
    let mut cut = watch();
    server.order(Order::Cut);
    let mut text = Vec::new();
    let _ = cut.read_to_end(&mut text);
    assert!(text.starts_with(b"{\"type\"") && !text.ends_with(b"\n"), "{}", String::from_utf8_lossy(&text));
    server.order(Order::Run);
    let mut silent = watch();
    server.order(Order::Silent);
    server.put(objects::pod("rec", "new", "2", "rec-node"));
    silent.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(silent.read_to_end(&mut text).is_err(), "it says nothing and stays open");
    server.order(Order::Run);
    silent.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(line(&mut silent)["object"]["metadata"]["name"], "new");
    server.order(Order::End);
    text.clear();
    assert_eq!(silent.read_to_end(&mut text).unwrap(), 0);
}

#[test]
fn a_server_that_is_down_refuses_and_comes_back_on_its_port() {
    let server = recorded_cluster();
    server.go_down();
    assert!(TcpStream::connect(server.address()).is_err());
    server.come_up();
    assert_eq!(ask(&server, "GET", "/api/v1/pods", "", &Value::Null).0, 200);
}

#[test]
fn node_mounts_go_with_their_node_and_exist_only_with_their_crd() {
    let server = recorded_cluster();
    let uid = server.object("nodes", "", "rec-node").unwrap()["metadata"]["uid"].clone();
    let path = "/apis/mountwarden.io/v1alpha1/nodemounts";
    let object = json!({"apiVersion": "mountwarden.io/v1alpha1", "kind": "NodeMounts", "spec": {}, "status": {"dead": 1},
        "metadata": {"name": "rec-node", "ownerReferences": [{"uid": uid}]}});
    let (status, created) = ask(&server, "POST", path, "application/json", &object);
    assert!(status == 201 && created["status"].is_null(), "the status comes by its subresource: {created}");
    let patch = json!({"status": {"dead": 2}});
    let status = format!("{path}/rec-node/status");
    assert_eq!(ask(&server, "PATCH", &status, "application/merge-patch+json", &patch).1["status"]["dead"], 2);
    let many = json!({"status": {"mounts": vec![json!({}); 101]}});
    assert_eq!(ask(&server, "PATCH", &status, "application/merge-patch+json", &many).0, 422);
    server.remove("nodes", "", "rec-node");
    assert_eq!(ask(&server, "GET", &format!("{path}/rec-node"), "", &Value::Null).0, 404);
    server.crds(false);
    let (code, body) = ask(&server, "GET", path, "", &Value::Null);
    assert_eq!((code, &body["message"]), (404, &json!("the server could not find the requested resource")));
}
