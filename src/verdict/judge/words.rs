//! The evidence in one sentence, for tables, logs and pages.

use std::time::Duration;

use crate::probe::pool::Blocked;
use crate::probe::{ProbeReport, Step, StepResult};
use crate::verdict::{Evidence, NotRun, ServerView};

/// Name of an errno, or its number where it has none.
#[must_use]
pub fn errno_name(errno: i32) -> String {
    if errno == 512 {
        return "ERESTARTSYS (512)".to_owned();
    }
    let known = nix::errno::Errno::from_raw(errno);
    if known == nix::errno::Errno::UnknownErrno { format!("errno {errno}") } else { format!("{known:?}") }
}

fn action(step: Step) -> &'static str {
    match step {
        Step::Open => "opening the mountpoint",
        Step::Device => "looking for its block device",
        Step::StatxRoot => "a forced statx of the root",
        Step::Sentinel => "a forced statx of a known entry",
        Step::Statfs => "statfs",
        Step::Learn => "reading the root directory",
        Step::Counters => "reading mountstats",
        Step::EfsState => "reading the EFS state files",
        Step::Signals => "reading sysfs",
        Step::TrialOpen => "the options of a trial mount",
        Step::TrialMount => "a trial mount",
        Step::TrialRoot => "a forced statx of a trial mount's root",
        Step::TrialNames => "reading a trial mount's root directory",
        Step::TrialClose => "letting a trial mount go",
        Step::CanaryOpen => "opening the canary's file",
        Step::CanaryRead => "reading the canary's last record",
        Step::CanaryWrite => "the canary's write",
        Step::CanaryCommit => "committing the canary's write",
        Step::CanaryVerify => "reading the canary back",
        Step::CanaryRoom => "taking a block more for the canary",
        Step::CanaryClose => "closing the canary's file",
        Step::CanaryReader => "reading the canary as another user",
        Step::CanaryPeers => "reading other nodes' canaries",
        Step::CanaryEntries => "looking at the root's entries",
        Step::CanaryHome => "reading the machine's id",
        Step::Processes => "looking through the processes",
        Step::Survey => "reading who uses what",
        Step::StateFile => "reading or writing the state file",
        Step::Tables => "reading a container's mount table",
    }
}

fn seconds(micros: u64) -> String {
    // Exact enough for words: a probe never lasts 2^52 microseconds.
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let seconds = micros as f64 / 1e6;
    if seconds < 0.1 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

pub(super) fn blocked(blocked: &Blocked) -> String {
    let step = blocked.step.map_or("the probe", action);
    let mut words = format!("{step} has not returned after {}", seconds(blocked.millis.saturating_mul(1000)));
    if let Some(state) = blocked.process_state {
        words += &format!(", the worker is in {state}");
        if let Some(function) = blocked.stack.first() {
            words += &format!(" ({function})");
        }
    }
    words
}

pub(super) fn with_server(said: String, server: Option<&ServerView>) -> String {
    match server {
        Some(server) => format!("{said}; its server {}", server.words),
        None => said,
    }
}

/// The rule that proved the cause, if the server's answers did.
pub(super) fn with_why(said: String, evidence: &Evidence) -> String {
    match evidence.examined.as_ref().and_then(|examined| examined.why.as_ref()) {
        Some(why) => format!("{said}; {why}"),
        None => said,
    }
}

pub(super) fn no_evidence(blocked: &Blocked) -> String {
    if blocked.suspended_millis > 500 {
        return format!("the machine was suspended for {} meanwhile", seconds(blocked.suspended_millis * 1000));
    }
    if blocked.late_millis > 500 {
        return format!("the agent itself was {} late", seconds(blocked.late_millis * 1000));
    }
    match (blocked.step, blocked.process_state) {
        (None, _) => "the probe worker did not get to run".to_owned(),
        (_, Some('T' | 't')) => "somebody stopped the probe worker".to_owned(),
        _ => "the probe worker was running, not waiting, at its deadline".to_owned(),
    }
}

pub(super) fn not_run(reason: &NotRun) -> String {
    match reason {
        NotRun::Overloaded(why) | NotRun::WorkerLost(why) => why.clone(),
        NotRun::WorkerNotStarted(why) => format!("no probe worker could be started: {why}"),
        NotRun::WorkerCap => "no probe worker was free: too many are blocked on dead mounts".to_owned(),
        NotRun::ThroughDeadMount(path) => format!("its path leads through {path}, which does not answer"),
        NotRun::NotCached => "its path leads through another network mount and is not in the cache: walking it would mean to ask that one".to_owned(),
        NotRun::Hidden => "another mount lies on top of it: no path leads there".to_owned(),
        NotRun::Absent => "there is no mount to be probed".to_owned(),
        NotRun::Terminating => "only containers of pods that are being deleted lead to it: looking through them could hold up the kubelet".to_owned(),
        NotRun::TableChanged => "the mount table changed during the probe".to_owned(),
    }
}

pub(super) fn inherited(from: &str) -> String {
    format!("a probe of {from} on the same superblock is blocked; this one was not tried")
}

pub(super) fn failed(step: &StepResult, errno: i32) -> String {
    format!("{} failed with {} after {}", action(step.step), errno_name(errno), seconds(step.micros))
}

pub(super) fn gave_up(said: &str) -> String {
    format!("{said}: the client gave up waiting")
}

pub(super) fn late(step: &StepResult) -> String {
    format!("{} took {}: softerr answers from cache when the server does not", action(step.step), seconds(step.micros))
}

pub(super) fn refused(said: &str, many: bool) -> String {
    if many {
        format!("{said}, as on most other servers: probably our own rights")
    } else {
        format!("{said}, and it never answered before: no access, or not exported to this host")
    }
}

pub(super) fn not_ours(said: &str) -> String {
    format!("{said}: the mount admits its owner only")
}

pub(super) fn no_way(said: &str) -> String {
    format!(
        "{said}: a directory on the way refuses us (past it leads root or CAP_DAC_READ_SEARCH, and CAP_SYS_PTRACE into other mount namespaces)"
    )
}

pub(super) fn no_key(said: &str) -> String {
    format!("{said}: there is no valid Kerberos ticket for this probe")
}

pub(super) fn deleted_here() -> String {
    "the mounted directory was deleted".to_owned()
}

pub(super) fn deleted() -> String {
    "the root has no links left: the directory was deleted on the server".to_owned()
}

pub(super) fn forced() -> String {
    "the call was aborted (errno 512): somebody forced an unmount of this superblock".to_owned()
}

pub(super) fn gone_since(count: usize) -> String {
    format!("{} gone since the client reconnected", entries(count))
}

pub(super) fn canary_gone_too(count: usize) -> String {
    format!("{}, and our own directory with the canary is gone, too, or another one is in its place", gone_since(count))
}

pub(super) fn replaced(count: usize, before: u64, now: u64) -> String {
    format!("{}, and the size went from {before} to {now} bytes", gone_since(count))
}

pub(super) fn fileid_changed(count: usize) -> String {
    format!("{}, and the kernel logged that a file became another one", gone_since(count))
}

fn entries(count: usize) -> String {
    if count == 1 { "the known entry is".to_owned() } else { format!("all {count} known entries are") }
}

pub(super) fn slow(step: &StepResult) -> String {
    format!("{} took {}", action(step.step), seconds(step.micros))
}

pub(super) fn healthy(report: &ProbeReport) -> String {
    let total = report.steps.iter().map(|step| step.micros).sum();
    format!("all steps answered in {}", seconds(total))
}

pub(super) fn remounted(path: &str, said: &str) -> String {
    format!("the host mounted it anew at {path}, and the container kept the old mount, which does not work: {said}")
}

pub(super) fn other_root(path: &str) -> String {
    format!("the host mounted it anew at {path}, and the container kept the old mount, which shows another directory")
}

pub(super) fn unmounted(said: &str) -> String {
    format!("the host has unmounted it, and the container kept the old mount, which does not work: {said}")
}

pub(super) fn on_disk(directory: &str) -> String {
    format!(
        "the container has {directory} of the node's own disk where the network volume should be: nothing was mounted there when it was started, and what it writes stays on this node"
    )
}

pub(super) fn missing() -> String {
    "the pod's specification wants a network volume at this path, and nothing is mounted there in the container"
        .to_owned()
}

pub(super) fn readonly_superblock() -> String {
    "mounted read-write, but the superblock is read-only".to_owned()
}

pub(super) fn device_gone() -> String {
    "the kernel no longer has the block device below it; what still works comes from memory".to_owned()
}

pub(super) fn out_of_space(size: u64) -> String {
    format!("no block is free of {size} bytes")
}

pub(super) fn out_of_inodes(files: u64) -> String {
    format!("none of {files} inodes is free")
}

pub(super) fn canary_failed(step: &StepResult, errno: i32) -> String {
    format!("the mount can be read, but {}", failed(step, errno))
}

pub(super) fn canary_blocked(canary: &Blocked) -> String {
    format!("{}; reads are answered", blocked(canary))
}

pub(super) fn canary_stray(millis: u64) -> String {
    let age = humantime::format_duration(Duration::from_secs(millis / 1000));
    format!("a canary that an earlier agent began {age} ago has not come back from the kernel; reads are answered")
}

pub(super) fn canary_differs(rounds: u32) -> String {
    format!("what the canary read back differs from what it wrote, {rounds} times in a row")
}
