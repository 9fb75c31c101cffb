//! Processes of the tests as `/proc` shows them.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait::eventually;

/// The state letter of `/proc/PID/stat` (proc_pid_stat(5)); `None` when the process is gone.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
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
