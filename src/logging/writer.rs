//! The end of the queue: writes whole lines, counts those that cannot be written.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::Output;

/// Writes to a descriptor of its own. Rust's `Stdout` has a lock: whoever prints while the writer is stuck in it would
/// be stuck too.
pub(super) struct CountingWriter {
    file: File,
    unwritten: Arc<AtomicU64>,
}

impl CountingWriter {
    /// A writer on a copy of the output's descriptor.
    pub(super) fn open(output: Output, unwritten: Arc<AtomicU64>) -> io::Result<Self> {
        let copy: OwnedFd = match output {
            Output::Stdout => io::stdout().as_fd().try_clone_to_owned()?,
            Output::Stderr => io::stderr().as_fd().try_clone_to_owned()?,
        };
        Ok(Self::on(File::from(copy), unwritten))
    }

    pub(super) fn on(file: File, unwritten: Arc<AtomicU64>) -> Self {
        CountingWriter { file, unwritten }
    }

    fn write_line(&mut self, mut line: &[u8]) -> io::Result<()> {
        while !line.is_empty() {
            match self.file.write(line) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => line = line.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_room()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Somebody who shares the terminal or pipe made it non-blocking; waiting is this thread's whole job.
    fn wait_for_room(&self) -> io::Result<()> {
        let mut descriptors = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        match nix::poll::poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Write for CountingWriter {
    /// Takes the line in any case: an error would make the queue's thread lose its place, and help nobody.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.write_line(line).is_err() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
