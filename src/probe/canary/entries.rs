//! A sample of the root's entries: can the ids that share the mount pass them? Nothing is written or opened.
#![expect(clippy::disallowed_methods, reason = "this is the code that touches mounts, in an expendable process")]

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::{ClosedTo, Entries, EntryUser};
use crate::canary::Ids;
use crate::probe::sentinel::unsuitable;

/// One getdents64(2) of this size, however large the directory is.
const DIRECTORY_BYTES: usize = 32 << 10;

/// Entries that are looked at; each may cost a request.
const MOST: u64 = 16;

/// Looks at up to [`MOST`] entries; `round` rotates the sample.
pub(super) fn sample(
    root: BorrowedFd<'_>,
    readers: &[&Ids],
    users: &[EntryUser],
    round: u64,
) -> Result<Entries, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(root, ".", flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(DIRECTORY_BYTES);
    let mut listed = RawDir::new(&directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = listed.next() {
        let entry = entry?;
        if !unsuitable(entry.file_name().to_bytes()) {
            names.push(entry.file_name().to_owned());
        }
        if listed.is_buffer_empty() {
            break;
        }
    }
    let count = u64::try_from(names.len()).unwrap_or(u64::MAX).max(1);
    let begin = usize::try_from(round.wrapping_mul(MOST) % count).unwrap_or(0);
    let (before, after) = names.split_at(begin.min(names.len()));
    let mut entries = Entries::default();
    let closed = |user: &EntryUser| ClosedTo { name: user.name.clone(), closed: 0, example: Vec::new() };
    let mut closed_to: Vec<ClosedTo> = users.iter().map(closed).collect();
    for name in after.iter().chain(before).take(usize::try_from(MOST).unwrap_or(0)) {
        // What the client knows is good enough; the lookup of an entry that it does not know asks the server.
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        let mask = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::UID | StatxFlags::GID;
        let Ok(seen) = rustix::fs::statx(root, name, flags, mask) else { continue };
        let crossing = StatxAttributes::MOUNT_ROOT | StatxAttributes::AUTOMOUNT;
        let kind = FileType::from_raw_mode(u32::from(seen.stx_mode));
        if (seen.stx_attributes & seen.stx_attributes_mask).intersects(crossing)
            || !matches!(kind, FileType::Directory | FileType::RegularFile)
        {
            continue;
        }
        entries.looked += 1;
        let directory = kind == FileType::Directory;
        let pass = |ids: &Ids| ids.pass(u32::from(seen.stx_mode), seen.stx_uid, seen.stx_gid, directory);
        if !readers.iter().all(|ids| pass(ids)) {
            entries.closed += 1;
            entries.example = name.to_bytes().to_vec();
        }
        for (user, closed) in users.iter().zip(&mut closed_to) {
            // Helpers of a container (a worker of a server that root started) need not read what the others do.
            if !user.ids.iter().any(pass) {
                closed.closed += 1;
                closed.example = name.to_bytes().to_vec();
            }
        }
    }
    // A directory of its own for each pod is in order. Where most is closed to a container, what it needs is too.
    closed_to.retain(|user| user.closed * 2 > entries.looked);
    entries.users = closed_to;
    Ok(entries)
}
