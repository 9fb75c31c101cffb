use super::super::{Examined, Facts, NotRun, Observation, OnHost, Passive, ServerView};
use super::*;
use crate::mounts::Kind;
use crate::mounts::mountstats::TransportCounters;
use crate::mounts::source::Mode;
use crate::probe::pool::Blocked;
use crate::probe::{Identity, ProbeReport, RootAttributes, SentinelCheck, SentinelFate, Space, Step, StepResult};
use crate::server::conclude::Symptom;

mod canary;

const MILLI: u64 = 1000;

fn tuning() -> Tuning {
    Tuning { slow_millis: 1000, stale_after_millis: 35_000, agree: 2, without: Vec::new() }
}

fn nfs(mode: Mode) -> Facts {
    Facts {
        kind: Some(Kind::Nfs4),
        mode: Some(mode),
        soft_budget_millis: (mode != Mode::Hard).then_some(3000),
        plain_security: true,
        read_only: false,
        writable_on_readonly_superblock: false,
        local: false,
        deleted: false,
        passes_enotconn: false,
    }
}

fn fuse() -> Facts {
    Facts { kind: Some(Kind::Fuse), mode: None, plain_security: true, ..nfs(Mode::Hard) }
}

fn seen(facts: Facts, observation: Observation) -> Evidence {
    Evidence {
        at_millis: 60_000,
        facts,
        observation,
        server: None,
        examined: None,
        transport: Some(TransportCounters { connects: 2, sends: 10, recvs: 10 }),
        passive: Passive::default(),
        many_refuse: false,
        canary: None,
        on_host: None,
    }
}

fn step(step: Step, errno: Option<i32>, micros: u64) -> StepResult {
    StepResult { step, errno, micros }
}

/// A round in which everything answered.
fn good() -> ProbeReport {
    ProbeReport {
        steps: vec![step(Step::Open, None, 20), step(Step::StatxRoot, None, 300), step(Step::Statfs, None, 300)],
        identity: Some(Identity::default()),
        root: Some(RootAttributes { ino: 2, nlink: 2, mode: 0o40755 }),
        space: Some(Space { size: 1 << 30, free: 1 << 29, avail: 1 << 29, files: 1000, files_free: 900 }),
        ..ProbeReport::default()
    }
}

fn root_failed(errno: i32, micros: u64) -> ProbeReport {
    ProbeReport {
        steps: vec![step(Step::Open, None, 20), step(Step::StatxRoot, Some(errno), micros)],
        identity: Some(Identity::default()),
        ..ProbeReport::default()
    }
}

fn blocked() -> Blocked {
    Blocked {
        step: Some(Step::StatxRoot),
        millis: 5000,
        cpu_micros: Some(50),
        process_state: Some('D'),
        stack: vec!["rpc_wait_bit_killable".to_owned()],
        late_millis: 0,
        suspended_millis: 0,
    }
}

fn sentinels(fates: &[SentinelFate]) -> Vec<SentinelCheck> {
    let errno = |fate| (fate == SentinelFate::Gone).then_some(libc::ENOENT);
    fates.iter().map(|fate| SentinelCheck { fate: *fate, errno: errno(*fate), micros: 400 }).collect()
}

/// What is remembered after one good round.
fn after_good(facts: &Facts) -> Memory {
    judge(&Memory::default(), &seen(facts.clone(), Observation::Report(good())), &tuning()).memory
}

fn verdict(facts: Facts, observation: Observation) -> (State, Option<Cause>) {
    let memory = after_good(&facts);
    let verdict = judge(&memory, &seen(facts, observation), &tuning()).verdict;
    assert!(!verdict.evidence.is_empty());
    (verdict.state, verdict.cause)
}

fn of_report(facts: Facts, report: ProbeReport) -> (State, Option<Cause>) {
    verdict(facts, Observation::Report(report))
}

#[test]
fn a_good_round_is_healthy_at_once_and_without_a_cause() {
    assert_eq!(of_report(nfs(Mode::Hard), good()), (State::Healthy, None));
    let first = judge(&Memory::default(), &seen(nfs(Mode::Hard), Observation::Report(good())), &tuning());
    assert_eq!((first.verdict.state, first.memory.answered), (State::Healthy, true));
}

#[test]
fn a_blocked_step_is_hung_and_its_cause_is_what_the_server_proves() {
    let look = Observation::Blocked(blocked());
    assert_eq!(verdict(nfs(Mode::Hard), look.clone()), (State::Hung, Some(Cause::Unknown)));
    let mut evidence = seen(nfs(Mode::Hard), look);
    evidence.server = Some(ServerView { alive: false, cause: Some(Cause::ServerRefused), words: String::new() });
    let verdict = judge(&after_good(&evidence.facts), &evidence, &tuning()).verdict;
    assert_eq!((verdict.state, verdict.cause), (State::Hung, Some(Cause::ServerRefused)));
}

#[test]
fn a_fuse_request_that_waits_has_a_daemon_that_does_not_read() {
    assert_eq!(verdict(fuse(), Observation::Blocked(blocked())), (State::Hung, Some(Cause::DaemonStuck)));
}

#[test]
fn a_worker_that_was_late_by_our_own_fault_leaves_the_verdict_until_it_is_old() {
    let look = Observation::Blocked(Blocked { late_millis: 3000, ..blocked() });
    assert_eq!(verdict(nfs(Mode::Hard), look.clone()), (State::Healthy, None));
    let memory = after_good(&nfs(Mode::Hard));
    let late = Evidence { at_millis: 60_000 + 36_000, ..seen(nfs(Mode::Hard), look) };
    let verdict = judge(&memory, &late, &tuning()).verdict;
    assert_eq!((verdict.state, verdict.cause), (State::Unknown, Some(Cause::AgentOverloaded)));
}

#[test]
fn whatever_kept_a_probe_from_running_is_never_an_alarm() {
    let reasons = [
        NotRun::Overloaded("late".to_owned()),
        NotRun::WorkerLost("killed".to_owned()),
        NotRun::WorkerNotStarted("EMFILE".to_owned()),
        NotRun::WorkerCap,
        NotRun::ThroughDeadMount("/mnt".to_owned()),
        NotRun::NotCached,
        NotRun::Hidden,
        NotRun::Absent,
        NotRun::TableChanged,
    ];
    for reason in reasons {
        let first = judge(&Memory::default(), &seen(fuse(), Observation::NotRun(reason.clone())), &tuning()).verdict;
        assert_eq!(first.state, State::Unknown, "{reason:?}");
        let (state, _) = verdict(fuse(), Observation::NotRun(reason.clone()));
        assert!(matches!(state, State::Healthy | State::Unknown), "{reason:?}");
    }
}

#[test]
fn estale_of_the_root_is_stale_at_any_speed_also_on_soft_mounts() {
    for micros in [300, 9_000 * MILLI] {
        for mode in [Mode::Hard, Mode::Soft, Mode::Softerr] {
            assert_eq!(of_report(nfs(mode), root_failed(libc::ESTALE, micros)), (State::Stale, Some(Cause::Unknown)));
        }
    }
}

#[test]
fn a_stale_root_whose_statfs_works_is_another_directory() {
    let mut report = root_failed(libc::ESTALE, 300);
    report.steps.push(step(Step::Statfs, None, 300));
    assert_eq!(of_report(nfs(Mode::Hard), report), (State::Stale, Some(Cause::HandleInvalid)));
}

#[test]
fn what_proved_a_deleted_root_still_does_when_the_client_refuses_the_next_open() {
    let refused = ProbeReport { steps: vec![step(Step::Open, Some(libc::ESTALE), 20)], ..ProbeReport::default() };
    let next = |memory: &Memory| {
        let evidence = seen(nfs(Mode::Hard), Observation::Report(refused.clone()));
        let verdict = judge(memory, &evidence, &tuning()).verdict;
        (verdict.state, verdict.cause)
    };
    let healthy = after_good(&nfs(Mode::Hard));
    assert_eq!(next(&healthy), (State::Stale, Some(Cause::Unknown)));
    let deleted = ProbeReport { root: Some(RootAttributes { ino: 2, nlink: 0, mode: 0o40755 }), ..good() };
    let deleted = judge(&healthy, &seen(nfs(Mode::Hard), Observation::Report(deleted)), &tuning()).memory;
    assert_eq!(next(&deleted), (State::Stale, Some(Cause::HandleInvalid)));
}

#[test]
fn a_root_without_links_was_deleted() {
    let report = ProbeReport { root: Some(RootAttributes { ino: 2, nlink: 0, mode: 0o40755 }), ..good() };
    assert_eq!(of_report(nfs(Mode::Hard), report.clone()), (State::Stale, Some(Cause::HandleInvalid)));
    assert_eq!(of_report(fuse(), report), (State::Healthy, None), "FUSE daemons may report any link count");
}

#[test]
fn a_refused_root_is_a_lost_export_only_after_it_answered_with_plain_ids() {
    let report = root_failed(libc::EACCES, 300);
    assert_eq!(of_report(nfs(Mode::Hard), report.clone()), (State::Stale, Some(Cause::ExportGone)));

    let never = judge(&Memory::default(), &seen(nfs(Mode::Hard), Observation::Report(report.clone())), &tuning());
    assert_eq!(never.verdict.state, State::Unknown);

    let kerberos = Facts { plain_security: false, ..nfs(Mode::Hard) };
    assert_eq!(of_report(kerberos, report.clone()).0, State::Unknown);

    let mut everybody = seen(nfs(Mode::Hard), Observation::Report(report));
    everybody.many_refuse = true;
    let verdict = judge(&after_good(&nfs(Mode::Hard)), &everybody, &tuning()).verdict;
    assert_eq!(verdict.state, State::Unknown);
}

#[test]
fn another_users_fuse_mount_is_unknown_not_stale() {
    assert_eq!(of_report(fuse(), root_failed(libc::EACCES, 300)), (State::Unknown, Some(Cause::Permission)));
}

#[test]
fn a_directory_on_the_way_that_refuses_us_says_nothing_about_the_mount() {
    let report = ProbeReport { steps: vec![step(Step::Open, Some(libc::EACCES), 20)], ..ProbeReport::default() };
    assert_eq!(of_report(nfs(Mode::Hard), report), (State::Unknown, Some(Cause::Permission)));
}

#[test]
fn a_soft_mount_that_gave_up_is_hung_never_stale() {
    let hung = (State::Hung, Some(Cause::Unknown));
    assert_eq!(of_report(nfs(Mode::Soft), root_failed(libc::EIO, 3000 * MILLI)), hung);
    assert_eq!(of_report(nfs(Mode::Softerr), root_failed(libc::ETIMEDOUT, 3000 * MILLI)), hung);
    let sentinel = ProbeReport {
        steps: vec![step(Step::StatxRoot, None, 300), step(Step::Sentinel, None, 3000 * MILLI)],
        sentinels: vec![SentinelCheck { fate: SentinelFate::Gone, errno: Some(libc::ESTALE), micros: 3000 * MILLI }],
        ..good()
    };
    assert_eq!(of_report(nfs(Mode::Soft), sentinel), hung);
    let learning = ProbeReport {
        steps: vec![step(Step::StatxRoot, None, 300), step(Step::Learn, Some(libc::ESTALE), 3000 * MILLI)],
        ..good()
    };
    assert_eq!(of_report(nfs(Mode::Soft), learning), hung);
}

#[test]
fn softerr_that_answers_late_did_not_answer() {
    let report = ProbeReport { steps: vec![step(Step::StatxRoot, None, 3000 * MILLI)], ..good() };
    assert_eq!(of_report(nfs(Mode::Softerr), report.clone()).0, State::Hung);
    assert_eq!(of_report(nfs(Mode::Soft), report).0, State::Healthy, "one slow answer of a soft mount is a vote");
}

#[test]
fn a_quick_eio_of_a_soft_mount_is_an_error_unless_its_server_is_silent() {
    let mut evidence = seen(nfs(Mode::Soft), Observation::Report(root_failed(libc::EIO, 300)));
    let memory = after_good(&evidence.facts);
    assert_eq!(judge(&memory, &evidence, &tuning()).verdict.state, State::Healthy, "a single vote");
    evidence.server = Some(ServerView { alive: false, cause: Some(Cause::ServerUnreachable), words: String::new() });
    let verdict = judge(&memory, &evidence, &tuning()).verdict;
    assert_eq!((verdict.state, verdict.cause), (State::Hung, Some(Cause::ServerUnreachable)));
}

#[test]
fn errors_and_slowness_need_two_of_three_and_one_good_round_ends_hard_states() {
    let slow = ProbeReport { steps: vec![step(Step::StatxRoot, None, 2000 * MILLI)], ..good() };
    let error = root_failed(libc::EREMOTEIO, 300);
    for (report, state) in [(slow, State::Slow), (error, State::Error)] {
        let evidence = seen(nfs(Mode::Hard), Observation::Report(report));
        let first = judge(&after_good(&evidence.facts), &evidence, &tuning());
        assert_eq!(first.verdict.state, State::Healthy, "{state}");
        let second = judge(&first.memory, &evidence, &tuning());
        assert_eq!(second.verdict.state, state);
        let good = seen(nfs(Mode::Hard), Observation::Report(good()));
        assert_eq!(judge(&second.memory, &good, &tuning()).verdict.state, State::Healthy);
    }
}

#[test]
fn a_slow_answer_ends_hung() {
    let hung = judge(&after_good(&nfs(Mode::Hard)), &seen(nfs(Mode::Hard), Observation::Blocked(blocked())), &tuning());
    let slow = ProbeReport { steps: vec![step(Step::StatxRoot, None, 2000 * MILLI)], ..good() };
    let next = judge(&hung.memory, &seen(nfs(Mode::Hard), Observation::Report(slow)), &tuning());
    assert_eq!(next.verdict.state, State::Healthy);
}

#[test]
fn the_fuse_daemon_is_gone_when_the_kernel_says_so() {
    for errno in [libc::ENOTCONN, libc::ECONNABORTED] {
        assert_eq!(of_report(fuse(), root_failed(errno, 300)), (State::Lost, Some(Cause::DaemonDead)));
    }
}

#[test]
fn cifs_that_lost_its_server_is_hung() {
    let cifs = Facts { kind: Some(Kind::Cifs), ..fuse() };
    for errno in [libc::EHOSTDOWN, libc::ENOTCONN, libc::ETIMEDOUT] {
        assert_eq!(of_report(cifs.clone(), root_failed(errno, 300)).0, State::Hung);
    }
}

/// All entries gone, with so many connections made and such a size.
fn replaced(connects: u64, size: u64) -> Evidence {
    let space = Space { size, ..good().space.unwrap() };
    let report = ProbeReport {
        sentinels: sentinels(&[SentinelFate::Gone, SentinelFate::Changed]),
        space: Some(space),
        ..good()
    };
    let transport = Some(TransportCounters { connects, sends: 20, recvs: 20 });
    Evidence { transport, ..seen(nfs(Mode::Hard), Observation::Report(report)) }
}

#[test]
fn a_filesystem_is_replaced_when_the_client_reconnected_all_entries_are_gone_and_the_size_differs() {
    let memory = after_good(&nfs(Mode::Hard));
    let first = judge(&memory, &replaced(4, 1 << 31), &tuning());
    assert_eq!((first.verdict.state, first.verdict.cause), (State::Lost, Some(Cause::FilesystemReplaced)));
    assert!(!first.relearn);
    let again = judge(&first.memory, &replaced(4, 1 << 31), &tuning());
    assert_eq!(again.verdict.state, State::Lost, "it stays lost while the old entries stay away");
    let back = judge(&again.memory, &seen(nfs(Mode::Hard), Observation::Report(good())), &tuning());
    assert_eq!(back.verdict.state, State::Healthy);
}

#[test]
fn people_who_delete_everything_are_no_replacement() {
    let judgement = judge(&after_good(&nfs(Mode::Hard)), &replaced(2, 1 << 31), &tuning());
    assert_eq!(judgement.verdict.state, State::Healthy);
    assert!(judgement.verdict.findings.is_empty());
    assert!(judgement.relearn);
}

#[test]
fn the_same_size_after_a_reconnect_is_a_finding_that_lasts_a_day() {
    let first = judge(&after_good(&nfs(Mode::Hard)), &replaced(4, 1 << 30), &tuning());
    assert_eq!((first.verdict.state, first.relearn), (State::Healthy, true));
    assert_eq!(first.verdict.findings, [Finding::MaybeReplaced]);
    let mut later = seen(nfs(Mode::Hard), Observation::Report(good()));
    later.at_millis += 3600 * 1000;
    assert_eq!(judge(&first.memory, &later, &tuning()).verdict.findings, [Finding::MaybeReplaced]);
    later.at_millis += 24 * 3600 * 1000;
    assert!(judge(&first.memory, &later, &tuning()).verdict.findings.is_empty());
}

#[test]
fn of_one_size_a_filesystem_is_replaced_when_its_server_or_our_own_directory_says_so() {
    let same_size = replaced(4, 1 << 30);
    let verdict = |evidence: &Evidence| judge(&after_good(&nfs(Mode::Hard)), evidence, &tuning()).verdict;
    let proven = Evidence { examined: examined(Symptom::Emptied, Cause::FilesystemReplaced), ..same_size.clone() };
    assert_eq!((verdict(&proven).state, verdict(&proven).cause), (State::Lost, Some(Cause::FilesystemReplaced)));
    // Said of another symptom it proves nothing here.
    let other = Evidence { examined: examined(Symptom::Hung, Cause::FilesystemReplaced), ..same_size.clone() };
    assert_eq!(verdict(&other).state, State::Healthy);

    let with_ours = |connects: u64| {
        let mut evidence = replaced(connects, 1 << 30);
        let Observation::Report(report) = &mut evidence.observation else { unreachable!() };
        report.own_gone = true;
        evidence
    };
    assert_eq!(verdict(&with_ours(4)).state, State::Lost);
    assert!(verdict(&with_ours(4)).evidence.contains("our own directory"));
    assert_eq!(verdict(&with_ours(2)).state, State::Healthy, "the client never reconnected: somebody deleted it all");
}

#[test]
fn without_counters_a_replacement_is_neither_proven_nor_excluded() {
    let evidence = Evidence { transport: None, ..replaced(4, 1 << 31) };
    let judgement = judge(&after_good(&nfs(Mode::Hard)), &evidence, &tuning());
    assert_eq!(judgement.verdict.state, State::Healthy);
    assert_eq!(judgement.verdict.findings, [Finding::MaybeReplaced]);
}

#[test]
fn a_changed_fileid_proves_a_replacement_only_together_with_all_the_rest() {
    let logged =
        |evidence: Evidence| Evidence { passive: Passive { fileid_changed: true, ..Passive::default() }, ..evidence };
    let state = |evidence| judge(&after_good(&nfs(Mode::Hard)), &logged(evidence), &tuning()).verdict.state;
    assert_eq!(state(replaced(4, 1 << 30)), State::Lost);
    // No reconnect, entries that are there, no counters: servers with unstable file ids exist.
    assert_eq!(state(replaced(2, 1 << 30)), State::Healthy);
    assert_eq!(state(seen(nfs(Mode::Hard), Observation::Report(good()))), State::Healthy);
    assert_eq!(state(Evidence { transport: None, ..replaced(4, 1 << 30) }), State::Healthy);
}

#[test]
fn passive_evidence_alone_changes_no_verdict_and_is_replayed_word_for_word() {
    let passive = Passive {
        kernel_log: Some(crate::verdict::KernelWords { line: "nfs: server s not responding".into(), age_millis: 1 }),
        ..Passive::default()
    };
    let healthy = Evidence { passive: passive.clone(), ..seen(nfs(Mode::Hard), Observation::Report(good())) };
    assert_eq!(judge(&Memory::default(), &healthy, &tuning()).verdict.state, State::Healthy);
    let hung = Evidence { passive, ..seen(nfs(Mode::Hard), Observation::Blocked(blocked())) };
    let decision = Decision { before: after_good(&nfs(Mode::Hard)), evidence: hung, tuning: tuning() };
    let verdict = replay(&decision).verdict;
    assert!(verdict.evidence.contains("the kernel log said \"nfs: server s not responding\""), "{}", verdict.evidence);
    let written: Decision = serde_json::from_str(&serde_json::to_string(&decision).unwrap()).unwrap();
    assert_eq!(replay(&written).verdict, verdict);
}

#[test]
fn one_entry_that_is_still_there_speaks_against_a_replacement() {
    let mut evidence = replaced(4, 1 << 31);
    if let Observation::Report(report) = &mut evidence.observation {
        report.sentinels = sentinels(&[SentinelFate::Gone, SentinelFate::Intact]);
    }
    let judgement = judge(&after_good(&nfs(Mode::Hard)), &evidence, &tuning());
    assert_eq!((judgement.verdict.state, judgement.verdict.findings), (State::Healthy, Vec::new()));
}

#[test]
fn no_block_or_no_inode_left_is_full_but_not_on_read_only_mounts() {
    let with = |space| ProbeReport { space: Some(space), ..good() };
    let space = good().space.unwrap();
    let no_blocks = with(Space { avail: 0, ..space });
    let no_inodes = with(Space { files_free: 0, ..space });
    assert_eq!(of_report(nfs(Mode::Hard), no_blocks.clone()), (State::Full, Some(Cause::OutOfSpace)));
    assert_eq!(of_report(nfs(Mode::Hard), no_inodes), (State::Full, Some(Cause::OutOfInodes)));
    let read_only = Facts { read_only: true, ..nfs(Mode::Hard) };
    assert_eq!(of_report(read_only, no_blocks), (State::Healthy, None));
    let no_numbers = with(Space { size: 0, free: 0, avail: 0, files: 0, files_free: 0 });
    assert_eq!(of_report(fuse(), no_numbers), (State::Healthy, None), "many FUSE daemons report nothing");
}

#[test]
fn a_writable_mount_of_a_read_only_superblock_is_readonly() {
    let facts = Facts { read_only: true, writable_on_readonly_superblock: true, ..nfs(Mode::Hard) };
    assert_eq!(of_report(facts, good()), (State::Readonly, Some(Cause::MountedReadonly)));
}

#[test]
fn errno_512_is_named_for_what_it_is() {
    let evidence = seen(nfs(Mode::Hard), Observation::Report(root_failed(512, 300)));
    let once = Tuning { agree: 1, ..tuning() };
    let verdict = judge(&after_good(&evidence.facts), &evidence, &once).verdict;
    assert_eq!(verdict.state, State::Error);
    assert!(verdict.evidence.contains("forced an unmount"), "{}", verdict.evidence);
}

#[test]
fn a_recorded_decision_gives_the_same_verdict_again() {
    let before = after_good(&nfs(Mode::Hard));
    let evidence = replaced(4, 1 << 31);
    let verdict = judge(&before, &evidence, &tuning()).verdict;
    let recorded = serde_json::to_string(&Decision { before, evidence, tuning: tuning() }).unwrap();
    let decision: Decision = serde_json::from_str(&recorded).unwrap();
    assert_eq!(replay(&decision).verdict, verdict);
}

/// Each detector can be switched off, and then its case is no longer seen: the lab proves with it that each is needed.
#[test]
fn each_detector_has_its_case() {
    let soft_eio = root_failed(libc::EIO, 3000 * MILLI);
    let late = ProbeReport { steps: vec![step(Step::StatxRoot, None, 3000 * MILLI)], ..good() };
    let no_links = ProbeReport { root: Some(RootAttributes { ino: 2, nlink: 0, mode: 0 }), ..good() };
    let no_space = ProbeReport { space: good().space.map(|space| Space { avail: 0, ..space }), ..good() };
    let report = Observation::Report;
    let cases = [
        ("blocked", seen(nfs(Mode::Hard), Observation::Blocked(blocked()))),
        ("soft_timeout", seen(nfs(Mode::Soft), report(soft_eio))),
        ("late_answer", seen(nfs(Mode::Softerr), report(late))),
        ("stale", seen(nfs(Mode::Hard), report(root_failed(libc::ESTALE, 300)))),
        ("deleted_root", seen(nfs(Mode::Hard), report(no_links))),
        ("refused_root", seen(nfs(Mode::Hard), report(root_failed(libc::EACCES, 300)))),
        ("sentinels", replaced(4, 1 << 31)),
        ("fuse", seen(fuse(), report(root_failed(libc::ENOTCONN, 300)))),
        ("errno", seen(nfs(Mode::Hard), report(root_failed(libc::EREMOTEIO, 300)))),
        ("space", seen(nfs(Mode::Hard), report(no_space))),
        ("canary", canary::failed(libc::EROFS)),
        ("on_host", on_host(OnHost::Remounted { path: "/mnt/a".to_owned(), differs: true }, report(good()))),
    ];
    assert_eq!(cases.each_ref().map(|(name, _)| *name), DETECTORS);
    for (name, evidence) in cases {
        let memory = after_good(&evidence.facts);
        let on = Tuning { agree: 1, ..tuning() };
        let off = Tuning { without: vec![name.to_owned()], ..on.clone() };
        let with = judge(&memory, &evidence, &on).verdict.state;
        let without = judge(&memory, &evidence, &off).verdict.state;
        assert_ne!(with, State::Healthy, "{name}");
        assert_ne!(with, without, "{name}");
    }
}

/// A mount that only containers have.
fn on_host(on_host: OnHost, observation: Observation) -> Evidence {
    Evidence { on_host: Some(on_host), ..seen(nfs(Mode::Hard), observation) }
}

#[test]
fn what_a_container_kept_is_compared_with_what_the_host_has() {
    let remounted = |differs| OnHost::Remounted { path: "/mnt/a".to_owned(), differs };
    let stale = || Observation::Report(root_failed(libc::ESTALE, 300));
    let works = || Observation::Report(good());
    let judged = |evidence: Evidence| {
        let verdict = judge(&after_good(&evidence.facts), &evidence, &tuning()).verdict;
        (verdict.state, verdict.cause)
    };
    let lost = |cause| (State::Lost, Some(cause));
    assert_eq!(judged(on_host(remounted(false), stale())), lost(Cause::RemountedOnHost));
    assert_eq!(judged(on_host(remounted(true), works())), lost(Cause::RemountedOnHost));
    assert_eq!(judged(on_host(remounted(false), works())), (State::Healthy, None), "an old copy that works");
    assert_eq!(judged(on_host(OnHost::Unmounted, stale())), lost(Cause::UnmountedOnHost));
    assert_eq!(judged(on_host(OnHost::Unmounted, works())), (State::Healthy, None));
    // What does not answer may answer again.
    assert_eq!(judged(on_host(remounted(true), Observation::Blocked(blocked()))).0, State::Hung);
    let dead =
        Evidence { facts: fuse(), ..on_host(remounted(false), Observation::Report(root_failed(libc::ENOTCONN, 300))) };
    assert_eq!(judged(dead), lost(Cause::RemountedOnHost), "a bind of a dead FUSE mount");
}

#[test]
fn what_a_container_lacks_needs_no_probe() {
    let judged = |what| {
        let evidence = on_host(what, Observation::NotRun(NotRun::Absent));
        let verdict = judge(&Memory::default(), &evidence, &tuning()).verdict;
        (verdict.state, verdict.cause)
    };
    assert_eq!(judged(OnHost::Missing), (State::Lost, Some(Cause::MountMissing)));
    let on_disk = OnHost::OnDisk { directory: "/var/lib/kubelet/pods/UID/volumes/kubernetes.io~nfs/pv".to_owned() };
    assert_eq!(judged(on_disk), (State::Lost, Some(Cause::UnmountedOnHost)));
}

#[test]
fn a_disk_that_is_gone_is_an_error_at_once_whatever_still_answers() {
    let facts = Facts { kind: None, local: true, ..nfs(Mode::Hard) };
    let report = ProbeReport {
        steps: vec![step(Step::Open, None, 20), step(Step::Device, Some(libc::ENODEV), 10)],
        ..ProbeReport::default()
    };
    assert_eq!(of_report(facts, report), (State::Error, Some(Cause::DeviceLost)));
}

#[test]
fn a_disk_that_the_kernel_made_read_only_is_known_by_its_options() {
    let facts = |own: &str, superblock: &str| {
        let line = format!("1 0 259:3 / /srv {own} - ext4 /dev/nvme1n1 {superblock}\n");
        Facts::of(&crate::mounts::mountinfo::parse(line.as_bytes(), crate::mounts::View::Own).mounts.remove(0))
    };
    for superblock in ["ro,errors=remount-ro", "rw,errors=remount-ro,emergency_ro"] {
        let facts = facts("rw,relatime", superblock);
        assert!(facts.local && facts.writable_on_readonly_superblock, "{superblock}");
    }
    assert!(!facts("rw,relatime", "rw,errors=remount-ro").writable_on_readonly_superblock);
    assert!(!facts("ro,relatime", "ro").writable_on_readonly_superblock);
}

fn examined(symptom: Symptom, cause: Cause) -> Option<Examined> {
    Some(Examined { symptom, cause: Some(cause), why: Some("the server said so".to_owned()) })
}

#[test]
fn what_the_server_says_of_this_very_mount_decides_why_it_hangs() {
    let mut evidence = seen(nfs(Mode::Hard), Observation::Blocked(blocked()));
    evidence.server = Some(ServerView { alive: true, cause: None, words: "answers RPC".to_owned() });
    assert_eq!(judge(&Memory::default(), &evidence, &tuning()).verdict.cause, Some(Cause::Unknown));
    evidence.examined = examined(Symptom::Hung, Cause::ServerRecovering);
    let verdict = judge(&Memory::default(), &evidence, &tuning()).verdict;
    assert_eq!((verdict.state, verdict.cause), (State::Hung, Some(Cause::ServerRecovering)));
    assert!(verdict.evidence.ends_with("; the server said so"), "{}", verdict.evidence);
    // Asked while it had another symptom.
    evidence.examined = examined(Symptom::Refused, Cause::ExportGone);
    assert_eq!(judge(&Memory::default(), &evidence, &tuning()).verdict.cause, Some(Cause::Unknown));
}

#[test]
fn a_refusal_of_the_first_look_is_the_exports_when_the_server_says_so() {
    let mut report = good();
    report.root = None;
    report.steps = vec![StepResult { step: Step::StatxRoot, errno: Some(libc::EACCES), micros: 100 }];
    let mut evidence = seen(nfs(Mode::Hard), Observation::Report(report));
    assert_eq!(judge(&Memory::default(), &evidence, &tuning()).verdict.state, State::Unknown);
    evidence.examined = examined(Symptom::Refused, Cause::ExportGone);
    let verdict = judge(&Memory::default(), &evidence, &tuning()).verdict;
    assert_eq!((verdict.state, verdict.cause), (State::Stale, Some(Cause::ExportGone)));
}

#[test]
fn stale_has_the_cause_that_the_server_proves() {
    let mut report = good();
    report.root = None;
    report.steps = vec![StepResult { step: Step::StatxRoot, errno: Some(libc::ESTALE), micros: 100 }];
    let mut evidence = seen(nfs(Mode::Hard), Observation::Report(report));
    let cause = |evidence: &Evidence| judge(&Memory::default(), evidence, &tuning()).verdict.cause;
    assert_eq!(cause(&evidence), Some(Cause::Unknown));
    evidence.examined = examined(Symptom::Refused, Cause::ExportGone);
    assert_eq!(cause(&evidence), Some(Cause::ExportGone));
}
