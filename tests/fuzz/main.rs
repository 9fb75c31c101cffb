//! Fuzzing of everything that reads bytes of others: servers, kernels, workers, other programs' files.
//!
//! Without a command (`cargo test`) the kept corpus is replayed. `run` (`make fuzz`) changes inputs at random, as long as it
//! is told to, and keeps those with which a decoder says something that it has not said before; `--keep` writes the short
//! ones of them to the corpus. An input that makes a decoder panic, take longer than [`LIMIT`] or hold more memory than its
//! target's bound ends the run and is written out.

// A test program: it reads and writes its own fixtures, prints, and fails by panicking.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::panic
)]
#![expect(unsafe_code, reason = "an allocator that counts is unsafe by its trait")]

mod alloc;
mod corpus;
mod mutate;
mod targets;

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// One input may take so long, on a machine that does other things too; the inputs have at most 64 KiB.
const LIMIT: Duration = Duration::from_secs(20);

/// Inputs that a run keeps in memory at most.
const POOL: usize = 4000;

/// Kinds that a run remembers; what comes after them is no longer new.
const KINDS: usize = 500_000;

/// Characters of what a decoder says that tell one input from another.
const TOLD: usize = 300;

#[derive(Debug, Parser)]
#[command(name = "fuzz", about = "Fuzzes the decoders; without a command it replays tests/fixtures/fuzz")]
struct Fuzz {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Changes inputs at random.
    Run {
        /// Only these; else all, one after the other.
        targets: Vec<String>,
        /// For so long each.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Where the random numbers begin.
        #[arg(long)]
        seed: Option<u64>,
        /// Adds short inputs of new kinds to the corpus.
        #[arg(long)]
        keep: bool,
    },
}

fn main() -> ExitCode {
    let first = std::env::args().nth(1).unwrap_or_default();
    let result = match first.as_str() {
        "run" | "help" | "--help" => match Fuzz::parse().command {
            Command::Run { targets, seconds, seed, keep } => {
                let seed = seed.unwrap_or_else(|| fastrand::u64(..));
                fuzz(&targets, Duration::from_secs(seconds), seed, keep)
            }
        },
        // A test runner asks what there is.
        "--list" => {
            println!("replay: test");
            Ok(())
        }
        _ => replay(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Every kept input, and what each target begins with.
fn replay() -> Result<()> {
    watch();
    for target in TARGETS {
        let kept = corpus::read(target.name)?;
        ensure!(!kept.is_empty(), "{} is missing: make fuzz writes it", corpus::file(target.name).display());
        let begin = Instant::now();
        let count = kept.len();
        for input in kept.iter().chain(&(target.seeds)()) {
            attempt(target, input)?;
        }
        println!("fuzz: {}: {count} inputs of the corpus in {:.1?}", target.name, begin.elapsed());
    }
    Ok(())
}

fn fuzz(names: &[String], time: Duration, seed: u64, keep: bool) -> Result<()> {
    watch();
    for name in names {
        ensure!(TARGETS.iter().any(|target| target.name == name), "there is no target {name}");
    }
    println!("seed {seed}");
    println!("| target | inputs | per second | kinds | most memory / its bound | slowest |");
    println!("|---|---|---|---|---|---|");
    let wanted = |target: &&Target| names.is_empty() || names.iter().any(|name| name == target.name);
    for target in TARGETS.iter().filter(wanted) {
        run(target, time, seed, keep)?;
    }
    Ok(())
}

fn run(target: &Target, time: Duration, seed: u64, keep: bool) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut kinds = HashSet::new();
    let mut pool = Vec::new();
    let (mut most, mut slowest) = ((0, 1), Duration::ZERO);
    let mut kept = corpus::read(target.name)?;
    let known: Vec<Vec<u8>> = kept.iter().cloned().chain((target.seeds)()).collect();
    let begin = Instant::now();
    let mut count = 0_u64;
    let mut next = known.into_iter();
    while begin.elapsed() < time {
        let fresh = next.next();
        let input = match &fresh {
            Some(known) => known.clone(),
            None => {
                let (one, other): (&Vec<u8>, &Vec<u8>) =
                    (&pool[rng.usize(0..pool.len())], &pool[rng.usize(0..pool.len())]);
                mutate::mutate(&mut rng, one, other, target.words)
            }
        };
        let seen = attempt(target, &input)?;
        count += 1;
        slowest = slowest.max(seen.took);
        if seen.held * most.1 > most.0 * target.bound(input.len()) {
            most = (seen.held, target.bound(input.len()));
        }
        let new = kinds.len() < KINDS && kinds.insert(seen.kind);
        if (new && pool.len() < POOL) || pool.is_empty() {
            pool.push(input);
        }
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    println!("| {} | {count} | {rate:.0} | {} | {} / {} | {slowest:.1?} |", target.name, kinds.len(), most.0, most.1);
    if !keep {
        return Ok(());
    }
    // What is there stays there: it may be what was once wrong.
    rng.shuffle(&mut pool);
    pool.retain(|input| input.len() <= corpus::KEPT_BYTES && !kept.contains(input));
    pool.truncate(corpus::KEPT.saturating_sub(kept.len()));
    kept.append(&mut pool);
    corpus::write(target.name, &kept)
}

/// What an input did.
struct Seen {
    /// The same for inputs of which the decoder says the same, but for numbers and names.
    kind: u64,
    /// The most bytes that were held at a time.
    held: usize,
    took: Duration,
}

/// The input under way, for [`watch`].
static CURRENT: Mutex<Option<(&'static str, Vec<u8>, Instant)>> = Mutex::new(None);

fn attempt(target: &Target, input: &[u8]) -> Result<Seen> {
    let mut shape = Shape::default();
    let mut held = 0;
    let begin = Instant::now();
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some((target.name, input.to_vec(), begin));
    let mut from = alloc::begin();
    let result = catch_unwind(AssertUnwindSafe(|| {
        (target.run)(input, &mut |said| {
            held = held.max(alloc::peak_since(from));
            // The shape is cut off, which is an error of writing and of nothing else.
            let _ = write!(shape, "{said:?}");
            from = alloc::begin().min(from);
        });
    }));
    held = held.max(alloc::peak_since(from));
    let took = begin.elapsed();
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let bound = target.bound(input.len());
    if result.is_err() {
        bail!("{}: this input makes it panic (see above): {}", target.name, written(target.name, input)?);
    }
    if held > bound {
        bail!("{}: {held} bytes held, allowed are {bound}: {}", target.name, written(target.name, input)?);
    }
    Ok(Seen { kind: shape.hash.finish(), held, took })
}

/// Ends the process when an input takes longer than [`LIMIT`].
fn watch() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((target, input, begin)) = current.as_ref().filter(|(_, _, begin)| begin.elapsed() > LIMIT) {
                let place = written(target, input).unwrap_or_else(|error| error.to_string());
                eprintln!("fuzz: {target}: this input has not come to its end after {:?}: {place}", begin.elapsed());
                std::process::exit(1);
            }
        }
    });
}

/// Writes an input that was found to a file; a line for the corpus stands in it.
fn written(target: &str, input: &[u8]) -> Result<String> {
    let mut hash = DefaultHasher::new();
    hash.write(input);
    let file = std::env::temp_dir().join(format!("mountwarden-fuzz-{target}-{:016x}", hash.finish()));
    std::fs::write(&file, corpus::encode(input) + "\n").context("cannot write the input down")?;
    Ok(format!("{} (append its line to {})", file.display(), corpus::file(target).display()))
}

/// A hash of text without its numbers and quoted parts, of the first [`TOLD`] characters.
#[derive(Default)]
struct Shape {
    hash: DefaultHasher,
    told: usize,
    quoted: bool,
    digits: bool,
}

impl fmt::Write for Shape {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let quote = byte == b'"';
            self.quoted ^= quote;
            let digit = byte.is_ascii_digit();
            if (self.quoted && !quote) || (digit && self.digits) {
                continue;
            }
            self.digits = digit;
            self.hash.write_u8(if digit { b'0' } else { byte });
            self.told += 1;
            if self.told > TOLD {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}
