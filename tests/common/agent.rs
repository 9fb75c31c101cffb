//! The built agent as a process of the test, asked through its public surface only.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mountwarden::snapshot::{MountStatus, Snapshot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::{PATIENCE, eventually};

/// The binary.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_mountwarden");

/// A running `mountwarden run`. Dropping it kills it.
pub struct Agent {
    child: Child,
    metrics: SocketAddr,
    ui: SocketAddr,
}

/// An agent that is not started yet.
pub struct Launch {
    command: Command,
    metrics: SocketAddr,
    ui: SocketAddr,
}

impl Launch {
    /// `mountwarden run` with these further flags; its log is thrown away.
    pub fn new(flags: &[&str]) -> Self {
        Self::under(&[], PROGRAM, flags)
    }

    /// The same by way of a command that runs another one in its place (`prlimit`, `setpriv`).
    pub fn under(wrapper: &[&str], program: &str, flags: &[&str]) -> Self {
        let (metrics, ui) = (free_port(), free_port());
        let mut words = [wrapper, &[program]].concat().into_iter();
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg("run").args(flags).stdin(Stdio::null()).stdout(Stdio::null());
        Launch { command, metrics, ui }
    }

    /// Where `/metrics` is to be served.
    pub fn listen(mut self, metrics: SocketAddr) -> Self {
        self.metrics = metrics;
        self
    }

    /// Where the log goes.
    pub fn log_to(mut self, log: impl Into<Stdio>) -> Self {
        self.command.stdout(log);
        self
    }

    /// Starts it and waits for nothing.
    pub fn spawn(mut self) -> Agent {
        let (metrics, ui) = (self.metrics, self.ui);
        let addresses = ["--listen", &metrics.to_string(), "--listen-ui", &ui.to_string()].map(str::to_owned);
        Agent { child: self.command.args(addresses).spawn().unwrap(), metrics, ui }
    }

    /// Starts it and waits until its first pass is done.
    pub fn start(self) -> Agent {
        let mut agent = self.spawn();
        agent.wait_until_ready();
        agent
    }
}

impl Agent {
    /// Starts the agent with these further flags and waits until its first pass is done.
    pub fn start(flags: &[&str]) -> Self {
        Launch::new(flags).start()
    }

    /// Waits until its first pass is done.
    pub fn wait_until_ready(&mut self) {
        eventually("the agent is ready", PATIENCE, || {
            self.assert_runs();
            self.get("/readyz").is_ok_and(|response| response.status == 200).then_some(())
        });
    }

    /// It has not ended.
    pub fn assert_runs(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the agent ended; it says why on stderr");
    }

    /// A GET from the metrics listener.
    pub fn get(&self, path: &str) -> std::io::Result<Response> {
        get(self.metrics, path)
    }

    /// A GET from the listener of the page.
    pub fn ui(&self, path: &str) -> std::io::Result<Response> {
        get(self.ui, path)
    }

    /// The value of the series that is written exactly so in `/metrics`.
    pub fn metric(&self, series: &str) -> f64 {
        let (text, _) = self.scrape();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("{series} is not in {text}"))
    }

    /// Sends a signal to the agent's process.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Where its page and its JSON are.
    pub fn ui_address(&self) -> SocketAddr {
        self.ui
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `/metrics`, and how long it took from connecting to the last byte.
    pub fn scrape(&self) -> (String, Duration) {
        let started = Instant::now();
        let response = get(self.metrics, "/metrics").unwrap();
        assert_eq!(response.status, 200, "{}", response.body);
        (response.body, started.elapsed())
    }

    /// `/api/v1/mounts`.
    pub fn snapshot(&self) -> Snapshot {
        let response = get(self.ui, "/api/v1/mounts").unwrap();
        assert_eq!(response.status, 200, "{}", response.body);
        serde_json::from_str(&response.body).unwrap()
    }

    /// What it says about the mount at `path`, as soon as `wanted` holds for it.
    pub fn eventually(&self, path: &Path, patience: Duration, wanted: impl Fn(&MountStatus) -> bool) -> MountStatus {
        let mut last = None;
        let end = Instant::now() + patience;
        while Instant::now() < end {
            last = mount_at(&self.snapshot(), path);
            if let Some(mount) = last.as_ref().filter(|mount| wanted(mount)) {
                return mount.clone();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{} is not as expected after {patience:?}, but: {last:#?}", path.display());
    }

    /// Sends SIGTERM and says how it ended and how long that took.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        self.signal(Signal::SIGTERM);
        let status = eventually("the agent ends on SIGTERM", PATIENCE, || self.child.try_wait().unwrap());
        (status, started.elapsed())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One pass of `mountwarden check --json` with these further arguments: its document and its exit code.
pub fn check(arguments: &[&str]) -> (Snapshot, i32) {
    document_of(Command::new(PROGRAM).args(["check", "--json"]).args(arguments))
}

/// What a prepared `mountwarden check --json` prints, and its exit code.
pub fn document_of(command: &mut Command) -> (Snapshot, i32) {
    let output = command.output().unwrap();
    let snapshot = serde_json::from_slice(&output.stdout);
    (snapshot.unwrap_or_else(|error| panic!("{error}: {output:?}")), output.status.code().unwrap())
}

/// The target that `path` belongs to.
pub fn mount_at(snapshot: &Snapshot, path: &Path) -> Option<MountStatus> {
    snapshot.mounts.iter().find(|mount| mount.paths.iter().any(|member| Path::new(member) == path)).cloned()
}

/// A response of the agent.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: String,
}

/// A GET on a connection of its own.
pub fn get(addr: SocketAddr, path: &str) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidData, text.clone());
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(invalid)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(invalid)?;
    Ok(Response { status, body: body.to_owned() })
}

/// A port that was free a moment ago. Whoever takes it before the agent does makes the test fail, not pass.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
