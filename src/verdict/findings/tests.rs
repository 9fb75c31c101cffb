use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::mounts::mountinfo;
use crate::probe::wire;

const UID_A: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";
const UID_B: &str = "5f0c1c1e-2d1b-4e57-9a0b-0c6a3d5b7e22";

/// What Linux prints where nobody gave an option (Debian 12, kernel 6.1; recorded).
const DEFAULT_V42: &str = "rw,vers=4.2,rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,timeo=600,retrans=2,\
    sec=sys,clientaddr=10.0.1.2,local_lock=none,addr=10.0.1.1";
const DEFAULT_V3: &str = "rw,vers=3,rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,timeo=600,retrans=2,sec=sys,\
    mountaddr=10.0.1.1,mountvers=3,mountport=20048,mountproto=udp,local_lock=none,addr=10.0.1.1";
/// The EFS mount helper and CSI driver (EKS), as the kernel prints it.
const EFS: &str = "rw,vers=4.1,rsize=1048576,wsize=1048576,namlen=255,hard,noresvport,proto=tcp,timeo=600,retrans=2,\
    sec=sys,clientaddr=10.0.1.5,local_lock=none,addr=10.0.3.7";
/// The Filestore CSI driver (GKE): v3, with the options that Google documents.
const FILESTORE: &str = "rw,vers=3,rsize=524288,wsize=524288,namlen=255,hard,proto=tcp,timeo=600,retrans=3,sec=sys,\
    mountaddr=10.66.1.2,mountvers=3,mountport=2050,mountproto=udp,local_lock=none,addr=10.66.1.2";
const EFS_HOST: &str = "fs-0123456789abcdef0.efs.eu-west-1.amazonaws.com:/";

/// A table of NFS mounts: (mountpoint, own options, device, source, superblock options).
fn table(rows: &[(&str, &str, u32, &str, &str)]) -> Vec<Mount> {
    let mut text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned();
    for (id, (path, own, dev, source, options)) in (10..).zip(rows) {
        let fstype = if options.contains("vers=3") { "nfs" } else { "nfs4" };
        text += &format!("{id} 1 0:{dev} / {path} {own},relatime - {fstype} {source} {options}\n");
    }
    let parsed = mountinfo::parse(text.as_bytes(), View::Own);
    assert_eq!(parsed.bad_count, 0);
    parsed.mounts
}

/// Words of the findings of each mount of the table in its order.
fn words(mounts: &[Mount]) -> Vec<Vec<&'static str>> {
    let found = of_mounts(mounts);
    let of = |mount: &Mount| found.get(&(mount.view, mount.id)).cloned().unwrap_or_default();
    mounts.iter().skip(1).map(|mount| of(mount).iter().map(|finding| finding.as_str()).collect()).collect()
}

/// Findings of one mount by itself.
fn one(source: &str, options: &str) -> Vec<&'static str> {
    words(&table(&[("/mnt", "rw", 40, source, options)])).remove(0)
}

#[test]
fn ordinary_clients_have_no_finding() {
    let usual =
        [("srv:/data", DEFAULT_V42), ("srv:/data", DEFAULT_V3), (EFS_HOST, EFS), ("10.66.1.2:/vol1", FILESTORE)];
    for (source, options) in usual {
        assert_eq!(one(source, options), [""; 0], "{options}");
        let of_old_servers = options.replace("1048576", "32768").replace("vers=4.2", "vers=4.1");
        if !source.starts_with("fs-") {
            assert_eq!(one(source, &of_old_servers), [""; 0], "{of_old_servers}");
        }
    }
    // UDP has small defaults of its own.
    let udp = "rw,vers=3,rsize=32768,wsize=32768,namlen=255,hard,proto=udp,timeo=11,retrans=3,sec=sys,addr=10.0.1.1";
    assert_eq!(one("srv:/data", udp), [""; 0]);
}

#[test]
fn the_recorded_tables_have_the_findings_that_their_options_ask_for() {
    let of = |bytes: &[u8]| {
        let mounts = mountinfo::parse(bytes, View::Own).mounts;
        let mut found: Vec<(u64, Vec<Finding>)> =
            of_mounts(&mounts).into_iter().map(|((_, id), findings)| (id, findings)).collect();
        found.sort();
        found
    };
    let kubelet = of(include_bytes!("../../../tests/fixtures/mountinfo/kubelet"));
    assert_eq!(kubelet, [(405, vec![Finding::SoftWritable, Finding::ShortTimeout])]);
    assert_eq!(of(include_bytes!("../../../tests/fixtures/mountinfo/efs")), []);
    let lab = of(include_bytes!("../../../tests/fixtures/mountinfo/linux-6.1-uml"));
    let by_id = |id: u64| lab.iter().find(|(other, _)| *other == id).map(|(_, findings)| findings.as_slice());
    assert_eq!(by_id(33), Some(&[Finding::SoftWritable, Finding::ShortTimeout][..]));
    assert_eq!(by_id(36), Some(&[Finding::NfsV40, Finding::MixedOptions][..]));
    // The four mounts of `10.0.1.1:/` with four sets of options; the sub-directory is another directory.
    assert_eq!(by_id(37), Some(&[Finding::MixedOptions][..]));
    assert_eq!(by_id(35), None);
}

#[test]
fn each_option_has_its_finding() {
    let changed = |from: &str, to: &str| DEFAULT_V42.replace(from, to);
    assert_eq!(one("srv:/", &changed("hard", "soft")), ["soft_writable"]);
    assert_eq!(one("srv:/", &changed("hard", "softerr,softreval")), ["soft_writable"]);
    assert_eq!(one("srv:/", &changed("timeo=600", "timeo=14")), ["short_timeout"]);
    assert_eq!(one("srv:/", &changed("timeo=600", "timeo=150")), [""; 0]);
    assert_eq!(
        one("srv:/", &changed("hard,proto=tcp,timeo=600,retrans=2", "soft,proto=tcp,timeo=600,retrans=1")),
        ["soft_writable", "few_retries"]
    );
    // A hard mount tries again for ever, whatever it calls a try.
    assert_eq!(one("srv:/", &changed("retrans=2", "retrans=0")), [""; 0]);
    assert_eq!(one("srv:/", &changed("vers=4.2", "vers=4.0")), ["nfs_v40"]);
    assert_eq!(one("srv:/", &changed("wsize=1048576", "wsize=8192")), ["small_transfers"]);
    assert_eq!(one("srv:/", &changed("rw,", "ro,")), ["readonly_superblock"]);
}

#[test]
fn a_mount_that_is_only_read_may_give_up() {
    let soft = DEFAULT_V42.replace("hard", "soft");
    assert_eq!(words(&table(&[("/mnt", "ro", 40, "srv:/", &soft)])), [[""; 0]]);
    assert_eq!(words(&table(&[("/mnt", "ro", 40, "srv:/", &soft.replace("rw,", "ro,"))])), [[""; 0]]);
}

#[test]
fn efs_is_held_against_the_advice_of_aws() {
    assert_eq!(one(EFS_HOST, &EFS.replace("noresvport,", "")), ["efs_reserved_port"]);
    assert_eq!(one(EFS_HOST, &EFS.replace("hard", "soft")), ["efs_soft"]);
    assert_eq!(one(EFS_HOST, &EFS.replace("rsize=1048576", "rsize=524288")), ["small_transfers"]);
    assert_eq!(one(EFS_HOST, &EFS.replace("retrans=2", "retrans=1")), ["few_retries"]);
    assert_eq!(one(EFS_HOST, &EFS.replace("vers=4.1", "vers=4.0")), ["nfs_v40"]);
    // The same options elsewhere are nobody's mistake.
    assert_eq!(one("srv:/", &EFS.replace("noresvport,", "")), [""; 0]);
}

#[test]
fn mounts_that_share_a_superblock_are_one() {
    let path = |uid: &str, rest: &str| format!("/var/lib/kubelet/pods/{uid}/{rest}");
    let (a, sub) = (path(UID_A, "volumes/kubernetes.io~nfs/x"), path(UID_A, "volume-subpaths/x/app/0"));
    let b = path(UID_B, "volumes/kubernetes.io~nfs/x");
    let rows = [
        (a.as_str(), "rw", 40, "srv:/d", DEFAULT_V42),
        (&sub, "rw", 40, "srv:/d", DEFAULT_V42),
        (&b, "rw", 40, "srv:/d", DEFAULT_V42),
    ];
    assert_eq!(words(&table(&rows)), [[""; 0]; 3]);
}

#[test]
fn a_reader_beside_a_writer_is_nothing_unusual() {
    let reader = DEFAULT_V42.replace("rw,", "ro,");
    let rows = [("/w", "rw", 40, "srv:/d", DEFAULT_V42), ("/r", "ro", 41, "srv:/d", reader.as_str())];
    assert_eq!(words(&table(&rows)), [[""; 0]; 2]);
}

#[test]
fn one_export_with_two_sets_of_options_is_found_by_whatever_name_its_server_goes() {
    let other = DEFAULT_V42.replace("hard", "hard,lookupcache=none");
    let rows = [
        ("/a", "rw", 40, "srv:/d", DEFAULT_V42),
        ("/b", "rw", 41, "10.0.1.1:/d", other.as_str()),
        ("/c", "rw", 42, "srv:/e", other.as_str()),
    ];
    assert_eq!(words(&table(&rows)), [vec!["mixed_options"], vec!["mixed_options"], vec![]]);
    // What the kernel finds out by itself is no option of anybody.
    let v3 = DEFAULT_V3.replace("20048", "4711").replace("mountproto=udp", "mountproto=tcp");
    let rows = [("/a", "rw", 40, "srv:/d", DEFAULT_V3), ("/b", "rw", 41, "srv:/d", v3.as_str())];
    assert_eq!(words(&table(&rows)), [[""; 0]; 2]);
}

#[test]
fn proxies_of_one_file_system_are_servers_of_their_own() {
    let tls = |port: &str| EFS.replace("addr=10.0.3.7", "addr=127.0.0.1") + &format!(",port={port}");
    let (one, other) = (tls("20173"), tls("20384").replace("timeo=600", "timeo=500"));
    let rows = [("/a", "rw", 40, "127.0.0.1:/", one.as_str()), ("/b", "rw", 41, "127.0.0.1:/", other.as_str())];
    assert_eq!(words(&table(&rows)), [[""; 0]; 2]);
}

#[test]
fn caches_that_are_kept_apart_are_found_when_there_are_two() {
    let apart = DEFAULT_V42.replace("hard", "hard,nosharecache");
    assert_eq!(one("srv:/d", &apart), [""; 0]);
    let rows = [("/a", "rw", 40, "srv:/d", apart.as_str()), ("/b", "rw", 41, "srv:/d", apart.as_str())];
    assert_eq!(words(&table(&rows)), [["separate_caches"]; 2]);
    let rows = [("/a", "ro", 40, "srv:/d", apart.as_str()), ("/b", "ro", 41, "srv:/d", apart.as_str())];
    assert_eq!(words(&table(&rows)), [[""; 0]; 2], "what nobody writes is the same in both");
}

#[test]
fn local_locks_matter_when_two_pods_write() {
    let nolock = DEFAULT_V3.replace("hard", "hard,nolock").replace("local_lock=none", "local_lock=all");
    let path = |uid: &str| format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~nfs/x");
    let (a, b) = (path(UID_A), path(UID_B));
    assert_eq!(one("srv:/d", &nolock), [""; 0], "alone");
    let two = |first: &str, second: &str| {
        let rows = [(a.as_str(), first, 40, "srv:/d", nolock.as_str()), (&b, second, 40, "srv:/d", &nolock)];
        words(&table(&rows))
    };
    assert_eq!(two("rw", "rw"), [["local_locks"]; 2]);
    assert_eq!(two("rw", "ro"), [[""; 0]; 2], "one writer");
    let sub = format!("/var/lib/kubelet/pods/{UID_A}/volume-subpaths/x/app/0");
    let rows = [(a.as_str(), "rw", 40, "srv:/d", nolock.as_str()), (&sub, "rw", 40, "srv:/d", &nolock)];
    assert_eq!(words(&table(&rows)), [[""; 0]; 2], "two paths of one pod");
    let rows = [("/a", "rw", 40, "srv:/d", nolock.as_str()), ("/b", "rw", 41, "srv:/d", DEFAULT_V3)];
    assert_eq!(words(&table(&rows)), [vec!["local_locks", "mixed_options"], vec!["mixed_options"]]);
}

#[test]
fn a_name_drifts_when_none_of_its_addresses_is_the_mounts() {
    let origin = |source: &str, options: &str| table(&[("/m", "rw", 40, source, options)]).remove(1).origin;
    let ips = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    let mount = origin("srv:/d", DEFAULT_V42);
    assert!(address_drift(&mount, &ips(&["10.0.1.9", "fd00::1"])));
    assert!(!address_drift(&mount, &ips(&["10.0.1.9", "10.0.1.1"])), "round robin");
    assert!(!address_drift(&mount, &ips(&["::ffff:10.0.1.1"])), "the same address, mapped");
    assert!(!address_drift(&mount, &[]), "nothing is known");
    assert!(!address_drift(&origin("10.0.1.1:/d", DEFAULT_V42), &ips(&["10.0.1.9"])), "mounted by address");
    let proxied = EFS.replace("addr=10.0.3.7", "port=20173,addr=127.0.0.1");
    assert!(!address_drift(&origin("localhost:/", &proxied), &ips(&["10.0.3.7"])), "through a local proxy");
}

#[test]
fn other_filesystems_have_no_findings() {
    let text = "1 0 8:1 / / ro - ext4 /dev/sda1 rw\n2 1 0:9 / /mnt rw - cifs //srv/x rw,soft,rsize=4096,addr=10.0.0.1\n\
        3 1 0:8 / /f rw - fuse.sshfs srv:/x ro\n";
    assert!(of_mounts(&mountinfo::parse(text.as_bytes(), View::Own).mounts).is_empty());
}

#[test]
fn both_namespaces_count_their_own_mount_ids() {
    let mut mounts = table(&[("/mnt", "rw", 40, "srv:/", &DEFAULT_V42.replace("hard", "soft"))]);
    let mut host = table(&[("/mnt", "rw", 41, "srv:/other", DEFAULT_V42)]);
    host.iter_mut().for_each(|mount| mount.view = View::Host);
    mounts.extend(host);
    let found = of_mounts(&mounts);
    assert_eq!(found.len(), 1);
    assert_eq!(found[&(View::Own, 10)], [Finding::SoftWritable]);
}

#[test]
fn words_are_those_of_the_json_document_and_lead_back() {
    for finding in Finding::ALL {
        assert_eq!(serde_json::to_string(finding).unwrap(), format!("\"{finding}\""));
        assert_eq!(Finding::from_word(finding.as_str()), Some(*finding));
        for words in words::cases(*finding) {
            let texts = [words.means, words.consequence, words.advice];
            assert!(
                texts.iter().all(|text| !text.is_empty() && !text.ends_with('.') && !text.contains('|')),
                "{finding}"
            );
        }
    }
    assert_eq!(Finding::from_word("Soft"), None);
}

#[test]
fn each_case_of_what_is_not_shared_has_words_of_its_own() {
    let [waits, apart] = &words::cases(Finding::NotShared)[..] else { panic!("two cases") };
    assert_eq!(apart.advice, Finding::NotShared.advice(), "on a mount it is of containers");
    assert!(waits.advice.contains("ReadWriteMany") && !apart.advice.contains("ReadWriteMany"));
    assert!(apart.advice.contains("start it anew") && !waits.advice.contains("anew"));
    assert!(waits.means.contains("ReadWriteOnce") && !apart.means.contains("ReadWriteOnce"));
    assert!(waits.consequence.contains("never starts") && apart.consequence.contains("never sees"));
    let page = markdown();
    assert_eq!(page.matches("| `not_shared` | ").count(), 2);
}

#[test]
fn every_finding_has_a_row_and_a_source_on_the_page() {
    let page = markdown();
    for finding in Finding::ALL {
        assert!(page.contains(&format!("| `{finding}` | ")), "{finding}");
    }
    assert!(!page.contains("|  |"), "an empty cell");
}

#[test]
fn a_table_of_the_largest_size_is_read_in_one_go() {
    let row = |number: usize| {
        let options = DEFAULT_V42.replace("hard", if number.is_multiple_of(2) { "hard" } else { "soft" });
        format!("{} 1 0:{} / /m/{number} rw - nfs4 srv:/d{} {options}\n", number + 10, number + 40, number % 7)
    };
    let text: String = (0..wire::MAX_ROWS).map(row).collect();
    let mounts = mountinfo::parse(text.as_bytes(), View::Own).mounts;
    let found = of_mounts(&mounts);
    assert_eq!(found.len(), wire::MAX_ROWS, "all of them are mixed");
}

proptest! {
    #[test]
    fn arbitrary_options_never_panic(lists in proptest::collection::vec("[a-z=,0-9.\"\\\\]{0,40}", 1..4)) {
        let rows = lists.iter().map(|list| format!("rw,{list}")).collect::<Vec<_>>();
        let rows: Vec<_> = (40..).zip(&rows).map(|(dev, list)| ("/m", "rw", dev, "srv:/d", list.as_str())).collect();
        for findings in of_mounts(&table(&rows)).into_values() {
            prop_assert!(findings.is_sorted() && !findings.is_empty());
        }
    }
}
