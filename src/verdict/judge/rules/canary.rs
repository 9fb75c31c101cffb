//! What a canary proves. It follows a look at which all was well, so it is asked last.

use super::{Cause, Evidence, Look, State, Tuning, hard, no_answer, words};
use crate::mounts::Kind;
use crate::probe::StepResult;
use crate::server::conclude::Symptom;
use crate::verdict::{CanaryOutcome, CanaryView};

/// What differs, or fails with an error that has no rule, counts when so many canaries in a row said so.
const AGREE: u32 = 2;

pub(super) fn look(evidence: &Evidence, tuning: &Tuning) -> Option<Look> {
    let view = evidence.canary.as_ref().filter(|_| tuning.has("canary"))?;
    match &view.outcome {
        // A late write is none that was lost.
        CanaryOutcome::Good | CanaryOutcome::Late => None,
        CanaryOutcome::Blocked(blocked) if blocked.is_evidence() => {
            Some(hung(evidence, words::canary_blocked(blocked)))
        }
        CanaryOutcome::Blocked(_) => None,
        CanaryOutcome::Stray(millis) => Some(hung(evidence, words::canary_stray(*millis))),
        CanaryOutcome::Differs => (view.rounds >= AGREE)
            .then(|| hard(State::Corrupt, Some(Cause::DataMismatch), words::canary_differs(view.rounds))),
        CanaryOutcome::Failed(failed) => failure(evidence, tuning, view, failed, failed.errno?),
    }
}

/// The mount was just read from, and what is written does not come to an end.
fn hung(evidence: &Evidence, said: String) -> Look {
    let cause = match evidence.facts.kind {
        Some(Kind::Fuse) => Cause::DaemonStuck,
        Some(kind) if kind.is_nfs() => server_side(evidence),
        _ => Cause::Unknown,
    };
    hard(State::Hung, Some(cause), words::with_why(said, evidence))
}

/// Writes wait for a server in its grace period, and reads do not. Where it was asked and says that all is well, what does
/// not answer lies behind it: its disk, as a rule.
fn server_side(evidence: &Evidence) -> Cause {
    let pulse = evidence.server.as_ref().and_then(|server| server.cause);
    match evidence.examined.as_ref().filter(|examined| examined.symptom == Symptom::Hung) {
        Some(examined) => examined.cause.or(pulse).unwrap_or(Cause::ServerUnresponsive),
        None => pulse.unwrap_or(Cause::Unknown),
    }
}

fn failure(evidence: &Evidence, tuning: &Tuning, view: &CanaryView, failed: &StepResult, errno: i32) -> Option<Look> {
    if no_answer(evidence, tuning, failed, errno).is_some() {
        return Some(hung(evidence, words::canary_failed(failed, errno)));
    }
    let facts = &evidence.facts;
    let (state, cause) = match errno {
        // Removed meanwhile, or a root that is gone: the next look says which.
        libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ELOOP | libc::EAGAIN | libc::EINTR => return None,
        // A mount that is read-only on this node has no canary, unless it turned so; of the rest only NFS has exports.
        libc::EROFS if facts.is_nfs() && !facts.read_only && !facts.writable_on_readonly_superblock => {
            (State::Readonly, Cause::ExportReadonly)
        }
        libc::EROFS => (State::Readonly, Cause::MountedReadonly),
        // Mode bits never refuse root, so it was somebody else by the time that the server looked.
        libc::EACCES | libc::EPERM if view.as_root && facts.is_nfs() => (State::Denied, Cause::RootSquashed),
        libc::EACCES | libc::EPERM => (State::Denied, Cause::Permission),
        libc::ENOSPC if view.space.is_some_and(|space| space.files > 0 && space.files_free == 0) => {
            (State::Full, Cause::OutOfInodes)
        }
        libc::ENOSPC => (State::Full, Cause::OutOfSpace),
        libc::EDQUOT => (State::Full, Cause::Quota),
        _ if view.rounds < AGREE => return None,
        libc::EIO => (State::Error, Cause::IoError),
        _ => (State::Error, Cause::Unknown),
    };
    Some(hard(state, Some(cause), words::canary_failed(failed, errno)))
}
