//! Exit codes.

use std::process::ExitCode;

use crate::snapshot::Snapshot;
use crate::verdict::Severity;

/// How a command ends. `check` and `status` end like a Nagios plugin, the others with the codes of sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: all healthy, or nothing to complain about.
    Healthy,
    /// 1: a mount works in part (`check`, `status`).
    Degraded,
    /// 2: a mount is dead (`check`, `status`).
    Dead,
    /// 3: could not tell (`check`, `status`).
    Unknown,
    /// 1: the agent could not run.
    Runtime,
    /// 64: the command line cannot be understood (`EX_USAGE`).
    Usage,
    /// 78: the configuration is not valid (`EX_CONFIG`).
    Config,
}

impl Exit {
    /// The number that the parent process sees.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Healthy => 0,
            Exit::Degraded | Exit::Runtime => 1,
            Exit::Dead => 2,
            Exit::Unknown => 3,
            Exit::Usage => 64,
            Exit::Config => 78,
        }
    }

    /// The verdict on a whole snapshot: 2 before 1 before 3 before 0.
    ///
    /// `untold` adds what lies outside of it: a path that is no monitored mount, or no mount at all where some are
    /// required.
    #[must_use]
    pub fn of(snapshot: &Snapshot, untold: bool) -> Exit {
        let has = |severity| snapshot.mounts.iter().any(|mount| mount.severity() == severity);
        if has(Severity::Dead) {
            Exit::Dead
        } else if has(Severity::Degraded) {
            Exit::Degraded
        } else if untold || has(Severity::Unknown) {
            Exit::Unknown
        } else {
            Exit::Healthy
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
