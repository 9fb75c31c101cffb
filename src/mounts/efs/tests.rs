use proptest::prelude::*;

use super::*;
use crate::mounts::{View, mountinfo};

const TABLE: &[u8] = include_bytes!("../../../tests/fixtures/mountinfo/efs");
const CONTENT: &str = r#"{"pid": 4711, "cmd": ["/usr/bin/efs-proxy", "/run/efs/c"], "files": [], "mount_time": 1.5,
    "mountpoint": "/mnt/tls", "service_type": "efs", "accessPoint": "fsap-0fedcba9876543210", "region": "eu-west-1"}"#;

fn decode(files: &[(&str, &str)]) -> StateFiles {
    StateFiles::decode(files.iter().map(|(name, content)| (OsString::from(name), content.as_bytes().to_vec())))
}

fn mount(mountpoint: &str) -> Mount {
    let parsed = mountinfo::parse(TABLE, View::Host);
    parsed.mounts.into_iter().find(|mount| mount.mountpoint == Path::new(mountpoint)).unwrap()
}

#[test]
fn a_state_file_names_file_system_access_point_and_proxy() {
    let files = decode(&[("fs-0123456789abcdef0.mnt.tls.20173", CONTENT)]);
    let found = files.lookup(20173, Path::new("/mnt/tls")).unwrap();
    assert_eq!((found.file_system.as_str(), found.port), ("fs-0123456789abcdef0", 20173));
    assert_eq!(found.access_point.as_deref(), Some("fsap-0fedcba9876543210"));
    assert_eq!((found.region.as_deref(), found.pid), (Some("eu-west-1"), Some(4711)));
    assert_eq!(found.mountpoint.as_deref(), Some(Path::new("/mnt/tls")));
    assert_eq!(files.lookup(20174, Path::new("/mnt/tls")), None);
}

#[test]
fn garbage_content_leaves_what_the_name_says() {
    for content in ["", "{", "[]", "null", "\u{0}\u{1}", r#"{"pid": "x", "accessPoint": 7, "mountpoint": ["/"]}"#] {
        let files = decode(&[("fs-0123abcd.mnt.a.b.20050", content)]);
        let found = files.lookup(20050, Path::new("/mnt/a/b")).unwrap();
        assert_eq!((found.file_system.as_str(), found.pid, &found.access_point), ("fs-0123abcd", None, &None));
    }
    let huge = format!(r#"{{"pid": 1, "x": "{}"}}"#, "y".repeat(MAX_FILE_BYTES));
    assert_eq!(decode(&[("fs-0123abcd.mnt.20050", &huge)]).lookup(20050, Path::new("/mnt")).unwrap().pid, None);
}

#[test]
fn other_files_are_passed_over() {
    let names = [
        "stunnel-config.fs-0123abcd.mnt.20050",
        "fs-0123abcd.mnt.20050+",
        "fs-0123abcd.mnt",
        "fs-0123abcd.20050",
        "fs-xyz.mnt.20050",
        "fs-0123abcd.mnt.0",
        "fs-0123abcd.mnt.70000",
        "database",
        "",
    ];
    assert!(decode(&names.map(|name| (name, "{}"))).is_empty());
}

#[test]
fn only_so_many_files_are_considered() {
    let names = (0..MAX_FILES + 10).map(|n| (OsString::from(format!("fs-0123abcd.mnt.{n}.20050")), Vec::new()));
    assert_eq!(StateFiles::decode(names).len(), MAX_FILES);
}

#[test]
fn a_reused_port_is_decided_by_the_mountpoint() {
    let files = decode(&[("fs-aaaaaaaa.mnt.old.20173", ""), ("fs-bbbbbbbb.mnt.tls.20173", "")]);
    assert_eq!(files.lookup(20173, Path::new("/mnt/tls")).unwrap().file_system, "fs-bbbbbbbb");
    assert_eq!(files.lookup(20173, Path::new("/somewhere/else")), None, "either could be meant");
    let same = decode(&[("fs-aaaaaaaa.mnt.old.20173", ""), ("fs-aaaaaaaa.mnt.tls.20173", "")]);
    assert_eq!(same.lookup(20173, Path::new("/somewhere/else")).unwrap().file_system, "fs-aaaaaaaa");
}

#[test]
fn a_temporary_file_counts_until_the_real_one_is_there() {
    let starting = decode(&[("~fs-aaaaaaaa.mnt.tls.20173", "")]);
    assert_eq!(starting.lookup(20173, Path::new("/bind")).unwrap().file_system, "fs-aaaaaaaa");
    let both = decode(&[("~fs-aaaaaaaa.mnt.x.20173", ""), ("fs-bbbbbbbb.mnt.y.20173", "")]);
    assert_eq!(both.lookup(20173, Path::new("/bind")).unwrap().file_system, "fs-bbbbbbbb");
}

#[test]
fn dots_in_a_mountpoint_are_told_apart_by_the_content() {
    let files = decode(&[
        ("fs-aaaaaaaa.mnt.a.b.20173", r#"{"mountpoint": "/mnt/a.b"}"#),
        ("fs-bbbbbbbb.mnt.a.b.20173", r#"{"mountpoint": "/mnt/a/b"}"#),
    ]);
    assert_eq!(files.lookup(20173, Path::new("/mnt/a/b")).unwrap().file_system, "fs-bbbbbbbb");
    assert_eq!(files.lookup(20173, Path::new("/mnt/a.b")).unwrap().file_system, "fs-aaaaaaaa");
}

#[test]
fn a_mount_through_a_proxy_becomes_efs() {
    let files = decode(&[("fs-0123456789abcdef0.mnt.tls.20173", CONTENT)]);
    let mut tls = mount("/mnt/tls");
    files.apply(&mut tls);
    assert_eq!(tls.kind, Some(Kind::Efs));
    assert_eq!(tls.origin.server.as_deref(), Some("fs-0123456789abcdef0"));
    assert_eq!(tls.origin.efs_file_system, tls.origin.server);
    assert_eq!((tls.origin.label.as_str(), tls.origin.proxy_port), ("fs-0123456789abcdef0:/", Some(20173)));
}

#[test]
fn a_port_outside_the_usual_range_is_a_proxy_if_a_state_file_says_so() {
    let line = b"1 0 0:9 / /m rw - nfs4 127.0.0.1:/ rw,vers=4.1,port=31000,addr=127.0.0.1\n";
    let mut mount = mountinfo::parse(line, View::Own).mounts.remove(0);
    assert_eq!(mount.origin.proxy_port, None);
    decode(&[("fs-0123abcd.m.31000", "")]).apply(&mut mount);
    assert_eq!((mount.kind, mount.origin.proxy_port), (Some(Kind::Efs), Some(31000)));
}

#[test]
fn other_mounts_are_left_alone() {
    let files = decode(&[("fs-0123456789abcdef0.mnt.ip.2049", ""), ("fs-0123456789abcdef0.mnt.2049", "")]);
    for mountpoint in ["/mnt/ip", "/mnt/dns", "/"] {
        let (before, mut after) = (mount(mountpoint), mount(mountpoint));
        files.apply(&mut after);
        assert_eq!(before, after);
    }
}

proptest! {
    #[test]
    fn arbitrary_files_never_panic(name: Vec<u8>, content: Vec<u8>) {
        let _ = StateFiles::decode([(OsString::from_vec(name), content)].into_iter());
    }

    #[test]
    fn names_like_state_files_never_panic(name in r"~?fs-[0-9a-f]{6,10}[.a-z]{0,9}\.[0-9]{0,6}", content in r#"\{"(pid|az)": ?[0-9"]{0,22}\}"#) {
        for mount in &decode(&[(&name, &content)]).mounts {
            prop_assert!(mount.port > 0);
        }
    }
}
