//! (being written)

/// Runs as a probe worker if this process was started as one.
#[must_use]
pub fn worker_entry() -> Option<std::process::ExitCode> {
    None
}
