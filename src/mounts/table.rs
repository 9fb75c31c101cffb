//! The mount table of this node: the agent's own namespace and PID 1's, merged, with what hides what.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::efs::StateFiles;
use super::mountinfo::{self, BadLine, Parsed};
use super::{Dev, Kind, Mount, View};
use crate::localfs;

mod hiding;
mod way;

pub use way::{ById, through};

/// Everything that is mounted, as the agent can reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Ordered by mountpoint, then by mount id. Local mounts and autofs triggers too.
    pub mounts: Vec<Mount>,
    /// How many lines did not parse.
    pub bad_count: u64,
    /// The first of them.
    pub bad: Vec<BadLine>,
    /// Why PID 1's table is not in here. What only the host has mounted is then not seen.
    pub host_error: Option<String>,
}

/// The agent's own mount table cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}; is proc mounted there (--proc-root)?", path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What open(2) or read(2) said.
    pub source: io::Error,
}

impl Table {
    /// Reads the tables of the agent and of PID 1 below `proc_root`.
    ///
    /// Where both are one namespace all mounts are [`View::Own`]. Where they differ, PID 1's are [`View::Host`], and the
    /// agent's own are added only if the host cannot show the same directory of the same superblock.
    ///
    /// # Errors
    /// The agent's own table cannot be read. That PID 1's cannot is no error but `host_error`.
    pub fn read(proc_root: &Path) -> Result<Table, ReadError> {
        let path = proc_root.join("self/mountinfo");
        let own = localfs::read_kernel_file(&path).map_err(|source| ReadError { path, source })?;
        let path = proc_root.join("1/mountinfo");
        let host = localfs::read_kernel_file(&path).map_err(|error| {
            format!("cannot read {}: {error}; run as root with the host's pid namespace", path.display())
        });
        Ok(Table::of(&own, host))
    }

    /// The table of two files' contents.
    #[must_use]
    pub fn of(own: &[u8], host: Result<Vec<u8>, String>) -> Table {
        let own = resolved(own, View::Own);
        match host.map(|bytes| resolved(&bytes, View::Host)) {
            Ok(host) => Table::merge(own, host),
            Err(reason) => Table { host_error: Some(reason), ..Table::finish(own) },
        }
    }

    fn merge(own: Parsed, host: Parsed) -> Table {
        // Mount ids are unique over all namespaces, so one that both have means one namespace.
        let own_ids: HashSet<u64> = own.mounts.iter().map(|mount| mount.id).collect();
        let one_namespace = host.mounts.iter().any(|mount| own_ids.contains(&mount.id));
        let same_root = root_id(&own) == root_id(&host);
        match (one_namespace, same_root) {
            // What one of two reads a moment apart has more is a mount that came or went: the watch brings the next read.
            (true, true) => Table::finish(own),
            // The agent is chrooted: its paths are its own, the rest is reached through PID 1's root.
            (true, false) => Table::finish(add(own, host, |mount| !own_ids.contains(&mount.id))),
            (false, _) => {
                let reachable: HashSet<_> =
                    host.mounts.iter().filter(|mount| mount.hidden_by.is_none()).map(content).collect();
                let own_only: HashSet<u64> = own
                    .mounts
                    .iter()
                    .filter(|mount| !reachable.contains(&content(mount)))
                    .map(|mount| mount.id)
                    .collect();
                Table::finish(add(host, own, |mount| own_only.contains(&mount.id)))
            }
        }
    }

    fn finish(parsed: Parsed) -> Table {
        let Parsed { mut mounts, bad, bad_count } = parsed;
        mounts.sort_by(|a, b| a.mountpoint.as_os_str().cmp(b.mountpoint.as_os_str()).then(a.id.cmp(&b.id)));
        Table { mounts, bad_count, bad, host_error: None }
    }

    /// Where a person on the host finds a directory of a filesystem; `None` when no path of the host leads there.
    #[must_use]
    pub fn path_on_host(&self, dev: Dev, directory: &Path) -> Option<PathBuf> {
        // Then nobody knows whether the agent's own paths are the host's.
        if self.host_error.is_some() {
            return None;
        }
        let view = self.mounts.iter().map(|mount| mount.view).find(|view| *view == View::Host).unwrap_or(View::Own);
        let reachable = || self.mounts.iter().filter(move |mount| mount.view == view && mount.hidden_by.is_none());
        let leads_to = |mount: &&Mount, path: &Path| {
            let on_the_way = reachable().filter(|other| path.starts_with(&other.mountpoint));
            on_the_way.max_by_key(|other| other.mountpoint.as_os_str().len()).map(|last| last.id) == Some(mount.id)
        };
        let of_filesystem = reachable().filter(|mount| mount.dev == dev);
        let paths = of_filesystem.filter_map(|mount| {
            let below = directory.strip_prefix(&mount.root).ok()?;
            // Joined with nothing a path would end with a slash.
            let path = mount.mountpoint.components().chain(below.components()).collect::<PathBuf>();
            leads_to(&mount, &path).then_some((mount.root.len(), path))
        });
        // A bind of a part of the filesystem is less known to a person than its own mount.
        paths.min().map(|(_, path)| path)
    }

    /// The autofs triggers: shown, never touched.
    pub fn autofs(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(|mount| mount.kind == Some(Kind::Autofs))
    }

    /// Names the file systems behind local EFS proxies.
    pub fn apply(&mut self, files: &StateFiles) {
        for mount in &mut self.mounts {
            files.apply(mount);
        }
    }
}

/// The mounts of one namespace with what hides what, in the order of the file.
#[must_use]
pub fn resolved(bytes: &[u8], view: View) -> Parsed {
    let mut parsed = mountinfo::parse(bytes, view);
    hiding::resolve(&mut parsed.mounts);
    parsed
}

/// Adds the mounts of `more` that are wanted, and all of its bad lines.
fn add(mut base: Parsed, more: Parsed, wanted: impl Fn(&Mount) -> bool) -> Parsed {
    base.mounts.extend(more.mounts.into_iter().filter(wanted));
    base.bad.extend(more.bad);
    base.bad.truncate(mountinfo::BAD_LINES_KEPT);
    base.bad_count += more.bad_count;
    base
}

/// The mount that the process sees as `/`: the lowest there, if several are stacked.
fn root_id(parsed: &Parsed) -> Option<u64> {
    let at_root = parsed.mounts.iter().filter(|mount| mount.mountpoint == Path::new("/"));
    at_root.clone().find(|mount| mount.hidden_by.is_none()).or_else(|| at_root.clone().next()).map(|mount| mount.id)
}

/// What a mount shows, wherever it stands.
fn content(mount: &Mount) -> (Dev, &OsStr, &OsStr, &str) {
    (mount.dev, &mount.root, &mount.source, &mount.fstype)
}

#[cfg(test)]
mod tests;
