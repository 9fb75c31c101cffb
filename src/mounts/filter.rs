//! Which mounts the agent watches: `--include-fstype`, `--exclude-fstype`, `--include-mount`, `--exclude-mount`.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::{Kind, Mount, kind, kubelet};

/// The patterns in force. The default watches every known network filesystem.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    include_fstype: GlobSet,
    exclude_fstype: GlobSet,
    /// `None`: every mountpoint.
    include_mount: Option<GlobSet>,
    exclude_mount: GlobSet,
    /// Local filesystems by mountpoint.
    local: GlobSet,
}

/// A pattern that is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "{option}: \"{pattern}\" is no pattern ({reason}); write * for any text, ? for one byte, [ab] for one of a set, {{a,b}} for alternatives, and a backslash before one of these that is meant as it stands"
)]
pub struct FilterError {
    /// The option that it was given to, as on the command line.
    pub option: &'static str,
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Filter {
    /// Compiles the patterns of the configuration.
    ///
    /// `*` in a mount pattern crosses slashes, so that `/var/lib/kubelet/*` means everything below it.
    ///
    /// # Errors
    /// The first pattern that does not compile.
    pub fn new(
        include_fstype: &[String],
        exclude_fstype: &[String],
        include_mount: &[String],
        exclude_mount: &[String],
    ) -> Result<Filter, FilterError> {
        let some_mounts = !include_mount.is_empty();
        let include_mount = compile("--include-mount", include_mount)?;
        Ok(Filter {
            include_fstype: compile("--include-fstype", include_fstype)?,
            exclude_fstype: compile("--exclude-fstype", exclude_fstype)?,
            include_mount: some_mounts.then_some(include_mount),
            exclude_mount: compile("--exclude-mount", exclude_mount)?,
            local: GlobSet::empty(),
        })
    }

    /// Adds local filesystems on block devices, by mountpoint.
    ///
    /// # Errors
    /// The first pattern that does not compile.
    pub fn with_local(self, patterns: &[String]) -> Result<Filter, FilterError> {
        Ok(Filter { local: compile("mounts.local", patterns)?, ..self })
    }

    /// Whether the agent watches this mount: a known network type, an included one, or a local volume, and not excluded.
    ///
    /// Exclusion wins. autofs is never wanted, whatever the patterns say: to probe it is to trigger it.
    #[must_use]
    pub fn wants(&self, mount: &Mount) -> bool {
        if mount.kind == Some(Kind::Autofs) {
            return false;
        }
        let network = mount.kind.is_some() || self.include_fstype.is_match(&mount.fstype);
        (network || self.wants_local(mount))
            && !self.exclude_fstype.is_match(&mount.fstype)
            && self.include_mount.as_ref().is_none_or(|set| set.is_match(&mount.mountpoint))
            && !self.exclude_mount.is_match(&mount.mountpoint)
    }

    /// A pod's volume that may be written to, or one that the configuration names. A pod sees no difference between a
    /// disk and a share, until the kernel turns the disk read-only or loses it.
    fn wants_local(&self, mount: &Mount) -> bool {
        let of_pod = kubelet::is_volume(&mount.mountpoint) && !mount.has_option("ro");
        kind::on_block_device(mount) && (of_pod || self.local.is_match(&mount.mountpoint))
    }
}

fn compile(option: &'static str, patterns: &[String]) -> Result<GlobSet, FilterError> {
    let failed = |pattern: &str, error: &globset::Error| FilterError {
        option,
        pattern: pattern.to_owned(),
        reason: error.kind().to_string(),
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(glob(pattern).map_err(|error| failed(pattern, &error))?);
    }
    set.build().map_err(|error| failed(error.glob().unwrap_or("the patterns together"), &error))
}

fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(false).backslash_escape(true).build()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::mounts::{View, mountinfo, octal};

    fn mount(fstype: &str, mountpoint: &[u8]) -> Mount {
        let mut line = b"1 0 0:9 / ".to_vec();
        line.extend(octal::escape(OsStr::from_bytes(mountpoint)));
        line.extend(format!(" rw - {fstype} srv:/ rw\n").bytes());
        mountinfo::parse(&line, View::Own).mounts.remove(0)
    }

    fn filter(lists: [&[&str]; 4]) -> Result<Filter, FilterError> {
        let [a, b, c, d] = lists.map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
        Filter::new(&a, &b, &c, &d)
    }

    #[test]
    fn the_default_watches_network_types_and_nothing_else() {
        for filter in [Filter::default(), filter([&[], &[], &[], &[]]).unwrap()] {
            for fstype in ["nfs", "nfs4", "cifs", "ceph", "fuse.sshfs", "9p", "gpfs"] {
                assert!(filter.wants(&mount(fstype, b"/mnt")), "{fstype}");
            }
            for fstype in ["ext4", "tmpfs", "fuse.lxcfs", "fuseblk", "autofs"] {
                assert!(!filter.wants(&mount(fstype, b"/mnt")), "{fstype}");
            }
        }
    }

    #[test]
    fn types_are_included_and_excluded_by_pattern() {
        let filter = filter([&["ext4", "fuse.*", "autofs", "*"], &["fuse.gvfs*", "cifs"], &[], &[]]).unwrap();
        assert!(filter.wants(&mount("ext4", b"/")));
        assert!(filter.wants(&mount("fuse.lxcfs", b"/")));
        assert!(!filter.wants(&mount("fuse.gvfsd-fuse", b"/")));
        assert!(!filter.wants(&mount("cifs", b"/")));
        assert!(!filter.wants(&mount("autofs", b"/")), "autofs is never wanted");
    }

    #[test]
    fn mountpoints_are_included_and_excluded_by_pattern() {
        let filter = filter([&[], &[], &["/data/*", "/mnt/?", "/srv/{a,b}"], &["*/scratch", r"/data/\[x\]"]]).unwrap();
        for mountpoint in ["/data/a/b/c", "/mnt/1", "/srv/a"] {
            assert!(filter.wants(&mount("nfs4", mountpoint.as_bytes())), "{mountpoint}");
        }
        for mountpoint in ["/data", "/mnt/12", "/srv/c", "/data/a/scratch", "/data/[x]", "/home"] {
            assert!(!filter.wants(&mount("nfs4", mountpoint.as_bytes())), "{mountpoint}");
        }
    }

    #[test]
    fn patterns_match_names_of_any_bytes() {
        let filter = filter([&[], &[], &["/mnt/*"], &["/mnt/caf??/x"]]).unwrap();
        assert!(filter.wants(&mount("nfs4", b"/mnt/\xff\nname")));
        assert!(!filter.wants(&mount("nfs4", "/mnt/café/x".as_bytes())));
    }

    /// A filesystem of a disk at `mountpoint`.
    fn disk(fstype: &str, options: &str, source: &str, mountpoint: &str) -> Mount {
        let line = format!("1 0 259:3 / {mountpoint} {options} - {fstype} {source} rw\n");
        mountinfo::parse(line.as_bytes(), View::Own).mounts.remove(0)
    }

    #[test]
    fn disks_of_pods_are_watched_when_they_may_be_written_to() {
        const POD: &str = "/var/lib/kubelet/pods/0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";
        let filter = Filter::default();
        let volume = format!("{POD}/volumes/kubernetes.io~csi/pvc-1/mount");
        for fstype in ["ext4", "xfs", "btrfs"] {
            assert!(filter.wants(&disk(fstype, "rw,relatime", "/dev/nvme1n1", &volume)), "{fstype}");
        }
        let others = [
            ("ext4", "ro,relatime", "/dev/nvme1n1", volume.as_str()),
            ("tmpfs", "rw", "tmpfs", &volume),
            ("overlay", "rw", "overlay", &volume),
            ("ext4", "rw", "/dev/nvme1n1", "/var/lib/kubelet/plugins/kubernetes.io/csi/x/globalmount"),
            ("ext4", "rw", "/dev/nvme1n1", &format!("{POD}/volume-subpaths/pvc-1/app/0")),
            ("ext4", "rw", "/dev/nvme0n1p1", "/"),
        ];
        for (fstype, options, source, mountpoint) in others {
            assert!(!filter.wants(&disk(fstype, options, source, mountpoint)), "{fstype} {options} {mountpoint}");
        }
    }

    #[test]
    fn disks_that_are_named_are_watched_and_exclusion_wins() {
        let named = |list: &[&str]| {
            let patterns: Vec<String> = list.iter().map(ToString::to_string).collect();
            filter([&[], &["xfs"], &[], &["/srv/scratch"]]).unwrap().with_local(&patterns)
        };
        let filter = named(&["/srv/*"]).unwrap();
        assert!(filter.wants(&disk("ext4", "rw", "/dev/sdb", "/srv/data")));
        assert!(!filter.wants(&disk("ext4", "rw", "/dev/sdb", "/srv/scratch")));
        assert!(!filter.wants(&disk("xfs", "rw", "/dev/sdb", "/srv/data")));
        assert!(!filter.wants(&disk("tmpfs", "rw", "tmpfs", "/srv/run")));
        assert!(!filter.wants(&disk("ext4", "rw", "/dev/sdb", "/home")));
        assert_eq!(named(&["[a"]).unwrap_err().option, "mounts.local");
    }

    #[test]
    fn a_bad_pattern_is_named_with_its_option() {
        let error = filter([&[], &[], &["/ok", "/data/[a"], &[]]).unwrap_err();
        assert_eq!((error.option, error.pattern.as_str()), ("--include-mount", "/data/[a"));
        let text = error.to_string();
        assert!(text.starts_with("--include-mount: \"/data/[a\" is no pattern (unclosed character class"), "{text}");
    }
}
