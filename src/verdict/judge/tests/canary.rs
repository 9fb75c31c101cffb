//! What canaries prove, and what they do not.

use super::*;
use crate::verdict::{CanaryOutcome, CanaryView, Examined};

fn view(outcome: CanaryOutcome, rounds: u32) -> CanaryView {
    CanaryView { outcome, rounds, as_root: true, space: None }
}

fn with(facts: Facts, canary: CanaryView) -> Evidence {
    Evidence { canary: Some(canary), ..seen(facts, Observation::Report(good())) }
}

fn failure(errno: i32) -> CanaryOutcome {
    CanaryOutcome::Failed(step(Step::CanaryWrite, Some(errno), 400))
}

/// A good look at an NFS mount whose canary failed.
pub(super) fn failed(errno: i32) -> Evidence {
    with(nfs(Mode::Hard), view(failure(errno), 1))
}

fn verdict_of(evidence: &Evidence) -> (State, Option<Cause>) {
    let verdict = judge(&after_good(&evidence.facts), evidence, &tuning()).verdict;
    (verdict.state, verdict.cause)
}

#[test]
fn what_a_canary_meets_has_its_state_at_once() {
    for (errno, state, cause) in [
        (libc::EROFS, State::Readonly, Cause::ExportReadonly),
        (libc::EACCES, State::Denied, Cause::RootSquashed),
        (libc::EPERM, State::Denied, Cause::RootSquashed),
        (libc::ENOSPC, State::Full, Cause::OutOfSpace),
        (libc::EDQUOT, State::Full, Cause::Quota),
    ] {
        assert_eq!(verdict_of(&failed(errno)), (state, Some(cause)), "errno {errno}");
    }
}

#[test]
fn another_user_than_root_is_refused_by_owner_and_mode() {
    let squashed = CanaryView { as_root: false, ..view(failure(libc::EACCES), 1) };
    assert_eq!(verdict_of(&with(nfs(Mode::Hard), squashed)), (State::Denied, Some(Cause::Permission)));
    let fuse = with(fuse(), view(failure(libc::EACCES), 1));
    assert_eq!(verdict_of(&fuse), (State::Denied, Some(Cause::Permission)), "FUSE knows no squashing");
}

#[test]
fn what_is_read_only_here_is_no_matter_of_the_export() {
    let local = Facts { kind: None, local: true, ..nfs(Mode::Hard) };
    assert_eq!(
        verdict_of(&with(local, view(failure(libc::EROFS), 1))),
        (State::Readonly, Some(Cause::MountedReadonly))
    );
}

#[test]
fn no_room_is_told_apart_by_what_there_is_none_of() {
    let space = good().space.map(|space| Space { files_free: 0, ..space });
    let canary = CanaryView { space, ..view(failure(libc::ENOSPC), 1) };
    assert_eq!(verdict_of(&with(nfs(Mode::Hard), canary)), (State::Full, Some(Cause::OutOfInodes)));
}

#[test]
fn what_differs_once_is_no_corruption() {
    let once = with(nfs(Mode::Hard), view(CanaryOutcome::Differs, 1));
    assert_eq!(verdict_of(&once), (State::Healthy, None));
    let twice = with(nfs(Mode::Hard), view(CanaryOutcome::Differs, 2));
    assert_eq!(verdict_of(&twice), (State::Corrupt, Some(Cause::DataMismatch)));
}

#[test]
fn a_late_write_and_a_file_that_was_removed_are_no_fault() {
    for outcome in [CanaryOutcome::Good, CanaryOutcome::Late, failure(libc::ENOENT), failure(libc::ESTALE)] {
        assert_eq!(verdict_of(&with(nfs(Mode::Hard), view(outcome.clone(), 3))), (State::Healthy, None), "{outcome:?}");
    }
}

#[test]
fn an_odd_error_has_to_come_twice() {
    assert_eq!(verdict_of(&with(nfs(Mode::Hard), view(failure(libc::EIO), 1))), (State::Healthy, None));
    let twice = with(nfs(Mode::Hard), view(failure(libc::EIO), 2));
    assert_eq!(verdict_of(&twice), (State::Error, Some(Cause::IoError)));
}

#[test]
fn a_write_that_does_not_return_while_reads_do_is_the_servers_silence() {
    let stuck = Blocked { step: Some(Step::CanaryCommit), ..blocked() };
    let mut evidence = with(nfs(Mode::Hard), view(CanaryOutcome::Blocked(stuck.clone()), 1));
    assert_eq!(verdict_of(&evidence), (State::Hung, Some(Cause::Unknown)), "its server was not asked yet");
    evidence.examined = Some(Examined { symptom: Symptom::Hung, cause: None, why: None });
    let verdict = judge(&after_good(&evidence.facts), &evidence, &tuning()).verdict;
    assert_eq!((verdict.state, verdict.cause), (State::Hung, Some(Cause::ServerUnresponsive)));
    assert!(verdict.evidence.contains("committing the canary") && verdict.evidence.contains("reads are answered"));
    assert_eq!(
        verdict_of(&with(fuse(), view(CanaryOutcome::Blocked(stuck.clone()), 1))),
        (State::Hung, Some(Cause::DaemonStuck))
    );
    let ours = CanaryOutcome::Blocked(Blocked { late_millis: 5000, ..stuck });
    assert_eq!(verdict_of(&with(nfs(Mode::Hard), view(ours, 1))), (State::Healthy, None));
}

#[test]
fn a_write_that_an_earlier_agent_began_and_that_is_not_back_hangs() {
    let mut evidence = with(nfs(Mode::Hard), view(CanaryOutcome::Stray(61_000), 1));
    evidence.examined = Some(Examined { symptom: Symptom::Hung, cause: None, why: None });
    let verdict = judge(&after_good(&evidence.facts), &evidence, &tuning()).verdict;
    assert_eq!((verdict.state, verdict.cause), (State::Hung, Some(Cause::ServerUnresponsive)));
    assert!(verdict.evidence.contains("an earlier agent began 1m 1s ago"), "{}", verdict.evidence);
}

#[test]
fn a_soft_mount_that_gives_a_write_up_hangs() {
    let gave_up = CanaryOutcome::Failed(step(Step::CanaryOpen, Some(libc::EIO), 6000 * MILLI));
    let mut evidence = with(nfs(Mode::Soft), view(gave_up, 1));
    assert_eq!(verdict_of(&evidence), (State::Hung, Some(Cause::Unknown)));
    evidence.examined = Some(Examined { symptom: Symptom::Hung, cause: None, why: None });
    assert_eq!(verdict_of(&evidence), (State::Hung, Some(Cause::ServerUnresponsive)));
}

/// Reads are answered in the grace period and opens for writing are not: that is no broken disk.
#[test]
fn a_write_that_waits_for_the_end_of_the_grace_period_has_a_recovering_server() {
    let stuck = Blocked { step: Some(Step::CanaryOpen), ..blocked() };
    let mut evidence = with(nfs(Mode::Hard), view(CanaryOutcome::Blocked(stuck), 1));
    evidence.examined = examined(Symptom::Hung, Cause::ServerRecovering);
    assert_eq!(verdict_of(&evidence), (State::Hung, Some(Cause::ServerRecovering)));
}

#[test]
fn what_reading_shows_comes_before_what_writing_shows() {
    let root = Observation::Report(root_failed(libc::ESTALE, 300));
    let evidence = Evidence { observation: root, ..failed(libc::EROFS) };
    assert_eq!(verdict_of(&evidence).0, State::Stale);
}
