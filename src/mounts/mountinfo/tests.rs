use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::mounts::source::Mode;

const KUBELET: &[u8] = include_bytes!("../../../tests/fixtures/mountinfo/kubelet");
const EFS: &[u8] = include_bytes!("../../../tests/fixtures/mountinfo/efs");
const NETWORK: &[u8] = include_bytes!("../../../tests/fixtures/mountinfo/network");
const NAMES: &[u8] = include_bytes!("../../../tests/fixtures/mountinfo/names");
const BROKEN: &[u8] = include_bytes!("../../../tests/fixtures/mountinfo/broken");

fn whole(bytes: &[u8]) -> Vec<Mount> {
    let parsed = parse(bytes, View::Host);
    assert_eq!((parsed.bad_count, &parsed.bad[..]), (0, &[][..]));
    parsed.mounts
}

fn at<'a>(mounts: &'a [Mount], mountpoint: &[u8]) -> &'a Mount {
    mounts.iter().find(|mount| mount.mountpoint.as_os_str().as_bytes() == mountpoint).unwrap()
}

#[test]
fn a_line_of_a_kubelet_node_is_read_in_full() {
    let mounts = whole(KUBELET);
    assert_eq!(mounts.len(), 11);
    let mount = mounts.iter().find(|mount| mount.id == 401).unwrap();
    assert_eq!((mount.parent, mount.dev, mount.root.as_bytes()), (26, Dev { major: 0, minor: 61 }, &b"/"[..]));
    assert_eq!((mount.fstype.as_str(), mount.kind, mount.view), ("nfs4", Some(Kind::Nfs4), View::Host));
    assert_eq!(mount.source, "nfs.example.org:/export/data");
    assert!(mount.mountpoint.ends_with("volumes/kubernetes.io~nfs/data"));
    assert_eq!(mount.options, "rw,relatime");
    assert!(mount.super_options.as_bytes().starts_with(b"rw,vers=4.1,rsize="));
    assert_eq!(mount.origin.mode, Some(Mode::Hard));
    assert_eq!(mount.super_option("timeo").as_deref(), Some("600"));
    assert!(!mount.read_only() && mount.hidden_by.is_none());
    let sub = mounts.iter().find(|mount| mount.id == 403).unwrap();
    assert_eq!(sub.origin.export.as_deref(), Some("/export/data/other one"));
}

#[test]
fn network_kinds_are_told_from_local_ones() {
    let mounts = whole(NETWORK);
    let kinds: Vec<_> = mounts.iter().filter(|mount| mount.id >= 600).map(|mount| mount.kind).collect();
    let expected = [
        Some(Kind::Cifs),
        Some(Kind::Cifs),
        Some(Kind::Ceph),
        Some(Kind::Ceph),
        Some(Kind::Fuse),
        Some(Kind::Fuse),
        Some(Kind::Lustre),
        Some(Kind::NineP),
        Some(Kind::BeeGfs),
        Some(Kind::Gpfs),
        None,
        None,
        None,
        Some(Kind::Autofs),
        Some(Kind::Nfs4),
    ];
    assert_eq!(kinds, expected);
    let share = at(&mounts, b"/mnt/share");
    assert_eq!(share.super_option("username").as_deref(), Some("svc,x"));
    assert!(share.has_super_option("soft") && share.has_super_option("serverino"));
    assert!(mounts.iter().filter(|mount| mount.id < 600).all(|mount| mount.kind.is_none()));
}

#[test]
fn efs_is_found_by_name_and_its_proxy_by_port() {
    let mounts = whole(EFS);
    let found: Vec<_> =
        mounts.iter().filter(|mount| mount.id >= 510).map(|mount| (mount.kind, mount.origin.proxy_port)).collect();
    let (efs, nfs4) = (Some(Kind::Efs), Some(Kind::Nfs4));
    assert_eq!(found, [(efs, None), (efs, None), (nfs4, None), (nfs4, Some(20173)), (nfs4, Some(20384))]);
}

#[test]
fn names_of_any_bytes_survive() {
    let mounts = whole(NAMES);
    assert_eq!(at(&mounts, b"/mnt/with space").source, "srv:/a b");
    at(&mounts, b"/mnt/new\nline");
    at(&mounts, br"/mnt/back\slash\040");
    assert_eq!(at(&mounts, b"/mnt/caf\xe9-\xff").source.as_bytes(), b"srv:/caf\xe9");
    assert_eq!(at(&mounts, b"/mnt/caf\xe9-\xff").origin.label, r"srv:/caf\xe9");
    assert_eq!(at(&mounts, b"/mnt/tab\thash#").source, "srv:/t#");
    at(&mounts, b"/mnt/cr\rname");
    assert_eq!(at(&mounts, b"/mnt/deleted").root, "/was/here//deleted");
}

#[test]
fn what_readers_usually_lose_is_kept() {
    let mounts = whole(NAMES);
    assert_eq!(at(&mounts, b"/mnt/nosource").source, "");
    assert_eq!(at(&mounts, b"/mnt/none").source, "none");
    assert_eq!(at(&mounts, b"/mnt/bigid").id, 1 << 32);
    assert_eq!(at(&mounts, b"/mnt/padded").fstype, "nfs4");
    let context = at(&mounts, b"/mnt/context");
    assert_eq!(context.super_option("context").as_deref(), Some("\"system_u:object_r:nfs_t:s0:c1,c2\""));
    assert_eq!(context.origin.mode, Some(Mode::Soft));
    let overlay = mounts.iter().find(|mount| mount.fstype == "overlay").unwrap();
    let lower = source::options(&overlay.super_options).filter(|(name, _)| name == "lowerdir+").count();
    assert_eq!(lower, 125);
    assert!(overlay.super_options.len() > 10_000);
}

#[test]
fn a_bad_line_is_counted_and_hides_no_other() {
    let parsed = parse(BROKEN, View::Own);
    let ids: Vec<_> = parsed.mounts.iter().map(|mount| mount.id).collect();
    assert_eq!(ids, [26, 900, 905]);
    assert_eq!(parsed.bad_count, 8);
    let lines: Vec<_> = parsed.bad.iter().map(|bad| bad.number).collect();
    assert_eq!(lines, [2, 3, 5, 6, 7, 8, 9, 11]);
    assert_eq!(parsed.bad[0].excerpt, "this is no mount");
    assert_eq!(parsed.bad[6].excerpt, r"\xff\xfe\x00\x1b[2J garbage");
}

#[test]
fn only_the_first_bad_lines_are_kept() {
    let parsed = parse("x".repeat(1000).as_bytes(), View::Own);
    assert_eq!(parsed.bad[0].excerpt.len(), EXCERPT_BYTES);
    let parsed = parse(&b"bad\n".repeat(1000), View::Own);
    assert_eq!((parsed.bad_count, parsed.bad.len()), (1000, BAD_LINES_KEPT));
}

#[test]
fn this_machine_has_no_bad_line() {
    let bytes = crate::localfs::read_kernel_file(Path::new("/proc/self/mountinfo")).unwrap();
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(whole(&bytes).len(), lines);
}

/// The procfs crate as a second opinion on the lines that it can read.
#[test]
fn the_procfs_crate_reads_the_same() {
    for fixture in [KUBELET, EFS, NETWORK] {
        let mounts = whole(fixture);
        let lines = std::str::from_utf8(fixture).unwrap().lines();
        for (mount, line) in mounts.iter().zip(lines) {
            let other = procfs::process::MountInfo::from_line(line).unwrap();
            assert_eq!(
                (mount.id.to_string(), mount.parent.to_string()),
                (other.mnt_id.to_string(), other.pid.to_string())
            );
            assert_eq!((mount.dev.to_string(), &mount.fstype), (other.majmin, &other.fs_type));
            assert_eq!(mount.mountpoint.as_os_str(), octal::unescape(other.mount_point.as_os_str().as_bytes()));
            assert_eq!(mount.source, octal::unescape(other.mount_source.unwrap_or_default().as_bytes()));
            for (name, value) in other.super_options {
                let value = value.map(|value| octal::unescape(value.as_bytes()).into_string().unwrap());
                assert!(mount.has_super_option(&name) && mount.super_option(&name) == Some(value.unwrap_or_default()));
            }
        }
    }
}

#[test]
fn fifty_thousand_lines_are_no_burden() {
    let mut bytes = Vec::new();
    for id in 0..50_000 {
        bytes.extend_from_slice(
            format!(
                "{id} 26 0:{id} / /var/lib/kubelet/pods/{id}/volumes/kubernetes.io~nfs/v rw,relatime shared:1 - nfs4 \
                 srv:/export/{id} rw,vers=4.1,hard,proto=tcp,timeo=600,retrans=2,sec=sys,addr=10.0.0.1\n"
            )
            .as_bytes(),
        );
    }
    let start = std::time::Instant::now();
    assert_eq!(whole(&bytes).len(), 50_000);
    println!("50,000 lines, {} MB: {:?}", bytes.len() / 1_000_000, start.elapsed());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_every_line_is_accounted_for(bytes: Vec<u8>) {
        let parsed = parse(&bytes, View::Own);
        let lines = bytes.split_inclusive(|&byte| byte == b'\n').count();
        prop_assert_eq!(parsed.mounts.len() + usize::try_from(parsed.bad_count).unwrap(), lines);
    }

    #[test]
    fn any_name_survives_the_kernels_escapes(mountpoint in prop::collection::vec(1_u8.., 1..40), source: Vec<u8>) {
        let mut line = b"36 35 98:0 / ".to_vec();
        line.extend(octal::escape(OsStr::from_bytes(&mountpoint)));
        line.extend_from_slice(b" rw - nfs4 ");
        line.extend(octal::escape(OsStr::from_bytes(&source)));
        line.extend_from_slice(b" rw,hard\n");
        let mounts = whole(&line);
        prop_assert_eq!(mounts[0].mountpoint.as_os_str().as_bytes(), &mountpoint[..]);
        prop_assert_eq!(mounts[0].source.as_bytes(), &source[..]);
        prop_assert_eq!(mounts[0].origin.mode, Some(Mode::Hard));
    }
}
