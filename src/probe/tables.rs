//! Mount tables of other processes: read by a worker, closed at once, and what matters of them.
//!
//! An open table pins its mount namespace: when the container dies meanwhile, the close tears NFS down and sits in the
//! kernel for as long as the server is away (measured, v4.1). So the agent itself never opens one, and a worker has read
//! and closed it before it looks at what it read.
#![expect(clippy::disallowed_methods, reason = "this is the code of the worker, in an expendable process")]

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{scan, steps};
use crate::mounts::kubelet::KubeletPath;
use crate::mounts::table::{ById, resolved, through};
use crate::mounts::{Dev, Kind, Mount, Origin, Process, View, source};

/// Processes in one job.
pub const MAX_TABLES: usize = 64;

/// Longest table that is read: 100,000 mounts, the kernel's own limit, of 300 bytes each.
const TABLE_BYTES: usize = 30 << 20;

/// Mounts of one table that are told; all are counted.
pub(crate) const MAX_MOUNTS: usize = 1024;

/// Filesystems that nobody outside of this node has. A type that is not known may be shared by other means (OCFS2, GFS2).
const LOCAL: &[&str] = &["bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"];

/// Bytes of all rows of an answer: it must fit a frame.
const ANSWER_BYTES: usize = 3 << 20;

/// Bytes of a source that is only compared and shown: a pod's specification may make it long.
const SOURCE_BYTES: usize = 256;

/// Whose tables are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesJob {
    /// Where the host's proc is (`/proc`).
    pub proc_root: Vec<u8>,
    /// The processes, at most [`MAX_TABLES`].
    pub tables: Vec<Asked>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The process.
    pub process: Process,
    /// [`TableRow::hash`] of the last answer; the same table is not told twice. 0: none.
    pub hash: u64,
    /// Paths where something has to be mounted.
    pub wanted: Vec<Vec<u8>>,
    /// Paths where other containers are meant to have the same: what is mounted there is told, on the network or not.
    pub compared: Vec<Vec<u8>>,
}

/// What they say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tables {
    /// In the order of the question.
    pub tables: Vec<TableFate>,
    /// Types and options of the superblocks, each once.
    pub filesystems: Vec<Filesystem>,
}

/// What became of one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableFate {
    /// It was read.
    Read(TableRow),
    /// It is the same as last time.
    Same,
    /// The process is gone, or its number is another one's.
    Gone,
    /// It could not be read; the errno.
    Failed(i32),
    /// The answer is full: ask for it again.
    Later,
}

/// What matters of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRow {
    /// Tells it from another content.
    pub hash: u64,
    /// Its network mounts that a path leads to, and what stands in the place of one.
    pub mounts: Vec<MountRow>,
    /// How many more there are.
    pub left_out: u32,
    /// Mounts of all kinds.
    pub all: u32,
    /// Wanted paths at which nothing is mounted, by their index in the question.
    pub missing: Vec<u32>,
    /// What is mounted at the compared paths, where it says something.
    pub places: Vec<PlaceRow>,
}

/// What is mounted at a path that is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRow {
    /// The path by its index in the question.
    pub index: u32,
    /// Id of the mount.
    pub mount: u64,
    /// It is a network mount; otherwise a filesystem of this node.
    pub network: bool,
    /// Type as the kernel names it.
    pub fstype: String,
    /// Source as the kernel names it.
    pub source: Vec<u8>,
}

/// Type and options of a superblock.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Filesystem {
    /// Type as the kernel names it.
    pub fstype: String,
    /// Options of the superblock, still escaped.
    pub super_options: Vec<u8>,
}

/// One mount in another namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRow {
    /// Its id.
    pub id: u64,
    /// Its superblock.
    pub dev: Dev,
    /// Index into [`Tables::filesystems`].
    pub filesystem: u32,
    /// Root of the mount within its filesystem.
    pub root: Vec<u8>,
    /// Where it is mounted, as the process sees it.
    pub mountpoint: Vec<u8>,
    /// Source as the kernel names it.
    pub source: Vec<u8>,
    /// Options of the mount, still escaped.
    pub options: Vec<u8>,
    /// The network mount that its path leads through.
    pub through: Option<u64>,
    /// It follows another namespace (`master:N`): what is unmounted there is unmounted here.
    pub follows: bool,
    /// It is on the node's disk, where the kubelet mounts a network volume.
    pub on_disk: bool,
}

impl MountRow {
    /// The mount as a table has it; `None` when the answer contradicts itself.
    #[must_use]
    pub fn mount(&self, filesystems: &[Filesystem], view: View) -> Option<Mount> {
        let filesystem = filesystems.get(usize::try_from(self.filesystem).ok()?)?;
        let name = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let (fstype, super_options) = (filesystem.fstype.clone(), name(&filesystem.super_options));
        let from = name(&self.source);
        let origin = Origin::parse(&fstype, &from, &super_options);
        Some(Mount {
            id: self.id,
            // It is not told; what matters of it is `through`.
            parent: self.id,
            dev: self.dev,
            root: name(&self.root),
            mountpoint: PathBuf::from(name(&self.mountpoint)),
            kind: source::classify(&fstype, &origin),
            fstype,
            source: from,
            options: name(&self.options),
            super_options,
            origin,
            view,
            hidden_by: None,
        })
    }

    fn bytes(&self) -> usize {
        /// Upper bound of its numbers.
        const NUMBERS: usize = 56;
        NUMBERS + self.root.len() + self.mountpoint.len() + self.source.len() + self.options.len()
    }
}

/// Reads the tables. `next` is called before each.
pub(crate) fn read(job: &TablesJob, next: &dyn Fn() -> Result<(), Errno>) -> Result<Tables, Errno> {
    let mut answer = Builder::default();
    for asked in job.tables.iter().take(MAX_TABLES) {
        next()?;
        let fate = if answer.bytes >= ANSWER_BYTES { TableFate::Later } else { one(job, asked, &mut answer) };
        answer.tables.tables.push(fate);
    }
    Ok(answer.tables)
}

fn one(job: &TablesJob, asked: &Asked, answer: &mut Builder) -> TableFate {
    let bytes = match bytes_of(&job.proc_root, asked.process) {
        Ok(Some(bytes)) => bytes,
        // A process that is on its way out has given its namespace back (EINVAL).
        Ok(None) | Err(Errno::NOENT | Errno::SRCH | Errno::INVAL) => return TableFate::Gone,
        Err(errno) => return TableFate::Failed(errno.raw_os_error()),
    };
    let hash = hash_of(&bytes, asked);
    if hash == asked.hash {
        return TableFate::Same;
    }
    TableFate::Read(answer.take(&bytes, hash, asked))
}

/// The table of a process; `None` when its number is another one's by now.
fn bytes_of(proc_root: &[u8], process: Process) -> Result<Option<Vec<u8>>, Errno> {
    let path = [proc_root, b"/", process.pid.to_string().as_bytes()].concat();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(OsStr::from_bytes(&path), flags, Mode::empty())?;
    let table = rustix::fs::openat(&directory, c"mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let bytes = steps::read_all(table.as_fd(), TABLE_BYTES)?;
    drop(table);
    // Through the descriptor of the directory: it never leads to a later process.
    Ok((scan::stat(directory.as_fd())?.start == process.start).then_some(bytes))
}

/// Never 0, which stands for "none".
fn hash_of(bytes: &[u8], asked: &Asked) -> u64 {
    let mut hasher = DefaultHasher::new();
    (bytes, &asked.wanted, &asked.compared).hash(&mut hasher);
    hasher.finish().max(1)
}

#[derive(Default)]
struct Builder {
    tables: Tables,
    index: HashMap<Filesystem, u32>,
    bytes: usize,
}

impl Builder {
    fn take(&mut self, bytes: &[u8], hash: u64, asked: &Asked) -> TableRow {
        let view = View::Container(asked.process);
        let mounts = resolved(bytes, view).mounts;
        let by_id: ById<'_> = mounts.iter().map(|mount| ((mount.view, mount.id), mount)).collect();
        let followers = followers(bytes);
        let mut row = TableRow { hash, all: u32::try_from(mounts.len()).unwrap_or(u32::MAX), ..TableRow::default() };
        for mount in mounts.iter().filter(|mount| mount.hidden_by.is_none()) {
            let network = mount.kind.is_some_and(|kind| kind != Kind::Autofs);
            let on_disk = !network && stands_in(mount);
            if !network && !on_disk {
                continue;
            }
            if row.mounts.len() >= MAX_MOUNTS || self.bytes >= ANSWER_BYTES {
                row.left_out += 1;
                continue;
            }
            let told = MountRow {
                id: mount.id,
                dev: mount.dev,
                filesystem: self.filesystem(mount),
                root: mount.root.as_bytes().to_vec(),
                mountpoint: mount.mountpoint.as_os_str().as_bytes().to_vec(),
                source: mount.source.as_bytes().to_vec(),
                options: mount.options.as_bytes().to_vec(),
                through: through(mount, &by_id).map(|other| other.id),
                follows: followers.contains(&mount.id),
                on_disk,
            };
            self.bytes += told.bytes();
            row.mounts.push(told);
        }
        row.missing = missing(&mounts, &asked.wanted);
        for place in places(&mounts, &followers, &asked.compared) {
            if self.bytes >= ANSWER_BYTES {
                break;
            }
            self.bytes += place.bytes();
            row.places.push(place);
        }
        row
    }

    fn filesystem(&mut self, mount: &Mount) -> u32 {
        let super_options = mount.super_options.as_bytes().to_vec();
        let filesystem = Filesystem { fstype: mount.fstype.clone(), super_options };
        if let Some(number) = self.index.get(&filesystem) {
            return *number;
        }
        let number = u32::try_from(self.tables.filesystems.len()).unwrap_or(u32::MAX);
        self.bytes += filesystem.super_options.len() + filesystem.fstype.len();
        self.index.insert(filesystem.clone(), number);
        self.tables.filesystems.push(filesystem);
        number
    }
}

/// A bind of a directory of the node that has to be a mount of its own: the kubelet's volume was not mounted any more when
/// the container was started, and what it writes lands on the node's disk.
fn stands_in(mount: &Mount) -> bool {
    KubeletPath::parse(mount.root.as_ref()).is_some_and(|path| path.has_to_be_mounted())
}

/// Ids of the mounts that follow another namespace, by their optional fields.
fn followers(table: &[u8]) -> HashSet<u64> {
    let follows = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let mut optional = fields.skip(5).take_while(|field| *field != b"-");
        optional.any(|field| field.starts_with(b"master:")).then_some(id)
    };
    table.split(|byte| *byte == b'\n').filter_map(follows).collect()
}

/// Wanted paths without a mount. An image may have a symlink on the way (`/var/run`), and its target is what the table shows:
/// a mount of the same last name counts as the wanted one, since a wrong alarm is worse than none.
fn missing(mounts: &[Mount], wanted: &[Vec<u8>]) -> Vec<u32> {
    let names: HashSet<Option<&OsStr>> = mounts.iter().map(|mount| mount.mountpoint.file_name()).collect();
    let absent = |path: &[u8]| !names.contains(&std::path::Path::new(OsStr::from_bytes(path)).file_name());
    (0..).zip(wanted).filter(|(_, path)| absent(path)).map(|(index, _)| index).collect()
}

impl PlaceRow {
    fn bytes(&self) -> usize {
        /// Upper bound of its numbers.
        const NUMBERS: usize = 24;
        NUMBERS + self.fstype.len() + self.source.len()
    }
}

/// What the compared paths lead to. Nothing is said where it would prove nothing: a path that is no mount (a symlink of the
/// image), a type that is not known, what the container has mounted there itself, over what it was given.
fn places(mounts: &[Mount], followers: &HashSet<u64>, compared: &[Vec<u8>]) -> Vec<PlaceRow> {
    let place = |index: u32, path: &[u8]| {
        let mut here = mounts.iter().filter(|mount| mount.mountpoint.as_os_str().as_bytes() == path);
        let (first, more) = (here.next()?, here.next());
        let alone = more.is_none();
        let top = [Some(first), more].into_iter().flatten().chain(here).find(|mount| mount.hidden_by.is_none())?;
        let network = top.kind.is_some_and(|kind| kind != Kind::Autofs);
        let tells = match network {
            // What came with the host's mounts may lie on top of what was there when the container began.
            true => alone || followers.contains(&top.id),
            // A volume of the kubelet's that is not mounted is a finding of its own.
            false => alone && LOCAL.contains(&top.fstype.as_str()) && !stands_in(top),
        };
        tells.then(|| PlaceRow {
            index,
            mount: top.id,
            network,
            fstype: top.fstype.clone(),
            source: top.source.as_bytes().iter().copied().take(SOURCE_BYTES).collect(),
        })
    };
    (0..).zip(compared).filter_map(|(index, path)| place(index, path)).collect()
}

#[cfg(test)]
mod tests;
