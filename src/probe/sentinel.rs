//! Sentinels: a few entries of the root by which the worker notices that another filesystem answers behind the same
//! handle. Choosing and checking them; what it means is for the verdict.
#![expect(clippy::disallowed_methods, reason = "this is the code that touches mounts, in an expendable process")]

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::{Sentinel, SentinelCheck, SentinelFate, steps};
use crate::mounts::Dev;

/// One getdents64(2) of this size is all that learning reads, however large the directory is.
const DIRECTORY_BYTES: usize = 32 << 10;

/// Where canaries are written; nobody's files.
const OWN: &[u8] = crate::canary::DIRECTORY.as_bytes();

/// Entries looked at more closely while choosing; each costs a request or two.
const MAX_CANDIDATES: usize = 16;

/// Names that come and go, or lie on another filesystem: snapshots of storage systems, silly-renamed files of the NFS
/// client, our own directory.
pub(super) fn unsuitable(name: &[u8]) -> bool {
    let exact: [&[u8]; 6] = [b".", b"..", b"lost+found", b".zfs", b"~snapshot", OWN];
    let prefixes: [&[u8]; 2] = [b".snapshot", b".nfs"];
    exact.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Chooses up to `wanted` entries with ONE directory read; directories first, because people replace files more often.
/// `next` is called before each entry is looked at: each has a deadline of its own.
///
/// # Errors
/// What opening or reading the directory says; EACCES means that there can be no sentinel.
pub fn learn(
    root: BorrowedFd<'_>,
    dev: Dev,
    wanted: usize,
    next: &dyn Fn() -> Result<(), Errno>,
) -> Result<Vec<Sentinel>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let directory = rustix::fs::openat(root, ".", flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(DIRECTORY_BYTES);
    let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
    let mut names: Vec<(bool, Vec<u8>)> = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !unsuitable(name) {
            names.push((entry.file_type().is_dir(), name.to_vec()));
        }
        if entries.is_buffer_empty() {
            break;
        }
    }
    names.sort_by_key(|(directory, _)| !directory);
    let mut chosen = Vec::new();
    for (_, name) in names.into_iter().take(MAX_CANDIDATES) {
        if chosen.len() == wanted {
            break;
        }
        next()?;
        match examine(root, dev, &name) {
            Ok(Some(mark)) => chosen.push(Sentinel { name, mark }),
            // Gone meanwhile, not ours to see, or no sentinel by nature: the next one may do.
            Ok(None) | Err(Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::STALE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(chosen)
}

/// The mark of an entry that can serve: same superblock, no mount point, no automount trigger.
fn examine(root: BorrowedFd<'_>, dev: Dev, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let entry = steps::open_entry(root, name)?;
    let cached = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let seen = rustix::fs::statx(&entry, "", cached, StatxFlags::TYPE)?;
    let set = seen.stx_attributes & seen.stx_attributes_mask;
    let crossing = StatxAttributes::MOUNT_ROOT | StatxAttributes::AUTOMOUNT;
    if set.intersects(crossing) || (seen.stx_dev_major, seen.stx_dev_minor) != (dev.major, dev.minor) {
        return Ok(None);
    }
    Ok(Some(steps::forced_mark(entry.as_fd())?))
}

/// Looks at one sentinel: is the same file still there?
#[must_use]
pub fn check(root: BorrowedFd<'_>, sentinel: &Sentinel) -> SentinelCheck {
    let start = Instant::now();
    let outcome = look(root, sentinel);
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let (fate, errno) = match outcome {
        Ok(true) => (SentinelFate::Intact, None),
        Ok(false) => (SentinelFate::Changed, None),
        Err(errno @ (Errno::NOENT | Errno::STALE)) => (SentinelFate::Gone, Some(errno.raw_os_error())),
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => (SentinelFate::NoAccess, Some(errno.raw_os_error())),
        Err(errno) => (SentinelFate::Failed, Some(errno.raw_os_error())),
    };
    SentinelCheck { fate, errno, micros }
}

fn look(root: BorrowedFd<'_>, sentinel: &Sentinel) -> Result<bool, Errno> {
    let entry = steps::open_entry(root, &sentinel.name)?;
    Ok(steps::forced_mark(entry.as_fd())? == sentinel.mark)
}
