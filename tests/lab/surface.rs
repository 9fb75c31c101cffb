//! The agent under test as its users meet it: a process, an HTTP port, an exit code.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mountwarden::snapshot::{MountStatus, Snapshot, UnixSeconds};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::matrix::Cell;

/// Where the guest's init has put the binary under test.
pub(crate) const AGENT: &str = "/run/agent";
const METRICS: &str = "127.0.0.1:12049";
const PAGES: &str = "127.0.0.1:12050";
const CONFIG: &str = "/run/agent.yaml";
/// Longer than any answer from memory takes, even on an emulated CPU that six guests share.
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running agent.
pub(crate) struct Agent {
    child: Child,
}

/// How an agent ended after SIGTERM.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) seconds: f64,
    /// Exit status in words, `None` if it was still there after ten seconds.
    pub(crate) status: Option<String>,
    /// Processes of the agent that outlived it.
    pub(crate) left: Vec<String>,
}

impl Agent {
    /// Starts the agent with the settings of the cell; its log goes to `log`.
    pub(crate) fn start(cell: &Cell, log: &File) -> Result<Agent> {
        let mut command = Command::new(AGENT);
        command.args(["run", "--listen", METRICS, "--listen-ui", PAGES, "--log-format", "json", "--config", CONFIG]);
        // Every judgement with its evidence: what a failed cell is explained from.
        command.args(["--log-level", "info,mountwarden=debug"]);
        // The settings of the lab that have no flag.
        let canary = cell.canary.as_ref().map_or(String::new(), |identity| {
            format!("canary: {{mounts: [/mnt/cl], interval: {}, identity: \"{identity}\"}}\n", duration(cell.interval))
        });
        std::fs::write(CONFIG, format!("backoff_max: {}\n{canary}", duration(cell.backoff_max)))?;
        for (flag, seconds) in [("--interval", cell.interval), ("--timeout", cell.deadline)] {
            command.arg(flag).arg(duration(seconds));
        }
        if let Some(detector) = &cell.without {
            command.args(["--without-detector", detector]);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .current_dir("/")
            .process_group(0);
        Ok(Agent { child: command.spawn().context("start the agent")? })
    }

    /// Its exit status if it has ended, which it never should by itself.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// SIGTERM, then waits for the process and for those it started.
    pub(crate) fn terminate(mut self) -> Result<Ending> {
        let pid = Pid::from_raw(self.child.id().try_into()?);
        let family = descendants(pid.as_raw());
        let begin = Instant::now();
        kill(pid, Signal::SIGTERM).context("SIGTERM")?;
        let mut status = None;
        while status.is_none() && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
            status = self.ended();
        }
        let seconds = begin.elapsed().as_secs_f64();
        if status.is_none() {
            kill(pid, Signal::SIGKILL)?;
        }
        // SIGKILL of a worker that waits for NFS takes up to 63 ms.
        std::thread::sleep(Duration::from_millis(200));
        let now = processes();
        let left = family.iter().filter(|old| now.iter().any(|new| new.is(old))).map(Process::describe).collect();
        Ok(Ending { seconds, status, left })
    }
}

/// Seconds as the agent's settings want them.
fn duration(seconds: f64) -> String {
    format!("{}ms", seconds * 1000.0)
}

/// The document of `/api/v1/mounts`; `None` while the agent does not listen yet.
pub(crate) fn snapshot() -> Option<Snapshot> {
    serde_json::from_slice(&get(PAGES, "/api/v1/mounts").ok()?).ok()
}

/// The mount at `mountpoint` as `/api/v1/mounts` shows it; `None` while the agent does not list it, or does not listen yet.
pub(crate) fn mount(mountpoint: &str) -> Option<MountStatus> {
    Some(look(mountpoint)?.0)
}

/// The same, and when the agent says that it wrote this.
pub(crate) fn look(mountpoint: &str) -> Option<(MountStatus, UnixSeconds)> {
    let snapshot = snapshot()?;
    let generated = snapshot.generated;
    Some((find(snapshot, mountpoint)?, generated))
}

/// What `mountwarden status --json` prints about the mount, and its exit code.
pub(crate) fn status_command(mountpoint: &str) -> Result<(Option<MountStatus>, Option<i32>)> {
    let output = Command::new(AGENT).args(["status", "--json"]).output()?;
    let snapshot = serde_json::from_slice(&output.stdout).ok();
    Ok((snapshot.and_then(|snapshot| find(snapshot, mountpoint)), output.status.code()))
}

fn find(snapshot: Snapshot, mountpoint: &str) -> Option<MountStatus> {
    snapshot.mounts.into_iter().find(|mount| mount.mountpoint == mountpoint)
}

/// How long `/metrics` took; an error if it does not answer or names no mount state.
pub(crate) fn scrape() -> Result<Duration> {
    let begin = Instant::now();
    let body = get(METRICS, "/metrics")?;
    if !String::from_utf8_lossy(&body).contains("mountwarden_mount_state{") {
        bail!("/metrics does not name mountwarden_mount_state");
    }
    Ok(begin.elapsed())
}

/// The text of `/metrics`.
pub(crate) fn metrics() -> Result<String> {
    Ok(String::from_utf8_lossy(&get(METRICS, "/metrics")?).into_owned())
}

/// Body of a 200 answer. HTTP/1.0, so that it is neither chunked nor kept alive.
fn get(address: &str, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address.parse()?, HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n").context("an answer without a header")?;
    let head = String::from_utf8_lossy(&answer[..split]).into_owned();
    if head.split(' ').nth(1) != Some("200") {
        bail!("{path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(answer.split_off(split + 4))
}

/// A process, told from a later one with the same pid by its start time.
#[derive(Debug)]
struct Process {
    pid: i32,
    parent: i32,
    started: String,
    name: String,
}

impl Process {
    fn is(&self, other: &Process) -> bool {
        self.pid == other.pid && self.started == other.started
    }

    fn describe(&self) -> String {
        format!("{} ({})", self.pid, self.name)
    }
}

/// All processes but zombies, from `/proc/*/stat`, which never blocks.
fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let (head, tail) = stat.rsplit_once(") ")?;
            let fields: Vec<&str> = tail.split(' ').collect();
            let name = head.split_once('(')?.1.to_owned();
            let (state, parent, started) = (fields.first()?, fields.get(1)?, fields.get(19)?);
            (*state != "Z").then(|| Process {
                pid,
                parent: parent.parse().unwrap_or(0),
                started: (*started).to_owned(),
                name,
            })
        })
        .collect()
}

fn descendants(root: i32) -> Vec<Process> {
    let mut family: Vec<Process> = Vec::new();
    let mut rest = processes();
    loop {
        let (found, other): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|process| process.parent == root || family.iter().any(|known| known.pid == process.parent));
        if found.is_empty() {
            return family;
        }
        family.extend(found);
        rest = other;
    }
}
