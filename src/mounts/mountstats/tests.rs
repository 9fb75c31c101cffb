use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;

use super::*;

/// Made in User-Mode Linux 6.1 against a kernel server: nconnect=3, v3, v4.0, v4.1, v4.2 and a bind of a directory.
const REAL: &[u8] = include_bytes!("../../../tests/fixtures/mountstats/linux-6.1-uml");
/// Rows of other kernels and transports, and rows that no kernel prints.
const STRANGE: &[u8] = include_bytes!("../../../tests/fixtures/mountstats/strange");

fn at<'a>(stats: &'a MountStats, mountpoint: &[u8]) -> &'a NfsStats {
    stats.nfs.iter().find(|mount| mount.mountpoint.as_bytes() == mountpoint).unwrap()
}

#[test]
fn a_real_file_is_read_without_a_bad_line() {
    let stats = parse(REAL);
    assert_eq!(stats.bad_lines, 0);
    let names: Vec<_> = stats.nfs.iter().map(|mount| mount.mountpoint.to_str().unwrap()).collect();
    assert_eq!(names, ["/tmp/c/nc", "/tmp/c/v3", "/tmp/c/v40", "/tmp/c/v41", "/tmp/c/v42", "/tmp/c/with space"]);
    for mount in &stats.nfs {
        assert_eq!((mount.statvers.as_str(), mount.events.len()), ("1.1", 27));
        assert!(mount.ops.len() > 20 && mount.ops.iter().all(|op| op.errors.is_some()), "{:?}", mount.mountpoint);
        assert_eq!(mount.lease_expired, (mount.fstype == "nfs4").then_some(0));
    }
}

#[test]
fn a_mount_of_the_real_file_is_read_in_full() {
    let stats = parse(REAL);
    let mount = at(&stats, b"/tmp/c/v3");
    assert_eq!((mount.source.to_str(), mount.fstype.as_str()), (Some("10.0.1.1:/tmp/exp"), "nfs"));
    let transport = &mount.transports[0];
    assert_eq!((transport.proto.as_str(), transport.port, transport.idle_seconds), ("tcp", 948, 1));
    assert_eq!(mount.counters(), TransportCounters { connects: 2, sends: 20, recvs: 20 });
    let bytes = mount.bytes.unwrap();
    assert_eq!((bytes.normal_read, bytes.normal_written, bytes.server_read, bytes.read_pages), (3, 2, 3, 1));
}

#[test]
fn every_connection_of_nconnect_counts() {
    let stats = parse(REAL);
    let mount = at(&stats, b"/tmp/c/nc");
    assert_eq!(mount.transports.len(), 3);
    assert_eq!(mount.counters(), TransportCounters { connects: 6, sends: 45, recvs: 45 });
}

#[test]
fn every_operation_has_all_its_columns() {
    let stats = parse(STRANGE);
    let expected = Op {
        name: "GETATTR".to_owned(),
        ops: 10,
        transmissions: 12,
        timeouts: 1,
        bytes_sent: 2320,
        bytes_recv: 1920,
        queue_ms: 5,
        rtt_ms: 40,
        execute_ms: 47,
        errors: Some(3),
    };
    let mount = at(&stats, b"/mnt/new\nline \xff");
    assert_eq!(mount.op("GETATTR"), Some(&expected));
    let names: Vec<_> = mount.ops.iter().map(|op| op.name.as_str()).collect();
    assert_eq!(names, ["NULL", "GETATTR", "77"], "rows that are too short or no numbers are left out");
    assert_eq!(at(&stats, b"/mnt/old").op("GETATTR").unwrap().errors, None, "kernels before 5.3 count no errors");
}

#[test]
fn each_protocol_has_its_own_columns() {
    let stats = parse(STRANGE);
    let rows: Vec<_> = at(&stats, b"/mnt/new\nline \xff")
        .transports
        .iter()
        .map(|t| (t.proto.as_str(), t.port, t.connect_count, t.idle_seconds, t.sends, t.recvs, t.bad_xids))
        .collect();
    let expected = [
        ("rdma", 0, 3, 0, 100, 99, 2),
        ("tcp", 853, 7, 12, 200, 190, 1),
        ("local", 0, 4, 5, 30, 30, 0),
        ("udp", 700, 0, 0, 40, 39, 0),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn names_of_any_bytes_and_an_expired_lease_are_read() {
    let stats = parse(STRANGE);
    let mount = at(&stats, b"/mnt/new\nline \xff");
    assert_eq!(mount.source.as_bytes(), b"fs.example.org:/caf\xe9");
    assert_eq!((mount.age_seconds, mount.lease_expired, mount.events.len()), (86400, Some(37), 4));
}

#[test]
fn what_cannot_be_read_is_counted_and_the_rest_is_kept() {
    let stats = parse(STRANGE);
    assert_eq!(stats.nfs.len(), 3);
    let new = at(&stats, b"/mnt/new");
    assert_eq!((new.statvers.as_str(), new.age_seconds, new.recvs()), ("9.0", 0, 21));
    // An unknown transport, a short one, two bad operations, an unknown version, an age in words, a cut device line.
    assert_eq!(stats.bad_lines, 7);
}

#[test]
fn sums_cross_a_process_boundary_in_a_few_bytes() {
    let counters = at(&parse(STRANGE), b"/mnt/new\nline \xff").counters();
    assert_eq!(counters, TransportCounters { connects: 14, sends: 370, recvs: 358 });
    let bytes = postcard::to_stdvec(&counters).unwrap();
    assert!(bytes.len() <= 5);
    assert_eq!(postcard::from_bytes::<TransportCounters>(&bytes).unwrap(), counters);
}

#[test]
fn sums_do_not_overflow() {
    let line = format!(
        "device s:/ mounted on /m with fstype nfs statvers=1.1\n{}",
        "\txprt:\tudp 1 1 18446744073709551615 1 1\n".repeat(2)
    );
    assert_eq!(parse(line.as_bytes()).nfs[0].sends(), u64::MAX);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }

    #[test]
    fn a_damaged_file_never_panics(at in 0..STRANGE.len(), byte: u8, end in 0..STRANGE.len()) {
        let mut bytes = STRANGE.to_vec();
        bytes[at] = byte;
        bytes.truncate(end);
        prop_assert!(parse(&bytes).nfs.len() <= 4);
    }
}
