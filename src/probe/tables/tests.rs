use std::path::Path;

use super::*;

const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";

fn process(root: &Path, pid: i32, start: u64, mountinfo: &str) -> Process {
    let directory = root.join(pid.to_string());
    std::fs::create_dir_all(&directory).unwrap();
    let stat = format!("{pid} (app) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0\n");
    std::fs::write(directory.join("stat"), stat).unwrap();
    std::fs::write(directory.join("mountinfo"), mountinfo).unwrap();
    Process { pid, start }
}

fn ask(root: &Path, asked: &[(Process, u64, &[&str])]) -> Tables {
    let tables = asked.iter().map(|(process, hash, wanted)| Asked {
        process: *process,
        hash: *hash,
        wanted: wanted.iter().map(|path| path.as_bytes().to_vec()).collect(),
        compared: Vec::new(),
    });
    let job = TablesJob { proc_root: root.as_os_str().as_bytes().to_vec(), tables: tables.collect() };
    read(&job, &|| Ok(())).unwrap()
}

fn read_row(tables: &Tables, index: usize) -> &TableRow {
    match &tables.tables[index] {
        TableFate::Read(row) => row,
        other => panic!("{other:?}"),
    }
}

/// A container: its root, a volume, a subPath, a mount that is followed, one on another network mount, local ones.
fn container() -> String {
    format!(
        "10 5 0:90 / / rw - overlay overlay rw\n\
         11 10 0:91 / /proc rw - proc proc rw\n\
         12 10 0:40 / /data rw - nfs4 srv:/x rw,vers=4.1,addr=10.0.0.1\n\
         13 10 0:40 / /sub ro - nfs4 srv:/x/sub rw,vers=4.1,addr=10.0.0.1\n\
         14 10 0:41 / /follows rw master:7 - nfs4 srv:/y rw,vers=4.1,addr=10.0.0.1\n\
         15 12 0:42 / /data/inner rw - nfs4 srv:/z rw,vers=4.1,addr=10.0.0.1\n\
         16 10 8:1 /var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~nfs/pv-1 /broken rw - ext4 /dev/vda1 rw\n\
         17 10 8:1 /var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/tmp /tmp rw - ext4 /dev/vda1 rw\n\
         18 10 8:1 /var/lib/kubelet/pods/{UID}/etc-hosts /etc/hosts rw - ext4 /dev/vda1 rw\n"
    )
}

#[test]
fn only_what_matters_is_told() {
    let root = tempfile::tempdir().unwrap();
    let process = process(root.path(), 100, 7, &container());
    let tables = ask(root.path(), &[(process, 0, &[])]);
    let row = read_row(&tables, 0);
    assert_eq!(row.mounts.iter().map(|mount| mount.id).collect::<Vec<_>>(), [12, 13, 14, 15, 16]);
    assert_eq!(row.mounts.iter().filter(|mount| mount.follows).map(|mount| mount.id).collect::<Vec<_>>(), [14]);
    assert_eq!(row.mounts.iter().filter(|mount| mount.on_disk).map(|mount| mount.id).collect::<Vec<_>>(), [16]);
    assert_eq!(row.mounts[3].through, Some(12));
    assert_eq!((row.all, row.left_out), (9, 0));
    assert_eq!(tables.filesystems.len(), 2, "options of one kind are told once");
    let mount = row.mounts[1].mount(&tables.filesystems, View::Container(process)).unwrap();
    assert_eq!(
        (mount.kind, mount.read_only(), mount.origin.export.as_deref()),
        (Some(Kind::Nfs4), true, Some("/x/sub"))
    );
}

#[test]
fn a_container_may_have_its_root_on_the_network_and_mounts_at_any_path() {
    let root = tempfile::tempdir().unwrap();
    let long = format!("/{}", "d/".repeat(2047));
    let paths = ["/", "/with\\040space", "/new\\012line", "/up/../\\134up", &long];
    let line = |(index, path): (usize, &&str)| {
        format!("{} 5 0:40 / {path} rw - nfs4 srv:/x rw,vers=4.1,addr=10.0.0.1\n", index + 10)
    };
    let table: String = paths.iter().enumerate().map(line).collect();
    let process = process(root.path(), 100, 7, &table);
    let tables = ask(root.path(), &[(process, 0, &["/", "/with space", "/elsewhere"])]);
    let row = read_row(&tables, 0);
    let mounts = row.mounts.iter().map(|told| told.mount(&tables.filesystems, View::Container(process)).unwrap());
    let found: Vec<_> = mounts.map(|mount| mount.mountpoint.into_os_string().into_string().unwrap()).collect();
    assert_eq!(found, ["/", "/with space", "/new\nline", "/up/../\\up", &long]);
    assert_eq!(row.missing, [2]);
}

#[test]
fn the_same_table_is_not_told_twice_and_another_one_is() {
    let root = tempfile::tempdir().unwrap();
    let known = process(root.path(), 100, 7, &container());
    let hash = read_row(&ask(root.path(), &[(known, 0, &[])]), 0).hash;
    assert_eq!(ask(root.path(), &[(known, hash, &[])]).tables, [TableFate::Same]);
    assert!(matches!(ask(root.path(), &[(known, hash, &["/data"])]).tables[0], TableFate::Read(_)), "another question");
    process(root.path(), 100, 7, "10 5 0:90 / / rw - overlay overlay rw\n");
    assert!(read_row(&ask(root.path(), &[(known, hash, &[])]), 0).mounts.is_empty());
}

#[test]
fn a_process_that_ended_or_gave_its_number_away_is_gone_and_no_error() {
    let root = tempfile::tempdir().unwrap();
    let other = process(root.path(), 100, 7, &container());
    let asked = [(Process { pid: 99, start: 1 }, 0, &[][..]), (Process { start: 3, ..other }, 0, &[]), (other, 0, &[])];
    let tables = ask(root.path(), &asked).tables;
    assert_eq!(&tables[..2], [TableFate::Gone, TableFate::Gone]);
    assert!(matches!(tables[2], TableFate::Read(_)));
    std::fs::remove_file(root.path().join("100/mountinfo")).unwrap();
    std::fs::create_dir(root.path().join("100/mountinfo")).unwrap();
    assert_eq!(ask(root.path(), &[(other, 0, &[])]).tables, [TableFate::Failed(libc::EISDIR)]);
}

#[test]
fn a_wanted_path_is_missing_where_nothing_of_its_name_is_mounted() {
    let root = tempfile::tempdir().unwrap();
    let known = process(root.path(), 100, 7, &container());
    // An image may have a symlink on the way, and the table shows where it leads.
    let wanted = ["/data", "/gone", "/link/to/sub"];
    assert_eq!(read_row(&ask(root.path(), &[(known, 0, &wanted)]), 0).missing, [1]);
}

/// What is told of the compared paths: index, mount, on the network or not.
fn places(table: &str, paths: &[&str]) -> Vec<(u32, u64, bool)> {
    let root = tempfile::tempdir().unwrap();
    let process = process(root.path(), 100, 7, table);
    let compared = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
    let asked = Asked { process, hash: 0, wanted: Vec::new(), compared };
    let job = TablesJob { proc_root: root.path().as_os_str().as_bytes().to_vec(), tables: vec![asked] };
    let tables = read(&job, &|| Ok(())).unwrap();
    read_row(&tables, 0).places.iter().map(|place| (place.index, place.mount, place.network)).collect()
}

#[test]
fn what_compared_paths_lead_to_is_told_on_the_network_or_not() {
    let paths = ["/data", "/tmp", "/gone", "/", "/proc", "/broken"];
    // Of /proc nobody can say; /broken is a volume that is not mounted.
    assert_eq!(places(&container(), &paths), [(0, 12, true), (1, 17, false), (3, 10, false)]);
}

#[test]
fn what_a_container_has_mounted_over_its_volume_itself_is_not_compared() {
    let table = |first: &str, second: &str| {
        format!("10 5 0:90 / / rw - overlay overlay rw\n20 10 8:1 /d /data rw{first}\n21 20 0:40 / /data rw{second}\n")
    };
    let (disk, share) = (" - ext4 /dev/vda1 rw", " - nfs4 srv:/x rw");
    assert_eq!(places(&table(disk, share), &["/data"]), []);
    assert_eq!(places(&table(share, " - tmpfs tmpfs rw"), &["/data"]), []);
    // What was mounted on the host comes with propagation, over what was there before.
    assert_eq!(places(&table(disk, &format!(" master:7{share}")), &["/data"]), [(0, 21, true)]);
}

#[test]
fn a_flood_of_mounts_is_cut_and_counted() {
    let root = tempfile::tempdir().unwrap();
    let line = |n: usize| format!("{n} 10 0:40 / /{}/{n} rw - nfs4 srv:/x rw\n", "d".repeat(200));
    let flood: String = (20..2_020).map(line).collect();
    let process = process(root.path(), 100, 7, &format!("10 5 0:90 / / rw - overlay overlay rw\n{flood}"));
    let asked = vec![(process, 0, &[][..]); MAX_TABLES];
    let tables = ask(root.path(), &asked);
    let row = read_row(&tables, 0);
    assert_eq!((row.mounts.len(), row.left_out), (MAX_MOUNTS, 2_000 - 1_024));
    assert_eq!(tables.tables[MAX_TABLES - 1], TableFate::Later);
    let answer = crate::probe::wire::Answer::Tables(tables);
    assert!(crate::probe::wire::encode(&answer).is_ok(), "it fits a frame");
}

#[test]
fn the_real_table_of_this_process_is_read() {
    let pid = i32::try_from(std::process::id()).unwrap();
    let directory =
        rustix::fs::open(format!("/proc/{pid}"), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let start = scan::stat(directory.as_fd()).unwrap().start;
    let tables = ask(Path::new("/proc"), &[(Process { pid, start }, 0, &["/proc"])]);
    let row = read_row(&tables, 0);
    assert!(row.all > 0 && row.missing.is_empty());
}
