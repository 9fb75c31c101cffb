//! Which mounts cannot be reached by their own path, because another mount stands on it or above it.
//!
//! mountinfo gives the parent of every mount, and so the tree that the kernel walks (path_lookup, Linux
//! Documentation/filesystems/path-lookup.rst): a path starts on the process's root mount, and at every component goes
//! over to the mount that stands there on the current one, and to the top of what is stacked on that.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

use crate::mounts::Mount;

/// Sets `hidden_by` of all mounts of one namespace: the id of the mount that the path leads to instead.
pub(super) fn resolve(mounts: &mut [Mount]) {
    let found: Vec<Option<u64>> = {
        let tree = Tree::of(mounts);
        mounts.iter().map(|mount| tree.hidden_by(mount)).collect()
    };
    for (mount, hidden_by) in mounts.iter_mut().zip(found) {
        mount.hidden_by = hidden_by;
    }
}

/// Where a mount stands: on which mount (`None`: on one that the table does not show) and at which path.
type Place<'a> = (Option<u64>, &'a [u8]);

struct Tree<'a> {
    children: HashMap<Place<'a>, u64>,
    /// For every mount the topmost of those stacked on it.
    tops: HashMap<u64, u64>,
}

impl<'a> Tree<'a> {
    fn of(mounts: &'a [Mount]) -> Tree<'a> {
        let paths: HashMap<u64, &[u8]> = mounts.iter().map(|mount| (mount.id, path(mount))).collect();
        let known = |parent: u64, own: u64| (parent != own && paths.contains_key(&parent)).then_some(parent);
        let children = mounts.iter().map(|mount| ((known(mount.parent, mount.id), path(mount)), mount.id)).collect();
        let tops = tops(&paths, &children);
        Tree { children, tops }
    }

    fn hidden_by(&self, mount: &Mount) -> Option<u64> {
        self.lookup(path(mount)).filter(|&id| id != mount.id)
    }

    /// The mount that a path leads to.
    fn lookup(&self, path: &[u8]) -> Option<u64> {
        // What is stacked on `/` later is not seen by a process whose root is the mount below.
        let mut current = self.child(None, b"/");
        for place in prefixes(path) {
            if let Some(child) = self.child(current, place) {
                current = Some(self.tops.get(&child).copied().unwrap_or(child));
            }
        }
        current
    }

    /// A mount whose parent is not in the table (outside a chroot, or its line was bad) counts as standing on any.
    fn child(&self, on: Option<u64>, at: &[u8]) -> Option<u64> {
        self.children.get(&(on, at)).or_else(|| self.children.get(&(None, at))).copied()
    }
}

fn path(mount: &Mount) -> &[u8] {
    mount.mountpoint.as_os_str().as_bytes()
}

/// Stacks can be as high as the kernel allows mounts (100,000), so each is climbed once, from wherever it is entered.
fn tops(paths: &HashMap<u64, &[u8]>, children: &HashMap<Place<'_>, u64>) -> HashMap<u64, u64> {
    let mut tops: HashMap<u64, u64> = HashMap::with_capacity(paths.len());
    for (&bottom, &at) in paths {
        let mut climbed = Vec::new();
        let mut current = bottom;
        let top = loop {
            if let Some(&known) = tops.get(&current) {
                break known;
            }
            climbed.push(current);
            // Noted at once: in a table that contradicts itself a circle ends here.
            tops.insert(current, current);
            match children.get(&(Some(current), at)) {
                Some(&next) => current = next,
                None => break current,
            }
        };
        tops.extend(climbed.into_iter().map(|id| (id, top)));
    }
    tops
}

/// `/a/b` -> `/a`, `/a/b`. None for `/`.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = (1..=path.len()).filter(|&end| path.get(end).is_none_or(|&byte| byte == b'/'));
    ends.filter_map(|end| path.get(..end)).filter(|prefix| *prefix != b"/")
}
