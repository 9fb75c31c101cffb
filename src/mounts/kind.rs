//! Which filesystem types are network mounts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of network filesystem, by what its errors and options mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `nfs`: NFSv2 and v3.
    Nfs,
    /// `nfs4`: NFSv4.0, 4.1 and 4.2.
    Nfs4,
    /// Amazon EFS over `nfs4`, by name, address or local proxy.
    Efs,
    /// `cifs`, `smb3`.
    Cifs,
    /// `ceph` (kernel client).
    Ceph,
    /// `lustre`.
    Lustre,
    /// `fuse.*` and `fuse`, among them gluster, sshfs, s3 and ceph-fuse.
    Fuse,
    /// `9p`.
    #[serde(rename = "9p")]
    NineP,
    /// `beegfs`.
    #[serde(rename = "beegfs")]
    BeeGfs,
    /// `gpfs`.
    Gpfs,
    /// `autofs`: a trigger that mounts when it is touched. Shown, never touched.
    Autofs,
}

/// FUSE subtypes that serve local data (archives, encryption of a local directory, desktop and container plumbing) and
/// belong to their user's session. Every other `fuse.*` is taken for a network mount: a new one is then watched, not missed.
pub const LOCAL_FUSE: &[&str] = &[
    // Container runtimes: per-container /proc views and rootless overlays.
    "lxcfs",
    "sysboxfs",
    "fuse-overlayfs",
    // Desktop sessions: root may not even look into these (no allow_other).
    "gvfsd-fuse",
    "gvfs-fuse-daemon",
    "portal",
    "xdg-document-portal",
    "kio-fuse",
    "vmware-vmblock",
    // Images and archives.
    "snapfuse",
    "squashfuse",
    "squashfuse_ll",
    "erofsfuse",
    "archivemount",
    "fuse-archive",
    "fuse-zip",
    "mount-zip",
    "rar2fs",
    "ratarmount",
    "fuseiso",
    // Local disks and devices in foreign formats.
    "fuse-ext2",
    "ext4fuse",
    "fusefat",
    "apfs-fuse",
    "dislocker",
    "simple-mtpfs",
    "jmtpfs",
    "ifuse",
    // Encryption over a local directory.
    "encfs",
    "gocryptfs",
    "cryfs",
    "securefs",
];

impl Kind {
    /// The kind of a filesystem type as mountinfo prints it; `None` for what is not watched by itself.
    ///
    /// `fuseblk` is a local disk and `fusectl` the control filesystem. EFS is `nfs4` here; its source tells
    /// ([`super::source::classify`]).
    #[must_use]
    pub fn from_fstype(fstype: &str) -> Option<Kind> {
        match fstype {
            "nfs" => Some(Kind::Nfs),
            "nfs4" => Some(Kind::Nfs4),
            "cifs" | "smb3" => Some(Kind::Cifs),
            "ceph" => Some(Kind::Ceph),
            "lustre" => Some(Kind::Lustre),
            "9p" => Some(Kind::NineP),
            "beegfs" => Some(Kind::BeeGfs),
            "gpfs" => Some(Kind::Gpfs),
            "autofs" => Some(Kind::Autofs),
            "fuse" => Some(Kind::Fuse),
            _ => fstype.strip_prefix("fuse.").filter(|subtype| !is_local_fuse(subtype)).map(|_| Kind::Fuse),
        }
    }

    /// NFS of any version, EFS included: the same errors, options and statistics.
    #[must_use]
    pub fn is_nfs(self) -> bool {
        matches!(self, Kind::Nfs | Kind::Nfs4 | Kind::Efs)
    }

    /// Whether an inode number stays with its file, so that another number means another file.
    ///
    /// FUSE daemons may number files anew at every lookup, CIFS makes numbers up where the server gives none, and 9p
    /// derives them from qid paths that servers over several filesystems reuse.
    #[must_use]
    pub fn stable_inodes(self) -> bool {
        !matches!(self, Kind::Fuse | Kind::Cifs | Kind::NineP)
    }

    /// The word for it in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Nfs => "nfs",
            Kind::Nfs4 => "nfs4",
            Kind::Efs => "efs",
            Kind::Cifs => "cifs",
            Kind::Ceph => "ceph",
            Kind::Lustre => "lustre",
            Kind::Fuse => "fuse",
            Kind::NineP => "9p",
            Kind::BeeGfs => "beegfs",
            Kind::Gpfs => "gpfs",
            Kind::Autofs => "autofs",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Types that live on a block device of this node.
pub const BLOCK_TYPES: &[&str] = &["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"];

/// A local filesystem on a block device.
#[must_use]
pub fn on_block_device(mount: &super::Mount) -> bool {
    BLOCK_TYPES.contains(&mount.fstype.as_str()) && mount.source.as_encoded_bytes().starts_with(b"/dev/")
}

/// AppImages name their type after the image file (`fuse.Some-1.2.AppImage`).
fn is_local_fuse(subtype: &str) -> bool {
    LOCAL_FUSE.contains(&subtype) || subtype.ends_with(".AppImage")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_types_have_their_kind() {
        let cases = [
            ("nfs", Kind::Nfs),
            ("nfs4", Kind::Nfs4),
            ("cifs", Kind::Cifs),
            ("smb3", Kind::Cifs),
            ("ceph", Kind::Ceph),
            ("lustre", Kind::Lustre),
            ("fuse", Kind::Fuse),
            ("fuse.glusterfs", Kind::Fuse),
            ("fuse.sshfs", Kind::Fuse),
            ("fuse.s3fs", Kind::Fuse),
            ("fuse.never-heard-of", Kind::Fuse),
            ("9p", Kind::NineP),
            ("beegfs", Kind::BeeGfs),
            ("gpfs", Kind::Gpfs),
            ("autofs", Kind::Autofs),
        ];
        for (fstype, kind) in cases {
            assert_eq!(Kind::from_fstype(fstype), Some(kind), "{fstype}");
        }
    }

    #[test]
    fn local_types_have_none() {
        for fstype in [
            "",
            "ext4",
            "xfs",
            "tmpfs",
            "overlay",
            "efs",
            "fuseblk",
            "fusectl",
            "nfsd",
            "rpc_pipefs",
            "fuse.X.AppImage",
        ] {
            assert_eq!(Kind::from_fstype(fstype), None, "{fstype}");
        }
        for subtype in LOCAL_FUSE {
            assert_eq!(Kind::from_fstype(&format!("fuse.{subtype}")), None, "{subtype}");
        }
    }

    #[test]
    fn words_are_those_of_the_json_document() {
        for kind in [Kind::Nfs, Kind::Nfs4, Kind::Efs, Kind::Cifs, Kind::NineP, Kind::BeeGfs, Kind::Gpfs, Kind::Autofs]
        {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }

    #[test]
    fn only_filesystems_with_real_inode_numbers_count_as_stable() {
        assert!(Kind::Efs.stable_inodes() && Kind::Ceph.stable_inodes());
        assert!(!Kind::Fuse.stable_inodes() && !Kind::Cifs.stable_inodes() && !Kind::NineP.stable_inodes());
    }
}
