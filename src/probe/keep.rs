//! The agent's state file, read and written by a worker: the path may lie on a mount that is dead by now. Only a local
//! filesystem will do.
#![expect(clippy::disallowed_methods, reason = "this is the code of the worker, in an expendable process")]

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::steps;

/// Longest file that is read or written.
pub const LONGEST: usize = 3 << 20;

/// `f_type` of filesystems that wait for no server (include/uapi/linux/magic.h): tmpfs, ext4, xfs, btrfs, overlayfs,
/// f2fs, zfs, ramfs.
const LOCAL: [u32; 8] =
    [0x0102_1994, 0xef53, 0x5846_5342, 0x9123_683e, 0x794c_7630, 0xf2f5_2010, 0x2fc1_2fc1, 0x8584_58f6];

/// Reads it; `None` where there is none.
///
/// # Errors
/// EXDEV where it does not lie on a local filesystem; what open(2) or read(2) say.
pub fn recall(path: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let (directory, name) = open_directory(path)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
        Ok(file) => steps::read_all(file.as_fd(), LONGEST).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Writes it whole or not at all.
///
/// # Errors
/// As [`recall`]; what write(2) or rename(2) say.
pub fn keep(path: &[u8], bytes: &[u8]) -> Result<(), Errno> {
    let (directory, name) = open_directory(path)?;
    let fresh = [name.as_bytes(), b".new"].concat();
    let fresh = OsStr::from_bytes(&fresh);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::openat(&directory, fresh, flags, Mode::RUSR | Mode::WUSR)?;
    steps::write_all(file.as_fd(), bytes)?;
    // Not synced: it is worth nothing after a crash of the machine, which has another boot id then.
    rustix::fs::renameat(&directory, fresh, &directory, name)
}

fn open_directory(path: &[u8]) -> Result<(OwnedFd, &OsStr), Errno> {
    let path = Path::new(OsStr::from_bytes(path));
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let kind = u32::try_from(rustix::fs::fstatfs(&directory)?.f_type).map_err(|_| Errno::XDEV)?;
    if LOCAL.contains(&kind) { Ok((directory, name)) } else { Err(Errno::XDEV) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_recalled_and_replaced_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("state").into_os_string().into_encoded_bytes();
        if recall(&path) == Err(Errno::XDEV) {
            return; // The scratch directory of this machine is on something that is not known to be local.
        }
        assert_eq!(recall(&path), Ok(None));
        keep(&path, b"one, and longer").unwrap();
        keep(&path, b"two").unwrap();
        assert_eq!(recall(&path), Ok(Some(b"two".to_vec())));
    }

    #[test]
    fn only_a_local_filesystem_will_do() {
        assert_eq!(recall(b"/proc/self/status"), Err(Errno::XDEV));
        assert_eq!(keep(b"/proc/mountwarden", b"x"), Err(Errno::XDEV));
        assert_eq!(recall(b"/nonexistent/state"), Err(Errno::NOENT));
        assert_eq!(recall(b"/"), Err(Errno::INVAL));
    }
}
