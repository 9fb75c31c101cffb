//! What a run adds up to: progress lines, the confusion matrix, the slowest detections.

use std::collections::BTreeMap;
use std::fmt::Write;

use mountwarden::verdict::State;

use crate::guest::Outcome;
use crate::matrix::Cell;
use crate::watch::words;

/// A cell and what came of it; a guest that left no result counts as failed.
pub(crate) struct Finished {
    pub(crate) cell: Cell,
    pub(crate) outcome: Outcome,
    /// Wall-clock seconds of the guest.
    pub(crate) wall: f64,
}

impl Finished {
    /// Without one of its detectors a cell has to miss its fault, else the detector proves nothing. Failing in another
    /// way, or leaving no result, proves nothing either.
    pub(crate) fn passed(&self) -> bool {
        if self.cell.without.is_some() { self.outcome.not_told > 0 } else { self.outcome.failures.is_empty() }
    }

    /// One line of progress, and one more per failure.
    pub(crate) fn line(&self) -> String {
        let mark = if self.passed() { "ok    " } else { "FAILED" };
        let seen = self.seen();
        let mut line = format!("{mark} {:<32} {seen:<30}", self.cell.name);
        if let Some(seconds) = self.outcome.detection_seconds {
            let _ = write!(line, " known in {seconds:.1} s (allowed {:.1})", self.outcome.allowed_seconds);
        }
        if let Some(seconds) = self.outcome.healthy_again_seconds {
            let kernel = self.outcome.kernel_recovery_seconds.unwrap_or(0.0);
            let _ = write!(line, ", kernel back in {kernel:.1} s, healthy {seconds:.1} s later");
        }
        let _ = write!(line, " [{:.0} s]", self.wall);
        if self.cell.without.is_some() && self.passed() {
            line.push_str(" (meant to miss it, and did)");
        } else {
            if self.cell.without.is_some() {
                line.push_str("\n         the fault is told without the detector, or the cell did not get as far");
            }
            for failure in &self.outcome.failures {
                let _ = write!(line, "\n         {failure}");
            }
        }
        line
    }

    fn seen(&self) -> String {
        self.outcome.seen_state.map_or_else(|| "nothing".to_owned(), |state| words(state, self.outcome.seen_cause))
    }
}

/// The page `confusion.md`.
pub(crate) fn page(all: &[Finished], expected: usize) -> String {
    let passed = all.iter().filter(|one| one.passed()).count();
    let mut page = format!(
        "# Lab run\n\n{} of {expected} cells run, {passed} passed, {} failed.\n\n## Expected state against seen state\n\n",
        all.len(),
        expected - passed
    );
    page.push_str(&confusion(all));
    page.push_str("\n## Slowest detection per fault\n\n");
    page.push_str(&slowest(all));
    page.push_str("\n## Failures\n\n");
    if passed == all.len() {
        page.push_str("None.\n");
    }
    for one in all.iter().filter(|one| !one.passed()) {
        let _ = writeln!(page, "- `{}`: {}", one.cell.name, one.outcome.failures.join("; "));
    }
    page
}

fn confusion(all: &[Finished]) -> String {
    let mut counts: BTreeMap<(State, Option<State>), usize> = BTreeMap::new();
    let mut columns: Vec<Option<State>> = Vec::new();
    for one in all {
        let Some(expected) = one.cell.expect.first() else { continue };
        // A row that allows two states counts as the one that was seen, if that is one of them.
        let seen = one.outcome.seen_state;
        let wanted = one.cell.expect.iter().map(|expected| expected.state).find(|state| Some(*state) == seen);
        *counts.entry((wanted.unwrap_or(expected.state), seen)).or_default() += 1;
        if !columns.contains(&seen) {
            columns.push(seen);
        }
    }
    columns.sort();
    let name = |state: &Option<State>| state.map_or_else(|| "no result".to_owned(), |state| state.to_string());
    let heads: Vec<String> = columns.iter().map(name).collect();
    let mut table = format!("| expected | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(columns.len()));
    for expected in State::ALL {
        let row: Vec<usize> = columns.iter().map(|seen| counts.get(&(expected, *seen)).copied().unwrap_or(0)).collect();
        if row.iter().sum::<usize>() > 0 {
            let cells: Vec<String> = row.iter().map(ToString::to_string).collect();
            let _ = writeln!(table, "| {expected} | {} |", cells.join(" | "));
        }
    }
    table
}

fn slowest(all: &[Finished]) -> String {
    let mut rows: BTreeMap<&str, &Finished> = BTreeMap::new();
    for one in all.iter().filter(|one| one.outcome.detection_seconds.is_some()) {
        let slot = rows.entry(one.cell.row.as_str()).or_insert(one);
        if one.outcome.detection_seconds > slot.outcome.detection_seconds {
            *slot = one;
        }
    }
    let mut table = "| fault | slowest cell | seen | known after, s | allowed, s |\n|---|---|---|---|---|\n".to_owned();
    for (row, one) in rows {
        let seconds = one.outcome.detection_seconds.unwrap_or(0.0);
        let _ = writeln!(
            table,
            "| {row} | {}-{} | {} | {seconds:.1} | {:.1} |",
            one.cell.version,
            one.cell.mode,
            one.seen(),
            one.outcome.allowed_seconds
        );
    }
    table
}
