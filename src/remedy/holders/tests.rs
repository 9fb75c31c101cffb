use super::*;

const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";
const OTHER: &str = "1c3f8e7d-9f0c-4c29-8a40-6d7a1f7e5a11";
const DEV: Dev = Dev { major: 0, minor: 44 };

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        tree.process(1, 100, "/init.scope", "");
        tree
    }

    fn process(&self, pid: i32, namespace: u32, group: &str, table: &str) -> PathBuf {
        let process = self.0.path().join(pid.to_string());
        let thread = process.join("task").join(pid.to_string());
        for directory in [&process, &thread] {
            std::fs::create_dir_all(directory.join("ns")).unwrap();
            std::os::unix::fs::symlink(format!("mnt:[{namespace}]"), directory.join("ns/mnt")).unwrap();
        }
        std::os::unix::fs::symlink("/", thread.join("root")).unwrap();
        std::fs::write(process.join("cgroup"), format!("0::{group}\n")).unwrap();
        std::fs::write(thread.join("mountinfo"), table).unwrap();
        thread
    }

    fn held(&self) -> io::Result<Vec<Held>> {
        held(self.0.path(), &[DEV])
    }

    fn others(&self) -> Vec<String> {
        others(&self.held().unwrap(), DEV, UID).into_iter().map(|other| other.name).collect()
    }
}

fn line(id: u64, minor: u32, path: &str) -> String {
    format!("{id} 1 0:{minor} / {path} rw - nfs4 srv:/x rw\n")
}

fn volume(uid: &str) -> String {
    format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~nfs/data")
}

fn pod_group(uid: &str) -> String {
    format!(
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice/cri-containerd-{}.scope",
        uid.replace('-', "_"),
        "ab".repeat(32)
    )
}

#[test]
fn the_pod_itself_and_copies_of_its_paths_are_no_others() {
    let tree = Tree::new();
    std::fs::write(tree.0.path().join("1/task/1/mountinfo"), line(50, 44, &volume(UID))).unwrap();
    tree.process(10, 200, &pod_group(UID), &line(60, 44, "/data"));
    tree.process(11, 300, "/system.slice/systemd-udevd.service", &line(70, 44, &volume(UID)));
    tree.process(12, 400, "/system.slice/x.service", &line(80, 45, "/elsewhere"));
    assert_eq!(tree.others(), Vec::<String>::new());
    let host: Vec<u64> = tree.held().unwrap().iter().filter(|mount| mount.host).map(|mount| mount.mount_id).collect();
    assert_eq!(host, [50]);
}

#[test]
fn host_mounts_other_pods_and_binds_elsewhere_are_others() {
    let tree = Tree::new();
    let host = [line(50, 44, &volume(UID)), line(51, 44, "/mnt/x"), line(52, 44, &volume(OTHER))].concat();
    std::fs::write(tree.0.path().join("1/task/1/mountinfo"), host).unwrap();
    tree.process(10, 200, &pod_group(OTHER), &line(60, 44, "/data"));
    tree.process(11, 300, "/system.slice/backup.service", &line(70, 44, "/srv/copy"));
    tree.process(12, 400, "/", &line(80, 44, "/tmp/bind"));
    assert_eq!(
        tree.others(),
        [
            "/mnt/x",
            "backup.service at /srv/copy",
            "process 12 at /tmp/bind",
            &format!("pod {OTHER}"),
            &format!("pod {OTHER} at /data"),
        ]
    );
}

#[test]
fn somebody_who_entered_the_pods_namespace_is_another() {
    let tree = Tree::new();
    tree.process(10, 200, &pod_group(UID), &line(60, 44, "/data"));
    tree.process(11, 200, "/user.slice/user-0.slice/session-1.scope", &line(60, 44, "/data"));
    assert_eq!(tree.others().len(), 1);
}

#[test]
fn a_thread_with_a_namespace_of_its_own_is_seen() {
    let tree = Tree::new();
    tree.process(10, 200, "/system.slice/a.service", "");
    let thread = tree.0.path().join("10/task/17");
    std::fs::create_dir_all(thread.join("ns")).unwrap();
    std::os::unix::fs::symlink("mnt:[999]", thread.join("ns/mnt")).unwrap();
    std::fs::write(thread.join("mountinfo"), line(90, 44, "/hidden")).unwrap();
    assert_eq!(tree.others(), ["a.service at /hidden"]);
}

#[test]
fn a_reader_that_is_chrooted_is_the_last_to_be_asked() {
    let tree = Tree::new();
    let thread = tree.process(10, 200, "/system.slice/a.service", "");
    std::fs::remove_file(thread.join("root")).unwrap();
    std::os::unix::fs::symlink("/jail", thread.join("root")).unwrap();
    tree.process(11, 200, "/system.slice/a.service", &line(90, 44, "/outside"));
    assert_eq!(tree.others(), ["a.service at /outside"]);
}

#[test]
fn what_cannot_be_read_is_an_error_and_what_ended_is_none() {
    let tree = Tree::new();
    std::fs::create_dir_all(tree.0.path().join("20")).unwrap();
    assert!(tree.held().is_ok(), "no threads any more");
    tree.process(21, 500, "/", "60 1 0:44 broken\n");
    assert!(tree.held().unwrap_err().to_string().contains("21/mountinfo"));
    let tree = Tree::new();
    // A directory where a file should be: EISDIR, whoever asks.
    let thread = tree.process(22, 600, "/", "");
    std::fs::remove_file(thread.join("mountinfo")).unwrap();
    std::fs::create_dir(thread.join("mountinfo")).unwrap();
    assert!(tree.held().is_err());
}

#[test]
fn this_machines_own_namespaces_are_read() {
    // As root every process can be asked; otherwise the answer must be an error and no shorter list.
    let bytes = std::fs::read("/proc/self/mountinfo").unwrap();
    let table = mountinfo::parse(&bytes, View::Own);
    let root = table.mounts.iter().find(|mount| mount.mountpoint == Path::new("/proc")).unwrap();
    if let Ok(held) = held(Path::new("/proc"), &[root.dev]) {
        assert!(held.iter().any(|mount| mount.mount_id == root.id), "{held:?}");
    }
}
