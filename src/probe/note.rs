//! Which step a worker is in: a few bytes in memory that agent and worker share, read only when a deadline was missed.
//!
//! Said on the socket, each step would wake the agent, several times for a probe that takes a fraction of a millisecond.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Step;

/// More than any note takes.
const SIZE: usize = 64;

/// A worker's last note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    /// The request that it works on.
    pub seq: u64,
    /// The step that it entered.
    pub step: Step,
    /// CPU time that it had used until then, in nanoseconds.
    pub cpu_nanos: u64,
    /// When that was, on CLOCK_MONOTONIC, in nanoseconds.
    pub at_nanos: u64,
}

impl Entered {
    /// A note about this process, now.
    #[must_use]
    pub fn now(seq: u64, step: Step) -> Entered {
        let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
        let cpu_nanos = nanos(read(ClockId::CLOCK_PROCESS_CPUTIME_ID));
        Entered { seq, step, cpu_nanos, at_nanos: nanos(read(ClockId::CLOCK_MONOTONIC)) }
    }

    /// Time since then; nothing when the note lies in the future.
    #[must_use]
    pub fn ago(&self) -> Duration {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        now.saturating_sub(Duration::from_nanos(self.at_nanos))
    }

    /// Leaves the note, for a reader of the same file.
    ///
    /// # Errors
    /// What pwrite(2) says.
    pub fn leave(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut bytes = [0; SIZE];
        postcard::to_slice(&(self, self.check()), &mut bytes).map_err(|_| Errno::OVERFLOW)?;
        rustix::io::pwrite(file, &bytes, 0)?;
        Ok(())
    }

    /// Tells a whole note from one that was read while it was written.
    fn check(&self) -> u64 {
        let mixed = self.seq.rotate_left(1) ^ self.cpu_nanos.rotate_left(17) ^ self.at_nanos.rotate_left(33);
        !(mixed ^ u64::from(self.step as u8))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Where one worker leaves its notes.
#[derive(Debug)]
pub struct Note {
    memory: OwnedFd,
}

impl Note {
    /// An empty one.
    ///
    /// # Errors
    /// The kernel refuses memory files.
    pub fn new() -> io::Result<Note> {
        let create = |flags| rustix::fs::memfd_create(c"mountwarden-note", flags);
        // Linux 6.3 wants it said that nothing will be executed (sysctl vm.memfd_noexec); older kernels say EINVAL.
        let memory = create(MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL).or_else(|_| create(MemfdFlags::CLOEXEC))?;
        Ok(Note { memory })
    }

    /// The same memory, for the worker.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn share(&self) -> io::Result<File> {
        Ok(File::from(self.memory.try_clone()?))
    }

    /// What the worker said last about request `seq`. It may write whatever it likes: anything else is no note.
    #[must_use]
    pub fn read(&self, seq: u64) -> Option<Entered> {
        // Twice: a note may be half written.
        (0..2).find_map(|_| self.read_once()).filter(|entered| entered.seq == seq)
    }

    fn read_once(&self) -> Option<Entered> {
        let mut bytes = [0; SIZE];
        let count = rustix::io::pread(self.memory.as_fd(), &mut bytes, 0).ok()?;
        let ((entered, check), _) = postcard::take_from_bytes::<(Entered, u64)>(bytes.get(..count)?).ok()?;
        (check == entered.check()).then_some(entered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(note: &Note, bytes: &[u8]) {
        rustix::io::pwrite(note.memory.as_fd(), bytes, 0).unwrap();
    }

    #[test]
    fn the_last_note_of_the_request_at_hand_is_read() {
        let note = Note::new().unwrap();
        assert_eq!(note.read(1), None, "nothing was said yet");
        for step in [Step::Open, Step::StatxRoot, Step::EfsState] {
            let entered = Entered::now(7, step);
            entered.leave(note.share().unwrap().as_fd()).unwrap();
            assert_eq!(note.read(7), Some(entered));
        }
        assert_eq!(note.read(8), None, "it is about another request");
    }

    #[test]
    fn the_largest_note_fits() {
        let note = Note::new().unwrap();
        let entered = Entered { seq: u64::MAX, step: Step::EfsState, cpu_nanos: u64::MAX, at_nanos: u64::MAX };
        entered.leave(note.memory.as_fd()).unwrap();
        assert_eq!(note.read(u64::MAX), Some(entered));
        assert_eq!(entered.ago(), Duration::ZERO);
    }

    #[test]
    fn a_note_that_was_half_written_is_none() {
        let note = Note::new().unwrap();
        Entered { seq: 7, step: Step::Open, cpu_nanos: 1, at_nanos: 1 << 40 }.leave(note.memory.as_fd()).unwrap();
        let mut old = [0; SIZE];
        rustix::io::pread(note.memory.as_fd(), &mut old, 0).unwrap();
        Entered { seq: 7, step: Step::Statfs, cpu_nanos: 9, at_nanos: 2 << 40 }.leave(note.memory.as_fd()).unwrap();
        write(&note, &old[..6]);
        assert_eq!(note.read(7), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_note(bytes: [u8; SIZE]) {
            let note = Note::new().unwrap();
            write(&note, &bytes);
            // One in 2^64 would pass.
            prop_assert_eq!(note.read(1), None);
        }
    }
}
