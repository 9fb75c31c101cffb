#![expect(clippy::disallowed_methods, reason = "scratch directories, and a thread that unshares its mount namespace")]

use std::fs;
use std::os::unix::fs::symlink;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use tokio::time::timeout;

use super::*;

/// Runs a test on a thread in a mount namespace of its own. `proc` is a proc root whose `self` is that thread.
fn in_own_namespace(test: impl AsyncFnOnce(&Path, &Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let (proc, target) = (dir.path().join("proc"), dir.path().join("target"));
    fs::create_dir(&proc).unwrap();
    fs::create_dir(&target).unwrap();
    symlink("/proc/thread-self", proc.join("self")).unwrap();
    let body = || {
        if let Err(Errno::EPERM) = unshare(CloneFlags::CLONE_NEWNS) {
            eprintln!("SKIPPED: needs root to make a mount namespace");
            return;
        }
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(&proc, &target));
    };
    std::thread::scope(|scope| scope.spawn(body).join().unwrap());
}

fn mount_tmpfs(target: &Path) {
    mount(Some("watched"), target, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

/// How often the runtime polls `changed` within some time in which nothing is mounted.
async fn polls_while_idle(watch: &mut Watch) -> u32 {
    let mut polls = 0;
    let mut changed = pin!(watch.changed());
    let counted = std::future::poll_fn(|context| {
        polls += 1;
        match changed.as_mut().poll(context) {
            Poll::Ready(()) => panic!("an idle table woke the watch"),
            Poll::Pending => Poll::<()>::Pending,
        }
    });
    timeout(Duration::from_millis(300), counted).await.unwrap_err();
    polls
}

#[test]
fn mounts_and_unmounts_are_seen_within_a_second_and_only_once() {
    in_own_namespace(async |proc, target| {
        let mut watch = Watch::new(proc).unwrap();
        assert!(polls_while_idle(&mut watch).await <= 2);
        for _ in 0..3 {
            mount_tmpfs(target);
            timeout(Duration::from_secs(1), watch.changed()).await.unwrap();
            assert!(polls_while_idle(&mut watch).await <= 2);
            umount(target).unwrap();
            timeout(Duration::from_secs(1), watch.changed()).await.unwrap();
            assert!(polls_while_idle(&mut watch).await <= 2);
        }
    });
}

#[test]
fn a_change_while_nobody_waits_is_not_lost() {
    in_own_namespace(async |proc, target| {
        let mut watch = Watch::new(proc).unwrap();
        // Dropped while it waits, as a select! does.
        timeout(Duration::from_millis(10), watch.changed()).await.unwrap_err();
        mount_tmpfs(target);
        umount(target).unwrap();
        timeout(Duration::from_secs(1), watch.changed()).await.unwrap();
        assert!(polls_while_idle(&mut watch).await <= 2, "two changes are one event");
    });
}

#[test]
fn one_change_of_a_shared_namespace_comes_once() {
    in_own_namespace(async |proc, target| {
        symlink("/proc/thread-self", proc.join("1")).unwrap();
        let mut watch = Watch::new(proc).unwrap();
        assert!(watch.host.is_some());
        mount_tmpfs(target);
        timeout(Duration::from_secs(1), watch.changed()).await.unwrap();
        assert!(polls_while_idle(&mut watch).await <= 2);
    });
}

#[tokio::test]
async fn plain_files_never_change() {
    let dir = tempfile::tempdir().unwrap();
    for pid in ["self", "1"] {
        fs::create_dir(dir.path().join(pid)).unwrap();
        fs::write(dir.path().join(pid).join("mountinfo"), "").unwrap();
    }
    let mut watch = Watch::new(dir.path()).unwrap();
    assert_eq!(polls_while_idle(&mut watch).await, 2);
}

#[tokio::test]
async fn without_the_hosts_table_the_own_one_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/proc/self", dir.path().join("self")).unwrap();
    let watch = Watch::new(dir.path()).unwrap();
    assert!(watch.own.is_some() && watch.host.is_none());
    assert_eq!(Watch::new(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
}
