//! Wakes up when something is mounted or unmounted.
//!
//! The kernel keeps an event counter per mount namespace. poll(2) on a mountinfo file says POLLPRI and POLLERR once the
//! counter is another than at the last poll of that file (`mounts_poll`, fs/proc_namespace.c; proc_pid_mountinfo(5)).
//! The poll itself takes the news, no read does; so with edge-triggered epoll an event is seen once and an idle table
//! wakes nobody.

use std::fs::File;
use std::future::ready;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::localfs;

/// A watch on the mount tables of the agent and of PID 1.
///
/// It keeps both files open. The agent may: its own namespace and PID 1's outlive it, so closing them tears nothing
/// down. It must not be done with any other process's.
#[derive(Debug)]
pub struct Watch {
    own: Option<AsyncFd<File>>,
    host: Option<AsyncFd<File>>,
}

impl Watch {
    /// Watches the tables below `proc_root`. Make it first and read the table then: changes before the watch are no event.
    ///
    /// PID 1's table is left out where it may not be read. Plain files, as in a test's proc root, never change.
    ///
    /// # Errors
    /// The agent's own table cannot be opened, or epoll refuses it.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn new(proc_root: &Path) -> io::Result<Watch> {
        let own = pollable(localfs::open_kernel_file(&proc_root.join("self/mountinfo"))?)?;
        let host = match localfs::open_kernel_file(&proc_root.join("1/mountinfo")) {
            Ok(file) => pollable(file)?,
            // The table says why (`Table::host_error`).
            Err(_) => None,
        };
        Ok(Watch { own, host })
    }

    /// Returns once a table has changed since the last return. Several changes may come as one, and where both tables are
    /// one namespace a change may come twice.
    ///
    /// Safe to drop and to call again: an event is taken only on return.
    pub async fn changed(&mut self) {
        tokio::select! {
            () = event(self.own.as_ref()) => take(self.host.as_ref()).await,
            () = event(self.host.as_ref()) => take(self.own.as_ref()).await,
        }
    }
}

/// `None` for files that cannot be polled: epoll says EPERM of regular files.
#[expect(
    deprecated,
    reason = "its successor is unsafe and asks that the type keep one descriptor open for its whole life, which File does; \
              unsafe code stays with the probe workers"
)]
fn pollable(file: File) -> io::Result<Option<AsyncFd<File>>> {
    match AsyncFd::with_interest(file, Interest::PRIORITY | Interest::ERROR) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The next event of one file; never without one, and never again once the file can tell nothing more.
async fn event(fd: Option<&AsyncFd<File>>) {
    if let Some(fd) = fd
        && let Ok(mut guard) = fd.ready(Interest::PRIORITY | Interest::ERROR).await
        && !guard.ready().is_read_closed()
    {
        guard.clear_ready();
        return;
    }
    std::future::pending().await
}

/// Takes an event that is already there: one change of a shared namespace signals both files at once.
async fn take(fd: Option<&AsyncFd<File>>) {
    tokio::select! {
        biased;
        () = event(fd) => {}
        () = ready(()) => {}
    }
}

#[cfg(test)]
mod tests;
