//! EFS over TLS: between the kernel and the server stands a local process, stunnel or efs-proxy, on a port of its own.
//!
//! Its death looks to the kernel like a server that refuses. Whether it lives is read from `/proc/PID/stat`, which never
//! blocks, and told by its port; what is behind it is asked by the file system's own name.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::localfs;
use crate::mounts::efs::EfsMount;

/// Programs that efs-utils starts. The kernel cuts names after fifteen bytes; all of these are shorter.
const PROGRAMS: [&str; 4] = ["efs-proxy", "stunnel", "stunnel4", "stunnel5"];

/// The process that the state file names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProcess {
    /// It runs, under this name.
    Alive(String),
    /// There is no such process, or it is a zombie.
    Gone,
    /// The number belongs to another program by now.
    Reused(String),
    /// It could not be told: no state file, or it names no process.
    Unknown,
}

/// Looks for the process of a proxy. `pid` is one of the namespace whose `/proc` is at `proc_root`.
#[must_use]
pub fn process(proc_root: &Path, pid: Option<u32>) -> ProxyProcess {
    let Some(pid) = pid else { return ProxyProcess::Unknown };
    match localfs::read_kernel_file(&proc_root.join(pid.to_string()).join("stat")) {
        Ok(stat) => judge(&stat),
        Err(error) if localfs::process_ended(&error) => ProxyProcess::Gone,
        Err(_) => ProxyProcess::Unknown,
    }
}

/// `PID (NAME) STATE ...`; the name may hold anything, parentheses too.
fn judge(stat: &[u8]) -> ProxyProcess {
    let open = stat.iter().position(|&byte| byte == b'(');
    let close = stat.iter().rposition(|&byte| byte == b')');
    let (Some(open), Some(close)) = (open, close) else { return ProxyProcess::Unknown };
    let Some(name) = stat.get(open + 1..close) else { return ProxyProcess::Unknown };
    let name = String::from_utf8_lossy(name).into_owned();
    match stat.get(close + 2) {
        None => ProxyProcess::Unknown,
        _ if !PROGRAMS.contains(&name.as_str()) => ProxyProcess::Reused(name),
        Some(b'Z' | b'X') => ProxyProcess::Gone,
        Some(_) => ProxyProcess::Alive(name),
    }
}

/// DNS name of the mount targets of a file system, by the region that its state file names.
///
/// The suffix follows the region's partition, as in efs-utils' configuration; `None` without a region.
#[must_use]
pub fn mount_target_name(mount: &EfsMount) -> Option<String> {
    dns_name(&mount.file_system, mount.region.as_deref()?)
}

/// DNS name of the mount targets of a file system in a region; `None` where that is no name of a region.
#[must_use]
pub fn dns_name(file_system: &str, region: &str) -> Option<String> {
    let known = !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let suffix = match region {
        _ if region.starts_with("cn-") => "amazonaws.com.cn",
        _ if region.starts_with("us-isob-") => "sc2s.sgov.gov",
        _ if region.starts_with("us-isof-") => "csp.hci.ic.gov",
        _ if region.starts_with("us-iso-") => "c2s.ic.gov",
        _ if region.starts_with("eu-isoe-") => "cloud.adc-e.uk",
        _ if region.starts_with("eusc-") => "amazonaws.eu",
        _ => "amazonaws.com",
    };
    known.then(|| format!("{file_system}.efs.{region}.{suffix}"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::mounts::efs::StateFiles;

    fn efs_mount(region: &str) -> EfsMount {
        let name = OsString::from("fs-0123456789abcdef0.mnt.data.20173");
        let content = format!(r#"{{"pid": 77, "region": "{region}"}}"#);
        let files = StateFiles::decode(std::iter::once((name, content.into_bytes())));
        files.lookup(20173, Path::new("/mnt/data")).unwrap().clone()
    }

    #[test]
    fn a_process_is_judged_by_its_name_and_state() {
        let cases: [(&[u8], ProxyProcess); 7] = [
            (b"77 (stunnel) S 1 77 77 0", ProxyProcess::Alive("stunnel".to_owned())),
            (b"77 (efs-proxy) D 1", ProxyProcess::Alive("efs-proxy".to_owned())),
            (b"77 (stunnel) Z 1", ProxyProcess::Gone),
            (b"77 (a) R (stunnel) S 1", ProxyProcess::Reused("a) R (stunnel".to_owned())),
            (b"77 (bash) S 1", ProxyProcess::Reused("bash".to_owned())),
            (b"77 (stunnel)", ProxyProcess::Unknown),
            (b")(", ProxyProcess::Unknown),
        ];
        for (stat, process) in cases {
            assert_eq!(judge(stat), process, "{}", String::from_utf8_lossy(stat));
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a scratch directory")]
    fn a_process_that_is_not_there_is_gone_and_a_nameless_one_unknown() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("77")).unwrap();
        std::fs::write(root.path().join("77/stat"), "77 (stunnel5) S 1").unwrap();
        assert_eq!(process(root.path(), Some(77)), ProxyProcess::Alive("stunnel5".to_owned()));
        assert_eq!(process(root.path(), Some(78)), ProxyProcess::Gone);
        assert_eq!(process(root.path(), None), ProxyProcess::Unknown);
    }

    #[test]
    fn the_name_of_a_mount_target_follows_its_region() {
        let cases = [
            ("eu-west-1", Some("fs-0123456789abcdef0.efs.eu-west-1.amazonaws.com")),
            ("cn-north-1", Some("fs-0123456789abcdef0.efs.cn-north-1.amazonaws.com.cn")),
            ("us-isob-east-1", Some("fs-0123456789abcdef0.efs.us-isob-east-1.sc2s.sgov.gov")),
            ("eusc-de-east-1", Some("fs-0123456789abcdef0.efs.eusc-de-east-1.amazonaws.eu")),
            ("evil.example/", None),
            ("", None),
        ];
        for (region, name) in cases {
            assert_eq!(mount_target_name(&efs_mount(region)).as_deref(), name);
        }
    }
}
