use std::net::SocketAddr;

use super::*;
use crate::server::NfsVersion;
use crate::server::dns::Resolution;
use crate::server::examine::{Check, NameCheck};
use crate::server::link::Failure;
use crate::server::nfs::{Attributes, Fsid, Status};
use crate::server::nfs4::Walk;
use crate::server::{Connect, rpc};

fn address() -> SocketAddr {
    "10.0.0.5:2049".parse().unwrap()
}

fn facts() -> Facts<'static> {
    Facts { server: "srv", export: "/data", address: Some(address()), efs: false }
}

fn said<T>(answer: Result<T, Failure>) -> Option<Check<T>> {
    Some(Check { answer, micros: 5 })
}

fn connected(version: NfsVersion) -> Examination {
    Examination {
        address: Some(address()),
        version: Some(version),
        connect: said(Ok(())),
        privileged: Some(true),
        ..Examination::default()
    }
}

fn no_such_version() -> Failure {
    Failure::NotExecuted(rpc::Accept::ProgramMismatch { low: 3, high: 3 })
}

/// NFSv4 is served and the path leads so far.
fn v4(stopped: Option<Status>) -> Examination {
    let root = Attributes { directory: true, fileid: 2, fsid: Fsid(0, 0), links: None, created: None };
    let data = Attributes { fileid: 9, fsid: Fsid(1, 1), ..root };
    let met = if stopped.is_some() { vec![root] } else { vec![root, data] };
    let walk = Walk { met, components: 1, stopped };
    Examination {
        v3: said(Err(no_such_version())),
        v4: said(Ok(())),
        path: said(Ok(walk)),
        ..connected(NfsVersion::V4)
    }
}

fn v3(right: Result<(), Failure>) -> Examination {
    Examination {
        v3: said(Ok(())),
        v4: said(Err(no_such_version())),
        mountd: said(Ok(())),
        may_mount: said(right),
        mountd_privileged: Some(true),
        ..connected(NfsVersion::V3)
    }
}

fn ended(v4: Option<Examination>, v3: Option<Examination>, trial: Trial, list: &str) -> Verdict {
    let options = MountOptions::parse(list).unwrap();
    judge(&Answers { v4, v3, dead_addresses: Vec::new(), trial, options: &options }, &facts())
}

fn not_made() -> Trial {
    Trial::NotMade("--no-mount".to_owned())
}

fn refused(errno: i32) -> Trial {
    Trial::Refused { errno, words: "no".to_owned(), by_server: true }
}

#[test]
fn a_trial_that_works_is_the_end_of_doubt() {
    let wrong = v4(Some(Status::NOENT));
    let verdict = ended(Some(wrong), None, Trial::Mounted("mounted with NFS 3: it is empty".to_owned()), "");
    assert_eq!((verdict.result, verdict.cause), (Severity::Healthy, None));
    assert!(
        verdict.summary.contains("/data can be mounted from this host now (mounted with NFS 3"),
        "{}",
        verdict.summary
    );
}

#[test]
fn a_dead_address_beside_a_good_one_is_no_good_end() {
    let options = MountOptions::parse("").unwrap();
    let trial = Trial::Mounted(String::new());
    let dead_addresses = vec!["10.0.0.6".parse().unwrap()];
    let verdict = judge(&Answers { v4: Some(v4(None)), v3: None, dead_addresses, trial, options: &options }, &facts());
    assert_eq!(verdict.result, Severity::Degraded);
    assert!(verdict.summary.contains("10.0.0.6") && verdict.todo[0].contains("DNS"));
}

#[test]
fn each_kind_of_silence_has_its_cause() {
    let cases = [
        (Connect::Timeout, Cause::ServerUnreachable),
        (Connect::Unreachable, Cause::ServerUnreachable),
        (Connect::Refused, Cause::ServerRefused),
    ];
    for (connect, cause) in cases {
        let found = Examination { connect: said(Err(Failure::Connect(connect))), ..connected(NfsVersion::V4) };
        let verdict = ended(Some(found), None, not_made(), "");
        assert_eq!((verdict.result, verdict.cause), (Severity::Dead, Some(cause)));
        assert!(verdict.summary.contains("10.0.0.5 port 2049"), "{}", verdict.summary);
    }
    let mute = Examination { v4: said(Err(Failure::Timeout)), ..connected(NfsVersion::V4) };
    assert_eq!(ended(Some(mute), None, not_made(), "").cause, Some(Cause::ServerUnresponsive));
    let name = NameCheck { name: "srv".to_owned(), resolution: Resolution::Gone, micros: 1 };
    let nameless = Examination { name: Some(name), version: Some(NfsVersion::V4), ..Examination::default() };
    assert_eq!(ended(Some(nameless), None, not_made(), "").cause, Some(Cause::DnsFailed));
}

#[test]
fn a_path_that_is_missing_in_both_versions_is_gone_and_in_one_is_not() {
    let gone = ended(Some(v4(Some(Status::NOENT))), Some(v3(Err(Failure::Status(Status::ACCES)))), not_made(), "");
    assert_eq!(gone.cause, Some(Cause::ExportGone));
    let there = ended(Some(v4(Some(Status::NOENT))), Some(v3(Ok(()))), not_made(), "");
    assert_eq!((there.result, there.cause), (Severity::Healthy, None), "{}", there.summary);
}

#[test]
fn a_version_that_nobody_serves_is_said_with_the_one_that_is() {
    let found = Examination { v3: said(Err(no_such_version())), v4: said(Ok(())), ..connected(NfsVersion::V3) };
    let verdict = ended(None, Some(found), not_made(), "vers=3");
    assert_eq!((verdict.result, verdict.cause), (Severity::Dead, None));
    assert!(verdict.summary.contains("does not speak NFS version 3") && verdict.todo[0].contains("vers=4"));
}

#[test]
fn a_refusal_that_the_options_explain_is_not_blamed_on_the_export() {
    let verdict = ended(Some(v4(None)), None, refused(libc::EPERM), "noresvport");
    assert_eq!(verdict.cause, Some(Cause::Permission));
    assert!(verdict.summary.contains("noresvport") && verdict.todo[0].contains("insecure"));
    assert_eq!(ended(Some(v4(None)), None, refused(libc::EACCES), "").cause, Some(Cause::ExportGone));
    assert_eq!(ended(Some(v4(None)), None, refused(libc::EACCES), "sec=krb5").cause, None);
    assert_eq!(ended(Some(v4(None)), None, refused(libc::EPROTO), "").cause, None);
}

#[test]
fn nothing_is_guessed_from_an_ordinary_port() {
    let found = Examination { privileged: Some(false), path: said(Err(Failure::Status(Status::PERM))), ..v4(None) };
    let verdict = ended(Some(found), None, not_made(), "");
    assert_eq!((verdict.result, verdict.cause), (Severity::Unknown, None));
    assert!(verdict.todo[0].contains("as root"), "{:?}", verdict.todo);
}

#[test]
fn what_is_offered_and_was_not_tried_says_so() {
    let verdict = ended(Some(v4(None)), None, not_made(), "");
    assert_eq!(verdict.result, Severity::Healthy);
    assert!(verdict.summary.contains("not tried: --no-mount"), "{}", verdict.summary);
    let verdict = ended(Some(v4(None)), None, Trial::Silent("no answer".to_owned()), "");
    assert_eq!(verdict.result, Severity::Dead);
}
