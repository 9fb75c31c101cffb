use super::*;
use crate::agent::registry::Newcomer;
use crate::mounts::filter::Filter;
use crate::mounts::mountinfo;
use crate::probe::Identity;
use crate::probe::Step;
use crate::probe::canary::ClosedTo;
use crate::probe::canary::cgroup::Stray;
use crate::probe::image::Image;
use crate::verdict::judge::{Decision, Memory};
use crate::verdict::{Evidence, Passive};

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

fn good() -> ProbeReport {
    ProbeReport {
        steps: vec![StepResult { step: Step::StatxRoot, errno: None, micros: 300 }],
        root: Some(crate::probe::RootAttributes { ino: 2, nlink: 2, mode: 0o40755 }),
        ..ProbeReport::default()
    }
}

#[test]
fn nothing_is_written_after_a_round_that_was_not_good() {
    let step = |step, errno, micros| StepResult { step, errno, micros };
    let good = good();
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

/// A mount with a canary that hung, by this evidence, and then a good look: is it held back until the canary is done?
fn held_back(observation: Observation, change: impl FnOnce(&mut Core, TargetId)) -> bool {
    let pool =
        Pool::new(Image::of_this_binary().unwrap(), crate::probe::pool::Limits { warm: 1, max: 4, per_owner: 4 });
    let config = Config { canary_mounts: vec!["/data".to_owned()], ..config() };
    let mut core = Core::new(config, Filter::default(), pool, "node".to_owned(), false);
    let line = b"90 1 0:40 / /data rw - nfs4 srv:/x rw,addr=10.0.0.1\n";
    let mount = mountinfo::parse(line, View::Own).mounts.remove(0);
    core.table.mounts = vec![mount.clone()];
    let newcomer = Newcomer { mount, through: None, label: None, owner: None, alone: true };
    let changes = core.registry.update_view(View::Own, vec![newcomer]);
    let identity = Identity { handle: vec![1], ino: 2, unique_mount_id: None };
    let id = core.registry.identified(&changes.to_identify[0], Some(&identity), 0.0).unwrap();
    let tuning = core.tuning(id);
    let target = core.registry.targets.get_mut(&id).unwrap();
    target.memory.state = State::Hung;
    let evidence = Evidence {
        at_millis: 0,
        facts: target.facts.clone(),
        observation,
        server: None,
        examined: None,
        transport: None,
        passive: Passive::default(),
        many_refuse: false,
        canary: None,
        on_host: None,
    };
    target.decision = Some(Decision { before: Memory::default(), evidence, tuning });
    change(&mut core, id);
    core.may_recover(id, &good())
}

#[tokio::test]
async fn a_mount_that_hung_is_held_back_until_its_canary_is_done() {
    let failed = |errno| {
        let step = StepResult { step: Step::StatxRoot, errno: Some(errno), micros: 9_000_000 };
        Observation::Report(ProbeReport { steps: vec![step], ..good() })
    };
    let inherited = || Observation::Inherited { from: "/other".to_owned(), cause: None };
    let as_it_is = |_: &mut Core, _| ();
    assert!(held_back(inherited(), as_it_is));
    assert!(held_back(failed(libc::ETIMEDOUT), as_it_is), "a soft mount that gave up");
    assert!(!held_back(Observation::Report(good()), as_it_is), "only its canary hung");
    let healthy = |core: &mut Core, id| core.registry.targets.get_mut(&id).unwrap().memory.state = State::Healthy;
    assert!(!held_back(inherited(), healthy));
    let off = |core: &mut Core, _| core.canaries.switch.set_globs(GlobSet::empty());
    assert!(!held_back(inherited(), off), "nobody wants a canary there");
    let stray = |core: &mut Core, _| {
        let stray = Stray { dev: Dev { major: 0, minor: 40 }, processes: 1, stuck_millis: None };
        core.canaries.home = Some(Home { strays: vec![stray], ..Home::default() });
    };
    assert!(!held_back(inherited(), stray), "an earlier agent's canary is stuck there");
}
