//! What is over a limit is counted, and what could not be settled is looked at again.

use super::*;
use crate::agent::registry::Newcomer;
use crate::config::Config;
use crate::mounts::filter::Filter;
use crate::mounts::mountinfo;
use crate::probe::Identity;
use crate::probe::image::Image;
use crate::probe::pool::{Limits, Pool};
use crate::probe::scan::{MemberRow, ProcessRow, Scan, What};
use crate::probe::tables::TableRow;

fn core() -> Core {
    let pool = Pool::new(Image::of_this_binary().unwrap(), Limits { warm: 1, max: 4, per_owner: 4 });
    Core::new(Config::default(), Filter::default(), pool, "node".to_owned(), true)
}

/// So many processes, each in a namespace of its own in a container of its own.
fn scan(count: usize) -> Scan {
    let id = |index: usize| format!("0::/kubepods/besteffort/pod0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11/{index:064x}\n");
    let row = |index: usize| {
        let pid = i32::try_from(index + 100).unwrap();
        let member = MemberRow {
            entry: pid,
            start: 1,
            parent: 1,
            name: b"app".to_vec(),
            cgroup: u32::try_from(index).unwrap(),
            namespace: Some(1000 + u64::try_from(index).unwrap()),
            ids: None,
        };
        ProcessRow { pid, ino: 1, what: What::Member(member) }
    };
    Scan {
        rows: (0..count).map(row).collect(),
        cgroups: (0..count).map(|index| id(index).into_bytes()).collect(),
        host: Some(1),
        own: Some(1),
        ..Scan::default()
    }
}

/// A container has this mount, whose root is identified; the target, if it is a new one.
fn join(core: &mut Core, process: Process, line: &str) -> Option<TargetId> {
    let view = View::Container(process);
    let mount = mountinfo::parse(line.as_bytes(), view).mounts.remove(0);
    let newcomer = Newcomer { mount, through: None, label: None, owner: None, alone: true };
    let changes = core.registry.update_view(view, vec![newcomer]);
    let identity = Identity { handle: vec![1], ino: 2, unique_mount_id: None };
    core.registry.identified(&changes.to_identify[0], Some(&identity), 0.0)
}

#[test]
fn the_metric_tells_the_limits_that_hold() {
    let help = crate::metrics::catalog::CONTAINERS_LEFT_OUT.help;
    for limit in [MAX_VIEWS, crate::probe::tables::MAX_MOUNTS, MAX_COUNTED] {
        assert!(help.contains(&format!("(over {limit})")), "{limit}: {help}");
    }
}

#[tokio::test]
async fn what_is_over_a_limit_is_counted() {
    let mut core = core();
    core.on_scanned(Outcome::Answered(Answer::Processes(scan(MAX_VIEWS + 3))), Duration::ZERO);
    assert_eq!(core.containers.left_out(), LeftOut { namespaces: 3, mounts: 0, counters: 0 });
    assert_eq!(core.containers.views.len(), MAX_VIEWS);
    let gone: Vec<i32> = (100..4000).collect();
    core.on_scanned(Outcome::Answered(Answer::Processes(Scan { rows: Vec::new(), gone, ..scan(0) })), Duration::ZERO);
    assert_eq!(core.containers.left_out().namespaces, 0);

    let process = *core.containers.views.keys().next().unwrap();
    core.take_container(process, &[], TableRow { hash: 1, left_out: 7, ..TableRow::default() }, &[]);
    assert_eq!(core.containers.left_out().mounts, 7);

    let processes: Vec<Process> = core.containers.views.keys().copied().take(MAX_COUNTED + 2).collect();
    for (index, process) in processes.into_iter().enumerate() {
        join(&mut core, process, &format!("90 1 0:{} / /data rw - nfs4 srv:/x rw,addr=10.0.0.1\n", index + 40));
    }
    core.containers.epoch += 1;
    core.count_in_containers(Now::ZERO);
    assert_eq!(core.containers.left_out().counters, 2);
}

fn seen(first: Now) -> Seen {
    Seen::new(
        Holder::Of(std::sync::Arc::new(crate::pods::cgroup::Owner::parse(b"0::/system.slice/x.service\n"))),
        first,
    )
}

#[test]
fn a_table_that_could_not_be_settled_is_read_again_ever_more_rarely() {
    let mut seen = seen(Now::ZERO);
    let mut now = YOUNG * 2;
    assert!(!seen.is_due(now));
    let mut waits = Vec::new();
    for _ in 0..6 {
        seen.later(now);
        // The other mounts of the same table.
        seen.later(now);
        let at = seen.again.expect("a time");
        waits.push((at - now).as_secs());
        assert!(!seen.is_due(at - Duration::from_millis(1)) && seen.is_due(at));
        now = at;
    }
    assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
}

#[tokio::test]
async fn what_a_young_container_lacks_is_looked_for_when_it_is_not_young_any_more() {
    let mut core = core();
    let (process, first) = (Process { pid: 100, start: 1 }, core.now());
    core.containers.views.insert(process, seen(first));
    let lacking = TableRow { hash: 7, missing: vec![0], ..TableRow::default() };
    core.take_container(process, &[], lacking, &[]);
    let seen = &core.containers.views[&process];
    assert_eq!((seen.hash, seen.again), (0, Some(first + YOUNG)));
    assert!(seen.is_due(first + YOUNG), "and not when all tables are read again");
    core.take_container(process, &[], TableRow { hash: 8, ..TableRow::default() }, &[]);
    let seen = &core.containers.views[&process];
    assert_eq!((seen.hash, seen.again), (8, None));
}

/// Whom the containers of a mount run as, where this is what the kernel says of it.
fn users_of(core: &mut Core, fstype: &str, options: &str) -> Vec<String> {
    let process = Process { pid: 100, start: 1 };
    let line = format!("90 1 0:40 / /data rw - {fstype} srv:/x rw,addr=10.0.0.1{options}\n");
    let id = join(core, process, &line).unwrap();
    let users = core.entry_users(&core.registry.targets[&id]);
    core.registry.update_view(View::Container(process), Vec::new());
    users.into_iter().map(|user| format!("{} {}", user.name, user.ids[0].uid)).collect()
}

#[tokio::test]
async fn the_containers_of_a_mount_are_those_that_stay_where_ids_decide() {
    let mut core = core();
    let mut one = scan(1);
    one.ids = vec![crate::canary::Ids { uid: 1000, gid: 1000, groups: Vec::new(), umask: 0 }];
    if let What::Member(member) = &mut one.rows[0].what {
        member.ids = Some(0);
    }
    core.on_scanned(Outcome::Answered(Answer::Processes(one)), Duration::ZERO);
    let uid = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";
    assert_eq!(users_of(&mut core, "nfs4", ""), [format!("pod {uid} (000000000000) 1000")]);
    assert!(users_of(&mut core, "nfs4", ",sec=krb5").is_empty(), "tickets decide");
    assert!(users_of(&mut core, "fuse.sshfs", "").is_empty(), "its daemon decides");
    let named = |terminating| {
        let pod = crate::pods::names::PodName {
            namespace: "shop".into(),
            name: "web".into(),
            terminating,
            ..Default::default()
        };
        std::sync::Arc::new(crate::pods::names::PodNames::new([(uid.to_owned(), pod)].into(), true))
    };
    core.names = named(false);
    assert_eq!(users_of(&mut core, "nfs4", ""), ["shop/web (000000000000) 1000"]);
    core.names = named(true);
    assert!(users_of(&mut core, "nfs4", "").is_empty(), "it is going");
}

#[tokio::test]
async fn what_changes_while_the_processes_are_looked_through_is_looked_for_soon() {
    let mut core = core();
    let slow = Duration::from_secs(2);
    let answer = || Outcome::Answered(Answer::Processes(scan(1)));
    core.containers.scanning = true;
    core.on_scanned(answer(), slow);
    assert!(core.containers.next_scan > core.now() + Duration::from_secs(50), "a look is dear here");
    core.containers.scanning = true;
    let now = core.now();
    core.containers.host_changed(now);
    core.on_scanned(answer(), slow);
    assert!(core.containers.next_scan <= core.now() + GAP);
}

#[tokio::test]
async fn a_containers_copy_may_be_the_last_mount_of_a_replaced_filesystem() {
    use crate::verdict::{Cause, State};
    // Who sees first that it is gone: the look through the processes, or the reading of its table.
    for by_table in [false, true] {
        let mut core = core();
        core.on_scanned(Outcome::Answered(Answer::Processes(scan(2))), Duration::ZERO);
        let process = |pid| Process { pid, start: 1 };
        let line = |id: u32| format!("{id} 1 0:40 / /data rw - nfs4 srv:/x rw,addr=10.0.0.1\n");
        let id = join(&mut core, process(100), &line(90)).expect("a target of its own");
        let target = core.registry.targets.get_mut(&id).unwrap();
        (target.verdict.state, target.verdict.cause) = (State::Lost, Some(Cause::FilesystemReplaced));
        target.note_replaced();
        assert_eq!(join(&mut core, process(101), &line(91)), None, "a fresh mount shares superblock and root");
        if by_table {
            core.forget_container(process(100));
            core.containers.lost = true;
        }
        let look = Scan { rows: Vec::new(), gone: vec![100], ..scan(0) };
        core.on_scanned(Outcome::Answered(Answer::Processes(look)), Duration::ZERO);
        assert!(!core.registry.targets.contains_key(&id), "the new mount is not the one that was lost");
    }
}

#[tokio::test]
async fn the_mounts_of_a_target_that_is_dissolved_are_identified_anew_in_containers_too() {
    let mut core = core();
    core.on_scanned(Outcome::Answered(Answer::Processes(scan(3))), Duration::ZERO);
    core.containers.unread.clear();
    let process = |pid| Process { pid, start: 1 };
    let line = |id: u32| format!("{id} 1 0:40 / /data rw - nfs4 srv:/x rw,addr=10.0.0.1\n");
    let id = join(&mut core, process(100), &line(90)).expect("a target of its own");
    assert_eq!(join(&mut core, process(101), &line(91)), None);
    core.containers.views.values_mut().for_each(|seen| seen.hash = 7);
    // The host unmounted and mounted it between two readings, and a look by its path met the new root.
    let now = core.now();
    core.dissolve(id, now);
    // Their tables did not change: asked with what is known of them they would not be told again.
    let hashes = [100, 101, 102].map(|pid| core.containers.views[&process(pid)].hash);
    assert_eq!(hashes, [0, 0, 7]);
    assert!(core.containers.unread.iter().eq(&[process(100), process(101)]));
    assert!(core.reread, "the host's table too");
}

#[tokio::test]
async fn a_container_that_ended_before_its_counters_were_read_is_no_error() {
    let mut core = core();
    let failed = |errno| Outcome::Answered(Answer::Failed { errno });
    let error = |core: &Core| core.stats.evidence.iter().find_map(|source| source.error.clone());
    let container = View::Container(Process { pid: 100, start: 1 });
    for errno in [libc::ENOENT, libc::ESRCH, libc::EINVAL] {
        core.on_counted(container, failed(errno), Duration::ZERO);
        assert_eq!(error(&core), None, "{errno}");
    }
    core.on_counted(container, failed(libc::EACCES), Duration::ZERO);
    assert!(error(&core).is_some(), "it is there, and must not be read");
    core.on_counted(View::Host, failed(libc::ENOENT), Duration::ZERO);
    assert!(error(&core).is_some_and(|error| error.contains("ENOENT")));
}
