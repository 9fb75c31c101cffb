//! `capabilities`: what stops working without each capability of the manifests, and what the agent says about it. The real
//! binary in a pod's surroundings ([`crate::pod`]) beside real NFS mounts; once with everything, then with each one dropped.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mountwarden::snapshot::Snapshot;
use mountwarden::verdict::{Cause, State};

use crate::guest::shell;
use crate::interrupt;
use crate::pod;
use crate::surface;
use crate::uml::{Console, End, Guest, Host};

/// What the base adds, in the order of docs/privileges.md.
const BASE: [&str; 5] = ["SYS_PTRACE", "SYS_ADMIN", "DAC_READ_SEARCH", "NET_BIND_SERVICE", "SYSLOG"];
/// What the canary variant adds to that.
const CANARY: [&str; 3] = ["SETUID", "SETGID", "DAC_OVERRIDE"];
const LIMIT: Duration = Duration::from_secs(420);
/// The first pass with its canary, on an emulated CPU.
const SETTLED: Duration = Duration::from_secs(20);
/// Two trial mounts with their (shortened) grace between them, and the questions to the server.
const EXAMINED: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(200);
const OPEN: &str = "/mnt/kubelet/pods/*/volumes/kubernetes.io~nfs/data";
const PRIVATE: &str = "/mnt/private/cl";
/// A mount that is released.
const GOING: &str = "/mnt/kubelet/pods/1c3f8e7d-9f0c-4c29-8a40-6d7a1f7e5a11/volumes/kubernetes.io~nfs/data";
const CONFIG: &str = "backoff_max: 6s\n\
    canary: {mounts: [\"/mnt/kubelet/pods/*/volumes/kubernetes.io~nfs/*\"], interval: 3s, identity: \"uid=1000 gid=1000\"}\n\
    remedy: {mode: dry-run, grace: 5s}\n";
const FLAGS: [&str; 10] = [
    "--interval",
    "3s",
    "--timeout",
    "1500ms",
    "--listen",
    "127.0.0.1:12049",
    "--listen-ui",
    "127.0.0.1:12050",
    "--node-name",
    "lab-node",
];

/// On the host: boots the guest, and puts its table into docs/privileges.md or compares it.
pub(crate) fn run(agent: &Path) -> Result<bool> {
    interrupt::take()?;
    let host = Host::new(agent)?;
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab-out/capabilities");
    let _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir_all(&out)?;
    let guest = Guest {
        name: "capabilities",
        script: "guest/capabilities.sh",
        out: &out,
        console: Console::File,
        arguments: Vec::new(),
    };
    match host.boot(&guest).and_then(|guest| guest.wait(LIMIT, || Ok(())))? {
        End::PoweredOff => {}
        End::Interrupted => bail!("interrupted"),
        End::TimedOut => bail!("the guest did not end: lab-out/capabilities/"),
    }
    let table =
        std::fs::read_to_string(out.join("table.md")).context("the guest left no table: lab-out/capabilities/")?;
    print!("{table}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/privileges.md");
    let text = std::fs::read_to_string(&page)?;
    let (begin, end) = ("<!-- make lab-capabilities writes from here -->\n", "<!-- to here -->");
    let (before, rest) = text.split_once(begin).context("docs/privileges.md has no place for the table")?;
    let (_, after) = rest.split_once(end).context("the table in docs/privileges.md has no end")?;
    std::fs::write(&page, format!("{before}{begin}{table}{end}{after}"))?;
    Ok(true)
}

/// What was found, by name, in words.
type Facts = BTreeMap<&'static str, String>;

/// In the guest: all runs, one after the other, and the table.
pub(crate) fn measure() -> Result<()> {
    let mut table =
        String::from("| dropped | what is other then (with all capabilities → without this one) |\n|---|---|\n");
    let all = [&BASE[..], &CANARY].concat();
    for (set, dropped) in [(&BASE[..], &BASE[..]), (&all, &CANARY)] {
        let whole = facts(set)?;
        println!("with {set:?}: {whole:#?}");
        ensure!(whole["probed"] == "healthy" && whole["private"] == "healthy", "with all of them: {whole:#?}");
        for capability in dropped {
            let rest: Vec<&str> = set.iter().copied().filter(|one| one != capability).collect();
            let without = facts(&rest)?;
            println!("without {capability}: {without:#?}");
            table += &format!("| `{capability}` | {} |\n", differences(&whole, &without));
        }
    }
    table += "\n| dropped | the release of a dead mount, with what the remedy variants have, is |\n|---|---|\n";
    let remedy = pod::remedy_capabilities()?;
    let whole = release(&remedy)?;
    ensure!(whole == "done, by a worker in a cgroup of its own", "with all of {remedy:?}: {whole}");
    table += &format!("| nothing | {whole} |\n");
    for dropped in &remedy {
        let rest: Vec<String> = remedy.iter().filter(|one| *one != dropped).cloned().collect();
        table += &format!("| `{dropped}` | {} |\n", release(&rest)?);
    }
    Ok(std::fs::write("/run/out/table.md", table)?)
}

/// What becomes of a mount of the host that is to be released from a pod.
fn release(capabilities: &[impl AsRef<str>]) -> Result<String> {
    clear_groups()?;
    ensure!(shell(&format!("MNT={GOING} SUBPATH=/ client_mount"))?.wait()?.success(), "the mount could not be made");
    let log = Path::new("/run/out/release.log");
    let _ = std::fs::remove_file(log);
    pod::start(capabilities, &[pod::LAB, "guest", "release", GOING], log)?.wait()?;
    let words = std::fs::read_to_string(log)?.trim().to_owned();
    let is_there = std::fs::read_to_string("/proc/self/mountinfo")?.contains(GOING);
    ensure!(is_there != words.starts_with("done"), "it says `{words}`, and the mount is there: {is_there}");
    if is_there {
        ensure!(shell(&format!("umount {GOING}"))?.wait()?.success(), "the mount stays");
    }
    Ok(words)
}

/// What an agent with more rights left would hide that this one cannot make it. The last process of a release is in there for
/// some seconds.
fn clear_groups() -> Result<()> {
    let begin = Instant::now();
    while Path::new("/sys/fs/cgroup/mountwarden.canary").exists() {
        ensure!(begin.elapsed() < SETTLED, "the workers' cgroups do not get empty");
        for group in ["/sys/fs/cgroup/mountwarden.canary/*", "/sys/fs/cgroup/mountwarden.canary"] {
            shell(&format!("rmdir {group} 2>/dev/null"))?.wait()?;
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn differences(whole: &Facts, without: &Facts) -> String {
    let differs = |(name, value): (&&'static str, &String)| {
        let with = whole.get(*name).map(String::as_str).unwrap_or_default();
        (with != value).then(|| format!("{name}: {with} → {value}").replace('|', "\\|"))
    };
    let changes: Vec<String> = without.iter().filter_map(differs).collect();
    if changes.is_empty() { "nothing here".to_owned() } else { changes.join("<br>") }
}

fn facts(capabilities: &[&str]) -> Result<Facts> {
    clear_groups()?;
    pod::configure("config.yaml", CONFIG)?;
    let pod = pod::Agent::start(capabilities, &FLAGS, Path::new("/run/out/agent.log"))?;
    let begin = Instant::now();
    let mut facts = Facts::new();
    let first = wait(SETTLED, |seen| {
        // Without the capability the canary may never come: then nothing is waited for but time.
        let canary =
            seen.mounts.iter().any(|mount| mount.canary.as_ref().is_some_and(|canary| !canary.result.is_empty()));
        seen.ready && canary && begin.elapsed() > Duration::from_secs(8)
    });
    let Some(seen) = first else {
        facts.insert("probed", format!("the agent does not come up: {}", pod.last_words()));
        return Ok(facts);
    };
    facts.insert("probed", verdict(&seen, OPEN));
    facts.insert("private", verdict(&seen, PRIVATE));
    let canary = seen.mounts.iter().find(|mount| mount.mountpoint == OPEN).and_then(|mount| mount.canary.clone());
    facts.insert("canary", canary.map_or("none".to_owned(), |canary| format!("{} {}", canary.result, canary.detail)));
    facts.insert("canary in its own cgroup", format!("{:?}", seen.agent.canary_isolated));
    for source in &seen.agent.evidence {
        facts.insert(named(&source.source), source.error.clone().unwrap_or_else(|| "read".to_owned()));
    }
    ensure!(shell("fault unexport_beside")?.wait()?.success(), "the fault could not be made");
    let after = wait(EXAMINED, |seen| {
        let mount = seen.mounts.iter().find(|mount| mount.mountpoint == OPEN);
        mount.is_some_and(|mount| {
            let tried = mount.gate.as_ref().is_some_and(|gate| !gate.words.contains("no trial mount was made"));
            mount.state == State::Stale && mount.cause == Some(Cause::ExportGone) && tried
        })
    });
    let after = after.or_else(surface::snapshot).context("the agent is gone")?;
    facts.insert("after the export was removed", verdict(&after, OPEN));
    let gate = after.mounts.iter().find(|mount| mount.mountpoint == OPEN).and_then(|mount| mount.gate.clone());
    facts.insert("trial mount", gate.map_or("none".to_owned(), |gate| gate.words));
    drop(pod);
    ensure!(shell("heal unexport_beside")?.wait()?.success(), "the repair failed");
    Ok(facts)
}

/// State and cause of a mount, and why where it is not known.
fn verdict(seen: &Snapshot, mountpoint: &str) -> String {
    let Some(mount) = seen.mounts.iter().find(|mount| mount.mountpoint == mountpoint) else {
        return "not listed".to_owned();
    };
    let cause = mount.cause.map_or(String::new(), |cause| format!(" ({cause})"));
    let why = if mount.state == State::Unknown { format!(": {}", mount.evidence) } else { String::new() };
    format!("{}{cause}{why}", mount.state)
}

/// The agent's document as soon as `holds`; else, when the time is over, the last one.
fn wait(limit: Duration, holds: impl Fn(&Snapshot) -> bool) -> Option<Snapshot> {
    let begin = Instant::now();
    let mut last = None;
    while begin.elapsed() < limit {
        if let Some(seen) = surface::snapshot() {
            if holds(&seen) {
                return Some(seen);
            }
            last = Some(seen);
        }
        std::thread::sleep(POLL);
    }
    last
}

/// A name that lives for ever: there are three.
fn named(source: &str) -> &'static str {
    match source {
        "kernel_log" => "kernel log",
        "mountstats" => "mountstats",
        "transport_state" => "transport state",
        _ => "FUSE connections",
    }
}
