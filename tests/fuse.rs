//! The failing filesystem of `examples/fusefs` on this kernel: it must fail in just the ways that the tests of the agent
//! rely on. Needs root; see `common/sandbox.rs` for what happens without.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared: each test crate uses its part of it")]
    pub mod fusefs;
    pub mod process;
    pub mod sandbox;
    pub mod wait;
}

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::fusefs::FuseFs;
use common::process::{Blockable, state_of};
use common::sandbox::Sandbox;
use common::wait::{PATIENCE, eventually};

/// The shell's words for errnos, in the C locale.
const EIO: &str = "Input/output error";
const ENOTCONN: &str = "Transport endpoint is not connected";

fn run(program: &str, args: &[&OsStr]) -> Output {
    Command::new(program).args(args).env("LC_ALL", "C").output().unwrap()
}

fn stat(path: &Path) -> Output {
    run("stat", &[path.as_os_str()])
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn blocked_stat(path: &Path) -> Blockable {
    let stat = Blockable::start("stat", &[path.as_os_str()]);
    stat.wait_until_blocked(PATIENCE);
    stat
}

#[test]
fn a_healthy_filesystem_answers_every_call() {
    let Some(sandbox) = Sandbox::enter("a_healthy_filesystem_answers_every_call") else { return };
    let dir = sandbox.dir("m");
    let _fs = FuseFs::mount(&dir, &["--entries", "300"]);

    let mut names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 300, "READDIR in several parts");
    names.dedup();
    assert_eq!(names.len(), 300, "and none twice");
    assert!(dir.join("dir-0").is_dir() && dir.join("file-299").is_file());
    assert_eq!(std::fs::read(dir.join("file-1")).unwrap(), b"content of a test file\n");
    assert!(!dir.join("other").exists());
    assert_eq!(nix::sys::statfs::statfs(&dir).unwrap().blocks(), 1 << 20);
    let mountinfo = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(mountinfo.contains(" - fuse.testfs testfs "), "{mountinfo}");
}

#[test]
fn a_hang_blocks_a_caller_that_can_be_killed() {
    let Some(sandbox) = Sandbox::enter("a_hang_blocks_a_caller_that_can_be_killed") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &[]);
    fs.order("hang");
    let mut caller = blocked_stat(&dir);
    fs.wait_until_held(1);
    caller.kill();
    caller.wait(PATIENCE);
}

#[test]
fn a_wedge_keeps_a_killed_caller_until_the_daemon_dies() {
    let Some(sandbox) = Sandbox::enter("a_wedge_keeps_a_killed_caller_until_the_daemon_dies") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &[]);
    fs.order("wedge");
    let mut caller = blocked_stat(&dir);
    fs.wait_until_held(1);
    caller.kill();
    eventually("the killed caller is in D", PATIENCE, || (state_of(caller.id()) == Some('D')).then_some(()));
    assert!(!caller.ended());
    fs.kill();
    caller.wait(PATIENCE);
}

#[test]
fn a_hang_that_ends_answers_what_it_held_back() {
    let Some(sandbox) = Sandbox::enter("a_hang_that_ends_answers_what_it_held_back") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &[]);
    fs.order("hang");
    let mut caller = blocked_stat(&dir);
    fs.wait_until_held(1);
    fs.order("healthy");
    assert!(caller.wait(PATIENCE).success());
}

#[test]
fn a_fault_may_hold_for_one_operation_and_one_mount() {
    let Some(sandbox) = Sandbox::enter("a_fault_may_hold_for_one_operation_and_one_mount") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount_many(&dir, 3, &[]);
    fs.order("1 hang statfs");
    let mounts = fs.mounts().to_vec();
    assert!(mounts.iter().all(|mount| stat(mount).status.success()));
    for mount in [&mounts[0], &mounts[2]] {
        assert!(run("stat", &["-f".as_ref(), mount.as_os_str()]).status.success());
    }
    let caller = Blockable::start("stat", &["-f".as_ref(), mounts[1].as_os_str()]);
    caller.wait_until_blocked(PATIENCE);
}

#[test]
fn an_errno_comes_back_and_goes_away() {
    let Some(sandbox) = Sandbox::enter("an_errno_comes_back_and_goes_away") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &[]);
    fs.order(&format!("errno {}", libc::EIO));
    let output = stat(&dir);
    assert!(stderr(&output).contains(EIO), "{output:?}");
    fs.order(&format!("errno {} lookup", libc::EACCES));
    assert!(stat(&dir).status.success());
    assert!(stderr(&stat(&dir.join("dir-0"))).contains("Permission denied"));
    fs.order("healthy");
    assert!(stat(&dir.join("dir-0")).status.success());
}

#[test]
fn a_slow_filesystem_answers_late() {
    let Some(sandbox) = Sandbox::enter("a_slow_filesystem_answers_late") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &[]);
    fs.order("slow 300 getattr");
    let started = Instant::now();
    assert!(stat(&dir).status.success());
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_dead_daemon_leaves_a_mount_that_is_not_connected() {
    let Some(sandbox) = Sandbox::enter("a_dead_daemon_leaves_a_mount_that_is_not_connected") else { return };
    for (name, end) in [("killed", FuseFs::kill as fn(&mut FuseFs)), ("exited", FuseFs::exit)] {
        let dir = sandbox.dir(name);
        let mut fs = FuseFs::mount(&dir, &[]);
        end(&mut fs);
        let output = stat(&dir);
        assert!(stderr(&output).contains(ENOTCONN), "{name}: {output:?}");
        let mountinfo = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(mountinfo.contains(dir.to_str().unwrap()), "{name}: the mount stays");
    }
}

#[test]
fn a_stopped_daemon_blocks_and_answers_when_it_continues() {
    let Some(sandbox) = Sandbox::enter("a_stopped_daemon_blocks_and_answers_when_it_continues") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount(&dir, &[]);
    fs.stop();
    let mut killed = blocked_stat(&dir);
    killed.kill();
    killed.wait(PATIENCE);
    let mut patient = blocked_stat(&dir);
    fs.resume();
    assert!(patient.wait(PATIENCE).success());
}

#[test]
fn root_may_not_enter_another_users_mount_without_allow_other() {
    let Some(sandbox) = Sandbox::enter("root_may_not_enter_another_users_mount_without_allow_other") else { return };
    let (theirs, shared) = (sandbox.dir("theirs"), sandbox.dir("shared"));
    let _theirs = FuseFs::mount(&theirs, &["--user-id", "1000"]);
    let _shared = FuseFs::mount(&shared, &["--user-id", "1000", "--allow-other"]);
    assert!(stderr(&stat(&theirs)).contains("Permission denied"));
    assert!(stat(&shared).status.success());
}

#[test]
fn the_end_of_the_daemon_leaves_nothing_mounted() {
    let Some(sandbox) = Sandbox::enter("the_end_of_the_daemon_leaves_nothing_mounted") else { return };
    let dir = sandbox.dir("m");
    let mut fs = FuseFs::mount_many(&dir, 40, &[]);
    fs.order("wedge");
    let mut caller = blocked_stat(&fs.mounts()[7]);
    fs.wait_until_held(1);
    fs.finish();
    let mountinfo = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mountinfo.contains("fuse.testfs"), "{mountinfo}");
    caller.wait(PATIENCE);
}
