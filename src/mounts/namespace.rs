//! For tests against the real kernel: a mount namespace of their own.

use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Runs a test on a thread in a mount namespace of its own, with a scratch directory. Says so where it may not.
pub(crate) fn run(test: impl FnOnce(&Path) + Send) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    let body = || {
        match unshare(CloneFlags::CLONE_NEWNS) {
            Err(Errno::EPERM) => return eprintln!("SKIPPED: a mount namespace of its own needs root"),
            result => result.unwrap(),
        }
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        test(path);
    };
    std::thread::scope(|scope| scope.spawn(body).join()).unwrap();
}

/// Mounts an empty tmpfs.
pub(crate) fn mount_tmpfs(target: &Path) {
    mount(Some("scratch"), target, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}
