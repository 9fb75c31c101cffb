//! The kernel log: read by the agent itself, since it is no mount and never blocks (`O_NONBLOCK`, or syslog(2)). What it says makes
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
use crate::passive::syslog::{self, Tail};
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

/// syslog(2) is asked so often, for so much: some six hundred lines. Its cost is that of a walk over the kernel's buffer.
const SYSLOG_EVERY: Duration = Duration::from_secs(5);
const SYSLOG_TAIL: usize = 64 << 10;

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
    /// There will be no more.
    pub(super) closed: bool,
}

/// The kernel log, however it can be read.
#[derive(Debug)]
pub(super) struct KernelLog {
    source: Source,
    not_before: Instant,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum Source {
    /// The device: one record per read, and it says when there is one.
    Device(AsyncFd<File>),
    /// syslog(2): has to be asked.
    Syslog(Tail),
    Closed,
}

impl KernelLog {
    /// Listens from now on: what was said before the agent started is history.
    ///
    /// # Errors
    /// Why neither the device nor syslog(2) can be read, in words.
    pub(super) fn open() -> Result<KernelLog, String> {
        let device = localfs::open_kernel_log(Path::new(DEVICE)).and_then(KernelLog::of);
        device.or_else(|of_device| {
            KernelLog::by_syslog().map_err(|error| {
                format!("open {DEVICE}: {of_device}; syslog(2): {error}; it takes CAP_SYSLOG, and a seccomp profile that lets it")
            })
        })
    }

    /// Listens to an open device.
    #[expect(
        deprecated,
        reason = "its successor is unsafe and asks that the type keep one descriptor open for its whole life, which File does"
    )]
    fn of(file: File) -> io::Result<KernelLog> {
        let source = Source::Device(AsyncFd::with_interest(file, Interest::READABLE)?);
        Ok(KernelLog { source, not_before: Instant::now(), buffer: vec![0; RECORD] })
    }

    fn by_syslog() -> io::Result<KernelLog> {
        let mut buffer = vec![0; SYSLOG_TAIL];
        let length = syslog::read_all(&mut buffer)?;
        let mut tail = Tail::default();
        tail.take(buffer.get(..length).unwrap_or_default());
        Ok(KernelLog { source: Source::Syslog(tail), not_before: Instant::now() + SYSLOG_EVERY, buffer })
    }

    /// Nothing to listen to.
    pub(super) fn absent() -> KernelLog {
        KernelLog { source: Source::Closed, not_before: Instant::now(), buffer: Vec::new() }
    }

    /// Waits for something new. Safe to drop and to call again: what is taken from the log is returned.
    pub(super) async fn news(&mut self) -> News {
        sleep_until(self.not_before).await;
        let mut news = News::default();
        let (alive, pause) = match &mut self.source {
            Source::Device(device) => {
                let ready = device.readable().await;
                let alive = ready.is_ok_and(|mut guard| match drain(guard.get_inner(), &mut self.buffer, &mut news) {
                    Drained::Empty => {
                        guard.clear_ready();
                        true
                    }
                    Drained::More => true,
                    Drained::Closed => false,
                });
                (alive, REST)
            }
            Source::Syslog(tail) => {
                let length = syslog::read_all(&mut self.buffer);
                if let Some(text) = length.as_ref().ok().and_then(|length| self.buffer.get(..*length)) {
                    let (lines, lost) = tail.take(text);
                    news = News { lines, lost: u64::from(lost), closed: false };
                }
                (length.is_ok(), SYSLOG_EVERY)
            }
            Source::Closed => std::future::pending().await,
        };
        if !alive {
            news.closed = true;
            self.source = Source::Closed;
        }
        self.not_before = Instant::now() + pause;
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
        if news.closed {
            self.evidence_from("kernel_log", Some("reading it failed; a restart of the agent tries again".to_owned()));
        }
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
    let origin = &target.mount.origin;
    origin.server.as_deref() == Some(server) || origin.address.is_some_and(|address| address.to_string() == server)
}

/// What the log last said about the server of a target.
pub(super) fn words(book: &Book, target: &Target, now: Now) -> Option<KernelWords> {
    let server = target.mount.origin.server.as_deref().filter(|_| target.mount.origin.proxy_port.is_none())?;
    book.about(server, now)
}

#[cfg(test)]
mod tests;
