//! State files of efs-utils: which EFS file system stands behind a local proxy.
//!
//! Every EFS mount through a proxy reads `127.0.0.1:/ ... port=20173`. The file
//! `/var/run/efs/fs-XXXX.<mountpoint with dots for slashes>.<port>` is the only place that says whose port that is. Its
//! content is JSON that efs-utils rewrites in place, so it may be half there; the name alone tells the most. While a
//! mount is being made the name starts with `~`. Files that are gone, stale or garbage are ordinary here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::source::is_file_system_id;
use super::{Kind, Mount, octal};

/// State files that are looked at; a node has one per EFS mount.
pub const MAX_FILES: usize = 4096;
/// Bytes of a state file's content that are looked at; real ones have about 1 KiB.
pub const MAX_FILE_BYTES: usize = 64 * 1024;

/// What the state files of a node say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateFiles {
    mounts: Vec<EfsMount>,
}

/// One EFS mount through a local proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EfsMount {
    /// File system id (`fs-0123456789abcdef0`).
    pub file_system: String,
    /// Port on the loopback address that its proxy listens on.
    pub port: u16,
    /// Access point (`fsap-...`) if the mount names one.
    pub access_point: Option<String>,
    /// Region of the file system.
    pub region: Option<String>,
    /// Availability zone, where the content has an `az` key; efs-utils up to 3.2 writes none.
    pub az: Option<String>,
    /// Process id of the proxy (stunnel or efs-proxy) in the pid namespace of efs-utils.
    pub pid: Option<u32>,
    /// Mountpoint as efs-utils was given it, if the content can be read.
    pub mountpoint: Option<PathBuf>,
    /// Mountpoint as the file name has it: dots for slashes, none in front.
    dotted: Vec<u8>,
    /// The name has no `~`: the mount was made.
    complete: bool,
}

/// The keys that are used; all are optional and a wrong type makes a key absent, not the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Content {
    pid: serde_json::Value,
    mountpoint: serde_json::Value,
    access_point: serde_json::Value,
    region: serde_json::Value,
    az: serde_json::Value,
}

impl StateFiles {
    /// Reads names and contents of a state directory's files. Others than state files are passed over.
    pub fn decode(files: impl Iterator<Item = (OsString, Vec<u8>)>) -> StateFiles {
        let mounts = files.take(MAX_FILES).filter_map(|(name, content)| EfsMount::decode(&name, &content)).collect();
        StateFiles { mounts }
    }

    /// Whose proxy listens on `port`.
    ///
    /// A bind of the mount (a subPath, a container's view) has another mountpoint and the same port, so the mountpoint
    /// only decides between several files: ports are used again, and files of dead mounts stay behind.
    #[must_use]
    pub fn lookup(&self, port: u16, mountpoint: &Path) -> Option<&EfsMount> {
        let candidates = || self.mounts.iter().filter(|mount| mount.port == port);
        let by_path = candidates().filter(|mount| mount.is_at(mountpoint)).max_by_key(|mount| mount.complete);
        by_path.or_else(|| {
            let complete = candidates().any(|mount| mount.complete);
            let mut rest = candidates().filter(|mount| mount.complete == complete);
            let first = rest.next()?;
            rest.all(|other| other.file_system == first.file_system).then_some(first)
        })
    }

    /// Fills in what a state file knows of a mount through a local proxy; leaves every other mount as it is.
    pub fn apply(&self, mount: &mut Mount) {
        let nfs = mount.kind.is_some_and(Kind::is_nfs);
        let Some(port) = mount.origin.port.filter(|_| nfs && mount.origin.is_loopback()) else { return };
        let Some(found) = self.lookup(port, &mount.mountpoint) else { return };
        mount.kind = Some(Kind::Efs);
        let origin = &mut mount.origin;
        origin.proxy_port = Some(port);
        origin.efs_file_system = Some(found.file_system.clone());
        origin.server = Some(found.file_system.clone());
        origin.label = format!("{}:{}", found.file_system, origin.export.as_deref().unwrap_or("/"));
    }

    /// How many state files were understood.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mounts.len()
    }

    /// No state file was understood.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }
}

impl EfsMount {
    fn decode(name: &OsStr, content: &[u8]) -> Option<EfsMount> {
        let (complete, name) = match name.as_bytes().strip_prefix(b"~") {
            Some(rest) => (false, rest),
            None => (true, name.as_bytes()),
        };
        let mut ends = name.rsplitn(2, |&byte| byte == b'.');
        let port = std::str::from_utf8(ends.next()?).ok()?.parse().ok().filter(|&port| port != 0)?;
        let mut parts = ends.next()?.splitn(2, |&byte| byte == b'.');
        let file_system = std::str::from_utf8(parts.next()?).ok().filter(|id| is_file_system_id(id))?.to_owned();
        let dotted = parts.next()?.to_vec();
        let readable = content.len() <= MAX_FILE_BYTES;
        let content: Content =
            if readable { serde_json::from_slice(content).unwrap_or_default() } else { Content::default() };
        Some(EfsMount {
            file_system,
            port,
            access_point: text(&content.access_point),
            region: text(&content.region),
            az: text(&content.az),
            pid: content.pid.as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0),
            mountpoint: content.mountpoint.as_str().map(PathBuf::from),
            dotted,
            complete,
        })
    }

    fn is_at(&self, mountpoint: &Path) -> bool {
        match &self.mountpoint {
            Some(own) => own == mountpoint,
            None => self.dotted == dotted(mountpoint),
        }
    }
}

/// The mountpoint as efs-utils puts it into a file name.
fn dotted(mountpoint: &Path) -> Vec<u8> {
    let bytes = mountpoint.as_os_str().as_bytes().iter().map(|&byte| if byte == b'/' { b'.' } else { byte });
    bytes.skip_while(|&byte| byte == b'.').collect()
}

/// Text that goes into labels: short and printable.
fn text(value: &serde_json::Value) -> Option<String> {
    let text = value.as_str().filter(|text| !text.is_empty() && text.len() <= 256)?;
    Some(octal::label(&OsString::from_vec(text.as_bytes().to_vec())))
}

#[cfg(test)]
mod tests;
