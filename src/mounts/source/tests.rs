use proptest::prelude::*;

use super::*;

fn origin(fstype: &str, source: &str, super_options: &str) -> Origin {
    Origin::parse(fstype, OsStr::new(source), OsStr::new(super_options))
}

fn nfs(source: &str) -> (Option<String>, Option<String>) {
    let origin = origin("nfs4", source, "rw");
    (origin.server, origin.export)
}

fn pair(server: &str, export: &str) -> (Option<String>, Option<String>) {
    (Some(server.to_owned()), Some(export.to_owned()))
}

#[test]
fn nfs_sources_split_into_server_and_export() {
    assert_eq!(nfs("srv:/a"), pair("srv", "/a"));
    assert_eq!(nfs("10.0.0.1:/a/b:/c"), pair("10.0.0.1", "/a/b:/c"));
    assert_eq!(nfs("[fe80::1%eth0]:/a"), pair("fe80::1%eth0", "/a"));
    assert_eq!(nfs("fe80::1:/a"), pair("fe80::1", "/a"));
    assert_eq!(nfs("srv:relative"), pair("srv", "relative"));
    assert_eq!(nfs("[::1]:/"), pair("::1", "/"));
}

#[test]
fn a_source_without_a_colon_has_no_server() {
    let odd = origin("nfs", "/dev/root", "rw,addr=10.0.0.9");
    assert_eq!((odd.server, odd.export, odd.label.as_str()), (None, None, "/dev/root"));
    assert_eq!(odd.address, Some("10.0.0.9".parse().unwrap()));
    assert_eq!(nfs(""), (None, None));
    assert_eq!(nfs("[broken"), (None, None));
}

#[test]
fn nfs_options_are_read() {
    let line = "rw,vers=4.1,rsize=1048576,namlen=255,softerr,proto=tcp6,timeo=600,retrans=2,sec=krb5p,\
                clientaddr=fe80::2,local_lock=none,addr=fe80::1%2";
    let parsed = origin("nfs4", "[fe80::1%2]:/a", line);
    assert_eq!(parsed.version.as_deref(), Some("4.1"));
    assert_eq!(parsed.mode, Some(Mode::Softerr));
    assert_eq!((parsed.timeo, parsed.retrans), (Some(600), Some(2)));
    assert_eq!(parsed.security.as_deref(), Some("krb5p"));
    assert_eq!(parsed.proto.as_deref(), Some("tcp6"));
    assert_eq!(parsed.address, Some("fe80::1".parse().unwrap()));
    assert_eq!(parsed.port, Some(2049));
}

#[test]
fn old_kernels_give_the_minor_version_apart() {
    assert_eq!(origin("nfs4", "s:/", "vers=4,minorversion=1").version.as_deref(), Some("4.1"));
    assert_eq!(origin("nfs4", "s:/", "minorversion=0,vers=4").version.as_deref(), Some("4.0"));
    assert_eq!(origin("nfs", "s:/", "nfsvers=3").version.as_deref(), Some("3"));
}

#[test]
fn ports_have_the_defaults_of_their_protocol() {
    assert_eq!(origin("nfs", "s:/", "port=0").port, Some(2049));
    assert_eq!(origin("nfs4", "s:/", "port=12049").port, Some(12049));
    assert_eq!(origin("nfs4", "s:/", "proto=rdma").port, Some(20049));
    assert_eq!(origin("cifs", "//s/a", "rw").port, Some(445));
    assert_eq!(origin("smb3", "//s/a", "port=1445").port, Some(1445));
    assert_eq!(origin("nfs4", "s:/", "port=99999").port, Some(2049));
}

#[test]
fn commas_in_quotes_and_escaped_commas_split_nothing() {
    let line = r#"rw,context="system_u:object_r:nfs_t:s0:c1,c2,soft",hard,sec=sys"#;
    let parsed = origin("nfs4", "s:/", line);
    assert_eq!((parsed.mode, parsed.security.as_deref()), (Some(Mode::Hard), Some("sys")));
    let list: Vec<_> = options(OsStr::new(r"username=a\054b\075c,,ro")).collect();
    assert_eq!(list, vec![("username".into(), Some("a,b=c".into())), ("ro".into(), None)]);
}

#[test]
fn cifs_shares_split_with_either_slash() {
    let share = origin("cifs", "//10.0.0.5/share/dir", "rw,vers=3.1.1,sec=ntlmssp,addr=10.0.0.5,soft");
    assert_eq!((share.server, share.export), pair("10.0.0.5", "share/dir"));
    assert_eq!(share.version.as_deref(), Some("3.1.1"));
    assert_eq!((share.mode, share.security.as_deref()), (Some(Mode::Soft), Some("ntlmssp")));
    let back = origin("cifs", r"\\srv\share", "rw");
    assert_eq!((back.server, back.export), pair("srv", "share"));
}

#[test]
fn ceph_sources_of_both_syntaxes_are_read() {
    let old = origin("ceph", "10.0.0.1:6789,10.0.0.2:6789:/vol/a", "rw,name=admin");
    assert_eq!((old.server, old.export), pair("10.0.0.1:6789,10.0.0.2:6789", "/vol/a"));
    assert_eq!(old.address, None, "several monitors, no single address");
    let new = origin(
        "ceph",
        "admin@b3acfc0d-575f-41d3-9c91-0e7ed3dbb3fa.cephfs=/a",
        "rw,mon_addr=10.0.0.1:6789/10.0.0.2:6789",
    );
    assert_eq!((new.server, new.export), pair("10.0.0.1:6789,10.0.0.2:6789", "/a"));
    let single = origin("ceph", "admin@fsid.fs=/", "mon_addr=[fd00::1]:3300");
    assert_eq!((single.address, single.port), (Some("fd00::1".parse().unwrap()), Some(3300)));
}

#[test]
fn lustre_and_9p_sources_are_read() {
    let lustre = origin("lustre", "10.1.0.1@tcp:10.1.0.2@tcp:/scratch", "rw");
    assert_eq!((lustre.server, lustre.export), pair("10.1.0.1@tcp:10.1.0.2@tcp", "/scratch"));
    assert_eq!(lustre.address, Some("10.1.0.1".parse().unwrap()));
    let tag = origin("9p", "hostshare", "rw,trans=virtio,version=9p2000.L");
    assert_eq!((tag.server, tag.version.as_deref()), (None, Some("9p2000.L")));
    let tcp = origin("9p", "10.0.0.7", "rw,aname=/x,trans=tcp,port=564");
    assert_eq!((tcp.server.as_deref(), tcp.port, tcp.export.as_deref()), (Some("10.0.0.7"), Some(564), Some("/x")));
}

#[test]
fn a_fuse_source_is_a_label_and_nothing_else() {
    let fuse = origin("fuse.sshfs", "user@host:/dir", "rw,user_id=0,port=22");
    assert_eq!(fuse, Origin { label: "user@host:/dir".to_owned(), ..Origin::default() });
}

#[test]
fn efs_is_known_by_its_dns_name() {
    for name in [
        "fs-0123abcd.efs.eu-west-1.amazonaws.com",
        "fs-0123456789abcdef0.efs.us-gov-west-1.amazonaws.com",
        "FS-0123ABCD.efs.eu-west-1.amazonaws.com.",
        "eu-west-1a.fs-0123abcd.efs.eu-west-1.amazonaws.com",
        "fs-0123abcd.efs.cn-north-1.amazonaws.com.cn",
    ] {
        let parsed = origin("nfs4", &format!("{name}:/"), "rw,vers=4.1");
        assert_eq!(classify("nfs4", &parsed), Some(Kind::Efs), "{name}");
        assert!(parsed.efs_file_system.unwrap().starts_with("fs-0123"), "{name}");
        assert_eq!(parsed.proxy_port, None);
    }
}

#[test]
fn names_that_only_look_like_efs_are_plain_nfs() {
    for name in [
        "fs-0123abcd",
        "fs-0123abcd.efs.eu-west-1.amazonaws.com.evil.example",
        "fs-xyz.efs.eu-west-1.amazonaws.com",
        "fs-0123abcd.fsx.eu-west-1.amazonaws.com",
        "a.b.fs-0123abcd.efs.eu-west-1.amazonaws.com",
        "10.0.0.1",
    ] {
        let parsed = origin("nfs4", &format!("{name}:/"), "rw,vers=4.1");
        assert_eq!((classify("nfs4", &parsed), parsed.efs_file_system), (Some(Kind::Nfs4), None), "{name}");
    }
}

#[test]
fn a_local_proxy_shows_its_port_and_a_local_server_does_not() {
    let proxy = origin("nfs4", "127.0.0.1:/", "rw,vers=4.1,port=20123,addr=127.0.0.1");
    assert_eq!((proxy.proxy_port, proxy.label.as_str()), (Some(20123), "127.0.0.1:20123:/"));
    assert_eq!(classify("nfs4", &proxy), Some(Kind::Nfs4));
    let six = origin("nfs4", "[::1]:/", "rw,port=20049,addr=::1");
    assert_eq!((six.proxy_port, six.label.as_str()), (Some(20049), "[::1]:20049:/"));
    assert_eq!(origin("nfs4", "127.0.0.1:/", "rw,addr=127.0.0.1").proxy_port, None);
    assert_eq!(origin("nfs4", "127.0.0.1:/", "rw,port=21050,addr=127.0.0.1").proxy_port, None);
    assert_eq!(origin("nfs4", "10.0.0.1:/", "rw,port=20123,addr=10.0.0.1").proxy_port, None);
}

#[test]
fn hostile_bytes_become_labels() {
    use std::os::unix::ffi::OsStrExt;
    let parsed = Origin::parse("nfs4", OsStr::from_bytes(b"srv\n:/\xff\x1b[2J"), OsStr::new("sec=a\\012b"));
    assert_eq!(parsed.label, r"srv\x0a:/\xff\x1b[2J");
    assert_eq!((parsed.server, parsed.export), pair(r"srv\x0a", r"/\xff\x1b[2J"));
    assert_eq!(parsed.security.as_deref(), Some(r"a\x0ab"));
}

proptest! {
    #[test]
    fn arbitrary_sources_and_options_never_panic(source: Vec<u8>, list: Vec<u8>, at in 0_usize..7) {
        let fstype = ["nfs", "nfs4", "cifs", "ceph", "lustre", "9p", "fuse.x"][at];
        let parsed = Origin::parse(fstype, OsStr::from_bytes(&source), OsStr::from_bytes(&list));
        prop_assert!(!parsed.label.contains('\n'));
        let _ = classify(fstype, &parsed);
    }

    #[test]
    fn source_like_text_never_panics(source in r"[\[\]:/@,=.a-f0-9%]{0,40}", list in r#"(addr|port|vers|mon_addr|trans)=[\[\]:/.,"0-9a-f%]{0,20}"#) {
        for fstype in ["nfs4", "cifs", "ceph", "lustre", "9p"] {
            let _ = origin(fstype, &source, &list);
        }
    }
}
