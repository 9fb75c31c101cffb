//! Who has a mount of a superblock, in all mount namespaces of the node.
//!
//! Aborting the requests of a superblock hits everybody who uses it, so everybody must be known first: a table that
//! cannot be read, of a process that is still there, makes the answer worthless. What nobody has mounted any more (a file
//! that was left open when its mount was detached) is in no table and is not seen.
//!
//! To be called in a worker: an open mountinfo pins its namespace, and the last close can block (ATLAS.md 5).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::unstick::Holder;
use crate::localfs::{self, named};
use crate::mounts::kubelet::pod_uid;
use crate::mounts::{Dev, View, mountinfo, octal};
use crate::pods::cgroup::Owner;

/// Most mounts that are told; more would not fit an answer, and nobody acts on a superblock with so many users.
pub const MOST: usize = 4096;

/// One mount of a wanted superblock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its superblock.
    pub dev: Dev,
    /// Its id.
    pub mount_id: u64,
    /// Where it is, in its namespace.
    pub path: Vec<u8>,
    /// It is in the mount namespace of PID 1.
    pub host: bool,
    /// Whose processes live in that namespace, each with the pod it belongs to.
    pub owners: Vec<Holder>,
}

/// All mounts of `devs` in all mount namespaces.
///
/// # Errors
/// The first thing that could not be read, by its path.
pub fn held(proc_root: &Path, devs: &[Dev]) -> io::Result<Vec<Held>> {
    let host = namespace_of(&proc_root.join("1"))?.ok_or_else(|| unreadable(&proc_root.join("1/ns/mnt")))?;
    let mut held = Vec::new();
    for (namespace, users) in namespaces(proc_root)? {
        let Some(table) = users.table(devs)? else { continue };
        for (dev, mount_id, path) in table {
            if held.len() >= MOST {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more mounts of it than can be told"));
            }
            let owners = users.owners.iter().cloned().collect();
            held.push(Held { dev, mount_id, path, host: namespace == host, owners });
        }
    }
    Ok(held)
}

/// Those that are not the pod `uid`: by the kubelet's paths in the host's namespace, by their processes elsewhere. Copies
/// of the pod's own kubelet paths that services of the host hold do not count.
#[must_use]
pub fn others(held: &[Held], dev: Dev, uid: &str) -> Vec<Holder> {
    let of_dev = held.iter().filter(|mount| mount.dev == dev);
    let mut others = BTreeSet::new();
    for mount in of_dev {
        let path = Path::new(std::ffi::OsStr::from_bytes(&mount.path));
        let label = octal::label(path.as_os_str());
        match (pod_uid(path), mount.host) {
            // Below a kubelet's directory a mount is that pod's, wherever a copy of it is.
            (Some(pod), _) if pod == uid => {}
            (Some(pod), _) => {
                others.insert(Holder { name: format!("pod {pod}"), pod: Some(pod) });
            }
            (None, true) => {
                others.insert(Holder { pod: None, name: label });
            }
            (None, false) => {
                let strangers = mount.owners.iter().filter(|owner| owner.pod.as_deref() != Some(uid));
                others.extend(
                    strangers.map(|owner| Holder { name: format!("{} at {label}", owner.name), ..owner.clone() }),
                );
            }
        }
    }
    others.into_iter().collect()
}

/// Who lives in one mount namespace, and by whom its table can be read.
#[derive(Default)]
struct Users {
    owners: BTreeSet<Holder>,
    /// Directories of threads: those first whose root is the namespace's, because a table ends at its reader's root.
    readers: BTreeSet<(bool, PathBuf)>,
}

/// A few are enough: each of them may end at any moment.
const READERS: usize = 8;

fn namespaces(proc_root: &Path) -> io::Result<BTreeMap<PathBuf, Users>> {
    let mut all: BTreeMap<PathBuf, Users> = BTreeMap::new();
    for pid in localfs::kernel_dir_numbers(proc_root).map_err(|error| named(proc_root, &error))? {
        let process = proc_root.join(pid.to_string());
        let mut owner = None;
        let tasks = process.join("task");
        let threads = match localfs::kernel_dir_numbers(&tasks) {
            Ok(threads) => threads,
            Err(error) if ended(&error) => continue,
            Err(error) => return Err(named(&tasks, &error)),
        };
        for thread in threads {
            let directory = tasks.join(thread.to_string());
            let Some(namespace) = namespace_of(&directory)? else { continue };
            if owner.is_none() {
                owner = owner_of(&process, pid)?;
            }
            let users = all.entry(namespace).or_default();
            users.owners.extend(owner.clone());
            if users.readers.len() < READERS || users.readers.iter().all(|(chrooted, _)| *chrooted) {
                let root = localfs::read_kernel_link(&directory.join("root"));
                let chrooted = root.map_or(true, |root| root != Path::new("/"));
                users.readers.insert((chrooted, directory));
            }
        }
    }
    Ok(all)
}

/// `None`: the thread ended, or is about to.
fn namespace_of(directory: &Path) -> io::Result<Option<PathBuf>> {
    let link = directory.join("ns/mnt");
    match localfs::read_kernel_link(&link) {
        Ok(namespace) => Ok(Some(namespace)),
        Err(error) if ended(&error) => Ok(None),
        Err(error) => Err(named(&link, &error)),
    }
}

/// `None`: the process ended.
fn owner_of(process: &Path, pid: i32) -> io::Result<Option<Holder>> {
    let Some(bytes) = localfs::read_process_file(&process.join("cgroup"))? else { return Ok(None) };
    Ok(Some(match Owner::parse(&bytes) {
        Owner::Pod { uid, .. } => Holder { name: format!("pod {uid}"), pod: Some(uid) },
        Owner::Other(_) => Holder { pod: None, name: format!("process {pid}") },
        other => Holder { pod: None, name: other.words() },
    }))
}

type Row = (Dev, u64, Vec<u8>);

impl Users {
    /// The wanted mounts of the namespace; `None`: everybody in it is gone.
    fn table(&self, devs: &[Dev]) -> io::Result<Option<Vec<Row>>> {
        for (_, directory) in &self.readers {
            let file = directory.join("mountinfo");
            match localfs::read_kernel_file(&file) {
                Ok(bytes) => return rows(&bytes, devs).map(Some).ok_or_else(|| unreadable(&file)),
                Err(error) if ended(&error) => {}
                Err(error) => return Err(named(&file, &error)),
            }
        }
        Ok(None)
    }
}

/// `None`: a line that may be a wanted one cannot be read.
fn rows(bytes: &[u8], devs: &[Dev]) -> Option<Vec<Row>> {
    let names: Vec<Vec<u8>> = devs.iter().map(|dev| dev.to_string().into_bytes()).collect();
    let mut wanted = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let dev = line.split(|byte| *byte == b' ').nth(2)?;
        if names.iter().any(|name| name == dev) {
            wanted.extend_from_slice(line);
        }
    }
    let table = mountinfo::parse(&wanted, View::Own);
    let row = |mount: crate::mounts::Mount| (mount.dev, mount.id, mount.mountpoint.as_os_str().as_bytes().to_vec());
    (table.bad_count == 0).then(|| table.mounts.into_iter().map(row).collect())
}

/// A process that ended has no namespace (ENOENT), no directory (ESRCH) and no table (EINVAL) any more.
fn ended(error: &io::Error) -> bool {
    localfs::process_ended(error) || error.raw_os_error() == Some(libc::EINVAL)
}

fn unreadable(path: &Path) -> io::Error {
    io::Error::other(format!("{} cannot be read", path.display()))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a proc tree of its own, in a scratch directory")]
mod tests;
