//! What the agent costs and how soon it knows: `make bench`, the table of `docs/performance.md`.
//!
//! It measures the release binary from outside, as a user runs it, on FUSE filesystems of `examples/fusefs` in a mount
//! namespace of its own, and needs root for that. `cargo bench --bench agent -- NAME...` measures some parts only and
//! leaves the page as it is; the parts are `hundred thousand dead128 dead300 rpcs`.
//!
//! Like a test it stops at what it does not expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "see above")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

/// Helpers of the tests.
#[path = "../../tests/common"]
mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared with the tests: each crate uses its part of it")]
    pub mod agent;
    pub mod fusefs;
    pub mod process;
    pub mod sandbox;
    pub mod wait;
}

mod changes;
mod cost;
mod exporter;
mod hung;
mod page;
mod rpcs;
mod scrape;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::agent::Agent;
use common::fusefs::FuseFs;
use common::sandbox::Sandbox;
use page::Row;

/// The default, which the goals are stated for.
const INTERVAL: Duration = Duration::from_secs(15);
/// The default.
const DEADLINE: Duration = Duration::from_secs(5);
/// Intervals over which CPU time is counted.
const ROUNDS: u32 = 4;

const PARTS: [&str; 5] = ["hundred", "thousand", "dead128", "dead300", "rpcs"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says --bench; `cargo test --benches` does not, and wants no minutes of measuring.
    if !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("agent: measures only under `make bench`");
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&str> = arguments.iter().map(String::as_str).filter(|argument| *argument != "--bench").collect();
    if let Some(unknown) = wanted.iter().find(|name| !PARTS.contains(name)) {
        eprintln!("agent: there is no part {unknown}; there are {}", PARTS.join(", "));
        return ExitCode::FAILURE;
    }
    let Some(sandbox) = Sandbox::enter("bench") else {
        eprintln!("agent: nothing measured");
        return ExitCode::FAILURE;
    };
    if wanted.is_empty() || wanted.contains(&"rpcs") {
        rpcs::build();
    }
    let machine = page::Machine::look();
    let rows = measure(&sandbox, |part| wanted.is_empty() || wanted.contains(&part));
    let table = page::table(&machine, &rows);
    println!("\n{table}");
    if wanted.is_empty() {
        page::write(&table);
    }
    ExitCode::SUCCESS
}

fn measure(sandbox: &Sandbox, wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let started = Instant::now();
    let say = |text: &str| println!("[{:5.1} s] {text}", started.elapsed().as_secs_f64());
    let mut rows = Vec::new();
    if wanted("hundred") {
        say("100 healthy targets");
        rows.extend(hundred(sandbox));
    }
    // A guest waits more than it works: it runs beside what is not about CPU time. Its 15 s rounds take a minute.
    let mut guest = None;
    if wanted("thousand") {
        say("1,000 targets");
        rows.extend(thousand(sandbox, || guest = wanted("rpcs").then(rpcs::Guest::start)));
    }
    if guest.is_none() && wanted("rpcs") {
        guest = Some(rpcs::Guest::start());
    }
    for (part, count) in [("dead128", 128), ("dead300", 300)] {
        if wanted(part) {
            say(&format!("{count} targets that die at once"));
            rows.push(hung::all_at_once(sandbox, count));
        }
    }
    if let Some(guest) = guest {
        say("waiting for the NFS guest");
        rows.push(guest.row());
    }
    say("done");
    rows
}

fn start_agent() -> Agent {
    Agent::start(&["--interval", "15s", "--timeout", "5s"])
}

fn hundred(sandbox: &Sandbox) -> Vec<Row> {
    let fs = FuseFs::mount_many(&sandbox.dir("hundred"), 100, &[]);
    let agent = start_agent();
    let mut rows = cost::rows(&agent, fs.mounts().len(), 16.0);
    rows.push(changes::row(&agent, sandbox, 100, 10));
    rows
}

/// `when_quiet_no_more` is called when the parts that count CPU time are over.
fn thousand(sandbox: &Sandbox, when_quiet_no_more: impl FnOnce()) -> Vec<Row> {
    let mut fs = FuseFs::mount_many(&sandbox.dir("thousand"), 1000, &[]);
    let agent = start_agent();
    let mut rows = cost::rows(&agent, fs.mounts().len(), 32.0);
    rows.push(changes::row(&agent, sandbox, 1000, 2));
    let exporter = exporter::Exporter::start(sandbox);
    rows.push(scrape::healthy(&agent));
    rows.push(exporter.healthy());
    // Even numbers hang, so that the dead are spread over whatever order somebody walks them in.
    let dead: Vec<_> = fs.mounts().iter().step_by(2).cloned().collect();
    let begin = hung::Moment::now();
    for number in (0..1000).step_by(2) {
        fs.order(&format!("{number} hang"));
    }
    rows.push(hung::row(&agent, &dead, begin, INTERVAL, DEADLINE, "500 of 1,000 targets hang at once"));
    when_quiet_no_more();
    rows.extend(scrape::half_dead(&agent));
    rows.push(exporter.half_dead());
    rows
}
