//! The proof that the agent's own process touches no monitored mount: every call with a path or a descriptor that its
//! threads made over a run with dead mounts, as strace(1) saw them. Workers are other processes, and they do.
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

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::agent::{Launch, PROGRAM};
use common::fusefs::FuseFs;
use common::sandbox::{Sandbox, skip};
use common::timed::config;
use common::wait::{PATIENCE, eventually};
use mountwarden::verdict::State;

/// The calls of each thread that strace saw.
type Traces = BTreeMap<u32, String>;

/// Reads `trace.TID` of all threads.
fn traces(dir: &Path) -> Traces {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.extension().unwrap().to_str().unwrap().parse().unwrap(), read(&path))).collect()
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

/// The threads of the process `first`: those that its threads made as such, not its child processes.
fn threads_of(first: u32, traces: &Traces) -> BTreeSet<u32> {
    let mut threads = BTreeSet::from([first]);
    let mut unread = vec![first];
    while let Some(thread) = unread.pop() {
        let made = traces[&thread].lines().filter(|line| line.starts_with("clone") && line.contains("CLONE_THREAD"));
        for line in made {
            let id = line.rsplit_once(" = ").unwrap().1.split_whitespace().next().unwrap();
            // A call that failed made none.
            if let Ok(id) = id.parse()
                && threads.insert(id)
            {
                unread.push(id);
            }
        }
    }
    threads
}

/// Lines that open another process's mount table; our own and PID 1's may be read.
fn foreign_tables(trace: &str, own: u32) -> Vec<&str> {
    let foreign = |line: &&str| {
        let tables = line.split("/proc/").skip(1).filter(|rest| {
            let file = rest.split('"').next().unwrap_or(rest);
            file.contains("/mount") && !file.starts_with("self/") && !file.starts_with("thread-self/")
        });
        tables.map(|rest| rest.split('/').next().unwrap_or(rest)).any(|pid| pid != "1" && pid != own.to_string())
    };
    trace.lines().filter(foreign).collect()
}

#[test]
fn the_agent_itself_makes_no_call_on_a_monitored_mount() {
    let test = "the_agent_itself_makes_no_call_on_a_monitored_mount";
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        skip(test, "there is no strace on this machine");
        return;
    }
    let Some(sandbox) = Sandbox::enter(test) else { return };
    let (watched, trace) = (sandbox.dir("watched"), sandbox.dir("trace"));
    for name in ["live", "hung", "wedged", "killed"] {
        std::fs::create_dir(watched.join(name)).unwrap();
    }
    let mut live = FuseFs::mount_many(&watched.join("live"), 3, &[]);
    let mut hung = FuseFs::mount_many(&watched.join("hung"), 3, &[]);
    let mut wedged = FuseFs::mount_many(&watched.join("wedged"), 2, &[]);
    let mut killed = FuseFs::mount_many(&watched.join("killed"), 2, &[]);
    // -D: the agent is the child, strace is not in between. -y shows what a descriptor is; -s 0 leaves out what is
    // written (frames to the workers hold the paths that they are to probe), never a path argument.
    let output = trace.join("trace");
    let strace = ["strace", "-D", "-ff", "-y", "-s", "0", "-o", output.to_str().unwrap()];
    let strace = [&strace[..], &["-e", "trace=%file,%desc,%process,%network", "-e", "signal=none"]].concat();
    let log = std::fs::File::create(sandbox.path().join("log")).unwrap();
    let mut agent = Launch::under(&strace, PROGRAM, &["--config", &config(sandbox.path())]).log_to(log).start();
    hung.order("hang");
    wedged.order("wedge");
    killed.kill();
    for (fs, state) in [(&live, State::Healthy), (&hung, State::Hung), (&wedged, State::Hung), (&killed, State::Lost)] {
        for dir in fs.mounts() {
            agent.eventually(dir, PATIENCE, |mount| mount.state == state);
        }
    }
    // Everything that looks at the mounts from outside, and a change of the table.
    for path in ["/", "/api/v1/mounts", "/healthz"] {
        assert_eq!(agent.ui(path).unwrap().status, 200, "{path}");
    }
    agent.scrape();
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    wedged.detach();
    eventually("the unmounted ones are gone", PATIENCE, || (agent.snapshot().mounts.len() == 8).then_some(()));
    hung.order("healthy");
    for dir in hung.mounts() {
        agent.eventually(dir, PATIENCE, |mount| mount.state == State::Healthy);
    }
    let own = agent.id();
    assert_eq!(agent.terminate().0.code(), Some(0));
    let last = trace.join(format!("trace.{own}"));
    eventually("strace has written all", PATIENCE, || read(&last).contains("+++ exited with 0 +++").then_some(()));
    live.order("healthy");

    let traces = traces(&trace);
    let threads = threads_of(own, &traces);
    let watched = watched.to_str().unwrap();
    for thread in &threads {
        let calls = &traces[thread];
        let touching: Vec<&str> = calls.lines().filter(|line| line.contains(watched)).collect();
        assert!(touching.is_empty(), "thread {thread} of the agent: {touching:#?}");
        let foreign = foreign_tables(calls, own);
        assert!(foreign.is_empty(), "thread {thread} of the agent: {foreign:#?}");
    }
    // The trace is no empty proof: the loop read the table, and the workers' calls on every mount are in it.
    assert!(traces[&own].contains("/self/mountinfo\""), "the agent read no mount table?");
    assert!(threads.len() > 1, "the log has a thread of its own: {threads:?}");
    let of_workers: Vec<&String> =
        traces.iter().filter(|(id, _)| !threads.contains(id)).map(|(_, calls)| calls).collect();
    assert!(of_workers.len() >= 8, "{} worker processes", of_workers.len());
    for fs in [&live, &hung, &killed] {
        for dir in fs.mounts() {
            let dir = dir.to_str().unwrap();
            assert!(of_workers.iter().any(|calls| calls.contains(dir)), "no worker touched {dir}");
        }
    }
}

#[test]
fn the_search_for_foreign_tables_finds_them() {
    let trace = "openat(AT_FDCWD</>, \"/proc/self/mountinfo\", O_RDONLY) = 3\n\
                 openat(AT_FDCWD</>, \"/proc/1/mountinfo\", O_RDONLY) = 3\n\
                 openat(AT_FDCWD</>, \"/proc/42/stat\", O_RDONLY) = 3\n\
                 openat(AT_FDCWD</>, \"/proc/43/mountinfo\", O_RDONLY) = -1 ENOENT\n\
                 openat(AT_FDCWD</>, \"/proc/44/mountstats\", O_RDONLY) = 3\n\
                 read(3</proc/7/mountinfo>, \"\"..., 32) = 32\n";
    let found = foreign_tables(trace, 7);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("/43/") && found[1].contains("/44/"));
}
