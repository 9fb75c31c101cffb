//! What is mounted here: mountinfo bytes in, [`Mount`]s out.
//!
//! Everything in this room is read from `/proc`; no call in it takes a path on a monitored mount.

pub mod efs;
pub mod filter;
pub mod kind;
pub mod kubelet;
pub mod mountinfo;
pub mod mountstats;
pub mod octal;
pub mod source;
pub mod table;
pub mod watch;

#[cfg(test)]
mod namespace;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use kind::Kind;
pub use source::Origin;

/// `st_dev` of a superblock as mountinfo prints it: what the kernel shares between all mounts of one filesystem.
///
/// Reused at once after an unmount, so it identifies a superblock only together with the rest of a target's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dev {
    /// Major number; 0 for filesystems without a block device.
    pub major: u32,
    /// Minor number; for FUSE also the number of its connection under `/sys/fs/fuse/connections`.
    pub minor: u32,
}

impl fmt::Display for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Which mount table a mount was read from, and so how a worker reaches its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// The agent's own mount namespace: paths are used as they are.
    Own,
    /// PID 1's mount namespace, different from the agent's: paths are reached through `/proc/1/root`.
    Host,
    /// The mount namespace of a container or service: paths are reached through `/proc/PID/root` of a process in it.
    Container(Process),
}

impl View {
    /// A container's, a service's: not that of the host or the agent, which are always there.
    #[must_use]
    pub fn is_container(self) -> bool {
        matches!(self, View::Container(_))
    }

    /// The directory that its paths are resolved in; `None`: the root of whoever asks.
    #[must_use]
    pub fn root(self, proc_root: &Path) -> Option<PathBuf> {
        match self {
            View::Own => None,
            View::Host => Some(proc_root.join("1/root")),
            View::Container(process) => Some(proc_root.join(process.pid.to_string()).join("root")),
        }
    }
}

/// A process, at one time and after: the number alone is given to others once it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Its number, or that of a thread of it.
    pub pid: i32,
    /// When it was started, in clock ticks since the machine was.
    pub start: u64,
}

/// One line of mountinfo (proc_pid_mountinfo(5)), unescaped, with what follows from it.
///
/// Paths and names are bytes of the kernel, not text: they may hold newlines and bytes that are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Mount id; unique at one moment, reused at once after an unmount.
    pub id: u64,
    /// Mount id of the parent mount (its own id for the root of the tree).
    pub parent: u64,
    /// Superblock.
    pub dev: Dev,
    /// Root of the mount within its filesystem; `/` for every NFS mount, whatever directory is mounted.
    pub root: OsString,
    /// Where it is mounted, in the namespace of `view`.
    pub mountpoint: PathBuf,
    /// Filesystem type as the kernel names it (`nfs4`, `fuse.sshfs`).
    pub fstype: String,
    /// Source as the kernel names it (`srv:/export`, `//srv/share`).
    pub source: OsString,
    /// Per-mount options (`rw,relatime`), in their order and still escaped.
    pub options: OsString,
    /// Options of the superblock (`rw,vers=4.1,hard,addr=10.0.0.1`), in their order and still escaped: a value may hold
    /// an escaped comma. [`source::options`] takes them apart.
    pub super_options: OsString,
    /// What kind of network filesystem it is; `None` for local ones.
    pub kind: Option<Kind>,
    /// Server, export, transport and proxy as parsed from source and options.
    pub origin: Origin,
    /// The namespace it was read from.
    pub view: View,
    /// A later mount on the same path, or on a parent directory, hides it: its path leads elsewhere.
    pub hidden_by: Option<u64>,
}

impl Mount {
    /// Value of a superblock option (`vers`, `timeo`); the last one wins, as in the kernel.
    #[must_use]
    pub fn super_option(&self, name: &str) -> Option<String> {
        find_option(&self.super_options, name).map(|value| value.unwrap_or_default())
    }

    /// Whether a flag without a value (`hard`, `ro`) stands among the superblock's options.
    #[must_use]
    pub fn has_super_option(&self, name: &str) -> bool {
        find_option(&self.super_options, name).is_some()
    }

    /// Whether a flag without a value (`ro`, `noexec`) stands among the mount's own options.
    #[must_use]
    pub fn has_option(&self, name: &str) -> bool {
        find_option(&self.options, name).is_some()
    }

    /// The mount or its superblock is read-only.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.has_option("ro") || self.has_super_option("ro")
    }
}

fn find_option(options: &OsStr, name: &str) -> Option<Option<String>> {
    source::options(options).filter(|(option, _)| option == name).last().map(|(_, value)| value.map(Cow::into_owned))
}
