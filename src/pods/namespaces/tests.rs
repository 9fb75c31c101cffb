use super::*;
use crate::probe::scan::ProcessRow;

const HOST: u64 = 1;
const POD: &str = "0::/kubepods.slice/kubepods-pod0b2e7d6c_9f0c_4c29_8a40_6d7a1f7e5a11.slice/cri-containerd-\
                   aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.scope\n";
const SERVICE: &str = "0::/system.slice/systemd-udevd.service\n";
const SESSION: &str = "0::/user.slice/user-0.slice/session-1.scope\n";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A process of the first cgroup of its scan that has this text.
fn row(pid: i32, start: u64, cgroup: u32, namespace: Option<u64>) -> ProcessRow {
    let name = b"app".to_vec();
    let member = MemberRow { entry: pid, start, parent: 1, name, cgroup, namespace, ids: None };
    ProcessRow { pid, ino: start, what: What::Member(member) }
}

fn scan(rows: Vec<ProcessRow>, gone: &[i32]) -> Scan {
    let cgroups = [POD, SERVICE, SESSION].map(|text| text.as_bytes().to_vec()).to_vec();
    Scan { rows, gone: gone.to_vec(), cgroups, host: Some(HOST), own: Some(HOST), ..Scan::default() }
}

fn of(namespaces: &Namespaces, id: u64) -> &Namespace {
    namespaces.iter().find(|namespace| namespace.id == Some(id)).unwrap()
}

/// PID 1, a session of the host, a pod of two processes, a service with a namespace of its own.
fn node() -> Namespaces {
    let mut namespaces = Namespaces::default();
    let rows = vec![
        row(1, 1, 2, Some(HOST)),
        row(50, 5, 2, Some(HOST)),
        row(101, 30, 0, Some(7)),
        row(100, 20, 0, Some(7)),
        row(60, 6, 1, Some(8)),
    ];
    assert!(namespaces.take(scan(rows, &[]), seconds(0)));
    namespaces
}

#[test]
fn each_namespace_has_a_holder_and_its_oldest_process() {
    let namespaces = node();
    assert_eq!(namespaces.iter().count(), 3);
    let pod = of(&namespaces, 7);
    assert_eq!((pod.process, pod.processes), (Process { pid: 100, start: 20 }, 2));
    assert_eq!(pod.holder.pod_uid(), Some("0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11"));
    assert_eq!(pod.holder.container_id().map(str::len), Some(64));
    assert_eq!(of(&namespaces, HOST).holder, Holder::Host);
    assert_eq!(of(&namespaces, 8).holder.words(), "systemd-udevd.service");
    assert_eq!(namespaces.doubt(), None);
}

#[test]
fn who_enters_a_container_does_not_hold_it_and_is_named() {
    let mut namespaces = node();
    // An older shell of the host enters the pod's namespace.
    assert!(namespaces.take(scan(vec![row(50, 5, 2, Some(7))], &[]), seconds(1)));
    let pod = of(&namespaces, 7);
    assert_eq!((pod.process.pid, pod.processes), (100, 3));
    assert_eq!(pod.others.iter().map(|owner| owner.words()).collect::<Vec<_>>(), ["session-1.scope"]);
}

#[test]
fn the_process_to_look_through_stays_the_same_while_it_lives() {
    let mut namespaces = node();
    // An older process of the pod comes back into the namespace: that is no reason to change.
    namespaces.take(scan(vec![row(99, 10, 0, Some(7))], &[]), seconds(1));
    assert_eq!(of(&namespaces, 7).process.pid, 100);
    assert!(namespaces.take(scan(Vec::new(), &[100]), seconds(2)));
    assert_eq!(of(&namespaces, 7).process.pid, 99);
    assert!(namespaces.take(scan(Vec::new(), &[99, 101]), seconds(3)));
    assert!(namespaces.iter().all(|namespace| namespace.id != Some(7)));
}

#[test]
fn another_process_of_the_same_number_is_another_one() {
    let mut namespaces = node();
    namespaces.take(scan(Vec::new(), &[101]), seconds(1));
    // 100 ended and its number went to a process of the service, between two looks.
    assert!(namespaces.take(scan(vec![row(100, 90, 1, Some(8))], &[100]), seconds(2)));
    assert!(namespaces.iter().all(|namespace| namespace.id != Some(7)));
    assert_eq!(of(&namespaces, 8).processes, 2);
}

#[test]
fn nothing_new_changes_nothing_and_reads_nothing() {
    let mut namespaces = node();
    let job = namespaces.job(b"/proc", seconds(31));
    assert_eq!((job.known.len(), job.again.len()), (5, 0));
    assert!(!namespaces.take(scan(Vec::new(), &[]), seconds(31)));
    let job = namespaces.job(b"/proc", seconds(600));
    assert_eq!(job.again.len(), 5, "a process may enter another namespace at any age");
}

#[test]
fn a_young_process_is_looked_at_again_until_it_has_arrived() {
    let mut namespaces = node();
    namespaces.take(scan(vec![row(200, 95, 1, Some(HOST))], &[]), seconds(40));
    assert_eq!(namespaces.job(b"/proc", seconds(50)).again, [200]);
    // The runtime has unshared and moved it by now.
    assert!(namespaces.take(scan(vec![row(200, 95, 0, Some(9))], &[]), seconds(50)));
    assert!(of(&namespaces, 9).holder.container_id().is_some());
    assert_eq!(namespaces.job(b"/proc", seconds(71)).again, [] as [i32; 0], "counted from when it was first seen");
}

#[test]
fn without_the_right_to_see_namespaces_containers_are_told_apart_by_name() {
    let mut namespaces = Namespaces::default();
    let rows = vec![row(1, 1, 2, None), row(100, 20, 0, None), row(101, 30, 0, None), row(60, 6, 1, None)];
    namespaces.take(scan(rows, &[]), seconds(0));
    let all: Vec<&Namespace> = namespaces.iter().collect();
    assert_eq!((all.len(), all[0].process.pid, all[0].id), (1, 100, None));
    assert!(namespaces.doubt().unwrap().contains("CAP_SYS_PTRACE"));
    assert!(namespaces.blind().unwrap().contains("CAP_SYS_PTRACE"));
    namespaces
        .take(scan(vec![row(100, 20, 0, Some(7)), row(101, 30, 0, Some(7)), row(60, 6, 1, Some(8))], &[]), seconds(1));
    assert!(namespaces.doubt().is_some(), "PID 1 is still hidden");
    assert_eq!(namespaces.blind(), None, "and hides no container");
}

#[test]
fn a_process_that_cannot_be_looked_at_leaves_a_doubt() {
    let mut namespaces = Namespaces::default();
    assert!(namespaces.doubt().is_some(), "nothing was looked at yet");
    let unreadable = ProcessRow { pid: 77, ino: 1, what: What::Unreadable(libc::EPERM) };
    namespaces.take(scan(vec![unreadable], &[]), seconds(0));
    assert!(namespaces.doubt().unwrap().contains("77"));
    assert_eq!(namespaces.job(b"/proc", seconds(100)).again, [77]);
    namespaces.take(scan(Vec::new(), &[77]), seconds(1));
    assert_eq!(namespaces.doubt(), None);
}

/// The same process, which runs as the first, second, ... of these users.
fn running_as(row: ProcessRow, ids: Option<u32>) -> ProcessRow {
    let What::Member(member) = row.what else { panic!("no member") };
    ProcessRow { what: What::Member(MemberRow { ids, ..member }), ..row }
}

#[test]
fn whom_a_container_runs_as_is_known_where_it_is_of_all_its_processes() {
    let users = ["uid=1000 umask=000", "uid=2000 umask=000"].map(|ids| ids.parse::<Ids>().unwrap());
    let with = |rows: Vec<ProcessRow>| Scan { ids: users.to_vec(), ..scan(rows, &[]) };
    let mut namespaces = Namespaces::default();
    let app = |pid: i32, ids| running_as(row(pid, 20, 0, Some(7)), ids);
    let shell = running_as(row(50, 5, 2, Some(7)), None);
    namespaces.take(with(vec![app(100, Some(0)), app(101, Some(1)), app(102, Some(0)), shell]), seconds(0));
    let found: Vec<Ids> = of(&namespaces, 7).ids.iter().map(|ids| Ids::clone(ids)).collect();
    assert_eq!(found, users, "who entered it is not asked");
    assert!(namespaces.take(with(vec![app(103, None)]), seconds(1)), "one may read everything");
    assert!(of(&namespaces, 7).ids.is_empty());
}

#[test]
fn the_pause_container_is_told_apart_by_its_program() {
    let mut namespaces = Namespaces::default();
    let mut pause = row(100, 20, 0, Some(7));
    if let What::Member(member) = &mut pause.what {
        member.name = b"pause".to_vec();
    }
    namespaces.take(scan(vec![pause, row(60, 6, 1, Some(8))], &[]), seconds(0));
    assert!(of(&namespaces, 7).is_pause());
    assert!(!of(&namespaces, 8).is_pause());
}
