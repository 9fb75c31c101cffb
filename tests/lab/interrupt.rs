//! Ctrl-C and SIGTERM end the guests too. They are process groups of their own, so the terminal's signal reaches only
//! this program.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

static SEEN: AtomicBool = AtomicBool::new(false);

/// Takes the signals from now on; has to be called before there are other threads. Children start with none blocked.
pub(crate) fn take() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("block signals")?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            SEEN.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Whether the run shall end.
pub(crate) fn seen() -> bool {
    SEEN.load(Ordering::Relaxed)
}
