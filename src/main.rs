//! Thin: the worker mode branches off before any thread exists, everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = mountwarden::worker_entry() {
        return code;
    }
    mountwarden::cli::main()
}
