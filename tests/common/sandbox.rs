//! A mount namespace per test: what it mounts is seen by nobody else and is gone with the test.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// A scratch directory in a mount namespace of the test's own.
///
/// The namespace belongs to the thread that made it, and processes that this thread starts live in it too.
pub struct Sandbox {
    scratch: TempDir,
}

impl Sandbox {
    /// Enters a new mount namespace, or skips the test ([`skip`]).
    pub fn enter(test: &str) -> Option<Self> {
        if let Err(reason) = possible().and_then(|()| enter_namespace()) {
            skip(test, &reason);
            return None;
        }
        let scratch = tempfile::Builder::new().prefix("mountwarden-test-").tempdir().unwrap();
        Some(Sandbox { scratch })
    }

    /// The scratch directory.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// Makes a directory in the scratch directory.
    pub fn dir(&self, name: &str) -> std::path::PathBuf {
        let dir = self.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    /// Ids of the processes that live in this namespace, without the zombies among them. The test itself is not one of
    /// them: a process counts where its first thread lives.
    pub fn processes(&self) -> Vec<u32> {
        let namespace = std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.filter(|id| {
            *id != std::process::id()
                && std::fs::read_link(format!("/proc/{id}/ns/mnt")).is_ok_and(|other| other == namespace)
        })
        .collect()
    }
}

/// Says on stderr, past the test harness's capture, why a test is skipped, and counts it.
///
/// With `MOUNTWARDEN_TEST_NO_SKIP` set a test that would be skipped fails instead.
pub fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("MOUNTWARDEN_TEST_NO_SKIP").is_none(), "{test} must not be skipped, but {reason}");
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // Written to the descriptor itself: eprintln! would be swallowed with the output of a passed test.
    let _ = writeln!(std::io::stderr(), "SKIPPED ({count} so far): {test}: {reason}");
}

fn possible() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("it mounts filesystems and so needs root".to_owned());
    }
    std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map(drop)
        .map_err(|error| format!("/dev/fuse cannot be opened ({error}); is the fuse module loaded?"))
}

/// A container's root may lack CAP_SYS_ADMIN.
fn enter_namespace() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("a mount namespace cannot be made ({error})"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|error| format!("the mount namespace cannot be made private ({error})"))
}
