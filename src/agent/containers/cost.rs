//! What looking at many containers costs, on real mount namespaces: `cargo test --release --lib containers::cost --
//! --ignored --nocapture`. The figures of docs/performance.md are from here.
#![expect(clippy::disallowed_methods, reason = "a measurement makes its own mounts and processes")]

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};

use crate::mounts::{Process, View};
use crate::pods::namespaces::Namespaces;
use crate::probe::tables::{Asked, MAX_TABLES, TableFate, Tables, TablesJob};
use crate::probe::{scan, tables};

const CONTAINERS: usize = 1000;
const MOUNTS: usize = 30;
const NETWORK: usize = 4;

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_micros(u64::try_from(value.tv_sec() * 1_000_000 + value.tv_usec()).unwrap())
    };
    time(usage.user_time()) + time(usage.system_time())
}

fn measured<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let (begin, before) = (Instant::now(), cpu());
    let value = run();
    println!(
        "{what}: {:.1} ms, CPU {:.1} ms",
        begin.elapsed().as_secs_f64() * 1e3,
        (cpu() - before).as_secs_f64() * 1e3
    );
    value
}

/// `MOUNTS` mounts in a namespace of our own, some of them of a network filesystem: FUSE without a daemon, which is enough
/// for a table.
fn mounts(scratch: &Path) -> Vec<std::fs::File> {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let mut devices = Vec::new();
    for number in 0..MOUNTS {
        let directory = scratch.join(number.to_string());
        std::fs::create_dir(&directory).unwrap();
        if number < NETWORK {
            let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
            let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("bucket"), &directory, Some("fuse.s3fs"), flags, Some(options.as_str())).unwrap();
            devices.push(device);
        } else {
            mount(Some("none"), &directory, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        }
    }
    devices
}

fn container() -> Child {
    Command::new("unshare").args(["--mount", "sleep", "3600"]).stdin(Stdio::null()).spawn().unwrap()
}

/// `unshare` starts in our namespace: until all have left it there is nothing to count.
fn wait_for_namespaces(children: &[Child]) {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).unwrap();
    let ours = namespace("self");
    let deadline = Instant::now() + Duration::from_secs(120);
    for child in children {
        while namespace(&child.id().to_string()) == ours {
            assert!(Instant::now() < deadline, "process {} is still in our mount namespace", child.id());
            std::thread::yield_now();
        }
    }
}

fn tables_of(processes: &[(Process, u64)]) -> Vec<(Process, TableFate)> {
    let mut fates = Vec::new();
    for batch in processes.chunks(MAX_TABLES) {
        let asked = batch.iter().map(|(process, hash)| Asked {
            process: *process,
            hash: *hash,
            wanted: Vec::new(),
            compared: Vec::new(),
        });
        let job = TablesJob { proc_root: b"/proc".to_vec(), tables: asked.collect() };
        let Tables { tables, .. } = tables::read(&job, &|| Ok(())).unwrap();
        fates.extend(batch.iter().map(|(process, _)| *process).zip(tables));
    }
    fates
}

#[test]
#[ignore = "a measurement: a thousand processes"]
fn a_thousand_containers_of_thirty_mounts() {
    let scratch = tempfile::tempdir().unwrap();
    let _devices = mounts(scratch.path());
    let mut children: Vec<Child> = (0..CONTAINERS).map(|_| container()).collect();
    wait_for_namespaces(&children);
    let mut namespaces = Namespaces::default();
    let hour = Duration::from_secs(3600);
    let full = measured("look through the processes, all new", || scan::run(&namespaces.job(b"/proc", hour)).unwrap());
    measured("take it over (agent)", || namespaces.take(full, hour));
    let found = namespaces.iter().filter(|namespace| namespace.id.is_some()).count();
    println!("{} processes, {found} mount namespaces", namespaces.processes());
    assert!(found >= CONTAINERS);
    let later = hour + Duration::from_secs(60);
    let again =
        measured("look through the processes, nothing new", || scan::run(&namespaces.job(b"/proc", later)).unwrap());
    measured("take it over (agent)", || namespaces.take(again, later));
    let processes: Vec<(Process, u64)> = namespaces.iter().map(|namespace| (namespace.process, 0)).collect();
    let fates = measured("read all tables", || tables_of(&processes));
    let read = fates.iter().filter_map(|(process, fate)| match fate {
        TableFate::Read(row) => Some((*process, row)),
        _ => None,
    });
    let rows: Vec<_> = read.collect();
    let network: usize = rows.iter().map(|(_, row)| row.mounts.len()).sum();
    println!(
        "{} tables, {network} network mounts, views {:?}",
        rows.len(),
        rows.first().map(|(p, _)| View::Container(*p))
    );
    assert!(network >= CONTAINERS * NETWORK);
    let hashes: Vec<(Process, u64)> = rows.iter().map(|(process, row)| (*process, row.hash)).collect();
    let same = measured("read all tables, none changed", || tables_of(&hashes));
    assert!(same.iter().filter(|(_, fate)| *fate == TableFate::Same).count() >= CONTAINERS);
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
}
