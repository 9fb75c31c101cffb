//! What is seen of a worker at its deadline, and whether our own clock can be trusted.

use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use procfs::FromRead;
use procfs::process::Stat;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::localfs;
use crate::probe::Step;
use crate::probe::note::Entered;

/// CPU time that entering a system call may still use after the worker said so.
const ENTRY_CPU: Duration = Duration::from_millis(10);

/// How late our own timer may be before the worker's lateness proves nothing.
const LATE: Duration = Duration::from_millis(500);

/// The scheduler's own functions; most architectures leave them out of the file, User-Mode Linux does not.
const SCHEDULER: [&str; 5] = ["__switch_to", "__schedule", "schedule", "schedule_timeout", "io_schedule"];

/// Functions of the kernel stack that are kept: the first ones name the wait.
const STACK_DEPTH: usize = 4;

/// A deadline, and what is needed to tell afterwards whether we kept it ourselves.
#[derive(Debug, Clone, Copy)]
pub struct OwnClock {
    deadline: Instant,
    boot_offset: Duration,
}

impl OwnClock {
    /// A deadline so far from now.
    #[must_use]
    pub fn start(after: Duration) -> OwnClock {
        OwnClock { deadline: Instant::now() + after, boot_offset: boot_offset() }
    }

    /// When it is over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How late we are ourselves.
    fn late(&self) -> Duration {
        Instant::now().saturating_duration_since(self.deadline)
    }

    /// How long the machine slept meanwhile: CLOCK_BOOTTIME goes on in suspend, CLOCK_MONOTONIC does not.
    fn suspended(&self) -> Duration {
        boot_offset().saturating_sub(self.boot_offset)
    }
}

fn boot_offset() -> Duration {
    let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(read(ClockId::CLOCK_MONOTONIC))
}

/// A worker at its deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The step that it had entered, if it ever ran.
    pub step: Option<Step>,
    /// Time since it entered that step, in milliseconds.
    pub millis: u64,
    /// CPU time used since, in microseconds; absent when the kernel would not say.
    pub cpu_micros: Option<u64>,
    /// Its state as in `/proc/PID/stat` (`D`, `S`, `R`, `T`).
    pub process_state: Option<char>,
    /// The innermost kernel functions, where we may read them.
    pub stack: Vec<String>,
    /// How late our own timer was, in milliseconds.
    pub late_millis: u64,
    /// How long the machine was suspended meanwhile, in milliseconds.
    pub suspended_millis: u64,
}

impl Blocked {
    pub(super) fn describe(pid: i32, entered: Option<Entered>, clock: &OwnClock) -> Blocked {
        let cpu = clock_getcpuclockid(Pid::from_raw(pid)).and_then(clock_gettime).map(Duration::from).ok();
        let before = entered.map(|entered| Duration::from_nanos(entered.cpu_nanos));
        let used = before.zip(cpu).map(|(before, now)| now.saturating_sub(before));
        Blocked {
            step: entered.map(|entered| entered.step),
            millis: entered.map_or(0, |entered| millis(entered.ago())),
            cpu_micros: used.map(|used| u64::try_from(used.as_micros()).unwrap_or(u64::MAX)),
            process_state: process_state(pid),
            stack: stack(pid),
            late_millis: millis(clock.late()),
            suspended_millis: millis(clock.suspended()),
        }
    }

    /// The worker was killed and is held for this time more, which is evidence where `clock` says that we kept it.
    /// False when we did not: then nothing is changed.
    pub fn outlasted(&mut self, more: Duration, clock: &OwnClock) -> bool {
        let (late, suspended) = (clock.late(), clock.suspended());
        let kept = late <= LATE && suspended <= LATE;
        if kept {
            self.millis = self.millis.saturating_add(millis(more));
            (self.late_millis, self.suspended_millis) = (millis(late), millis(suspended));
        }
        kept
    }

    /// Whether this proves that the mount does not answer: the worker sat in the kernel, and we were on time.
    #[must_use]
    pub fn is_evidence(&self) -> bool {
        let on_time = self.late_millis <= millis(LATE) && self.suspended_millis <= millis(LATE);
        let waited = self.step.is_some()
            && self.cpu_micros.is_none_or(|used| u128::from(used) <= ENTRY_CPU.as_micros())
            && self.process_state.is_none_or(|state| matches!(state, 'D' | 'S'));
        on_time && waited
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn process_state(pid: i32) -> Option<char> {
    let stat = localfs::read_kernel_file(format!("/proc/{pid}/stat").as_ref()).ok()?;
    Some(Stat::from_read(stat.as_slice()).ok()?.state)
}

fn stack(pid: i32) -> Vec<String> {
    let Ok(bytes) = localfs::read_kernel_file(format!("/proc/{pid}/stack").as_ref()) else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .filter_map(|line| line.split_once("] ").map(|(_, frame)| frame.split('+').next().unwrap_or(frame).to_owned()))
        .filter(|function| !SCHEDULER.contains(&function.as_str()))
        .take(STACK_DEPTH)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeping() -> Blocked {
        Blocked {
            step: Some(Step::StatxRoot),
            millis: 5000,
            cpu_micros: Some(40),
            process_state: Some('D'),
            stack: vec!["rpc_wait_bit_killable".to_owned()],
            late_millis: 1,
            suspended_millis: 0,
        }
    }

    #[test]
    fn a_worker_that_slept_in_its_step_is_evidence() {
        assert!(sleeping().is_evidence());
        assert!(Blocked { process_state: Some('S'), stack: Vec::new(), ..sleeping() }.is_evidence(), "FUSE waits in S");
        assert!(Blocked { process_state: None, cpu_micros: None, ..sleeping() }.is_evidence(), "hidepid hides both");
    }

    #[test]
    fn a_worker_that_never_ran_is_no_evidence() {
        assert!(!Blocked { step: None, ..sleeping() }.is_evidence());
    }

    #[test]
    fn a_worker_that_used_cpu_or_waited_for_it_is_no_evidence() {
        assert!(!Blocked { cpu_micros: Some(900_000), ..sleeping() }.is_evidence());
        assert!(!Blocked { process_state: Some('R'), ..sleeping() }.is_evidence());
    }

    #[test]
    fn a_worker_that_somebody_stopped_is_no_evidence() {
        assert!(!Blocked { process_state: Some('T'), ..sleeping() }.is_evidence());
    }

    #[test]
    fn our_own_lateness_and_a_suspended_machine_are_no_evidence() {
        assert!(!Blocked { late_millis: 2_000, ..sleeping() }.is_evidence());
        assert!(!Blocked { suspended_millis: 3_600_000, ..sleeping() }.is_evidence());
    }
}
