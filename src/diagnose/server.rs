//! An export, or an EFS file system, before anything is mounted.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::judge::{Answers, judge};
use super::options::MountOptions;
use super::report::{Outcome, StepName, StepReport, Verdict};
use super::steps::{self, Part};
use super::trials::{self, Plan, Trial};
use super::words::Facts;
use super::{Asked, Options};
use crate::server::dns::{Resolution, Resolver};
use crate::server::examine::{Examination, Question, examine};
use crate::server::link::{Failure, Link, Port};
use crate::server::{Connect, NfsVersion, portmap};

/// Other addresses of a name that are tried.
const OTHERS: usize = 8;

/// The server and what is asked of it.
pub(super) struct Export<'a> {
    pub(super) server: &'a str,
    pub(super) export: &'a str,
    pub(super) efs: bool,
}

/// What stands in the way of a mount that is yet to be made.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The end of it; of a server that offers the export [`Severity::Healthy`](crate::verdict::Severity).
    pub verdict: Verdict,
    /// The address that was asked.
    pub address: Option<IpAddr>,
}

/// Asks the server of `SERVER:EXPORT` whether this host may mount it, and mounts nothing: for whoever has a pod that waits.
pub async fn offered(
    server: &str,
    export: &str,
    efs: bool,
    options: &MountOptions,
    resolver: &Resolver,
    proc_root: &Path,
    timeout: Duration,
) -> Offer {
    let all = Options { mount: options.clone(), no_mount: true, ..Options::default() };
    let asked = Asked { options: &all, timeout, proc_root };
    let export = Export { server, export, efs };
    let (mut v4, mut v3) = (None, None);
    if options.wants_v4() {
        v4 = Some(ask(&export, NfsVersion::V4, &asked, resolver).await);
    }
    if wants_mountd(&export, options, v4.as_ref()) {
        v3 = Some(ask(&export, NfsVersion::V3, &asked, resolver).await);
    }
    let address = v4.as_ref().or(v3.as_ref()).and_then(|found| found.address);
    let trial = Trial::NotMade("nothing is mounted for it".to_owned());
    let facts = Facts { server, export: export.export, address, efs };
    let verdict = judge(&Answers { v4, v3, dead_addresses: Vec::new(), trial, options }, &facts);
    Offer { verdict, address: address.map(|address| address.ip()) }
}

/// Asks all that makes sense.
pub(super) async fn diagnose(export: &Export<'_>, asked: &Asked<'_>) -> (Vec<StepReport>, Verdict) {
    let options = &asked.options.mount;
    let resolver = Resolver::default();
    let mut steps = Vec::new();
    let mut v4 = None;
    if options.wants_v4() {
        let found = ask(export, NfsVersion::V4, asked, &resolver).await;
        steps.extend(steps::of(&found, export.export, Part::Service));
        v4 = Some(found);
    }
    let mut v3 = None;
    if wants_mountd(export, options, v4.as_ref()) {
        let found = ask(export, NfsVersion::V3, asked, &resolver).await;
        if v4.is_none() {
            steps.extend(steps::of(&found, export.export, Part::Service));
        }
        if found.null().is_none_or(|null| null.answer.is_ok()) {
            steps.extend(steps::of(&found, export.export, Part::MountService));
        }
        v3 = Some(found);
    }
    let found = v4.as_ref().or(v3.as_ref());
    steps.extend(other_port(found, asked.timeout).await);
    let (dead_addresses, others) = other_addresses(found, asked.timeout).await;
    steps.extend(others);
    let (trial, made) = try_it(export, found, asked).await;
    steps.extend(made);
    let address = found.and_then(|found| found.address);
    let facts = Facts { server: export.server, export: export.export, address, efs: export.efs };
    let verdict = judge(&Answers { v4, v3, dead_addresses, trial, options }, &facts);
    (steps, verdict)
}

async fn ask(export: &Export<'_>, version: NfsVersion, asked: &Asked<'_>, resolver: &Resolver) -> Examination {
    let question = Question::unmounted(export.server, export.export, version);
    let question = Question { port: asked.options.mount.port.unwrap_or(question.port), ..question };
    examine(&question, resolver, asked.proc_root, asked.timeout).await
}

/// NFSv3 and its helpers are asked where NFSv4 did not lead to the path; EFS has neither.
fn wants_mountd(export: &Export<'_>, options: &MountOptions, v4: Option<&Examination>) -> bool {
    let Some(v4) = v4 else { return true };
    let connected = v4.connect.as_ref().is_some_and(|connect| connect.answer.is_ok());
    let spoke = v4.null().is_some_and(|null| null.failure().is_none_or(|failure| failure.is_reply()));
    // The other version is not asked for where the first did not answer; then only its helpers can tell.
    let served = v4.v3.as_ref().is_none_or(|null| null.answer.is_ok());
    let there = v4.path.as_ref().and_then(|path| path.ok()).is_some_and(|walk| walk.end().is_some());
    !export.efs && options.wants_v3() && connected && spoke && served && !there
}

/// A dead port of a machine that lives is another matter than a dead machine.
async fn other_port(found: Option<&Examination>, deadline: Duration) -> Option<StepReport> {
    let found = found?;
    let (address, connect) = (found.address?, found.connect.as_ref()?);
    if connect.answer.is_ok() {
        return None;
    }
    let other = SocketAddr::new(address.ip(), portmap::PORT);
    let begin = Instant::now();
    let answer = Link::new(other, Port::Ordinary, deadline).connect().await;
    let (outcome, words) = match answer {
        Ok(()) => (Outcome::Note, "connected: the machine is up, so it is this one port".to_owned()),
        Err(Failure::Connect(Connect::Refused)) => (Outcome::Note, "refused, so the machine is up".to_owned()),
        Err(failure) => (Outcome::Note, failure.to_string()),
    };
    let asked = format!("TCP {other}: does the machine answer elsewhere?");
    Some(StepReport::made(StepName::OtherPort, outcome, asked, words, begin.elapsed()))
}

/// The kernel takes the first address of a name; the others are tried side by side, within one deadline.
async fn other_addresses(found: Option<&Examination>, deadline: Duration) -> (Vec<IpAddr>, Option<StepReport>) {
    let Some((addresses, port)) = found.and_then(|found| Some((addresses(found)?, found.address?.port()))) else {
        return (Vec::new(), None);
    };
    let others: Vec<IpAddr> = addresses.iter().skip(1).take(OTHERS).copied().collect();
    if others.is_empty() {
        return (Vec::new(), None);
    }
    let begin = Instant::now();
    let mut tries = tokio::task::JoinSet::new();
    for address in &others {
        let address = *address;
        tries.spawn(async move {
            let answer = Link::new(SocketAddr::new(address, port), Port::Ordinary, deadline).connect().await;
            (address, answer.err())
        });
    }
    let mut answers = tries.join_all().await;
    answers.sort_by_key(|(address, _)| others.iter().position(|other| other == address));
    let words: Vec<String> = answers
        .iter()
        .map(|(address, failure)| match failure {
            None => format!("{address}: connected"),
            Some(failure) => format!("{address}: {failure}"),
        })
        .collect();
    let dead: Vec<IpAddr> =
        answers.into_iter().filter(|(_, failure)| failure.is_some()).map(|(address, _)| address).collect();
    let outcome = if dead.is_empty() { Outcome::Ok } else { Outcome::Failed };
    let asked = "TCP to the other addresses of the name (the kernel takes the first)";
    (dead, Some(StepReport::made(StepName::OtherAddresses, outcome, asked, words.join("; "), begin.elapsed())))
}

fn addresses(found: &Examination) -> Option<&[IpAddr]> {
    match &found.name.as_ref()?.resolution {
        Resolution::Found { addresses, .. } => Some(addresses),
        _ => None,
    }
}

async fn try_it(export: &Export<'_>, found: Option<&Examination>, asked: &Asked<'_>) -> (Trial, Vec<StepReport>) {
    let not_made = |why: &str| {
        let step = StepReport::skipped(StepName::TrialMount, "a mount that nobody sees", why);
        (Trial::NotMade(why.to_owned()), vec![step])
    };
    if asked.options.no_mount {
        return not_made("--no-mount");
    }
    let connected = found.and_then(|found| found.connect.as_ref()).is_some_and(|connect| connect.answer.is_ok());
    let Some(address) = found.and_then(|found| found.address).filter(|_| connected) else {
        return not_made("there is nothing to mount from: no connection");
    };
    if found.and_then(Examination::null).is_some_and(|null| null.failure().is_some_and(|failure| !failure.is_reply())) {
        return not_made("the file service does not answer: a mount would wait for ever");
    }
    let pool = match trials::pool() {
        Ok(pool) => pool,
        Err(error) => return not_made(&format!("no worker process can be started: {error}")),
    };
    let Options { mount, .. } = asked.options;
    let plan = if export.efs {
        Plan::efs(export.server, export.export, address.ip(), mount)
    } else {
        Plan::usual(export.server, export.export, address.ip(), mount)
    };
    let made = trials::make(&pool, &plan, asked.timeout).await;
    pool.end(super::LAST_WAIT).await;
    made
}
