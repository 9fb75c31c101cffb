//! Trial mounts in a real worker process on the real kernel. The host has no NFS; tmpfs and devpts go the same way
//! through fsopen, fsconfig and fsmount, and an unprivileged user may mount them in a user namespace. `lab trials` makes
//! trial mounts of NFS.
#![allow(clippy::disallowed_methods, reason = "a test reads /proc and starts the worker")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mountwarden::probe::Step;
use mountwarden::probe::note::Note;
use mountwarden::probe::trial::{TrialOption, TrialReport, TrialSpec, words};
use mountwarden::probe::wire::{Answer, Decoder, Job, Message, Request, encode};

/// A worker as the pool starts it. Without root it is root in a user namespace of its own, which may mount too.
struct Worker {
    child: Child,
    socket: UnixStream,
    decoder: Decoder,
    note: Note,
}

impl Worker {
    fn start() -> Worker {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let binary = env!("CARGO_BIN_EXE_mountwarden");
        let mut command = if nix::unistd::geteuid().is_root() {
            Command::new(binary)
        } else {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount", binary]);
            command
        };
        command.arg("probe-worker").arg(std::process::id().to_string()).stdin(Stdio::from(OwnedFd::from(theirs)));
        let note = Note::new().unwrap();
        command.stdout(note.share().unwrap());
        let child = command.spawn().expect("the worker starts");
        let mut worker = Worker { child, socket: ours, decoder: Decoder::default(), note };
        assert_eq!(worker.hear(), Message::Ready);
        worker
    }

    fn hear(&mut self) -> Message {
        loop {
            if let Some(message) = self.decoder.take().unwrap() {
                return message;
            }
            let mut chunk = [0; 4096];
            let count = self.socket.read(&mut chunk).expect("the worker answers in time");
            assert!(count > 0, "the worker ended");
            self.decoder.push(&chunk[..count]);
        }
    }

    /// Makes a trial; the step that was noted last, and the report.
    fn try_mount(&mut self, spec: TrialSpec) -> (Step, TrialReport) {
        self.socket.write_all(&encode(&Request { seq: 7, job: Job::Trial(spec) }).unwrap()).unwrap();
        match self.hear() {
            Message::Done { seq: 7, answer: Answer::Trial(report) } => (self.note.read(7).unwrap().step, report),
            other => panic!("{other:?}"),
        }
    }

    /// What the worker has mounted and open.
    fn holdings(&self) -> (String, usize) {
        let of = |name: &str| format!("/proc/{}/{name}", self.child.id());
        let mounts = std::fs::read_to_string(of("mountinfo")).unwrap();
        (mounts, std::fs::read_dir(of("fd")).unwrap().count())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spec(fstype: &str, options: &[(&str, Option<&str>)]) -> TrialSpec {
    let option = |(name, value): &(&str, Option<&str>)| TrialOption {
        name: (*name).to_owned(),
        value: value.map(str::to_owned),
    };
    let options = options.iter().map(option).collect();
    TrialSpec { fstype: fstype.to_owned(), source: b"trial".to_vec(), options, look_for: Vec::new() }
}

const ALL: [Step; 5] = [Step::TrialOpen, Step::TrialMount, Step::TrialRoot, Step::TrialNames, Step::TrialClose];

#[test]
fn a_trial_shows_the_root_and_leaves_neither_mount_nor_descriptor() {
    let mut worker = Worker::start();
    let before = worker.holdings();
    let (entered, report) = worker.try_mount(spec("tmpfs", &[("size", Some("64k")), ("mode", Some("0751"))]));
    assert_eq!(worker.holdings(), before);
    assert_eq!(entered, Step::TrialClose);
    assert_eq!(report.steps.iter().map(|result| result.step).collect::<Vec<_>>(), ALL);
    assert_eq!(report.failure(), None, "{report:?}");
    assert_eq!(report.root.unwrap().mode, 0o40_751);
    assert_eq!((report.names.len(), report.more_names), (0, false));
    assert!(!report.handle.is_empty(), "tmpfs has handles: {report:?}");
    assert_eq!(words::explain(&report), None);
}

#[test]
fn each_trial_is_a_filesystem_of_its_own_and_a_worker_makes_many() {
    let mut worker = Worker::start();
    let handles: Vec<Vec<u8>> = (0..3).map(|_| worker.try_mount(spec("tmpfs", &[])).1.handle).collect();
    assert!(handles.iter().all(|handle| !handle.is_empty()));
    assert_ne!(handles[0], handles[1], "tmpfs gives each root a generation of its own");
}

#[test]
fn the_names_in_the_root_are_listed() {
    let mut worker = Worker::start();
    let (_, report) = worker.try_mount(spec("devpts", &[]));
    assert!(report.answered(), "{report:?}");
    assert!(report.names.contains(&b"ptmx".to_vec()), "{report:?}");
}

#[test]
fn an_option_that_the_kernel_refuses_is_named_with_its_words_and_nothing_is_mounted() {
    let mut worker = Worker::start();
    let before = worker.holdings();
    let (entered, report) = worker.try_mount(spec("tmpfs", &[("mode", Some("0700")), ("size", Some("nonsense"))]));
    assert_eq!(worker.holdings(), before);
    assert_eq!(entered, Step::TrialClose);
    assert_eq!(report.failure(), Some((Step::TrialOpen, libc::EINVAL)));
    assert_eq!(report.refused_option.as_deref(), Some("size=nonsense"));
    assert!(report.messages.iter().any(|message| message.starts_with("e tmpfs: ")), "{report:?}");
    let words = words::explain(&report).unwrap();
    assert!(words.contains("size=nonsense") && words.contains("the kernel says: tmpfs: "), "{words}");
}

#[test]
fn a_type_that_the_kernel_does_not_know_is_worded() {
    let (entered, report) = Worker::start().try_mount(spec("no-such-type", &[]));
    assert_eq!(entered, Step::TrialClose);
    assert_eq!(report.failure(), Some((Step::TrialOpen, libc::ENODEV)));
    assert!(words::explain(&report).unwrap().contains("does not know the filesystem type"));
}

#[test]
fn what_cannot_be_a_string_of_the_kernel_is_an_error_of_the_trial_and_not_of_the_worker() {
    let mut worker = Worker::start();
    let (_, report) = worker.try_mount(spec("tmpfs", &[("size", Some("1\0k"))]));
    assert_eq!(report.failure(), Some((Step::TrialOpen, libc::EINVAL)));
    assert!(worker.try_mount(spec("tmpfs", &[])).1.answered(), "the worker goes on");
}
