//! One umount2(2) in a process of its own, with a deadline.
#![expect(unsafe_code, reason = "fork, and umount2 by a path of our own making")]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::{CallEnd, Flags};

/// A killed call may take so long to die before it counts as stuck.
const DYING: Duration = Duration::from_millis(500);

/// Exit code of the child for an errno that does not fit into one, or is unknown.
const NO_ERRNO: i32 = 255;

/// Calls umount2(2) on exactly the mount that `held` leads to.
///
/// The path is `/proc/self/fd/N`: it leads to the mount itself, whatever is at its mountpoint by now, no symlink is on the
/// way, and with LOOKUP_MOUNTPOINT the kernel does not ask the server again (fs/namei.c, path_lookupat; measured in the
/// lab on dead v3, v4.0, v4.1 and v4.2 mounts). UMOUNT_NOFOLLOW must not be given: it would stop at the link.
pub(super) fn umount(held: BorrowedFd<'_>, flags: Flags, deadline: Duration) -> (CallEnd, Duration) {
    let start = Instant::now();
    let Ok(path) = CString::new(format!("/proc/self/fd/{}", held.as_raw_fd())) else {
        return (CallEnd::Failed(libc::EINVAL), start.elapsed());
    };
    let flags = match flags {
        Flags::Force => libc::MNT_FORCE,
        Flags::Detach => libc::MNT_DETACH,
        Flags::ForceDetach => libc::MNT_FORCE | libc::MNT_DETACH,
    };
    // SAFETY: this process has one thread, so the child may do whatever a process may. It calls nothing that allocates.
    let child = match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            // SAFETY: a plain system call with integers. The child ends with the worker, whose descriptors it shares.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: `path` is a NUL-terminated string that lives across the call.
            let result = unsafe { libc::umount2(path.as_ptr(), flags) };
            let code = if result == 0 { 0 } else { errno() };
            // SAFETY: ends this process at once, without destructors that belong to the parent.
            unsafe { libc::_exit(if (0..NO_ERRNO).contains(&code) { code } else { NO_ERRNO }) }
        }
        Ok(ForkResult::Parent { child }) => child,
        Err(error) => return (CallEnd::Failed(error as i32), start.elapsed()),
    };
    let end = match wait(child, deadline) {
        Some(end) => end,
        None => {
            // Fails only when it is dead already.
            let _ = kill(child, Signal::SIGKILL);
            wait(child, DYING).map_or(CallEnd::Stuck, |_| CallEnd::Killed)
        }
    };
    (end, start.elapsed())
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(NO_ERRNO)
}

/// How the child ended, if it did within `limit`.
fn wait(child: Pid, limit: Duration) -> Option<CallEnd> {
    let pid = rustix::process::Pid::from_raw(child.as_raw())?;
    let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    let mut polled = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match poll(&mut polled, PollTimeout::try_from(left).ok()?) {
            Ok(0) => return None,
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
    match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, 0)) => Some(CallEnd::Done),
        Ok(WaitStatus::Exited(_, code)) => Some(CallEnd::Failed(code)),
        Ok(WaitStatus::Signaled(..)) => Some(CallEnd::Killed),
        Ok(_) | Err(_) => None,
    }
}
