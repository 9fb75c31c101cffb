//! The binary that workers start from: a sealed copy in memory, made when the agent starts.
//!
//! The file that the agent was started from may lie on a mount that dies, or be replaced by an update; a worker must start
//! all the same, and must be of the agent's own version.
#![expect(unsafe_code, reason = "memfd_create with MFD_EXEC has no safe wrapper yet")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};

/// What workers start from.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    /// Keeps the copy in memory alive; `path` leads to it.
    _memory: Option<OwnedFd>,
}

impl Image {
    /// Copies `/proc/self/exe` into memory and seals it.
    ///
    /// # Errors
    /// The binary cannot be read, or the kernel refuses memory files.
    pub fn of_this_binary() -> io::Result<Image> {
        let mut source = crate::localfs::open_kernel_file("/proc/self/exe".as_ref())?;
        let memory = create()?;
        let mut target = File::from(memory);
        io::copy(&mut source, &mut target)?;
        let memory = OwnedFd::from(target);
        seal(&memory)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
        Ok(Image { path, _memory: Some(memory) })
    }

    /// A path that a child of this process can execute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A program that behaves as a worker must not.
    #[cfg(test)]
    pub(crate) fn impostor(path: PathBuf) -> Image {
        Image { path, _memory: None }
    }
}

/// Nobody maps the copy for writing, so it is enough to forbid what comes. `F_SEAL_WRITE` would wait for every reference to
/// its pages and give up with EBUSY (`memfd_wait_for_pins` in the kernel's mm/memfd.c), also for one that another processor's
/// list of fresh pages holds: on a busy node the agent would not start. Kernels before 5.1 know no other seal.
fn seal(memory: &OwnedFd) -> io::Result<()> {
    let size = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    match fcntl(memory, FcntlArg::F_ADD_SEALS(size | SealFlag::F_SEAL_FUTURE_WRITE)) {
        Err(Errno::EINVAL) => fcntl(memory, FcntlArg::F_ADD_SEALS(size | SealFlag::F_SEAL_WRITE))?,
        answer => answer?,
    };
    Ok(())
}

/// Linux 6.3 wants `MFD_EXEC` said (sysctl vm.memfd_noexec); older kernels do not know it and answer EINVAL.
fn create() -> io::Result<OwnedFd> {
    let name = CString::new("mountwarden-worker")?;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    for flags in [flags | libc::MFD_EXEC, flags] {
        // SAFETY: `name` is a NUL-terminated string that lives across the call; the result is checked before use.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        if fd >= 0 {
            // SAFETY: `fd` was just returned by the kernel and belongs to nobody else.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Err(io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::fcntl::{SpliceFFlags, splice};

    use super::*;

    #[test]
    fn a_copy_is_sealed_though_somebody_holds_its_pages() {
        let mut target = File::from(create().unwrap());
        target.write_all(b"a program").unwrap();
        let memory = OwnedFd::from(target);
        // A pipe that the page was spliced into holds it, as a list of another processor does for a while.
        let (_reader, writer) = nix::unistd::pipe().unwrap();
        assert_eq!(splice(&memory, Some(&mut 0), &writer, None, 9, SpliceFFlags::empty()), Ok(9));
        let before = fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE));
        assert_eq!(before, Err(Errno::EBUSY), "the page is held");

        seal(&memory).unwrap();
        let error = File::from(memory).write_all(b"another").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    }
}
