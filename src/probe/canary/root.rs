//! The root of the mount and our directory in it.
#![expect(clippy::disallowed_methods, reason = "this is the code that touches mounts, in an expendable process")]

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use crate::canary::DIRECTORY;

/// Nothing above, no symlink of any kind, no other mount.
pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// One getdents64(2) of this size tells whether there is anything: the first entry that is not ours ends the search.
const LISTING_BYTES: usize = 4096;

pub(super) fn open_directory(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, DIRECTORY, flags, Mode::empty(), BENEATH) {
        // Our own directory may admit its members and not be listed.
        Err(Errno::ACCESS) => rustix::fs::openat2(root, DIRECTORY, flags | OFlags::PATH, Mode::empty(), BENEATH),
        other => other,
    }
}

/// Makes our directory as an application would: its mode is what the umask leaves.
pub(super) fn make_directory(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(root, DIRECTORY, Mode::from_raw_mode(0o777)) {
        // Another node was first, or an earlier request of ours ran late.
        Ok(()) | Err(Errno::EXIST) => open_directory(root),
        Err(errno) => Err(errno),
    }
}

/// Whether there is nothing in the root but our directory.
pub(super) fn otherwise_empty(root: BorrowedFd<'_>) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(root, ".", flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(LISTING_BYTES);
    let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let name = entry?;
        let name = name.file_name().to_bytes();
        if name != b"." && name != b".." && name != DIRECTORY.as_bytes() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the present identity could make entries in the root.
pub(super) fn may_write(root: BorrowedFd<'_>) -> bool {
    rustix::fs::accessat(root, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// Takes our file away, and the directory if it was the last one.
pub(super) fn retire(root: BorrowedFd<'_>, directory: BorrowedFd<'_>, id: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, id, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
        Err(errno) => return Err(errno),
    }
    // Not empty: other nodes take theirs away themselves.
    let _ = rustix::fs::unlinkat(root, DIRECTORY, AtFlags::REMOVEDIR);
    Ok(())
}
