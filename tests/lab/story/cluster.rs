//! Stand-ins for what a cluster does with pods, beside the fake API server: a kubelet that does with volumes what a real
//! one was measured to do, and a controller that makes a new pod for one that goes.

use std::collections::BTreeMap;
use std::io::Read;
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
const IN_CONTAINER: &str = "/run/data";
const VOLUME: &str = "pv-data";
/// The directory of the volume that a pod with a subPath has.
const SUB_PATH: &str = "d";
/// A real kubelet looks at its pods about once a second; its sync of a deleted pod took 8 s (KUBELET.md 2).
const SYNC: Duration = Duration::from_millis(200);

/// What runs in the cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workload {
    /// Pods at a time.
    pub(super) replicas: u32,
    /// Files that each of them writes all the time, and waits for.
    pub(super) files: u32,
    /// They have a directory of the volume alone.
    pub(super) sub_path: bool,
}

impl Workload {
    /// One pod that only reads.
    pub(super) const READER: Workload = Workload { replicas: 1, files: 0, sub_path: false };
}

/// Where the kubelet has a pod's volume.
pub(super) fn volume_of(uid: &str) -> PathBuf {
    PathBuf::from(format!("{KUBELET}/pods/{uid}/volumes/kubernetes.io~nfs/{VOLUME}"))
}

/// Where it has the directory of a subPath.
pub(super) fn sub_path_of(uid: &str) -> PathBuf {
    PathBuf::from(format!("{KUBELET}/pods/{uid}/volume-subpaths/{VOLUME}/app/0"))
}

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
    /// A node, a namespace that opted in, a volume, and a workload.
    pub(super) fn start(server: &str, export: &str, workload: Workload) -> Cluster {
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
            let mut kubelet = Kubelet { api, running: BTreeMap::new(), workload, is_stuck };
            let mut controller = Controller { api: for_thread, made: 0, replicas: workload.replicas, enough };
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

/// A ReplicaSet: a pod that is being deleted counts for nothing any more.
struct Controller {
    api: Arc<ApiServer>,
    made: u32,
    replicas: u32,
    enough: Arc<AtomicBool>,
}

impl Controller {
    fn sync(&mut self) {
        let there = self.api.objects("pods").iter().filter(|pod| !is_terminating(pod)).count();
        if !self.enough.load(Ordering::Relaxed) {
            (there..usize::try_from(self.replicas).unwrap_or(usize::MAX)).for_each(|_| self.make());
        }
    }

    fn make(&mut self) {
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
    /// Its mounts on the node, in the order in which they are taken away.
    mounts: Vec<PathBuf>,
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
    workload: Workload,
    is_stuck: Arc<AtomicBool>,
}

impl Kubelet {
    fn sync(&mut self) -> Result<()> {
        let pods: BTreeMap<String, Value> =
            self.api.objects("pods").into_iter().map(|pod| (uid_of(&pod), pod)).collect();
        for (uid, pod) in &pods {
            match (self.running.contains_key(uid), is_terminating(pod)) {
                (false, false) => self.start(pod, uid).with_context(|| format!("start {}", name_of(pod)))?,
                (false, true) => self.api.remove("pods", NAMESPACE, &name_of(pod)),
                (true, _) => {}
            }
        }
        let all: Vec<String> = self.running.keys().cloned().collect();
        for uid in all {
            match pods.get(&uid) {
                Some(pod) if !is_terminating(pod) => {}
                // One that was deleted by force is ended all the same.
                pod => self.end(pod, &uid)?,
            }
        }
        Ok(())
    }

    fn start(&mut self, pod: &Value, uid: &str) -> Result<()> {
        let volume = volume_of(uid);
        let mounted = shell(&format!("MNT={}; client_mount", volume.display()))?.wait()?;
        ensure!(mounted.success(), "mount failed: exit status {mounted}");
        let mut mounts = vec![volume.clone()];
        if self.workload.sub_path {
            let (from, to) = (volume.join(SUB_PATH), sub_path_of(uid));
            std::fs::create_dir_all(&to)?;
            nix::mount::mount(Some(&from), &to, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)?;
            mounts.insert(0, to);
        }
        let id = format!("{:064x}", u128::from_str_radix(&uid.replace('-', ""), 16)?);
        let group =
            format!("{CGROUP}/kubepods-besteffort-pod{}.slice/cri-containerd-{id}.scope", uid.replace('-', "_"));
        std::fs::create_dir_all(&group)?;
        std::fs::create_dir_all(IN_CONTAINER)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["guest", "container"]).arg(&mounts[0]).args([IN_CONTAINER, &group]);
        command.arg(self.workload.files.to_string());
        let container = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        self.running
            .insert(uid.to_owned(), Running { container, mounts, asked_to_end: None, look: None, metrics: None });
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

    /// One step towards the end of a pod that is being deleted, or of one that the API server has no more.
    fn end(&mut self, pod: Option<&Value>, uid: &str) -> Result<()> {
        let Some(running) = self.running.get_mut(uid) else { return Ok(()) };
        let grace = pod.and_then(|pod| pod["metadata"]["deletionGracePeriodSeconds"].as_u64());
        let grace = Duration::from_secs(grace.unwrap_or_default());
        // One thread for the numbers of the volume, however long that takes (KUBELET.md 3).
        if let (None, Some(volume)) = (&running.metrics, running.mounts.last()) {
            running.metrics = Some(look(&["-f"], volume)?);
        }
        if running.container.try_wait()?.is_none() {
            let asked = *running.asked_to_end.get_or_insert_with(Instant::now);
            let signal = if asked.elapsed() < grace { nix::sys::signal::SIGTERM } else { nix::sys::signal::SIGKILL };
            // Fails only when it has just ended.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.container.id().try_into()?), signal);
            return Ok(());
        }
        let Some(first) = first_mounted(&running.mounts)? else {
            self.running.remove(uid);
            if let Some(pod) = pod {
                self.api.remove("pods", NAMESPACE, &name_of(pod));
            }
            return Ok(());
        };
        if self.is_stuck.load(Ordering::Relaxed) {
            return Ok(());
        }
        match &mut running.look {
            None => running.look = Some(look(&[], &first)?),
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
                    let path = first.display();
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

fn first_mounted(paths: &[PathBuf]) -> Result<Option<PathBuf>> {
    let table = mountwarden::mounts::table::Table::read(Path::new("/proc"))?;
    let is_mounted = |path: &&PathBuf| table.mounts.iter().any(|mount| mount.mountpoint == **path);
    Ok(paths.iter().find(is_mounted).cloned())
}

/// `guest container VOLUME PATH GROUP FILES`: a process with a mount namespace of its own, in which its volume is bound to
/// PATH as a private copy, that uses it until it is killed.
pub(crate) fn container(volume: &Path, path: &Path, group: &Path, files: u32) -> Result<()> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    std::fs::write(group.join("cgroup.procs"), std::process::id().to_string()).context("enter the group")?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("a mount namespace of its own")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some(volume), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("bind the volume")?;
    // As a runtime's pivot_root leaves it: nothing of the kubelet's directory is seen.
    umount2("/mnt", MntFlags::MNT_DETACH).context("hide the node's directories")?;
    let open = |number: u32| std::fs::File::create(path.join(format!("written-{}-{number}", std::process::id())));
    let written: Vec<std::fs::File> = (0..files).map(open).collect::<std::io::Result<_>>().context("open files")?;
    loop {
        // An application that copes with errors, and whose health check does not look at its data. One that writes is stuck in
        // that, with all its files dirty, and not in its reads.
        let _ = if written.is_empty() { std::fs::read(path.join("f")).map(drop) } else { write_all(&written) };
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// All of them, and then waits until that is on stable storage.
fn write_all(files: &[std::fs::File]) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    files.iter().try_for_each(|file| file.write_all_at(&[b'x'; 4096], 0))?;
    files.iter().try_for_each(std::fs::File::sync_all)
}
