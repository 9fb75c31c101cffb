//! Stand-ins for what a cluster does with pods, beside the fake API server: a kubelet that does with volumes what a real
//! one was measured to do, and a controller that makes a new pod for one that goes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::apiserver::{ApiServer, objects};
use crate::guest::shell;

pub(super) const NODE: &str = "lab-node";
pub(super) const NAMESPACE: &str = "shop";
const KUBELET: &str = "/mnt/kubelet";
const CGROUP: &str = "/sys/fs/cgroup/kubepods.slice/kubepods-besteffort.slice";
/// Where the container sees its volume.
pub(super) const IN_CONTAINER: &str = "/mnt/data";
const VOLUME: &str = "pv-data";
/// A real kubelet looks at its pods about once a second; its sync of a deleted pod took 8 s (KUBELET.md 2).
const SYNC: Duration = Duration::from_millis(200);

/// The stand-ins, at work until dropped.
pub(super) struct Cluster {
    pub(super) api: Arc<ApiServer>,
    /// No new pods are made.
    pub(super) no_more_pods: Arc<AtomicBool>,
    /// The kubelet unmounts nothing any more.
    pub(super) kubelet_is_stuck: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cluster {
    /// A node, a namespace that opted in, a volume, and a workload with one replica, which may write all the time.
    pub(super) fn start(server: &str, export: &str, writes: bool) -> Cluster {
        let api = Arc::new(ApiServer::start());
        api.put(objects::node(NODE));
        let mut namespace = objects::namespace(NAMESPACE);
        namespace["metadata"]["annotations"] = json!({"mountwarden.io/remedy": "evict,unstick"});
        api.put(namespace);
        api.put(objects::namespace("mountwarden"));
        api.put(objects::claim(NAMESPACE, "data", VOLUME));
        api.put(objects::volume(VOLUME, server, export, (NAMESPACE, "data")));
        let stop = Arc::new(AtomicBool::new(false));
        let (for_thread, stopped) = (Arc::clone(&api), Arc::clone(&stop));
        let (no_more_pods, kubelet_is_stuck) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (enough, is_stuck) = (Arc::clone(&no_more_pods), Arc::clone(&kubelet_is_stuck));
        let thread = std::thread::spawn(move || {
            let api = Arc::clone(&for_thread);
            let mut kubelet = Kubelet { api, running: BTreeMap::new(), writes, is_stuck };
            let mut controller = Controller { api: for_thread, made: 0, enough };
            while !stopped.load(Ordering::Relaxed) {
                controller.sync();
                if let Err(error) = kubelet.sync() {
                    println!("kubelet: {error:#}");
                }
                std::thread::sleep(SYNC);
            }
        });
        Cluster { api, no_more_pods, kubelet_is_stuck, stop, thread: Some(thread) }
    }

    /// The pods of the workload, oldest first: name, UID, ready, being deleted.
    pub(super) fn pods(&self) -> Vec<(String, String, bool, bool)> {
        let mut pods = self.api.objects("pods");
        pods.sort_by_key(name_of);
        pods.iter().map(|pod| (name_of(pod), uid_of(pod), is_ready(pod), is_terminating(pod))).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn uid_of(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

fn is_terminating(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

/// A ReplicaSet of one replica: a pod that is being deleted counts for nothing any more.
struct Controller {
    api: Arc<ApiServer>,
    made: u32,
    enough: Arc<AtomicBool>,
}

impl Controller {
    fn sync(&mut self) {
        let enough = self.enough.load(Ordering::Relaxed);
        if enough || self.api.objects("pods").iter().any(|pod| !is_terminating(pod)) {
            return;
        }
        self.made += 1;
        let (name, uid) = (format!("web-{}", self.made), format!("0b2e7d6c-9f0c-4c29-8a40-{:012}", self.made));
        let mut pod = objects::pod(NAMESPACE, &name, &uid, NODE);
        let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        pod["metadata"]["creationTimestamp"] = json!(now);
        pod["metadata"]["labels"] = json!({"app": "web"});
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
            "uid": "5a1c0000-0000-4000-8000-000000000001", "controller": true, "blockOwnerDeletion": true}]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": IN_CONTAINER}]);
        pod["spec"]["terminationGracePeriodSeconds"] = json!(2);
        pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]});
        self.api.put(pod);
    }
}

struct Running {
    container: Child,
    volume: PathBuf,
    /// SIGTERM was sent.
    asked_to_end: Option<Instant>,
    /// The kubelet's own look at the volume before it unmounts it.
    look: Option<Child>,
    /// The kubelet's look at how full the volume is, which it takes all the time.
    metrics: Option<Child>,
}

/// What KUBELET.md says of volumes: mounted once, before the container starts; unmounted after the container's end, and
/// only after a stat of the path, which blocks as long as the mount does.
struct Kubelet {
    api: Arc<ApiServer>,
    running: BTreeMap<String, Running>,
    writes: bool,
    is_stuck: Arc<AtomicBool>,
}

impl Kubelet {
    fn sync(&mut self) -> Result<()> {
        for pod in self.api.objects("pods") {
            let uid = uid_of(&pod);
            match (self.running.contains_key(&uid), is_terminating(&pod)) {
                (false, false) => self.start(&pod, &uid).with_context(|| format!("start {}", name_of(&pod)))?,
                (true, true) => self.end(&pod, &uid)?,
                (true, false) => {}
                (false, true) => self.api.remove("pods", NAMESPACE, &name_of(&pod)),
            }
        }
        Ok(())
    }

    fn start(&mut self, pod: &Value, uid: &str) -> Result<()> {
        let volume = PathBuf::from(format!("{KUBELET}/pods/{uid}/volumes/kubernetes.io~nfs/{VOLUME}"));
        let mounted = shell(&format!("MNT={}; client_mount", volume.display()))?.wait()?;
        ensure!(mounted.success(), "mount failed: exit status {mounted}");
        let id = format!("{:064x}", u128::from_str_radix(&uid.replace('-', ""), 16)?);
        let group =
            format!("{CGROUP}/kubepods-besteffort-pod{}.slice/cri-containerd-{id}.scope", uid.replace('-', "_"));
        std::fs::create_dir_all(&group)?;
        std::fs::create_dir_all(IN_CONTAINER)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["guest", "container"]).arg(&volume).args([IN_CONTAINER, &group]);
        command.args(self.writes.then_some("--writes"));
        let container = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        self.running
            .insert(uid.to_owned(), Running { container, volume, asked_to_end: None, look: None, metrics: None });
        let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        self.api.modify("pods", NAMESPACE, &name_of(pod), |pod| {
            pod["status"] = json!({"phase": "Running", "startTime": now, "qosClass": "BestEffort",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
                "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0, "image": "x", "imageID": "x",
                    "containerID": format!("containerd://{id}"), "started": true,
                    "state": {"running": {"startedAt": now}}}]});
        });
        Ok(())
    }

    /// One step towards the end of a pod that is being deleted.
    fn end(&mut self, pod: &Value, uid: &str) -> Result<()> {
        let Some(running) = self.running.get_mut(uid) else { return Ok(()) };
        let grace = Duration::from_secs(pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(2));
        // One thread for the numbers of the volume, however long that takes (KUBELET.md 3).
        if running.metrics.is_none() {
            running.metrics = Some(look(&["-f"], &running.volume)?);
        }
        if running.container.try_wait()?.is_none() {
            let asked = *running.asked_to_end.get_or_insert_with(Instant::now);
            let signal = if asked.elapsed() < grace { nix::sys::signal::SIGTERM } else { nix::sys::signal::SIGKILL };
            // Fails only when it has just ended.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.container.id().try_into()?), signal);
            return Ok(());
        }
        if !mounted(&running.volume)? {
            self.running.remove(uid);
            self.api.remove("pods", NAMESPACE, &name_of(pod));
            return Ok(());
        }
        if self.is_stuck.load(Ordering::Relaxed) {
            return Ok(());
        }
        match &mut running.look {
            None => running.look = Some(look(&[], &running.volume)?),
            Some(child) => {
                if child.try_wait()?.is_none() {
                    return Ok(());
                }
                let mut said = String::new();
                if let Some(errors) = &mut child.stderr {
                    errors.read_to_string(&mut said)?;
                }
                running.look = None;
                // What an abort leaves (errno 512) is no answer: it looks again, and hangs again. "corruptedMnt": any other
                // error but "no such file" is unmounted all the same (k8s.io/mount-utils).
                if !said.contains("512") {
                    let path = running.volume.display();
                    shell(&format!("umount {path} || umount -l {path}"))?.wait()?;
                }
            }
        }
        Ok(())
    }
}

/// The kubelet's own look at a volume.
fn look(options: &[&str], volume: &Path) -> Result<Child> {
    let mut stat = Command::new("stat");
    stat.args(options).arg(volume).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    Ok(stat.stderr(Stdio::piped()).spawn()?)
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        for running in self.running.values_mut() {
            let _ = running.container.kill();
        }
    }
}

fn mounted(path: &Path) -> Result<bool> {
    let table = mountwarden::mounts::table::Table::read(Path::new("/proc"))?;
    Ok(table.mounts.iter().any(|mount| mount.mountpoint == path))
}

/// `guest container VOLUME PATH GROUP`: a process with a mount namespace of its own, in which its volume is bound to PATH
/// as a private copy, that uses it until it is killed.
pub(crate) fn container(volume: &Path, path: &Path, group: &Path, writes: bool) -> Result<()> {
    use nix::mount::{MsFlags, mount};
    std::fs::write(group.join("cgroup.procs"), std::process::id().to_string()).context("enter the group")?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("a mount namespace of its own")?;
    let bind = |flags| mount(Some(volume), path, None::<&str>, flags, None::<&str>);
    bind(MsFlags::MS_BIND).context("bind the volume")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    // As a runtime's pivot_root leaves it: the kubelet's own directory is not seen.
    nix::mount::umount2(volume, nix::mount::MntFlags::MNT_DETACH).context("hide the kubelet's path")?;
    loop {
        // An application that copes with errors, and whose health check does not look at its data.
        let _ = std::fs::read(path.join("f"));
        if writes {
            let _ = std::fs::File::create(path.join("written")).and_then(|file| {
                (&file).write_all(&[b'x'; 4096])?;
                file.sync_all()
            });
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
