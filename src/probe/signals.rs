//! Reads what the kernel says of connections and queues, in a worker: sysfs never blocked when it was measured, but it is
//! not the agent's to try.
#![expect(clippy::disallowed_methods, reason = "this is the code of the worker, in an expendable process")]

use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::steps;
use super::wire::{Signals, SignalsJob};
use crate::passive::fuse;
use crate::passive::sunrpc::{self, Link};

/// Longest content of a file that is read here.
const FILE: usize = 4096;

/// Most connections that are looked at, and most FUSE filesystems.
const MOST: usize = 4096;

/// `f_type` of fusectl (include/uapi/linux/magic.h).
const FUSE_CTL_SUPER_MAGIC: rustix::fs::FsWord = 0x6573_5543;

/// Reads what was asked for. The first of the roots that has it answers.
pub(super) fn read(job: &SignalsJob) -> Signals {
    let mut signals = Signals::default();
    if job.transports {
        match first(&job.roots, transports) {
            Ok(links) => signals.transports = links,
            Err(errno) => signals.transports_errno = Some(errno.raw_os_error()),
        }
    }
    if !job.connections.is_empty() {
        match first(&job.roots, |root| waiting(root, &job.connections)) {
            Ok(waiting) => signals.waiting = waiting,
            Err(errno) => signals.waiting_errno = Some(errno.raw_os_error()),
        }
    }
    signals
}

/// What the first root gives that has it; the error of the first one where none has.
fn first<T>(roots: &[Vec<u8>], read: impl Fn(&[u8]) -> Result<T, Errno>) -> Result<T, Errno> {
    let mut error = Errno::NOENT;
    for (index, root) in roots.iter().enumerate() {
        match read(root) {
            Ok(value) => return Ok(value),
            Err(errno) if index == 0 => error = errno,
            Err(_) => {}
        }
    }
    Err(error)
}

fn transports(root: &[u8]) -> Result<Vec<(std::net::IpAddr, Link)>, Errno> {
    let switches = [root, b"/kernel/sunrpc/xprt-switches"].concat();
    let mut links = Vec::new();
    for switch in names(&switches, b"switch-")? {
        let switch = [&switches[..], b"/", &switch].concat();
        // It may be gone by now, as may its transports.
        for transport in names(&switch, b"xprt-").unwrap_or_default() {
            let file = |name: &[u8]| steps::read_file(&[&switch[..], b"/", &transport, b"/", name].concat(), FILE);
            let (Ok(address), Ok(state)) = (file(b"dstaddr"), file(b"xprt_state")) else { continue };
            links.extend(sunrpc::address(&address).zip(sunrpc::link(&state)));
            if links.len() >= MOST {
                return Ok(links);
            }
        }
    }
    Ok(links)
}

/// Names in a directory with a prefix, at most as many as are looked at.
fn names(path: &[u8], prefix: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
    let directory = open_directory(path)?;
    let mut buffer = Vec::with_capacity(1 << 13);
    let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name.starts_with(prefix) && names.len() < MOST {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn waiting(root: &[u8], connections: &[u32]) -> Result<Vec<(u32, u64)>, Errno> {
    let control = [root, b"/fs/fuse/connections"].concat();
    // The directory is there without the filesystem on it.
    if rustix::fs::fstatfs(open_directory(&control)?)?.f_type != FUSE_CTL_SUPER_MAGIC {
        return Err(Errno::NODEV);
    }
    let mut found = Vec::new();
    for minor in connections.iter().take(MOST) {
        let path = [&control[..], format!("/{minor}/waiting").as_bytes()].concat();
        match steps::read_file(&path, FILE) {
            Ok(bytes) => found.extend(fuse::waiting(&bytes).map(|waiting| (*minor, waiting))),
            // Unmounted meanwhile.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

fn open_directory(path: &[u8]) -> Result<std::os::fd::OwnedFd, Errno> {
    use std::os::unix::ffi::OsStrExt;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(std::ffi::OsStr::from_bytes(path), flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn job(roots: &[&Path]) -> SignalsJob {
        let roots = roots.iter().map(|root| root.as_os_str().as_bytes().to_vec()).collect();
        SignalsJob { roots, transports: true, connections: vec![51] }
    }

    #[test]
    fn the_connections_of_all_switches_are_read_and_odd_ones_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let base = "kernel/sunrpc/xprt-switches";
        for (place, address, state) in [
            ("switch-0/xprt-0-tcp", "10.0.1.1\n", "state= CONNECTED BOUND\n"),
            ("switch-0/xprt-1-tcp", "10.0.1.1\n", "state= BOUND\n"),
            ("switch-1/xprt-2-tcp", "fd00::1\n", "state=CONNECTING\n"),
            ("switch-1/xprt-3-local", "/run/rpcbind.sock\n", "state=CONNECTED\n"),
            ("other/xprt-4-tcp", "10.0.1.9\n", "state=CONNECTED\n"),
        ] {
            write(root.path(), &format!("{base}/{place}/dstaddr"), address);
            write(root.path(), &format!("{base}/{place}/xprt_state"), state);
        }
        write(root.path(), &format!("{base}/switch-1/xprt-5-tcp/dstaddr"), "10.0.1.3\n");
        let mut links = read(&job(&[root.path()])).transports;
        links.sort();
        let expected = [("10.0.1.1", Link::Connected), ("10.0.1.1", Link::NotConnected), ("fd00::1", Link::Connecting)];
        assert_eq!(links, expected.map(|(address, link)| (address.parse().unwrap(), link)));
    }

    #[test]
    fn the_second_root_answers_where_the_first_has_nothing() {
        let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(full.path(), "kernel/sunrpc/xprt-switches/switch-0/xprt-0-tcp/dstaddr", "10.0.1.1");
        write(full.path(), "kernel/sunrpc/xprt-switches/switch-0/xprt-0-tcp/xprt_state", "state=");
        let signals = read(&job(&[empty.path(), full.path()]));
        assert_eq!((signals.transports.len(), signals.transports_errno), (1, None));
    }

    #[test]
    fn what_is_absent_is_named_by_its_errno() {
        let empty = tempfile::tempdir().unwrap();
        let signals = read(&job(&[empty.path()]));
        assert_eq!((signals.transports_errno, signals.waiting_errno), (Some(libc::ENOENT), Some(libc::ENOENT)));
        // A directory of that name on which no fusectl is mounted.
        write(empty.path(), "fs/fuse/connections/51/waiting", "3\n");
        assert_eq!(read(&job(&[empty.path()])).waiting_errno, Some(libc::ENODEV));
        assert_eq!(read(&SignalsJob { roots: Vec::new(), ..job(&[]) }).transports_errno, Some(libc::ENOENT));
    }
}
