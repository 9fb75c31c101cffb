//! `trials`: trial mounts of real NFS, version by version, while the server is well, does not export, refuses and is
//! silent; and what is left of them, which has to be nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mountwarden::mounts::table::Table;
use mountwarden::mounts::{Mount, octal};
use mountwarden::probe::Step;
use mountwarden::probe::image::Image;
use mountwarden::probe::pool::{Limits, Pool};
use mountwarden::probe::trial::options::{VERSIONS, next_version};
use mountwarden::probe::trial::{Attempt, TrialOption, TrialReport, TrialSpec, attempt};
use mountwarden::verdict::judge::words::errno_name;
use serde::{Deserialize, Serialize};

use crate::interrupt;
use crate::uml::Host;

/// Trials in one guest.
const TRIALS: usize = 9;
/// Of each step of a trial. The v3 client asks mountd for four seconds before it gives up (ETIMEDOUT).
const DEADLINE: Duration = Duration::from_secs(6);
/// A client whose path was cut reconnects ever less often.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// Boot, mount, faults.
const LIMIT: Duration = Duration::from_secs(240);

/// One trial, as the guest saw it.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    /// What the server was like.
    when: String,
    /// `ok`, the name of an errno, or `silent`.
    result: String,
    errno: Option<i32>,
    /// The step that failed or was silent.
    step: Option<Step>,
    millis: u128,
    /// Its root has the file id that the mount's root had when it was mounted.
    same_root: bool,
    names: usize,
    /// From the kill of a silent worker to its end.
    gone_millis: Option<u128>,
    /// What is in mountinfo or in the client's list of volumes afterwards and was not before.
    left: Vec<String>,
    words: String,
}

/// On the host: whether all versions did what was measured once.
pub(crate) fn run(agent: &Path) -> Result<bool> {
    interrupt::take()?;
    let host = Host::new(agent)?;
    let mut failures = 0;
    for version in VERSIONS {
        println!("NFS {version}");
        let arguments = vec![format!("LAB_VERSION={version}")];
        let seen: Vec<Seen> = host.hear("trials", "guest/trials.sh", arguments, LIMIT)?.results()?;
        ensure!(seen.len() == TRIALS, "the guest made {} trials, not {TRIALS}", seen.len());
        for one in seen {
            let wrong = wrong(version, &one);
            failures += usize::from(wrong.is_some());
            println!(
                "  {:<9} {:<11} {:<12} {:>6} ms{}{}",
                one.when,
                one.result,
                one.step.map_or("", Step::as_str),
                one.millis,
                one.gone_millis.map(|gone| format!(", killed and gone in {gone} ms")).unwrap_or_default(),
                wrong.map(|wrong| format!("  FAILED: {wrong}")).unwrap_or_default()
            );
            println!("            {}", one.words);
        }
    }
    Ok(failures == 0)
}

fn wrong(version: &str, seen: &Seen) -> Option<String> {
    let said = (seen.result.as_str(), seen.step);
    let right = match seen.when.as_str() {
        "healthy" | "back" | "usual" => said.0 == "ok" && seen.same_root && seen.names > 0,
        "unexport" => said == ("EACCES", Some(Step::TrialMount)),
        // The client tries again for ever.
        "refused" => said == ("silent", Some(Step::TrialMount)),
        "drop" if version == "3" => said == ("ETIMEDOUT", Some(Step::TrialMount)),
        "drop" => said == ("silent", Some(Step::TrialMount)),
        "swapped" => said.0 == "ok" && !seen.same_root,
        _ => false,
    };
    if !right {
        return Some(format!("not what was measured before: {seen:?}"));
    }
    (!seen.left.is_empty()).then(|| format!("left behind: {}", seen.left.join("; ")))
}

/// In the guest: one trial of what is mounted at `mountpoint`; prints it. `back` is tried until it works.
pub(crate) fn trial(when: &str, mountpoint: &str, root: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mount = find(mountpoint)?;
    runtime.block_on(async {
        let limits = Limits { warm: 1, max: 4, per_owner: 4 };
        let pool = Pool::new(Image::of_this_binary()?, limits);
        let begin = Instant::now();
        let address = mount.origin.address.context("the mount has no addr=")?;
        if when == "usual" {
            let seen = negotiated(&pool, &mount, address, root).await?;
            println!("{}", serde_json::to_string(&seen)?);
            return Ok(());
        }
        let spec = TrialSpec::of_mount(&mount, address).context("the mount is no NFS mount")?;
        loop {
            let seen = once(&pool, when, &spec, root).await?;
            if when != "back" || seen.result == "ok" || begin.elapsed() > RECOVERY_LIMIT {
                println!("{}", serde_json::to_string(&seen)?);
                return Ok(());
            }
        }
    })
}

/// As mount.nfs does it for a person who names neither version nor options.
async fn negotiated(pool: &Pool, mount: &Mount, address: IpAddr, root: u64) -> Result<Seen> {
    let (server, export) = (mount.origin.server.as_deref(), mount.origin.export.as_deref());
    let (server, export) = server.zip(export).context("the mount has no source")?;
    let mut way = Vec::new();
    let mut version = VERSIONS[0];
    loop {
        let mut spec = TrialSpec::usual(server, export, version, address);
        // The guest's nfsd is not registered with rpcbind.
        spec.options.push(TrialOption { name: "port".to_owned(), value: Some("2049".to_owned()) });
        let seen = once(pool, "usual", &spec, root).await?;
        way.push(format!("{version} {}", seen.result));
        match seen.errno.and_then(|errno| next_version(version, errno)) {
            Some(next) => version = next,
            None => return Ok(Seen { words: way.join(", then "), ..seen }),
        }
    }
}

async fn once(pool: &Pool, when: &str, spec: &TrialSpec, root: u64) -> Result<Seen> {
    let spec = spec.clone();
    let before = traces()?;
    let begin = Instant::now();
    let attempt = attempt(pool, spec, "trial", DEADLINE).await;
    let millis = begin.elapsed().as_millis();
    let words = attempt.explain(DEADLINE);
    let mut seen = match attempt {
        Attempt::Report(report) => answered(&report, root),
        Attempt::Silent { step, gone } => {
            let killed = Instant::now();
            let reaped = tokio::time::timeout(RECOVERY_LIMIT, gone).await.is_ok();
            ensure!(reaped, "the killed worker is not gone after {RECOVERY_LIMIT:?}");
            Seen {
                result: "silent".to_owned(),
                step,
                gone_millis: Some(killed.elapsed().as_millis()),
                ..answered(&TrialReport::default(), root)
            }
        }
        Attempt::NotMade(reason) => bail!(reason),
    };
    if let Some(words) = words {
        seen.words = words;
    }
    (seen.when, seen.millis) = (when.to_owned(), millis);
    seen.left = left(&before)?;
    Ok(seen)
}

fn answered(report: &TrialReport, root: u64) -> Seen {
    let failure = report.failure();
    let shown: Vec<String> = report.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    Seen {
        when: String::new(),
        result: failure.map_or_else(|| "ok".to_owned(), |(_, errno)| errno_name(errno)),
        errno: failure.map(|(_, errno)| errno),
        step: failure.map(|(step, _)| step),
        millis: 0,
        same_root: report.root.is_some_and(|attributes| attributes.ino == root),
        names: report.names.len(),
        gone_millis: None,
        left: Vec::new(),
        words: format!("the root holds {}", shown.join(", ")),
    }
}

fn find(mountpoint: &str) -> Result<Mount> {
    let table = Table::read(Path::new("/proc"))?;
    let at = |mount: &&Mount| octal::label(mount.mountpoint.as_os_str()) == mountpoint;
    table.mounts.iter().find(at).cloned().with_context(|| format!("nothing is mounted at {mountpoint}"))
}

/// Everything by which the client remembers mounts, with how often each line stands there.
fn traces() -> Result<BTreeMap<String, usize>> {
    let mut lines = BTreeMap::new();
    for file in ["/proc/self/mountinfo", "/proc/fs/nfsfs/volumes"] {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
        for line in text.lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
    }
    Ok(lines)
}

/// What there is more of than before, once the kernel had time to forget it.
fn left(before: &BTreeMap<String, usize>) -> Result<Vec<String>> {
    let begin = Instant::now();
    loop {
        let now = traces()?;
        let more = now.into_iter().filter(|(line, count)| before.get(line).copied().unwrap_or(0) < *count);
        let more: Vec<String> = more.map(|(line, _)| line).collect();
        if more.is_empty() || begin.elapsed() > Duration::from_secs(5) {
            return Ok(more);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
