use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};

use super::super::registry;
use super::*;
use crate::config::Config;
use crate::mounts::filter::Filter;
use crate::mounts::{View, mountinfo};
use crate::probe::image::Image;
use crate::probe::pool::{Limits, Pool};
use crate::probe::schedule::{Due, Ended};

/// A device of our own: like the kernel's it gives one record per read.
fn device() -> (OwnedFd, KernelLog) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (theirs, ours) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    (theirs, KernelLog::of(File::from(ours)).unwrap())
}

fn write(device: &OwnedFd, record: &[u8]) {
    assert_eq!(send(device.as_raw_fd(), record, MsgFlags::empty()), Ok(record.len()));
}

#[tokio::test(start_paused = true)]
async fn records_come_as_lines_and_others_are_passed_over() {
    let (device, mut log) = device();
    write(&device, b"6,1,10,-;eth0: link up\n SUBSYSTEM=net\n");
    write(&device, b"5,2,20,-;nfs: server a not responding, still trying\n");
    write(&device, &[b'x'; RECORD + 10]);
    write(&device, b"5,3,30,-;nfs: server a OK\n");
    let news = log.news().await;
    let kinds: Vec<_> = news.lines.iter().map(|line| line.kind).collect();
    assert_eq!((kinds, news.lost), (vec![Kind::NotResponding, Kind::Answering], 0));
    write(&device, b"5,4,40,-;nfs: server b OK\n");
    assert_eq!(log.news().await.lines.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_ends_is_silent_from_then_on() {
    let (device, mut log) = device();
    write(&device, b"5,2,20,-;nfs: server a OK\n");
    drop(device);
    let last = log.news().await;
    assert_eq!((last.lines.len(), last.closed), (1, true));
    assert!(tokio::time::timeout(Duration::from_secs(3600), log.news()).await.is_err());
    assert!(matches!(log.source, Source::Closed));
}

#[test]
fn the_book_forgets_the_oldest_server_and_what_nobody_takes_back() {
    let line = |kind| Line { kind, server: None, dev: None, text: "words".to_owned() };
    let seconds = Duration::from_secs;
    let mut book = Book::default();
    for index in 0..=SERVERS {
        book.note(&index.to_string(), &line(Kind::NotResponding), seconds(u64::try_from(index).unwrap()));
    }
    assert_eq!((book.said.len(), book.about("0", seconds(1000))), (SERVERS, None));
    let hours = seconds(7200);
    assert_eq!(book.about("1", hours).map(|words| words.age_millis), Some(7_199_000));
    book.note("1", &line(Kind::GaveUp), seconds(1));
    assert_eq!(book.about("1", hours), None);
    assert!(book.about("1", seconds(300)).is_some());
}

/// Two mounts of one server, one of another, one through a local proxy; each with a superblock of its own.
const TABLE: &str = "\
40 1 0:51 / /mnt/a rw - nfs4 srv:/a rw,vers=4.1,hard,addr=10.0.0.1
41 1 0:52 / /mnt/b rw - nfs4 srv:/b rw,vers=4.1,hard,addr=10.0.0.1
42 1 0:53 / /mnt/c rw - nfs 10.0.0.2:/c rw,vers=3,soft,addr=10.0.0.2
43 1 0:54 / /mnt/d rw - nfs4 127.0.0.1:/ rw,vers=4.1,hard,port=20049,addr=127.0.0.1
";

/// A loop that has just probed the targets of [`TABLE`]; all of them answered.
fn core() -> Core {
    let pool = Pool::new(Image::of_this_binary().unwrap(), Limits { warm: 1, max: 4, per_owner: 4 });
    let mut core = Core::new(Config::default(), Filter::default(), pool, "node".to_owned(), false);
    let parsed = mountinfo::parse(TABLE.as_bytes(), View::Own);
    let changes = core.registry.update(&registry::watched(&parsed.mounts, &core.filter));
    for newcomer in &changes.to_identify {
        let id = core.registry.identified(newcomer, None, 0.0).unwrap();
        let dev = core.registry.targets[&id].dev;
        core.schedule.add(id, dev, "", true, Now::ZERO);
        core.schedule.take_due(core.config.interval);
        core.schedule.ended(id, dev, Ended::Answered, core.config.interval);
    }
    assert_eq!(core.registry.targets.len(), 4);
    core
}

fn say(core: &mut Core, messages: &[&str]) {
    let line = |message: &&str| crate::passive::kernel_log::line(message.as_bytes()).unwrap();
    core.take_kernel_news(News { lines: messages.iter().map(line).collect(), lost: 0, closed: false });
}

/// Mountpoints of what is due now.
fn due(core: &mut Core) -> Vec<String> {
    let now = core.now();
    let due = core.schedule.take_due(now);
    let mut paths: Vec<String> = due
        .iter()
        .map(|due| match due {
            Due::Probe(id) | Due::Inherit(id, _) => core.registry.targets[id].labels.mountpoint.clone(),
        })
        .collect();
    paths.sort();
    paths
}

fn at<'core>(core: &'core Core, mountpoint: &str) -> &'core Target {
    core.registry.targets.values().find(|target| target.labels.mountpoint == mountpoint).unwrap()
}

#[tokio::test]
async fn a_server_that_does_not_answer_makes_its_targets_due_and_no_others() {
    let mut core = core();
    assert!(due(&mut core).is_empty());
    say(
        &mut core,
        &["nfs: server srv not responding, still trying", "nfs: server elsewhere not responding, still trying"],
    );
    assert_eq!(due(&mut core), ["/mnt/a", "/mnt/b"]);
    assert_eq!(core.kernel_log.said.len(), 1, "servers that nothing is mounted from take no memory");
    assert_eq!(core.stats.kernel_log_lines["not_responding"], 2);
    let said = words(&core.kernel_log, at(&core, "/mnt/a"), core.now()).unwrap();
    assert_eq!(said.line, "nfs: server srv not responding, still trying");
    assert_eq!(words(&core.kernel_log, at(&core, "/mnt/c"), core.now()), None);
}

#[tokio::test]
async fn a_kernel_that_repeats_itself_makes_nothing_due_twice() {
    let mut core = core();
    say(&mut core, &["nfs: server srv not responding, still trying"]);
    for (id, dev) in core.registry.targets.values().map(|target| (target.id, target.dev)).collect::<Vec<_>>() {
        core.schedule.take_due(core.start.elapsed());
        core.schedule.ended(id, dev, Ended::Answered, core.start.elapsed());
    }
    say(&mut core, &["nfs: server srv not responding, still trying"; 500]);
    assert!(due(&mut core).is_empty());
}

#[tokio::test]
async fn an_answer_ends_the_back_off_and_takes_the_line_back() {
    let mut core = core();
    say(&mut core, &["nfs: server 10.0.0.2 not responding, still trying"]);
    let (id, dev) = (at(&core, "/mnt/c").id, at(&core, "/mnt/c").dev);
    assert_eq!(due(&mut core), ["/mnt/c"]);
    let now = core.now();
    core.schedule.ended(id, dev, Ended::Blocked, now);
    core.schedule.reaped(dev, now);
    assert!(core.schedule.backoff(id).is_some() && due(&mut core).is_empty());
    say(&mut core, &["nfs: server 10.0.0.2 OK"]);
    assert_eq!(due(&mut core), ["/mnt/c"]);
    assert_eq!(words(&core.kernel_log, at(&core, "/mnt/c"), core.now()), None);
}

#[tokio::test]
async fn a_changed_fileid_hurries_its_superblock_alone() {
    let mut core = core();
    say(&mut core, &["NFS: server srv error: fileid changed\nfsid 0:52: expected fileid 0x2, got 0x18"]);
    assert_eq!(due(&mut core), ["/mnt/b"]);
    assert!(at(&core, "/mnt/b").fileid_changed && !at(&core, "/mnt/a").fileid_changed);
}

#[tokio::test]
async fn a_line_about_a_local_proxy_hurries_and_explains_nothing() {
    let mut core = core();
    say(&mut core, &["nfs: server 127.0.0.1 not responding, still trying"]);
    assert_eq!(due(&mut core), ["/mnt/d"]);
    assert_eq!(words(&core.kernel_log, at(&core, "/mnt/d"), core.now()), None);
}

#[tokio::test]
async fn a_line_without_a_server_is_counted_and_makes_nothing_due() {
    let mut core = core();
    say(&mut core, &["NFSv4: state recovery failed for open file f, error = -116"]);
    assert!(due(&mut core).is_empty());
    assert_eq!(core.stats.kernel_log_lines["recovery_failed"], 1);
}
