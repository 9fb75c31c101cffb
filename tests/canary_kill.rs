//! kill -9 of a worker at every system call of a canary, and of the agent at any moment: at most one small file is left,
//! and the next canary is a good one. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]
#![allow(clippy::indexing_slicing, reason = "tests")]

mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared: each test crate uses its part of it")]
    pub mod agent;
    pub mod canary;
    pub mod sandbox;
    pub mod wait;
}

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mountwarden::canary::record::{Record, id_of};
use mountwarden::probe::canary::cgroup::CgroupSpec;
use mountwarden::probe::canary::{CanaryEnd, CanaryReport, CanarySpec};
use mountwarden::probe::note::Note;
use mountwarden::probe::wire::{self, Answer, Decoder, Job, Message, Place, Request};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use common::agent::{Launch, PROGRAM};
use common::canary::{Volume, config, ended};
use common::sandbox::Sandbox;
use common::wait::PATIENCE;

/// How often each of the two is killed; `MOUNTWARDEN_KILLS=200` kills the agent as often, too, which takes minutes.
fn kills(usual: usize) -> usize {
    std::env::var("MOUNTWARDEN_KILLS").map_or(usual, |text| text.parse().expect("MOUNTWARDEN_KILLS is a number"))
}

/// A worker of the test's own, as the agent starts them.
struct Worker {
    child: Child,
    socket: UnixStream,
    decoder: Decoder,
    _note: Note,
}

impl Worker {
    fn start() -> Worker {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let note = Note::new().unwrap();
        let child = Command::new(PROGRAM)
            .args(["probe-worker", &std::process::id().to_string()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(note.share().unwrap()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut worker = Worker { child, socket, decoder: Decoder::default(), _note: note };
        assert_eq!(worker.hear(), Message::Ready);
        worker
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    fn ask(&mut self, spec: &CanarySpec) {
        let request = Request { seq: 1, job: Job::Canary(Box::new(spec.clone())) };
        self.socket.write_all(&wire::encode(&request).unwrap()).unwrap();
    }

    fn hear(&mut self) -> Message {
        loop {
            if let Some(message) = self.decoder.take().unwrap() {
                return message;
            }
            let mut chunk = [0; 4096];
            let count = self.socket.read(&mut chunk).unwrap();
            assert!(count > 0, "the worker ended");
            self.decoder.push(&chunk[..count]);
        }
    }

    /// Lets it go on until it has entered or left so many system calls, then kills it; false: it was done before.
    fn kill_at(&mut self, stops: usize) -> bool {
        let pid = self.pid();
        for _ in 0..stops {
            ptrace::syscall(pid, None).unwrap();
            match waitpid(pid, None).unwrap() {
                WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..) | WaitStatus::PtraceSyscall(_) => {}
                other => panic!("{other:?}"),
            }
            // The answer is there: it is done.
            self.socket.set_nonblocking(true).unwrap();
            let done = self.socket.read(&mut [0; 1]).is_ok();
            if done {
                return false;
            }
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        true
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spec(volume: &Volume) -> CanarySpec {
    let (mount_id, dev) = mounted(volume);
    CanarySpec {
        place: Place {
            root: Vec::new(),
            path: volume.directory.to_str().unwrap().as_bytes().to_vec(),
            cached_only: false,
            mount_id,
            dev,
        },
        record: Record {
            id: id_of(b"machine", "node"),
            node: "node".to_owned(),
            boot: "boot".to_owned(),
            seq: 0,
            interval: 2,
        },
        writer: Some("uid=1000".parse().unwrap()),
        reader: Some("uid=2000".parse().unwrap()),
        allow_empty_root: false,
        once: false,
        sample: 4,
        cursor: 0,
        ask: Vec::new(),
        entries: true,
        users: Vec::new(),
        cgroup: CgroupSpec { proc_root: b"/nonexistent".to_vec(), run: "test".to_owned(), dev },
    }
}

/// Mount id and superblock, as this thread's namespace has them.
fn mounted(volume: &Volume) -> (u64, mountwarden::mounts::Dev) {
    let table = std::fs::read("/proc/thread-self/mountinfo").unwrap();
    let parsed = mountwarden::mounts::mountinfo::parse(&table, mountwarden::mounts::View::Own);
    let mount = parsed.mounts.into_iter().find(|mount| mount.mountpoint == volume.directory).unwrap();
    (mount.id, mount.dev)
}

fn whole(spec: &CanarySpec) -> CanaryReport {
    let mut worker = Worker::start();
    worker.ask(spec);
    match worker.hear() {
        Message::Done { answer: Answer::Canary(report), .. } => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_killed_at_any_system_call_leaves_one_small_file_at_most() {
    let test = "a_worker_killed_at_any_system_call_leaves_one_small_file_at_most";
    let Some(sandbox) = Sandbox::enter(test) else { return };
    let volume = Volume::with_data(&sandbox);
    let spec = spec(&volume);
    let wanted = kills(200);
    let (mut killed, mut stops) = (0, 1);
    while killed < wanted {
        let mut worker = Worker::start();
        ptrace::seize(worker.pid(), ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL)
            .unwrap();
        ptrace::interrupt(worker.pid()).unwrap();
        waitpid(worker.pid(), None).unwrap();
        worker.ask(&spec);
        if !worker.kill_at(stops) {
            assert!(stops > 40, "a canary makes more calls than {stops}");
            let report = whole(&spec);
            stops = 1;
            assert_eq!(report.end, CanaryEnd::Good, "{report:?}");
            continue;
        }
        killed += 1;
        stops += 1;
        volume.assert_clean();
        if killed % 10 == 0 {
            let report = whole(&spec);
            assert_eq!(report.end, CanaryEnd::Good, "after {stops} stops: {report:?}");
            // Begin from nothing as often as from a record.
            std::fs::remove_dir_all(volume.ours()).unwrap();
        }
    }
    assert_eq!(whole(&spec).end, CanaryEnd::Good);
    volume.assert_clean();
}

#[test]
fn an_agent_killed_at_any_moment_leaves_one_small_file_at_most() {
    let test = "an_agent_killed_at_any_moment_leaves_one_small_file_at_most";
    let Some(sandbox) = Sandbox::enter(test) else { return };
    let volume = Volume::with_data(&sandbox);
    let config = config(&sandbox, "");
    let flags = ["--config", &config, "--node-name", "node"];
    for round in 0..kills(12) {
        let agent = Launch::new(&flags).spawn();
        // No moment is the right one to wait for: spread over start, first probe, first and second canary.
        let moment = Instant::now() + Duration::from_millis(u64::try_from(round).unwrap() * 397 % 2000);
        while Instant::now() < moment {
            std::thread::sleep(Duration::from_millis(1));
        }
        agent.signal(Signal::SIGKILL);
        drop(agent);
        volume.assert_clean();
    }
    let agent = Launch::new(&flags).start();
    agent.eventually(&volume.directory, PATIENCE, ended("ok"));
    volume.assert_clean();
}
