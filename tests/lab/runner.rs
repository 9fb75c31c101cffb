//! On the host: chooses the cells, runs their guests side by side, collects what they found.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use regex::Regex;

use crate::guest::Outcome;
use crate::interrupt;
use crate::machine::{CLIENT_MAC, ServerMachine};
use crate::matrix::{self, Cell, Server};
use crate::report::{self, Finished};
use crate::uml::{Console, End, Guest, Host};

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Only cells whose name matches (`^drop-4.1`).
    #[arg(long, value_name = "REGEX")]
    only: Option<Regex>,
    /// Only the cells marked as quick in the matrix.
    #[arg(long)]
    quick: bool,
    /// Guests at a time. They mostly wait; what they need is CPU while they boot.
    #[arg(long, default_value_t = 6)]
    jobs: usize,
    /// Switch a detector of the agent off: the cells that depend on it, and only those, run and have to fail; `each`
    /// does so for every detector in turn.
    #[arg(long, value_name = "NAME")]
    without_detector: Option<String>,
    /// Where logs and results go.
    #[arg(long, default_value = "lab-out")]
    out: PathBuf,
    /// The binary under test.
    #[arg(long, default_value = "target/release/mountwarden")]
    agent: PathBuf,
    /// Print the chosen cells and end.
    #[arg(long)]
    show: bool,
}

/// Runs the chosen cells; whether all of them passed.
pub(crate) fn run(options: &Run) -> Result<bool> {
    let matrix = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/matrix.yaml");
    let cells = choose(matrix::load(&matrix)?, options);
    if cells.is_empty() {
        bail!("no cell of {} is chosen", matrix.display());
    }
    if options.show {
        cells.iter().for_each(|cell| println!("{}", cell.name));
        return Ok(true);
    }
    interrupt::take()?;
    let host = Host::new(&options.agent)?;
    std::fs::create_dir_all(&options.out)?;
    let expected = cells.len();
    let finished = run_all(&host, cells, options);
    let page = report::page(&finished, expected);
    let file = options.out.join("confusion.md");
    std::fs::write(&file, &page).with_context(|| format!("write {}", file.display()))?;
    println!("\n{page}");
    let passed = finished.iter().filter(|one| one.passed()).count();
    println!("{passed} passed, {} failed", expected - passed);
    Ok(passed == expected)
}

/// The chosen cells, longest first: the five-minute cells would otherwise run alone at the end.
fn choose(cells: Vec<Cell>, options: &Run) -> Vec<Cell> {
    let mut chosen: Vec<Cell> = cells
        .into_iter()
        .filter(|cell| !options.quick || cell.quick)
        .filter(|cell| options.only.as_ref().is_none_or(|only| only.is_match(&cell.name)))
        .collect();
    if let Some(name) = &options.without_detector {
        chosen = chosen.iter().flat_map(|cell| cell.blinded(|detector| name == "each" || name == detector)).collect();
    }
    chosen.sort_by(|a, b| b.watch.total_cmp(&a.watch));
    chosen
}

fn run_all(host: &Host, cells: Vec<Cell>, options: &Run) -> Vec<Finished> {
    let total = cells.len();
    let queue = Mutex::new(VecDeque::from(cells));
    let (results, inbox) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            let (results, queue) = (results.clone(), &queue);
            scope.spawn(move || {
                while let Some(cell) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) {
                    if interrupt::seen() {
                        return;
                    }
                    if results.send(run_one(host, cell, &options.out)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        let mut finished: Vec<Finished> = Vec::with_capacity(total);
        for one in inbox {
            finished.push(one);
            if let Some(one) = finished.last() {
                println!("[{:>3}/{total}] {}", finished.len(), one.line());
            }
        }
        finished
    })
}

fn run_one(host: &Host, cell: Cell, out: &Path) -> Finished {
    let begin = Instant::now();
    let outcome = boot(host, &cell, &out.join(&cell.name))
        .unwrap_or_else(|error| Outcome { failures: vec![format!("{error:#}")], ..Outcome::default() });
    Finished { cell, outcome, wall: begin.elapsed().as_secs_f64() }
}

fn boot(host: &Host, cell: &Cell, out: &Path) -> Result<Outcome> {
    // A result of an earlier run must not be taken for this one's.
    if out.exists() {
        std::fs::remove_dir_all(out)?;
    }
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("cell.json"), serde_json::to_vec_pretty(cell)?)?;
    std::fs::write(out.join("cell.env"), &cell.environment)?;
    let server = if cell.server == Server::Machine { Some(ServerMachine::start(host, cell, out)?) } else { None };
    let guest = Guest {
        name: &cell.name,
        script: "guest/cell.sh",
        out,
        console: Console::File,
        arguments: server.iter().map(|server| server.cable(CLIENT_MAC)).collect(),
    };
    let end =
        host.boot(&guest)?.wait(cell.time_limit(), || server.as_ref().map_or(Ok(()), |server| server.obey(out)))?;
    let result = std::fs::read(out.join("result.json"));
    match (end, result) {
        (_, Ok(bytes)) => Ok(serde_json::from_slice(&bytes)?),
        (End::Interrupted, Err(_)) => bail!("interrupted"),
        (End::TimedOut, Err(_)) => bail!("timed out, see {}", out.display()),
        (End::PoweredOff, Err(_)) => {
            bail!("the guest left no result, see guest.log and console.log in {}", out.display())
        }
    }
}
