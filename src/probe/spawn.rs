//! How a worker process starts, and how it cuts itself off from everything but what it was given.
#![expect(clippy::disallowed_methods, reason = "this is the one place that starts workers")]
#![expect(unsafe_code, reason = "close_range has no safe wrapper")]

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use rustix::io::Errno;
use tokio::process::Command;

/// This program, from `image`, in the hidden mode `mode`. Standard input and output are the caller's to give.
pub(crate) fn command(image: &Path, mode: &str) -> Command {
    let mut command = Command::new(image);
    command
        .arg0("mountwarden")
        .arg(mode)
        .arg(std::process::id().to_string())
        .env_clear()
        .stderr(Stdio::null())
        // A signal for the agent's process group (Ctrl-C) is the agent's to handle.
        .process_group(0);
    command
}

/// The process that started this one, if this one was started in the hidden mode `mode`.
pub(crate) fn parent_of(mode: &str) -> Option<Option<i32>> {
    let mut arguments: std::iter::Skip<std::env::ArgsOs> = std::env::args_os().skip(1);
    if arguments.next()? != mode {
        return None;
    }
    Some(arguments.next().and_then(|text: OsString| text.to_str()?.parse().ok()))
}

/// In the worker: ends with its parent, sits in `/`, dumps no core, has only standard input and output. `false`: the
/// parent is gone already.
///
/// # Errors
/// What prctl(2) or chdir(2) say.
pub(crate) fn cut_off(parent: i32, name: &std::ffi::CStr) -> Result<bool, Errno> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| Errno::from_raw_os_error(error as i32))?;
    // The parent may have died before that took effect.
    if nix::unistd::getppid().as_raw() != parent {
        return Ok(false);
    }
    // Its root and start directory may lie on a mount that dies later; `/` of the agent does not.
    std::env::set_current_dir("/").map_err(|_| Errno::IO)?;
    let _ = prctl::set_name(name);
    // A worker that dumps core on a dead mount would be one more problem.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: no object in this process owns a descriptor above 1 yet: it has just been started and only read its
    // arguments. stderr is among those closed, so that a stuck worker holds nobody's pipe open.
    unsafe {
        libc::syscall(libc::SYS_close_range, 2, u32::MAX, 0);
    }
    Ok(true)
}
