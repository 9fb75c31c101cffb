//! A pod's cgroup for the agent of a test, and its end as a container runtime makes it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

static MADE: AtomicUsize = AtomicUsize::new(0);

/// A cgroup below `kubepods`; removed at the end of the test, if it can be.
pub struct PodCgroup(PathBuf);

impl PodCgroup {
    /// None where there is no unified hierarchy that may be written.
    pub fn make() -> Option<PodCgroup> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
        let name = format!("pod-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = root.join("mountwarden-test-kubepods.slice").join(name);
        std::fs::create_dir_all(&path).ok()?;
        Some(PodCgroup(path))
    }

    /// A command that runs another one in it.
    pub fn wrapper(&self) -> Vec<String> {
        let script = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", self.0.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }

    /// Kills what is left in it (a runtime: `cgroup.kill`) and removes it; an error while a process is left.
    pub fn end(&self) -> std::io::Result<()> {
        match std::fs::write(self.0.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.0.exists() => return Ok(()),
            _ => {}
        }
        std::fs::remove_dir(&self.0)
    }
}

impl Drop for PodCgroup {
    fn drop(&mut self) {
        let _ = self.end();
        // The slice, with the last of its pods.
        let _ = self.0.parent().map(std::fs::remove_dir);
    }
}
