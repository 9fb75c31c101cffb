//! Builds the parts and owns the loop.
//!
//! One thread runs everything that is said here; what could block runs in worker processes ([`crate::probe`]), and the
//! pages are rendered by a thread of their own ([`crate::http`]).

mod book;
mod canary;
mod containers;
mod core;
mod events;
mod history;
mod inquiry;
mod intake;
mod judging;
mod kernel_log;
pub(crate) mod listen;
mod lookup;
mod memory;
mod pending;
mod plan;
mod probing;
mod publish;
mod registry;
mod rescue;
mod run;
mod servers;
mod signals;
mod suspicion;
mod target;
mod transports;
mod trials;
mod unstick;
mod wall;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::snapshot::{Snapshot, UnixSeconds, rfc3339};

pub use lookup::check;
pub(crate) use lookup::{check_by_writing, holder};
pub use run::{Reload, run};

/// What one pass over the mounts found.
#[derive(Debug)]
pub struct CheckResult {
    /// The mounts asked for.
    pub snapshot: Snapshot,
    /// Paths that lie on no monitored mount.
    pub not_monitored: Vec<PathBuf>,
}

/// Wall clock, for people and metrics; deadlines use the monotonic one.
#[expect(clippy::disallowed_methods, reason = "when something happened, as people count it")]
pub(crate) fn unix_now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
