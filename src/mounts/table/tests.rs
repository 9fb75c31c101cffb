use std::fs;

use proptest::prelude::*;

use super::super::filter::Filter;
use super::*;
use crate::mounts::namespace;
use crate::mounts::source::Mode;

const STACKED: &[u8] = include_bytes!("../../../tests/fixtures/mountinfo/stacked");
const NETWORK: &[u8] = include_bytes!("../../../tests/fixtures/mountinfo/network");
const KUBELET: &[u8] = include_bytes!("../../../tests/fixtures/mountinfo/kubelet");

fn own(lines: &[u8]) -> Table {
    Table::of(lines, Err("not asked".to_owned()))
}

fn hidden(table: &Table, id: u64) -> Option<u64> {
    table.mounts.iter().find(|mount| mount.id == id).unwrap().hidden_by
}

fn views(table: &Table) -> Vec<(u64, View)> {
    table.mounts.iter().map(|mount| (mount.id, mount.view)).collect()
}

fn line(id: u64, parent: u64, minor: u32, mountpoint: &str) -> String {
    format!("{id} {parent} 0:{minor} / {mountpoint} rw - nfs4 srv:/{minor} rw,hard\n")
}

#[test]
fn a_mount_hides_what_is_below_it_and_nothing_beside_it() {
    let table = own(STACKED);
    assert_eq!(hidden(&table, 700), Some(701), "another mount on the same path");
    assert_eq!(hidden(&table, 701), None);
    assert_eq!(hidden(&table, 702), Some(703), "a later mount on a directory above");
    assert_eq!(hidden(&table, 704), None, "a mount on the covering one");
    assert_eq!(hidden(&table, 705), None, "only a similar name");
}

#[test]
fn ordinary_tables_hide_nothing() {
    for fixture in [NETWORK, KUBELET] {
        assert!(own(fixture).mounts.iter().all(|mount| mount.hidden_by.is_none()));
    }
}

#[test]
fn every_mount_of_a_stack_is_hidden_by_the_top() {
    let lines =
        [line(1, 0, 1, "/"), line(2, 1, 2, "/m"), line(3, 2, 3, "/m"), line(4, 3, 4, "/m"), line(5, 3, 5, "/m/x")];
    let table = own(lines.concat().as_bytes());
    assert_eq!([2, 3, 4, 5].map(|id| hidden(&table, id)), [Some(4), Some(4), None, Some(4)]);
}

#[test]
fn a_mount_stacked_on_the_root_is_not_what_the_root_leads_to() {
    let lines = [line(1, 0, 1, "/"), line(2, 1, 2, "/"), line(3, 2, 3, "/a"), line(4, 1, 4, "/b")];
    let table = own(lines.concat().as_bytes());
    assert_eq!([1, 2, 3, 4].map(|id| hidden(&table, id)), [None, Some(1), Some(1), None]);
}

#[test]
fn a_mount_whose_parent_is_not_shown_is_reached_by_its_path() {
    let lines = [line(1, 0, 1, "/"), line(3, 2, 3, "/a/b"), line(4, 3, 4, "/a/b/c")];
    let table = own(lines.concat().as_bytes());
    assert!(table.mounts.iter().all(|mount| mount.hidden_by.is_none()));
    let chroot = own([line(7, 5, 1, "/x"), line(8, 5, 2, "/y")].concat().as_bytes());
    assert!(chroot.mounts.iter().all(|mount| mount.hidden_by.is_none()));
}

#[test]
fn a_table_that_contradicts_itself_ends() {
    let lines = [line(1, 2, 1, "/a"), line(2, 1, 2, "/a"), line(3, 3, 3, "/a"), line(3, 1, 4, "/a")];
    assert_eq!(own(lines.concat().as_bytes()).mounts.len(), 4);
}

#[test]
fn one_namespace_is_seen_as_our_own() {
    let table = Table::of(NETWORK, Ok(NETWORK.to_vec()));
    assert!(table.mounts.iter().all(|mount| mount.view == View::Own));
    assert_eq!((table.mounts.len(), table.host_error), (20, None));
}

#[test]
fn another_namespace_is_the_hosts_and_only_the_rest_our_own() {
    let host = [
        line(1, 0, 1, "/"),
        line(2, 1, 2, "/mnt"),
        line(3, 1, 3, "/covered"),
        line(4, 1, 4, "/cov"),
        line(5, 3, 5, "/covered"),
    ];
    let agent = [line(11, 0, 9, "/"), line(12, 11, 2, "/host/mnt"), line(13, 11, 3, "/here"), line(14, 11, 8, "/ours")];
    let table = Table::of(agent.concat().as_bytes(), Ok(host.concat().into_bytes()));
    let expected = [
        (1, View::Host),
        (11, View::Own),
        (4, View::Host),
        (3, View::Host),
        (5, View::Host),
        (13, View::Own), // the host's mount of the same superblock cannot be reached
        (2, View::Host),
        (14, View::Own),
    ];
    assert_eq!(views(&table), expected);
    assert_eq!(hidden(&table, 3), Some(5));
    assert_eq!(hidden(&table, 11), None, "the tables do not hide each other's mounts");
}

#[test]
fn a_chroot_keeps_its_paths_and_gets_the_rest_from_the_host() {
    let host = [line(1, 0, 1, "/"), line(2, 1, 2, "/jail"), line(3, 2, 3, "/jail/mnt"), line(4, 1, 4, "/mnt")];
    let agent = [line(2, 1, 2, "/"), line(3, 2, 3, "/mnt")];
    let table = Table::of(agent.concat().as_bytes(), Ok(host.concat().into_bytes()));
    assert_eq!(views(&table), [(1, View::Host), (2, View::Own), (3, View::Own), (4, View::Host)]);
}

#[test]
fn bad_lines_of_both_tables_are_counted() {
    let agent = format!("{}bad\n", line(11, 0, 9, "/"));
    let host = format!("{}{}", line(1, 0, 1, "/"), "worse\n".repeat(20));
    let table = Table::of(agent.as_bytes(), Ok(host.into_bytes()));
    assert_eq!((table.bad_count, table.bad.len()), (21, mountinfo::BAD_LINES_KEPT));
}

#[test]
fn a_proc_root_is_read_from_disk() {
    let root = tempfile::tempdir().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a scratch directory of the test")]
    let write = |pid: &str, bytes: &[u8]| {
        fs::create_dir(root.path().join(pid)).unwrap();
        fs::write(root.path().join(pid).join("mountinfo"), bytes).unwrap();
    };
    let error = Table::read(root.path()).unwrap_err().to_string();
    assert!(error.contains("self/mountinfo: No such file") && error.contains("--proc-root"), "{error}");
    write("self", NETWORK);
    let alone = Table::read(root.path()).unwrap();
    assert_eq!(alone.mounts.len(), 20);
    assert!(alone.host_error.unwrap().contains("1/mountinfo: No such file"));
    write("1", line(9001, 0, 1, "/").as_bytes());
    let both = Table::read(root.path()).unwrap();
    assert_eq!((both.mounts.len(), both.host_error), (21, None));
}

#[test]
fn this_machines_table_is_read() {
    let table = Table::read(Path::new("/proc")).unwrap();
    assert_eq!(table.bad_count, 0);
    let root = table.mounts.iter().find(|mount| mount.mountpoint == Path::new("/")).unwrap();
    assert_eq!(root.hidden_by, None);
}

/// Which mount the kernel arrives at: the descriptor says so, and O_PATH touches nothing.
#[expect(clippy::disallowed_methods, reason = "paths of the test's own namespace")]
fn kernel_lookup(path: &Path) -> u64 {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY;
    let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap();
    let info = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", opened.as_raw_fd())).unwrap();
    info.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap().trim().parse().unwrap()
}

#[test]
fn the_kernel_agrees_on_what_hides_what() {
    namespace::run(|scratch| {
        #[expect(clippy::disallowed_methods, reason = "a scratch directory of the test")]
        let mount_at = |path: &Path| {
            fs::create_dir_all(path).unwrap();
            namespace::mount_tmpfs(path);
        };
        let (stack, deep) = (scratch.join("stack"), scratch.join("a/b/deep"));
        for path in [&stack, &stack, &stack, &deep, &scratch.join("a"), &deep, &stack.join("inner")] {
            mount_at(path);
        }
        namespace::mount_tmpfs(Path::new("/"));
        let bytes = localfs::read_kernel_file(Path::new("/proc/thread-self/mountinfo")).unwrap();
        let table = own(&bytes);
        let ours = table.mounts.iter().filter(|m| m.mountpoint.starts_with(scratch) || m.mountpoint == Path::new("/"));
        let led_to: Vec<_> = ours.clone().map(|m| m.hidden_by.unwrap_or(m.id)).collect();
        let kernel: Vec<_> = ours.clone().map(|m| kernel_lookup(&m.mountpoint)).collect();
        assert_eq!(led_to, kernel);
        assert_eq!(ours.filter(|m| m.hidden_by.is_some()).count(), 4, "two of the stack, one below a, one on the root");
    });
}

/// The mounts that the agent watches by default.
fn wanted(table: &Table) -> impl Iterator<Item = &Mount> {
    let filter = Filter::default();
    table.mounts.iter().filter(move |mount| filter.wants(mount))
}

#[test]
fn a_real_client_with_a_covered_mount_is_read() {
    let table = own(include_bytes!("../../../tests/fixtures/mountinfo/linux-6.1-uml"));
    let watched: Vec<_> = wanted(&table)
        .map(|m| (m.mountpoint.to_str().unwrap(), m.origin.version.as_deref().unwrap(), m.origin.mode.unwrap()))
        .collect();
    let expected = [
        ("/tmp/c/nc", "4.2", Mode::Hard),
        ("/tmp/c/v3", "3", Mode::Soft),
        ("/tmp/c/v40", "4.0", Mode::Hard),
        ("/tmp/c/v41", "4.1", Mode::Hard),
        ("/tmp/c/v42", "4.2", Mode::Softerr),
        ("/tmp/c/with space", "4.1", Mode::Hard),
    ];
    assert_eq!(watched, expected);
    assert_eq!((hidden(&table, 22), table.mounts.iter().filter(|m| m.hidden_by.is_some()).count()), (Some(29), 1));
}

#[test]
fn watched_mounts_and_triggers_are_told_apart() {
    let table = own(NETWORK);
    let watched: Vec<_> = wanted(&table).map(|mount| mount.id).collect();
    assert_eq!(watched.len(), 11);
    assert!(watched.contains(&614) && !watched.contains(&613));
    assert_eq!(table.autofs().map(|mount| mount.id).collect::<Vec<_>>(), [613]);
}

#[test]
fn state_files_name_the_file_systems_of_a_table() {
    let mut table = own(include_bytes!("../../../tests/fixtures/mountinfo/efs"));
    let file = ("fs-0123456789abcdef0.mnt.tls.20173".into(), Vec::new());
    table.apply(&StateFiles::decode([file].into_iter()));
    let labels: Vec<_> = wanted(&table).map(|mount| mount.origin.label.as_str()).collect();
    assert!(labels.contains(&"fs-0123456789abcdef0:/") && labels.contains(&"127.0.0.1:20384:/"), "{labels:?}");
}

#[test]
fn fifty_thousand_mounts_stacked_or_beside_each_other_are_no_burden() {
    let beside: String = (2..50_000).map(|id| line(id, 1, 2, &format!("/mnt/{id}/a/b/c"))).collect();
    let stacked: String = (2..50_000).map(|id| line(id, id - 1, 2, "/mnt")).collect();
    for rest in [beside, stacked] {
        let lines = line(1, 0, 1, "/") + &rest;
        let start = std::time::Instant::now();
        let table = own(lines.as_bytes());
        assert_eq!(table.mounts.len(), 49_999);
        assert_eq!(hidden(&table, 49_999), None);
        println!("50,000 mounts, read and resolved: {:?}", start.elapsed());
    }
}

proptest! {
    #[test]
    fn any_tree_is_resolved(edges in prop::collection::vec((0_u64..12, 0_u64..12, 0_usize..5), 0..24)) {
        let paths = ["/", "/a", "/a/b", "/a/b/c", "/ab"];
        let lines: String = edges.iter().map(|&(id, parent, at)| line(id, parent, 1, paths[at])).collect();
        let table = own(lines.as_bytes());
        for mount in &table.mounts {
            prop_assert!(mount.hidden_by.is_none_or(|id| table.mounts.iter().any(|other| other.id == id)));
        }
    }
}

#[test]
fn a_directory_of_a_disk_is_found_by_the_hosts_path() {
    let disk = Dev { major: 8, minor: 1 };
    let table = |lines: &str| Table::of(b"9 1 8:1 /in/container /data rw - ext4 /dev/sda1 rw\n", Ok(lines.into()));
    let found = |lines: &str, directory: &str| table(lines).path_on_host(disk, directory.as_ref());
    let root = "20 1 8:2 / / rw - ext4 /dev/sda2 rw\n";
    let own_disk = format!("{root}21 20 8:1 / /var/lib/kubelet rw - ext4 /dev/sda1 rw\n");
    assert_eq!(found(&own_disk, "/pods/x"), Some("/var/lib/kubelet/pods/x".into()));
    assert_eq!(found(&own_disk, "/"), Some("/var/lib/kubelet".into()));
    let bound = format!("{own_disk}22 20 8:1 /pods/x /mnt/bind rw - ext4 /dev/sda1 rw\n");
    assert_eq!(found(&bound, "/pods/x/y"), Some("/var/lib/kubelet/pods/x/y".into()), "not by a bind of a part");
    let subvolume = format!("{root}21 20 8:1 /@kubelet /var/lib/kubelet rw - btrfs /dev/sda1 rw\n");
    assert_eq!(found(&subvolume, "/@kubelet/pods/x"), Some("/var/lib/kubelet/pods/x".into()));
    assert_eq!(found(&subvolume, "/@home/pods/x"), None, "not mounted on the host");
    let covered = format!("{own_disk}23 21 8:3 / /var/lib/kubelet/pods/x rw - ext4 /dev/sda3 rw\n");
    assert_eq!(found(&covered, "/pods/x/y"), None, "the path leads into another filesystem");
    assert_eq!(found(root, "/in/container"), None, "the agent's own mount is no path of the host");
    let alone = own(b"9 1 8:1 / /data rw - ext4 /dev/sda1 rw\n");
    assert_eq!(alone.path_on_host(disk, "/x".as_ref()), None, "whose paths these are is not known");
}
