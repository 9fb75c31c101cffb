//! The rules, most telling first. Each says in its comment what was measured or specified.

mod canary;
mod on_host;

use super::{Cause, Evidence, Look, Memory, Replaced, State, Tuning, words};
use crate::mounts::Kind;
use crate::mounts::source::Mode;
use crate::probe::{ProbeReport, SentinelCheck, Step, StepResult};
use crate::server::conclude::Symptom;
use crate::verdict::{NotRun, Observation};

/// errno 512, ERESTARTSYS: what somebody's `umount2(MNT_FORCE)` leaves behind in the calls that it aborted.
const ERESTARTSYS: i32 = 512;

/// There was no look at the mount.
pub(super) struct Absent {
    pub(super) cause: Cause,
    pub(super) evidence: String,
    /// The last verdict does not stand any longer.
    pub(super) voids: bool,
}

/// What this look says by itself, and what the host has in place of the mount.
pub(super) fn look(memory: &Memory, evidence: &Evidence, tuning: &Tuning) -> Result<Look, Absent> {
    let on_host = evidence.on_host.as_ref().filter(|_| tuning.has("on_host"));
    if let Some(look) = on_host.and_then(on_host::absent) {
        return Ok(look);
    }
    let look = look_at_mount(memory, evidence, tuning)?;
    Ok(match on_host {
        Some(on_host) => on_host::compared(look, on_host),
        None => look,
    })
}

fn look_at_mount(memory: &Memory, evidence: &Evidence, tuning: &Tuning) -> Result<Look, Absent> {
    match &evidence.observation {
        Observation::NotRun(reason) => Err(absent(reason)),
        Observation::Blocked(blocked) if !blocked.is_evidence() => {
            Err(Absent { cause: Cause::AgentOverloaded, evidence: words::no_evidence(blocked), voids: false })
        }
        Observation::Blocked(blocked) if tuning.has("blocked") => Ok(hung(evidence, true, words::blocked(blocked))),
        Observation::Blocked(_) => Ok(healthy("a blocked probe (the detector is off)".to_owned(), Replaced::No)),
        Observation::Inherited { from, cause } => {
            // The server may have been asked since the other one was judged.
            let known = cause.filter(|cause| *cause != Cause::Unknown);
            Ok(hard(State::Hung, known.or_else(|| hung_cause(evidence, false)), words::inherited(from)))
        }
        Observation::Report(report) => from_report(memory, evidence, tuning, report),
    }
}

fn absent(reason: &NotRun) -> Absent {
    let (cause, voids) = match reason {
        NotRun::Overloaded(_) | NotRun::WorkerLost(_) | NotRun::WorkerNotStarted(_) => (Cause::AgentOverloaded, false),
        NotRun::WorkerCap => (Cause::WorkerCap, false),
        NotRun::TableChanged | NotRun::NotCached | NotRun::Terminating => (Cause::Unknown, false),
        NotRun::ThroughDeadMount(_) | NotRun::Hidden | NotRun::Absent => (Cause::Unknown, true),
    };
    Absent { cause, evidence: words::not_run(reason), voids }
}

fn from_report(memory: &Memory, evidence: &Evidence, tuning: &Tuning, report: &ProbeReport) -> Result<Look, Absent> {
    if report.mismatch {
        return Err(absent(&NotRun::TableChanged));
    }
    if let Some((failed, errno)) = report.steps.iter().find_map(|step| Some((step, step.errno?))) {
        let look = match failed.step {
            Step::Open => open_error(memory, evidence, tuning, failed, errno)?,
            Step::Device => Some(hard(State::Error, Some(Cause::DeviceLost), words::device_gone())),
            Step::StatxRoot => root_error(memory, evidence, tuning, report, failed, errno),
            _ => later_error(evidence, tuning, failed, errno),
        };
        if let Some(look) = look {
            return Ok(look);
        }
    }
    if evidence.facts.deleted {
        return Ok(hard(State::Lost, Some(Cause::Unknown), words::deleted_here()));
    }
    // A directory that was deleted on the server still answers, with no links left (measured on v3, first seconds).
    if tuning.has("deleted_root") && evidence.facts.is_nfs() && report.root.is_some_and(|root| root.nlink == 0) {
        return Ok(hard(State::Stale, Some(Cause::HandleInvalid), words::deleted()));
    }
    if let Some(look) = late(evidence, tuning, report).or_else(|| late_sentinel(evidence, tuning, report)) {
        return Ok(look);
    }
    let replaced = if tuning.has("sentinels") { replaced(memory, evidence, report) } else { Sentinels::Fine };
    if let Sentinels::Replaced(words) = replaced {
        return Ok(hard(State::Lost, Some(Cause::FilesystemReplaced), words));
    }
    if let Some(look) = cannot_write(evidence, tuning, report) {
        return Ok(look);
    }
    let suspicion = match replaced {
        Sentinels::Maybe => Replaced::Maybe,
        Sentinels::Gone => Replaced::Gone,
        Sentinels::Fine | Sentinels::Replaced(_) => Replaced::No,
    };
    let longest = report.steps.iter().max_by_key(|step| step.micros);
    Ok(match longest.filter(|step| step.micros / 1000 > tuning.slow_millis) {
        Some(step) => Look { replaced: suspicion, ..soft(State::Slow, Some(Cause::Unknown), words::slow(step)) },
        None => healthy(words::healthy(report), suspicion),
    })
}

/// The way to the root failed; no request for the root itself was made yet.
fn open_error(
    memory: &Memory,
    evidence: &Evidence,
    tuning: &Tuning,
    failed: &StepResult,
    errno: i32,
) -> Result<Option<Look>, Absent> {
    let said = words::failed(failed, errno);
    match errno {
        // The path is gone, or somebody put a symlink there: the table is read again.
        libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV => Err(absent(&NotRun::TableChanged)),
        // RESOLVE_CACHED: going on would have meant asking the mount that the path leads through. Kernels before 5.12 do
        // not know the flag and say EINVAL.
        libc::EAGAIN | libc::EINVAL => Err(absent(&NotRun::NotCached)),
        // Directories on the way, not the mount, refuse us.
        libc::EACCES | libc::EPERM => Ok(Some(hard(State::Unknown, Some(Cause::Permission), words::no_way(&said)))),
        _ => Ok(no_answer(evidence, tuning, failed, errno).or_else(|| match errno {
            // Seen on v3 with expired caches (ATLAS 2.4): the open itself revalidates the root. And once a client has seen
            // the root without links it refuses every open by itself (lab `rmsub_held`): what was proven then still is.
            libc::ESTALE if evidence.facts.is_nfs() && tuning.has("stale") => {
                let before = memory.state == State::Stale && memory.cause == Some(Cause::HandleInvalid);
                let before = if before { Cause::HandleInvalid } else { Cause::Unknown };
                let cause = proven(evidence, Symptom::Refused).unwrap_or(before);
                Some(hard(State::Stale, Some(cause), words::with_why(said, evidence)))
            }
            libc::ENOTCONN | libc::ECONNABORTED if evidence.facts.kind == Some(Kind::Fuse) && tuning.has("fuse") => {
                Some(hard(State::Lost, Some(Cause::DaemonDead), said))
            }
            _ => other_error(evidence, tuning, errno, said),
        })),
    }
}

/// The root itself was refused: the errors that DESIGN's table names, then the rest.
fn root_error(
    memory: &Memory,
    evidence: &Evidence,
    tuning: &Tuning,
    report: &ProbeReport,
    failed: &StepResult,
    errno: i32,
) -> Option<Look> {
    let facts = &evidence.facts;
    let said = words::failed(failed, errno);
    if let Some(look) = no_answer(evidence, tuning, failed, errno) {
        return Some(look);
    }
    match errno {
        // From the forced statx, ESTALE is the server's word whatever time it took. When statfs still works on the same
        // handle the export is there and the root is another directory; otherwise handle and export look alike from here.
        libc::ESTALE if facts.is_nfs() && tuning.has("stale") => {
            let export_there = report.step(Step::Statfs).is_some_and(|step| step.errno.is_none());
            let cause = if export_there { Cause::HandleInvalid } else { Cause::Unknown };
            let cause = proven(evidence, Symptom::Refused).unwrap_or(cause);
            Some(hard(State::Stale, Some(cause), words::with_why(said, evidence)))
        }
        // GETATTR needs no permission with sec=sys, so a root that answered before and is refused now is not exported
        // to us any more. A first refusal, Kerberos, or everybody refusing at once may be our own rights.
        libc::EACCES | libc::EPERM if facts.is_nfs() && tuning.has("refused_root") => {
            let before = memory.answered && facts.plain_security && !evidence.many_refuse;
            // Or the server itself says that it does not export it to us.
            let now = proven(evidence, Symptom::Refused).filter(|_| !evidence.many_refuse);
            Some(if let Some(cause) = now.or(before.then_some(Cause::ExportGone)) {
                hard(State::Stale, Some(cause), words::with_why(said, evidence))
            } else {
                hard(State::Unknown, Some(Cause::Unknown), words::refused(&said, evidence.many_refuse))
            })
        }
        // Without allow_other FUSE refuses everybody but its owner, root included (measured).
        libc::EACCES | libc::EPERM => Some(hard(State::Unknown, Some(Cause::Permission), words::not_ours(&said))),
        // Kerberos without a valid ticket: our rights, not the mount's health.
        libc::EKEYEXPIRED | libc::ENOKEY | libc::EKEYREVOKED | libc::EKEYREJECTED => {
            Some(hard(State::Unknown, Some(Cause::Permission), words::no_key(&said)))
        }
        libc::ENOTCONN if facts.passes_enotconn => Some(hung(evidence, false, said)),
        libc::ENOTCONN | libc::ECONNABORTED if facts.kind == Some(Kind::Fuse) && tuning.has("fuse") => {
            Some(hard(State::Lost, Some(Cause::DaemonDead), said))
        }
        _ => other_error(evidence, tuning, errno, said),
    }
}

/// Sentinel, statfs or learning failed although the root answered.
fn later_error(evidence: &Evidence, tuning: &Tuning, failed: &StepResult, errno: i32) -> Option<Look> {
    if let Some(look) = no_answer(evidence, tuning, failed, errno) {
        return Some(look);
    }
    match (failed.step, errno) {
        // Learning is a convenience: a directory that we may not read has no sentinels.
        (Step::Learn, _) | (_, libc::EACCES | libc::EPERM | libc::ENOSYS | libc::EOPNOTSUPP) => None,
        _ => other_error(evidence, tuning, errno, words::failed(failed, errno)),
    }
}

/// Errors that mean "nobody answered". A soft mount gives up after its budget with EIO (soft), ETIMEDOUT (softerr), and
/// open and lookup turn that into ESTALE (measured: 6.1 s for two requests of 3 s).
fn no_answer(evidence: &Evidence, tuning: &Tuning, failed: &StepResult, errno: i32) -> Option<Look> {
    let facts = &evidence.facts;
    let said = words::failed(failed, errno);
    let network = matches!(
        errno,
        libc::ETIMEDOUT
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::ECONNREFUSED
            | libc::ECONNRESET
    );
    let cifs_lost = facts.kind == Some(Kind::Cifs) && errno == libc::ENOTCONN;
    if (network || cifs_lost) && tuning.has("soft_timeout") {
        return Some(hung(evidence, false, words::gave_up(&said)));
    }
    let timed_out = match errno {
        libc::EIO => true,
        libc::ESTALE => !matches!(failed.step, Step::StatxRoot),
        _ => false,
    };
    let waited = gave_up_after(evidence).is_some_and(|limit| failed.micros >= limit);
    let silent = evidence.server.as_ref().is_some_and(|server| !server.alive);
    let soft = facts.is_nfs() && facts.soft_budget_millis.is_some();
    (soft && timed_out && (waited || silent) && tuning.has("soft_timeout"))
        .then(|| hung(evidence, false, words::gave_up(&said)))
}

fn other_error(evidence: &Evidence, tuning: &Tuning, errno: i32, said: String) -> Option<Look> {
    if !tuning.has("errno") {
        return None;
    }
    let cause = match errno {
        // NFS: only a server that was asked and lives is proven not to be the reason.
        libc::EIO if !evidence.facts.is_nfs() => Cause::IoError,
        libc::EIO if evidence.server.as_ref().is_some_and(|server| server.alive) => Cause::IoError,
        libc::EREMOTEIO => Cause::IoError,
        libc::ENODEV | libc::ENXIO => Cause::DeviceLost,
        _ => Cause::Unknown,
    };
    let said = if errno == ERESTARTSYS { words::forced() } else { said };
    Some(soft(State::Error, Some(cause), said))
}

/// A soft mount that answers nothing gives up after its budget, in microseconds; a little less is allowed for its timers.
fn gave_up_after(evidence: &Evidence) -> Option<u64> {
    evidence.facts.soft_budget_millis.map(|budget| budget * 900).filter(|limit| *limit > 0)
}

/// softerr answers "ok" from cache after the timeout (it implies softreval): an ok slower than the budget is none. Only
/// single requests count: reading a directory entry by entry may take long without any of them being late.
fn late(evidence: &Evidence, tuning: &Tuning, report: &ProbeReport) -> Option<Look> {
    let limit = gave_up_after(evidence).filter(|_| evidence.facts.mode == Some(Mode::Softerr))?;
    let single = |step: &&StepResult| matches!(step.step, Step::StatxRoot | Step::Statfs);
    let sentinel = report.sentinels.iter().find(|check| check.micros >= limit);
    let sentinel = sentinel.map(|check| StepResult { step: Step::Sentinel, errno: check.errno, micros: check.micros });
    let step = report.steps.iter().filter(single).find(|step| step.micros >= limit).cloned().or(sentinel)?;
    tuning.has("late_answer").then(|| hung(evidence, false, words::late(&step)))
}

/// A lookup that a soft mount gave up comes out as ESTALE, late: that is no word about the entry.
fn late_sentinel(evidence: &Evidence, tuning: &Tuning, report: &ProbeReport) -> Option<Look> {
    let limit = gave_up_after(evidence)?;
    let gave_up = |check: &SentinelCheck| check.errno == Some(libc::ESTALE) && check.micros >= limit;
    let late = report.sentinels.iter().find(|check| gave_up(check))?;
    let step = StepResult { step: Step::Sentinel, errno: late.errno, micros: late.micros };
    let said = words::gave_up(&words::failed(&step, libc::ESTALE));
    tuning.has("soft_timeout").then(|| hung(evidence, false, said))
}

enum Sentinels {
    Fine,
    Gone,
    Maybe,
    Replaced(String),
}

/// Another filesystem behind the same handle: every known entry is gone or another one, the transport reconnected since
/// the last good round, and the size differs where it never did before (on ZFS it moves with use). Less proves nothing:
/// people delete files, and servers restart.
fn replaced(memory: &Memory, evidence: &Evidence, report: &ProbeReport) -> Sentinels {
    if !report.sentinels_gone() {
        return Sentinels::Fine;
    }
    let good = memory.good.as_ref();
    let connects = evidence.transport.map(|transport| transport.connects);
    let reconnected = match (good.and_then(|good| good.connects), connects) {
        (Some(before), Some(now)) => now > before,
        // The counters cannot be read: neither proven nor excluded.
        _ => return Sentinels::Maybe,
    };
    if !reconnected {
        return Sentinels::Gone;
    }
    let size = report.space.map(|space| space.size);
    match (good.filter(|good| !good.size_moves).and_then(|good| good.size), size) {
        (Some(before), Some(now)) if before != now => {
            Sentinels::Replaced(words::replaced(report.sentinels.len(), before, now))
        }
        // Our own directory went with all the rest: whoever deletes files leaves that of others alone.
        _ if report.own_gone => Sentinels::Replaced(words::canary_gone_too(report.sentinels.len())),
        _ if proven(evidence, Symptom::Emptied) == Some(Cause::FilesystemReplaced) => {
            Sentinels::Replaced(words::with_why(words::gone_since(report.sentinels.len()), evidence))
        }
        // A handle of this superblock leads to another file: what the size cannot prove, the kernel saw.
        _ if evidence.passive.fileid_changed => Sentinels::Replaced(words::fileid_changed(report.sentinels.len())),
        _ => Sentinels::Maybe,
    }
}

/// The server answers, but writing does not work or will not.
fn cannot_write(evidence: &Evidence, tuning: &Tuning, report: &ProbeReport) -> Option<Look> {
    if let Some(look) = canary::look(evidence, tuning) {
        return Some(look);
    }
    if evidence.facts.writable_on_readonly_superblock {
        return Some(hard(State::Readonly, Some(Cause::MountedReadonly), words::readonly_superblock()));
    }
    let space = report.space.filter(|_| tuning.has("space") && !evidence.facts.read_only)?;
    if space.size > 0 && space.avail == 0 {
        return Some(hard(State::Full, Some(Cause::OutOfSpace), words::out_of_space(space.size)));
    }
    (space.files > 0 && space.files_free == 0)
        .then(|| hard(State::Full, Some(Cause::OutOfInodes), words::out_of_inodes(space.files)))
}

fn hung(evidence: &Evidence, blocked: bool, said: String) -> Look {
    // What was asked about this very mount says more than the server's pulse.
    let said = match proven(evidence, Symptom::Hung) {
        Some(_) => words::with_why(said, evidence),
        None => words::with_server(said, evidence.server.as_ref()),
    };
    hard(State::Hung, hung_cause(evidence, blocked), said)
}

/// Why a target does not answer, as far as it is proven: by the mount for FUSE, by asking the server for the rest.
fn hung_cause(evidence: &Evidence, blocked: bool) -> Option<Cause> {
    if evidence.facts.kind == Some(Kind::Fuse) && blocked {
        // With the daemon gone the kernel answers ENOTCONN at once; a request that waits has a daemon that does not read.
        return Some(Cause::DaemonStuck);
    }
    let alive = evidence.server.as_ref().and_then(|server| server.cause);
    Some(proven(evidence, Symptom::Hung).or(alive).unwrap_or(Cause::Unknown))
}

/// What the server's answers about this very mount prove, if they were given while it had the same symptom.
fn proven(evidence: &Evidence, symptom: Symptom) -> Option<Cause> {
    evidence.examined.as_ref().filter(|examined| examined.symptom == symptom)?.cause
}

fn hard(state: State, cause: Option<Cause>, evidence: String) -> Look {
    Look { state, cause, evidence, hard: true, replaced: Replaced::No }
}

fn soft(state: State, cause: Option<Cause>, evidence: String) -> Look {
    Look { state, cause, evidence, hard: false, replaced: Replaced::No }
}

fn healthy(evidence: String, replaced: Replaced) -> Look {
    Look { state: State::Healthy, cause: None, evidence, hard: true, replaced }
}
