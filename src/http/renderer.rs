//! The thread that turns snapshots into bodies, so that neither the agent's loop nor a scrape ever waits for that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::metrics;
use crate::snapshot::Snapshot;

/// After a rendering the thread rests this many times as long: it takes at most a tenth of one core, however often the agent
/// publishes (the agent paces that by the number of mounts; this holds whatever it does).
const REST: u32 = 10;

/// Upper bound of that rest, so that a machine under pressure does not show old numbers for ever.
const REST_MAX: Duration = Duration::from_secs(5);

/// One snapshot and the page that machines ask for all the time. What people ask for now and then (JSON, status page) is made
/// of the snapshot when they do: kept ready for a thousand mounts it would cost megabytes.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) snapshot: Arc<Snapshot>,
    /// Body of `/metrics`.
    pub(super) metrics: Bytes,
}

/// Between the agent's loop, the thread and the connections. Locks are held for a pointer swap only.
#[derive(Debug, Default)]
pub(super) struct Handover {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    rendered: Mutex<Option<Arc<Rendered>>>,
}

#[derive(Debug, Default)]
struct Inbox {
    newest: Option<Arc<Snapshot>>,
    closed: bool,
}

impl Handover {
    /// Starts the thread. It ends after [`Handover::close`]; it opens nothing but the process's own files in procfs.
    pub(super) fn start(proc_root: PathBuf) -> io::Result<Arc<Handover>> {
        let handover = Arc::new(Handover::default());
        let mine = Arc::clone(&handover);
        std::thread::Builder::new().name("mw-render".to_owned()).spawn(move || mine.run(&proc_root))?;
        Ok(handover)
    }

    pub(super) fn publish(&self, snapshot: Arc<Snapshot>) {
        let replaced = lock(&self.inbox).newest.replace(snapshot);
        self.wake.notify_one();
        // Freed outside the lock: it may be the last reference to a large snapshot.
        drop(replaced);
    }

    pub(super) fn close(&self) {
        lock(&self.inbox).closed = true;
        self.wake.notify_one();
    }

    pub(super) fn rendered(&self) -> Option<Arc<Rendered>> {
        lock(&self.rendered).clone()
    }

    fn run(&self, proc_root: &Path) {
        let mut text = String::new();
        let mut size = 0;
        let mut not_before = Instant::now();
        while let Some(snapshot) = self.next(not_before) {
            let begin = Instant::now();
            // The next page is about as large as the last one, and a buffer that grows by doubling costs thrice its size.
            text.reserve(with_room(size));
            match render(&snapshot, proc_root, std::mem::take(&mut text)) {
                Ok(rendered) => {
                    size = rendered.metrics.len();
                    let old = lock(&self.rendered).replace(Arc::new(rendered));
                    text = old.and_then(|old| reuse(old, size)).unwrap_or_default();
                }
                // The last good bodies stay; their timestamp tells how old they are.
                Err(error) => {
                    tracing::error!(%error, "cannot render the snapshot: /metrics and the page show an older one")
                }
            }
            not_before = Instant::now() + (begin.elapsed() * REST).min(REST_MAX);
        }
    }

    /// Waits for a snapshot, and until `not_before`; `None` when the agent ends.
    fn next(&self, not_before: Instant) -> Option<Arc<Snapshot>> {
        let mut inbox = lock(&self.inbox);
        loop {
            if inbox.closed {
                return None;
            }
            let rest = not_before.saturating_duration_since(Instant::now());
            inbox = match inbox.newest.take() {
                Some(snapshot) if rest.is_zero() => return Some(snapshot),
                Some(snapshot) => {
                    inbox.newest = Some(snapshot);
                    self.wake.wait_timeout(inbox, rest).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

fn render(snapshot: &Arc<Snapshot>, proc_root: &Path, mut text: String) -> Result<Rendered, metrics::RenderError> {
    // Without them everything else is still worth a page.
    let process =
        metrics::process::read(proc_root).inspect_err(|error| tracing::debug!(%error, "process_* are left out")).ok();
    metrics::render_into(snapshot, process.as_ref(), &mut text)?;
    Ok(Rendered { snapshot: Arc::clone(snapshot), metrics: Bytes::from(text) })
}

/// The buffer of a page that nobody reads any more. Megabytes that are allocated and freed every few seconds leave holes
/// between what lives longer: with a thousand mounts the process grew to twice its size.
fn reuse(old: Arc<Rendered>, size: usize) -> Option<String> {
    let page = Arc::into_inner(old)?.metrics.try_into_mut().ok()?;
    let mut text = String::from_utf8(page.into()).ok()?;
    text.clear();
    // What was needed when there were many more mounts is given back.
    (text.capacity() <= 4 * with_room(size)).then_some(text)
}

/// A little more than last time: numbers grow by a digit now and then.
fn with_room(size: usize) -> usize {
    size + size / 64 + 4096
}

/// A panic of the thread leaves plain data behind, which is still right to read.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(size: usize) -> Arc<Rendered> {
        let snapshot = include_str!("../../tests/fixtures/golden/snapshot.json");
        let snapshot = Arc::new(serde_json::from_str(snapshot).expect("fixture"));
        Arc::new(Rendered { snapshot, metrics: Bytes::from("x".repeat(size)) })
    }

    #[test]
    fn the_buffer_of_a_page_that_nobody_reads_is_used_again() {
        let old = page(50_000);
        let place = old.metrics.as_ptr();
        let text = reuse(old, 50_000).expect("nobody reads it");
        assert_eq!((text.as_ptr(), text.len()), (place, 0));
        assert!(text.capacity() >= 50_000);
    }

    #[test]
    fn a_page_that_is_read_or_far_too_large_is_not() {
        let old = page(50_000);
        let read = old.metrics.clone();
        assert!(reuse(Arc::clone(&old), 50_000).is_none() && reuse(old, 50_000).is_none());
        assert_eq!(read, "x".repeat(50_000));
        assert!(reuse(page(50_000), 100).is_none(), "there were more mounts once");
    }
}
