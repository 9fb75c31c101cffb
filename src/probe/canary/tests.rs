//! The pieces of a canary on a scratch directory. Whole canaries on real filesystems: tests/canary.rs.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::canary::record::{SIZE, id_of};

fn open(directory: &Path) -> OwnedFd {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    rustix::fs::open(directory, flags, rustix::fs::Mode::empty()).unwrap()
}

fn id(node: &str) -> String {
    id_of(b"machine", node)
}

fn record(node: &str, seq: u64) -> Record {
    Record { id: id(node), node: node.to_owned(), boot: "boot".to_owned(), seq, interval: 75 }
}

fn put(directory: &Path, node: &str, seq: u64, age: Duration) {
    let path = directory.join(id(node));
    std::fs::write(&path, record(node, seq).encode()).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

fn now_micros() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros().try_into().unwrap()
}

/// One look of `node` at the records of all others.
fn look(directory: &Path, node: &str, wanted: &peers::Wanted<'_>) -> (peers::Sample, usize) {
    let opened = open(directory);
    let own_id = id(node);
    let around = peers::Around { directory: opened.as_fd(), own_id: &own_id, own_time: now_micros() };
    let entered = std::cell::Cell::new(0);
    let count = || {
        entered.set(entered.get() + 1);
        Ok(())
    };
    (peers::look(&around, wanted, &count).unwrap(), entered.get())
}

const SAMPLE: peers::Wanted<'static> = peers::Wanted { sample: 4, cursor: 0, ask: &[] };

#[test]
fn another_whole_record_of_this_node_is_no_corruption_and_anything_else_differs() {
    let written = record("a", 9);
    let block = written.encode();
    assert_eq!(compare(&block, &block, &written), CanaryEnd::Good);
    assert_eq!(compare(&block, &record("a", 8).encode(), &written), CanaryEnd::Late);
    let by_another = Record { interval: 1, ..record("a", 9) };
    for record in [by_another, record("a", 10)] {
        assert_eq!(compare(&block, &record.encode(), &written), CanaryEnd::Late, "`diagnose --write` meanwhile");
    }
    assert_eq!(compare(&block, &record("b", 8).encode(), &written), CanaryEnd::Differs);
    assert_eq!(compare(&block, &block[..100], &written), CanaryEnd::Differs);
    assert_eq!(compare(&block, b"", &written), CanaryEnd::Differs);
}

#[test]
fn only_what_we_left_is_opened() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = open(scratch.path());
    let refused = |name: &str| file::open(directory.as_fd(), name).unwrap().err();
    let path = |name: &str| scratch.path().join(name);
    std::fs::write(path("victim"), "data").unwrap();
    symlink("victim", path("link")).unwrap();
    assert_eq!(refused("link"), Some(Refusal::FileKind));
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(refused("fifo"), Some(Refusal::FileKind));
    std::fs::create_dir(path("directory")).unwrap();
    assert_eq!(refused("directory"), Some(Refusal::FileKind));
    std::fs::hard_link(path("victim"), path("hard")).unwrap();
    assert_eq!(refused("hard"), Some(Refusal::Links));
    std::fs::File::create(path("huge")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(refused("huge"), Some(Refusal::Size));
    assert!(file::open(directory.as_fd(), "fresh").unwrap().is_ok(), "one that is missing is made");
    assert_eq!(refused("../outside"), Some(Refusal::FileKind));
    assert_eq!(std::fs::read(path("victim")).unwrap(), b"data");
}

#[test]
fn a_record_is_written_read_back_and_leaves_no_second_block() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = open(scratch.path());
    let mut opened = file::open(directory.as_fd(), "x").unwrap().ok().unwrap();
    let block = record("a", 1).encode();
    assert_eq!(opened.read().unwrap(), Contents::Blank);
    opened.write(&block).unwrap();
    opened.commit().unwrap();
    assert_eq!(opened.read_back(directory.as_fd(), "x").unwrap(), block);
    opened.take_room().unwrap();
    assert_eq!(std::fs::read(scratch.path().join("x")).unwrap(), block);
    assert!(now_micros().abs_diff(opened.written().unwrap()) < 60_000_000);
}

#[test]
fn a_directory_of_ours_is_no_symlink_and_an_empty_root_is_seen() {
    let scratch = tempfile::tempdir().unwrap();
    let root = open(scratch.path());
    assert!(root::otherwise_empty(root.as_fd()).unwrap());
    symlink("/tmp", scratch.path().join(DIRECTORY)).unwrap();
    assert!(root::open_directory(root.as_fd()).is_err());
    assert!(root::make_directory(root.as_fd()).is_err());
    std::fs::remove_file(scratch.path().join(DIRECTORY)).unwrap();
    let ours = root::make_directory(root.as_fd()).unwrap();
    assert!(root::otherwise_empty(root.as_fd()).unwrap(), "our own directory does not count");
    std::fs::write(scratch.path().join("data"), "x").unwrap();
    assert!(!root::otherwise_empty(root.as_fd()).unwrap());
    std::fs::write(scratch.path().join(DIRECTORY).join(id("a")), "x").unwrap();
    std::fs::write(scratch.path().join(DIRECTORY).join(id("b")), "x").unwrap();
    root::retire(root.as_fd(), ours.as_fd(), &id("a")).unwrap();
    assert!(scratch.path().join(DIRECTORY).exists(), "another node still has its file there");
    root::retire(root.as_fd(), ours.as_fd(), &id("b")).unwrap();
    assert!(!scratch.path().join(DIRECTORY).exists());
}

#[test]
fn entries_that_the_ids_cannot_pass_are_counted() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, mode) in [("open", 0o644), ("closed", 0o600), ("also", 0o000)] {
        std::fs::write(scratch.path().join(name), "x").unwrap();
        std::fs::set_permissions(scratch.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("nowhere", scratch.path().join("link")).unwrap();
    let stranger: Ids = "uid=54321".parse().unwrap();
    let entries = entries::sample(open(scratch.path()).as_fd(), &[&stranger], &[], 7).unwrap();
    assert_eq!((entries.looked, entries.closed), (3, 2));
    assert_ne!(entries.example, b"open");
}

#[test]
fn the_sample_is_bounded_and_comes_around_to_everybody() {
    let cost = |nodes: usize| {
        let scratch = tempfile::tempdir().unwrap();
        (0..nodes).for_each(|node| put(scratch.path(), &format!("n{node}"), 1, Duration::ZERO));
        let mut seen = std::collections::BTreeSet::new();
        let (mut cursor, mut rounds, mut most) = (0, 0, 0);
        while seen.len() < nodes {
            let (sample, entered) = look(scratch.path(), "me", &peers::Wanted { cursor, ..SAMPLE });
            assert!(sample.looks.len() <= SAMPLE.sample);
            cursor = sample.cursor;
            most = most.max(entered);
            seen.extend(sample.looks.into_iter().map(|look| look.id));
            rounds += 1;
            assert!(rounds < 200, "{} of {nodes} seen", seen.len());
        }
        most
    };
    assert_eq!(cost(5), cost(50), "what a round does is the same with ten times the nodes");
    assert!(cost(2) < cost(5));
}

#[test]
fn hostile_records_cost_a_counter_only() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |node: &str| scratch.path().join(id(node));
    put(scratch.path(), "good", 3, Duration::ZERO);
    std::fs::write(path("nonsense"), "nonsense").unwrap();
    std::fs::write(path("other"), record("good", 3).encode()).unwrap();
    std::fs::File::create(path("huge")).unwrap().set_len(1 << 40).unwrap();
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink("/etc/passwd", path("link")).unwrap();
    std::fs::write(scratch.path().join("README"), "no node's name").unwrap();
    let (sample, _) = look(scratch.path(), "me", &peers::Wanted { sample: 50, ..SAMPLE });
    assert_eq!(sample.looks.iter().map(|look| look.node.as_str()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(sample.refused, 5);
}

#[test]
fn who_is_asked_for_is_looked_at_beside_the_sample_and_never_twice() {
    let scratch = tempfile::tempdir().unwrap();
    (0..20).for_each(|node| put(scratch.path(), &format!("n{node}"), 1, Duration::ZERO));
    let ask = [id("n3"), id("n3"), id("nobody"), "../../etc/passwd".to_owned()];
    let (sample, _) = look(scratch.path(), "me", &peers::Wanted { ask: &ask, ..SAMPLE });
    let hits = sample.looks.iter().filter(|look| look.id == id("n3")).count();
    assert_eq!(hits, 1);
    assert!(sample.looks.len() <= SAMPLE.sample + 1);
}

const DAYS: Duration = Duration::from_secs(24 * 3600);

/// Makes all marks older, as by the passing of time.
fn age_marks(directory: &Path, age: Duration) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().contains(".gone") {
            let file = std::fs::File::options().write(true).open(entry.path()).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
    }
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_record_of_a_node_long_gone_goes_when_two_nodes_agree_over_a_day() {
    let scratch = tempfile::tempdir().unwrap();
    put(scratch.path(), "gone", 7, 8 * DAYS);
    let collected = |node: &str| look(scratch.path(), node, &SAMPLE).0.collected;
    assert_eq!([collected("a"), collected("a"), collected("a")], [0; 3], "one node alone never removes anything");
    age_marks(scratch.path(), 2 * DAYS);
    assert_eq!([collected("a"), collected("b"), collected("b")], [0; 3], "the second mark is too young");
    age_marks(scratch.path(), 2 * DAYS);
    assert_eq!(collected("c"), 1);
    assert_eq!(files(scratch.path()), 0, "the marks go with it");
}

#[test]
fn a_node_that_comes_back_is_not_collected() {
    let scratch = tempfile::tempdir().unwrap();
    put(scratch.path(), "away", 7, 8 * DAYS);
    let collected = |node: &str| look(scratch.path(), node, &SAMPLE).0.collected;
    collected("a");
    age_marks(scratch.path(), 2 * DAYS);
    collected("b");
    age_marks(scratch.path(), 2 * DAYS);
    put(scratch.path(), "away", 8, Duration::ZERO);
    assert_eq!(collected("a"), 0, "it is young again");
    put(scratch.path(), "away", 8, 9 * DAYS);
    assert_eq!([collected("a"), collected("b")], [0, 0], "the marks are about an older record");
    assert!(scratch.path().join(id("away")).exists());
}

#[test]
fn a_young_record_is_marked_by_nobody() {
    let scratch = tempfile::tempdir().unwrap();
    put(scratch.path(), "slow", 7, 6 * DAYS);
    look(scratch.path(), "a", &SAMPLE);
    assert_eq!(files(scratch.path()), 1);
    assert_eq!(std::fs::metadata(scratch.path().join(id("slow"))).unwrap().len(), SIZE as u64);
}

#[test]
fn a_container_is_closed_out_where_none_of_its_processes_can_pass() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    for (name, mode, owner) in [("open", 0o755, 0), ("private", 0o700, 999), ("root", 0o700, 0)] {
        std::fs::create_dir(scratch.path().join(name)).unwrap();
        std::fs::set_permissions(scratch.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(scratch.path().join(name), Some(owner), Some(owner)).unwrap();
    }
    let user = |name: &str, ids: &[&str]| EntryUser {
        name: name.to_owned(),
        ids: ids.iter().map(|ids| ids.parse().unwrap()).collect(),
    };
    let users = [
        user("shop/web (app)", &["uid=1000", "uid=1001"]),
        user("shop/db (app)", &["uid=999"]),
        user("shop/proxy (app)", &["uid=0", "uid=101"]),
    ];
    let entries = entries::sample(open(scratch.path()).as_fd(), &[], &users, 0).unwrap();
    assert_eq!((entries.looked, entries.closed), (3, 0), "nobody is configured");
    let closed: Vec<(&str, usize)> = entries.users.iter().map(|user| (user.name.as_str(), user.closed)).collect();
    assert_eq!(closed, [("shop/web (app)", 2)], "that one of three is another's is in order");
    assert!([&b"private"[..], b"root"].contains(&&*entries.users[0].example));
}
