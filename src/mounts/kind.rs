//! Which filesystem types are network mounts.

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
    NineP,
    /// `beegfs`.
    BeeGfs,
    /// `gpfs`.
    Gpfs,
    /// `autofs`: a trigger that mounts when it is touched. Shown, never touched.
    Autofs,
}
