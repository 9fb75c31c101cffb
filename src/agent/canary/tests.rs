use super::*;
use crate::probe::Step;
use crate::probe::canary::ClosedTo;

fn config() -> Config {
    Config { canary_interval: Duration::from_secs(60), interval: Duration::from_secs(15), ..Config::default() }
}

fn failed(errno: i32) -> Option<CanaryOutcome> {
    Some(CanaryOutcome::Failed(StepResult { step: Step::CanaryWrite, errno: Some(errno), micros: 1 }))
}

#[test]
fn ends_alike_are_counted_and_others_begin_anew() {
    let mut canary = Canary::default();
    let mut end = |outcome| {
        canary.end(outcome, "x", String::new(), Duration::ZERO, 0.0);
        canary.rounds
    };
    assert_eq!(end(Some(CanaryOutcome::Differs)), 1);
    assert_eq!(end(Some(CanaryOutcome::Differs)), 2);
    assert_eq!(end(Some(CanaryOutcome::Good)), 1);
    assert_eq!(end(Some(CanaryOutcome::Differs)), 1);
    assert_eq!([end(failed(5)), end(failed(5)), end(failed(30))], [1, 2, 1]);
    assert_eq!([end(None), end(None)], [1, 1], "what was not written proves nothing");
}

#[test]
fn a_bad_end_is_tried_again_soon_and_then_ever_less_often() {
    let (mut canary, seconds) = (Canary::default(), Duration::from_secs);
    let mut after = |outcome| {
        canary.outcome = outcome;
        canary.plan(seconds(1000), &config());
        canary.due - seconds(1000)
    };
    assert_eq!(after(Some(CanaryOutcome::Good)), seconds(60));
    let bad = [after(failed(30)), after(failed(30)), after(failed(30)), after(failed(30))];
    assert_eq!(bad, [15, 30, 60, 60].map(seconds));
    assert_eq!(after(Some(CanaryOutcome::Late)), seconds(60));
    assert_eq!(after(None), seconds(15), "a good one ended the row");
}

#[test]
fn one_that_told_nothing_is_tried_again_with_the_next_look_but_once() {
    let (config, now) = (config(), Duration::from_secs(100));
    let mut canary = Canary::default();
    canary.end(Some(CanaryOutcome::Good), "ok", String::new(), now, 0.0);
    canary.plan(now, &config);
    canary.end(None, "skipped", String::new(), now, 0.0);
    canary.try_again(now, &config);
    assert_eq!(canary.due, now);
    canary.try_again(now, &config);
    assert!(canary.due >= now + config.interval, "then ever less often");
}

#[test]
fn an_old_canary_is_no_evidence() {
    let mut canary = Canary::default();
    canary.end(failed(30), "failed", String::new(), Duration::from_secs(100), 0.0);
    assert!(canary.view(Duration::from_secs(250), &config()).is_some());
    assert!(canary.view(Duration::from_secs(256), &config()).is_none());
}

#[test]
fn a_directory_is_the_mounts_own_once_a_look_after_the_canary_was_good() {
    let mut canary = Canary { written_to: Some(vec![1]), ..Canary::default() };
    assert_eq!(canary.directory, None, "the filesystem may have been replaced just before");
    canary.confirm_directory();
    assert_eq!(canary.directory, Some(vec![1]));
    canary.confirm_directory();
    assert_eq!(canary.directory, Some(vec![1]), "looks without a canary between them change nothing");
    canary.written_to = Some(vec![2]);
    canary.confirm_directory();
    assert_eq!(canary.directory, Some(vec![2]));
}

#[test]
fn nothing_is_written_after_a_round_that_was_not_good() {
    let step = |step, errno, micros| StepResult { step, errno, micros };
    let good = ProbeReport {
        steps: vec![step(Step::StatxRoot, None, 300)],
        root: Some(crate::probe::RootAttributes { ino: 2, nlink: 2, mode: 0o40755 }),
        ..ProbeReport::default()
    };
    let slow = Duration::from_secs(1);
    assert!(fits(&good, slow));
    let with = |steps| ProbeReport { steps, ..good.clone() };
    assert!(!fits(&with(vec![step(Step::Sentinel, Some(libc::EIO), 1)]), slow));
    assert!(!fits(&with(vec![step(Step::StatxRoot, None, 1_000_000)]), slow));
    assert!(!fits(&ProbeReport { mismatch: true, ..good.clone() }, slow));
    assert!(!fits(&ProbeReport { root: None, ..good.clone() }, slow));
    let gone = crate::probe::SentinelCheck { fate: crate::probe::SentinelFate::Gone, errno: None, micros: 1 };
    assert!(!fits(&ProbeReport { sentinels: vec![gone], ..good }, slow));
}

#[test]
fn entries_are_looked_at_again_when_other_containers_have_the_mount() {
    let user = |name: &str, uid| EntryUser {
        name: name.to_owned(),
        ids: vec![Ids { uid, gid: uid, groups: Vec::new(), umask: 0 }],
    };
    let mut canary = Canary::default();
    let now = Duration::from_secs(100);
    assert!(canary.wants_entries(&[], now), "for the first time");
    // An agent that just started knows of no container yet.
    canary.entries_at = Some(now);
    assert!(!canary.wants_entries(&[], now));
    assert!(canary.wants_entries(&[user("shop/web (app)", 1000)], now));
    canary.entries_for = vec![user("shop/web (app)", 1000)];
    assert!(!canary.wants_entries(&[user("shop/web (app)", 1000)], now));
    assert!(canary.wants_entries(&[user("shop/web (app)", 2000)], now));
    assert!(canary.wants_entries(&[], now), "nothing is closed to one that is gone");
    assert!(canary.wants_entries(&canary.entries_for, now + ENTRIES_EVERY));
}

#[test]
fn who_cannot_pass_is_named_and_the_rest_counted() {
    let closed = |name: &str| ClosedTo { name: name.to_owned(), closed: 2, example: b"a\nb".to_vec() };
    let mut canary = Canary::default();
    assert_eq!(canary.closed_words(), None);
    canary.entries = Some(Entries { looked: 9, users: vec![closed("shop/web (app)")], ..Entries::default() });
    assert_eq!(
        canary.closed_words().unwrap(),
        format!("shop/web (app) cannot pass 2 of 9 entries at the root, `{}` for one", octal::label("a\nb".as_ref()))
    );
    assert!(canary.findings().any(|finding| finding == Finding::UnreadableEntries));
    let many = (0..5).map(|pod| closed(&format!("shop/web-{pod} (app)"))).collect();
    canary.entries = Some(Entries { looked: 9, closed: 1, users: many, ..Entries::default() });
    let words = canary.closed_words().unwrap();
    assert!(words.starts_with("the configured ids cannot pass 1 of 9") && words.contains("web-1"), "{words}");
    assert!(!words.contains("web-2") && words.ends_with("; nor can 3 more pass all of them"), "{words}");
}
