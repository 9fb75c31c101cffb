//! The pool against workers that misbehave. They are shell scripts that speak on the worker's socket, their stdin, and
//! leave their notes on stdout.
#![expect(clippy::disallowed_methods, reason = "the tests write the impostors to a scratch directory")]

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::probe::Step;
use crate::probe::note::Entered;
use crate::probe::wire::{self, Message};

const DEADLINE: Duration = Duration::from_millis(700);
const LIMITS: Limits = Limits { warm: 1, max: 4, per_owner: 4 };

/// A worker that runs `script`; `$FRAMES` is a directory with the frames of [`frames`].
fn pool(directory: &Path, script: &str) -> Pool {
    let path = directory.join("worker");
    let body = format!(
        "#!/bin/sh\nFRAMES={}\nsay() {{ cat \"$FRAMES/$1\" >&0; }}\nenter() {{ cat \"$FRAMES/entering\"; }}\n{script}\n",
        directory.display()
    );
    frames(directory);
    // Written under another name and moved: a file open for writing cannot be executed, and other tests fork meanwhile.
    std::fs::write(directory.join("draft"), body).unwrap();
    let copied = std::process::Command::new("install").arg("-m755").arg(directory.join("draft")).arg(&path).status();
    assert!(copied.unwrap().success());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    Pool::new(Image::impostor(path), LIMITS)
}

fn frames(directory: &Path) {
    let done = |seq| wire::encode(&Message::Done { seq, answer: Answer::Failed { errno: 7 } }).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
    write("ready", &wire::encode(&Message::Ready).unwrap());
    Entered { seq: 1, step: Step::StatxRoot, cpu_nanos: u64::MAX / 2, at_nanos: 1 }
        .leave(std::fs::File::create(directory.join("entering")).unwrap().as_fd())
        .unwrap();
    write("done", &done(1));
    write("done-twice", &[done(1), done(1)].concat());
    write("done-other", &done(9));
    write("half", &done(1)[..3]);
    write("nonsense", b"\xff\xff\xff\xffHTTP/1.1 200 OK");
}

async fn run(pool: &Pool) -> Outcome {
    pool.run(Job::Counters(b"/nowhere".to_vec()), "owner", Class::Hopeful, DEADLINE, DEADLINE).await
}

async fn outcome_of(script: &str) -> (Outcome, Counts) {
    let directory = tempfile::tempdir().unwrap();
    let pool = pool(directory.path(), script);
    let outcome = run(&pool).await;
    (outcome, pool.counts())
}

#[tokio::test]
async fn a_worker_that_answers_is_kept() {
    let (outcome, counts) = outcome_of("say ready; enter; say done; read -r line").await;
    assert!(matches!(outcome, Outcome::Answered(Answer::Failed { errno: 7 })), "{outcome:?}");
    assert_eq!((counts.idle, counts.busy, counts.stuck, counts.protocol_errors), (1, 0, 0, 0));
}

#[tokio::test]
async fn nonsense_costs_the_worker_and_is_counted() {
    let (outcome, counts) = outcome_of("say ready; say nonsense; sleep 5").await;
    assert!(matches!(&outcome, Outcome::Lost(why) if why.contains("nonsense")), "{outcome:?}");
    assert_eq!((counts.protocol_errors, counts.stuck), (1, 0));
}

#[tokio::test]
async fn an_answer_to_another_request_is_refused() {
    let (outcome, counts) = outcome_of("say ready; say done-other; sleep 5").await;
    assert!(matches!(&outcome, Outcome::Lost(why) if why.contains("request 9")), "{outcome:?}");
    assert_eq!(counts.protocol_errors, 1);
}

#[tokio::test]
async fn an_answer_said_twice_is_never_taken_for_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let pool = pool(directory.path(), "say ready; say done-twice; sleep 5");
    let first = run(&pool).await;
    // Both frames may arrive together or one after the other; either way the second one must not pass for an answer.
    if let Outcome::Answered(_) = first {
        let second = run(&pool).await;
        assert!(matches!(second, Outcome::Lost(_) | Outcome::Answered(_)), "{second:?}");
    }
    assert_eq!(pool.counts().protocol_errors, 1);
}

#[tokio::test]
async fn half_a_frame_and_then_nothing_is_a_missed_deadline_without_evidence() {
    let (outcome, counts) = outcome_of("say ready; say half; exec sleep 5").await;
    let Outcome::Missed { blocked, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(blocked.step, None);
    assert!(!blocked.is_evidence());
    assert_eq!(counts.killed, 1);
}

#[tokio::test]
async fn silence_after_a_step_was_entered_is_evidence_and_the_worker_is_reaped() {
    let directory = tempfile::tempdir().unwrap();
    let pool = pool(directory.path(), "say ready; enter; exec sleep 5");
    let outcome = run(&pool).await;
    let Outcome::Missed { blocked, gone } = outcome else { panic!("{outcome:?}") };
    assert_eq!(blocked.step, Some(Step::StatxRoot));
    assert_eq!(blocked.process_state, Some('S'));
    assert!(blocked.is_evidence(), "{blocked:?}");
    gone.await.unwrap();
    assert_eq!((pool.counts().stuck, pool.counts().killed), (0, 1));
}

#[tokio::test]
async fn a_worker_that_dies_says_nothing_about_the_mount() {
    let (outcome, counts) = outcome_of("say ready; enter; kill -9 $$").await;
    assert!(matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
    assert!(counts.lost >= 1);
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_reported() {
    let pool = Pool::new(Image::impostor("/nonexistent/worker".into()), LIMITS);
    assert!(matches!(run(&pool).await, Outcome::NotStarted(_)));
    assert!(pool.counts().spawn_errors >= 1);
}

#[tokio::test]
async fn with_all_places_taken_a_job_is_turned_away_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let pool = pool(directory.path(), "say ready; enter; exec sleep 5");
    let long = Duration::from_secs(4);
    let blocked: Vec<_> = (0..LIMITS.max)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.run(Job::Counters(Vec::new()), "owner", Class::Hopeful, long, long).await })
        })
        .collect();
    while pool.counts().busy < LIMITS.max as u64 {
        tokio::task::yield_now().await;
    }
    let turned_away =
        pool.run(Job::Counters(Vec::new()), "owner", Class::Hopeful, long, Duration::from_millis(50)).await;
    assert!(matches!(turned_away, Outcome::NoRoom), "{turned_away:?}");
    assert_eq!(pool.counts().cap_hits, 1);
    for task in blocked {
        task.abort();
    }
}

#[tokio::test]
async fn each_worker_that_is_killed_is_replaced_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let pool = pool(directory.path(), "say ready; enter; exec sleep 5");
    let outcomes = tokio::join!(run(&pool), run(&pool), run(&pool));
    assert!(matches!(outcomes, (Outcome::Missed { .. }, Outcome::Missed { .. }, Outcome::Missed { .. })));
    assert_eq!((pool.counts().idle, pool.counts().busy), (LIMITS.warm as u64, 0));
}

#[tokio::test]
async fn idle_workers_that_somebody_killed_do_not_count_as_ready() {
    let directory = tempfile::tempdir().unwrap();
    let mut pool = pool(directory.path(), "say ready; enter; say done; read -r line");
    Arc::get_mut(&mut pool.shared).unwrap().limits.warm = 4;
    pool.keep_warm();
    let victims: Vec<i32> = pool.state().idle.iter().map(Process::pid).collect();
    for pid in &victims {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    // SIGKILL takes a moment.
    let dead = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ");
    while !victims.iter().all(dead) {
        tokio::task::yield_now().await;
    }
    // A second later.
    pool.state().buried = None;
    let (outcome, counts) = (run(&pool).await, pool.counts());
    assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    assert_eq!((counts.idle, counts.busy, counts.lost), (4, 0, 4));
    assert!(pool.state().idle.iter().all(|process| !victims.contains(&process.pid())));
}

#[tokio::test]
async fn in_a_burst_a_job_takes_the_worker_that_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let pool = pool(directory.path(), "say ready; read -r line");
    let (process, _) = pool.take().await.unwrap();
    let pid = process.pid();
    let next = tokio::spawn({
        let pool = pool.clone();
        async move { pool.take_warm().await }
    });
    tokio::task::yield_now().await;
    assert!(!next.is_finished(), "the only worker is at work");
    pool.give_back(process);
    assert_eq!(next.await.unwrap().map(|process| process.pid()), Some(pid));
    assert_eq!(pool.counts().started, LIMITS.warm as u64);
}
