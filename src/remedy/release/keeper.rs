//! Holds the descriptors for the worker, and lets go of them last.
//!
//! Whoever lets go of a dead v4.1 mount last ends its session with the server, and waits for that: in exit beyond the reach
//! of SIGKILL, in close(2) within it. So it must be neither a thread of the kubelet on its way out of an aborted call, nor
//! the worker, which may be killed at any moment. It is this process: it outlives the worker, waits until the aborted
//! calls are out of the kernel, closes, and is ended by its own alarm if that takes too long.
#![expect(unsafe_code, reason = "fork")]
#![expect(clippy::disallowed_methods, reason = "a process of its own that waits for others to let go")]

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{ForkResult, alarm, fork};
use rustix::io::Errno;

/// Aborted calls are out of the kernel after so long: 0.7 s at most were measured.
const LINGER: Duration = Duration::from_secs(2);

/// Closing may take so long: 0.05 s or 3 s were measured. SIGALRM ends it like SIGKILL (kernel/signal.c, complete_signal).
const CLOSING_SECONDS: u32 = 6;

/// Starts it. It holds what this process holds now, and begins to let go when the returned end of a pipe is closed, which
/// the end of this process does too.
///
/// # Errors
/// What pipe2(2) or fork(2) say.
pub(super) fn start(held: &mut Vec<OwnedFd>) -> Result<OwnedFd, Errno> {
    let (wait, release) = rustix::pipe::pipe()?;
    // SAFETY: this process has one thread, so the child may do whatever a process may.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { .. }) => Ok(release),
        Ok(ForkResult::Child) => {
            drop(release);
            keep(&wait, std::mem::take(held));
            // SAFETY: ends this process at once, without destructors that belong to the parent.
            unsafe { libc::_exit(0) }
        }
        Err(error) => Err(Errno::from_raw_os_error(error as i32)),
    }
}

fn keep(wait: &OwnedFd, held: Vec<OwnedFd>) {
    let _ = prctl::set_name(c"mountwarden-kep");
    // The agent waits for the end of the worker's socket, not for ours.
    // SAFETY: nothing in this process owns descriptor 0 as an object; it is the worker's socket.
    unsafe { libc::close(0) };
    while matches!(rustix::io::read(wait, &mut [0]), Ok(1..) | Err(Errno::INTR)) {}
    std::thread::sleep(LINGER);
    // SAFETY: the default disposition installs no handler.
    let _ = unsafe { signal(Signal::SIGALRM, SigHandler::SigDfl) };
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from(Signal::SIGALRM)), None);
    alarm::set(CLOSING_SECONDS);
    drop(held);
}
