//! Which processes there are, whose they are, and which mount namespace each is in: read by a worker, told by difference.
//!
//! One getdents64 of the proc directory costs about a microsecond per process and says what came and what went: procfs
//! gives a directory the same inode number as long as its process lives and another one to the next process of that
//! number (`proc_fill_cache`). Only what is new is opened.
#![expect(clippy::disallowed_methods, reason = "this is the code of the worker, in an expendable process")]

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::canary::Ids;
use crate::pods::cgroup::Owner;

/// Processes that are opened for one answer; the rest waits for the next one. A whole node fits one, and its frame.
const MOST_READ: usize = 8192;

/// Longest `cgroup` file: a line for each of a dozen hierarchies, each with a path.
const CGROUP_BYTES: usize = 16 << 10;

/// All of them in one answer; many processes share a cgroup, and its text is told once.
const CGROUPS_BYTES: usize = 2 << 20;

/// Longest `stat` file.
const STAT_BYTES: usize = 4096;

/// Longest `status` file: some sixty lines, and the groups.
const STATUS_BYTES: usize = 16 << 10;

/// Different ids in one answer, and groups of one process: 64 groups of 1024 are 256 KiB of a frame.
const MOST_IDS: usize = 1024;
const MOST_GROUPS: usize = 64;

/// CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (include/uapi/linux/capability.h).
const READS_ALL: u64 = 1 << 1 | 1 << 2;

/// Flag of a kernel thread in `stat` (PF_KTHREAD of include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanJob {
    /// Where the host's proc is (`/proc`).
    pub proc_root: Vec<u8>,
    /// Processes that are known, by number and inode number of their directory.
    pub known: Vec<(i32, u64)>,
    /// Those among them that are to be read again: young ones may still be on their way into their container.
    pub again: Vec<i32>,
}

/// What is new since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Processes that came, or were to be read again.
    pub rows: Vec<ProcessRow>,
    /// Known processes that are gone; one whose number another process has now is among both.
    pub gone: Vec<i32>,
    /// Contents of `cgroup` files, whole.
    pub cgroups: Vec<Vec<u8>>,
    /// Whom processes of pods run as, each once.
    pub ids: Vec<Ids>,
    /// There are more new ones than fit one answer: ask again.
    pub more: bool,
    /// Mount namespace of PID 1, and of this worker: the host's and the agent's.
    pub host: Option<u64>,
    /// See `host`.
    pub own: Option<u64>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Its number.
    pub pid: i32,
    /// Inode number of its directory: tells it from the next process of that number.
    pub ino: u64,
    /// What is known of it.
    pub what: What,
}

/// What a process is to us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// It is in a mount namespace.
    Member(MemberRow),
    /// It is in none of its own: a kernel thread, or dead.
    Nothing,
    /// It could not be looked at; the errno.
    Unreadable(i32),
}

/// A process in a mount namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// The process, or a thread of it that is still alive where its first one is not: `/proc/ENTRY` leads to the namespace.
    pub entry: i32,
    /// When that was started, in clock ticks since the machine was (proc_pid_stat(5)).
    pub start: u64,
    /// The process that started it.
    pub parent: i32,
    /// Name of its program, at most 15 bytes.
    pub name: Vec<u8>,
    /// Index into [`Scan::cgroups`].
    pub cgroup: u32,
    /// Inode number of the mount namespace; absent where we may not see it (needs CAP_SYS_PTRACE).
    pub namespace: Option<u64>,
    /// Index into [`Scan::ids`]: of processes of pods' containers alone. Absent too where it says nothing about what they
    /// may read (capabilities, too many groups).
    pub ids: Option<u32>,
}

/// Looks at all processes.
pub(crate) fn run(job: &ScanJob) -> Result<Scan, Errno> {
    let root = open_directory(OsStr::from_bytes(&job.proc_root))?;
    let known: HashMap<i32, u64> = job.known.iter().copied().collect();
    let again: HashSet<i32> = job.again.iter().copied().collect();
    let mut unseen = known.clone();
    let mut scan =
        Scan { host: namespace(root.as_fd(), c"1"), own: namespace(root.as_fd(), c"self"), ..Scan::default() };
    let mut cgroups = Cgroups::default();
    let mut known_ids = KnownIds::default();
    for (pid, ino) in numbers(root.as_fd())? {
        let same = known.get(&pid) == Some(&ino);
        if same {
            unseen.remove(&pid);
            if !again.contains(&pid) {
                continue;
            }
        }
        if scan.rows.len() >= MOST_READ || cgroups.bytes >= CGROUPS_BYTES {
            // What stays unread stays unknown, and is new again next time.
            scan.more = true;
            continue;
        }
        match look(root.as_fd(), pid, &mut cgroups, &mut known_ids) {
            Ok(what) => scan.rows.push(ProcessRow { pid, ino, what }),
            // It ended while it was looked at.
            Err(Errno::NOENT | Errno::SRCH) if same => scan.gone.push(pid),
            Err(Errno::NOENT | Errno::SRCH) => {}
            Err(errno) => scan.rows.push(ProcessRow { pid, ino, what: What::Unreadable(errno.raw_os_error()) }),
        }
    }
    scan.gone.extend(unseen.into_keys());
    scan.cgroups = cgroups.texts;
    scan.ids = known_ids.all;
    Ok(scan)
}

/// Contents of `cgroup` files, each once.
#[derive(Default)]
struct Cgroups {
    texts: Vec<Vec<u8>>,
    index: HashMap<Vec<u8>, u32>,
    /// Which of them are of a pod's container.
    of_pods: HashSet<u32>,
    bytes: usize,
}

impl Cgroups {
    fn number(&mut self, text: Vec<u8>) -> u32 {
        if let Some(number) = self.index.get(&text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.bytes += text.len();
        if matches!(Owner::parse(&text), Owner::Pod { container: Some(_), .. }) {
            self.of_pods.insert(number);
        }
        self.index.insert(text.clone(), number);
        self.texts.push(text);
        number
    }
}

/// Whom processes run as, each once.
#[derive(Default)]
struct KnownIds {
    all: Vec<Ids>,
    index: HashMap<Ids, u32>,
}

impl KnownIds {
    fn number(&mut self, ids: Ids) -> Option<u32> {
        if let Some(number) = self.index.get(&ids) {
            return Some(*number);
        }
        let number = u32::try_from(self.all.len()).ok().filter(|_| self.all.len() < MOST_IDS)?;
        self.index.insert(ids.clone(), number);
        self.all.push(ids);
        Some(number)
    }
}

/// Looks at one process. Everything is read through one descriptor of its directory, which never leads to a later process
/// of the same number.
fn look(root: BorrowedFd<'_>, pid: i32, cgroups: &mut Cgroups, ids: &mut KnownIds) -> Result<What, Errno> {
    let directory = open_at(root, pid.to_string().as_ref())?;
    let stat = stat(directory.as_fd())?;
    if stat.flags & KERNEL_THREAD != 0 {
        return Ok(What::Nothing);
    }
    if !stat.dead {
        return member(directory.as_fd(), pid, &stat, cgroups, ids);
    }
    // Its first thread is dead; the others may live on, and hold the namespace as before.
    if stat.threads > 1 {
        let tasks = open_at(directory.as_fd(), "task".as_ref())?;
        for (thread, _) in numbers(tasks.as_fd())? {
            let Ok(directory) = open_at(tasks.as_fd(), thread.to_string().as_ref()) else { continue };
            match self::stat(directory.as_fd()) {
                Ok(stat) if !stat.dead => return member(directory.as_fd(), thread, &stat, cgroups, ids),
                _ => {}
            }
        }
    }
    Ok(What::Nothing)
}

fn member(
    process: BorrowedFd<'_>,
    entry: i32,
    stat: &Stat,
    cgroups: &mut Cgroups,
    known_ids: &mut KnownIds,
) -> Result<What, Errno> {
    let namespace = match link(process, c"ns/mnt") {
        Ok(namespace) => namespace,
        Err(Errno::ACCESS | Errno::PERM) => None,
        // It gave its namespaces back: it is on its way out, and the last of its cgroup may be gone.
        Err(Errno::NOENT) => return Ok(What::Nothing),
        Err(errno) => return Err(errno),
    };
    let cgroup = cgroups.number(read_at(process, c"cgroup", CGROUP_BYTES)?);
    let (start, parent, name) = (stat.start, stat.parent, stat.name.clone());
    // A process more or less says nothing wrong: what cannot be read is not known.
    let status = cgroups.of_pods.contains(&cgroup).then(|| read_at(process, c"status", STATUS_BYTES).ok()).flatten();
    let ids = status.and_then(|status| known_ids.number(ids_of(&status)?));
    Ok(What::Member(MemberRow { entry, start, parent, name, cgroup, namespace, ids }))
}

/// Whom a process runs as, by its `status`: the ids that count for files, as the agent's user namespace numbers them, which
/// is how a server sees them. `None` for one that may read everything here, and for one in more groups than are kept.
fn ids_of(status: &[u8]) -> Option<Ids> {
    let field = |name: &str| {
        let mut lines = status.split(|byte| *byte == b'\n');
        std::str::from_utf8(lines.find_map(|line| line.strip_prefix(name.as_bytes()))?).ok()
    };
    // Real, effective, saved, of the file system.
    let for_files = |text: &str| text.split_ascii_whitespace().nth(3)?.parse::<u32>().ok();
    let capabilities = u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?;
    let groups = field("Groups:")?.split_ascii_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>().ok()?;
    let bounded = groups.len() <= MOST_GROUPS && capabilities & READS_ALL == 0;
    let (uid, gid) = (for_files(field("Uid:")?)?, for_files(field("Gid:")?)?);
    bounded.then_some(Ids { uid, gid, groups, umask: 0 })
}

/// The fields of `stat` that matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    name: Vec<u8>,
    dead: bool,
    parent: i32,
    flags: u64,
    threads: u64,
    pub(super) start: u64,
}

impl Stat {
    /// `PID (NAME) STATE PPID ...`: the name may hold anything, parentheses and newlines too.
    fn parse(bytes: &[u8]) -> Option<Stat> {
        let open = bytes.iter().position(|byte| *byte == b'(')?;
        let close = bytes.iter().rposition(|byte| *byte == b')')?;
        let name = bytes.get(open + 1..close)?.to_vec();
        let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The first one here is the third of proc_pid_stat(5).
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Stat {
            name,
            dead: matches!(field(3)?, "Z" | "X" | "x"),
            parent: field(4)?.parse().ok()?,
            flags: field(9)?.parse().ok()?,
            threads: field(20)?.parse().ok()?,
            start: field(22)?.parse().ok()?,
        })
    }
}

pub(super) fn stat(process: BorrowedFd<'_>) -> Result<Stat, Errno> {
    Stat::parse(&read_at(process, c"stat", STAT_BYTES)?).ok_or(Errno::IO)
}

/// Inode number behind the mount namespace's link of a process; absent where it cannot be seen.
fn namespace(root: BorrowedFd<'_>, process: &CStr) -> Option<u64> {
    let directory = open_at(root, OsStr::from_bytes(process.to_bytes())).ok()?;
    link(directory.as_fd(), c"ns/mnt").ok().flatten()
}

/// `mnt:[4026531841]`.
fn link(process: BorrowedFd<'_>, name: &CStr) -> Result<Option<u64>, Errno> {
    let target = rustix::fs::readlinkat(process, name, Vec::with_capacity(32))?;
    let text = target.to_str().unwrap_or_default();
    Ok(text.strip_prefix("mnt:[").and_then(|rest| rest.strip_suffix(']')).and_then(|number| number.parse().ok()))
}

fn read_at(process: BorrowedFd<'_>, name: &CStr, limit: usize) -> Result<Vec<u8>, Errno> {
    let file = rustix::fs::openat(process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 2048];
    while bytes.len() < limit {
        let count = rustix::io::read(&file, &mut chunk)?;
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
    bytes.truncate(limit);
    Ok(bytes)
}

/// The entries of a directory that are numbers, with their inode numbers.
fn numbers(directory: BorrowedFd<'_>) -> Result<Vec<(i32, u64)>, Errno> {
    let mut buffer = Vec::with_capacity(1 << 15);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut numbers = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let number = entry.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok());
        numbers.extend(number.map(|number| (number, entry.ino())));
    }
    Ok(numbers)
}

fn open_directory(path: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn open_at(directory: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests;
