//! A mounted path: the table, the probe, the server's side, who waits, who uses it, and whether a new mount would work.

mod server_side;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::report::{Outcome, StepName, StepReport};
use super::trials::{self, Trial};
use super::{Asked, processes};
use crate::config::Config;
use crate::mounts::table::Table;
use crate::mounts::{Kind, Mount, kubelet, octal};
use crate::server::conclude::Conclusion;
use crate::snapshot::MountStatus;
use crate::verdict::advice::{AdviceFacts, advice};
use crate::verdict::{Cause, Severity, State};
use server_side::ServerSide;

/// Paths and pods that are named.
const NAMED: usize = 6;

/// What was found out about a path.
pub(super) struct Found {
    pub(super) steps: Vec<StepReport>,
    pub(super) status: MountStatus,
    /// What `check` says, or `stale` where it could not know and the server's answers prove it.
    pub(super) state: State,
    /// As far as it is proven.
    pub(super) cause: Option<Cause>,
    pub(super) candidates: Vec<Cause>,
    pub(super) summary: String,
    pub(super) todo: Vec<String>,
}

/// Looks at the mount that holds `path` (absolute). The error is why there is none to look at.
pub(super) async fn diagnose(path: &Path, asked: &Asked<'_>, config: &Config) -> anyhow::Result<Result<Found, String>> {
    let table = Table::read(&config.proc_root)?;
    let Some(mount) = crate::agent::holder(&table.mounts, path) else {
        return Ok(Err("no mount holds this path".to_owned()));
    };
    let label = octal::label(mount.mountpoint.as_os_str());
    let (status, took) = look(path, mount, config, false).await?;
    let Some(mut status) = status else {
        return Ok(Err(format!(
            "it lies on {label}, which is {}: no network filesystem that is watched",
            mount.fstype
        )));
    };
    let mut steps = vec![in_table(mount), options(&status), probe(&status, took)];
    if status.cause == Some(Cause::AgentOverloaded) {
        // This host was too busy to tell. That passes, more often than not.
        let (again, took) = look(path, mount, config, false).await?;
        if let Some(again) = again {
            steps.push(probe(&again, took));
            status = again;
        }
    }
    let mut written = false;
    if asked.options.write {
        let (step, after) = write(path, mount, &status, config).await?;
        written = step.outcome == Outcome::Ok;
        steps.push(step);
        status = after.unwrap_or(status);
    }
    let server = ServerSide::ask(mount, &status, asked).await;
    steps.extend(server.steps);
    steps.push(blocked(mount, &config.proc_root));
    steps.push(holders(mount, &table));
    let conclusion = server.conclusion;
    let cause = conclusion.cause.or(status.cause).filter(|cause| *cause != Cause::Unknown);
    let state = state(&status, cause);
    let (summary, mut todo) = words(&status, state, cause, &conclusion, &server.trial, &label, written);
    todo.extend(server.notes);
    Ok(Ok(Found { steps, status, state, cause, candidates: conclusion.candidates, summary, todo }))
}

/// One pass of `check` over the mount, with a canary or without; what it says of it, and how long it took.
async fn look(
    path: &Path,
    mount: &Mount,
    config: &Config,
    write: bool,
) -> anyhow::Result<(Option<MountStatus>, Duration)> {
    let begin = Instant::now();
    let pass = if write {
        crate::agent::check_by_writing(config, path.to_owned()).await?
    } else {
        crate::agent::check(config, &[path.to_owned()]).await?
    };
    let (label, dev) = (octal::label(mount.mountpoint.as_os_str()), mount.dev.to_string());
    let of = |status: &MountStatus| status.dev == dev && (status.paths.contains(&label) || status.mountpoint == label);
    Ok((pass.snapshot.mounts.into_iter().find(of), begin.elapsed()))
}

/// A root that is refused and was never seen to answer may be anybody's fault; where the server says that it is no longer
/// exported or valid, it is `stale` (DESIGN 2).
fn state(status: &MountStatus, cause: Option<Cause>) -> State {
    let proven = matches!(cause, Some(Cause::ExportGone | Cause::HandleInvalid | Cause::FilesystemReplaced));
    if status.state == State::Unknown && root_refused(status) && proven { State::Stale } else { status.state }
}

fn root_refused(status: &MountStatus) -> bool {
    let refused = |error: &str| matches!(error, "EACCES" | "EPERM");
    status.steps.iter().any(|step| step.step == "statx_root" && step.error.as_deref().is_some_and(refused))
}

fn in_table(mount: &Mount) -> StepReport {
    let at = octal::label(mount.mountpoint.as_os_str());
    let options = trials::spaced(&octal::label(&mount.super_options));
    let hidden = mount.hidden_by.map(|_| "; another mount lies on top of it").unwrap_or_default();
    let answer = format!("{at} is {} ({}), {options}{hidden}", mount.origin.label, mount.fstype);
    StepReport::made(StepName::MountTable, Outcome::Ok, "what is mounted there?", answer, Duration::ZERO)
}

fn options(status: &MountStatus) -> StepReport {
    let found: Vec<String> =
        status.findings.iter().map(|of| format!("{of}: {}; {}", status.finding_words(*of), of.advice())).collect();
    let (outcome, answer) = match found.is_empty() {
        true => (Outcome::Ok, "nothing that is known to make trouble".to_owned()),
        false => (Outcome::Note, found.join(". ")),
    };
    StepReport::made(StepName::Findings, outcome, "is something unwise about it?", answer, Duration::ZERO)
}

fn probe(status: &MountStatus, took: Duration) -> StepReport {
    let outcome = match status.severity() {
        Severity::Healthy => Outcome::Ok,
        _ => Outcome::Failed,
    };
    let steps: Vec<String> = status
        .steps
        .iter()
        .map(|step| {
            let error = step.error.as_ref().map(|error| format!(" {error}")).unwrap_or_default();
            format!("{} {:.1} ms{error}", step.step, step.seconds * 1e3)
        })
        .collect();
    let mut answer = status.state.to_string();
    if !status.evidence.is_empty() {
        answer += &format!(": {}", status.evidence);
    }
    if !steps.is_empty() {
        answer += &format!(" ({})", steps.join(", "));
    }
    StepReport::made(StepName::Probe, outcome, "does it answer a worker that may be lost?", answer, took)
}

/// Writes a canary, where reading is well; what is known of the mount then.
async fn write(
    path: &Path,
    mount: &Mount,
    before: &MountStatus,
    config: &Config,
) -> anyhow::Result<(StepReport, Option<MountStatus>)> {
    let identity = config.canary_identity.as_ref().map_or_else(|| "this user".to_owned(), ToString::to_string);
    let asked = format!("can {identity} write there, and read it back?");
    let skipped = |why: String| Ok((StepReport::skipped(StepName::Write, &asked, why), None));
    if before.state != State::Healthy {
        return skipped(format!("nothing is written to what is {}", before.state));
    }
    if mount.has_option("ro") {
        return skipped("it is mounted read-only here".to_owned());
    }
    let (after, took) = look(path, mount, config, true).await?;
    let Some(canary) = after.as_ref().and_then(|after| after.canary.clone()) else {
        return skipped("it did not answer well enough to be written to".to_owned());
    };
    let outcome = match canary.result.as_str() {
        "ok" | "late" => Outcome::Ok,
        "skipped" | "refused" => Outcome::Skipped,
        _ => Outcome::Failed,
    };
    Ok((StepReport::made(StepName::Write, outcome, asked, canary.detail, took), after))
}

fn blocked(mount: &Mount, proc_root: &Path) -> StepReport {
    let begin = Instant::now();
    let asked = format!("which processes wait in the kernel for a mount of this kind ({})?", mount.fstype);
    let kind = mount.kind.unwrap_or(Kind::Fuse);
    let (outcome, answer) = match processes::blocked(proc_root, kind, nix::unistd::getpid().as_raw()) {
        Err(error) => (Outcome::Failed, format!("cannot list {}: {error}", proc_root.display())),
        Ok(found) => waiting(&found),
    };
    StepReport::made(StepName::Blocked, outcome, asked, answer, begin.elapsed())
}

fn waiting(found: &processes::Blocked) -> (Outcome, String) {
    let shown: Vec<String> = found
        .here
        .iter()
        .take(processes::SHOWN)
        .map(|one| {
            let function = one.function.as_deref().unwrap_or("?");
            let threads = if one.threads > 1 { format!(", {} threads", one.threads) } else { String::new() };
            format!("{} {} (in {function}{threads})", one.pid, octal::label(std::ffi::OsStr::new(&one.name)))
        })
        .collect();
    let left = found.here.len().saturating_sub(processes::SHOWN);
    let left = if left > 0 { format!(" and {left} more") } else { String::new() };
    let elsewhere = match found.elsewhere {
        0 => String::new(),
        count => format!("; {count} more wait for something that cannot be told (as root their stacks can be read)"),
    };
    match shown.is_empty() {
        true => (Outcome::Ok, format!("none{elsewhere}")),
        false => {
            (Outcome::Note, format!("{}{left}; which mount each waits for is not known{elsewhere}", shown.join(", ")))
        }
    }
}

/// Where else the same superblock is mounted: all of that dies and recovers together.
fn holders(mount: &Mount, table: &Table) -> StepReport {
    let same: Vec<&Mount> = table.mounts.iter().filter(|other| other.dev == mount.dev).collect();
    let pods: BTreeSet<String> = same.iter().filter_map(|mount| kubelet::pod_uid(&mount.mountpoint)).collect();
    let paths: Vec<String> = same.iter().take(NAMED).map(|mount| octal::label(mount.mountpoint.as_os_str())).collect();
    let left = same.len().saturating_sub(NAMED);
    let left = if left > 0 { format!(" and {left} more") } else { String::new() };
    let of_pods = match pods.len() {
        0 => String::new(),
        count => {
            let named: Vec<&str> = pods.iter().take(NAMED).map(String::as_str).collect();
            format!("; pods by UID ({count}): {}", named.join(", "))
        }
    };
    let answer = format!("{}{left}{of_pods}", paths.join(", "));
    StepReport::made(StepName::Holders, Outcome::Note, "where is the same filesystem mounted?", answer, Duration::ZERO)
}

fn words(
    status: &MountStatus,
    state: State,
    cause: Option<Cause>,
    conclusion: &Conclusion,
    trial: &Trial,
    path: &str,
    written: bool,
) -> (String, Vec<String>) {
    let mut summary = if state == State::Healthy && written {
        format!("{path} answers, and so does its server. What was written there was read back.")
    } else if state == State::Healthy {
        format!(
            "{path} answers, and so does its server. That is about reading; whether it may be written to, and has room, was not tried (`--write` tries it)."
        )
    } else {
        let facts = super::words::Facts {
            server: status.origin.server.as_deref().unwrap_or("the server"),
            export: status.origin.export.as_deref().unwrap_or("/"),
            address: status.origin.address.zip(status.origin.port).map(Into::into),
            efs: status.origin.efs_file_system.is_some(),
        };
        let plain = cause.map(|cause| format!(" {}", super::words::plain(cause, &facts))).unwrap_or_default();
        format!("{path} is {state}.{plain}")
    };
    if let Some(why) = &conclusion.why {
        summary += &format!(" Proof: {}.", super::words::untechnical(why));
    }
    if matches!(trial, Trial::Mounted(_)) && state.severity() == Severity::Dead {
        summary += " A new mount of the same works.";
    }
    if !conclusion.candidates.is_empty() {
        let likely: Vec<&str> = conclusion.candidates.iter().map(|cause| cause.as_str()).collect();
        summary += &format!(" Possible, but not proven: {}.", likely.join(", "));
    }
    let facts = AdviceFacts {
        mountpoint: path,
        server: status.origin.server.as_deref(),
        export: status.origin.export.as_deref(),
        port: status.origin.port,
        fstype: &status.fstype,
    };
    let advice = advice(state, cause.unwrap_or(Cause::Unknown), &facts);
    (summary, if advice.is_empty() { Vec::new() } else { vec![advice] })
}
