//! `page`: docs/detection.md from what is kept of every cell, however many runs it took: what the agent said of each fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mountwarden::verdict::Cause;

use crate::guest::Outcome;
use crate::matrix::{self, Cell, Expected};
use crate::report::Finished;
use crate::watch::words;

const PAGE: &str = "docs/detection.md";

/// How it is made.
#[derive(Debug, clap::Args)]
pub(crate) struct Page {
    /// Where the runs left their results.
    #[arg(long, default_value = "lab-out")]
    out: PathBuf,
}

/// Writes the page; an error if a result is missing or not good.
pub(crate) fn write(options: &Page) -> Result<bool> {
    let matrix = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/matrix.yaml");
    let cells = matrix::load(&matrix)?;
    let expected = cells.len();
    let finished: Vec<Finished> = cells.into_iter().filter_map(|cell| result(cell, &options.out)).collect();
    ensure!(!finished.is_empty(), "no result lies in {}: `make lab` first", options.out.display());
    std::fs::write(PAGE, text(&finished, expected)).context("write the page")?;
    let passed = finished.iter().filter(|one| one.passed()).count();
    println!("{PAGE}: {} of {expected} cells have a result, {passed} of them are good", finished.len());
    Ok(passed == expected)
}

/// A cell's last result. One of another matrix is none.
fn result(cell: Cell, out: &Path) -> Option<Finished> {
    let directory = out.join(&cell.name);
    let ran: Cell = serde_json::from_slice(&std::fs::read(directory.join("cell.json")).ok()?).ok()?;
    let same = serde_json::to_value(&ran.expect).ok()? == serde_json::to_value(&cell.expect).ok()?;
    let outcome: Outcome = serde_json::from_slice(&std::fs::read(directory.join("result.json")).ok()?).ok()?;
    same.then_some(Finished { cell, outcome, wall: 0.0 })
}

const HEAD: &str = "# What is told of each fault, and how soon

This page is made by the lab (`make lab`, then `make lab-page`): throw-away machines with a real NFS client and a real
server, a real fault in each, and the real agent, which looks every 3 seconds and waits 1.5 seconds for an answer. What it
says is compared with what the fault has to be called (`tests/lab/matrix.yaml`): at every moment, five times a second, any
other state is a failure, and so is any other cause. `unknown` is right only until the server was asked.

With the default settings (every 15 seconds, a deadline of 5) the times are longer in proportion.

";

fn text(all: &[Finished], expected: usize) -> String {
    let mut page = HEAD.to_owned();
    let passed = all.iter().filter(|one| one.passed()).count();
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{} of {expected} cells have a result; {passed} of them are good.\n", all.len());
    page.push_str(&confusion(all));
    page.push_str(&promises(all));
    page.push_str(&faults(all));
    page
}

/// What is promised beside the verdict, and held in each cell: the worst of all of them.
fn promises(all: &[Finished]) -> String {
    let worst = |values: Vec<f64>| (values.len(), values.into_iter().fold(0.0, f64::max));
    let of = |value: fn(&Outcome) -> Option<f64>| worst(all.iter().filter_map(|one| value(&one.outcome)).collect());
    let (healed, again) = of(|outcome| outcome.healthy_again_seconds);
    let (ended, term) = worst(all.iter().flat_map(|one| one.outcome.term_seconds.iter().copied()).collect());
    let (scraped, scrape) = of(|outcome| Some(outcome.slowest_scrape_seconds).filter(|seconds| *seconds > 0.0));
    format!(
        "\n## Beside the verdict\n\n| promise | cells or times | the longest, s |\n|---|---|---|\n\
         | `healthy` within two intervals (6 s) after the kernel answers again | {healed} | {again:.1} |\n\
         | SIGTERM ends the agent within a second, also on a dead mount | {ended} | {term:.2} |\n\
         | `/metrics` is served at once while a mount is dead (five times in each cell) | {scraped} | {scrape:.3} |\n"
    )
}

/// Which verdict was expected, and which one was given in the end.
fn confusion(all: &[Finished]) -> String {
    let mut counts: BTreeMap<(String, String), (usize, bool)> = BTreeMap::new();
    for one in all {
        let seen =
            one.outcome.seen_state.map_or_else(|| "nothing".to_owned(), |state| words(state, one.outcome.seen_cause));
        let wanted: Vec<String> = one.cell.expect.iter().map(expected_words).collect();
        let right = wanted.iter().find(|wanted| **wanted == seen).cloned();
        let is_right = right.is_some();
        let count = counts.entry((right.unwrap_or_else(|| wanted.join(" or ")), seen)).or_insert((0, is_right));
        count.0 += 1;
    }
    let mut table = "## Expected and seen\n\n| expected | seen | cells | |\n|---|---|---|---|\n".to_owned();
    for ((wanted, seen), (count, right)) in counts {
        let _ = writeln!(table, "| {wanted} | {seen} | {count} | {} |", if right { "" } else { "**wrong**" });
    }
    table
}

/// A healthy mount has no cause; where any would do there is none to compare.
fn expected_words(one: &Expected) -> String {
    words(one.state, one.cause)
}

/// A line for each fault, a column for each version of NFS.
fn faults(all: &[Finished]) -> String {
    let versions = ["3", "4.0", "4.1", "4.2"];
    let mut page = "\n## Fault by fault\n\nSeconds from the complete fault until the state was told; in brackets until its cause was.\n`ok`: it was called so from the first look to the last.\n\n".to_owned();
    page.push_str("| what happened | told | v3 | v4.0 | v4.1 | v4.2 |\n|---|---|---|---|---|---|\n");
    let mut rows: Vec<&str> = Vec::new();
    for one in all {
        if !rows.contains(&one.cell.row.as_str()) {
            rows.push(&one.cell.row);
        }
    }
    for row in rows {
        let of_row: Vec<&Finished> = all.iter().filter(|one| one.cell.row == row).collect();
        let Some(first) = of_row.first() else { continue };
        let told: BTreeSet<String> = of_row.iter().map(|one| told(one)).collect();
        let told: Vec<String> = told.into_iter().collect();
        let _ = write!(page, "| {} (`{row}`) | {} |", first.cell.what, told.join("; "));
        for version in versions {
            let cells: Vec<String> =
                of_row.iter().filter(|one| one.cell.version == version).map(|one| times(one)).collect();
            let _ = write!(page, " {} |", if cells.is_empty() { "-".to_owned() } else { cells.join(", ") });
        }
        page.push('\n');
    }
    page
}

fn told(one: &Finished) -> String {
    let Some(state) = one.outcome.seen_state else { return "nothing".to_owned() };
    let finding = one.cell.expect.iter().find(|expected| expected.state == state).and_then(|expected| expected.finding);
    let finding = finding.map(|finding| format!(", finding `{finding}`")).unwrap_or_default();
    match one.outcome.seen_cause {
        Some(cause) if cause != Cause::Unknown => format!("`{state}`: `{cause}`{finding}"),
        Some(_) => format!("`{state}`, no cause is proven{finding}"),
        None => format!("`{state}`{finding}"),
    }
}

fn times(one: &Finished) -> String {
    let mode = &one.cell.mode;
    if !one.passed() {
        return format!("{mode} **failed**");
    }
    match (one.outcome.detection_seconds, one.outcome.cause_seconds) {
        (Some(state), Some(cause)) if cause - state >= 0.1 => format!("{mode} {state:.1} ({cause:.1})"),
        (Some(state), _) => format!("{mode} {state:.1}"),
        (None, _) => format!("{mode} ok"),
    }
}
