use std::path::Path;

use super::*;

/// A process below a proc directory of our own.
fn process(root: &Path, pid: i32, stat: &str, cgroup: &str, namespace: u64) {
    let directory = root.join(pid.to_string());
    std::fs::create_dir_all(directory.join("ns")).unwrap();
    std::fs::write(directory.join("stat"), stat).unwrap();
    std::fs::write(directory.join("cgroup"), cgroup).unwrap();
    std::os::unix::fs::symlink(format!("mnt:[{namespace}]"), directory.join("ns/mnt")).unwrap();
}

fn stat_of(pid: i32, name: &str, state: char, flags: u64, threads: u64, start: u64) -> String {
    format!("{pid} ({name}) {state} 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 {start} 0 0\n")
}

fn scan(root: &Path, known: &[(i32, u64)], again: &[i32]) -> Scan {
    let proc_root = root.as_os_str().as_bytes().to_vec();
    run(&ScanJob { proc_root, known: known.to_vec(), again: again.to_vec() }).unwrap()
}

fn known(scan: &Scan) -> Vec<(i32, u64)> {
    scan.rows.iter().map(|row| (row.pid, row.ino)).collect()
}

fn member(row: &ProcessRow) -> &MemberRow {
    match &row.what {
        What::Member(member) => member,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_look_reads_only_what_is_new() {
    let root = tempfile::tempdir().unwrap();
    for pid in [10, 11] {
        process(root.path(), pid, &stat_of(pid, "app", 'S', 0, 1, 700), "0::/a\n", 42);
    }
    let first = scan(root.path(), &[], &[]);
    assert_eq!((first.rows.len(), first.cgroups.len()), (2, 1), "one cgroup for both");
    process(root.path(), 12, &stat_of(12, "new", 'S', 0, 1, 900), "0::/b\n", 43);
    std::fs::remove_dir_all(root.path().join("10")).unwrap();
    let second = scan(root.path(), &known(&first), &[]);
    assert_eq!((second.rows.iter().map(|row| row.pid).collect::<Vec<_>>(), second.gone), (vec![12], vec![10]));
    let member = member(&second.rows[0]);
    assert_eq!((member.entry, member.start, member.namespace), (12, 900, Some(43)));
    assert_eq!(second.cgroups[member.cgroup as usize], b"0::/b\n");
    let asked = scan(root.path(), &known(&first), &[11]);
    assert!(asked.rows.iter().any(|row| row.pid == 11), "read again where that is asked for");
}

#[test]
fn another_process_of_the_same_number_is_gone_and_new() {
    let root = tempfile::tempdir().unwrap();
    process(root.path(), 10, &stat_of(10, "app", 'S', 0, 1, 700), "0::/a\n", 42);
    let first = scan(root.path(), &[], &[]);
    let second = scan(root.path(), &[(10, first.rows[0].ino + 1)], &[]);
    assert_eq!((second.gone, second.rows), (vec![10], first.rows));
}

#[test]
fn the_name_of_a_program_cannot_forge_its_fields() {
    let text = stat_of(10, "a) Z 1 (b\n)", 'S', 0, 3, 700);
    let stat = Stat::parse(text.as_bytes()).unwrap();
    assert_eq!((stat.name.as_slice(), stat.dead, stat.threads, stat.start), (&b"a) Z 1 (b\n)"[..], false, 3, 700));
    assert_eq!(Stat::parse(b"10 (a"), None);
    assert_eq!(Stat::parse(b"10 (a) S 1 2"), None);
}

#[test]
fn kernel_threads_and_the_dead_are_in_no_namespace() {
    let root = tempfile::tempdir().unwrap();
    process(root.path(), 2, &stat_of(2, "kthreadd", 'S', KERNEL_THREAD, 1, 0), "0::/\n", 1);
    process(root.path(), 30, &stat_of(30, "zombie", 'Z', 4, 1, 0), "0::/a\n", 42);
    let scan = scan(root.path(), &[], &[]);
    assert!(scan.rows.iter().all(|row| row.what == What::Nothing), "{:?}", scan.rows);
}

#[test]
fn a_dead_first_thread_does_not_hide_the_others() {
    let root = tempfile::tempdir().unwrap();
    process(root.path(), 30, &stat_of(30, "app", 'Z', 4, 2, 700), "0::/a\n", 42);
    let tasks = root.path().join("30/task");
    process(&tasks, 30, &stat_of(30, "app", 'Z', 4, 2, 700), "0::/a\n", 42);
    process(&tasks, 31, &stat_of(31, "app", 'D', 4, 2, 705), "0::/a\n", 42);
    let scan = scan(root.path(), &[], &[]);
    let member = member(&scan.rows[0]);
    assert_eq!((scan.rows[0].pid, member.entry, member.start, member.namespace), (30, 31, 705, Some(42)));
}

#[test]
fn what_cannot_be_looked_at_is_told() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("7/stat")).unwrap();
    assert_eq!(scan(root.path(), &[], &[]).rows[0].what, What::Unreadable(libc::EISDIR));
    // It ended while it was looked at.
    std::fs::create_dir_all(root.path().join("8")).unwrap();
    let scan = scan(root.path(), &[], &[]);
    assert!(scan.rows.iter().all(|row| row.pid != 8));
}

#[test]
fn the_real_proc_has_this_process_in_the_same_number_twice() {
    let first = scan(Path::new("/proc"), &[], &[]);
    let own = i32::try_from(std::process::id()).unwrap();
    let row = first.rows.iter().find(|row| row.pid == own).unwrap();
    assert_eq!(member(row).namespace, first.own);
    assert!(first.own.is_some() && !first.more);
    let second = scan(Path::new("/proc"), &known(&first), &[]);
    assert!(second.rows.iter().all(|row| row.pid != own) && !second.gone.contains(&own), "it is the same process");
}

fn status(uid: &str, gid: &str, groups: &str, capabilities: &str) -> String {
    format!("Name:\tapp\nUmask:\t0022\nUid:\t{uid}\nGid:\t{gid}\nGroups:\t{groups} \nCapEff:\t{capabilities}\n")
}

#[test]
fn whom_a_process_runs_as_is_what_counts_for_files() {
    let none = "0000000000000000";
    let ids = ids_of(status("1\t2\t3\t1000", "1\t2\t3\t100", "2000 3000", none).as_bytes());
    assert_eq!(ids, Some("uid=1000 gid=100 groups=2000+3000 umask=000".parse().unwrap()));
    let plain = |capabilities| ids_of(status("7\t7\t7\t7", "7\t7\t7\t7", "", capabilities).as_bytes());
    assert_eq!(plain(none).map(|ids| ids.groups), Some(Vec::new()));
    assert_eq!(plain("0000000000000002"), None, "CAP_DAC_OVERRIDE");
    assert_eq!(plain("0000000000000004"), None, "CAP_DAC_READ_SEARCH");
    let many = (0..100).map(|group| group.to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(ids_of(status("7\t7\t7\t7", "7\t7\t7\t7", &many, none).as_bytes()), None);
    assert_eq!(ids_of(b"Name:\tapp\n"), None);
}

#[test]
fn ids_are_read_of_processes_of_pods_alone() {
    let root = tempfile::tempdir().unwrap();
    let pod = format!("0::/kubepods/pod0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11/{}\n", "a".repeat(64));
    for (pid, cgroup) in [(10, pod.as_str()), (11, pod.as_str()), (12, "0::/system.slice/a.service\n")] {
        process(root.path(), pid, &stat_of(pid, "app", 'S', 0, 1, 700), cgroup, 42);
        let text = status("7\t7\t7\t7", "7\t7\t7\t7", "", "0000000000000000");
        std::fs::write(root.path().join(format!("{pid}/status")), text).unwrap();
    }
    // One that cannot be read is no error.
    process(root.path(), 13, &stat_of(13, "app", 'S', 0, 1, 700), &pod, 42);
    let mut scan = scan(root.path(), &[], &[]);
    scan.rows.sort_by_key(|row| row.pid);
    let ids: Vec<Option<u32>> = scan.rows.iter().map(|row| member(row).ids).collect();
    assert_eq!(ids, [Some(0), Some(0), None, None]);
    assert_eq!(scan.ids, ["uid=7 umask=000".parse().unwrap()]);
}
