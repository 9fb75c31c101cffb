//! The second half of the story: the pod is deleted while its mount is dead, stays in Terminating, and the agent lets it
//! go, or says why not.

use std::path::Path;
use std::process::Child;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cluster::{Cluster, NAMESPACE};
use super::{Ends, events, healthy, program, ready, state, uid, until};
use crate::guest::shell;

const PORTS: [&str; 2] = ["127.0.0.1:12049", "127.0.0.1:12050"];
/// The shortest that the configuration takes. By default a mount must have hung for 15 minutes.
const HUNG_AFTER: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(150);
/// What the issue promises: 5 s from the decision, one more for a dirty file; and the kubelet's own look.
const PROMISED: Duration = Duration::from_secs(10);

pub(super) fn tell(export: &str, fault: &str, ends: Ends) -> Result<()> {
    let cluster = Cluster::start("10.0.1.1", export, ends != Ends::Detached);
    let kubeconfig = cluster.api.kubeconfig(Path::new("/run"));
    let config = format!(
        "remedy: {{mode: enforce}}\nunstick: {{hung: true, hung_after: {}s}}\nstate: {{file: /run/mountwarden.state}}\nlog: {{format: json}}\n",
        HUNG_AFTER.as_secs()
    );
    std::fs::write("/run/story.yaml", config)?;
    let mut agent = program("run", &kubeconfig, PORTS, "agent")?;
    let told = follow(&cluster, fault, ends, &mut agent, &kubeconfig);
    // Fails only when it has ended, which the log explains.
    let _ = agent.kill();
    let _ = agent.wait();
    drop(cluster);
    told?;
    println!("the end");
    Ok(())
}

fn follow(cluster: &Cluster, fault: &str, ends: Ends, agent: &mut Child, kubeconfig: &Path) -> Result<()> {
    let limit = Duration::from_secs(60);
    until(limit, "the first pod does not become ready", || Ok(ready(cluster, "web-1")))?;
    let first = uid(cluster, "web-1")?;
    let volume = format!("/mnt/kubelet/pods/{first}/volumes/kubernetes.io~nfs/pv-data");
    until(limit, "the agent does not call the volume healthy", || healthy(&volume))?;
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
        let hangs = || Ok(shell(&format!("timeout 2 stat {volume} >/dev/null"))?.wait()?.code() == Some(124));
        until(limit, "a look at the volume does not hang", hangs)?;
    }
    cluster.api.terminate(NAMESPACE, "web-1");
    said("the pod is deleted");
    if ends == Ends::Shared {
        return shared(cluster, fault, &first, &volume, &said);
    }
    if ends == Ends::Killed {
        // Dead since: that survives, or it would take another minute from here.
        std::thread::sleep(HUNG_AFTER / 2);
        kill(agent)?;
        *agent = program("run", kubeconfig, PORTS, "agent")?;
        said("the agent was killed, and started again");
        let begun = || Ok(log()?.contains("its dead mounts are released now"));
        follow_guards(&first, &said, "no release begins", begun)?;
        kill(agent)?;
        *agent = program("run", kubeconfig, PORTS, "agent")?;
        said("the agent was killed in the middle of the release, and started again");
    }
    let gone = || -> Result<bool> { Ok(uid(cluster, "web-1").is_err()) };
    let released = || -> Result<bool> { Ok(!events(cluster, "MountReleased").is_empty() || gone()?) };
    follow_guards(&first, &said, "nobody releases it", released)?;
    for note in events(cluster, "MountReleased") {
        said(&format!("MountReleased: {note}"));
    }
    until(PROMISED, "the pod does not go", gone)?;
    said("the pod is gone from the API");
    let clean = || Ok(stuck_processes(&first)?.is_empty() && !mounted(&volume)?);
    until(PROMISED, "something is left", clean).with_context(|| format!("{:?}", stuck_processes(&first)))?;
    said("no process is in D, and nothing is left in the host's mount table, the server still dead or another one");
    let by_us = || Ok(log()?.contains("its dead mounts are out of the host's mount table"));
    until(PROMISED, "it was not the agent that released it", by_us)?;
    if ends == Ends::Detached {
        return Ok(());
    }
    done("mend the fault", &format!("heal {fault}"))?;
    cluster.no_more_pods.store(false, Ordering::Relaxed);
    until(LIMIT, "no new pod becomes ready", || Ok(ready(cluster, "web-2")))?;
    let second = uid(cluster, "web-2")?;
    let volume = format!("/mnt/kubelet/pods/{second}/volumes/kubernetes.io~nfs/pv-data");
    until(limit, "the agent does not call the new pod's volume healthy", || healthy(&volume))?;
    said("the server is back, and so is the pod");
    Ok(())
}

/// Waits, and says on the way which guard holds the release back.
fn follow_guards(
    uid: &str,
    said: &impl Fn(&str),
    otherwise: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let mut before = None;
    until(LIMIT, otherwise, || {
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
fn shared(cluster: &Cluster, fault: &str, uid_of_pod: &str, volume: &str, said: &impl Fn(&str)) -> Result<()> {
    let refused = || {
        let all = events(cluster, "MountReleaseRefused");
        Ok(all.iter().any(|note| note.contains("others use the same superblock") && note.contains("/mnt/neighbour")))
    };
    follow_guards(uid_of_pod, said, "nobody says that others use it", refused)?;
    for note in events(cluster, "MountReleaseRefused") {
        said(&format!("MountReleaseRefused: {note}"));
    }
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(15) {
        ensure!(mounted(volume)? && mounted("/mnt/neighbour")?, "something was unmounted");
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(events(cluster, "MountReleased").is_empty(), "it was released");
    done("mend the fault", &format!("heal {fault}"))?;
    until(LIMIT, "the pod does not end by itself", || Ok(uid(cluster, "web-1").is_err()))?;
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

fn mounted(path: &str) -> Result<bool> {
    let table = mountwarden::mounts::table::Table::read(Path::new("/proc"))?;
    Ok(table.mounts.iter().any(|mount| mount.mountpoint == Path::new(path)))
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
