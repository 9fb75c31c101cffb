//! Mounts on their way to a target: how one is told from another, and what is known of it before its root is identified.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::agent::target::Member;
use crate::mounts::{Dev, Mount, View};
use crate::probe::Identity;

/// A mount as one reading of the table knows it. Ids and numbers are reused, so all of it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::agent) struct MountKey {
    pub(super) view: View,
    pub(super) id: u64,
    dev: Dev,
    source: OsString,
    mountpoint: OsString,
}

impl MountKey {
    pub(in crate::agent) fn of(mount: &Mount) -> MountKey {
        MountKey {
            view: mount.view,
            id: mount.id,
            dev: mount.dev,
            source: mount.source.clone(),
            mountpoint: mount.mountpoint.clone().into_os_string(),
        }
    }
}

/// A mount that was not there before.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Newcomer {
    pub(in crate::agent) mount: Mount,
    pub(in crate::agent) through: Option<u64>,
    /// The path that it is known by where its own says nothing outside its container.
    pub(in crate::agent) label: Option<PathBuf>,
    /// Whose workers it counts against, where its path does not say it.
    pub(in crate::agent) owner: Option<String>,
    /// It may become a target of its own; otherwise it only joins one that is there.
    pub(in crate::agent) alone: bool,
}

impl Newcomer {
    /// A container's mount that cannot be identified cannot be probed either.
    pub(super) fn may_stand_alone(&self, identity: Option<&Identity>) -> bool {
        self.alone && (identity.is_some() || !self.mount.view.is_container())
    }

    /// What it is to its target.
    pub(in crate::agent) fn member(&self, identity: Option<&Identity>) -> Member {
        Member {
            mount_id: self.mount.id,
            unique_mount_id: identity.and_then(|identity| identity.unique_mount_id),
            view: self.mount.view,
            mountpoint: self.mount.mountpoint.clone(),
            hidden: self.mount.hidden_by.is_some(),
            through: self.through,
        }
    }
}
