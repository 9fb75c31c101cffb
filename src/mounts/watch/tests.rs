#![expect(clippy::disallowed_methods, reason = "scratch directories of the tests")]

use std::fs;
use std::os::unix::fs::symlink;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use nix::mount::umount;
use tokio::time::timeout;

use super::*;
use crate::mounts::namespace;

/// Runs a test on a runtime in a mount namespace of its own. `proc` is a proc root whose `self` is its thread.
fn in_own_namespace(test: impl AsyncFnOnce(&Path, &Path) + Send) {
    namespace::run(|scratch| {
        let (proc, target) = (scratch.join("proc"), scratch.join("target"));
        fs::create_dir(&proc).unwrap();
        fs::create_dir(&target).unwrap();
        symlink("/proc/thread-self", proc.join("self")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(&proc, &target));
    });
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
            namespace::mount_tmpfs(target);
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
        namespace::mount_tmpfs(target);
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
        namespace::mount_tmpfs(target);
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
