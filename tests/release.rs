//! Releases of dead FUSE mounts by a real worker process; `lab releases` does the same with NFS. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared: each test crate uses its part of it")]
    pub mod fusefs;
    pub mod process;
    pub mod sandbox;
    pub mod wait;
}

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::fusefs::FuseFs;
use common::process::Blockable;
use common::sandbox::Sandbox;
use common::wait::PATIENCE;
use mountwarden::mounts::{View, mountinfo};
use mountwarden::probe::wire::{Decoder, encode};
use mountwarden::remedy::release::{CallEnd, Event, Flags, Manner, Pace, ReleaseMount, ReleaseSpec, Stop};

const NOBODY: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";

fn table() -> Vec<mountwarden::mounts::Mount> {
    mountinfo::parse(&std::fs::read("/proc/thread-self/mountinfo").unwrap(), View::Own).mounts
}

fn mounted(path: &Path) -> Option<ReleaseMount> {
    let mount = table().into_iter().rfind(|mount| mount.mountpoint == path)?;
    let path = path.as_os_str().as_bytes().to_vec();
    Some(ReleaseMount { path, mount_id: mount.id, unique_mount_id: None, dev: mount.dev })
}

fn spec(mounts: Vec<ReleaseMount>, manner: Manner) -> ReleaseSpec {
    ReleaseSpec {
        pod_uid: NOBODY.to_owned(),
        proc_root: b"/proc".to_vec(),
        namespace: Vec::new(),
        mounts,
        manner,
        cgroup: None,
        pace: Pace::default(),
    }
}

/// Everything that a worker for `spec` says. It lives in the mount namespace of the calling thread.
fn release(spec: &ReleaseSpec) -> Vec<Event> {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mountwarden"));
    command.arg("release-worker").arg(std::process::id().to_string());
    let mut child = command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).spawn().unwrap();
    drop(command);
    ours.write_all(&encode(spec).unwrap()).unwrap();
    let mut bytes = Vec::new();
    ours.read_to_end(&mut bytes).expect("the worker ends in time");
    child.wait().unwrap();
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    std::iter::from_fn(|| decoder.take::<Event>().unwrap()).collect()
}

fn calls(events: &[Event]) -> Vec<(Flags, CallEnd)> {
    let call = |event: &Event| match event {
        Event::Called { flags, end, .. } => Some((*flags, *end)),
        _ => None,
    };
    events.iter().filter_map(call).collect()
}

fn hung(dir: &Path) -> (FuseFs, Blockable) {
    let mut fs = FuseFs::mount(dir, &[]);
    fs.order("hang");
    let user = Blockable::start("stat", &["-f".as_ref(), dir.as_os_str()]);
    user.wait_until_blocked(PATIENCE);
    (fs, user)
}

#[test]
fn a_hung_mount_without_processes_of_the_pod_takes_one_call() {
    let Some(sandbox) = Sandbox::enter("a_hung_mount_without_processes_of_the_pod_takes_one_call") else { return };
    let dir = sandbox.dir("m");
    let (_fs, mut kubelet) = hung(&dir);
    let events = release(&spec(vec![mounted(&dir).unwrap()], Manner::Abort));
    assert_eq!(calls(&events), [(Flags::ForceDetach, CallEnd::Done)], "{events:?}");
    assert_eq!(events.last(), Some(&Event::Finished));
    assert!(mounted(&dir).is_none());
    kubelet.wait(PATIENCE);
}

#[test]
fn what_answers_is_detached_and_never_forced() {
    let Some(sandbox) = Sandbox::enter("what_answers_is_detached_and_never_forced") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &[]);
    fs.kill();
    let events = release(&spec(vec![mounted(&dir).unwrap()], Manner::Detach));
    assert_eq!(calls(&events), [(Flags::Detach, CallEnd::Done)], "{events:?}");
    assert!(mounted(&dir).is_none());
}

#[test]
fn a_process_of_the_pod_that_can_still_act_forbids_it() {
    let Some(sandbox) = Sandbox::enter("a_process_of_the_pod_that_can_still_act_forbids_it") else { return };
    let dir = sandbox.dir("m");
    let (_fs, mut kubelet) = hung(&dir);
    // This very process is in a control group of that name, and runs.
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let pod_uid = own.lines().find_map(|line| line.splitn(3, ':').nth(2)).unwrap().to_owned();
    let events = release(&ReleaseSpec { pod_uid, ..spec(vec![mounted(&dir).unwrap()], Manner::Abort) });
    assert!(matches!(events.last(), Some(Event::Stopped(Stop::Alive(_)))), "{events:?}");
    assert_eq!(calls(&events), []);
    assert!(mounted(&dir).is_some() && !kubelet.ended());
}

#[test]
fn another_mount_at_the_path_is_left_alone() {
    let Some(sandbox) = Sandbox::enter("another_mount_at_the_path_is_left_alone") else { return };
    let dir = sandbox.dir("m");
    let (_fs, _kubelet) = hung(&dir);
    let judged = mounted(&dir).unwrap();
    let _later = FuseFs::mount(&dir, &[]);
    let stacked = mounted(&dir).unwrap();
    assert_ne!(stacked.mount_id, judged.mount_id);
    let events = release(&spec(vec![judged], Manner::Abort));
    assert!(matches!(events.last(), Some(Event::Stopped(Stop::Changed { .. }))), "{events:?}");
    assert_eq!((calls(&events), mounted(&dir)), (vec![], Some(stacked)));
}

#[test]
fn symlinks_are_not_followed() {
    let Some(sandbox) = Sandbox::enter("symlinks_are_not_followed") else { return };
    let dir = sandbox.dir("m");
    let (_fs, _kubelet) = hung(&dir);
    let link = sandbox.path().join("link");
    let through = |link: PathBuf| {
        let judged = ReleaseMount { path: link.as_os_str().as_bytes().to_vec(), ..mounted(&dir).unwrap() };
        release(&spec(vec![judged], Manner::Abort))
    };
    std::os::unix::fs::symlink(sandbox.path(), &link).unwrap();
    let events = through(link.join("m"));
    assert!(matches!(&events[..], [Event::Stopped(Stop::Open { errno: libc::ELOOP, .. })]), "{events:?}");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    let events = through(link);
    assert!(matches!(&events[..], [Event::Stopped(Stop::Changed { .. })]), "{events:?}");
    assert!(mounted(&dir).is_some());
}

#[test]
fn what_is_gone_already_is_no_failure() {
    let Some(sandbox) = Sandbox::enter("what_is_gone_already_is_no_failure") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &[]);
    let judged = mounted(&dir).unwrap();
    fs.finish();
    let events = release(&spec(vec![judged], Manner::Abort));
    assert_eq!(events, [Event::Gone { mount: 0 }, Event::Finished]);
}

#[test]
fn it_acts_in_the_namespace_that_it_is_told_to_enter() {
    let Some(sandbox) = Sandbox::enter("it_acts_in_the_namespace_that_it_is_told_to_enter") else { return };
    let dir = sandbox.dir("m");
    let (_fs, mut kubelet) = hung(&dir);
    let thread: PathBuf = std::fs::read_link("/proc/thread-self").unwrap();
    let namespace = Path::new("/proc").join(thread).join("ns/mnt").as_os_str().as_bytes().to_vec();
    let spec = ReleaseSpec { namespace, ..spec(vec![mounted(&dir).unwrap()], Manner::Abort) };
    // A thread of the test harness: it lives outside, where this mount does not exist.
    let events = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let outside = std::fs::File::open("/proc/self/ns/mnt").unwrap(); // of the first thread
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
                nix::sched::setns(&outside, nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
                assert!(mounted(&dir).is_none());
                release(&spec)
            })
            .join()
            .unwrap()
    });
    assert_eq!(events.last(), Some(&Event::Finished), "{events:?}");
    assert!(mounted(&dir).is_none());
    kubelet.wait(PATIENCE);
}

#[test]
fn a_namespace_that_cannot_be_entered_is_named() {
    let Some(_sandbox) = Sandbox::enter("a_namespace_that_cannot_be_entered_is_named") else { return };
    let spec = ReleaseSpec { namespace: b"/proc/0/ns/mnt".to_vec(), ..spec(Vec::new(), Manner::Abort) };
    let events = release(&spec);
    assert_eq!(events, [Event::Stopped(Stop::Namespace(libc::ENOENT))]);
    let Some(Event::Stopped(stop)) = events.first() else { panic!("checked above") };
    assert!(stop.to_string().contains("CAP_SYS_ADMIN"), "{stop}");
}
