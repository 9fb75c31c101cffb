//! Log lines that never block the agent.
//!
//! Standard output may be a pipe that nobody reads, or a file on a dead mount. Lines go through a bounded queue to a
//! thread of their own; what does not fit, or cannot be written, is dropped and counted.

mod filter;
mod panics;
mod writer;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::LogFormat;

pub use filter::{FilterError, check_filter};

/// Lines that may wait for the writer: a burst of transitions of 1,000 mounts fits, and it is about 2 MB at most.
const QUEUE_LINES: usize = 4096;

/// Where the lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output: the agent.
    Stdout,
    /// Standard error: commands whose standard output is their result.
    Stderr,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The output is closed.
    #[error("cannot open the log's output: {0}")]
    Output(io::Error),
    /// Somebody else in this process has set up logging.
    #[error("logging is set up already")]
    Twice,
    /// The filter is gone with its subscriber.
    #[error("the log level cannot be changed any more: {0}")]
    Gone(String),
}

/// The running log.
pub struct Logs {
    queue_full: ErrorCounter,
    unwritten: Arc<AtomicU64>,
    guard: WorkerGuard,
    level: reload::Handle<EnvFilter, Registry>,
}

impl Logs {
    /// Starts logging for the whole process and logs panics too.
    ///
    /// # Errors
    /// A filter that does not parse, a closed output, or a second start.
    pub fn start(format: LogFormat, filter: &str, output: Output) -> Result<Logs, LogError> {
        let (filter, level) = reload::Layer::new(filter::parse(filter)?);
        let unwritten = Arc::new(AtomicU64::new(0));
        let (queue, guard, ansi) = queue(output, Arc::clone(&unwritten)).map_err(LogError::Output)?;
        let queue_full = queue.error_counter();
        let lines = lines(format, ansi, queue);
        tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| LogError::Twice)?;
        panics::log_them();
        Ok(Logs { queue_full, unwritten, guard, level })
    }

    /// Lines dropped so far, because the queue was full or the output took none (full disk, closed pipe).
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let full = u64::try_from(self.queue_full.dropped_lines()).unwrap_or(u64::MAX);
        full.saturating_add(self.unwritten.load(Ordering::Relaxed))
    }

    /// Changes the filter of the running log.
    ///
    /// # Errors
    /// A filter that does not parse; the old one stays.
    pub fn set_level(&self, filter: &str) -> Result<(), LogError> {
        let filter = filter::parse(filter)?;
        self.level.reload(filter).map_err(|error| LogError::Gone(error.to_string()))
    }

    /// Writes what waits in the queue and ends, but gives up after `within`: the reader of our output may be dead.
    pub fn close(self, within: Duration) {
        let (done, wait) = mpsc::channel();
        let guard = self.guard;
        // The guard's drop waits for the writer for up to a second, and then prints to the very output that is stuck:
        // both must not happen on the agent's thread. This thread may hang; it ends with the process.
        let flush = move || {
            drop(guard);
            let _ = done.send(());
        };
        if std::thread::Builder::new().name("log-close".to_owned()).spawn(flush).is_ok() {
            let _ = wait.recv_timeout(within);
        }
    }
}

/// The queue with its writer thread, and whether the output is a terminal.
fn queue(output: Output, unwritten: Arc<AtomicU64>) -> io::Result<(NonBlocking, WorkerGuard, bool)> {
    let terminal = match output {
        Output::Stdout => io::stdout().is_terminal(),
        Output::Stderr => io::stderr().is_terminal(),
    };
    let ansi = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let writer = writer::CountingWriter::open(output, unwritten)?;
    let builder = NonBlockingBuilder::default().buffered_lines_limit(QUEUE_LINES).lossy(true).thread_name("log");
    let (queue, guard) = builder.finish(writer);
    Ok((queue, guard, ansi))
}

/// Makes events into lines.
fn lines<S>(format: LogFormat, ansi: bool, queue: NonBlocking) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(queue).with_timer(UtcTime);
    match format {
        LogFormat::Text => lines.with_ansi(ansi).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    }
}

/// RFC 3339 in UTC, to the millisecond.
struct UtcTime;

impl FormatTime for UtcTime {
    #[expect(clippy::disallowed_methods, reason = "log lines carry the time as people count it")]
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(w, "{}", humantime::format_rfc3339_millis(std::time::SystemTime::now()))
    }
}

#[cfg(test)]
mod tests;
