//! Panics become log lines.

use std::backtrace::{Backtrace, BacktraceStatus};

/// Replaces the default hook, which writes to standard error and blocks when nobody reads that.
///
/// `RUST_BACKTRACE` works as everywhere.
pub(super) fn log_them() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("(no message)");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("?").to_owned();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(place, thread, backtrace, "panic: {message}");
    }));
}
