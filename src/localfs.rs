//! The one place outside the probe workers that opens files: kernel files under the proc root, and local files that a
//! person named (the configuration). None of them lies on a monitored mount.
#![expect(clippy::disallowed_methods, reason = "this is the place that clippy.toml sends the others to")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a kernel file whole. procfs reports no size, so it is read to its end.
///
/// # Errors
/// What open(2) or read(2) say.
pub fn read_kernel_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file of a process whole; `None`: the process ended.
///
/// # Errors
/// What open(2) or read(2) say, by the file's path.
pub fn read_process_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read_kernel_file(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if process_ended(&error) => Ok(None),
        Err(error) => Err(named(path, &error)),
    }
}

/// Of a file or directory of a process: it ended before (ENOENT) or after (ESRCH) that was opened.
#[must_use]
pub fn process_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The error with the path that it is about.
#[must_use]
pub fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Opens a kernel file, to poll it or to read it again and again.
///
/// # Errors
/// What open(2) says.
pub fn open_kernel_file(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Opens the kernel log (`/dev/kmsg`) at its end; reading it never waits.
///
/// # Errors
/// What open(2) says.
pub fn open_kernel_log(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// Number of entries of a kernel directory (`/proc/self/fd`).
///
/// # Errors
/// What open(2) or getdents(2) say.
pub fn count_kernel_dir(path: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(path)? {
        entry?;
        count += 1;
    }
    Ok(count)
}

/// The entries of a kernel directory that are numbers: processes in `/proc`, threads in `/proc/PID/task`.
///
/// # Errors
/// What open(2) or getdents(2) say.
pub fn kernel_dir_numbers(path: &Path) -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(path)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(numbers)
}

/// Where a link of the kernel's leads (`/proc/PID/ns/mnt`, `/proc/PID/root`), as it says so itself; nothing is followed.
///
/// # Errors
/// What readlink(2) says.
pub fn read_kernel_link(path: &Path) -> io::Result<std::path::PathBuf> {
    std::fs::read_link(path)
}

/// Reads a local file that a person named, up to `limit` bytes.
///
/// # Errors
/// What open(2) or read(2) say; [`io::ErrorKind::FileTooLarge`] when the file goes on after `limit` bytes.
pub fn read_local_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(path)?.take(limit.saturating_add(1));
    let read = file.read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read > limit) {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}
