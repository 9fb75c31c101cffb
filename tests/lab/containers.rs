//! `containers`: three containers and a service on one export, whose server comes back with another directory, and then the
//! host mounts anew: who is named, with which state, and in which series. Real NFS, real mount namespaces with the kubelet's
//! paths and control groups, the real agent, a fake API server for the names.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use mountwarden::snapshot::{MountStatus, Snapshot};
use mountwarden::verdict::{Cause, Finding, State};
use serde_json::json;

use crate::guest::shell;
use crate::interrupt;
use crate::story::apiserver::{ApiServer, objects};
use crate::surface::{self, AGENT};
use crate::uml::{Heard, Host};

mod ids;
mod keep;
mod kubectl;

pub(crate) use keep::Keep;
use keep::keep;

const NODE: &str = "lab-node";
const NAMESPACE: &str = "shop";
const VOLUME: Volume = Volume { name: "pv-data", claim: "data", directory: "/" };
const KUBELET: &str = "/mnt/kubelet";
const CGROUP: &str = "/sys/fs/cgroup";
/// Where containers see their volume.
const DATA: &str = "/mnt/data";
const BOOT_LIMIT: Duration = Duration::from_secs(900);
/// Each step of the tale: an interval and a deadline of 3 s, 30 s until a container is old enough for its table to be whole,
/// and 60 s between two looks at containers, as the agent spaces them where one takes long: on an emulated CPU of a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

const CONFIG: &str = "\
interval: 3s
timeout: 3s
backoff_max: 6s
canary: {mounts: ['/mnt/kubelet/pods/*/volumes/kubernetes.io~nfs/pv-ids'], interval: 3s}
remedy: {mode: dry-run, grace: 5s}
";

/// How a container's copy of its volume is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Copy {
    /// `mountPropagation: None`: follows nobody.
    Private,
    /// `HostToContainer`: what is mounted below the volume later appears here too.
    Slave,
}

struct Pod {
    name: &'static str,
    uid: &'static str,
    volume: Volume,
    copy: Copy,
    /// Only this directory of the volume is mounted.
    sub_path: Option<&'static str>,
    /// Whom its container runs as, user and group; root where nothing is said.
    user: Option<u32>,
}

/// A claim of the namespace and what it is bound to.
struct Volume {
    name: &'static str,
    claim: &'static str,
    /// This directory of the export.
    directory: &'static str,
}

impl Volume {
    fn put(&self, api: &ApiServer) {
        let three = std::env::var("LAB_VERSION").is_ok_and(|version| version == "3");
        let export =
            if three { format!("/mnt/exp{}", self.directory.trim_end_matches('/')) } else { self.directory.into() };
        api.put(objects::claim(NAMESPACE, self.claim, self.name));
        api.put(objects::volume(self.name, "10.0.1.1", &export, (NAMESPACE, self.claim)));
    }
}

const PODS: [Pod; 3] = [
    web("web-0", "0b2e7d6c-9f0c-4c29-8a40-000000000001", Copy::Private, None),
    web("web-1", "0b2e7d6c-9f0c-4c29-8a40-000000000002", Copy::Slave, None),
    web("web-2", "0b2e7d6c-9f0c-4c29-8a40-000000000003", Copy::Private, Some("d")),
];

const fn web(name: &'static str, uid: &'static str, copy: Copy, sub_path: Option<&'static str>) -> Pod {
    Pod { name, uid, volume: VOLUME, copy, sub_path, user: None }
}

const SERVICE: &str = "backup.service";

/// On the host.
pub(crate) fn run(agent: &Path, versions: &[String]) -> Result<bool> {
    interrupt::take()?;
    let host = Host::new(agent)?;
    let mut good = true;
    let all = ["4.1".to_owned(), "3".to_owned()];
    for version in if versions.is_empty() { &all } else { versions } {
        println!("NFS {version}");
        let arguments = vec![format!("LAB_VERSION={version}")];
        let heard = host.hear("containers", "guest/containers.sh", arguments, BOOT_LIMIT);
        match heard.and_then(Heard::story) {
            Ok(told) => print!("{told}"),
            Err(error) => {
                good = false;
                println!("  FAILED: {error:#}");
            }
        }
    }
    Ok(good)
}

/// In the guest.
pub(crate) fn tell() -> Result<()> {
    let api = ApiServer::start();
    api.put(objects::node(NODE));
    api.put(objects::namespace(NAMESPACE));
    VOLUME.put(&api);
    let mut running = Vec::new();
    for pod in &PODS {
        pod.mount_volume()?;
        running.push(pod.start(&api, true)?);
    }
    let mut service = keep(&format!("{CGROUP}/system.slice/{SERVICE}"), &["--hold"])?;
    // After the service, which is to have no copy of these.
    let mut strangers = ids::start(&api)?;
    let log = File::create("/run/out/agent.log")?;
    std::fs::write("/run/containers.yaml", CONFIG)?;
    let mut command = Command::new(AGENT);
    command.args(["run", "--config", "/run/containers.yaml", "--node-name", NODE, "--kubeconfig"]);
    command.arg(api.kubeconfig(Path::new("/run"))).args([
        "--listen",
        "127.0.0.1:12049",
        "--listen-ui",
        "127.0.0.1:12050",
    ]);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    let mut agent = command.spawn().context("start the agent")?;
    let told = ids::follow(&api, &mut strangers).and_then(|()| follow(&api, &mut running));
    for child in running.iter_mut().chain(&mut strangers).chain([&mut agent, &mut service]) {
        // Fails only when it has ended.
        let _ = child.kill();
        let _ = child.wait();
    }
    told?;
    println!("the end");
    Ok(())
}

fn follow(api: &ApiServer, running: &mut [Child]) -> Result<()> {
    let begin = Instant::now();
    let said = |what: &str| println!("\n== {:.1} s: {what}", begin.elapsed().as_secs_f64());
    let all_are = |state: State| move |snapshot: &Snapshot| PODS.iter().all(|pod| pod.seen(snapshot) == Some(state));
    until("every pod is named on a healthy mount", all_are(State::Healthy))?;
    said("all is well");
    // The agent is to have learned entries, and to have looked at them once more.
    std::thread::sleep(Duration::from_secs(7));
    check()?;

    // The old tree goes too: the handle of a directory in it would lead there for ever.
    let fault = "fault swap_dir_filled && rm -rf $STORE/a";
    ensure!(shell(fault)?.wait()?.success(), "the fault cannot be made");
    said("the server is back, with another directory");
    until("every pod is named on a stale mount", all_are(State::Stale))?;
    until("the service is named", |snapshot| held(snapshot).any(|mount| mount.state == State::Stale))?;
    said("every container is known to be dead");
    check()?;
    show("status", &["status"])?;

    for pod in &PODS {
        pod.mount_anew()?;
    }
    said("the host has mounted anew: umount -l, mount");
    let on_host = |snapshot: &Snapshot, pod: &Pod| at(snapshot, &pod.volume()).map(|mount| mount.state);
    until("the host's mounts are healthy", |snapshot| {
        PODS.iter().all(|pod| on_host(snapshot, pod) == Some(State::Healthy))
    })?;
    let lost = |mount: &MountStatus| (mount.state, mount.cause) == (State::Lost, Some(Cause::RemountedOnHost));
    let all_lost = |snapshot: &Snapshot| PODS.iter().all(|pod| pod.on(snapshot).any(lost));
    until("every container is lost, remounted_on_host", all_lost)?;
    until("the service's copy too", |snapshot| held(snapshot).any(lost))?;
    said("the host is healthy, the containers are lost");
    let snapshot = surface::snapshot().context("no snapshot")?;
    let triples: BTreeSet<_> = snapshot.mounts.iter().map(|m| (&m.mountpoint, &m.source, &m.fstype)).collect();
    ensure!(triples.len() == snapshot.mounts.len(), "two mounts have the same labels: {triples:?}");
    check()?;
    show("status", &["status"])?;
    metrics()?;
    cluster(api)?;
    rescues(api)?;

    let [first, second, third] = running else { bail!("not three containers") };
    // As the kubelet does once the pod was deleted and made anew: another container, on what the host has now.
    PODS[0].restart(first, api, true)?;
    said("web-0 has a new container");
    until("its new container is healthy", |snapshot| {
        PODS[0].seen(snapshot) == Some(State::Healthy) && !PODS[0].on(snapshot).any(lost)
    })?;
    until("the others are lost as before", |snapshot| PODS[1..].iter().all(|pod| pod.on(snapshot).any(lost)))?;
    said("web-0 is healthy again, the others are not");
    show("status", &["status"])?;

    let is = |pod: &'static Pod, cause| {
        move |snapshot: &Snapshot| {
            let mut mounts = snapshot.mounts.iter().filter(|mount| pod.uses(mount));
            mounts.any(|mount| (mount.state, pod.cause(mount)) == (State::Lost, Some(cause)))
        }
    };
    let unmount = format!("umount -l {}", PODS[1].volume().display());
    ensure!(shell(&unmount)?.wait()?.success(), "cannot unmount");
    said("the host has unmounted web-1's volume alone");
    // The old copies are one target, and of the service's copy of web-0's volume the host has a new mount.
    until("web-1 is lost, unmounted_on_host, beside what is remounted_on_host", |snapshot| {
        is(&PODS[1], Cause::UnmountedOnHost)(snapshot)
            && is(&PODS[2], Cause::RemountedOnHost)(snapshot)
            && held(snapshot).any(lost)
    })?;
    show("status", &["status"])?;
    for pod in [&PODS[0], &PODS[2]] {
        ensure!(shell(&format!("umount -l {}", pod.volume().display()))?.wait()?.success(), "cannot unmount");
    }
    said("the host has unmounted the others too");
    until("web-1 is lost, unmounted_on_host", is(&PODS[1], Cause::UnmountedOnHost))?;
    PODS[1].restart(second, api, true)?;
    said("web-1 has a new container, on the directory that is left");
    until("web-1 writes to the node's disk", |snapshot| {
        // By the path that a person on the host needs to save what was written.
        let on_disk = |mount: &&MountStatus| {
            mount.findings.contains(&Finding::OnNodeDisk)
                && PODS[1].uses(mount)
                && mount.advice.contains(&format!("`{}`", PODS[1].volume().display()))
        };
        is(&PODS[1], Cause::UnmountedOnHost)(snapshot) && snapshot.mounts.iter().any(|mount| on_disk(&mount))
    })?;
    PODS[2].restart(third, api, false)?;
    said("web-2 has a new container, without its volume");
    until("web-2 is lost, mount_missing", is(&PODS[2], Cause::MountMissing))?;
    check()?;
    show("status --plan", &["status", "--plan"])?;
    show("status", &["status"])?;
    lines()
}

impl Pod {
    fn volume(&self) -> PathBuf {
        PathBuf::from(format!("{KUBELET}/pods/{}/volumes/kubernetes.io~nfs/{}", self.uid, self.volume.name))
    }

    fn sub_path_mount(&self) -> PathBuf {
        PathBuf::from(format!("{KUBELET}/pods/{}/volume-subpaths/{}/app/0", self.uid, self.volume.name))
    }

    fn id(&self, generation: u32) -> String {
        let digit = self.uid.chars().last().unwrap_or('0');
        format!("{generation:x}{}", digit.to_string().repeat(63))
    }

    /// What the kubelet does before it starts a container.
    fn mount_volume(&self) -> Result<()> {
        let volume = self.volume();
        ensure!(
            shell(&format!("MNT={}; SUBPATH={}; client_mount", volume.display(), self.volume.directory))?
                .wait()?
                .success(),
            "cannot mount the volume"
        );
        if let Some(sub_path) = self.sub_path {
            let (from, to) = (volume.join(sub_path), self.sub_path_mount());
            std::fs::create_dir_all(&to)?;
            let bind = format!("mount --bind {} {}", from.display(), to.display());
            ensure!(shell(&bind)?.wait()?.success(), "cannot bind the subPath");
        }
        Ok(())
    }

    /// What an administrator does by hand; the kubelet never does it for a pod that lives.
    fn mount_anew(&self) -> Result<()> {
        let volume = self.volume();
        let sub_path = self.sub_path.map(|_| format!("umount -l {};", self.sub_path_mount().display()));
        let script = format!(
            "{} umount -l {path}; MNT={path}; client_mount",
            sub_path.unwrap_or_default(),
            path = volume.display()
        );
        ensure!(shell(&script)?.wait()?.success(), "cannot mount {} anew", volume.display());
        Ok(())
    }

    /// Another container in place of this one.
    fn restart(&self, container: &mut Child, api: &ApiServer, with_volume: bool) -> Result<()> {
        container.kill()?;
        container.wait()?;
        *container = self.start(api, with_volume)?;
        Ok(())
    }

    /// A container on what the host has now.
    fn start(&self, api: &ApiServer, with_volume: bool) -> Result<Child> {
        let known = api.object("pods", NAMESPACE, self.name);
        let generation = u32::from(known.is_some());
        let id = self.id(generation);
        let slice = format!("kubepods-besteffort-pod{}.slice", self.uid.replace('-', "_"));
        let group = format!("{CGROUP}/kubepods.slice/kubepods-besteffort.slice/{slice}/cri-containerd-{id}.scope");
        let from = if self.sub_path.is_some() { self.sub_path_mount() } else { self.volume() };
        std::fs::create_dir_all(DATA)?;
        let copy = self.copy.to_possible_value().context("a way to copy")?.get_name().to_owned();
        let from = from.display().to_string();
        let volume: &[&str] =
            if with_volume { &["--volume", &from, "--at", DATA, "--copy", &copy] } else { &["--bare"] };
        let user = self.user.map(|user| format!("--user={user}"));
        let arguments: Vec<&str> = volume.iter().copied().chain(user.as_deref()).collect();
        let child = keep(&group, &arguments)?;
        let mut pod = objects::pod(NAMESPACE, self.name, self.uid, NODE);
        let mount = json!({"name": "data", "mountPath": DATA, "subPath": self.sub_path.unwrap_or_default()});
        pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": self.volume.claim}}]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([mount]);
        let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        pod["status"] = json!({"phase": "Running", "startTime": now, "qosClass": "BestEffort",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
            "containerStatuses": [{"name": "app", "ready": true, "restartCount": generation, "image": "x", "imageID": "x",
                "containerID": format!("containerd://{id}"), "started": true, "state": {"running": {"startedAt": now}}}]});
        api.put(pod);
        Ok(child)
    }

    /// It is named as a user.
    fn uses(&self, mount: &MountStatus) -> bool {
        mount.users.iter().any(|user| user.pod.as_deref() == Some(self.name) && user.path.as_deref() == Some(DATA))
    }

    /// Why the mount is not well for its container.
    fn cause(&self, mount: &MountStatus) -> Option<Cause> {
        let own = mount.users.iter().filter(|user| user.pod.as_deref() == Some(self.name));
        own.filter_map(|user| user.cause).next().or(mount.cause)
    }

    /// The mounts that a container of it has.
    fn on<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a MountStatus> + use<'a> {
        let (name, sub_path) = (self.name, self.sub_path);
        snapshot.mounts.iter().filter(move |mount| {
            mount.users.iter().any(|user| {
                let named = user.namespace.as_deref() == Some(NAMESPACE) && user.pod.as_deref() == Some(name);
                let there = user.path.as_deref() == Some(DATA) && user.sub_directory.as_deref() == sub_path;
                named && there && user.volume == "data" && user.claim.as_deref() == Some("data")
            })
        })
    }

    /// The state of the one that it has.
    fn seen(&self, snapshot: &Snapshot) -> Option<State> {
        self.on(snapshot).map(|mount| mount.state).next()
    }
}

/// Mounts of which the service holds a copy.
fn held(snapshot: &Snapshot) -> impl Iterator<Item = &MountStatus> {
    snapshot.mounts.iter().filter(|mount| mount.holders.iter().any(|holder| holder.who == SERVICE))
}

fn at<'a>(snapshot: &'a Snapshot, path: &Path) -> Option<&'a MountStatus> {
    let path = path.to_str()?;
    snapshot.mounts.iter().find(|mount| mount.paths.iter().any(|one| one == path) && mount.dev != "0:0")
}

fn until(what: &str, condition: impl Fn(&Snapshot) -> bool) -> Result<()> {
    let begin = Instant::now();
    loop {
        let snapshot = surface::snapshot();
        if snapshot.as_ref().is_some_and(&condition) {
            return Ok(());
        }
        if begin.elapsed() >= LIMIT {
            let users = surface::snapshot().map(|snapshot| {
                let of = |mount: MountStatus| (mount.mountpoint, mount.state, mount.users, mount.holders);
                (snapshot.agent.evidence, snapshot.mounts.into_iter().map(of).collect::<Vec<_>>())
            });
            show("status", &["status"])?;
            println!("{users:#?}");
            bail!("not so after {LIMIT:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// `check` answers within a deadline and a few seconds, whatever the mounts do (4 s are the emulated CPU's).
fn check() -> Result<()> {
    let begin = Instant::now();
    show("check", &["check"])?;
    let took = begin.elapsed();
    println!("   ({:.1} s)", took.as_secs_f64());
    ensure!(took < Duration::from_secs(5 + 3 + 4), "check took {took:?}");
    Ok(())
}

fn show(title: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(AGENT).args(arguments).output()?;
    println!("$ mountwarden {title}\n{}", String::from_utf8_lossy(&output.stdout));
    print!("{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The series of what is not well.
fn metrics() -> Result<()> {
    let body = surface::metrics()?;
    let wanted = ["mountwarden_pod_mount_state{", "mountwarden_mount_cause{", "mountwarden_mount_pods{"];
    println!("$ curl /metrics | grep -E 'pod_mount_state|mount_cause|mount_pods'");
    let lines: Vec<&str> = body.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).collect();
    lines.iter().for_each(|line| println!("{line}"));
    let unique: BTreeSet<&str> =
        lines.iter().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series).collect();
    ensure!(unique.len() == lines.len(), "a series is there twice");
    let pods = |line: &&&str| line.contains("pod_mount_state") && line.contains("state=\"lost\"");
    ensure!(lines.iter().filter(pods).count() == PODS.len(), "not every pod has its series");
    Ok(())
}

/// What people see with kubectl, once it says so.
fn cluster(api: &ApiServer) -> Result<()> {
    let begin = Instant::now();
    let events = || -> Vec<String> {
        let of = |event: &serde_json::Value| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let about = &event["regarding"];
            format!(
                "{} {}/{}: {}",
                text(&event["reason"]),
                text(&about["kind"]),
                text(&about["name"]),
                text(&event["note"])
            )
        };
        api.objects("events").iter().map(of).collect()
    };
    let told = |events: &[String]| {
        PODS.iter().all(|pod| {
            events.iter().any(|event| event.starts_with("MountLost") && event.contains(&format!("Pod/{}:", pod.name)))
        })
    };
    while !told(&events()) {
        ensure!(begin.elapsed() < LIMIT, "no Event for every pod: {:?}", events());
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("$ kubectl get events");
    events().iter().for_each(|event| println!("{event}"));
    // Both are written ten seconds apart at most.
    let object = |plural| api.object(plural, "", NODE).unwrap_or_default();
    let lost = || {
        let status = &object("nodemounts")["status"];
        let told = kubectl::condition(&object("nodes")).is_some_and(|condition| {
            condition["message"].as_str().is_some_and(|words| words.contains("lost (remounted_on_host)"))
        });
        told && status["worst"] == "lost" && status["cause"] == "remounted_on_host"
    };
    while !lost() {
        ensure!(begin.elapsed() < LIMIT, "condition or NodeMounts do not say it: {}", object("nodemounts"));
        std::thread::sleep(Duration::from_millis(200));
    }
    kubectl::conditions(&api.object("nodes", "", NODE).context("no node")?);
    kubectl::node_mounts(&api.object("nodemounts", "", NODE).context("no NodeMounts")?);
    Ok(())
}

/// Restarting the pods helps, and the agent asks for that: the gate was open for what only containers have.
fn rescues(api: &ApiServer) -> Result<()> {
    let begin = Instant::now();
    let asked = || -> Vec<serde_json::Value> {
        let object = api.object("nodemounts", "", NODE).unwrap_or_default();
        let requests = object["status"]["requests"].as_array().cloned().unwrap_or_default();
        requests.into_iter().filter(|request| request["cause"] == "remounted_on_host").collect()
    };
    let of = |pod: &Pod| asked().into_iter().find(|request| request["pod"] == pod.name);
    // The gate takes two trial mounts, and NodeMounts is written every ten seconds at most.
    while !PODS.iter().all(|pod| of(pod).is_some()) {
        ensure!(begin.elapsed() < LIMIT, "no rescue asked for every pod: {:#?}", asked());
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("$ kubectl get nm {NODE} -o jsonpath={{.status.requests}}");
    for request in PODS.iter().filter_map(of) {
        let gate = &request["gate"];
        println!("{} {} {}: {} {}", request["pod"], request["volume"], request["state"], gate["root"], gate["words"]);
    }
    Ok(())
}

/// The agent's log, as `kubectl logs | grep shop/web-` finds it.
fn lines() -> Result<()> {
    println!("$ kubectl logs ds/mountwarden | grep -E 'ERROR|shop/web-'");
    let log = std::fs::read_to_string("/run/out/agent.log")?;
    log.lines().filter(|line| line.contains("ERROR") || line.contains("shop/web-")).for_each(|line| println!("{line}"));
    Ok(())
}
