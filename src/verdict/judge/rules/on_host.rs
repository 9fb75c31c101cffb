//! Mounts that only containers and services have: a container's mount is a private copy, and nothing that is done on the
//! host reaches it (measured on a kubelet and in the lab).

use super::{Cause, Look, State, hard, words};
use crate::verdict::OnHost;

/// What a container has instead of a mount.
pub(super) fn absent(on_host: &OnHost) -> Option<Look> {
    match on_host {
        OnHost::OnDisk { directory } => {
            Some(hard(State::Lost, Some(Cause::UnmountedOnHost), words::on_disk(directory)))
        }
        OnHost::Missing => Some(hard(State::Lost, Some(Cause::MountMissing), words::missing())),
        OnHost::Remounted { .. } | OnHost::Unmounted => None,
    }
}

/// An old copy that works, and shows what the host shows, harms nobody: a finding. One that fails, or shows another
/// directory, is lost to its users, whatever the host has. One that does not answer may answer again: it hangs.
pub(super) fn compared(look: Look, on_host: &OnHost) -> Look {
    let fails = matches!(look.state, State::Stale | State::Lost | State::Error);
    let works = matches!(look.state, State::Healthy | State::Slow);
    let (cause, evidence) = match on_host {
        OnHost::Remounted { path, .. } if fails => (Cause::RemountedOnHost, words::remounted(path, &look.evidence)),
        OnHost::Remounted { path, differs: true } if works => (Cause::RemountedOnHost, words::other_root(path)),
        OnHost::Unmounted if fails => (Cause::UnmountedOnHost, words::unmounted(&look.evidence)),
        _ => return look,
    };
    Look { state: State::Lost, cause: Some(cause), evidence, ..look }
}
