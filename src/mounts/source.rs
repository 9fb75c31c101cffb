//! Source and options of a mount -> server, export, transport.
//!
//! Nothing here resolves or connects; what the line does not say stays absent. Formats: nfs(5), mount.cifs(8),
//! Documentation/filesystems/ceph.rst, lustre's mount.lustre(8).

use std::borrow::Cow;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use super::{Kind, octal};

/// Port of NFS over TCP and UDP where the options do not say.
pub(crate) const NFS_PORT: u16 = 2049;
/// Port of NFS over RDMA (RFC 8267).
const NFS_RDMA_PORT: u16 = 20049;
/// Port of SMB over TCP.
const SMB_PORT: u16 = 445;
/// Ports that efs-utils gives its local proxies (`port_range_lower_bound` and `port_range_upper_bound` in its defaults).
const EFS_PROXY_PORTS: RangeInclusive<u16> = 20049..=21049;
/// What the DNS names of EFS end in: the public regions, China, and the isolated partitions of efs-utils' configuration.
const AWS_SUFFIXES: &[&str] = &[
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "c2s.ic.gov",
    "sc2s.sgov.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
];
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
    /// Port that the kernel talks to; where the options do not say, 2049 for NFS (20049 over RDMA) and 445 for CIFS.
    pub port: Option<u16>,
    /// Export, share or remote directory.
    pub export: Option<String>,
    /// Transport of the RPCs (`tcp`, `tcp6`, `udp`, `rdma`) where the options name it.
    #[serde(default)]
    pub proto: Option<String>,
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
    /// The EFS file system (`fs-...`), from its DNS name or from the state file of its local proxy.
    pub efs_file_system: Option<String>,
    /// The port of a local proxy (stunnel, efs-proxy) that stands between the kernel and the server.
    pub proxy_port: Option<u16>,
    /// The source as metrics show it: a local proxy decoded, else the kernel's word, bytes that are not UTF-8 escaped.
    pub label: String,
}

impl Origin {
    /// Reads source and superblock options as mountinfo gives them: the source unescaped, the options not.
    #[must_use]
    pub fn parse(fstype: &str, source: &OsStr, super_options: &OsStr) -> Origin {
        // Server and export are shown as parts of the label, so bytes that are not UTF-8 stay distinct in them.
        let text = octal::label(source);
        let mut origin = Origin { label: text.clone(), ..Origin::default() };
        match Kind::from_fstype(fstype) {
            Some(Kind::Nfs | Kind::Nfs4) => origin.read_nfs(&text, super_options),
            Some(Kind::Cifs) => origin.read_cifs(&text, super_options),
            Some(Kind::Ceph) => origin.read_ceph(&text, super_options),
            Some(Kind::Lustre) => origin.read_lustre(&text),
            Some(Kind::NineP) => origin.read_9p(&text, super_options),
            // What stands before the colon of a FUSE source is the daemon's own affair, as are its options.
            _ => {}
        }
        origin
    }

    fn read_nfs(&mut self, source: &str, super_options: &OsStr) {
        if let Some((server, export)) = split_host(source) {
            self.server = Some(server.to_owned());
            self.export = Some(export.to_owned());
        }
        let mut minor = None;
        for (name, value) in options(super_options) {
            let text = value.as_deref().unwrap_or_default();
            match name.as_ref() {
                "hard" => self.mode = Some(Mode::Hard),
                "soft" => self.mode = Some(Mode::Soft),
                "softerr" => self.mode = Some(Mode::Softerr),
                "vers" | "nfsvers" => self.version = Some(shown(text)),
                "minorversion" => minor = Some(shown(text)),
                "timeo" => self.timeo = text.parse().ok(),
                "retrans" => self.retrans = text.parse().ok(),
                "sec" => self.security = Some(shown(text)),
                "proto" => self.proto = Some(shown(text)),
                "addr" => self.address = address(text),
                // The kernel prints port=0 for "ask the portmapper".
                "port" => self.port = text.parse().ok().filter(|&port| port != 0),
                _ => {}
            }
        }
        if let (Some("4"), Some(minor)) = (self.version.as_deref(), minor) {
            self.version = Some(format!("4.{minor}"));
        }
        self.efs_file_system = self.server.as_deref().and_then(efs_file_system_of);
        self.proxy_port = self.port.filter(|port| self.is_loopback() && EFS_PROXY_PORTS.contains(port));
        if let Some(port) = self.proxy_port {
            // All proxies of a node share the source `127.0.0.1:/`; the port tells them apart.
            self.label = with_port(source, port);
        }
        let rdma = self.proto.as_deref().is_some_and(|proto| proto.starts_with("rdma"));
        self.port = self.port.or(Some(if rdma { NFS_RDMA_PORT } else { NFS_PORT }));
    }

    fn read_cifs(&mut self, source: &str, super_options: &OsStr) {
        let path = source.trim_start_matches(['/', '\\']);
        if let Some((server, share)) = path.split_once(['/', '\\']) {
            self.server = Some(server.to_owned());
            self.export = Some(share.to_owned());
        }
        self.port = Some(SMB_PORT);
        for (name, value) in options(super_options) {
            let text = value.as_deref().unwrap_or_default();
            match name.as_ref() {
                "vers" => self.version = Some(shown(text)),
                "sec" => self.security = Some(shown(text)),
                "addr" | "ip" => self.address = address(text),
                "port" => self.port = text.parse().ok().filter(|&port| port != 0).or(self.port),
                "hard" => self.mode = Some(Mode::Hard),
                "soft" => self.mode = Some(Mode::Soft),
                _ => {}
            }
        }
    }

    /// `mon1,mon2:/path` (v1) or `user@fsid.fs=/path` with the monitors in `mon_addr=`, separated by slashes (v2).
    fn read_ceph(&mut self, source: &str, super_options: &OsStr) {
        if let Some((monitors, path)) = split_before(source, ":/") {
            self.server = Some(monitors.to_owned()).filter(|server| !server.is_empty());
            self.export = Some(path.to_owned());
        } else if let Some((_, path)) = split_before(source, "=/") {
            self.export = Some(path.to_owned());
        }
        for (name, value) in options(super_options) {
            if let ("mon_addr", Some(monitors)) = (name.as_ref(), value) {
                self.server = Some(shown(&monitors.replace('/', ",")));
            }
        }
        if let Some((host, port)) = self.server.as_deref().and_then(only_endpoint) {
            self.address = address(host);
            self.port = port;
        }
    }

    /// `10.1.0.1@tcp:/fs`, several servers separated by commas or colons.
    fn read_lustre(&mut self, source: &str) {
        if let Some((servers, filesystem)) = split_before(source, ":/") {
            self.address = servers.split_once('@').and_then(|(host, _)| address(host));
            self.server = Some(servers.to_owned());
            self.export = Some(filesystem.to_owned());
        }
    }

    /// The source is a server with `trans=tcp` or `trans=rdma`, else the tag of a virtual machine's device.
    fn read_9p(&mut self, source: &str, super_options: &OsStr) {
        for (name, value) in options(super_options) {
            let text = value.as_deref().unwrap_or_default();
            match name.as_ref() {
                "trans" if matches!(text, "tcp" | "rdma") => {
                    self.server = Some(source.to_owned());
                    self.address = address(source);
                    self.proto = Some(text.to_owned());
                }
                "port" => self.port = text.parse().ok(),
                "version" => self.version = Some(shown(text)),
                "aname" => self.export = Some(shown(text)),
                _ => {}
            }
        }
    }

    /// The kernel talks to this machine: by `addr=`, or by the source where that option is missing.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let named = || self.server.as_deref().and_then(address);
        self.address.or_else(named).is_some_and(|ip| ip.to_canonical().is_loopback())
    }
}

/// The kind of a mount by its type and source: EFS is `nfs4` whose server has the DNS name of a file system.
///
/// By plain address, or through a local proxy, EFS looks like any other server; state files may tell ([`super::efs`]).
#[must_use]
pub fn classify(fstype: &str, origin: &Origin) -> Option<Kind> {
    match Kind::from_fstype(fstype) {
        Some(Kind::Nfs4) if origin.efs_file_system.is_some() => Some(Kind::Efs),
        kind => kind,
    }
}

/// The options in their order, values unescaped; commas between double quotes (`context="a:c1,c2"`) separate nothing.
pub fn options(list: &OsStr) -> impl Iterator<Item = (Cow<'_, str>, Option<Cow<'_, str>>)> {
    let mut quoted = false;
    let separator = move |byte: &u8| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    };
    list.as_bytes().split(separator).filter(|option| !option.is_empty()).map(|option| {
        let mut parts = option.splitn(2, |&byte| byte == b'=');
        let name = parts.next().map(String::from_utf8_lossy).unwrap_or_default();
        (name, parts.next().map(unescaped))
    })
}

fn unescaped(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        _ => Cow::Owned(octal::unescape(value).to_string_lossy().into_owned()),
    }
}

/// `fs-0123` out of `fs-0123.efs.REGION.amazonaws.com`, also with a zone (`eu-west-1a.fs-0123.efs. ...`) in front.
fn efs_file_system_of(server: &str) -> Option<String> {
    let name = server.trim_end_matches('.').to_ascii_lowercase();
    let mut labels = name.split('.').skip_while(|label| !is_file_system_id(label));
    let id = labels.next()?.to_owned();
    // At most the zone stands before the id, and exactly the region between `efs` and the suffix.
    let zone_only = name.split('.').take_while(|label| *label != id).count() <= 1;
    let (service, region) = (labels.next()?, labels.next()?);
    let suffix = labels.collect::<Vec<_>>().join(".");
    (zone_only && service == "efs" && !region.is_empty() && AWS_SUFFIXES.contains(&suffix.as_str())).then_some(id)
}

/// `fs-` and 8 (old) or 17 hexadecimal digits; other lengths may come.
#[must_use]
pub fn is_file_system_id(text: &str) -> bool {
    text.strip_prefix("fs-").is_some_and(|hex| {
        (8..=40).contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// `srv:/a`, `[fe80::1]:/a`, `fe80::1:/a`, `srv:a` -> server and export. `None` where there is no colon.
fn split_host(source: &str) -> Option<(&str, &str)> {
    if let Some((host, rest)) = source.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return rest.strip_prefix(':').map(|export| (host, export));
    }
    split_before(source, ":/").or_else(|| source.split_once(':'))
}

/// Splits at the first `mark` (two bytes, the second a slash) and keeps the slash.
fn split_before<'a>(source: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let at = source.find(mark)?;
    Some((source.get(..at)?, source.get(at + 1..)?))
}

/// `host`, `host:port` and `[v6]:port`, but only if it is the only one of a list.
fn only_endpoint(list: &str) -> Option<(&str, Option<u16>)> {
    if list.contains(',') {
        return None;
    }
    if let Some((host, rest)) = list.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return Some((host, rest.strip_prefix(':').and_then(|port| port.parse().ok())));
    }
    match list.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host, port.parse().ok())),
        _ => Some((list, None)),
    }
}

/// An address, with or without brackets; a scope (`%eth0`) is dropped.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.split('%').next()?.parse().ok()
}

fn with_port(source: &str, port: u16) -> String {
    let (host, export) = split_host(source).unwrap_or((source, ""));
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("{host}:{port}:{export}")
}

fn shown(text: &str) -> String {
    octal::label(OsStr::new(text))
}

#[cfg(test)]
mod tests;
