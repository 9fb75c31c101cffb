//! Processes of the tests as `/proc` shows them.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait::eventually;

/// The state letter of `/proc/PID/stat` (proc_pid_stat(5)); `None` when the process is gone.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Children of a process with their state letters; zombies too.
pub fn children_of(parent: u32) -> Vec<(u32, char)> {
    let child = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.chars().next()?;
        (fields.next()?.parse() == Ok(parent)).then_some((pid, state))
    };
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter_map(child).collect()
}

/// Sends a signal to a process that may be gone by now.
pub fn send(pid: u32, signal: nix::sys::signal::Signal) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into().unwrap()), signal);
}

/// Where the process sleeps in the kernel.
pub fn wchan_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default()
}

/// A command that may block in the kernel; killed at the end of the test.
pub struct Blockable(Child);

impl Blockable {
    /// Starts it with its output thrown away.
    pub fn start(program: &str, args: &[&std::ffi::OsStr]) -> Self {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Blockable(command.spawn().unwrap())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends SIGKILL and does not wait.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
    }

    /// Waits until it sleeps in a FUSE request.
    pub fn wait_until_blocked(&self, patience: Duration) {
        eventually("the process waits for FUSE", patience, || {
            (wchan_of(self.id()).contains("request_wait_answer")).then_some(())
        });
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        eventually("the process ends", patience, || self.0.try_wait().unwrap())
    }

    /// It has ended.
    pub fn ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Blockable {
    fn drop(&mut self) {
        // Not waited for: it may sit in D until its filesystem is torn down. Init reaps it after the test.
        let _ = self.0.kill();
    }
}
