//! Source and options of a mount -> server, export, transport.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How an NFS mount behaves when the server does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Retries for ever.
    Hard,
    /// Gives up with EIO after about `timeo` x (`retrans` + 1).
    Soft,
    /// Gives up with ETIMEDOUT; attribute revalidation then answers from cache as if all were well.
    Softerr,
}

/// Where a mount's data come from, as far as its table line says. Absent fields are not stated there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Server as mounted: a name or an address, without brackets. For EFS through a local proxy the file system id.
    pub server: Option<String>,
    /// Address that the kernel talks to (`addr=`).
    pub address: Option<IpAddr>,
    /// Port that the kernel talks to; 2049 for NFS where the options do not say.
    pub port: Option<u16>,
    /// Export, share or remote directory.
    pub export: Option<String>,
    /// Protocol version (`3`, `4.1`), where the type has one.
    pub version: Option<String>,
    /// Hard, soft or softerr (NFS).
    pub mode: Option<Mode>,
    /// `timeo=` in tenths of a second (NFS).
    pub timeo: Option<u32>,
    /// `retrans=` (NFS).
    pub retrans: Option<u32>,
    /// Security flavour (`sys`, `krb5p`).
    pub security: Option<String>,
    /// The EFS file system behind a local TLS proxy (`fs-...`), from the proxy's state file.
    pub efs_file_system: Option<String>,
    /// The port of a local proxy (stunnel, efs-proxy) that stands between the kernel and the server.
    pub proxy_port: Option<u16>,
    /// The source as metrics show it: a local proxy decoded, else the kernel's word, bytes that are not UTF-8 escaped.
    pub label: String,
}
