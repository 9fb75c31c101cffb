//! The kernel log: read by the agent itself, since it is no mount and never blocks (`O_NONBLOCK`). What it says makes
//! probes due and explains verdicts; it decides nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use super::core::Core;
use super::target::Target;
use crate::localfs;
use crate::passive::kernel_log::{Kind, Line, record};
use crate::probe::schedule::{Now, TargetId};
use crate::verdict::KernelWords;

/// Where the kernel log is read. Another reader takes nothing away from it.
const DEVICE: &str = "/dev/kmsg";

/// Longest record (CONSOLE_EXT_LOG_MAX and PRINTK_MESSAGE_MAX of the kernel): with less room read(2) says EINVAL.
const RECORD: usize = 8192;

/// Records read at a time, and the pause after them: a kernel that logs without end must not keep the agent busy. What
/// the kernel overwrites meanwhile is counted.
const BATCH: usize = 1024;
const REST: Duration = Duration::from_millis(500);

/// Servers whose last line is kept.
const SERVERS: usize = 256;

/// A line that nothing takes back (a soft mount never says `OK`) explains for so long.
const EXPLAINS: Duration = Duration::from_secs(600);

/// What came since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) lines: Vec<Line>,
    /// Times that records were overwritten before they were read.
    pub(super) lost: u64,
}

/// The open device.
#[derive(Debug)]
pub(super) struct KernelLog {
    device: Option<AsyncFd<File>>,
    not_before: Instant,
    buffer: Vec<u8>,
}

impl KernelLog {
    /// Listens from now on: what was said before the agent started is history.
    ///
    /// # Errors
    /// What open(2) says, in words.
    pub(super) fn open() -> Result<KernelLog, String> {
        let file = localfs::open_kernel_log(Path::new(DEVICE)).map_err(|error| {
            let hint = match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT) => "; give the container the host's device",
                Some(Errno::EPERM | Errno::EACCES) => {
                    "; it takes CAP_SYSLOG (kernel.dmesg_restrict), and the device in the container's device list"
                }
                _ => "",
            };
            format!("open {DEVICE}: {error}{hint}")
        })?;
        KernelLog::of(file).map_err(|error| format!("poll {DEVICE}: {error}"))
    }

    /// Listens to an open device.
    #[expect(
        deprecated,
        reason = "its successor is unsafe and asks that the type keep one descriptor open for its whole life, which File does"
    )]
    fn of(file: File) -> io::Result<KernelLog> {
        let device = Some(AsyncFd::with_interest(file, Interest::READABLE)?);
        Ok(KernelLog { device, not_before: Instant::now(), buffer: vec![0; RECORD] })
    }

    /// Nothing to listen to.
    pub(super) fn absent() -> KernelLog {
        KernelLog { device: None, not_before: Instant::now(), buffer: Vec::new() }
    }

    /// Waits for something new. Safe to drop and to call again: what is taken from the device is returned.
    pub(super) async fn news(&mut self) -> News {
        sleep_until(self.not_before).await;
        let ready = match &self.device {
            Some(device) => device.readable().await,
            None => std::future::pending().await,
        };
        let mut news = News::default();
        let alive = ready.is_ok_and(|mut guard| match drain(guard.get_inner(), &mut self.buffer, &mut news) {
            Drained::Empty => {
                guard.clear_ready();
                true
            }
            Drained::More => true,
            Drained::Closed => false,
        });
        if !alive {
            self.device = None;
        }
        self.not_before = Instant::now() + REST;
        news
    }
}

enum Drained {
    Empty,
    More,
    Closed,
}

/// Reads what is there, one record per read(2).
fn drain(mut device: &File, buffer: &mut [u8], news: &mut News) -> Drained {
    for _ in 0..BATCH {
        match device.read(buffer) {
            Ok(0) => return Drained::Closed,
            Ok(length) => news.lines.extend(buffer.get(..length).and_then(record)),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EAGAIN) => return Drained::Empty,
                // The next read gives the oldest record that is left (`devkmsg_read`).
                Some(Errno::EPIPE) => news.lost += 1,
                // A record that is longer than any kernel writes: it is passed over.
                Some(Errno::EINTR | Errno::EINVAL) => {}
                _ => return Drained::Closed,
            },
        }
    }
    Drained::More
}

/// The last line of each server that is not answered yet.
#[derive(Debug, Default)]
pub(super) struct Book {
    said: HashMap<String, Said>,
}

#[derive(Debug)]
struct Said {
    line: String,
    kind: Kind,
    at: Now,
}

impl Book {
    fn note(&mut self, server: &str, line: &Line, now: Now) {
        if self.said.len() >= SERVERS && !self.said.contains_key(server) {
            let oldest = self.said.iter().min_by_key(|(_, said)| said.at).map(|(server, _)| server.clone());
            oldest.map(|oldest| self.said.remove(&oldest));
        }
        self.said.insert(server.to_owned(), Said { line: line.text.clone(), kind: line.kind, at: now });
    }

    /// What the log last said of a server.
    fn about(&self, server: &str, now: Now) -> Option<KernelWords> {
        let said = self.said.get(server)?;
        let age = now.saturating_sub(said.at);
        let stands = said.kind == Kind::NotResponding || age <= EXPLAINS;
        let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        stands.then(|| KernelWords { line: said.line.clone(), age_millis: millis })
    }
}

impl Core {
    /// Takes in what the kernel said.
    pub(super) fn take_kernel_news(&mut self, news: News) {
        self.stats.kernel_log_lost_total += news.lost;
        for line in &news.lines {
            *self.stats.kernel_log_lines.entry(line.kind.as_str().to_owned()).or_default() += 1;
            tracing::debug!(kind = line.kind.as_str(), line = line.text, "the kernel said");
            self.on_kernel_line(line);
        }
        self.changed |= !news.lines.is_empty() || news.lost > 0;
    }

    fn on_kernel_line(&mut self, line: &Line) {
        let now = self.now();
        if let Some(server) = &line.server {
            if line.kind == Kind::Answering {
                self.kernel_log.said.remove(server);
            } else if self.registry.targets.values().any(|target| of_server(target, server)) {
                self.kernel_log.note(server, line, now);
            }
        }
        for id in self.meant(line) {
            match line.kind {
                Kind::Answering => self.schedule.rearm(id, now),
                Kind::NotResponding | Kind::GaveUp => self.hurry_once(id, now),
                Kind::FileidChanged => {
                    if let Some(target) = self.registry.targets.get_mut(&id) {
                        target.fileid_changed = line.dev.is_some();
                    }
                    self.hurry_once(id, now);
                }
                // Said of files that were open, after the server is back; the reconnect made the probes due.
                Kind::RecoveryFailed | Kind::LocksLost => {}
            }
        }
    }

    /// The targets that a line is about: those of its superblock, else those of its server.
    fn meant(&self, line: &Line) -> Vec<TargetId> {
        let targets = self.registry.targets.values().filter(|target| target.facts.is_nfs());
        let meant = |target: &&Target| match (line.dev, &line.server) {
            (Some(dev), _) => target.dev == dev,
            (None, Some(server)) => of_server(target, server),
            (None, None) => false,
        };
        targets.filter(meant).map(|target| target.id).collect()
    }

    /// Makes a target due, or explains it anew if it hangs already (it may be blocked for long). At most once per interval:
    /// the kernel may say the same thing again and again.
    pub(super) fn hurry_once(&mut self, id: TargetId, now: Now) {
        let interval = self.config.interval;
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        if target.hurried.is_none_or(|at| now.saturating_sub(at) >= interval) {
            target.hurried = Some(now);
            self.schedule.hurry(id, now);
            self.judge_again(id);
        }
    }
}

/// The kernel names servers as they were mounted. All local proxies are called by one address: the line is about any of
/// them, which is enough to look and too little to explain.
fn of_server(target: &Target, server: &str) -> bool {
    let origin = &target.origin;
    origin.server.as_deref() == Some(server) || origin.address.is_some_and(|address| address.to_string() == server)
}

/// What the log last said about the server of a target.
pub(super) fn words(book: &Book, target: &Target, now: Now) -> Option<KernelWords> {
    let server = target.origin.server.as_deref().filter(|_| target.origin.proxy_port.is_none())?;
    book.about(server, now)
}

#[cfg(test)]
mod tests;
