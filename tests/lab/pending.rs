//! `pending`: a pod that does not start because its volume cannot be mounted. A stand-in for the kubelet calls the real
//! mount(8) again and again, as a kubelet does; the real agent has to say why, in every place, and mount nothing itself.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::guest::shell;
use crate::interrupt;
use crate::story::apiserver::{ApiServer, objects};
use crate::story::until;
use crate::surface::{self, AGENT};
use crate::uml::Host;

const LIMIT: Duration = Duration::from_secs(300);
/// 30 s that a pod must have waited, and the questions to its server.
const PROMISED: Duration = Duration::from_secs(60);
const NODE: &str = "lab-node";
const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-000000000001";
const VOLUME: &str = "/mnt/kubelet/pods/0b2e7d6c-9f0c-4c29-8a40-000000000001/volumes/kubernetes.io~nfs/pv-data";

/// Version, fault, the server as the volume names it, and the cause that has to be said.
#[rustfmt::skip]
const CASES: [(&str, &str, &str); 7] = [
    ("4.1", "port_dropped", "server_unreachable"),
    ("4.1", "unexport", "export_gone"),
    ("4.1", "name_gone", "dns_failed"),
    ("4.1", "refused", "server_refused"),
    ("4.1", "process_stopped", "server_unresponsive"),
    ("3", "drop", "server_unreachable"),
    ("3", "mountd_stopped", "server_unresponsive"),
];

/// On the host.
pub(crate) fn run(agent: &Path, only: Option<&regex::Regex>) -> Result<bool> {
    interrupt::take()?;
    let host = Host::new(agent)?;
    let mut good = true;
    for (version, fault, cause) in CASES {
        let name = format!("{version}-{fault}");
        if only.is_some_and(|only| !only.is_match(&name)) {
            continue;
        }
        println!("{name}");
        match boot(&host, version, fault, cause) {
            Ok(told) => print!("{told}"),
            Err(error) => {
                good = false;
                println!("  FAILED: {error:#}");
            }
        }
    }
    Ok(good)
}

fn boot(host: &Host, version: &str, fault: &str, cause: &str) -> Result<String> {
    let arguments = vec![format!("LAB_VERSION={version}"), format!("LAB_FAULT={fault}"), format!("LAB_CAUSE={cause}")];
    host.hear("pending", "guest/pending.sh", arguments, LIMIT)?.story()
}

/// In the guest.
pub(crate) fn tell(fault: &str, cause: &str) -> Result<()> {
    let v3 = std::env::var("LAB_VERSION").is_ok_and(|version| version == "3");
    let (export, options) = if v3 {
        ("/mnt/exp", vec!["vers=3", "nolock", "proto=tcp", "mountproto=tcp", "mountport=20048", "port=2049"])
    } else {
        ("/", vec!["vers=4.1", "timeo=10", "retrans=2"])
    };
    let server = if fault == "name_gone" { "nfs-server" } else { "10.0.1.1" };
    let api = ApiServer::start();
    api.put(objects::node(NODE));
    api.put(objects::namespace("shop"));
    api.put(objects::claim("shop", "data", "pv-data"));
    let mut volume = objects::volume("pv-data", server, export, ("shop", "data"));
    volume["spec"]["mountOptions"] = json!(options);
    api.put(volume);
    std::fs::write("/run/pending.yaml", "log: {format: json}\n")?;
    let log = File::create("/run/out/agent.log")?;
    let mut command = Command::new(AGENT);
    command.args(["run", "--config", "/run/pending.yaml", "--node-name", NODE, "--kubeconfig"]);
    command.arg(api.kubeconfig(Path::new("/run"))).args(["--listen", "127.0.0.1:12049"]);
    command.args(["--listen-ui", "127.0.0.1:12050"]).current_dir("/").stdin(Stdio::null());
    let mut agent = command.stdout(log.try_clone()?).stderr(log).spawn().context("start the agent")?;
    let told = follow(&api, fault, cause, &format!("{server}:{export}"), &options.join(","));
    // Fails only when it has ended, which the log explains.
    let _ = agent.kill();
    let _ = agent.wait();
    told?;
    println!("the end");
    Ok(())
}

fn follow(api: &ApiServer, fault: &str, cause: &str, source: &str, options: &str) -> Result<()> {
    until(PROMISED, "the agent is not ready", || Ok(surface::snapshot().is_some_and(|snapshot| snapshot.ready)))?;
    ensure!(shell(&format!("fault {fault}"))?.wait()?.success(), "the fault cannot be made");
    api.put(pod());
    let begin = Instant::now();
    let said = |what: &str| println!("  {:>6.1} s  {what}", begin.elapsed().as_secs_f64());
    said(&format!("a pod is to start, and {fault} stands in the way"));
    let mut kubelet = kubelet(source, options)?;
    let result = watch(api, cause, begin, &said).and_then(|()| {
        ensure!(shell(&format!("heal {fault}"))?.wait()?.success(), "the fault cannot be healed");
        said("mended");
        until(LIMIT / 2, "the kubelet's mount does not succeed", || mounted(VOLUME))?;
        said("the kubelet's mount succeeded");
        until(PROMISED, "nobody says that it is mounted", || Ok(!events(api, "MountRecovered").is_empty()))?;
        said(&format!("Event MountRecovered: {}", events(api, "MountRecovered")[0]));
        let object = || Ok(api.object("nodemounts", "", NODE).unwrap_or_default()["status"]["pending"] == 0);
        until(PROMISED, "NodeMounts still counts the pod", object)
    });
    // Its mount may be stuck in the kernel; the guest ends all the same.
    let _ = killpg(Pid::from_raw(kubelet.id().try_into()?), Signal::SIGKILL);
    if result.is_ok() {
        let _ = kubelet.wait();
    }
    result
}

fn watch(api: &ApiServer, cause: &str, begin: Instant, said: &impl Fn(&str)) -> Result<()> {
    let known = || Ok(!events(api, "MountPending").is_empty());
    until(PROMISED, "no Event says why the pod waits", known)?;
    let note = events(api, "MountPending").remove(0);
    said(&format!("Event MountPending on pod/web-1: {note}"));
    ensure!(begin.elapsed() <= PROMISED, "that is later than {PROMISED:?}");
    ensure!(note.contains(&format!(": {cause}.")), "the Event does not say {cause}");
    let status = || api.object("nodemounts", "", NODE).unwrap_or_default()["status"].clone();
    until(PROMISED, "NodeMounts does not count the pod", || Ok(status()["pending"] == 1))?;
    said(&format!("NodeMounts: {}", status()["waiting"]));
    ensure!(status()["waiting"][0]["cause"] == cause, "another cause in NodeMounts");
    let snapshot = surface::snapshot().context("the agent answers")?;
    ensure!(snapshot.pending.first().is_some_and(|row| row.pod == "web-1" && row.blocked), "not in the JSON");
    for mount in &snapshot.kubelet_mounts {
        said(&format!("kubelet's mount: {}", serde_json::to_string(mount)?));
        ensure!(mount.by == "kubelet", "started by somebody else");
    }
    let metrics = surface::metrics()?;
    let series = metrics.lines().find(|line| line.starts_with("mountwarden_volume_pending_since"));
    said(series.context("no series of the volume")?);
    let log = std::fs::read_to_string("/run/out/agent.log")?;
    let line = log.lines().find(|line| line.contains("shop/web-1") && line.contains(cause));
    said(line.context("no log line of shop/web-1")?);
    ensure!(!mounted(VOLUME)? && network_mounts()? == 0, "something is mounted");
    Ok(())
}

/// As the API has a pod that the kubelet accepted a moment ago (Kubernetes 1.29 and later).
fn pod() -> Value {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let mut pod = objects::pod("shop", "web-1", UID, NODE);
    pod["status"] = json!({"phase": "Pending", "startTime": now, "qosClass": "BestEffort",
        "conditions": [
            {"type": "PodReadyToStartContainers", "status": "False", "lastTransitionTime": now},
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": now}],
        "containerStatuses": [{"name": "app", "ready": false, "restartCount": 0, "image": "x", "imageID": "",
            "started": false, "state": {"waiting": {"reason": "ContainerCreating"}}}]});
    pod
}

/// A process named kubelet that mounts the volume, and tries again when that fails.
fn kubelet(source: &str, options: &str) -> Result<Child> {
    let script = format!(
        "printf kubelet >/proc/$$/comm; mkdir -p {VOLUME}; until mount -t nfs -o {options} {source} {VOLUME}; do sleep 2; done"
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir("/").stdin(Stdio::null()).process_group(0);
    let log = File::create("/run/kubelet.log")?;
    command.stdout(log.try_clone()?).stderr(log).spawn().context("start the stand-in of the kubelet")
}

fn mounted(path: &str) -> Result<bool> {
    let table = mountwarden::mounts::table::Table::read(Path::new("/proc"))?;
    Ok(table.mounts.iter().any(|mount| mount.mountpoint == Path::new(path)))
}

fn network_mounts() -> Result<usize> {
    let table = mountwarden::mounts::table::Table::read(Path::new("/proc"))?;
    Ok(table.mounts.iter().filter(|mount| mount.kind.is_some_and(mountwarden::mounts::Kind::is_nfs)).count())
}

fn events(api: &ApiServer, reason: &str) -> Vec<String> {
    let all = api.objects("events");
    let of = |event: &&Value| event["reason"] == reason && event["regarding"]["name"] == "web-1";
    all.iter().filter(of).filter_map(|event| event["note"].as_str().map(str::to_owned)).collect()
}
