//! The built agent beside a fake API server: what people see of a node with dead mounts, and what 500 pods cost.
//!
//! The mounts are FUSE filesystems of `examples/fusefs` at the kubelet's paths. What is printed is laid out as kubectl does it
//! (columns of the CRD; `printEvent` of pkg/printers/internalversion and `describeNode` of kubectl, but for the form of times) and kept in
//! docs/kubernetes.md: MOUNTWARDEN_BLESS=1 cargo test --test cluster_agent.
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
    pub mod agent;
    pub mod apiserver;
    pub mod fusefs;
    pub mod process;
    pub mod sandbox;
    pub mod wait;
}

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::agent::{Launch, PROGRAM};
use common::apiserver::{ApiServer, objects};
use common::fusefs::FuseFs;
use common::sandbox::Sandbox;
use common::wait::eventually;
use kube::CustomResourceExt;
use mountwarden::cluster::node_mounts::NodeMounts;
use nix::mount::{MsFlags, mount};
use regex::Regex;
use serde_json::{Value, json};

const NODE: &str = "node-7";
const PATIENCE: Duration = Duration::from_secs(90);

fn uid(index: usize) -> String {
    format!("{:08x}-9f0c-4c29-8a40-6d7a1f7e5a11", 0x0b2e_7d60 + index)
}

fn api() -> ApiServer {
    let api = ApiServer::start();
    api.put(objects::node(NODE));
    api.put(objects::namespace("shop"));
    api
}

/// A pod that waits since so many seconds for the volume of its claim.
fn waiting_pod(index: usize, claim: &str, seconds: u64) -> Value {
    let since = SystemTime::now() - Duration::from_secs(seconds);
    let mut pod = objects::pod("shop", &format!("web-{index}"), &uid(index), NODE);
    pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = json!(claim);
    pod["status"] = json!({"phase": "Pending", "startTime": humantime::format_rfc3339_seconds(since).to_string(),
        "conditions": [{"type": "PodReadyToStartContainers", "status": "False"}],
        "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "ContainerCreating"}}}]});
    pod
}

#[test]
fn what_people_see_of_a_node_with_dead_mounts() {
    let Some(sandbox) = Sandbox::enter("what_people_see_of_a_node_with_dead_mounts") else { return };
    let api = api();
    api.put(objects::claim("shop", "data", "pv-data"));
    api.put(objects::volume("pv-data", "files.example", "/data", ("shop", "data")));
    for index in 0..2 {
        api.put(objects::pod("shop", &format!("web-{index}"), &uid(index), NODE));
    }
    // Nobody listens there any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    api.put(objects::claim("shop", "reports", "pv-reports"));
    let mut volume = objects::volume("pv-reports", "127.0.0.1", "/reports", ("shop", "reports"));
    volume["spec"]["mountOptions"] = json!([format!("port={port}"), "vers=4.1"]);
    api.put(volume);
    api.put(waiting_pod(2, "reports", 90));
    // The same path in each run: it is part of what is shown.
    let kubelet = Path::new("/mnt/kubelet");
    mount(Some("kubelet"), "/mnt", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let volume = |index| kubelet.join(format!("pods/{}/volumes/kubernetes.io~nfs/pv-data", uid(index)));
    let make = |index| {
        std::fs::create_dir_all(volume(index)).unwrap();
        FuseFs::mount(&volume(index), &[])
    };
    let mut daemons = vec![make(0)];
    let config = sandbox.path().join("config.yaml");
    std::fs::write(&config, "interval: 1s\ntimeout: 500ms\nslow: 400ms\n").unwrap();
    let kubeconfig = api.kubeconfig(sandbox.path());
    let log = sandbox.path().join("log");
    let only = format!("{}/**", kubelet.display());
    let flags = ["--config", config.to_str().unwrap(), "--node-name", NODE, "--include-mount", &only];
    let flags = [&flags[..], &["--kubeconfig", kubeconfig.to_str().unwrap()]].concat();
    let mut agent = Launch::new(&flags).log_to(File::create(&log).unwrap()).start();
    // One after the other, so that they get the same labels in each run. The pod of the third is known to nobody.
    for index in [1, 9] {
        daemons.push(make(index));
        agent.eventually(&volume(index), PATIENCE, |_| true);
    }
    for daemon in &mut daemons {
        daemon.order("hang");
    }
    let node_mounts = || api.object("nodemounts", "", NODE).unwrap_or_default();
    eventually("all is said", PATIENCE, || {
        let hung = api.objects("events").iter().filter(|event| event["reason"] == "MountHung").count();
        let pending = api.objects("events").iter().filter(|event| event["reason"] == "MountPending").count();
        let status = &node_mounts()["status"];
        let said = hung == 3 && pending == 1 && status["dead"] == 3 && status["pending"] == 1;
        // Its message follows ten seconds after the one before.
        let condition = api.object("nodes", "", NODE).map(|node| describe_conditions(&node)).unwrap_or_default();
        (said && condition.contains("3 hung") && condition.contains("pods wait for")).then_some(())
    });
    let address = agent.ui_address();
    let status = Command::new(PROGRAM).args(["status", "--address", &address.to_string()]).output().unwrap();
    assert_eq!(status.status.code(), Some(2), "{status:?}");
    let node = api.object("nodes", "", NODE).unwrap();
    let page = [
        ("kubectl get nm", get_node_mounts(&node_mounts())),
        ("kubectl get events -n shop", get_events(&api.objects("events"))),
        ("kubectl describe node node-7", describe_conditions(&node)),
        ("kubectl logs ds/mountwarden | grep 'pod='", log_lines(&std::fs::read_to_string(&log).unwrap())),
        ("kubectl exec ds/mountwarden -- mountwarden status", String::from_utf8(status.stdout).unwrap()),
    ];
    assert!(agent.terminate().0.success());
    let text: String = page.iter().fold(String::new(), |mut text, (command, output)| {
        let _ = write!(text, "$ {command}\n{}\n", output.trim_end());
        text
    });
    same_as_documented(&normal(&text, port));
}

/// Times, ports and what this kernel calls its functions are others in each run.
fn normal(text: &str, port: u16) -> String {
    let mut text = text.replace(&port.to_string(), "2049");
    for (pattern, fixed) in [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "2026-11-21T03:00:00Z"),
        (r"\b\d+(\.\d+)? (s|ms)\b", "0.5 s"),
        // Two columns wide, as their head is three.
        (r"\b(\d\ds|\ds ) ", "4s  "),
        (r"for (\d+s|\dm):", "for 90s:"),
        (r"the worker is in [A-Z]\s+\([^)]*\)", "the worker is in S\n    (request_wait_answer)"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, fixed).into_owned();
    }
    text
}

const BEGIN: &str = "<!-- tests/cluster_agent.rs writes from here -->\n```\n";
const END: &str = "```\n<!-- to here -->";

fn same_as_documented(text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kubernetes.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for it");
    let (documented, after) = rest.split_once(END).expect("the place has an end");
    if std::env::var_os("MOUNTWARDEN_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{text}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(documented, text, "docs/kubernetes.md shows something else; look, then MOUNTWARDEN_BLESS=1");
}

/// The table of an object by `additionalPrinterColumns`, as the API server makes it and kubectl prints it.
fn get_node_mounts(object: &Value) -> String {
    let crd = serde_json::to_value(NodeMounts::crd()).unwrap();
    let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().clone();
    let mut rows = [vec!["NAME".to_owned()], vec![object["metadata"]["name"].as_str().unwrap().to_owned()]];
    for column in columns.iter().filter(|column| column["priority"].as_i64().unwrap_or(0) == 0) {
        rows[0].push(column["name"].as_str().unwrap().to_uppercase());
        let pointer = column["jsonPath"].as_str().unwrap().replace('.', "/");
        let value = object.pointer(&pointer).cloned().unwrap_or_default();
        rows[1].push(match (&value, column["type"].as_str()) {
            (Value::String(time), Some("date")) => age(time),
            (Value::String(text), _) => text.clone(),
            (Value::Null, _) => String::new(),
            (other, _) => other.to_string(),
        });
    }
    table(&rows)
}

fn get_events(events: &[Value]) -> String {
    let mut events = events.to_vec();
    events.sort_by_key(|event| (event["reason"].to_string(), event["regarding"]["name"].to_string()));
    let mut rows = vec![["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned).to_vec()];
    for event in &events {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let about = &event["regarding"];
        let object = format!("{}/{}", text(&about["kind"]).to_lowercase(), text(&about["name"]));
        let last = event["series"]["lastObservedTime"].as_str().unwrap_or(event["eventTime"].as_str().unwrap());
        rows.push(vec![age(last), text(&event["type"]), text(&event["reason"]), object, text(&event["note"])]);
    }
    table(&rows)
}

fn describe_conditions(node: &Value) -> String {
    let mut rows = vec![
        ["  Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"]
            .map(str::to_owned)
            .to_vec(),
        ["  ----", "------", "-----------------", "------------------", "------", "-------"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for condition in node["status"]["conditions"].as_array().unwrap() {
        let text = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
        let words = ["status", "lastHeartbeatTime", "lastTransitionTime", "reason", "message"].map(text);
        rows.push([vec![format!("  {}", text("type"))], words.to_vec()].concat());
    }
    format!("...\nConditions:\n{}...", table(&rows))
}

/// The lines about pods.
fn log_lines(log: &str) -> String {
    let mut lines: Vec<&str> = log.lines().filter(|line| line.contains("pod=")).collect();
    lines.sort_unstable_by_key(|line| line.split_once("pod=").map(|(_, rest)| rest));
    lines.join("\n")
}

fn age(time: &str) -> String {
    let seconds = humantime::parse_rfc3339(time).unwrap().elapsed().unwrap_or_default().as_secs();
    assert!(seconds < 600, "{time}");
    // All are as old: another run takes another time.
    "4s".to_owned()
}

/// Columns three spaces apart, as kubectl's tab writer sets them.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, row| {
        let cells: Vec<String> = (0..columns).map(|at| format!("{:1$}", row[at], width(at))).collect();
        let _ = writeln!(text, "{}", cells.join("   ").trim_end());
        text
    })
}

/// RSS and its peak in kilobytes.
fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (of("VmRSS:"), of("VmHWM:"))
}

#[test]
fn five_hundred_pods_of_twenty_kilobytes_cost_little_memory() {
    let api = api();
    api.put(objects::claim("shop", "data", "pv-data"));
    api.put(objects::volume("pv-data", "files.example", "/data", ("shop", "data")));
    for index in 0..500 {
        let mut pod = objects::pod("shop", &format!("web-{index}"), &uid(index), NODE);
        let filler = "x".repeat(20_000_usize.saturating_sub(pod.to_string().len()));
        pod["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": filler});
        api.put(pod);
    }
    let scratch = tempfile::tempdir().unwrap();
    let kubeconfig = api.kubeconfig(scratch.path());
    // Another build may be measured: a release binary, say.
    let program = std::env::var("MOUNTWARDEN_TEST_PROGRAM").unwrap_or_else(|_| PROGRAM.to_owned());
    let nothing = ["--include-mount", "/nowhere/**", "--node-name", NODE];
    let alone = Launch::under(&[], &program, &nothing).start();
    let flags = [&nothing[..], &["--kubeconfig", kubeconfig.to_str().unwrap()]].concat();
    let agent = Launch::under(&[], &program, &flags).start();
    let known = || agent.scrape().0.lines().any(|line| line == "mountwarden_cluster_pods 500");
    // A debug build on a busy machine may take longer for the list than the agent waits for it.
    eventually("the pods are known", PATIENCE * 3, || known().then_some(()));
    // A change of every pod: the watch must not keep what it read either.
    for index in 0..500 {
        api.modify("pods", "shop", &format!("web-{index}"), |pod| pod["metadata"]["labels"]["round"] = json!("2"));
    }
    let settled = || api.asked_for("GET", "/persistentvolumes/pv-data").len();
    eventually("its volume was read", PATIENCE, || (settled() > 0).then_some(()));
    let ((without, _), (with, peak)) = (memory(alone.id()), memory(agent.id()));
    println!("RSS without a cluster {without} kB, with 500 pods of 20 kB {with} kB, at the peak {peak} kB");
    // Ten megabytes of list are read as a whole; what is kept of them are names.
    assert!(with < without + 40_000 && peak < without + 60_000, "{without} kB, {with} kB, {peak} kB");
}
