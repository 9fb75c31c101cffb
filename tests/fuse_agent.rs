//! The agent against FUSE filesystems that fail on this kernel, through `check --json` and `run` with `/api/v1/mounts`.
//! Needs root; see `common/sandbox.rs` for what happens without.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared: each test crate uses its part of it")]
    pub mod agent;
    pub mod fusefs;
    pub mod process;
    pub mod sandbox;
    pub mod wait;
}

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::agent::{Agent, check, mount_at};
use common::fusefs::FuseFs;
use common::process::state_of;
use common::sandbox::Sandbox;
use common::wait::{PATIENCE, eventually};
use mountwarden::snapshot::{MountStatus, Snapshot};
use mountwarden::verdict::judge::DETECTORS;
use mountwarden::verdict::{Cause, State};
use nix::sys::signal::Signal;

/// Short times keep the tests short; the proportions are those of the defaults.
const CONFIG: &str = "interval: 1s\ntimeout: 500ms\nslow: 400ms\n";
const INTERVAL: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_millis(500);
/// What a busy two-core machine and a debug build may add to a time that the contract promises.
const SLACK: Duration = Duration::from_secs(2);

/// Exit codes of `check`: all healthy, something dead, something that could not be told.
const HEALTHY: i32 = 0;
const DEAD: i32 = 2;
const COULD_NOT_TELL: i32 = 3;

/// These tests measure times on few cores, so they run one after the other (`.config/nextest.toml` says it to nextest).
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path of a file that holds [`CONFIG`].
fn config(sandbox: &Sandbox) -> String {
    let path = sandbox.path().join("config.yaml");
    std::fs::write(&path, CONFIG).unwrap();
    path.to_str().unwrap().to_owned()
}

fn start_agent(sandbox: &Sandbox) -> Agent {
    Agent::start(&["--config", &config(sandbox)])
}

/// The agent with one of its detectors switched off.
fn start_agent_without(sandbox: &Sandbox, detector: &str) -> Agent {
    Agent::start(&["--config", &config(sandbox), "--without-detector", detector])
}

/// One row of the table of expectations.
struct Cell {
    name: &'static str,
    options: &'static [&'static str],
    break_it: fn(&mut FuseFs),
    state: State,
    /// Any of these; a cause may be unknown, never wrong.
    causes: &'static [Option<Cause>],
    exit: i32,
}

const CELLS: [Cell; 7] = [
    Cell { name: "healthy", options: &[], break_it: |_| {}, state: State::Healthy, causes: &[None], exit: HEALTHY },
    Cell {
        name: "killed",
        options: &[],
        break_it: FuseFs::kill,
        state: State::Lost,
        causes: &[Some(Cause::DaemonDead)],
        exit: DEAD,
    },
    Cell {
        name: "stopped",
        options: &[],
        break_it: FuseFs::stop,
        state: State::Hung,
        causes: &[Some(Cause::DaemonStuck), Some(Cause::Unknown)],
        exit: DEAD,
    },
    Cell {
        name: "hanging",
        options: &[],
        break_it: |fs| fs.order("hang"),
        state: State::Hung,
        causes: &[Some(Cause::DaemonStuck), Some(Cause::Unknown)],
        exit: DEAD,
    },
    Cell {
        name: "wedged",
        options: &[],
        break_it: |fs| fs.order("wedge"),
        state: State::Hung,
        causes: &[Some(Cause::DaemonStuck), Some(Cause::Unknown)],
        exit: DEAD,
    },
    Cell {
        name: "eio",
        options: &[],
        break_it: |fs| fs.order(&format!("errno {}", libc::EIO)),
        state: State::Error,
        causes: &[Some(Cause::IoError)],
        exit: DEAD,
    },
    Cell {
        name: "foreign",
        options: &["--user-id", "1000"],
        break_it: |_| {},
        state: State::Unknown,
        causes: &[Some(Cause::Permission), Some(Cause::Unknown)],
        exit: COULD_NOT_TELL,
    },
];

impl Cell {
    fn of(name: &str) -> &'static Cell {
        CELLS.iter().find(|cell| cell.name == name).unwrap()
    }
}

/// Detectors on which no row of the lab depends, a cell that does, and what is said of it without: the error as such, or
/// nothing at all.
const DETECTORS_OF_FUSE: [(&str, &str, State); 2] =
    [("fuse", "killed", State::Error), ("errno", "eio", State::Healthy)];

#[test]
fn check_says_what_is_the_matter_with_each_mount() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("check_says_what_is_the_matter_with_each_mount") else { return };
    let config = config(&sandbox);
    for cell in &CELLS {
        let dir = sandbox.dir(cell.name);
        let mut fs = FuseFs::mount(&dir, cell.options);
        (cell.break_it)(&mut fs);
        let started = Instant::now();
        let (snapshot, exit) = check(&["--config", &config, dir.to_str().unwrap()]);
        let took = started.elapsed();
        let mount = mount_at(&snapshot, &dir).unwrap_or_else(|| panic!("{}: not in {snapshot:#?}", cell.name));
        assert_eq!((mount.state, exit), (cell.state, cell.exit), "{}: {mount:#?}", cell.name);
        assert!(cell.causes.contains(&mount.cause), "{}: {mount:#?}", cell.name);
        assert!(took < DEADLINE + SLACK, "{}: took {took:?}", cell.name);
    }
}

#[test]
fn the_agent_notices_each_fault_within_interval_and_deadline() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("the_agent_notices_each_fault_within_interval_and_deadline") else { return };
    let mut mounted: Vec<(&Cell, PathBuf, FuseFs)> = Vec::new();
    for cell in &CELLS {
        let dir = sandbox.dir(cell.name);
        let fs = FuseFs::mount(&dir, cell.options);
        mounted.push((cell, dir, fs));
    }
    let agent = start_agent(&sandbox);
    for (cell, dir, fs) in &mut mounted {
        let before = if cell.options.is_empty() { State::Healthy } else { cell.state };
        agent.eventually(dir, PATIENCE, |mount| mount.state == before);
        (cell.break_it)(fs);
        // `error` is believed when two of three probes say so.
        let probes = if cell.state == State::Error { 2 } else { 1 };
        let patience = INTERVAL * probes + DEADLINE + SLACK;
        let mount = told(&agent, dir, patience, cell.state);
        assert!(cell.causes.contains(&mount.cause), "{}: {mount:#?}", cell.name);
        assert_eq!(mount.advice.is_empty(), cell.state == State::Healthy, "{}: {mount:#?}", cell.name);
    }
    let (metrics, _) = agent.scrape();
    for (cell, dir, _) in &mounted {
        let state = format!("state=\"{}\"", cell.state);
        let path = format!("mountpoint=\"{}\"", dir.display());
        let current = metrics.lines().any(|line| {
            line.starts_with("mountwarden_mount_state{")
                && line.contains(&state)
                && line.contains(&path)
                && line.ends_with(" 1")
        });
        assert!(current, "{}: not the current state in /metrics", cell.name);
    }
}

#[test]
fn without_its_detector_a_fault_is_not_told() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("without_its_detector_a_fault_is_not_told") else { return };
    for (detector, name, instead) in DETECTORS_OF_FUSE {
        let cell = Cell::of(name);
        let dir = sandbox.dir(name);
        let mut fs = FuseFs::mount(&dir, cell.options);
        let (with, without) = (start_agent(&sandbox), start_agent_without(&sandbox, detector));
        for agent in [&with, &without] {
            agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
        }
        (cell.break_it)(&mut fs);
        let told = with.eventually(&dir, PATIENCE, |mount| mount.state == cell.state);
        assert!(cell.causes.contains(&told.cause), "{detector}: {told:#?}");
        // Three failed probes are enough for every rule that could say something.
        let failed = |mount: &MountStatus| mount.probes.get("error").is_some_and(|count| *count >= 3);
        let untold = without.eventually(&dir, PATIENCE, failed);
        assert_eq!(untold.state, instead, "without {detector}: {untold:#?}");
    }
}

#[test]
fn without_its_detector_check_does_not_tell_a_fault() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("without_its_detector_check_does_not_tell_a_fault") else { return };
    let config = config(&sandbox);
    for (detector, name, instead) in DETECTORS_OF_FUSE {
        let cell = Cell::of(name);
        let dir = sandbox.dir(name);
        let mut fs = FuseFs::mount(&dir, cell.options);
        (cell.break_it)(&mut fs);
        let path = dir.to_str().unwrap();
        let state =
            |flags: &[&str]| mount_at(&check(&[&["--config", &config, path], flags].concat()).0, &dir).unwrap().state;
        assert_eq!(state(&[]), cell.state, "{detector}");
        assert_eq!(state(&["--without-detector", detector]), instead, "without {detector}");
    }
}

/// `make lab-containers` shows it with a real server; there it is not switched off, only in its unit case.
const SHOWN_BY_CONTAINERS: [&str; 1] = ["on_host"];

/// A detector whose loss no real fault would show is not proven to be needed.
#[test]
fn every_detector_is_needed_by_a_row_of_the_lab_or_by_a_test_here() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/matrix.yaml");
    let matrix: serde_json::Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let rows = matrix["rows"].as_array().unwrap().iter();
    let of_the_lab = rows.filter_map(|row| row["detectors"].as_array()).flatten().filter_map(|name| name.as_str());
    let here = DETECTORS_OF_FUSE.map(|(detector, ..)| detector);
    let needed: BTreeSet<&str> = of_the_lab.chain(here).chain(SHOWN_BY_CONTAINERS).collect();
    assert_eq!(needed, BTreeSet::from(DETECTORS));
}

#[test]
fn what_heals_is_healthy_again_by_itself() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("what_heals_is_healthy_again_by_itself") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &[]);
    let agent = start_agent(&sandbox);
    for fault in ["hang", "wedge", &format!("errno {}", libc::EIO)] {
        agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
        fs.order(fault);
        agent.eventually(&dir, PATIENCE, |mount| mount.state != State::Healthy);
        fs.order("healthy");
        agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
    }
    fs.stop();
    agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Hung);
    fs.resume();
    agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
}

/// Within the time that is promised. On a machine with more to do than it has processors an agent may be too late itself: then
/// it says so in that time, and the state later.
fn told(agent: &Agent, dir: &Path, within: Duration, state: State) -> MountStatus {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split(' ').next().unwrap().parse().unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    let busy = load > 2.0 * f64::from(u32::try_from(processors).unwrap());
    let late = |mount: &MountStatus| busy && mount.cause == Some(Cause::AgentOverloaded);
    agent.eventually(dir, within, |mount| mount.state == state || late(mount));
    agent.eventually(dir, PATIENCE, |mount| mount.state == state)
}

#[test]
fn forty_hanging_mounts_disturb_neither_forty_healthy_ones_nor_scrapes_nor_the_end() {
    let _alone = alone();
    let test = "forty_hanging_mounts_disturb_neither_forty_healthy_ones_nor_scrapes_nor_the_end";
    let Some(sandbox) = Sandbox::enter(test) else { return };
    let mut dead = FuseFs::mount_many(&sandbox.dir("dead"), 40, &["--source", "dead"]);
    let live = FuseFs::mount_many(&sandbox.dir("live"), 40, &["--source", "live"]);
    // The first of them lets no killed worker go, as a real hung mount may do.
    dead.order("hang");
    dead.order("0 wedge");
    let mut agent = start_agent(&sandbox);
    for dir in dead.mounts() {
        told(&agent, dir, INTERVAL + DEADLINE + SLACK, State::Hung);
    }

    watch_healthy_ones(&agent, &live, INTERVAL * 8);
    scrape_two_hundred_times(&agent);
    // A worker that was just killed is in D too, until the daemon has let it go.
    eventually("at most one unkillable worker, for the one wedged superblock", INTERVAL, || {
        let blocked = sandbox.processes().into_iter().filter(|pid| state_of(*pid) == Some('D')).count();
        (blocked <= 1).then_some(())
    });

    let (status, took) = agent.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "the end took {took:?}");
    let kept = |most: usize| {
        eventually("only the daemons and what the kernel keeps are left", PATIENCE, || {
            let left = sandbox.processes();
            let in_d = left.iter().filter(|pid| state_of(**pid) == Some('D')).count();
            (left.len() == 2 + in_d && in_d <= most).then_some(())
        });
    };
    kept(1);
    dead.order("healthy");
    kept(0);
}

/// No healthy mount is called anything else, and each is probed once per interval.
///
/// The probes are counted, not their distances: a snapshot is only published every second.
fn watch_healthy_ones(agent: &Agent, live: &FuseFs, period: Duration) {
    let counts = |snapshot: &Snapshot| -> Vec<u64> {
        live.mounts().iter().map(|dir| mount_at(snapshot, dir).unwrap().probes.values().sum()).collect()
    };
    let first = agent.snapshot();
    let end = first.generated + period.as_secs_f64();
    let last = eventually("the period is over", period * 2, || {
        let snapshot = agent.snapshot();
        for dir in live.mounts() {
            let mount = mount_at(&snapshot, dir).unwrap();
            assert_eq!(mount.state, State::Healthy, "{mount:#?}");
        }
        (snapshot.generated >= end).then_some(snapshot)
    });
    // Jitter and the publication may cost a round at either end.
    let rounds = (last.generated - first.generated) / INTERVAL.as_secs_f64() - 2.0;
    for (dir, (before, after)) in live.mounts().iter().zip(counts(&first).into_iter().zip(counts(&last))) {
        assert!((after - before) as f64 >= rounds, "{}: {} probes, due {rounds:.1}", dir.display(), after - before);
    }
}

/// The quickest of three batches: what else runs on the machine may spoil one, but not make the agent quicker.
fn scrape_two_hundred_times(agent: &Agent) {
    let batch = || {
        let mut times: Vec<Duration> = (0..200)
            .map(|_| {
                let (metrics, took) = agent.scrape();
                assert!(metrics.contains("mountwarden_mount_state{"));
                took
            })
            .collect();
        times.sort();
        *times.iter().rev().nth(2).unwrap()
    };
    let p99 = (0..3).map(|_| batch()).min().unwrap();
    assert!(p99 < Duration::from_millis(10), "p99 of 200 scrapes is {p99:?}");
}

#[test]
fn unkillable_workers_delay_no_end_and_are_gone_with_their_filesystem() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("unkillable_workers_delay_no_end_and_are_gone_with_their_filesystem") else {
        return;
    };
    let mut dead = FuseFs::mount_many(&sandbox.dir("dead"), 40, &[]);
    dead.order("wedge");
    let mut agent = start_agent(&sandbox);
    for dir in dead.mounts() {
        told(&agent, dir, INTERVAL + DEADLINE + SLACK, State::Hung);
    }
    // Several more rounds: a second worker on a superblock that already holds one would be one too many.
    let first = agent.snapshot().generated;
    eventually("five more intervals are over", PATIENCE, || {
        (agent.snapshot().generated > first + 5.0 * INTERVAL.as_secs_f64()).then_some(())
    });
    let blocked = sandbox.processes().into_iter().filter(|pid| state_of(*pid) == Some('D')).count();
    assert!((1..=40).contains(&blocked), "{blocked} unkillable workers for 40 superblocks");

    let (status, took) = agent.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "the end took {took:?}");
    dead.kill();
    eventually("every worker is gone", PATIENCE, || sandbox.processes().is_empty().then_some(()));
}

/// Its lane stays taken for as long as the kernel holds the worker, so that no other probe would ever tell.
#[test]
fn a_mount_that_hangs_while_the_agent_is_late_is_told_all_the_same() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("a_mount_that_hangs_while_the_agent_is_late_is_told_all_the_same") else {
        return;
    };
    let agent = start_agent(&sandbox);
    // On a busy machine the deadline is over before the agent is stopped: then it was not late, and nothing is shown.
    for attempt in 0..10 {
        let mut dead = FuseFs::mount_many(&sandbox.dir(&format!("dead-{attempt}")), 1, &[]);
        let dir = dead.mounts()[0].clone();
        agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
        dead.order("wedge");
        dead.wait_until_held(1);
        agent.signal(Signal::SIGSTOP);
        // The fault itself: far beyond the deadline of that probe.
        std::thread::sleep(DEADLINE + Duration::from_millis(1500));
        agent.signal(Signal::SIGCONT);
        told(&agent, &dir, 2 * DEADLINE + SLACK, State::Hung);
        dead.kill();
        if agent.metric("mountwarden_overloads_total") >= 1.0 {
            return;
        }
    }
    panic!("the agent was never late, so this shows nothing");
}

/// fusectl is a filesystem of its own, which not every host mounts.
#[test]
fn requests_that_wait_for_a_daemon_explain_why_it_hangs() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("requests_that_wait_for_a_daemon_explain_why_it_hangs") else { return };
    let control = "/sys/fs/fuse/connections";
    let source = Some("fusectl");
    match nix::mount::mount(source, control, source, nix::mount::MsFlags::empty(), None::<&str>) {
        Ok(()) | Err(nix::errno::Errno::EBUSY) => {}
        Err(error) => panic!("mount fusectl on {control}: {error}"),
    }
    let mut fs = FuseFs::mount(&sandbox.dir("fs"), &["--allow-other"]);
    let dir = fs.mounts()[0].clone();
    let agent = start_agent(&sandbox);
    agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
    fs.order("wedge");
    let mut user = std::process::Command::new("stat")
        .arg(dir.join("nothing"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    fs.wait_until_held(1);
    let hung = agent.eventually(&dir, PATIENCE, |mount| mount.evidence.contains("for its daemon, unchanged for"));
    assert_eq!(hung.state, State::Hung);
    assert!((agent.metric("mountwarden_evidence_available{source=\"fuse_control\"}") - 1.0).abs() < 0.1);
    fs.order("healthy");
    user.wait().unwrap();
    let healthy = agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
    assert!(!healthy.evidence.contains("daemon"), "{}", healthy.evidence);
}
