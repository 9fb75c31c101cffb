//! The table for people: at most 100 columns, what is dead first.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::text::{escape, pad, shorten, width, wrap};
use crate::snapshot::{MountStatus, Snapshot};
use crate::verdict::{Severity, State};

/// Columns of the whole table.
const COLUMNS: usize = 100;

/// Indent of evidence and advice.
const INDENT: &str = "    ";

/// Spaces between two columns.
const GAP: usize = 2;

/// The whole table with summary and footer; `colours` adds escape sequences around the states.
#[must_use]
pub fn render(snapshot: &Snapshot, colours: bool) -> String {
    let mut out = String::new();
    if !snapshot.mounts.is_empty() {
        let mut mounts: Vec<&MountStatus> = snapshot.mounts.iter().collect();
        mounts.sort_by_key(|mount| (mount.severity().rank(), &mount.mountpoint));
        let rows: Vec<Row> = mounts.iter().map(|mount| Row::new(mount, snapshot.generated)).collect();
        let widths = Widths::of(&rows);
        let head = ["MOUNTPOINT", "STATE", "CAUSE", "FOR", "SOURCE"].map(str::to_owned);
        widths.write(&mut out, &head, |state| state);
        for (row, mount) in rows.iter().zip(&mounts) {
            widths.write(&mut out, &row.cells, |state| if colours { paint(mount.severity(), &state) } else { state });
            details(&mut out, mount);
        }
        out.push('\n');
    }
    waiting(&mut out, snapshot);
    let _ = writeln!(out, "{}", summary(snapshot));
    footer(&mut out, snapshot);
    out
}

/// Volumes of the table that pods wait for.
const WAITING: usize = 20;

/// Volumes that are not mounted, and the pods that do not start for them.
fn waiting(out: &mut String, snapshot: &Snapshot) {
    for row in snapshot.pending.iter().take(WAITING) {
        let (pod, cause) = (row.pod_label(), row.why());
        let words = format!(
            "pod {pod} waits for volume {} ({}) for {}: {cause}",
            row.volume,
            row.source,
            age(snapshot.generated - row.since)
        );
        paragraph(out, "", &escape(&words));
        paragraph(out, INDENT, &escape(&row.evidence));
        paragraph(out, INDENT, &escape(&row.advice));
    }
    let left_out = snapshot.pending_count.saturating_sub(snapshot.pending.len().min(WAITING));
    if left_out > 0 {
        paragraph(out, "", &format!("{left_out} more volumes are waited for."));
    }
    if !snapshot.pending.is_empty() {
        out.push('\n');
    }
}

/// The states in the order in which people want to read them: dead, degraded, unknown, healthy.
pub(super) fn states_worst_first() -> impl Iterator<Item = State> {
    let mut states = State::ALL;
    states.sort_by_key(|state| state.severity().rank());
    states.into_iter()
}

/// `3 mounts: 1 hung, 2 healthy`.
fn summary(snapshot: &Snapshot) -> String {
    let all = snapshot.mounts.len();
    if all == 0 {
        return "no network mounts".to_owned();
    }
    let count = |state| snapshot.mounts.iter().filter(|mount| mount.state == state).count();
    let parts: Vec<String> = states_worst_first()
        .map(|state| (state, count(state)))
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    format!("{all} mount{}: {}", if all == 1 { "" } else { "s" }, parts.join(", "))
}

/// What is not a row: what was not touched, and what could not be read.
fn footer(out: &mut String, snapshot: &Snapshot) {
    if !snapshot.ready {
        paragraph(out, "", "The first pass over the mounts is not done yet.");
    }
    if !snapshot.autofs.is_empty() {
        let triggers: Vec<String> = snapshot
            .autofs
            .iter()
            .map(|trigger| format!("{} ({})", escape(&trigger.mountpoint), escape(&trigger.source)))
            .collect();
        paragraph(out, "", &format!("autofs, never touched: {}", triggers.join(", ")));
    }
    if let Some(error) = &snapshot.agent.host_error {
        paragraph(out, "", &format!("The host's own mounts could not be read: {}", escape(error)));
    }
    match snapshot.agent.mountinfo_errors_total {
        0 => {}
        lines => paragraph(out, "", &format!("Lines of the mount table that could not be read: {lines}")),
    }
}

/// Evidence and advice below a mount that is not healthy, findings below any.
fn details(out: &mut String, mount: &MountStatus) {
    if mount.severity() != Severity::Healthy {
        paragraph(out, INDENT, &escape(&mount.evidence));
        if mount.inherited {
            paragraph(out, INDENT, "Not probed itself: another mount of the same filesystem is blocked.");
        }
        paragraph(out, INDENT, &escape(&mount.advice));
        users(out, mount);
    }
    for finding in &mount.findings {
        let seen = escape(mount.finding_words(*finding));
        paragraph(out, INDENT, &format!("finding: {finding}: {seen}; {}.", finding.advice()));
    }
}

/// Who uses it, the first few.
fn users(out: &mut String, mount: &MountStatus) {
    const TOLD: usize = 8;
    for user in mount.users.iter().take(TOLD) {
        paragraph(out, INDENT, &escape(&format!("used by {}", user.words())));
    }
    let told: BTreeSet<&str> = mount.users.iter().take(TOLD).map(|user| user.pod_uid.as_str()).collect();
    match mount.pod_count.saturating_sub(told.len()) {
        0 => {}
        more => paragraph(out, INDENT, &format!("used by {more} more pods")),
    }
    for holder in mount.holders.iter().take(TOLD) {
        let words = format!("held by {} (process {}) at {}", holder.who, holder.pid, holder.path);
        paragraph(out, INDENT, &escape(&words));
    }
}

fn paragraph(out: &mut String, indent: &str, text: &str) {
    for line in wrap(text, COLUMNS.saturating_sub(indent.len())) {
        let _ = writeln!(out, "{indent}{line}");
    }
}

/// The cells of one mount: mountpoint, state, cause, age, source.
struct Row {
    cells: [String; 5],
}

impl Row {
    fn new(mount: &MountStatus, now: f64) -> Row {
        let mut mountpoint = escape(&mount.mountpoint);
        if mount.path_count > 1 {
            let _ = write!(mountpoint, " (+{})", mount.path_count.saturating_sub(1));
        }
        let cause = mount.cause.map_or("-", |cause| cause.as_str()).to_owned();
        Row { cells: [mountpoint, mount.state.to_string(), cause, age(now - mount.since), escape(&mount.source)] }
    }
}

/// Seconds in their largest unit (`42s`, `4m`, `3h`, `12d`).
fn age(seconds: f64) -> String {
    // Clocks jump: a state that begins in the future began just now.
    let seconds = std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// Columns of each cell.
struct Widths([usize; 5]);

impl Widths {
    /// State, cause and age as wide as they need; mountpoint and source share the rest, each gets half at least.
    fn of(rows: &[Row]) -> Widths {
        let need = |pick: fn(&[String; 5]) -> &String, head: usize| {
            rows.iter().map(|row| width(pick(&row.cells))).max().unwrap_or(0).max(head)
        };
        let mountpoint = need(|[mountpoint, ..]| mountpoint, "MOUNTPOINT".len());
        let state = need(|[_, state, ..]| state, "STATE".len());
        let cause = need(|[_, _, cause, ..]| cause, "CAUSE".len());
        let age = need(|[_, _, _, age, _]| age, "FOR".len());
        let source = need(|[.., source]| source, "SOURCE".len());
        let rest = COLUMNS.saturating_sub(state + cause + age + 4 * GAP);
        let mountpoint = mountpoint.min(rest.saturating_sub(source).max(rest / 2));
        Widths([mountpoint, state, cause, age, source.min(rest.saturating_sub(mountpoint))])
    }

    fn write(&self, out: &mut String, cells: &[String; 5], paint_state: impl Fn(String) -> String) {
        let [mountpoint, state, cause, age, source] = cells;
        let [mountpoint_room, state_room, cause_room, age_room, source_room] = self.0;
        let gap = " ".repeat(GAP);
        let line = [
            pad(&shorten(mountpoint, mountpoint_room), mountpoint_room),
            paint_state(pad(state, state_room)),
            pad(cause, cause_room),
            pad(age, age_room),
            shorten(source, source_room),
        ]
        .join(&gap);
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// The state in the colour of its severity (ECMA-48 SGR).
fn paint(severity: Severity, text: &str) -> String {
    let colour = match severity {
        Severity::Dead => "1;31",
        Severity::Degraded => "33",
        Severity::Unknown => "36",
        Severity::Healthy => "32",
    };
    format!("\u{1b}[{colour}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests;
