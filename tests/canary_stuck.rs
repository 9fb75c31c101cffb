//! Canaries that hang while reads are answered: one whose worker can be killed, and one whose worker cannot. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]
#![allow(clippy::indexing_slicing, reason = "tests")]

mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared: each test crate uses its part of it")]
    pub mod agent;
    pub mod canary;
    pub mod fusefs;
    pub mod pod_cgroup;
    pub mod process;
    pub mod sandbox;
    pub mod wait;
}

use mountwarden::verdict::{Cause, State};
use nix::sys::signal::Signal;

use common::agent::{Agent, Launch, PROGRAM};
use common::canary::{canary, config, is};
use common::fusefs::FuseFs;
use common::pod_cgroup::PodCgroup;
use common::process::{children_of, state_of};
use common::sandbox::Sandbox;
use common::wait::{PATIENCE, eventually};

#[test]
fn a_canary_that_hangs_is_seen_and_ends_with_the_hang() {
    let Some(sandbox) = Sandbox::enter("a_canary_that_hangs_is_seen_and_ends_with_the_hang") else { return };
    let directory = sandbox.dir("fuse");
    let mut fuse = FuseFs::mount(&directory, &["--allow-other"]);
    fuse.order("hang lookup");
    let agent = Agent::start(&["--config", &config(&sandbox, "")]);
    let hung = agent.eventually(&directory, PATIENCE, is(State::Hung, Some(Cause::DaemonStuck)));
    assert!(hung.evidence.contains("reads are answered"), "{}", hung.evidence);
    assert_eq!(canary(&hung).result, "timeout");
    // Reads go on meanwhile.
    let probed = hung.probes.get("ok").copied().unwrap_or(0);
    agent.eventually(&directory, PATIENCE, |mount| mount.probes.get("ok").copied().unwrap_or(0) > probed + 1);
    fuse.order("healthy");
    agent.eventually(&directory, PATIENCE, |mount| canary(mount).result == "failed");
}

/// As after the restart of a server that lets read, and keeps writers waiting.
#[test]
fn a_mount_that_answers_reads_again_is_well_when_its_canary_is_done() {
    let Some(sandbox) = Sandbox::enter("a_mount_that_answers_reads_again_is_well_when_its_canary_is_done") else {
        return;
    };
    let directory = sandbox.dir("fuse");
    let mut fuse = FuseFs::mount(&directory, &["--allow-other"]);
    let agent = Agent::start(&["--config", &config(&sandbox, "")]);
    agent.eventually(&directory, PATIENCE, |mount| mount.state == State::Healthy && mount.canary.is_some());
    fuse.order("hang");
    let hung = agent.eventually(&directory, PATIENCE, is(State::Hung, Some(Cause::DaemonStuck)));
    assert!(!hung.evidence.contains("reads are answered"), "{}", hung.evidence);
    fuse.order("hang lookup");
    let still = agent.eventually(&directory, PATIENCE, |mount| mount.evidence.contains("reads are answered"));
    assert_eq!((still.state, still.since), (State::Hung, hung.since), "it was never well in between");
    fuse.order("healthy");
    agent.eventually(&directory, PATIENCE, |mount| mount.state != State::Hung);
}

#[test]
fn a_canary_worker_that_cannot_be_killed_is_alone_and_the_next_agent_finds_it() {
    let test = "a_canary_worker_that_cannot_be_killed_is_alone_and_the_next_agent_finds_it";
    let Some(sandbox) = Sandbox::enter(test) else { return };
    let directory = sandbox.dir("fuse");
    let mut fuse = FuseFs::mount(&directory, &["--allow-other"]);
    fuse.order("wedge lookup");
    let config = config(&sandbox, "");
    let mut agent = Agent::start(&["--config", &config]);
    agent.eventually(&directory, PATIENCE, is(State::Hung, Some(Cause::DaemonStuck)));
    let stuck = eventually("a worker is stuck", PATIENCE, || {
        let stuck: Vec<u32> =
            children_of(agent.id()).into_iter().filter(|(_, state)| *state == 'D').map(|(pid, _)| pid).collect();
        (!stuck.is_empty()).then_some(stuck)
    });
    assert_eq!(stuck.len(), 1);
    let isolated = agent.snapshot().agent.canary_isolated;
    let (status, _) = agent.terminate();
    assert!(status.success(), "a stuck worker keeps no agent from ending");
    assert_eq!(state_of(stuck[0]), Some('D'));
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", stuck[0])).unwrap();
    if !own.contains("/mountwarden.canary/") {
        // No unified hierarchy to put it into; then nobody can find it.
        assert_ne!(isolated, Some(true));
        common::sandbox::skip(test, "there is no unified cgroup hierarchy");
        return;
    }
    // An answer to whoever is not stuck: the next agent's own probe.
    let agent = Agent::start(&["--config", &config]);
    let hung = agent.eventually(&directory, PATIENCE, is(State::Hung, Some(Cause::DaemonStuck)));
    assert!(hung.evidence.contains("an earlier agent began"), "{}", hung.evidence);
    assert!(canary(&hung).detail.contains("earlier agent"));
    // Other tests may leave strays of their own.
    assert!(agent.snapshot().agent.canary_strays >= 1);
    let more = children_of(agent.id()).into_iter().filter(|(_, state)| *state == 'D').count();
    assert_eq!(more, 0, "it does not add to it");
    fuse.kill();
    eventually("the stuck worker is gone", PATIENCE, || {
        // Its parent is whoever adopts orphans here, which may not reap.
        matches!(state_of(stuck[0]), None | Some('Z')).then_some(())
    });
    agent.signal(Signal::SIGTERM);
}

/// An update, a deletion or a crash of the agent's pod: with a process in D left in its cgroup, a kubelet shows such a pod as
/// Terminating, or as Running and Ready with nobody in it, until the server is back.
#[test]
fn the_agents_pod_ends_at_once_beside_a_canary_that_cannot_be_killed_and_the_next_one_sees_on() {
    let test = "the_agents_pod_ends_at_once_beside_a_canary_that_cannot_be_killed_and_the_next_one_sees_on";
    let Some(sandbox) = Sandbox::enter(test) else { return };
    let (Some(pod), Some(next)) = (PodCgroup::make(), PodCgroup::make()) else {
        common::sandbox::skip(test, "there is no unified cgroup hierarchy");
        return;
    };
    let directory = sandbox.dir("fuse");
    let mut fuse = FuseFs::mount(&directory, &["--allow-other"]);
    fuse.order("wedge lookup");
    let config = config(&sandbox, "");
    let start = |pod: &PodCgroup| {
        let wrapper = pod.wrapper();
        let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        Launch::under(&words, PROGRAM, &["--config", &config]).start()
    };
    let agent = start(&pod);
    agent.eventually(&directory, PATIENCE, is(State::Hung, Some(Cause::DaemonStuck)));
    let stuck = eventually("a worker is stuck", PATIENCE, || {
        children_of(agent.id()).into_iter().find_map(|(pid, state)| (state == 'D').then_some(pid))
    });
    // Its own talk with the agent, and the mount. The container's stdout or stderr in its hands would keep the container from
    // ending, too.
    let held: Vec<_> = std::fs::read_dir(format!("/proc/{stuck}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap_or_default())
        .collect();
    let own = ["/dev/null", "socket:", "/memfd:mountwarden"];
    let is_own = |file: &std::path::PathBuf| {
        file.starts_with(&directory) || own.iter().any(|own| file.to_string_lossy().starts_with(own))
    };
    assert!(held.iter().all(is_own), "{held:?}");
    agent.signal(Signal::SIGKILL);
    eventually("the pod's cgroup is gone", PATIENCE, || pod.end().ok());
    assert_eq!(state_of(stuck), Some('D'), "it is stuck all the time");
    drop(agent);
    let agent = start(&next);
    agent.eventually(&directory, PATIENCE, is(State::Hung, Some(Cause::DaemonStuck)));
    eventually("the stray is counted", PATIENCE, || (agent.snapshot().agent.canary_strays >= 1).then_some(()));
    fuse.kill();
    eventually("the stuck worker is gone", PATIENCE, || matches!(state_of(stuck), None | Some('Z')).then_some(()));
}
