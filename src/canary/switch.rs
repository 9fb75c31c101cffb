//! On which mounts canaries write: where the configuration says so, or somebody who may say so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use globset::GlobSet;

/// The mounts that have a canary.
#[derive(Debug, Clone, Default)]
pub struct Switch {
    globs: GlobSet,
    requested: BTreeSet<PathBuf>,
}

impl Switch {
    /// The patterns of the configuration (`canary.mounts`).
    #[must_use]
    pub fn new(globs: GlobSet) -> Switch {
        Switch { globs, requested: BTreeSet::new() }
    }

    /// Replaces the mountpoints that are asked for from outside (volumes whose claim is annotated).
    pub fn request(&mut self, mountpoints: BTreeSet<PathBuf>) {
        self.requested = mountpoints;
    }

    /// Takes new patterns over and keeps what was asked for from outside.
    pub fn set_globs(&mut self, globs: GlobSet) {
        self.globs = globs;
    }

    /// Nothing is written anywhere.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.globs.is_empty() && self.requested.is_empty()
    }

    /// Whether the mount at this path has a canary.
    #[must_use]
    pub fn wants(&self, mountpoint: &Path) -> bool {
        self.requested.contains(mountpoint) || self.globs.is_match(mountpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_writes_only_where_it_is_told_to() {
        let mut switch = Switch::default();
        assert!(switch.is_off() && !switch.wants("/mnt/a".as_ref()));
        let glob = globset::Glob::new("/mnt/*").unwrap();
        switch.set_globs(globset::GlobSetBuilder::new().add(glob).build().unwrap());
        assert!(switch.wants("/mnt/a".as_ref()) && !switch.wants("/srv".as_ref()));
        switch.request(BTreeSet::from([PathBuf::from("/srv")]));
        assert!(switch.wants("/srv".as_ref()) && !switch.wants("/srv/below".as_ref()));
        switch.request(BTreeSet::new());
        assert!(!switch.wants("/srv".as_ref()));
    }
}
