//! What can happen to probe workers, to the agent's time, and to a mount under a probe: none of it is an alarm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared: each test crate uses its part of it")]
    pub mod agent;
    pub mod fusefs;
    pub mod process;
    pub mod sandbox;
    pub mod timed;
    pub mod wait;
}

use std::path::Path;
use std::time::{Duration, Instant};

use common::agent::{Agent, Launch, mount_at};
use common::fusefs::FuseFs;
use common::process::{children_of, send, state_of, wchan_of};
use common::sandbox::Sandbox;
use common::timed::{DEADLINE, INTERVAL, SLACK, alone, config};
use common::wait::{PATIENCE, eventually};
use mountwarden::snapshot::Snapshot;
use mountwarden::verdict::{Cause, State};
use nix::sys::signal::Signal;

/// Workers that are kept ready.
const WARM: usize = 8;

fn start_agent(sandbox: &Sandbox) -> Agent {
    Agent::start(&["--config", &config(sandbox.path())])
}

fn workers(agent: &Agent) -> Vec<u32> {
    children_of(agent.id()).into_iter().map(|(pid, _)| pid).collect()
}

fn probes(snapshot: &Snapshot, path: &Path) -> u64 {
    mount_at(snapshot, path).unwrap().probes.values().sum()
}

/// Probes that answered.
fn good_probes(agent: &Agent, path: &Path) -> u64 {
    mount_at(&agent.snapshot(), path).unwrap().probes.get("ok").copied().unwrap_or(0)
}

/// No mount that answers was ever called dead: neither now nor between two looks.
fn assert_never_dead(agent: &Agent, path: &Path) {
    let mount = mount_at(&agent.snapshot(), path).unwrap();
    let overloaded = mount.state == State::Unknown && mount.cause == Some(Cause::AgentOverloaded);
    assert!(mount.state == State::Healthy || overloaded, "{mount:#?}");
    for state in ["hung", "stale", "lost", "error", "slow"] {
        assert_eq!(mount.transitions.get(state), None, "{mount:#?}");
    }
}

#[test]
fn workers_that_somebody_kills_are_replaced_and_the_verdicts_stay() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("workers_that_somebody_kills_are_replaced_and_the_verdicts_stay") else {
        return;
    };
    let live = FuseFs::mount_many(&sandbox.dir("live"), 5, &[]);
    let mut agent = start_agent(&sandbox);
    for dir in live.mounts() {
        agent.eventually(dir, PATIENCE, |mount| mount.state == State::Healthy);
    }
    let before = agent.snapshot();
    let end = Instant::now() + Duration::from_secs(4);
    eventually("four seconds of killing are over", PATIENCE, || {
        workers(&agent).into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
        let snapshot = agent.snapshot();
        for dir in live.mounts() {
            let mount = mount_at(&snapshot, dir).unwrap();
            assert_eq!(mount.state, State::Healthy, "{mount:#?}");
        }
        (Instant::now() > end).then_some(())
    });
    agent.assert_runs();
    for dir in live.mounts() {
        agent.eventually(dir, INTERVAL + SLACK, |mount| mount.probes.values().sum::<u64>() > probes(&before, dir));
        assert_never_dead(&agent, dir);
    }
    eventually("all workers are there again, and no dead one is left", INTERVAL * 2 + SLACK, || {
        let children = children_of(agent.id());
        (children.len() == WARM && children.iter().all(|(_, state)| *state != 'Z')).then_some(())
    });
    let stats = eventually("the counters are published", PATIENCE, || {
        Some(agent.snapshot().agent).filter(|stats| stats.workers_idle == WARM as u64)
    });
    assert!(stats.workers_lost_total >= WARM as u64, "{stats:#?}");
    assert!(stats.workers_started_total >= 2 * WARM as u64, "{stats:#?}");
    assert_eq!(agent.metric("mountwarden_workers_lost_total"), stats.workers_lost_total as f64);
    assert_eq!(agent.terminate().0.code(), Some(0));
}

#[test]
fn a_worker_that_somebody_stops_is_killed_and_proves_nothing() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("a_worker_that_somebody_stops_is_killed_and_proves_nothing") else { return };
    let dir = sandbox.dir("m");
    let _fs = FuseFs::mount(&dir, &[]);
    let mut agent = start_agent(&sandbox);
    agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
    let stopped = workers(&agent);
    stopped.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
    // Whichever takes the next jobs misses its deadline; a worker that nobody asks may stay as it is.
    eventually("a stopped worker is given up", INTERVAL * 2 + DEADLINE + SLACK, || {
        (agent.snapshot().agent.overloads_total > 0).then_some(())
    });
    assert_never_dead(&agent, &dir);
    let good = good_probes(&agent, &dir);
    eventually("the mount is probed well again", PATIENCE, || {
        assert_never_dead(&agent, &dir);
        (good_probes(&agent, &dir) > good + 1).then_some(())
    });
    agent.eventually(&dir, PATIENCE, |mount| mount.state == State::Healthy);
    assert!(agent.metric("mountwarden_workers_killed_total") > 0.0);
    assert_eq!(agent.terminate().0.code(), Some(0));
    eventually("no stopped worker outlives the agent", PATIENCE, || {
        stopped.iter().all(|pid| state_of(*pid).is_none_or(|state| state == 'Z')).then_some(())
    });
}

/// Stops the agent, and its workers if `all`, for longer than deadline and interval, while its mounts answer.
fn suspend(agent: &Agent, all: bool) {
    let mut pids = vec![agent.id()];
    pids.extend(if all { workers(agent) } else { Vec::new() });
    pids.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
    eventually("it is stopped", PATIENCE, || (state_of(agent.id()) == Some('T')).then_some(()));
    let end = Instant::now() + INTERVAL * 2 + DEADLINE;
    eventually("the suspension is over", PATIENCE, || (Instant::now() > end).then_some(()));
    pids.iter().for_each(|pid| send(*pid, Signal::SIGCONT));
}

#[test]
fn a_suspended_agent_wakes_up_without_an_alarm() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("a_suspended_agent_wakes_up_without_an_alarm") else { return };
    let (dir, slow) = (sandbox.dir("m"), sandbox.dir("slow"));
    let _fs = FuseFs::mount(&dir, &[]);
    let mut slow_fs = FuseFs::mount(&slow, &[]);
    let mut agent = start_agent(&sandbox);
    for path in [&dir, &slow] {
        agent.eventually(path, PATIENCE, |mount| mount.state == State::Healthy);
    }
    // Within the deadline, and below what counts as slow, so that a probe is under way much of the time.
    slow_fs.order("slow 200 getattr");
    for (all, in_flight) in [(false, false), (false, true), (true, true)] {
        if in_flight {
            eventually("a probe is under way", PATIENCE, || {
                workers(&agent).iter().any(|pid| in_request(*pid)).then_some(())
            });
        }
        suspend(&agent, all);
        let before = [&dir, &slow].map(|path| good_probes(&agent, path));
        for (path, before) in [&dir, &slow].into_iter().zip(before) {
            eventually("it is probed well again", PATIENCE, || {
                assert_never_dead(&agent, path);
                (good_probes(&agent, path) > before + 1).then_some(())
            });
        }
    }
    for path in [&dir, &slow] {
        agent.eventually(path, PATIENCE, |mount| mount.state == State::Healthy);
    }
    assert_eq!(agent.get("/healthz").unwrap().status, 200);
    assert_eq!(agent.terminate().0.code(), Some(0));
}

fn in_request(pid: u32) -> bool {
    common::process::wchan_of(pid).contains("request_wait_answer")
}

#[test]
fn a_mount_that_goes_away_under_its_probe_is_forgotten() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("a_mount_that_goes_away_under_its_probe_is_forgotten") else { return };
    let (gone, stays) = (sandbox.dir("gone"), sandbox.dir("stays"));
    let mut fs = FuseFs::mount(&gone, &[]);
    let _other = FuseFs::mount(&stays, &[]);
    let mut agent = start_agent(&sandbox);
    for dir in [&gone, &stays] {
        agent.eventually(dir, PATIENCE, |mount| mount.state == State::Healthy);
    }
    fs.order("wedge");
    fs.wait_until_held(1);
    fs.detach();
    eventually("the target is gone", INTERVAL + SLACK, || mount_at(&agent.snapshot(), &gone).is_none().then_some(()));
    assert!(!agent.scrape().0.contains(&format!("mountpoint=\"{}\"", gone.display())), "a stale series");
    eventually("the blocked worker is given up", DEADLINE + SLACK, || {
        (agent.metric("mountwarden_workers{state=\"stuck\"}") == 1.0).then_some(())
    });
    fs.order("healthy");
    eventually("the blocked worker is gone", PATIENCE, || {
        let alive = children_of(agent.id()).iter().filter(|(_, state)| *state != 'Z').count();
        let stuck = agent.metric("mountwarden_workers{state=\"stuck\"}");
        (alive <= WARM && stuck == 0.0).then_some(())
    });
    assert!(mount_at(&agent.snapshot(), &gone).is_none(), "a late answer brought it back");
    assert_never_dead(&agent, &stays);
    assert_eq!(agent.snapshot().mounts.len(), 1);
    assert_eq!(agent.terminate().0.code(), Some(0));
}

#[test]
fn a_state_file_on_a_dead_mount_does_not_put_off_the_end() {
    let _alone = alone();
    let Some(sandbox) = Sandbox::enter("a_state_file_on_a_dead_mount_does_not_put_off_the_end") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &[]);
    fs.order("hang");
    let file = dir.join("state");
    let mut agent = Launch::new(&["--config", &config(sandbox.path()), "--state-file", file.to_str().unwrap()]).spawn();
    eventually("a worker is blocked by the file", PATIENCE, || {
        workers(&agent).into_iter().any(|pid| wchan_of(pid).contains("request_wait_answer")).then_some(())
    });
    let (status, took) = agent.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}
