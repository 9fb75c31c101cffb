//! The system calls of a probe, in the worker. Each function is one step; none of them retries.
#![expect(clippy::disallowed_methods, reason = "this is the code that touches mounts, in an expendable process")]
#![expect(unsafe_code, reason = "name_to_handle_at has no safe wrapper")]

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use super::wire::Place;
use super::{Identity, RootAttributes, Space};

/// statx(2) mask bit of Linux 6.8: the mount id that is never reused.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// Opens a mountpoint `O_PATH`: that sends nothing to the server of this mount (measured on NFS and FUSE).
///
/// Symlinks are refused on the whole way: the table's paths have none, so one that is there now is a trap or a race.
///
/// # Errors
/// What openat2(2) says.
pub fn open_place(place: &Place) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = OsStr::from_bytes(&place.path);
    let cached = if place.cached_only { ResolveFlags::CACHED } else { ResolveFlags::empty() };
    let resolve = ResolveFlags::NO_SYMLINKS | cached;
    if place.root.is_empty() {
        return rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve);
    }
    // `/proc/PID/root` is a magic link: it is followed on purpose, and nothing below it may leave it.
    let root = rustix::fs::open(OsStr::from_bytes(&place.root), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve | ResolveFlags::IN_ROOT)
}

/// Compares an open root with the table and takes its identity, all from the kernel's memory.
///
/// `None`: the path leads to another mount than the table says.
///
/// # Errors
/// What statx(2) says.
pub fn identify(root: BorrowedFd<'_>, place: &Place) -> Result<Option<Identity>, Errno> {
    let cached = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let seen = rustix::fs::statx(root, "", cached, StatxFlags::INO | StatxFlags::MNT_ID)?;
    let mask = StatxFlags::from_bits_retain(seen.stx_mask);
    let other_mount = mask.contains(StatxFlags::MNT_ID) && seen.stx_mnt_id != place.mount_id;
    if other_mount || (seen.stx_dev_major, seen.stx_dev_minor) != (place.dev.major, place.dev.minor) {
        return Ok(None);
    }
    let unique = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
    let unique_mount_id = rustix::fs::statx(root, "", cached, unique)
        .ok()
        .filter(|answer| answer.stx_mask & STATX_MNT_ID_UNIQUE != 0)
        .map(|answer| answer.stx_mnt_id);
    Ok(Some(Identity { handle: handle(root).unwrap_or_default(), ino: seen.stx_ino, unique_mount_id }))
}

/// Whether sysfs still lists a block device. A kernel without sysfs there says nothing about it.
///
/// # Errors
/// ENODEV when its directory is there and the device is not.
pub fn device_there(entry: &[u8]) -> Result<(), Errno> {
    let path = std::path::Path::new(OsStr::from_bytes(entry));
    let there = |path| rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE).is_ok();
    match path.parent() {
        Some(directory) if there(directory) && !there(path) => Err(Errno::NODEV),
        _ => Ok(()),
    }
}

/// Attributes of an open file as its server gives them now.
///
/// The mask is exactly TYPE, MODE, NLINK and INO: times of a regular file would flush the application's dirty pages and
/// could leave this process unkillable; TYPE and INO alone send no request (both measured).
///
/// # Errors
/// What statx(2) says.
pub fn force(file: BorrowedFd<'_>) -> Result<RootAttributes, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
    let mask = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::NLINK | StatxFlags::INO;
    let answer = rustix::fs::statx(file, "", flags, mask)?;
    Ok(RootAttributes { ino: answer.stx_ino, nlink: answer.stx_nlink, mode: answer.stx_mode })
}

/// Totals of the filesystem of an open file.
///
/// # Errors
/// What fstatfs(2) says.
pub fn space(root: BorrowedFd<'_>) -> Result<Space, Errno> {
    let answer = rustix::fs::fstatfs(root)?;
    let block = u64::try_from(if answer.f_frsize > 0 { answer.f_frsize } else { answer.f_bsize }).unwrap_or(0);
    Ok(Space {
        size: answer.f_blocks.saturating_mul(block),
        free: answer.f_bfree.saturating_mul(block),
        avail: answer.f_bavail.saturating_mul(block),
        files: answer.f_files,
        files_free: answer.f_ffree,
    })
}

/// File handle of an open file with its type in front (name_to_handle_at(2)); `None` where the type has none.
///
/// On NFS the handle holds the server's own handle and the fileid, on local filesystems inode and generation.
#[must_use]
pub fn handle(file: BorrowedFd<'_>) -> Option<Vec<u8>> {
    // MAX_HANDLE_SZ of include/linux/exportfs.h.
    const SIZE: usize = 128;
    #[repr(C)]
    struct Buffer {
        bytes: u32,
        kind: i32,
        data: [u8; SIZE],
    }
    let mut buffer = Buffer { bytes: 128, kind: 0, data: [0; SIZE] };
    let mut mount_id = 0;
    let empty: &CStr = c"";
    // SAFETY: the descriptor is open; `buffer` has the layout of struct file_handle followed by as many bytes as its
    // first field says; `mount_id` is a valid int; all of them live across the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            file.as_raw_fd(),
            empty.as_ptr(),
            &raw mut buffer,
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    let _: i32 = mount_id;
    if result != 0 {
        return None;
    }
    let length = usize::try_from(buffer.bytes).ok()?;
    let data = buffer.data.get(..length)?;
    let mut handle = buffer.kind.to_be_bytes().to_vec();
    handle.extend_from_slice(data);
    Some(handle)
}

/// What tells this file from another one of its name: its handle, else its inode number as the server just gave it.
///
/// The NFS client has handles on v3 and from v4.1 on, not on v4.0 (`nfs_fill_super` sets `s_export_op` for those only;
/// measured). Inode numbers repeat on fresh filesystems, so without handles another file may pass for the old one.
fn mark(file: BorrowedFd<'_>, attributes: RootAttributes) -> Vec<u8> {
    handle(file).unwrap_or_else(|| attributes.ino.to_be_bytes().to_vec())
}

/// The mark of a file as the server has it now.
///
/// It is taken after the forced statx: that revalidates the entry, so a stale one cannot pass for the old file.
///
/// # Errors
/// What statx(2) says.
pub fn forced_mark(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let attributes = force(file)?;
    Ok(mark(file, attributes))
}

/// Opens an entry of a directory `O_PATH` without following it and without triggering an automount.
///
/// # Errors
/// What openat(2) says.
pub fn open_entry(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Reads a kernel file or a small local file whole, up to `limit` bytes.
///
/// # Errors
/// What open(2) or read(2) say.
pub fn read_file(path: &[u8], limit: usize) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = rustix::fs::open(OsStr::from_bytes(path), flags, Mode::empty())?;
    read_all(file.as_fd(), limit)
}

/// Reads an open file to its end, up to `limit` bytes.
///
/// # Errors
/// What read(2) says.
pub fn read_all(file: BorrowedFd<'_>, limit: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    while bytes.len() < limit {
        let count = rustix::io::read(file, &mut chunk)?;
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
    bytes.truncate(limit);
    Ok(bytes)
}

/// Writes all of it, however many calls that takes.
///
/// # Errors
/// What write(2) says.
pub fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))?;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_gone_only_where_sysfs_lists_the_others() {
        use std::os::unix::ffi::OsStrExt;
        let sysfs = tempfile::tempdir().unwrap();
        let entry = sysfs.path().join("259:3");
        let there = || device_there(entry.as_os_str().as_bytes());
        assert_eq!(there(), Err(Errno::NODEV));
        // The entries are symlinks, and this one leads nowhere: it is listed all the same.
        std::os::unix::fs::symlink("../../devices/nowhere", &entry).unwrap();
        assert_eq!(there(), Ok(()));
        assert_eq!(device_there(b"/nonexistent/block/259:3"), Ok(()), "no sysfs, no news");
    }
}
