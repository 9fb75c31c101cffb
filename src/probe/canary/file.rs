//! Our file: opened only when it is what we left, written past the page cache where the filesystem can.
//!
//! O_DIRECT because a process that waits in it can be killed; one that waits for dirty pages cannot (measured on NFS).
#![expect(clippy::disallowed_methods, reason = "this is the code that touches mounts, in an expendable process")]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::Refusal;
use super::root::BENEATH;
use crate::canary::record::{self, Contents, SIZE};

/// A record, and the block that is taken and given back each round.
const MOST: u64 = 2 * SIZE as u64;

/// Several tries find a name in a state that can be opened, unless somebody plays with it.
const TRIES: usize = 3;

pub(super) struct Opened {
    file: OwnedFd,
    direct: bool,
}

/// Opens the file of this node, and makes it where it is missing. The inner error: it is not ours to write to.
pub(super) fn open(directory: BorrowedFd<'_>, id: &str) -> Result<Result<Opened, Refusal>, Errno> {
    for _ in 0..TRIES {
        match look(directory, id) {
            Err(Errno::NOENT) => create(directory, id)?,
            Err(errno) => return Err(errno),
            Ok(Err(refusal)) => return Ok(Err(refusal)),
            Ok(Ok((found, owner))) => match reopen(found.as_fd(), OFlags::RDWR) {
                Ok(opened) => return Ok(Ok(opened)),
                // Somebody else's, and not squashed into our own: the export's owner is not what refuses us.
                Err(Errno::ACCESS | Errno::PERM) if owner != acting_uid() => return Ok(Err(Refusal::Owner)),
                Err(errno) => return Err(errno),
            },
        }
    }
    Ok(Err(Refusal::FileKind))
}

/// Looks at the file without opening it: a FIFO would block, a device would act.
fn look(directory: BorrowedFd<'_>, id: &str) -> Result<Result<(OwnedFd, u32), Refusal>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // O_PATH with O_NOFOLLOW opens a symlink itself, RESOLVE_NO_SYMLINKS forbids that too.
    let found = match rustix::fs::openat2(directory, id, flags, Mode::empty(), BENEATH) {
        Err(Errno::LOOP | Errno::XDEV) => return Ok(Err(Refusal::FileKind)),
        found => found?,
    };
    let mask = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::NLINK | StatxFlags::SIZE | StatxFlags::UID;
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC | AtFlags::NO_AUTOMOUNT;
    let seen = rustix::fs::statx(&found, "", flags, mask)?;
    let refusal = if FileType::from_raw_mode(u32::from(seen.stx_mode)) != FileType::RegularFile {
        Some(Refusal::FileKind)
    } else if seen.stx_nlink == 0 {
        return Err(Errno::NOENT);
    } else if seen.stx_nlink != 1 {
        Some(Refusal::Links)
    } else if seen.stx_size > MOST {
        Some(Refusal::Size)
    } else {
        None
    };
    Ok(refusal.map_or(Ok((found, seen.stx_uid)), Err))
}

/// Without O_EXCL: an earlier request of ours that the server runs late must not be in the way of this one.
fn create(directory: BorrowedFd<'_>, id: &str) -> Result<(), Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat2(directory, id, flags, Mode::from_raw_mode(0o666), BENEATH) {
        // Something came in between: the next look says what.
        Ok(_) | Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Opens exactly the file that was looked at, whatever its name leads to by now.
fn reopen(found: BorrowedFd<'_>, access: OFlags) -> Result<Opened, Errno> {
    let path = CString::new(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(|_| Errno::INVAL)?;
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::open(path.as_c_str(), flags | OFlags::DIRECT, Mode::empty()) {
        Ok(file) => Ok(Opened { file, direct: true }),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {
            Ok(Opened { file: rustix::fs::open(path.as_c_str(), flags, Mode::empty())?, direct: false })
        }
        Err(errno) => Err(errno),
    }
}

/// Whether it belongs to another user than the one that acts, and was not squashed into him.
pub(super) fn is_anothers(directory: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(directory).is_ok_and(|seen| seen.st_uid != acting_uid())
}

/// The user that the kernel shows to filesystems; setfsuid(2) with an id that is none changes nothing and tells it.
fn acting_uid() -> u32 {
    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(u32::MAX)).as_raw()
}

impl Opened {
    /// What stands there.
    pub(super) fn read(&mut self) -> Result<Contents, Errno> {
        Ok(record::read(&self.read_block()?))
    }

    /// Writes a record over it.
    pub(super) fn write(&mut self, block: &[u8]) -> Result<(), Errno> {
        self.write_at(block, 0)
    }

    /// What was written is on stable storage when this returns.
    pub(super) fn commit(&self) -> Result<(), Errno> {
        rustix::fs::fdatasync(&self.file)
    }

    /// Reads the record again, from where it was written to and not from this node's memory.
    pub(super) fn read_back(&mut self, directory: BorrowedFd<'_>, id: &str) -> Result<Vec<u8>, Errno> {
        if self.direct {
            return self.read_block();
        }
        // Its pages are clean by now and can be dropped; opening it anew makes a network filesystem ask its server.
        rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(directory, id, flags, Mode::empty(), BENEATH)?;
        Opened { file, direct: false }.read_block()
    }

    /// When the server says that it was written.
    pub(super) fn written(&self) -> Result<u64, Errno> {
        super::written(self.file.as_fd())
    }

    /// Takes one more block and gives it back: a record that is written over needs no room, so it would never meet a
    /// full disk or a quota.
    pub(super) fn take_room(&mut self) -> Result<(), Errno> {
        let block = vec![b'-'; SIZE];
        let taken = self.write_at(&block, SIZE as u64).and_then(|()| self.commit());
        let given_back = rustix::fs::ftruncate(&self.file, SIZE as u64);
        taken.and(given_back)
    }

    fn write_at(&mut self, block: &[u8], offset: u64) -> Result<(), Errno> {
        let mut aligned = Aligned::new();
        aligned.block_mut().copy_from_slice(block.get(..SIZE).ok_or(Errno::INVAL)?);
        let count = match rustix::io::pwrite(&self.file, aligned.block(), offset) {
            // Opened with O_DIRECT, and only now the filesystem says that it cannot.
            Err(Errno::INVAL) if self.direct => {
                self.buffered()?;
                rustix::io::pwrite(&self.file, aligned.block(), offset)?
            }
            other => other?,
        };
        // A short write without an error: there was no room for the rest.
        if count == SIZE { Ok(()) } else { Err(Errno::NOSPC) }
    }

    fn read_block(&mut self) -> Result<Vec<u8>, Errno> {
        let mut aligned = Aligned::new();
        let count = match rustix::io::pread(&self.file, aligned.block_mut(), 0) {
            Err(Errno::INVAL) if self.direct => {
                self.buffered()?;
                rustix::io::pread(&self.file, aligned.block_mut(), 0)?
            }
            other => other?,
        };
        Ok(aligned.block().get(..count).unwrap_or_default().to_vec())
    }

    fn buffered(&mut self) -> Result<(), Errno> {
        self.direct = false;
        let flags = rustix::fs::fcntl_getfl(&self.file)?;
        rustix::fs::fcntl_setfl(&self.file, flags.difference(OFlags::DIRECT))
    }
}

/// Looks at another node's file: its descriptor, if it can be a record.
pub(super) fn look_at_peer(directory: BorrowedFd<'_>, id: &str) -> Result<Option<OwnedFd>, Errno> {
    let Ok((found, _)) = look(directory, id)? else { return Ok(None) };
    let path = CString::new(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(|_| Errno::INVAL)?;
    // Through the cache, as an application reads it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path.as_c_str(), flags, Mode::empty()).map(Some)
}

/// Reads the first block of an open file through the cache.
pub(super) fn read_through(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut block = vec![0; SIZE];
    let count = rustix::io::pread(file, &mut block[..], 0)?;
    block.truncate(count);
    Ok(block)
}

/// Reads a node's file by its path from the root on.
pub(super) fn read_from(root: BorrowedFd<'_>, directory: &str, id: &str) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("{directory}/{id}");
    let file = rustix::fs::openat2(root, path.as_str(), flags, Mode::empty(), BENEATH)?;
    read_through(file.as_fd())
}

/// Memory at an address that O_DIRECT accepts everywhere.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Aligned {
        let bytes = vec![0; 2 * SIZE];
        let start = bytes.as_ptr().align_offset(SIZE).min(SIZE);
        Aligned { bytes, start }
    }

    fn block(&self) -> &[u8] {
        self.bytes.get(self.start..self.start + SIZE).unwrap_or_default()
    }

    fn block_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.start + SIZE).unwrap_or_default()
    }
}
