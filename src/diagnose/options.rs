//! The options of a mount that is yet to be made, as fstab and PersistentVolumes have them. Pure.

use crate::probe::trial::TrialOption;
use crate::probe::trial::options::VERSIONS;

/// What mount(8) and mount.nfs(8) keep for themselves, and what belongs to a mountpoint and not to the server's side: the
/// kernel's filesystem context would refuse it. `ro` is there already.
const LOCAL: [&str; 36] = [
    "rw",
    "ro",
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "bg",
    "fg",
    "retry",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "exec",
    "noexec",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "comment",
    "remount",
    "sloppy",
    "sync",
    "async",
    "addr",
    "clientaddr",
    "mountaddr",
];

/// The options of `-o`, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Versions to try in this order, as mount.nfs would.
    pub versions: Vec<&'static str>,
    /// Port of NFS, where it is not 2049.
    pub port: Option<u16>,
    /// What else the kernel is told.
    pub others: Vec<TrialOption>,
    /// Those that were left out: they play no part in whether the server lets this host mount.
    pub left_out: Vec<String>,
}

impl MountOptions {
    /// Reads a comma-separated list.
    ///
    /// # Errors
    /// A version that there is not.
    pub fn parse(list: &str) -> Result<MountOptions, String> {
        let mut found = MountOptions::default();
        let (mut version, mut minor) = (None, None);
        for option in list.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            match (name, value) {
                ("vers" | "nfsvers", Some(value)) => version = Some(value.to_owned()),
                ("minorversion", Some(value)) => minor = Some(value.to_owned()),
                ("port", Some(value)) => {
                    let port: u16 = value.parse().map_err(|_| format!("{option} is no port"))?;
                    found.port = Some(port).filter(|port| *port != 0);
                }
                _ if LOCAL.contains(&name) || name.starts_with("x-") => found.left_out.push(option.to_owned()),
                _ => found.others.push(TrialOption { name: name.to_owned(), value: value.map(str::to_owned) }),
            }
        }
        found.versions = versions(version.as_deref(), minor.as_deref())?;
        Ok(found)
    }

    /// NFSv4 may be tried.
    #[must_use]
    pub fn wants_v4(&self) -> bool {
        self.versions.iter().any(|version| version.starts_with('4'))
    }

    /// NFSv3 may be tried.
    #[must_use]
    pub fn wants_v3(&self) -> bool {
        self.versions.contains(&"3")
    }

    /// A flag stands among them.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.others.iter().any(|option| option.name == flag && option.value.is_none())
    }

    /// Plain user ids.
    #[must_use]
    pub fn plain_security(&self) -> bool {
        self.others.iter().all(|option| option.name != "sec" || option.value.as_deref() == Some("sys"))
    }
}

fn versions(version: Option<&str>, minor: Option<&str>) -> Result<Vec<&'static str>, String> {
    let wanted = match (version, minor) {
        (None, None) => return Ok(VERSIONS.to_vec()),
        (None | Some("4"), Some(minor)) => format!("4.{minor}"),
        (Some("4"), None) => return Ok(VERSIONS.iter().copied().filter(|known| known.starts_with('4')).collect()),
        (Some(version), _) => version.to_owned(),
    };
    let known = VERSIONS.iter().copied().find(|known| *known == wanted);
    known
        .map(|version| vec![version])
        .ok_or_else(|| format!("there is no NFS version {wanted} to try: 3, 4, 4.0, 4.1, 4.2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_options_all_versions_are_tried_downwards() {
        let options = MountOptions::parse("").unwrap();
        assert_eq!(options.versions, VERSIONS);
        assert!(options.wants_v3() && options.wants_v4() && options.plain_security());
    }

    #[test]
    fn a_version_narrows_what_is_tried() {
        let versions = |list: &str| MountOptions::parse(list).unwrap().versions;
        assert_eq!(versions("vers=3"), ["3"]);
        assert_eq!(versions("nfsvers=4.1,hard"), ["4.1"]);
        assert_eq!(versions("vers=4"), ["4.2", "4.1", "4.0"]);
        assert_eq!(versions("vers=4,minorversion=1"), ["4.1"]);
        let error = MountOptions::parse("vers=5").unwrap_err();
        assert!(error.contains("version 5"), "{error}");
    }

    #[test]
    fn what_belongs_to_mount_or_to_the_mountpoint_is_left_out() {
        let options =
            MountOptions::parse("rw,noatime,x-systemd.automount,retry=2,_netdev,hard,timeo=600,port=2050,sec=krb5")
                .unwrap();
        let others: Vec<String> = options.others.iter().map(ToString::to_string).collect();
        assert_eq!(others, ["hard", "timeo=600", "sec=krb5"]);
        assert_eq!(options.left_out, ["rw", "noatime", "x-systemd.automount", "retry=2", "_netdev"]);
        assert_eq!(options.port, Some(2050));
        assert!(options.has("hard") && !options.plain_security());
        assert!(MountOptions::parse("port=x").is_err());
    }
}
