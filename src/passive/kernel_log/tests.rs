use proptest::prelude::*;

use super::*;

/// Records of `/dev/kmsg` as the kernel of the lab wrote them, beside such as other kernels and processes write.
const RECORDS: &str = include_str!("../../../tests/fixtures/kernel_log/records");

fn of(message: &str) -> Option<(Kind, Option<String>, Option<Dev>)> {
    line(message.as_bytes()).map(|line| (line.kind, line.server, line.dev))
}

fn server(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn a_server_that_does_not_answer_and_one_that_does_again_are_a_pair() {
    for program in ["nfs", "nfsacl", "lockd"] {
        let said = |words: &str| of(&format!("{program}: server nfs.example.com {words}"));
        let name = server("nfs.example.com");
        assert_eq!(said("not responding, still trying"), Some((Kind::NotResponding, name.clone(), None)));
        assert_eq!(said("not responding, timed out"), Some((Kind::GaveUp, name.clone(), None)));
        assert_eq!(said("OK"), Some((Kind::Answering, name, None)));
    }
}

#[test]
fn an_address_stands_without_its_brackets() {
    let said = of("nfs: server fd00::1 OK");
    assert_eq!(said, of("nfs: server [fd00::1] OK"));
    assert_eq!(said, Some((Kind::Answering, server("fd00::1"), None)));
}

#[test]
fn a_changed_fileid_names_the_superblock_in_one_message_or_in_two() {
    let dev = Some(Dev { major: 0, minor: 45 });
    let whole = "NFS: server 10.0.1.1 error: fileid changed\nfsid 0:45: expected fileid 0x2, got 0x18";
    assert_eq!(of(whole), Some((Kind::FileidChanged, server("10.0.1.1"), dev)));
    assert_eq!(line(whole.as_bytes()).unwrap().text, whole.replace('\n', " "));
    assert_eq!(of("NFS: server s error: fileid changed"), Some((Kind::FileidChanged, server("s"), None)));
    assert_eq!(of("fsid 0:45: expected fileid 0x2, got 0x18"), Some((Kind::FileidChanged, None, dev)));
}

#[test]
fn lost_state_and_lost_locks_are_told_with_their_server_where_there_is_one() {
    let failed = |name| Some((Kind::RecoveryFailed, name, None));
    let lost = |name| Some((Kind::LocksLost, name, None));
    assert_eq!(of("NFSv4: state recovery failed for open file data/db.lock, error = -116"), failed(None));
    assert_eq!(of("NFS: nfs4_reclaim_open_state: unhandled error -10026"), failed(None));
    let manager = "NFS: state manager: lease expired failed on NFSv4 server srv with error 13";
    assert_eq!(of(manager), failed(server("srv")));
    assert_eq!(of("NFS: state manager failed on NFSv4 server srv with error 5"), failed(server("srv")));
    assert_eq!(of("NFS: srv: lost 3 locks"), lost(server("srv")));
    assert_eq!(of("NFS: __nfs4_reclaim_open_state: Lock reclaim failed!"), lost(None));
}

#[test]
fn what_only_looks_alike_is_no_line() {
    for other in [
        "",
        "nfs: server ",
        "nfs: server  OK",
        "nfs: server s OKAY",
        "nfsd: server s OK",
        "rpc: server s OK",
        " nfs: server s OK",
        "NFS: Registering the id_resolver key type",
        "NFS: srv: lost many locks",
        "NFSD: all clients done reclaiming, ending NFSv4 grace period (net f0000125)",
        "fsid 0:x: expected fileid 0x2, got 0x18",
        "fsid 99999999999:1: expected fileid 0x2, got 0x18",
        "audit: nfs: server s not responding, still trying",
    ] {
        assert_eq!(line(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn only_the_kernel_is_believed() {
    let say = |priority: u32| {
        record(format!("{priority},900,5000000,-;nfs: server s not responding, still trying\n").as_bytes())
    };
    assert_eq!(say(5).map(|line| line.kind), Some(Kind::NotResponding));
    // LOG_USER: what a process wrote to the device.
    assert_eq!(say(8 + 5), None);
    assert_eq!(say(u32::MAX), None);
}

#[test]
fn a_file_name_cannot_speak_for_the_kernel() {
    let name = "6,1,2,-;NFSv4: state recovery failed for open file a\\x0anfs: server s OK, error = -116\n";
    let line = record(name.as_bytes()).unwrap();
    assert_eq!((line.kind, line.server), (Kind::RecoveryFailed, None));
    assert!(!line.text.contains('\n'));
}

#[test]
fn recorded_lines_are_read() {
    let records = RECORDS.split_inclusive('\n').filter(|line| !line.starts_with('#'));
    let kinds: Vec<_> = records.map(|line| record(line.as_bytes()).map(|line| line.kind)).collect();
    let read = |kind| kinds.iter().filter(|seen| **seen == Some(kind)).count();
    assert!(kinds.iter().any(Option::is_none), "other subsystems write too");
    assert!(Kind::ALL.iter().all(|kind| read(*kind) > 0), "{kinds:?}");
}

#[test]
fn what_is_shown_is_one_short_printable_line() {
    let long = format!("NFSv4: state recovery failed for open file {}\u{1b}[2J\u{202e}, error = -5", "x".repeat(300));
    let text = line(long.as_bytes()).unwrap().text;
    assert_eq!(text.chars().count(), TEXT_LIMIT);
    let nasty = line(b"NFSv4: state recovery failed for open file \x1b[2J\xff\xe2\x80\xae, error = -5").unwrap().text;
    assert!(nasty.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{nasty}");
    assert_eq!(of(&format!("nfs: server {} OK", "s".repeat(256))), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = (record(&bytes), line(&bytes));
    }

    #[test]
    fn a_damaged_record_never_panics(at in 0..RECORDS.len(), byte: u8, end in 0..RECORDS.len()) {
        let mut bytes = RECORDS.as_bytes().to_vec();
        bytes[at] = byte;
        bytes.truncate(end);
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if let Some(line) = record(line) {
                prop_assert!(line.text.chars().count() <= TEXT_LIMIT);
            }
        }
    }

    #[test]
    fn escapes_come_back_as_their_bytes(bytes: Vec<u8>) {
        let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        prop_assert_eq!(unescape(escaped.as_bytes()).into_owned(), bytes);
    }
}
