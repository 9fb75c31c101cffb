//! The answers of an examination as steps: what was asked, what came back, in words. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use super::report::{Outcome, StepName, StepReport};
use crate::server::dns::Resolution;
use crate::server::examine::{Check, Examination, NameCheck};
use crate::server::link::Failure;
use crate::server::mountd::Exports;
use crate::server::nfs4::{Grace, Walk};
use crate::server::proxy::ProxyProcess;
use crate::server::rpc::Accept;

/// Addresses and exports that are named in an answer.
const NAMED: usize = 6;

/// Which of the answers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Name, connection, NFS itself.
    Service,
    /// Portmapper and mountd.
    MountService,
}

/// The steps of one part of an examination. `export` is the path in question.
#[must_use]
pub fn of(found: &Examination, export: &str, part: Part) -> Vec<StepReport> {
    let steps = match part {
        Part::Service => vec![
            found.name.as_ref().map(name),
            found.proxy.as_ref().map(|_| proxy(found)),
            found.connect.as_ref().map(|connect| connection(found, connect)),
            versions(found),
            found.root.as_ref().map(|root| {
                check(StepName::RootHandle, "attributes of the mount's own root, asked directly", root, |root| {
                    match (found.fileid, root.links) {
                        (_, Some(0)) => (Outcome::Failed, "the directory was deleted on the server".to_owned()),
                        (Some(client), _) if client != root.fileid => {
                            let words = format!("another directory: inode {} there, {client} here", root.fileid);
                            (Outcome::Failed, words)
                        }
                        _ => (Outcome::Ok, format!("the server knows it (inode {})", root.fileid)),
                    }
                })
            }),
            found.path.as_ref().map(|path| {
                let asked = format!("is {export} there for this host, from the server's NFSv4 root?");
                check(StepName::ExportPath, asked, path, |walk| walked(walk, export))
            }),
            found.grace.as_ref().map(|grace| {
                check(
                    StepName::Grace,
                    "is the server still in the pause after a restart?",
                    grace,
                    |grace| match grace {
                        Grace::In => (Outcome::Note, "yes: it gives out no new locks yet, usually for 90 s".to_owned()),
                        Grace::NotSeen(_) => (Outcome::Ok, "no".to_owned()),
                    },
                )
            }),
        ],
        Part::MountService => mount_service(found, export),
    };
    steps.into_iter().flatten().collect()
}

fn mount_service(found: &Examination, export: &str) -> Vec<Option<StepReport>> {
    let ip = found.address.map(|address| SocketAddr::new(address.ip(), 111));
    let portmap = found.portmap.as_ref().map(|portmap| {
        let asked = format!("TCP {}: which port has the mount service?", shown(ip));
        check(StepName::Portmapper, asked, portmap, |port| match port {
            Some(port) => (Outcome::Ok, format!("port {port}")),
            None => (Outcome::Failed, "it does not know: the mount service is not registered".to_owned()),
        })
    });
    let mountd = found.mountd.as_ref().map(|mountd| {
        check(StepName::Mountd, "does the mount service (mountd) answer?", mountd, |()| (Outcome::Ok, "yes".to_owned()))
    });
    let exports = found.exports.as_ref().map(|exports| {
        check(StepName::Exports, "what does the server export?", exports, |list| exported(list, export))
    });
    let right = found.may_mount.as_ref().map(|right| {
        let asked = format!("may this host mount {export}?{}", ordinary(found.mountd_privileged));
        check(StepName::MountRight, asked, right, |()| (Outcome::Ok, "yes".to_owned()))
    });
    vec![portmap, mountd, exports, right]
}

fn name(name: &NameCheck) -> StepReport {
    let (outcome, answer) = resolution(&name.resolution);
    let asked = format!("where does {} lead, by this host's resolver?", name.name);
    StepReport::made(StepName::Name, outcome, asked, answer, Duration::from_micros(name.micros))
}

fn resolution(resolution: &Resolution) -> (Outcome, String) {
    match resolution {
        Resolution::Found { addresses, more } => {
            let first: Vec<String> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
            let left = addresses.len().saturating_sub(NAMED) + more;
            let left = if left > 0 { format!(" and {left} more") } else { String::new() };
            (Outcome::Ok, format!("{}{left}", first.join(", ")))
        }
        Resolution::Gone => (Outcome::Failed, "there is no such name, or no address for it".to_owned()),
        Resolution::NoAnswer => (Outcome::Failed, "no DNS server answers, or it could not tell".to_owned()),
        Resolution::Timeout => (Outcome::Failed, "no answer in time".to_owned()),
        Resolution::NotAsked(why) => (Outcome::Failed, format!("could not be asked: {why}")),
    }
}

fn proxy(found: &Examination) -> StepReport {
    let Some(look) = &found.proxy else { return StepReport::skipped(StepName::Proxy, "", "") };
    let (mut outcome, mut answer) = match &look.process {
        ProxyProcess::Alive(name) => (Outcome::Ok, format!("{name} runs")),
        ProxyProcess::Gone => (Outcome::Failed, "its process is gone".to_owned()),
        ProxyProcess::Reused(name) => (Outcome::Failed, format!("its process is gone: {name} has its number now")),
        ProxyProcess::Unknown => (Outcome::Note, "which process it is could not be told".to_owned()),
    };
    if let Some(name) = &look.name {
        let (_, words) = resolution(&name.resolution);
        answer += &format!("; {} leads to: {words}", name.name);
    }
    if let Some(connect) = &look.connect {
        match &connect.answer {
            Ok(()) => answer += "; the mount target behind it takes connections",
            Err(failure) => {
                outcome = Outcome::Failed;
                answer += &format!("; the mount target behind it: {failure}");
            }
        }
    }
    let micros =
        look.name.as_ref().map_or(0, |name| name.micros) + look.connect.as_ref().map_or(0, |check| check.micros);
    StepReport::made(
        StepName::Proxy,
        outcome,
        "does the local TLS proxy of this mount run?",
        answer,
        Duration::from_micros(micros),
    )
}

fn connection(found: &Examination, connect: &Check<()>) -> StepReport {
    let asked = format!("TCP {}", shown(found.address));
    check(StepName::Connection, asked, connect, |()| (Outcome::Ok, format!("connected{}", ordinary(found.privileged))))
}

/// Both NULL calls are one step: which versions are served?
fn versions(found: &Examination) -> Option<StepReport> {
    let asked = [(3, &found.v3), (4, &found.v4)];
    let calls: Vec<_> = asked.iter().filter_map(|(version, check)| Some((*version, check.as_ref()?))).collect();
    let own = found.null()?;
    let micros = calls.iter().map(|(_, check)| check.micros).sum();
    // Before anything is mounted any version will do, unless one is asked for; that is for the judge.
    let outcome = match own.answer.is_ok() {
        true => Outcome::Ok,
        false if calls.iter().any(|(_, check)| check.answer.is_ok()) => Outcome::Note,
        false => Outcome::Failed,
    };
    let answer: Vec<String> = calls.iter().map(|(version, check)| version_words(*version, check)).collect();
    let asked = "which versions of NFS does it serve?";
    Some(StepReport::made(StepName::Versions, outcome, asked, answer.join("; "), Duration::from_micros(micros)))
}

fn version_words(version: u32, check: &Check<()>) -> String {
    match &check.answer {
        Ok(()) => format!("version {version}: yes"),
        Err(Failure::NotExecuted(Accept::ProgramMismatch { .. } | Accept::ProgramUnavailable)) => {
            format!("version {version}: no")
        }
        Err(failure) => format!("version {version}: {failure}"),
    }
}

fn walked(walk: &Walk, export: &str) -> (Outcome, String) {
    match walk.stopped {
        None => (Outcome::Ok, "yes".to_owned()),
        Some(status) => {
            let reached = walk.met.len().saturating_sub(1);
            let parts: Vec<&str> = export.split('/').filter(|part| !part.is_empty()).collect();
            let way: String = parts.iter().take(reached).map(|part| format!("/{part}")).collect();
            let missing = parts.get(reached).copied().unwrap_or(export);
            let way = if way.is_empty() { "/".to_owned() } else { way };
            (Outcome::Failed, format!("{way} is there, {missing} in it is not for this host: {status}"))
        }
    }
}

fn exported(list: &Exports, export: &str) -> (Outcome, String) {
    let some: Vec<String> = list.exports.iter().take(NAMED).map(|one| one.path.clone()).collect();
    let left = list.count.saturating_sub(some.len());
    let more = match (left, list.cut) {
        (_, true) => format!(" and at least {left} more, too many to read"),
        (0, false) => String::new(),
        (left, false) => format!(" and {left} more"),
    };
    let listed = if some.is_empty() { "nothing".to_owned() } else { format!("{}{more}", some.join(", ")) };
    match &list.holder {
        Some(holder) => {
            let clients = list.exports.iter().find(|one| &one.path == holder).map(|one| one.clients.join(", "));
            let clients = clients.filter(|clients| !clients.is_empty()).unwrap_or_else(|| "everybody".to_owned());
            (Outcome::Ok, format!("{holder} to {clients}; in all: {listed}"))
        }
        // Servers of NFSv4 may name it from another root.
        None => (Outcome::Note, format!("{export} is not in the list: {listed}")),
    }
}

/// A check in words; a failure has its own.
fn check<T>(
    step: StepName,
    asked: impl Into<String>,
    check: &Check<T>,
    ok: impl Fn(&T) -> (Outcome, String),
) -> StepReport {
    let (outcome, answer) = match &check.answer {
        Ok(answer) => ok(answer),
        Err(failure) => (Outcome::Failed, failure.to_string()),
    };
    StepReport::made(step, outcome, asked, answer, Duration::from_micros(check.micros))
}

fn ordinary(privileged: Option<bool>) -> &'static str {
    match privileged {
        Some(false) => " (from an ordinary port: not every server answers that; run as root)",
        _ => "",
    }
}

fn shown(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "the server".to_owned(), |address| address.to_string())
}
