//! Mount namespaces with a process in each, and a proc tree that says whose they are.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A mount namespace of its own, made from the test's, and the one process in it. Dropping it ends both.
pub struct Namespace {
    child: Child,
}

impl Namespace {
    /// A namespace with a bind of `from` at `to`, as a runtime makes it for a container: private.
    pub fn bind(from: &Path, to: &Path) -> Namespace {
        // A container sees its own root: the mount that it has a copy of is not there.
        let script = r#"mount --bind "$1" "$2" && umount -l "$1" && echo ready && exec sleep 1000"#;
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
            .args([from, to])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Namespace { child }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends its process, and so the namespace.
    pub fn end(mut self) {
        self.kill();
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A proc tree of the agent, PID 1 and the named processes alone: all of it the kernel's but their control groups.
pub struct Proc {
    root: PathBuf,
}

impl Proc {
    /// In this directory.
    pub fn new(below: &Path) -> Proc {
        let root = below.join("proc");
        std::fs::create_dir(&root).unwrap();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let name = entry.unwrap().file_name();
            if name.to_str().is_none_or(|name| name.parse::<u32>().is_err() || name == "1") {
                symlink(Path::new("/proc").join(&name), root.join(&name)).unwrap();
            }
        }
        Proc { root }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Shows a process, in this control group. At once, as a process appears.
    pub fn add(&self, id: u32, cgroup: &str) {
        let (there, beside) = (self.root.join(id.to_string()), self.root.join(format!("new-{id}")));
        std::fs::create_dir(&beside).unwrap();
        for name in ["stat", "status", "mountinfo", "mountstats", "root", "ns", "task"] {
            symlink(format!("/proc/{id}/{name}"), beside.join(name)).unwrap();
        }
        std::fs::write(beside.join("cgroup"), cgroup).unwrap();
        std::fs::rename(beside, there).unwrap();
    }

    /// Shows it no more.
    pub fn remove(&self, id: u32) {
        std::fs::remove_dir_all(self.root.join(id.to_string())).unwrap();
    }
}
