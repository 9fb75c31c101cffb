//! The second half of the story: the pod is deleted while its mount is dead, stays in Terminating, and the agent lets it
//! go, or says why not.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill as signal};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::cluster::{Cluster, NAMESPACE, Workload, sub_path_of, volume_of};
use super::{Ends, agent, events, healthy, ready, state, uid, until};
use crate::guest::shell;
use crate::pod;

/// The shortest that the configuration takes. By default a mount must have hung for 15 minutes.
const HUNG_AFTER: Duration = Duration::from_secs(60);
/// The last to give in is the v3 client's connection to a silent server, three minutes after the last answer.
const LIMIT: Duration = Duration::from_secs(240);
/// What the issue promises: 5 s from the decision, one more for a dirty file; and the kubelet's own look.
const PROMISED: Duration = Duration::from_secs(10);

fn config(orphans: bool) -> String {
    format!(
        "remedy: {{mode: enforce}}\nunstick: {{hung: true, hung_after: {}s, orphans: {orphans}}}\nstate: {{file: /run/mountwarden/state}}\nlog: {{format: json}}\n",
        HUNG_AFTER.as_secs()
    )
}

/// What is deleted.
fn workload(ends: Ends) -> Workload {
    match ends {
        Ends::Several => Workload { replicas: 3, files: 1, sub_path: false },
        Ends::SubPath => Workload { replicas: 1, files: 1, sub_path: true },
        // Long enough to be stopped on the way.
        Ends::Stopped => Workload { replicas: 1, files: 20, sub_path: false },
        Ends::Detached | Ends::Orphan => Workload::READER,
        _ => Workload { files: 1, ..Workload::READER },
    }
}

pub(super) fn tell(export: &str, fault: &str, ends: Ends) -> Result<()> {
    let cluster = Cluster::start("10.0.1.1", export, workload(ends));
    let mut agent = agent(&cluster, &config(false))?;
    let told = follow(&cluster, fault, ends, &mut agent);
    // Fails only when it has ended, which the log explains.
    let _ = agent.kill();
    let _ = agent.wait();
    drop(cluster);
    told?;
    println!("the end");
    Ok(())
}

/// A pod that is going.
struct Going {
    name: String,
    uid: String,
    mounts: Vec<PathBuf>,
}

fn follow(cluster: &Cluster, fault: &str, ends: Ends, running: &mut Child) -> Result<()> {
    let limit = Duration::from_secs(60);
    let workload = workload(ends);
    let all_ready =
        || Ok(cluster.pods().iter().filter(|(_, _, ready, _)| *ready).count() == workload.replicas as usize);
    until(limit, "the pods do not become ready", all_ready)?;
    let pods: Vec<Going> = cluster
        .pods()
        .into_iter()
        .map(|(name, uid, ..)| {
            let sub_path = workload.sub_path.then(|| sub_path_of(&uid));
            Going { name, mounts: sub_path.into_iter().chain([volume_of(&uid)]).collect(), uid }
        })
        .collect();
    for mount in pods.iter().flat_map(|pod| &pod.mounts) {
        until(limit, "the agent does not call the volumes healthy", || healthy(mount))?;
    }
    let volume = volume_of(&pods[0].uid);
    cluster.no_more_pods.store(true, Ordering::Relaxed);
    if ends == Ends::Shared {
        done("mount a neighbour", "MNT=/mnt/neighbour; client_mount")?;
    }
    if ends == Ends::Detached {
        cluster.kubelet_is_stuck.store(true, Ordering::Relaxed);
    }
    done("make the fault", &format!("fault {fault}"))?;
    let back = Instant::now();
    let said = |what: &str| println!("  {:>6.1} s  {what}", back.elapsed().as_secs_f64());
    said(&format!("the fault is made: {fault}"));
    let dead = || Ok(matches!(state(&volume)?.as_deref(), Some("hung" | "stale")));
    until(limit, "the agent does not see that the volume is dead", dead)?;
    said(&format!("the agent says: {}", state(&volume)?.unwrap_or_default()));
    if ends != Ends::Detached {
        // As long as attributes are cached the kubelet's look ends, and a deleted pod too (KUBELET.md 3).
        let look = format!("timeout 2 stat {} >/dev/null", volume.display());
        let hangs = || Ok(shell(&look)?.wait()?.code() == Some(124));
        until(limit, "a look at the volume does not hang", hangs)?;
    }
    if ends == Ends::Orphan {
        orphan(cluster, &pods[0], running, &said)?;
        return recover(cluster, fault, &pods, &said);
    }
    for pod in &pods {
        cluster.api.terminate(NAMESPACE, &pod.name);
    }
    said(if pods.len() == 1 { "the pod is deleted" } else { "the pods are deleted" });
    match ends {
        Ends::Shared => return shared(cluster, fault, &pods[0], &said),
        Ends::Killed => killed(cluster, &pods[0], running, &said)?,
        Ends::Stopped => stopped(cluster, &pods[0], &said)?,
        _ => {}
    }
    for pod in &pods {
        let gone = || -> Result<bool> { Ok(uid(cluster, &pod.name).is_err()) };
        let released = || -> Result<bool> { Ok(!released_notes(cluster, &pod.name).is_empty() || gone()?) };
        follow_guards(&pod.uid, &said, "nobody releases it", released)?;
        for note in released_notes(cluster, &pod.name) {
            said(&format!("MountReleased: {note}"));
        }
        until(PROMISED, "the pod does not go", gone)?;
        said(&format!("{} is gone from the API", pod.name));
    }
    nothing_is_left(&pods, &said)?;
    if ends == Ends::Detached {
        return Ok(());
    }
    recover(cluster, fault, &pods, &said)
}

fn nothing_is_left(pods: &[Going], said: &impl Fn(&str)) -> Result<()> {
    for pod in pods {
        let clean = || Ok(stuck_processes(&pod.uid)?.is_empty() && !any_mounted(&pod.mounts)?);
        until(PROMISED, "something is left", clean).with_context(|| format!("{:?}", stuck_processes(&pod.uid)))?;
    }
    said("no process is in D, and nothing is left in the host's mount table, the server still dead or another one");
    let by_us = || Ok(log()?.matches("its dead mounts are out of the host's mount table").count() == pods.len());
    until(PROMISED, "it was not the agent that released it", by_us)
}

/// The server comes back, and with it the workload.
fn recover(cluster: &Cluster, fault: &str, pods: &[Going], said: &impl Fn(&str)) -> Result<()> {
    done("mend the fault", &format!("heal {fault}"))?;
    cluster.no_more_pods.store(false, Ordering::Relaxed);
    let name = format!("web-{}", pods.len() + 1);
    until(LIMIT, "no new pod becomes ready", || Ok(ready(cluster, &name)))?;
    let volume = volume_of(&uid(cluster, &name)?);
    until(LIMIT, "the agent does not call the new pod's volume healthy", || healthy(&volume))?;
    said("the server is back, and so is the pod");
    Ok(())
}

/// The agent is killed while it waits, and while it releases; what it knows is in its state file.
fn killed(cluster: &Cluster, pod: &Going, running: &mut Child, said: &impl Fn(&str)) -> Result<()> {
    // Dead since: that survives, or it would take another minute from here.
    std::thread::sleep(HUNG_AFTER / 2);
    kill(running)?;
    *running = agent(cluster, &config(false))?;
    said("the agent was killed, and started again");
    let begun = || Ok(log()?.contains("its dead mounts are released now"));
    follow_guards(&pod.uid, said, "no release begins", begun)?;
    kill(running)?;
    *running = agent(cluster, &config(false))?;
    said("the agent was killed in the middle of the release, and started again");
    Ok(())
}

/// The kill switch is set while the release is under way.
fn stopped(cluster: &Cluster, pod: &Going, said: &impl Fn(&str)) -> Result<()> {
    let switch = |value: &str| {
        cluster.api.put(json!({"kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "mountwarden-remedy", "namespace": "default"}, "data": {"stop": value}}));
        said(&format!("the kill switch is set to {value}"));
    };
    let begun = || Ok(log()?.contains("its dead mounts are released now"));
    follow_guards(&pod.uid, said, "no release begins", begun)?;
    switch("true");
    let off = || Ok(!events(cluster, "MountReleaseFailed").is_empty());
    until(PROMISED, "the release is not called off", off)?;
    said(&format!("MountReleaseFailed: {}", events(cluster, "MountReleaseFailed").join("; ")));
    ensure!(any_mounted(&pod.mounts)?, "it was taken away all the same");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(40) {
        ensure!(
            any_mounted(&pod.mounts)? && released_notes(cluster, &pod.name).is_empty(),
            "it was released all the same"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    said("nothing happened for longer than it is before a release is tried again");
    switch("false");
    Ok(())
}

/// Deleted by force: nobody knows the pod any more, but its mount is there, and its kubelet stuck in it.
fn orphan(cluster: &Cluster, pod: &Going, running: &Child, said: &impl Fn(&str)) -> Result<()> {
    cluster.api.remove("pods", NAMESPACE, &pod.name);
    said("the pod is deleted by force: the API has it no more");
    let on_node = |reason: &str| -> Vec<String> {
        let all = cluster.api.objects("events");
        let of = |event: &&Value| event["reason"] == reason && event["regarding"]["kind"] == "Node";
        all.iter().filter(of).filter_map(|event| event["note"].as_str().map(str::to_owned)).collect()
    };
    let told = || Ok(!on_node("MountOrphaned").is_empty());
    // An orphan is one after ten minutes.
    follow_guards_for(Duration::from_secs(640), &pod.uid, said, "nobody says that it is an orphan", told)?;
    on_node("MountOrphaned").iter().for_each(|note| said(&format!("MountOrphaned: {note}")));
    on_node("MountReleaseRefused").iter().for_each(|note| said(&format!("MountReleaseRefused: {note}")));
    ensure!(any_mounted(&pod.mounts)?, "it was released, although that is not configured");
    pod::configure("config.yaml", &config(true))?;
    signal(Pid::from_raw(running.id().try_into()?), Signal::SIGHUP)?;
    said("unstick.orphans is set, and the agent reads its configuration again");
    let released = || Ok(!on_node("MountReleased").is_empty());
    follow_guards(&pod.uid, said, "nobody releases it", released)?;
    on_node("MountReleased").iter().for_each(|note| said(&format!("MountReleased: {note}")));
    nothing_is_left(std::slice::from_ref(pod), said)
}

/// Waits, and says on the way which guard holds the release back.
fn follow_guards(
    uid: &str,
    said: &impl Fn(&str),
    otherwise: &str,
    condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    follow_guards_for(LIMIT, uid, said, otherwise, condition)
}

fn follow_guards_for(
    limit: Duration,
    uid: &str,
    said: &impl Fn(&str),
    otherwise: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let mut before = None;
    until(limit, otherwise, || {
        let snapshot = crate::surface::snapshot();
        let pod = snapshot.and_then(|snapshot| snapshot.plan.into_iter().find(|pod| pod.pod_uid == uid));
        let guard = pod.and_then(|pod| pod.unstick.guard);
        if guard.is_some() && guard != before {
            said(&format!("not yet: {}", guard.as_deref().unwrap_or_default()));
            before = guard;
        }
        condition()
    })
}

/// Somebody alive uses the superblock: nothing happens, it is told, and all end well with the server.
fn shared(cluster: &Cluster, fault: &str, pod: &Going, said: &impl Fn(&str)) -> Result<()> {
    let refused = || {
        let all = events(cluster, "MountReleaseRefused");
        Ok(all.iter().any(|note| note.contains("others use the same superblock") && note.contains("/mnt/neighbour")))
    };
    follow_guards(&pod.uid, said, "nobody says that others use it", refused)?;
    for note in events(cluster, "MountReleaseRefused") {
        said(&format!("MountReleaseRefused: {note}"));
    }
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(15) {
        ensure!(any_mounted(&pod.mounts)? && any_mounted(&["/mnt/neighbour".into()])?, "something was unmounted");
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(events(cluster, "MountReleased").is_empty(), "it was released");
    done("mend the fault", &format!("heal {fault}"))?;
    until(LIMIT, "the pod does not end by itself", || Ok(uid(cluster, &pod.name).is_err()))?;
    done("use the neighbour's mount", "timeout 60 sh -c 'echo x >/mnt/neighbour/x && sync /mnt/neighbour/x'")?;
    said("the server is back: the pod ended by itself, and the neighbour writes");
    Ok(())
}

fn kill(agent: &mut Child) -> Result<()> {
    agent.kill()?;
    agent.wait()?;
    Ok(())
}

fn log() -> Result<String> {
    Ok(std::fs::read_to_string("/run/out/agent.log")?)
}

fn any_mounted(paths: &[PathBuf]) -> Result<bool> {
    let table = mountwarden::mounts::table::Table::read(Path::new("/proc"))?;
    Ok(table.mounts.iter().any(|mount| paths.contains(&mount.mountpoint)))
}

/// What the Events of releases say of a pod.
fn released_notes(cluster: &Cluster, pod: &str) -> Vec<String> {
    let all = cluster.api.objects("events");
    let of = |event: &&Value| event["reason"] == "MountReleased" && event["regarding"]["name"] == pod;
    all.iter().filter(of).filter_map(|event| event["note"].as_str().map(str::to_owned)).collect()
}

/// Processes of the pod, and processes in the kernel (D) of the kubelet or of a release.
fn stuck_processes(uid: &str) -> Result<Vec<String>> {
    let left = mountwarden::remedy::processes::left(Path::new("/proc"), uid)?;
    let mut found: Vec<String> = left.processes.iter().map(|pid| format!("process {pid} of the pod")).collect();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((name, rest)) = status.rsplit_once(')') else { continue };
        let ours = ["stat", "mountwarden"].iter().any(|wanted| name.contains(wanted));
        if ours && rest.trim_start().starts_with('D') {
            found.push(format!("process {pid} in D: {name}"));
        }
    }
    Ok(found)
}

fn done(what: &str, command: &str) -> Result<()> {
    ensure!(shell(command)?.wait()?.success(), "cannot {what}");
    Ok(())
}
