//! The lab: throw-away User-Mode Linux machines with a real NFS client and server, in which real faults are made while
//! the real binary runs. The same program runs on the host (`run`, `demo`) and inside the guests (`guest ...`).
//!
//! `make lab` runs the whole of `matrix.yaml`, `make lab-quick` a part, `make demo` the story for people. Called by
//! `cargo test` or `cargo nextest`, without a command, it does nothing: it takes minutes and a kernel of its own.

// The bans protect the agent from dead mounts. Here is the world around it: the lab reads and writes its own files,
// starts programs, waits, and prints.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr, clippy::indexing_slicing)]

mod asks;
mod capabilities;
mod churn;
mod containers;
mod demo;
mod diagnoses;
mod guest;
mod hub;
mod interrupt;
mod kernel;
mod machine;
mod matrix;
mod nodes;
mod page;
mod pending;
mod pod;
mod prometheus;
mod releases;
mod report;
mod rpcs;
mod runner;
mod says;
mod setups;
mod story;
mod surface;
mod trials;
mod uml;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "lab", about = "Makes real NFS faults in throw-away machines and holds the agent against the matrix")]
struct Lab {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run cells of the matrix.
    Run(runner::Run),
    /// Let the log, the metrics, `check` and `diagnose` say what they say of one fault after the other.
    Says(says::Says),
    /// Write docs/detection.md from the results of earlier runs.
    Page(page::Page),
    /// Show the agent at work, on this terminal.
    Demo {
        /// The binary to show.
        #[arg(long, default_value = "target/release/mountwarden")]
        agent: PathBuf,
    },
    /// Count the requests that a healthy NFS v4.1 mount costs; part of `make bench`.
    Rpcs {
        /// The binary to measure.
        #[arg(long, default_value = "target/release/mountwarden")]
        agent: PathBuf,
    },
    /// Make trial mounts of real NFS, and look for what they leave.
    Trials {
        /// The binary that goes along; the workers are the lab's own.
        #[arg(long, default_value = "target/release/mountwarden")]
        agent: PathBuf,
    },
    /// Ask real servers without the mount, fault by fault, and hold the causes against what they must be.
    Asks {
        /// The binary that the guests get; it is not started.
        #[arg(long, default_value = "target/release/mountwarden")]
        agent: PathBuf,
        /// Only the set-ups whose name matches (`^v4.1$`).
        #[arg(long, value_name = "REGEX")]
        only: Option<regex::Regex>,
    },
    /// Bring pods back whose server came back with another directory: agent, coordinator, real NFS, a fake API server.
    Story {
        /// The binary under test.
        #[arg(long, default_value = "target/release/mountwarden")]
        agent: PathBuf,
        /// Only the tellings whose name matches (`^4.1-swap_dir_filled`).
        #[arg(long, value_name = "REGEX")]
        only: Option<regex::Regex>,
        /// Guests at a time. They mostly wait.
        #[arg(long, default_value_t = 4)]
        jobs: usize,
    },
    /// Three containers and a service on one export, whose server is replaced, and whose host then mounts anew.
    Containers {
        /// The binary under test.
        #[arg(long, default_value = "target/release/mountwarden")]
        agent: PathBuf,
        /// Only these NFS versions.
        #[arg(long = "version")]
        versions: Vec<String>,
    },
    /// Let go of pods' dead mounts, version by version, with users stuck on them in every way.
    Releases {
        /// The binary that goes along; the workers are the lab's own.
        #[arg(long, default_value = "target/release/mountwarden")]
        agent: PathBuf,
        /// Only these NFS versions.
        #[arg(long = "version")]
        versions: Vec<String>,
        /// Only the cases whose name matches (`^fsync`).
        #[arg(long, value_name = "REGEX")]
        only: Option<regex::Regex>,
        /// How often each case is run.
        #[arg(long, default_value_t = 1)]
        runs: usize,
    },
    /// Pods that do not start because their volume cannot be mounted, and what the agent says about it.
    Pending {
        /// The binary under test.
        #[arg(long, default_value = "target/release/mountwarden")]
        agent: PathBuf,
        /// Only the cases whose name matches (`^4.1`).
        #[arg(long, value_name = "REGEX")]
        only: Option<regex::Regex>,
    },
    /// Two nodes whose canaries see each other, until one is cut off.
    Nodes {
        /// The binary under test.
        #[arg(long, default_value = "target/release/mountwarden")]
        agent: PathBuf,
    },
    /// Drop each capability of the agent's pod in turn, and tell what stops working; writes into docs/privileges.md.
    Capabilities {
        /// The binary under test.
        #[arg(long, default_value = "target/release/mountwarden")]
        agent: PathBuf,
    },
    /// Alert on real faults with the real Prometheus and Alertmanager, and ask every query of the dashboards.
    Prometheus(prometheus::Options),
    /// Ask `mountwarden diagnose` about real faults, and hold what it says against what it must say.
    Diagnoses(diagnoses::Diagnoses),
    /// What the scripts inside a guest call.
    #[command(subcommand, hide = true)]
    Guest(Guest),
}

#[derive(Debug, Subcommand)]
enum Guest {
    /// One cell of the matrix.
    Cell { file: PathBuf },
    /// A statx that asks the server.
    Statx { path: PathBuf },
    /// Waits until the agent says STATE about a mount, and with --why until it says why; prints state and cause.
    Await {
        mountpoint: String,
        state: String,
        limit: f64,
        #[arg(long)]
        why: bool,
    },
    /// Waits until the agent says STATE about the node PEER.
    Peer { mountpoint: String, peer: String, state: String, limit: f64 },
    /// Waits until the agent says STATE and CAUSE (`-`: none) about a mount.
    Explained { mountpoint: String, state: String, cause: String, limit: f64 },
    /// The series of a mount that say what is the matter with it.
    Metrics { mountpoint: String },
    /// The runs of `capabilities`.
    Capabilities,
    /// Becomes PROGRAM in the surroundings of the agent's pod, with these capabilities alone (`SYS_PTRACE,SYSLOG`).
    Pod {
        capabilities: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
    /// Releases the host's mount at PATH, which answers, from here; says what became of it.
    Release { path: String },
    /// Writes what the agent here serves at /metrics into FILE, once a second.
    Relay { file: PathBuf },
    /// A TCP port at which nobody serves.
    Tarpit { port: u16 },
    /// Lets USER of the filesystem on DEVICE have no more than he has (`full`), or anything (`free`).
    Quota { device: PathBuf, user: u32, limit: kernel::Limit },
    /// Passes connections to PORT on to SERVER, as the proxy of an EFS mount does.
    Forward { port: u16, server: String },
    /// Ordinary deletes, renames and rewrites in DIRECTORY, as fast as possible.
    Churn { directory: PathBuf, rounds: u64 },
    /// Asks the server of a mount, without FAULT for later comparison.
    Ask { mountpoint: PathBuf, fault: Option<String> },
    /// One telling of `story`.
    Story { fault: String, policy: String, ends: story::Ends },
    /// A case of `pending`.
    Pending { fault: String, cause: String },
    /// A container with a volume, that uses it until it is killed.
    Container {
        volume: PathBuf,
        path: PathBuf,
        group: PathBuf,
        /// So many files it writes too, and waits until they are on stable storage.
        files: u32,
    },
    /// The tale of `containers`.
    Containers,
    /// A process with a mount namespace of its own, until it is killed.
    Keep(containers::Keep),
    /// The cases of `releases`.
    Releases { only: String, runs: usize },
    /// A pod's process that dirties FILES files in DIRECTORY and gets stuck.
    Writer(releases::Writer),
    /// Counts requests while the agent watches a mount.
    Rpcs { mountpoint: String },
    /// A trial mount of what is mounted at MOUNTPOINT, whose root has the file id ROOT.
    Trial { when: String, mountpoint: String, root: u64 },
}

/// What the program answers to; anything else comes from a test runner.
const COMMANDS: [&str; 18] = [
    "run",
    "says",
    "page",
    "demo",
    "story",
    "rpcs",
    "trials",
    "releases",
    "containers",
    "asks",
    "diagnoses",
    "guest",
    "help",
    "--help",
    "nodes",
    "pending",
    "prometheus",
    "capabilities",
];

fn main() -> ExitCode {
    // Workers start from the program that has the pool: here this one.
    if let Some(code) = mountwarden::worker_entry() {
        return code;
    }
    // A test runner gives no command, but a filter or `--list`. There are no tests in here for it.
    let first = std::env::args().nth(1).unwrap_or_default();
    if !COMMANDS.contains(&first.as_str()) {
        eprintln!("lab: no command ({}), nothing run; `make lab` runs it", COMMANDS.join(", "));
        return ExitCode::SUCCESS;
    }
    match Lab::parse().command.execute() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Command {
    fn execute(self) -> Result<bool> {
        match self {
            Command::Nodes { agent } => return nodes::run(&agent),
            Command::Guest(Guest::Peer { mountpoint, peer, state, limit }) => {
                return Ok(nodes::wait_for(&mountpoint, &peer, &state, limit));
            }
            Command::Prometheus(options) => return prometheus::run(&options),
            Command::Capabilities { agent } => return capabilities::run(&agent),
            Command::Guest(Guest::Capabilities) => capabilities::measure()?,
            Command::Guest(Guest::Pod { capabilities, program }) => pod::become_program(&capabilities, &program)?,
            Command::Guest(Guest::Release { path }) => releases::from_here(&path)?,
            Command::Guest(Guest::Relay { file }) => prometheus::relay(&file)?,
            Command::Run(options) => return runner::run(&options),
            Command::Says(options) => return says::run(&options),
            Command::Page(options) => return page::write(&options),
            Command::Demo { agent } => demo::run(&agent)?,
            Command::Rpcs { agent } => rpcs::run(&agent)?,
            Command::Trials { agent } => return trials::run(&agent),
            Command::Story { agent, only, jobs } => return story::run(&agent, only.as_ref(), jobs),
            Command::Guest(Guest::Story { fault, policy, ends }) => story::tell(&fault, &policy, ends)?,
            Command::Pending { agent, only } => return pending::run(&agent, only.as_ref()),
            Command::Guest(Guest::Pending { fault, cause }) => pending::tell(&fault, &cause)?,
            Command::Guest(Guest::Container { volume, path, group, files }) => {
                story::container(&volume, &path, &group, files)?;
            }
            Command::Containers { agent, versions } => return containers::run(&agent, &versions),
            Command::Guest(Guest::Containers) => containers::tell()?,
            Command::Guest(Guest::Keep(keep)) => keep.run()?,
            Command::Releases { agent, versions, only, runs } => {
                return releases::run(&agent, &versions, only.as_ref(), runs);
            }
            Command::Guest(Guest::Releases { only, runs }) => releases::cases(&only, runs)?,
            Command::Guest(Guest::Writer(writer)) => writer.run()?,
            Command::Asks { agent, only } => return asks::run(&agent, only.as_ref()),
            Command::Diagnoses(options) => return diagnoses::run(&options),
            Command::Guest(Guest::Forward { port, server }) => diagnoses::forward(port, &server)?,
            Command::Guest(Guest::Ask { mountpoint, fault }) => asks::ask(&mountpoint, fault.as_deref())?,
            Command::Guest(Guest::Cell { file }) => guest::run(&file)?,
            Command::Guest(Guest::Statx { path }) => kernel::statx_and_print(&path),
            Command::Guest(Guest::Await { mountpoint, state, limit, why }) => {
                return Ok(watch::wait_for(&mountpoint, &state, why, limit));
            }
            Command::Guest(Guest::Explained { mountpoint, state, cause, limit }) => {
                return Ok(says::explained(&mountpoint, &state, &cause, limit));
            }
            Command::Guest(Guest::Metrics { mountpoint }) => says::metrics(&mountpoint)?,
            Command::Guest(Guest::Quota { device, user, limit }) => kernel::quota(&device, user, limit)?,
            Command::Guest(Guest::Tarpit { port }) => kernel::tarpit(port)?,
            Command::Guest(Guest::Churn { directory, rounds }) => churn::run(&directory, rounds)?,
            Command::Guest(Guest::Trial { when, mountpoint, root }) => trials::trial(&when, &mountpoint, root)?,
            Command::Guest(Guest::Rpcs { mountpoint }) => rpcs::beside_agent(|| rpcs::count(&mountpoint))?,
        }
        Ok(true)
    }
}
