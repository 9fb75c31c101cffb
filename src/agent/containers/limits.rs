//! What is over a limit is counted.

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
        let view = View::Container(process);
        let line = format!("90 1 0:{} / /data rw - nfs4 srv:/x rw,addr=10.0.0.1\n", index + 40);
        let mount = mountinfo::parse(line.as_bytes(), view).mounts.remove(0);
        let newcomer = Newcomer { mount, through: None, label: None, owner: None, alone: true };
        let changes = core.registry.update_view(view, vec![newcomer]);
        let identity = Identity { handle: vec![1], ino: 2, unique_mount_id: None };
        core.registry.identified(&changes.to_identify[0], Some(&identity), 0.0).unwrap();
    }
    core.containers.epoch += 1;
    core.count_in_containers(Now::ZERO);
    assert_eq!(core.containers.left_out().counters, 2);
}
