//! A cgroup of its own for a process that may become unkillable: in the container's, one process stuck in the kernel
//! leaves the pod Terminating, or Ready and dead (measured on a kubelet). And the processes that earlier agents left
//! there: the directory of each says which superblock it is stuck on.
#![expect(clippy::disallowed_methods, reason = "this is the code of the worker, in an expendable process")]

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use procfs::FromRead;
use procfs::process::Stat;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::mounts::Dev;
use crate::probe::steps;
use crate::remedy::processes::Status;

/// Where the workers' cgroups are, at the root of the hierarchy.
const PARENT: &str = "mountwarden.canary";

/// `f_type` of the unified hierarchy (include/uapi/linux/magic.h).
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// Cgroups of earlier agents that are looked at.
const MOST: usize = 4096;

/// Longest list of processes that is read.
const PROCS_BYTES: usize = 64 << 10;

/// Which cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// The host's proc (`/proc`).
    pub proc_root: Vec<u8>,
    /// This agent's run: no other run has the same.
    pub run: String,
    /// The superblock that the worker is about to touch.
    pub dev: Dev,
}

/// Whether a worker sits in a cgroup of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// It does, outside every pod.
    Own,
    /// The host has no unified hierarchy at `/sys/fs/cgroup`: pods have cgroups of version 1, which it did not leave.
    Version1,
    /// It could not be moved.
    Failed(i32),
}

/// What earlier agents left, and what a canary says of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// `/etc/machine-id` of the host.
    pub machine_id: Vec<u8>,
    /// Boot id of the kernel.
    pub boot_id: Vec<u8>,
    /// What is left of earlier agents' workers.
    pub strays: Vec<Stray>,
}

impl Home {
    /// What an earlier agent left on this superblock.
    #[must_use]
    pub fn stray_on(&self, dev: Dev) -> Option<&Stray> {
        self.strays.iter().find(|stray| stray.dev == dev)
    }
}

/// Workers of an earlier agent on one superblock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    /// The superblock. They hold it, so its number is not given to another one.
    pub dev: Dev,
    /// How many.
    pub processes: usize,
    /// Age, in milliseconds, of the oldest that was killed and sits in the kernel all the same (state D, SIGKILL pending).
    pub stuck_millis: Option<u64>,
}

/// Moves this process. It must hold nothing of a mount yet.
#[must_use]
pub fn enter(spec: &CgroupSpec) -> Isolation {
    match try_enter(spec) {
        Ok(true) => Isolation::Own,
        Ok(false) => Isolation::Version1,
        Err(errno) => Isolation::Failed(errno.raw_os_error()),
    }
}

fn try_enter(spec: &CgroupSpec) -> Result<bool, Errno> {
    let (root, unified) = hierarchy(&spec.proc_root)?;
    let parent = directory(root.as_fd(), PARENT)?;
    let name = format!("{}-{}", spec.run, spec.dev);
    let mut joined = Err(Errno::NOENT);
    // Another agent may take an empty cgroup away at any moment.
    for _ in 0..3 {
        let own = directory(parent.as_fd(), &name)?;
        joined = join(own.as_fd(), spec);
        if !matches!(joined, Err(Errno::NODEV | Errno::NOENT)) {
            break;
        }
    }
    joined.map(|()| unified)
}

fn join(own: BorrowedFd<'_>, spec: &CgroupSpec) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let procs = rustix::fs::openat(own, "cgroup.procs", flags, Mode::empty())?;
    match rustix::io::write(&procs, b"0") {
        // Outside our cgroup namespace: a container has one of its own. It pins no mount.
        Err(Errno::NOENT) => {
            let path = [&spec.proc_root[..], b"/1/ns/cgroup"].concat();
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let namespace = rustix::fs::open(OsStr::from_bytes(&path), flags, Mode::empty())?;
            let kind = Some(rustix::thread::LinkNameSpaceType::ControlGroup);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?;
            let procs = rustix::fs::openat(own, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&procs, b"0").map(drop)
        }
        other => other.map(drop),
    }
}

/// Where the hierarchy may be mounted, and whether it is the only one there.
const PLACES: [(&str, bool); 2] = [("/sys/fs/cgroup", true), ("/sys/fs/cgroup/unified", false)];

/// The root of the unified hierarchy, and whether it is the only one: as the host sees it, else as we do. Never a part
/// of it: a cgroup below the container's would not help.
fn hierarchy(proc_root: &[u8]) -> Result<(OwnedFd, bool), Errno> {
    let host = [proc_root, b"/1/root"].concat();
    for root in [&host[..], b""] {
        for (place, only) in PLACES {
            let path = [root, place.as_bytes()].concat();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let Ok(root) = rustix::fs::open(OsStr::from_bytes(&path), flags, Mode::empty()) else { continue };
            let unified = rustix::fs::fstatfs(&root).is_ok_and(|about| about.f_type == CGROUP2_SUPER_MAGIC);
            // Only the root of the hierarchy has no events of its own.
            let events = || rustix::fs::statat(&root, "cgroup.events", AtFlags::SYMLINK_NOFOLLOW);
            if unified && matches!(events(), Err(Errno::NOENT)) {
                return Ok((root, only));
            }
        }
    }
    Err(Errno::NOENT)
}

fn directory(at: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    rustix::fs::openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Reads what a canary needs to know of this machine, and takes away the empty cgroups of former workers.
#[must_use]
pub fn home(proc_root: &[u8], run: &str) -> Home {
    let read = |path: &[u8]| steps::read_file(path, 256).unwrap_or_default();
    let machine = read(&[proc_root, b"/1/root/etc/machine-id"].concat());
    Home {
        machine_id: if machine.is_empty() { read(b"/etc/machine-id") } else { machine },
        boot_id: read(&[proc_root, b"/sys/kernel/random/boot_id"].concat()).trim_ascii().to_vec(),
        strays: strays(proc_root, run).unwrap_or_default(),
    }
}

fn strays(proc_root: &[u8], run: &str) -> Result<Vec<Stray>, Errno> {
    let (root, _) = hierarchy(proc_root)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::openat(&root, PARENT, flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(1 << 15);
    let mut entries = RawDir::new(&parent, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = String::from_utf8_lossy(entry?.file_name().to_bytes()).into_owned();
        if names.len() < MOST && name.contains('-') {
            names.push(name);
        }
    }
    let mut strays = Vec::new();
    for name in names {
        let Some((of, dev)) = name.split_once('-') else { continue };
        let Ok(own) = rustix::fs::openat(&parent, name.as_str(), flags, Mode::empty()) else { continue };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(procs) = rustix::fs::openat(&own, "cgroup.procs", flags, Mode::empty()) else { continue };
        let Ok(bytes) = steps::read_all(procs.as_fd(), PROCS_BYTES) else { continue };
        let pids: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|pid| !pid.is_empty()).collect();
        if pids.is_empty() {
            drop((own, procs));
            // Busy again: its worker has just entered.
            let _ = rustix::fs::unlinkat(&parent, name.as_str(), AtFlags::REMOVEDIR);
        } else if of != run
            && let Some(dev) = parse_dev(dev)
        {
            let stuck = pids.iter().filter_map(|pid| stuck_for(proc_root, pid)).max();
            let stuck_millis = stuck.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            strays.push(Stray { dev, processes: pids.len(), stuck_millis });
        }
    }
    Ok(strays)
}

/// How old the process is, if it was killed and does not die: a worker of an agent that runs beside us is no such one.
fn stuck_for(proc_root: &[u8], pid: &[u8]) -> Option<Duration> {
    let read = |name: &str| steps::read_file(&[proc_root, b"/", pid, name.as_bytes()].concat(), PROCS_BYTES).ok();
    Some(Status::parse(&read("/status")?)).filter(Status::is_killed)?;
    let stat = Stat::from_read(read("/stat")?.as_slice()).ok()?;
    let started = Duration::from_secs_f64(stat.starttime as f64 / procfs::ticks_per_second() as f64);
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).ok()?;
    Some(now.saturating_sub(started))
}

fn parse_dev(text: &str) -> Option<Dev> {
    let (major, minor) = text.split_once(':')?;
    Some(Dev { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_is_read_from_the_name_of_a_cgroup() {
        let dev = Dev { major: 0, minor: 51 };
        assert_eq!(parse_dev(&dev.to_string()), Some(dev));
        assert_eq!(parse_dev("0"), None);
        assert_eq!(parse_dev("a:b"), None);
    }
}
