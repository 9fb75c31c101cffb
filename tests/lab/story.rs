//! `story`: a server comes back with another directory, and a pod that sits on the dead mount is brought back by nobody: the
//! real agent and the real coordinator, real NFS, a fake API server, and stand-ins for kubelet and controller.

#[path = "../common/apiserver.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared with the tests, which fail by panicking; this is its part of it"
)]
pub(crate) mod apiserver;
mod cluster;
mod stuck;

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use mountwarden::snapshot::MountStatus;
use mountwarden::verdict::{Cause, State};
use serde_json::{Value, json};

pub(crate) use cluster::container;

use crate::guest::shell;
use crate::interrupt;
use crate::pod;
use crate::surface::AGENT;
use crate::uml::Host;
use cluster::{Cluster, NAMESPACE, NODE, Workload, volume_of};

/// What the design promises: from the server's return to the new pod.
const PROMISED: Duration = Duration::from_secs(60);
/// So long is looked on where nothing may happen.
const REFUSED: Duration = Duration::from_secs(75);

/// One telling: version, fault, `remedy.evict_on_replaced`, and what is to become of the pod.
struct Telling {
    version: &'static str,
    fault: &'static str,
    policy: &'static str,
    ends: Ends,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ends {
    /// A new pod takes its place.
    Rescued,
    /// The same, after somebody mounted its volume anew on the node: its container keeps the old mount.
    Remounted,
    /// It stays, and somebody says why.
    Refused,
    /// It heals by itself, and nobody ever asks for a rescue.
    Heals,
    /// It is deleted while its server is gone, and the agent releases it.
    Released,
    /// The same, with an agent that is killed in the middle and started again.
    Killed,
    /// The same, of three pods that share the superblock.
    Several,
    /// The same, of a pod with a subPath: two mounts.
    SubPath,
    /// The same, with the kill switch set in the middle, and lifted again.
    Stopped,
    /// It may not be released: somebody alive uses the same superblock.
    Shared,
    /// It is deleted on a stale mount that its kubelet leaves behind, and the agent takes that away.
    Detached,
    /// It is deleted by force: reported, and released only when that is configured.
    Orphan,
}

impl Ends {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The guest may take so long.
    fn limit(self) -> Duration {
        // Ten minutes alone until it counts as an orphan.
        Duration::from_secs(if self == Ends::Orphan { 960 } else { 420 })
    }
}

const fn rescue(version: &'static str, fault: &'static str, policy: &'static str, ends: Ends) -> Telling {
    Telling { version, fault, policy, ends }
}

const fn release(version: &'static str, fault: &'static str, ends: Ends) -> Telling {
    Telling { version, fault, policy: "", ends }
}

const TELLINGS: [Telling; 25] = [
    rescue("4.1", "swap_dir_filled", "same_names", Ends::Rescued),
    rescue("3", "swap_dir_filled", "same_names", Ends::Rescued),
    rescue("4.1", "swap_dir_filled", "same_names", Ends::Remounted),
    rescue("3", "swap_dir_filled", "same_names", Ends::Remounted),
    rescue("4.1", "swap_dir", "always", Ends::Rescued),
    rescue("3", "swap_dir", "always", Ends::Rescued),
    rescue("4.1", "swap_tmpfs", "always", Ends::Rescued),
    rescue("3", "swap_tmpfs", "always", Ends::Rescued),
    rescue("4.1", "swap_dir", "same_names", Ends::Refused),
    rescue("3", "swap_dir", "same_names", Ends::Refused),
    rescue("4.1", "unexport", "same_names", Ends::Heals),
    rescue("4.1", "restart", "same_names", Ends::Heals),
    release("3", "refused", Ends::Released),
    release("4.0", "refused", Ends::Released),
    release("4.1", "refused", Ends::Released),
    release("4.2", "refused", Ends::Released),
    release("3", "drop", Ends::Released),
    release("4.1", "drop", Ends::Released),
    release("4.1", "refused", Ends::Killed),
    release("4.1", "refused", Ends::Several),
    release("4.1", "refused", Ends::SubPath),
    release("4.1", "refused", Ends::Stopped),
    release("4.1", "refused", Ends::Shared),
    release("4.1", "swap_dir", Ends::Detached),
    release("4.1", "refused", Ends::Orphan),
];

impl Telling {
    fn name(&self) -> String {
        let by_ends = self.policy.is_empty() || self.ends == Ends::Remounted;
        let last = if by_ends { self.ends.name() } else { self.policy.to_owned() };
        format!("{}-{}-{last}", self.version, self.fault)
    }
}

/// On the host: `jobs` guests at a time, which mostly wait.
pub(crate) fn run(agent: &Path, only: Option<&regex::Regex>, jobs: usize) -> Result<bool> {
    interrupt::take()?;
    let host = Host::new(agent)?;
    let chosen = TELLINGS.iter().filter(|telling| only.is_none_or(|only| only.is_match(&telling.name())));
    let (waiting, failed) = (Mutex::new(chosen), AtomicUsize::new(0));
    let one_after_the_other = || {
        loop {
            let next = waiting.lock().ok().and_then(|mut waiting| waiting.next());
            let Some(telling) = next else { return };
            match boot(&host, telling) {
                Ok(told) => print!("{}\n{told}", telling.name()),
                Err(error) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    println!("{}\n  FAILED: {error:#}", telling.name());
                }
            }
        }
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| drop(scope.spawn(one_after_the_other))));
    Ok(failed.into_inner() == 0)
}

fn boot(host: &Host, telling: &Telling) -> Result<String> {
    let arguments = vec![
        format!("LAB_VERSION={}", telling.version),
        format!("LAB_FAULT={}", telling.fault),
        format!("LAB_POLICY={}", if telling.policy.is_empty() { "-" } else { telling.policy }),
        format!("LAB_ENDS={}", telling.ends.name()),
        format!("LAB_BACKING={}", if telling.fault == "swap_tmpfs" { "tmpfs" } else { "dir" }),
    ];
    host.hear(&format!("story-{}", telling.name()), "guest/story.sh", arguments, telling.ends.limit())?.story()
}

/// In the guest.
pub(crate) fn tell(fault: &str, policy: &str, ends: Ends) -> Result<()> {
    let export = if std::env::var("LAB_VERSION").is_ok_and(|version| version == "3") { "/mnt/exp" } else { "/" };
    if !matches!(ends, Ends::Rescued | Ends::Remounted | Ends::Refused | Ends::Heals) {
        return stuck::tell(export, fault, ends);
    }
    let cluster = Cluster::start("10.0.1.1", export, Workload::READER);
    // A coordinator without history waits for a whole cool-down; docs/remedy.md says how to begin one by hand.
    cluster.api.put(json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "mountwarden-history", "namespace": "default"},
        "data": {"enforce": "{\"version\":1,\"began\":0,\"written\":0,\"records\":[]}"}}));
    let config = format!("remedy: {{mode: enforce, evict_on_replaced: {policy}}}\nlog: {{format: json}}\n");
    let mut agent = agent(&cluster, &config)?;
    let mut coordinator = coordinator()?;
    let told = follow(&cluster, fault, ends);
    for child in [&mut agent, &mut coordinator] {
        // Fails only when it has ended, which the logs explain.
        let _ = child.kill();
        let _ = child.wait();
    }
    drop(cluster);
    told?;
    println!("the end");
    Ok(())
}

/// Starts the agent in its pod, with what `k8s/install-remedy-enforce.yaml` gives it; its log goes on where it ended.
fn agent(cluster: &Cluster, config: &str) -> Result<Child> {
    let config = pod::configure("config.yaml", config)?;
    let kubeconfig =
        pod::configure("kubeconfig", &std::fs::read_to_string(cluster.api.kubeconfig(Path::new("/run")))?)?;
    let program = [
        &[pod::AGENT, "run", "--config", &config, "--node-name", NODE, "--kubeconfig", &kubeconfig][..],
        &["--listen", "127.0.0.1:12049", "--listen-ui", "127.0.0.1:12050"],
    ];
    pod::start(&pod::remedy_capabilities()?, &program.concat(), Path::new("/run/out/agent.log"))
}

/// It touches no mount, and needs nothing of the node: the same configuration, from the node's side.
fn coordinator() -> Result<Child> {
    let log = File::create("/run/out/coordinator.log")?;
    let mut command = Command::new(AGENT);
    command.args(["coordinate", "--config", "/run/config/config.yaml", "--kubeconfig", "/run/kubeconfig"]);
    command.args(["--listen", "127.0.0.1:12051", "--listen-ui", "127.0.0.1:12052"]);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    command.spawn().context("start the coordinator")
}

fn follow(cluster: &Cluster, fault: &str, ends: Ends) -> Result<()> {
    let limit = Duration::from_secs(60);
    until(limit, "the first pod does not become ready", || Ok(ready(cluster, "web-1")))?;
    let first = uid(cluster, "web-1")?;
    let volume = volume_of(&first);
    until(limit, "the agent does not call the volume healthy", || healthy(&volume))?;
    until(limit, "the agent learns no entries", || learned(&volume))?;
    ensure!(shell(&format!("fault {fault}"))?.wait()?.success(), "the fault cannot be made");
    let back = Instant::now();
    let said = |what: &str| println!("  {:>6.1} s  {what}", back.elapsed().as_secs_f64());
    said(&format!("the fault is made: {fault}"));
    if ends == Ends::Heals {
        return heals(cluster, fault, &volume, said);
    }
    let dead = || Ok(matches!(state(&volume)?.as_deref(), Some("stale" | "lost")));
    until(PROMISED, "the agent does not see that the volume is dead", dead)?;
    said(&format!("the agent says: {}", state(&volume)?.unwrap_or_default()));
    if ends == Ends::Refused {
        let evicted = || !cluster.api.asked_for("POST", "/eviction").is_empty();
        while back.elapsed() < REFUSED {
            ensure!(!evicted(), "the pod was evicted");
            std::thread::sleep(Duration::from_millis(200));
        }
        let refusals = events(cluster, "MountEvictionRefused");
        ensure!(!refusals.is_empty(), "nobody says why not");
        refusals.iter().for_each(|words| said(&format!("refused: {words}")));
        return Ok(());
    }
    // From when on a new pod could work.
    let mut could = back;
    if ends == Ends::Remounted {
        mount_anew(&volume)?;
        could = Instant::now();
        said("somebody has mounted the volume anew on the node: umount -l, mount");
        until(PROMISED, "the agent does not call the node's new mount healthy", || healthy(&volume))?;
        until(PROMISED, "the container's old mount is not lost, remounted_on_host", kept_by_a_container)?;
        said("the agent says: healthy on the node, lost in the container (remounted_on_host)");
    }
    let wanted = |request: &Value| ends != Ends::Remounted || request["cause"] == "remounted_on_host";
    let asked = || Ok(request(cluster).is_some_and(|request| wanted(&request)));
    until(PROMISED, "no rescue is asked for", asked)?;
    let request = request(cluster).unwrap_or_default();
    said(&format!("NodeMounts asks for a rescue: {}", request["gate"]["words"].as_str().unwrap_or_default()));
    let evicted = || Ok(!cluster.api.asked_for("POST", "/eviction").is_empty());
    until(PROMISED, "nobody is evicted", evicted)?;
    let eviction = cluster.api.asked_for("POST", "/eviction");
    said(&format!("Eviction: {}", eviction[0].body));
    let named = eviction[0].body["deleteOptions"]["preconditions"]["uid"].as_str();
    ensure!(named == Some(first.as_str()), "the eviction names the UID {named:?}, not {first}");
    until(PROMISED, "the new pod does not become ready", || Ok(ready(cluster, "web-2")))?;
    said("the new pod is ready");
    ensure!(could.elapsed() <= PROMISED, "that is later than {PROMISED:?} after it could have worked");
    until(limit, "the old pod does not go", || Ok(uid(cluster, "web-1").is_err()))?;
    let second = uid(cluster, "web-2")?;
    let volume = volume_of(&second);
    until(limit, "the agent does not call the new pod's volume healthy", || healthy(&volume))?;
    said("the old pod is gone, and the new pod's volume is healthy");
    ensure!(cluster.api.asked_for("POST", "/eviction").len() == 1, "more than one eviction was asked for");
    Ok(())
}

/// What helps on the host alone: the container's private copy of the old mount stays.
fn mount_anew(volume: &Path) -> Result<()> {
    let script = format!("umount -l {path}; MNT={path}; client_mount", path = volume.display());
    ensure!(shell(&script)?.wait()?.success(), "cannot mount {} anew", volume.display());
    Ok(())
}

fn kept_by_a_container() -> Result<bool> {
    let lost = |mount: &MountStatus| (mount.state, mount.cause) == (State::Lost, Some(Cause::RemountedOnHost));
    Ok(crate::surface::snapshot().is_some_and(|snapshot| snapshot.mounts.iter().any(lost)))
}

/// Nothing may be asked for, neither while it is broken nor when it is mended.
fn heals(cluster: &Cluster, fault: &str, volume: &Path, said: impl Fn(&str)) -> Result<()> {
    let quiet = |limit: Duration| -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            ensure!(request(cluster).is_none(), "a rescue was asked for");
            ensure!(cluster.api.asked_for("POST", "/eviction").is_empty(), "the pod was evicted");
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    };
    // Longer than an interval and the time between two trials.
    quiet(Duration::from_secs(50))?;
    said(&format!("the agent says: {}", state(volume)?.unwrap_or_default()));
    ensure!(shell(&format!("heal {fault}"))?.wait()?.success(), "the fault cannot be healed");
    said("mended");
    until(Duration::from_secs(40), "the agent does not call it healthy", || healthy(volume))?;
    quiet(Duration::from_secs(10))?;
    said("the same pod works, and nobody asked for a rescue");
    ensure!(ready(cluster, "web-1"), "the pod is another one");
    Ok(())
}

fn ready(cluster: &Cluster, name: &str) -> bool {
    cluster.pods().iter().any(|(pod, _, ready, _)| pod == name && *ready)
}

fn uid(cluster: &Cluster, name: &str) -> Result<String> {
    let pods = cluster.pods();
    pods.into_iter().find(|(pod, ..)| pod == name).map(|(_, uid, ..)| uid).with_context(|| format!("no pod {name}"))
}

fn request(cluster: &Cluster) -> Option<Value> {
    let object = cluster.api.object("nodemounts", "", NODE)?;
    object["status"]["requests"].as_array()?.first().cloned()
}

fn events(cluster: &Cluster, reason: &str) -> Vec<String> {
    let all = cluster.api.objects("events");
    let of = |event: &&Value| event["reason"] == reason && event["regarding"]["namespace"] == NAMESPACE;
    all.iter().filter(of).filter_map(|event| event["note"].as_str().map(str::to_owned)).collect()
}

/// What the agent says of the mount at a path.
fn mount(path: &Path) -> Result<Option<MountStatus>> {
    let Some(snapshot) = crate::surface::snapshot() else { return Ok(None) };
    Ok(snapshot.mounts.into_iter().find(|mount| mount.paths.iter().any(|one| Path::new(one) == path)))
}

fn state(path: &Path) -> Result<Option<String>> {
    Ok(mount(path)?.map(|mount| mount.state.to_string()))
}

fn healthy(path: &Path) -> Result<bool> {
    Ok(state(path)?.as_deref() == Some("healthy"))
}

/// A probe that looked at entries that were chosen before.
fn learned(path: &Path) -> Result<bool> {
    Ok(mount(path)?.is_some_and(|mount| mount.steps.iter().any(|step| step.step == "sentinel")))
}

/// Waits for a condition, no longer than `limit`.
pub(crate) fn until(limit: Duration, otherwise: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        ensure!(begin.elapsed() < limit, "{otherwise}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
