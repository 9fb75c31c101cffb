//! The filesystem of `examples/fusefs` as a process of the test, in the test's mount namespace.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::state_of;
use super::wait::{PATIENCE, eventually};

/// A running daemon. Dropping it unmounts and ends it, in whatever state it is.
pub struct FuseFs {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    mounts: Vec<PathBuf>,
}

impl FuseFs {
    /// One filesystem at `dir`, with further options of `examples/fusefs` (`--allow-other`).
    pub fn mount(dir: &Path, options: &[&str]) -> Self {
        Self::start(dir, vec![dir.to_owned()], options)
    }

    /// `count` filesystems at `dir/0`, `dir/1`, ..., all served by one process.
    pub fn mount_many(dir: &Path, count: usize, options: &[&str]) -> Self {
        let count_text = count.to_string();
        let options = [&["--count", &count_text], options].concat();
        Self::start(dir, (0..count).map(|number| dir.join(number.to_string())).collect(), &options)
    }

    fn start(dir: &Path, mounts: Vec<PathBuf>, options: &[&str]) -> Self {
        let mut child = Command::new(program())
            .args(options)
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("examples/fusefs starts");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut daemon = FuseFs { child, stdin, stdout, mounts };
        assert_eq!(daemon.read_line(), "ready", "fusefs says what is wrong on stderr");
        daemon
    }

    /// The mountpoints.
    pub fn mounts(&self) -> &[PathBuf] {
        &self.mounts
    }

    /// Sends a command (see `examples/fusefs/main.rs`) and waits until it is in force.
    pub fn order(&mut self, command: &str) {
        writeln!(self.stdin.as_mut().expect("fusefs was killed"), "{command}").unwrap();
        assert_eq!(self.read_line(), "ok", "{command}");
    }

    /// Waits until the daemon holds back at least this many requests. A caller that waits for an answer may still be
    /// killed as long as the daemon has not read its request, whatever the daemon means to do with it.
    pub fn wait_until_held(&mut self, count: usize) {
        eventually("the daemon holds requests back", PATIENCE, || {
            writeln!(self.stdin.as_mut().expect("fusefs was killed"), "held").unwrap();
            let line = self.read_line();
            let held: usize = line.strip_prefix("held ").and_then(|held| held.parse().ok()).expect("held N");
            (held >= count).then_some(())
        });
    }

    /// The daemon dies as if killed by the OOM killer; its mounts stay.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.stdin = None;
    }

    /// The daemon dies by itself; its mounts stay.
    pub fn exit(&mut self) {
        writeln!(self.stdin.as_mut().expect("fusefs was killed"), "exit").unwrap();
        self.child.wait().unwrap();
        self.stdin = None;
    }

    /// The daemon ends properly: it unmounts all its mounts.
    pub fn finish(&mut self) {
        self.stdin = None;
        assert!(self.child.wait().unwrap().success());
    }

    /// Takes the mounts away as `umount -l` does; what waits for them goes on waiting.
    pub fn detach(&mut self) {
        for dir in std::mem::take(&mut self.mounts) {
            umount2(&dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).unwrap();
        }
    }

    /// The daemon is stopped by SIGSTOP: it reads no requests any more.
    pub fn stop(&mut self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
        let id = self.child.id();
        eventually("fusefs is stopped", PATIENCE, || (state_of(id) == Some('T')).then_some(()));
    }

    /// The daemon continues after [`FuseFs::stop`].
    pub fn resume(&mut self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for FuseFs {
    fn drop(&mut self) {
        // Its death closes /dev/fuse, which aborts the connections and frees whoever still waits for an answer. It works
        // on a stopped daemon too, where the polite way (closing its stdin) would wait for ever.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for dir in self.mounts.iter().rev() {
            let _ = umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
    }
}

/// The built example. `cargo test --test NAME` builds no examples, so it is built here, which does nothing when it is
/// up to date.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // This test is <target>/<profile>/deps/<name>.
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).expect("a test lies in <target>/<profile>/deps");
        if let Some(cargo) = std::env::var_os("CARGO") {
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--example", "fusefs", "--manifest-path"]);
            build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
            build.arg("--target-dir").arg(profile.parent().unwrap());
            if profile.ends_with("release") {
                build.arg("--release");
            }
            // What cargo says to this test makes build scripts of dependencies run anew that ask for it (ring's), and all that
            // depends on them: minutes, here and again in the next build without.
            let said = |name: &std::ffi::OsStr| {
                ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.to_string_lossy().starts_with(start))
            };
            for (name, _) in std::env::vars_os().filter(|(name, _)| said(name)) {
                build.env_remove(name);
            }
            assert!(build.status().unwrap().success(), "examples/fusefs cannot be built");
        }
        profile.join("examples/fusefs")
    })
}
