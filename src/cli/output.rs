//! Words on standard output and standard error.

use std::io::{self, ErrorKind, IsTerminal, Write};

/// Writes to standard output. A reader that has seen enough (`check | head -1`) is no error; anything else that keeps
/// the words from being written is told on standard error, and the exit code stays that of the result.
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => complain(&format!("cannot write the result: {error}")),
        _ => {}
    }
}

/// Writes a line to standard error, if somebody reads it.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "mountwarden: {text}");
}

/// Whether the table may have colours: on a terminal, unless `NO_COLOR` says no (<https://no-color.org>).
pub(super) fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
