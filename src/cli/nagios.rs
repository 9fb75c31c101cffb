//! One line for a monitoring system, in the form of the Nagios plugin guidelines.

use std::fmt::Write as _;

use super::Exit;
use super::text::{escape, shorten};
use crate::diagnose::report::{Diagnosis, Outcome};
use crate::snapshot::Snapshot;
use crate::verdict::{Severity, State};

/// Mounts named per state: Nagios cuts a line at 8 KiB, and nobody reads more on a pager.
const NAMED: usize = 5;

/// Columns of one name.
const NAME_ROOM: usize = 80;

/// `MOUNTS CRITICAL - 1 hung: /mnt/a (server_refused); 2 healthy | healthy=2 hung=1 ...`
pub(super) fn line(snapshot: &Snapshot, not_monitored: &[String], exit: Exit) -> String {
    let mut parts: Vec<String> = super::table::states_worst_first().filter_map(|state| part(snapshot, state)).collect();
    if !not_monitored.is_empty() {
        let names: Vec<String> = not_monitored.iter().take(NAMED).map(|path| name(path)).collect();
        parts.push(format!("{} not monitored: {}{}", not_monitored.len(), names.join(", "), more(not_monitored.len())));
    }
    if snapshot.mounts.is_empty() {
        parts.push("no network mounts".to_owned());
    }
    let mut line = format!("MOUNTS {} - {} |", word(exit), parts.join("; "));
    for state in State::ALL {
        let _ = write!(line, " {state}={}", count(snapshot, state));
    }
    line.push('\n');
    line
}

/// `DIAGNOSIS CRITICAL - srv:/data: server_refused: ... | seconds=0.1s steps=4 failed=1`
pub(super) fn diagnosis(diagnosis: &Diagnosis, exit: Exit) -> String {
    let words = [diagnosis.state.map(|state| state.as_str()), diagnosis.cause.map(|cause| cause.as_str())];
    let words: String = words.into_iter().flatten().map(|word| format!("{word}: ")).collect();
    let failed = diagnosis.steps.iter().filter(|step| step.outcome == Outcome::Failed).count();
    let line =
        format!("DIAGNOSIS {} - {}: {words}{}", word(exit), name(&diagnosis.target), harmless(&diagnosis.summary));
    format!("{line} | seconds={:.3}s steps={} failed={failed}\n", diagnosis.seconds, diagnosis.steps.len())
}

/// The line when there is no result.
pub(super) fn unknown(why: &str) -> String {
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("MOUNTS UNKNOWN - {}\n", harmless(&why))
}

fn part(snapshot: &Snapshot, state: State) -> Option<String> {
    let count = count(snapshot, state);
    if count == 0 {
        return None;
    }
    if state.severity() == Severity::Healthy {
        return Some(format!("{count} {state}"));
    }
    let names =
        snapshot.mounts.iter().filter(|mount| mount.state == state).take(NAMED).map(|mount| match mount.cause {
            Some(cause) => format!("{} ({cause})", name(&mount.mountpoint)),
            None => name(&mount.mountpoint),
        });
    Some(format!("{count} {state}: {}{}", names.collect::<Vec<_>>().join(", "), more(count)))
}

fn more(count: usize) -> String {
    match count.saturating_sub(NAMED) {
        0 => String::new(),
        left => format!(", and {left} more"),
    }
}

fn count(snapshot: &Snapshot, state: State) -> usize {
    snapshot.mounts.iter().filter(|mount| mount.state == state).count()
}

fn name(path: &str) -> String {
    shorten(&harmless(path), NAME_ROOM)
}

/// A bar would start the performance data, a newline the long output.
fn harmless(text: &str) -> String {
    escape(text).replace('|', "\\x7c")
}

fn word(exit: Exit) -> &'static str {
    match exit {
        Exit::Healthy => "OK",
        Exit::Degraded => "WARNING",
        Exit::Dead => "CRITICAL",
        Exit::Unknown | Exit::Runtime | Exit::Usage | Exit::Config => "UNKNOWN",
    }
}
