//! The mounts of the host that are watched, and what a new reading of the table renews of their targets.

use crate::agent::target::Target;
use crate::mounts::Mount;
use crate::mounts::filter::Filter;
use crate::mounts::table::{ById, through};
use crate::verdict::Facts;

/// What may change while a mount stays: options by a remount, what lies on top of it or on the way to it.
/// `first`: the first mount of the target in this reading.
pub(super) fn renew(target: &mut Target, watched: &Watched<'_>, first: bool) {
    let mount = watched.mount;
    let facts = Facts::of(mount);
    target.facts = if first { facts } else { facts.joined(&target.facts) };
    if first && target.mount != *mount {
        target.mount = mount.clone();
    }
    for member in &mut target.members {
        if (member.view, member.mount_id) == (mount.view, mount.id) {
            member.hidden = mount.hidden_by.is_some();
            member.through = watched.through;
        }
    }
}

/// A mount that the agent watches.
#[derive(Debug, Clone, Copy)]
pub(in crate::agent) struct Watched<'table> {
    pub(in crate::agent) mount: &'table Mount,
    /// Mount id of the network mount that its path leads through.
    pub(in crate::agent) through: Option<u64>,
}

/// The mounts that the filter wants, each with the network mount on its way.
pub(in crate::agent) fn watched<'table>(mounts: &'table [Mount], filter: &Filter) -> Vec<Watched<'table>> {
    let by_id: ById<'_> = mounts.iter().map(|mount| ((mount.view, mount.id), mount)).collect();
    let watch = |mount| Watched { mount, through: through(mount, &by_id).map(|other| other.id) };
    mounts.iter().filter(|mount| filter.wants(mount)).map(watch).collect()
}
