//! With which options a trial mount is made. Pure.

use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use crate::mounts::{Kind, Mount, source};

/// What to mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialSpec {
    /// Filesystem type (`nfs4`).
    pub fstype: String,
    /// Source as mountinfo shows it, unescaped (`srv:/export`).
    pub source: Vec<u8>,
    /// Options for fsconfig(2), in their order; read-only is added to them.
    pub options: Vec<TrialOption>,
    /// Names that are looked up in the root, at most [`MAX_LOOKED_FOR`](super::MAX_LOOKED_FOR).
    pub look_for: Vec<Vec<u8>>,
}

/// One option: a flag, or a name with a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialOption {
    /// Its name.
    pub name: String,
    /// Its value; `None` for a flag.
    pub value: Option<String>,
}

impl TrialOption {
    fn flag(name: &str) -> TrialOption {
        TrialOption { name: name.to_owned(), value: None }
    }

    fn with(name: &str, value: impl Into<String>) -> TrialOption {
        TrialOption { name: name.to_owned(), value: Some(value.into()) }
    }
}

impl fmt::Display for TrialOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Versions in the order in which mount.nfs tries them when nobody says one.
pub const VERSIONS: [&str; 4] = ["4.2", "4.1", "4.0", "3"];

/// What the kernel prints of a superblock and must not be told again: the address is resolved anew, and the port of
/// mountd changes with every start of it (a recorded one gave ECONNREFUSED, measured).
const LEFT_OUT: [&str; 6] = ["ro", "rw", "addr", "clientaddr", "mountaddr", "mountport"];

impl TrialSpec {
    /// The same mount once more, at `address`; `None` when it is no NFS mount.
    #[must_use]
    pub fn of_mount(mount: &Mount, address: IpAddr) -> Option<TrialSpec> {
        mount.kind.filter(|kind| kind.is_nfs())?;
        Some(TrialSpec {
            fstype: mount.fstype.clone(),
            source: mount.source.as_bytes().to_vec(),
            options: of_superblock(&mount.super_options, address),
            look_for: Vec::new(),
        })
    }

    /// What mount.nfs hands to the kernel for `mount -t nfs SERVER:EXPORT`, which is what the kubelet runs for a volume
    /// without mountOptions; to be tried with the [`VERSIONS`] in their order as [`next_version`] says.
    ///
    /// v3 is tried without locks: a trial takes none, and with them the kernel starts its lock daemon, whose failures
    /// look like the server's.
    #[must_use]
    pub fn usual(server: &str, export: &str, version: &str, address: IpAddr) -> TrialSpec {
        let mut options = vec![TrialOption::with("vers", version)];
        if version == "3" {
            options.push(TrialOption::flag("nolock"));
        }
        options.push(address_option(address));
        TrialSpec {
            fstype: fstype_of(version).to_owned(),
            source: source_of(server, export),
            options,
            look_for: Vec::new(),
        }
    }

    /// What mount.efs hands to the kernel without TLS (efs-utils, `get_nfs_mount_options`), and the EFS CSI driver with it.
    #[must_use]
    pub fn efs(server: &str, export: &str, address: IpAddr) -> TrialSpec {
        let options = vec![
            TrialOption::with("vers", "4.1"),
            TrialOption::with("rsize", "1048576"),
            TrialOption::with("wsize", "1048576"),
            TrialOption::flag("hard"),
            TrialOption::with("timeo", "600"),
            TrialOption::with("retrans", "2"),
            TrialOption::flag("noresvport"),
            address_option(address),
        ];
        TrialSpec { fstype: "nfs4".to_owned(), source: source_of(server, export), options, look_for: Vec::new() }
    }

    /// The same trial, which also says which of these names its root has.
    #[must_use]
    pub fn looking_for(self, names: Vec<Vec<u8>>) -> TrialSpec {
        TrialSpec { look_for: names, ..self }
    }

    /// The options as one list, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        self.options.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Options for a trial from those that mountinfo prints of a superblock, still escaped.
///
/// What is hard stays hard: the trial's deadline ends it, and a soft one would give up at another time than the mount
/// that it stands for.
#[must_use]
pub fn of_superblock(super_options: &OsStr, address: IpAddr) -> Vec<TrialOption> {
    let printed = source::options(super_options).filter(|(name, _)| !LEFT_OUT.contains(&name.as_ref()));
    let mut options: Vec<TrialOption> = printed
        .filter_map(|(name, value)| match value.as_deref() {
            None => Some(TrialOption::flag(&name)),
            // `mountproto=` is printed with nothing behind it where nobody said one, and is refused like that.
            Some("") => None,
            Some(value) if name == "proto" || name == "mountproto" => {
                Some(TrialOption::with(&name, of_family(value, address)))
            }
            Some(value) => Some(TrialOption::with(&name, unquoted(value))),
        })
        .collect();
    options.push(address_option(address));
    options
}

/// The version to try after `version` failed so; `None`: the answer stands.
///
/// As mount.nfs does it (nfs-utils, `nfs_autonegotiate`): a minor version that one side does not know gives way to the
/// one below, and a server without any NFSv4, or without the export in its NFSv4 tree, is asked for v3.
#[must_use]
pub fn next_version(version: &str, errno: i32) -> Option<&'static str> {
    let at = VERSIONS.iter().position(|known| *known == version)?;
    match errno {
        libc::EPROTONOSUPPORT | libc::EINVAL => VERSIONS.get(at + 1).copied(),
        libc::ENOENT | libc::EPERM => VERSIONS.last().copied().filter(|last| *last != version),
        _ => None,
    }
}

fn fstype_of(version: &str) -> &'static str {
    if version.starts_with('4') { Kind::Nfs4.as_str() } else { Kind::Nfs.as_str() }
}

fn address_option(address: IpAddr) -> TrialOption {
    TrialOption::with("addr", address.to_string())
}

fn source_of(server: &str, export: &str) -> Vec<u8> {
    let bare = server.trim_start_matches('[').trim_end_matches(']');
    if bare.contains(':') { format!("[{bare}]:{export}") } else { format!("{bare}:{export}") }.into_bytes()
}

/// `tcp` and `tcp6` are two words for one protocol; the kernel refuses the one that does not fit the address.
fn of_family(protocol: &str, address: IpAddr) -> String {
    let plain = protocol.trim_end_matches('6');
    if address.is_ipv6() { format!("{plain}6") } else { plain.to_owned() }
}

/// SELinux prints its contexts in quotes, which belong to the list and not to the value.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mounts::{View, mountinfo};

    const HERE: &str = "10.9.8.7";

    fn again(options: &str, address: &str) -> String {
        let options = of_superblock(OsStr::new(options), address.parse().unwrap());
        TrialSpec { fstype: String::new(), source: Vec::new(), options, look_for: Vec::new() }.shown()
    }

    #[test]
    fn a_v4_superblock_is_tried_as_it_is_at_the_new_address() {
        let printed = "rw,vers=4.1,rsize=1048576,wsize=1048576,namlen=255,hard,noresvport,proto=tcp,timeo=600,retrans=2,\
            sec=sys,clientaddr=10.0.1.5,local_lock=none,addr=10.0.3.7";
        assert_eq!(
            again(printed, HERE),
            "vers=4.1,rsize=1048576,wsize=1048576,namlen=255,hard,noresvport,proto=tcp,timeo=600,retrans=2,sec=sys,\
             local_lock=none,addr=10.9.8.7"
        );
    }

    #[test]
    fn what_mountd_said_once_is_left_out_of_a_v3_trial() {
        let printed = "ro,vers=3,rsize=65536,wsize=65536,namlen=255,soft,nolock,proto=tcp,port=2049,timeo=50,retrans=2,\
            sec=sys,mountaddr=10.0.1.1,mountvers=3,mountport=20048,mountproto=tcp,local_lock=all,addr=10.0.1.1";
        assert_eq!(
            again(printed, HERE),
            "vers=3,rsize=65536,wsize=65536,namlen=255,soft,nolock,proto=tcp,port=2049,timeo=50,retrans=2,sec=sys,\
             mountvers=3,mountproto=tcp,local_lock=all,addr=10.9.8.7"
        );
    }

    #[test]
    fn the_port_of_a_local_proxy_stays() {
        assert_eq!(again("rw,port=20173,addr=127.0.0.1", "127.0.0.1"), "port=20173,addr=127.0.0.1");
    }

    #[test]
    fn a_value_that_is_empty_is_left_out_and_quotes_are_taken_off() {
        let printed = r#"rw,mountproto=,context="system_u:object_r:nfs_t:s0:c1,c2",seclabel,lookupcache=none"#;
        let expected = "context=system_u:object_r:nfs_t:s0:c1,c2,seclabel,lookupcache=none,addr=10.9.8.7";
        assert_eq!(again(printed, HERE), expected);
    }

    #[test]
    fn the_protocol_follows_the_family_of_the_new_address() {
        assert_eq!(again("proto=tcp6,mountproto=udp6", HERE), "proto=tcp,mountproto=udp,addr=10.9.8.7");
        assert_eq!(again("proto=tcp", "fd00::7"), "proto=tcp6,addr=fd00::7");
        assert_eq!(again("proto=rdma", "fd00::7"), "proto=rdma6,addr=fd00::7");
    }

    #[test]
    fn only_nfs_mounts_are_tried_again() {
        let line = |fstype: &str| format!("1 0 0:9 / /mnt rw - {fstype} srv:/a\\040b rw,vers=4.2,addr=10.0.0.1\n");
        let mount = |fstype: &str| mountinfo::parse(line(fstype).as_bytes(), View::Own).mounts.remove(0);
        let spec = TrialSpec::of_mount(&mount("nfs4"), HERE.parse().unwrap()).unwrap();
        assert_eq!((spec.fstype.as_str(), spec.source.as_slice()), ("nfs4", b"srv:/a b".as_slice()));
        assert_eq!(spec.shown(), "vers=4.2,addr=10.9.8.7");
        for fstype in ["cifs", "fuse.sshfs", "ext4"] {
            assert_eq!(TrialSpec::of_mount(&mount(fstype), HERE.parse().unwrap()), None, "{fstype}");
        }
    }

    #[test]
    fn an_export_is_tried_as_the_kubelet_would_mount_it() {
        let usual = |version| TrialSpec::usual("srv", "/data", version, HERE.parse().unwrap());
        assert_eq!(usual("4.2").fstype, "nfs4");
        assert_eq!(usual("4.2").source, b"srv:/data");
        assert_eq!(usual("4.2").shown(), "vers=4.2,addr=10.9.8.7");
        assert_eq!((usual("3").fstype.as_str(), usual("3").shown().as_str()), ("nfs", "vers=3,nolock,addr=10.9.8.7"));
        for host in ["fd00::1", "[fd00::1]"] {
            let spec = TrialSpec::usual(host, "/data", "4.2", "fd00::1".parse().unwrap());
            assert_eq!(spec.source, b"[fd00::1]:/data", "{host}");
        }
    }

    #[test]
    fn an_efs_file_system_is_tried_with_the_options_of_its_mount_helper() {
        let host = "fs-0123456789abcdef0.efs.eu-west-1.amazonaws.com";
        let spec = TrialSpec::efs(host, "/", HERE.parse().unwrap());
        assert_eq!(
            spec.shown(),
            "vers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport,addr=10.9.8.7"
        );
        assert_eq!(spec.source, format!("{host}:/").into_bytes());
    }

    #[test]
    fn versions_are_tried_downwards_and_only_for_reasons_of_version() {
        let mut tried = vec!["4.2"];
        while let Some(next) = next_version(tried[tried.len() - 1], libc::EPROTONOSUPPORT) {
            tried.push(next);
        }
        assert_eq!(tried, VERSIONS);
        assert_eq!(next_version("4.2", libc::ENOENT), Some("3"));
        assert_eq!(next_version("3", libc::ENOENT), None);
        for errno in [libc::EACCES, libc::ECONNREFUSED, libc::ETIMEDOUT] {
            assert_eq!(next_version("4.2", errno), None, "{errno}");
        }
        assert_eq!(next_version("9", libc::EINVAL), None);
    }

    proptest! {
        #[test]
        fn whatever_a_table_says_there_is_one_address_and_no_empty_value(list: Vec<u8>) {
            let options = of_superblock(OsStr::from_bytes(&list), HERE.parse().unwrap());
            prop_assert_eq!(options.iter().filter(|option| option.name == "addr").count(), 1);
            prop_assert!(options.iter().all(|option| option.value.as_deref() != Some("")));
        }
    }
}
