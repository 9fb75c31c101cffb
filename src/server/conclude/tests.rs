//! Each row of the lab's table as it was measured, and for each what must not be concluded from it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::super::examine::{NameCheck, ProxyLook};
use super::super::mountd::Exports;
use super::super::nfs::{Created, Fsid};
use super::super::rpc::Accept;
use super::super::{NfsVersion, nfs4};
use super::*;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));
const HOME: Fsid = Fsid(7, 0);
const ABOVE: Fsid = Fsid(0, 0);

fn ok<T>(answer: T) -> Option<Check<T>> {
    Some(Check { answer: Ok(answer), micros: 400 })
}

fn no<T>(failure: Failure) -> Option<Check<T>> {
    Some(Check { answer: Err(failure), micros: 400 })
}

fn says<T>(status: Status) -> Option<Check<T>> {
    no(Failure::Status(status))
}

fn directory(fileid: u64, fsid: Fsid) -> Attributes {
    Attributes { directory: true, fileid, fsid, links: None, created: None }
}

/// A way that met these and then stopped.
fn way(met: &[Attributes], components: usize, stopped: Option<Status>) -> Option<Check<nfs4::Walk>> {
    ok(Walk { met: met.to_vec(), components, stopped })
}

/// A server at which all is well.
fn well(version: NfsVersion) -> Examination {
    let (v3, v4) = match version {
        NfsVersion::V3 => (ok(()), no(Failure::NotExecuted(Accept::ProgramMismatch { low: 3, high: 3 }))),
        NfsVersion::V4 => (no(Failure::NotExecuted(Accept::ProgramMismatch { low: 4, high: 4 })), ok(())),
    };
    let v3_mount = version == NfsVersion::V3;
    let exports = Exports { count: 1, holder: Some("/srv".to_owned()), ..Exports::default() };
    Examination {
        address: Some(SocketAddr::new(ADDRESS, 2049)),
        version: Some(version),
        fileid: Some(2),
        connect: ok(()),
        privileged: Some(true),
        v3,
        v4,
        root: ok(directory(2, HOME)),
        path: if v3_mount { None } else { way(&[directory(1, ABOVE), directory(2, HOME)], 1, None) },
        grace: if v3_mount { None } else { ok(Grace::NotSeen(Status::STALE_CLIENTID)) },
        portmap: if v3_mount { ok(Some(20048)) } else { None },
        mountd: if v3_mount { ok(()) } else { None },
        exports: if v3_mount { ok(exports) } else { None },
        may_mount: if v3_mount { ok(()) } else { None },
        mountd_privileged: v3_mount.then_some(true),
        ..Examination::default()
    }
}

/// A server to which there is no connection.
fn unconnected(connect: Connect) -> Examination {
    let well = well(NfsVersion::V4);
    Examination {
        address: well.address,
        version: well.version,
        connect: no(Failure::Connect(connect)),
        ..Default::default()
    }
}

fn v3() -> Examination {
    well(NfsVersion::V3)
}

fn v4() -> Examination {
    well(NfsVersion::V4)
}

fn hung() -> Seen {
    Seen { root_hangs: true, ..Seen::new(Symptom::Hung) }
}

fn refused() -> Seen {
    Seen::new(Symptom::Refused)
}

/// A mount whose export begins one component below the server's root.
fn at_home(seen: Seen) -> Seen {
    at_depth(seen, 1)
}

fn at_depth(seen: Seen, depth: usize) -> Seen {
    Seen { baseline: Some(Baseline { root: directory(2, HOME), depth: Some(depth) }), ..seen }
}

fn unknown_here<T>() -> Option<Check<T>> {
    no(Failure::Denied(Denial::Auth(AUTH_BADCRED)))
}

#[test]
fn a_server_that_is_well_proves_nothing() {
    for examination in [v3(), v4()] {
        for symptom in ANY {
            let seen = at_home(Seen::new(*symptom));
            assert_eq!(conclude(&examination, &seen), Conclusion::default(), "{symptom:?}");
        }
    }
    assert_eq!(cause(&Examination::default(), &hung()), None, "nothing was asked");
}

#[test]
fn a_connection_that_is_not_made_says_why() {
    let cases = [
        (Connect::Timeout, Some(Cause::ServerUnreachable)),
        (Connect::Unreachable, Some(Cause::ServerUnreachable)),
        (Connect::Refused, Some(Cause::ServerRefused)),
        (Connect::Reset, None),
        (Connect::Other("no descriptors".to_owned()), None),
    ];
    for (connect, expected) in cases {
        let examination = unconnected(connect);
        assert_eq!(cause(&examination, &hung()), expected);
        assert_eq!(cause(&examination, &Seen::new(Symptom::NotMounted)), expected);
        assert_eq!(cause(&examination, &refused()), None, "the server answered with an error: it is reachable");
    }
}

#[test]
fn a_server_that_takes_calls_and_answers_none_is_unresponsive() {
    for failure in [Failure::Timeout, Failure::Closed, Failure::Reset] {
        let mute = Examination { v4: no(failure.clone()), root: None, path: None, grace: None, ..v4() };
        assert_eq!(cause(&mute, &hung()), Some(Cause::ServerUnresponsive));
        // mountd stopped: NULL is answered, nothing that touches a file is.
        let deaf = Examination { root: no(failure.clone()), path: no(failure.clone()), grace: no(failure), ..v4() };
        assert_eq!(cause(&deaf, &hung()), Some(Cause::ServerUnresponsive));
        // NFSv4.0 has no handle to ask for.
        let without_handle = Examination { root: None, ..deaf };
        assert_eq!(cause(&without_handle, &hung()), Some(Cause::ServerUnresponsive));
    }
    let garbage = Examination { v4: no(Failure::garbage("HTTP")), ..v4() };
    assert_eq!(cause(&garbage, &hung()), None, "something else has the port");
}

#[test]
fn the_grace_period_comes_before_a_stuck_client() {
    let grace = Examination { grace: ok(Grace::In), ..v4() };
    let seen = Seen { answered_while_hung: 5, ..hung() };
    assert_eq!(cause(&grace, &seen), Some(Cause::ServerRecovering));
    let by_status = Examination { root: says(Status::GRACE), grace: None, ..v4() };
    assert_eq!(cause(&by_status, &seen), Some(Cause::ServerRecovering));
    let before = Seen::new(Symptom::NotMounted);
    assert_eq!(cause(&grace, &before), None, "a new mount does not wait for it");
    let busy = Examination { root: says(Status::DELAY), ..v4() };
    assert_eq!(cause(&busy, &seen), None, "busy is not in grace");
}

#[test]
fn a_client_is_stuck_after_two_answers_for_its_own_root_and_not_before() {
    let once = conclude(&v4(), &hung());
    assert_eq!((once.cause, once.candidates), (None, vec![Cause::ClientStuck]));
    let twice = conclude(&v4(), &Seen { answered_while_hung: 1, ..hung() });
    assert_eq!((twice.cause, twice.candidates), (Some(Cause::ClientStuck), Vec::new()));
    let no_handle = Examination { root: None, fileid: None, ..v4() };
    let another = Examination { root: ok(directory(3, HOME)), ..v4() };
    for examination in [no_handle, another] {
        assert_eq!(cause(&examination, &Seen { answered_while_hung: 9, ..hung() }), None, "a NULL is not enough");
    }
    let canary = Seen { answered_while_hung: 9, ..Seen::new(Symptom::Hung) };
    assert_eq!(cause(&v4(), &canary), None, "a blocked canary is not enough");
}

#[test]
fn another_directory_behind_the_handle_is_an_invalid_handle() {
    for examination in [v3(), v4()] {
        let swapped = Examination { root: ok(directory(12, HOME)), ..examination };
        assert_eq!(cause(&swapped, &refused()), Some(Cause::HandleInvalid));
    }
    // rmsub, seen on NFSv3 in the first seconds: the server still holds the deleted directory.
    let deleted = Attributes { links: Some(0), ..directory(2, HOME) };
    assert_eq!(cause(&Examination { root: ok(deleted), ..v3() }, &refused()), Some(Cause::HandleInvalid));
}

#[test]
fn a_client_that_no_export_names_has_lost_the_export() {
    let v3 = Examination { root: unknown_here(), may_mount: says(Status::ACCES), ..v3() };
    let v4 = Examination { root: unknown_here(), path: unknown_here(), ..v4() };
    for examination in [v3, v4] {
        assert_eq!(cause(&examination, &refused()), Some(Cause::ExportGone));
    }
    let too_weak = Examination { root: no(Failure::Denied(Denial::Auth(5))), path: None, ..self::v4() };
    assert_eq!(cause(&too_weak, &refused()), None, "it wants another flavour: our rights, not the export");
    let kerberos = Seen { plain_security: false, ..refused() };
    assert_eq!(cause(&Examination { root: unknown_here(), ..self::v4() }, &kerberos), None);
}

#[test]
fn mountd_tells_a_missing_export_from_a_missing_directory() {
    let stale = |may_mount| Examination { root: says(Status::STALE), may_mount, ..v3() };
    assert_eq!(cause(&stale(says(Status::ACCES)), &refused()), Some(Cause::ExportGone));
    assert_eq!(cause(&stale(says(Status::NOENT)), &refused()), Some(Cause::HandleInvalid));
    assert_eq!(cause(&stale(ok(())), &refused()), Some(Cause::HandleInvalid));
    let from_any_port = Examination { mountd_privileged: Some(false), ..stale(says(Status::ACCES)) };
    assert_eq!(cause(&from_any_port, &refused()), None, "mountd refuses ordinary ports");
    let silent = Examination { exports: None, ..stale(no(Failure::Timeout)) };
    assert_eq!(cause(&silent, &refused()), None);
}

#[test]
fn only_a_complete_list_proves_that_an_export_is_missing() {
    let listed = |count, cut| ok(Exports { count, cut, holder: None, exports: Vec::new() });
    let stale = |exports| Examination { root: says(Status::STALE), may_mount: None, exports, ..v3() };
    assert_eq!(cause(&stale(listed(9, false)), &refused()), Some(Cause::ExportGone));
    assert_eq!(cause(&stale(listed(9, true)), &refused()), None);
    assert_eq!(cause(&stale(listed(0, false)), &refused()), None, "it may hide its list");
    let mountable = Examination { may_mount: ok(()), ..stale(listed(9, false)) };
    assert_eq!(cause(&mountable, &refused()), Some(Cause::HandleInvalid));
    let serves_all_the_same = Examination { exports: listed(9, false), ..v3() };
    assert_eq!(cause(&serves_all_the_same, &refused()), None, "the handle is good");
}

#[test]
fn the_way_to_the_path_tells_a_missing_export_from_a_missing_directory() {
    let stale = |path| Examination { root: says(Status::STALE), path, ..v4() };
    let (top, home, other) = (directory(1, ABOVE), directory(2, HOME), directory(2, Fsid(8, 0)));
    let cases = [
        // Unexported beside others: the way ends above it, or goes on into the directory that it covered.
        (1, way(&[top], 1, Some(Status::NOENT)), Some(Cause::ExportGone)),
        (1, way(&[top, directory(9, ABOVE)], 1, None), Some(Cause::ExportGone)),
        (1, way(&[top], 2, Some(Status::NOENT)), Some(Cause::ExportGone)),
        (1, way(&[top, directory(9, ABOVE)], 2, Some(Status::NOENT)), Some(Cause::ExportGone)),
        // A deleted sub-directory of an export, and one that was made again.
        (1, way(&[top, home], 2, Some(Status::NOENT)), Some(Cause::HandleInvalid)),
        (1, way(&[top, home, directory(5, HOME)], 2, None), Some(Cause::HandleInvalid)),
        // Another filesystem, exported under the same path, with the sub-directory and without.
        (1, way(&[top, other], 1, None), Some(Cause::FilesystemReplaced)),
        (1, way(&[top, other, other], 2, None), Some(Cause::FilesystemReplaced)),
        (1, way(&[top, other], 2, Some(Status::NOENT)), Some(Cause::FilesystemReplaced)),
        // The export is the root of all.
        (0, way(&[other], 0, None), Some(Cause::FilesystemReplaced)),
        (0, way(&[home], 0, None), Some(Cause::HandleInvalid)),
        // Not even the root.
        (1, says(Status::NOENT), Some(Cause::ExportGone)),
        // No right to look, or sent elsewhere: nothing proven.
        (1, way(&[top], 1, Some(Status::ACCES)), None),
        (1, way(&[top], 1, Some(Status::MOVED)), None),
        (1, says(Status::MINOR_VERS_MISMATCH), None),
    ];
    for (depth, path, expected) in cases {
        let examination = stale(path);
        assert_eq!(cause(&examination, &at_depth(refused(), depth)), expected, "{:?}", examination.path);
    }
}

#[test]
fn what_is_remembered_of_good_times_says_where_the_export_begins() {
    let (top, home) = (directory(1, ABOVE), directory(2, HOME));
    let cases = [
        (way(&[top, home], 1, None), Some(1)),
        (way(&[top, home, home], 2, None), Some(1)),
        (way(&[home], 0, None), Some(0)),
        (way(&[home, top, home, home], 3, None), Some(2)),
        (way(&[top], 1, Some(Status::NOENT)), None),
        // The path leads elsewhere than the handle: nothing to remember of it.
        (way(&[top, directory(9, ABOVE)], 1, None), None),
        (None, None),
    ];
    for (path, depth) in cases {
        let baseline = Baseline::of(&Examination { path, ..v4() }).unwrap();
        assert_eq!((baseline.root, baseline.depth), (directory(2, HOME), depth));
    }
    assert_eq!(Baseline::of(&Examination { root: ok(directory(3, HOME)), ..v4() }), None, "another than the client's");
    assert_eq!(Baseline::of(&Examination { root: says(Status::STALE), ..v4() }), None);
}

#[test]
fn without_a_memory_of_good_times_less_is_proven() {
    let stale = |path| Examination { root: says(Status::STALE), path, ..v4() };
    let (top, home) = (directory(1, ABOVE), directory(2, HOME));
    let cases = [
        (way(&[top, home], 1, None), Some(Cause::HandleInvalid)),
        (way(&[home], 0, None), Some(Cause::HandleInvalid)),
        (way(&[top], 1, Some(Status::NOENT)), None),
        (way(&[top, directory(9, ABOVE)], 1, None), None),
    ];
    for (path, expected) in cases {
        assert_eq!(cause(&stale(path), &refused()), expected);
    }
}

#[test]
fn what_lies_behind_a_good_handle_is_compared_with_good_times() {
    let emptied = Seen::new(Symptom::Emptied);
    let made = |seconds| Attributes { created: Some(Created { seconds, nanos: 0 }), ..directory(2, HOME) };
    let home = |root| Some(Baseline { root, depth: Some(1) });
    let seen = |root| Seen { baseline: home(root), ..emptied.clone() };
    let now = |root| Examination { root: ok(root), ..v4() };
    assert_eq!(cause(&now(directory(2, Fsid(8, 0))), &at_home(emptied.clone())), Some(Cause::FilesystemReplaced));
    assert_eq!(cause(&now(made(2)), &seen(made(1))), Some(Cause::FilesystemReplaced));
    assert_eq!(cause(&now(made(1)), &seen(made(1))), None);
    assert_eq!(cause(&now(made(1)), &at_home(emptied.clone())), None, "the server may have learned to say it");
    assert_eq!(cause(&now(directory(2, Fsid(8, 0))), &emptied), None, "nothing to compare with");
    let while_it_answers = conclude(&now(made(2)), &Seen { baseline: home(made(1)), ..hung() });
    assert!(while_it_answers.candidates.contains(&Cause::FilesystemReplaced) && while_it_answers.cause.is_none());
}

fn name(resolution: Resolution) -> Option<NameCheck> {
    Some(NameCheck { name: "nfs.example".to_owned(), resolution, micros: 400 })
}

#[test]
fn a_name_matters_before_the_mount_and_moves_only_as_a_candidate() {
    let elsewhere = || Resolution::Found { addresses: vec![Ipv4Addr::new(10, 0, 1, 9).into()], more: 0 };
    let moved = Examination { name: name(elsewhere()), ..unconnected(Connect::Timeout) };
    let conclusion = conclude(&moved, &hung());
    assert_eq!(
        (conclusion.cause, conclusion.candidates),
        (Some(Cause::ServerUnreachable), vec![Cause::AddressChanged])
    );
    for resolution in [Resolution::Gone, Resolution::NoAnswer, Resolution::Timeout] {
        let nowhere = Examination { name: name(resolution.clone()), ..Examination::default() };
        assert_eq!(cause(&nowhere, &Seen::new(Symptom::NotMounted)), Some(Cause::DnsFailed));
        let mounted = Examination { name: name(resolution), ..unconnected(Connect::Timeout) };
        let conclusion = conclude(&mounted, &hung());
        assert_eq!((conclusion.cause, conclusion.candidates), (Some(Cause::ServerUnreachable), Vec::new()));
    }
    let not_asked = Resolution::NotAsked("4 lookups are still waiting".to_owned());
    let unknown = Examination { name: name(not_asked), ..Examination::default() };
    assert_eq!(cause(&unknown, &Seen::new(Symptom::NotMounted)), None, "nobody was asked");
}

#[test]
fn what_cannot_be_mounted_says_why() {
    let seen = Seen::new(Symptom::NotMounted);
    let cases = [
        (Examination { may_mount: says(Status::ACCES), root: None, ..v3() }, Cause::ExportGone),
        (Examination { may_mount: says(Status::NOENT), root: None, ..v3() }, Cause::ExportGone),
        (Examination { mountd: no(Failure::Timeout), root: None, ..v3() }, Cause::ServerUnresponsive),
        (Examination { mountd: no(Failure::Connect(Connect::Refused)), root: None, ..v3() }, Cause::ServerRefused),
        (Examination { path: unknown_here(), root: None, ..v4() }, Cause::ExportGone),
        (
            Examination { path: way(&[directory(1, ABOVE)], 1, Some(Status::NOENT)), root: None, ..v4() },
            Cause::ExportGone,
        ),
    ];
    for (examination, expected) in cases {
        assert_eq!(cause(&examination, &seen), Some(expected));
    }
}

#[test]
fn a_dead_proxy_is_told_from_what_is_behind_a_living_one() {
    let proxy = |process, connect| Some(ProxyLook { process, name: None, connect: no(Failure::Connect(connect)) });
    let alive = || ProxyProcess::Alive("efs-proxy".to_owned());
    let closes = || Examination { v4: no(Failure::Closed), root: None, path: None, grace: None, ..v4() };
    let cases = [
        (
            Examination { proxy: proxy(ProxyProcess::Gone, Connect::Timeout), ..unconnected(Connect::Refused) },
            Some(Cause::ProxyDead),
        ),
        (
            Examination { proxy: proxy(ProxyProcess::Unknown, Connect::Timeout), ..unconnected(Connect::Refused) },
            Some(Cause::ProxyDead),
        ),
        (
            Examination { proxy: proxy(ProxyProcess::Reused("sh".to_owned()), Connect::Timeout), ..closes() },
            Some(Cause::ProxyDead),
        ),
        (Examination { proxy: proxy(alive(), Connect::Timeout), ..closes() }, Some(Cause::ServerUnreachable)),
        (Examination { proxy: proxy(alive(), Connect::Refused), ..closes() }, Some(Cause::ServerRefused)),
        (Examination { proxy: Some(ProxyLook { process: alive(), name: None, connect: None }), ..closes() }, None),
        (Examination { proxy: Some(ProxyLook { process: alive(), name: None, connect: ok(()) }), ..closes() }, None),
    ];
    for (examination, expected) in cases {
        assert_eq!(cause(&examination, &hung()), expected, "{:?}", examination.proxy);
    }
    // A process that was replaced by another one (efs-utils restarts it) and answers is alive, whatever the file says.
    let restarted = Examination { proxy: proxy(ProxyProcess::Gone, Connect::Timeout), ..v4() };
    assert_eq!(cause(&restarted, &hung()), None);
}

#[test]
fn the_page_has_a_row_for_every_rule() {
    let table = markdown();
    for rule in RULES.iter().chain(CANDIDATES) {
        assert!(table.contains(&format!("| `{}` | {} |", rule.cause, rule.why)), "{}", rule.why);
    }
    for cause in [Cause::ProxyDead, Cause::ServerRecovering, Cause::ClientStuck, Cause::ExportGone, Cause::DnsFailed] {
        assert!(table.contains(&format!("`{cause}`")), "{cause}");
    }
}

#[test]
fn an_examination_can_be_written_down_and_judged_again() {
    for examination in [v3(), v4(), unconnected(Connect::Timeout)] {
        let text = serde_json::to_string(&examination).unwrap();
        assert_eq!(serde_json::from_str::<Examination>(&text).unwrap(), examination);
    }
}

proptest! {
    // Whatever a server says about the path: without a refused root nothing is said of exports and handles.
    #[test]
    fn a_good_handle_is_never_called_invalid(fsids in proptest::collection::vec(0_u64..3, 1..5), components in 0_usize..5) {
        let met: Vec<Attributes> = fsids.iter().map(|fsid| directory(2, Fsid(*fsid, 0))).collect();
        let examination = Examination { path: way(&met, components, None), ..v4() };
        prop_assert_eq!(cause(&examination, &at_home(refused())), None);
    }
}
