//! Which network mount the path of another one leads through.

use std::collections::HashMap;

use crate::mounts::{Kind, Mount, View};

/// Mounts by view and id: both namespaces count their own.
pub type ById<'table> = HashMap<(View, u64), &'table Mount>;

/// The nearest network mount that the path of `mount` leads through.
#[must_use]
pub fn through<'table>(mount: &Mount, by_id: &ById<'table>) -> Option<&'table Mount> {
    let mut at = mount;
    // The chain ends at the namespace's root, whose parent is not in the table; a loop cannot be longer than it.
    for _ in 0..by_id.len() {
        let parent = *by_id.get(&(at.view, at.parent)).filter(|parent| parent.id != at.id)?;
        // What stands on the root of another mount is reached without a look into that one: the kernel steps from mount
        // to mount (`__traverse_mounts` in fs/namei.c) and asks no filesystem.
        let stacked = parent.mountpoint == at.mountpoint;
        if !stacked && parent.kind.is_some_and(|kind| kind != Kind::Autofs) {
            return Some(parent);
        }
        at = parent;
    }
    None
}
