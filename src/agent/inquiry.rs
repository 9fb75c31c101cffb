//! What the servers say of single mounts: whether this very mount can be served, and why not.
//!
//! [`super::servers`] asks whether a server lives, again and again, while a mount of it is silent. Here each mount that needs
//! explaining is asked about with its own root handle and path ([`crate::server::examine`]); those that are well are asked
//! about rarely, so that there is something to compare with.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::book::Book;
use super::core::{Core, Event};
use super::servers::key_of;
use super::target::{Key, Target};
use super::trials::Trials;
use crate::mounts::Mount;
use crate::probe::Step;
use crate::probe::schedule::{Now, TargetId};
use crate::server::conclude::{Baseline, Seen, Symptom, conclude};
use crate::server::dns::{Resolution, Resolver};
use crate::server::examine::{Check, Examination, Question, examine};
use crate::server::{Connect, ServerAnswer};
use crate::snapshot::{ServerCheck, ServerStatus, UnixSeconds};
use crate::verdict::{Cause, Examined, Observation, State};

/// A mount that needs explaining is asked about so often.
const EVERY: Duration = Duration::from_secs(10);

/// A mount that is well is asked about so often.
const BACKGROUND: Duration = Duration::from_secs(300);

/// A mount that is well and whose server's name leads nowhere is asked about so often: what is repaired meanwhile is not to be
/// called broken for long.
const NAMELESS: Duration = Duration::from_secs(60);

/// What was found explains nothing any more after so long.
const FRESH: Duration = Duration::from_secs(60);

/// Two answers for the handle of a mount that hangs must be so far apart: after a cut the kernel's client itself tries
/// again ever less often, and is not stuck for that (14 s were measured after a minute).
const STUCK_APART: Duration = Duration::from_secs(30);

/// Examinations under way at a time.
const IN_FLIGHT: usize = 8;

/// All that is asked, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    targets: HashMap<TargetId, Inquiry>,
    under_way: usize,
    /// Servers that were asked about a mount that hangs.
    hung: HashSet<SocketAddr>,
    checks: BTreeMap<(String, u16), ServerStatus>,
}

#[derive(Debug, Default)]
struct Inquiry {
    asked: Option<Now>,
    in_flight: bool,
    symptom: Option<Symptom>,
    /// At the last examination the server's name led nowhere.
    nameless: bool,
    baseline: Option<Baseline>,
    /// When the server first answered for the handle, in the present hang.
    answered_while_hung: Option<Now>,
    /// What was found, of each symptom: a mount whose canary hangs may be emptied, too.
    found: Vec<(Now, Examined)>,
    /// Where the name of what is behind its local proxy led last.
    behind: Option<IpAddr>,
}

/// What one examination brought.
#[derive(Debug)]
pub(super) struct Report {
    symptom: Option<Symptom>,
    examination: Examination,
    /// What proves that the server is at the address that its name leads to now.
    moved: Option<&'static str>,
}

impl Inquiries {
    /// What was found of a target with its present symptom.
    pub(super) fn examined(&self, target: &Target, now: Now) -> Option<Examined> {
        let (at, examined) = self.targets.get(&target.id)?.found_of(symptom(target)?)?;
        (now.saturating_sub(*at) <= FRESH).then(|| examined.clone())
    }

    /// The server's words about a target in good times are remembered, and it can be asked again.
    pub(super) fn may_compare(&self, target: &Target) -> bool {
        let known = self.targets.get(&target.id).is_some_and(|inquiry| inquiry.baseline.is_some());
        known && target.server_address().is_some()
    }

    /// Forgets a target that is gone, and its server's checks with the last of them.
    pub(super) fn forget(&mut self, target: &Target, last_of_server: bool) {
        self.targets.remove(&target.id);
        if let Some(address) = target.server_address().filter(|_| last_of_server) {
            self.hung.remove(&address);
            self.checks.remove(&(target.server_label(), address.port()));
        }
    }

    /// It was asked about, as far as it can be.
    fn answered(&self, target: &Target) -> bool {
        self.targets.get(&target.id).is_some_and(|inquiry| inquiry.asked.is_some() && !inquiry.in_flight)
    }

    /// What was just seen of a target's server. Of what was not asked this time the last word stays, unless nothing can be
    /// true of it any more.
    pub(super) fn note(&mut self, target: &Target, news: Vec<ServerCheck>, checked: UnixSeconds) {
        let (server, port) = (target.server_label(), target.server_port());
        let unreachable = news.iter().any(|check| check.check == "tcp" && !check.up);
        let status = self.checks.entry((server.clone(), port)).or_insert_with(|| ServerStatus {
            server,
            port,
            checked,
            checks: Vec::new(),
        });
        status.checked = checked;
        status.checks.retain(|old| {
            let gone = unreachable && old.check == "nfs";
            !gone && !news.iter().any(|new| new.check == old.check)
        });
        status.checks.extend(news);
        let order = ["dns", "tcp", "nfs", "mountd"];
        status.checks.sort_by_key(|check| order.iter().position(|known| *known == check.check));
    }

    /// A pulse tells otherwise of how a server is reached than what was found of this target before: that is true no more,
    /// and it is asked about at once. A stopped server refuses for a moment, and is silent when its port is taken.
    pub(super) fn hear(&mut self, target: &Target, answer: &ServerAnswer) {
        // Behind a local proxy it was only the proxy that answered.
        if target.mount.origin.proxy_port.is_some() {
            return;
        }
        let Some(inquiry) = self.targets.get_mut(&target.id) else { return };
        let outdated = |found: Option<Cause>| match (found, answer.cause()) {
            (
                Some(found @ (Cause::ServerUnreachable | Cause::ServerRefused | Cause::ServerUnresponsive)),
                Some(told),
            ) => found != told,
            // A server may answer NULL and nothing else.
            (Some(Cause::ServerUnreachable | Cause::ServerRefused), None) => answer.alive(),
            _ => false,
        };
        let before = inquiry.found.len();
        inquiry.found.retain(|(_, examined)| !outdated(examined.cause));
        if inquiry.found.len() < before {
            inquiry.asked = inquiry.asked.filter(|_| inquiry.in_flight);
        }
    }

    /// What was last seen of each server.
    pub(super) fn checks(&self) -> Vec<ServerStatus> {
        self.checks.values().cloned().collect()
    }

    fn due_at(inquiry: Option<&Inquiry>, symptom: Option<Symptom>) -> Option<Now> {
        let Some(inquiry) = inquiry else { return Some(Now::ZERO) };
        let Some(asked) = inquiry.asked else { return Some(Now::ZERO) };
        let at = match (inquiry.symptom, symptom) {
            (Some(before), Some(symptom)) if before != symptom => {
                // They may take turns, probe by probe.
                inquiry.found_of(symptom).map_or(Now::ZERO, |(at, _)| *at + EVERY)
            }
            (Some(_), Some(_)) => asked + EVERY,
            (None, None) => asked + if inquiry.nameless { NAMELESS } else { BACKGROUND },
            // Also when it is well again: what its server was last seen to be is true no more.
            (None, Some(_)) | (Some(_), None) => Now::ZERO,
        };
        (!inquiry.in_flight).then_some(at)
    }
}

/// What is to be explained of a target; `None`: all is well, or its state explains itself.
fn symptom(target: &Target) -> Option<Symptom> {
    // Whatever it was before: it answers, and the answer is not judged yet.
    if target.emptied {
        return Some(Symptom::Emptied);
    }
    match target.verdict.state {
        State::Hung => Some(Symptom::Hung),
        State::Stale => Some(Symptom::Refused),
        // Refused from the start, or together with many others: only the server can tell why.
        State::Unknown if super::judging::refused_root_in(target) => Some(Symptom::Refused),
        _ => None,
    }
}

impl Core {
    /// Asks about the mounts whose turn it is: those that need explaining first.
    pub(super) fn inquire(&mut self, now: Now) {
        let mut due: Vec<(bool, Now, TargetId)> = Vec::new();
        for target in self.registry.targets.values().filter(|target| target.judged && target.server_address().is_some())
        {
            let symptom = symptom(target);
            if self.one_pass && (symptom.is_none() || self.explained_by_silence(target, now)) {
                continue;
            }
            let at = Inquiries::due_at(self.inquiries.targets.get(&target.id), symptom);
            due.extend(at.filter(|at| *at <= now).map(|at| (symptom.is_none(), at, target.id)));
        }
        due.sort_unstable();
        for (_, _, id) in due {
            self.inquire_about(id, now);
        }
    }

    /// Whether something that needs explaining was not asked about yet, or is being asked about: `check` waits for it.
    pub(super) fn asking(&self) -> bool {
        let now = self.now();
        self.registry.targets.values().any(|target| {
            let asks = symptom(target).is_some() && target.server_address().is_some();
            asks && !self.inquiries.answered(target) && !self.explained_by_silence(target, now)
        })
    }

    /// It hangs as another mount of its server does that was asked about, and the server answers nobody: a question about
    /// this one too would cost a deadline, one after the other, and bring nothing new.
    fn explained_by_silence(&self, target: &Target, now: Now) -> bool {
        let asked = target.server_address().is_some_and(|address| self.inquiries.hung.contains(&address));
        let silent = || self.servers.view(target, now).is_some_and(|server| !server.alive);
        asked && symptom(target) == Some(Symptom::Hung) && silent()
    }

    fn inquire_about(&mut self, id: TargetId, now: Now) {
        let Some(target) = self.registry.targets.get(&id) else { return };
        let Some(address) = target.server_address() else { return };
        if self.inquiries.under_way >= IN_FLIGHT || !self.book.is_free(address) {
            return;
        }
        let handle = match &target.key {
            Key::Root { handle, .. } => handle.clone(),
            Key::Mount { .. } | Key::Absent { .. } => Vec::new(),
        };
        let mount = target.mount.clone();
        let efs = mount.origin.proxy_port.and_then(|port| self.efs.lookup(port, &mount.mountpoint));
        let symptom = symptom(target);
        let question = Question::of(&mount, &handle, efs);
        let Some(turn) = self.book.turn(address) else { return };
        let inquiry = self.inquiries.targets.entry(id).or_default();
        (inquiry.asked, inquiry.symptom) = (Some(now), symptom);
        let Some(mut question) = question else { return };
        // Only whether it may be mounted is mountd's to say. What hangs is mounted, and a silent one would cost deadlines.
        question.mountd &= matches!(symptom, None | Some(Symptom::Refused));
        if let Some(proxy) = &mut question.proxy {
            proxy.led_to = inquiry.behind;
        }
        inquiry.in_flight = true;
        self.inquiries.under_way += 1;
        let deadline = self.servers.deadline();
        let task = Task {
            question,
            symptom,
            mount,
            book: self.book.clone(),
            resolver: self.resolver.clone(),
            trials: self.trials(deadline),
            proc_root: self.config.proc_root.clone(),
            deadline,
        };
        self.running.spawn(async move { Event::Examined { id, report: Box::new(task.run().await), turn } });
    }

    /// An examination came to its end.
    pub(super) fn on_examined(&mut self, id: TargetId, report: Report) {
        let now = self.now();
        tracing::debug!(id, ?report, "examined");
        self.inquiries.under_way -= 1;
        let checked = self.unix_now();
        let Some(target) = self.registry.targets.get(&id) else { return };
        if let Some((key, answer)) = key_of(target).zip(ServerAnswer::of(&report.examination)) {
            self.on_server(key, answer);
        }
        let Some(target) = self.registry.targets.get(&id) else { return };
        let checks = checks(&report.examination);
        let nameless = checks.iter().any(|check| check.check == "dns" && !check.up);
        self.inquiries.note(target, checks, checked);
        let hung = target.server_address().filter(|_| report.symptom == Some(Symptom::Hung));
        self.inquiries.hung.extend(hung);
        self.changed = true;
        let present = symptom(target);
        let (seen, looked) = (seen_of(target, present), looked_since(target));
        let Some(inquiry) = self.inquiries.targets.get_mut(&id) else { return };
        (inquiry.in_flight, inquiry.nameless) = (false, nameless);
        inquiry.behind = report.examination.behind_proxy().or(inquiry.behind);
        if present != Some(Symptom::Hung) {
            inquiry.answered_while_hung = None;
        }
        let Some(symptom) = report.symptom.filter(|symptom| Some(*symptom) == present) else {
            if present.is_none() && report.symptom.is_none() && target.verdict.state == State::Healthy {
                inquiry.baseline = Baseline::of(&report.examination).or(inquiry.baseline);
            }
            return;
        };
        let found = inquiry.conclude(symptom, &report, seen, looked, now);
        inquiry.found.retain(|(_, old)| old.symptom != symptom);
        inquiry.found.push((now, found));
        if symptom == Symptom::Emptied {
            self.server_told(id);
        } else {
            self.judge_again(id);
        }
    }
}

impl Inquiry {
    fn found_of(&self, symptom: Symptom) -> Option<&(Now, Examined)> {
        self.found.iter().find(|(_, examined)| examined.symptom == symptom)
    }

    /// `looked`: when the last look at the mount began.
    fn conclude(&mut self, symptom: Symptom, report: &Report, seen: Seen, looked: Option<Now>, now: Now) -> Examined {
        // A probe must have been tried, and hung, since the first answer: back-off may leave none for two minutes.
        let tried_since = |at: Now| looked.is_some_and(|began| began >= at);
        let long_ago =
            self.answered_while_hung.is_some_and(|at| now.saturating_sub(at) >= STUCK_APART && tried_since(at));
        let seen = Seen { baseline: self.baseline, answered_while_hung: u32::from(long_ago), ..seen };
        let mut conclusion = conclude(&report.examination, &seen);
        let answers =
            conclusion.cause == Some(Cause::ClientStuck) || conclusion.candidates.contains(&Cause::ClientStuck);
        match (symptom, answers) {
            (Symptom::Hung, true) => _ = self.answered_while_hung.get_or_insert(now),
            _ => self.answered_while_hung = None,
        }
        if let Some(why) = report.moved {
            conclusion.cause = Some(Cause::AddressChanged);
            conclusion.why = Some(why.to_owned());
        }
        Examined { symptom, cause: conclusion.cause, why: conclusion.why }
    }
}

fn seen_of(target: &Target, symptom: Option<Symptom>) -> Seen {
    let step = target.decision.as_ref().and_then(|decision| decision.evidence.observation.stopped_at());
    Seen {
        root_hangs: step == Some(Step::StatxRoot),
        plain_security: target.facts.plain_security,
        ..Seen::new(symptom.unwrap_or(Symptom::Hung))
    }
}

/// When the look that the present verdict rests on began.
fn looked_since(target: &Target) -> Option<Now> {
    let evidence = &target.decision.as_ref()?.evidence;
    let took = match &evidence.observation {
        Observation::Blocked(blocked) => blocked.millis,
        Observation::Report(report) => report.steps.iter().map(|step| step.micros / 1000).sum(),
        _ => return None,
    };
    Some(Duration::from_millis(evidence.at_millis.saturating_sub(took)))
}

struct Task {
    question: Question,
    symptom: Option<Symptom>,
    mount: Mount,
    book: Book,
    resolver: Resolver,
    trials: Trials,
    proc_root: PathBuf,
    deadline: Duration,
}

impl Task {
    async fn run(self) -> Report {
        let examination = examine(&self.question, &self.resolver, &self.proc_root, self.deadline).await;
        let moved = self.symptom == Some(Symptom::Hung) && examination.address_moved();
        let moved = match new_address(&examination).filter(|_| moved) {
            Some(address) => self.moved_to(address).await,
            None => None,
        };
        Report { symptom: self.symptom, examination, moved }
    }

    /// What proves that the server of this mount is at `address` now. First it is asked for the mount's own root: a trial
    /// mount may wait together with the old one, where the client takes both addresses for one server (NFSv4.1 and later,
    /// measured).
    async fn moved_to(&self, address: IpAddr) -> Option<&'static str> {
        // If somebody else asks there just now, the next examination does.
        let _turn = self.book.turn(SocketAddr::new(address, self.question.port))?;
        let there =
            Question { name: None, address: Some(address), proxy: None, mountd: false, ..self.question.clone() };
        let found = examine(&there, &self.resolver, &self.proc_root, self.deadline).await;
        if answers_for_root(&found) {
            return Some("the server's name leads to another address now, and there it answers for this mount's root");
        }
        let trial = self.trials.at(&self.mount, address, Vec::new()).await;
        trial
            .is_ok_and(|report| report.answered())
            .then_some("the server's name leads to another address now, and a trial mount there works")
    }
}

/// The server has the directory that the client's handle stands for.
fn answers_for_root(found: &Examination) -> bool {
    let root = found.root.as_ref().and_then(Check::ok);
    root.is_some_and(|root| found.fileid == Some(root.fileid) && root.links != Some(0))
}

fn new_address(examination: &Examination) -> Option<IpAddr> {
    examination.name.as_ref()?.resolution.first()
}

/// The same of a connection and NULL alone.
pub(super) fn pulse(answer: &ServerAnswer) -> Vec<ServerCheck> {
    let check =
        |check: &str, up, took: Duration| ServerCheck { check: check.to_owned(), up, seconds: took.as_secs_f64() };
    let mut checks = vec![check("tcp", answer.connect == Connect::Ok, answer.connecting)];
    checks.extend(answer.null.as_ref().map(|_| check("nfs", answer.alive(), answer.rtt.unwrap_or_default())));
    checks
}

/// What is worth a series of its own: reachable, answering, and how fast.
fn checks(examination: &Examination) -> Vec<ServerCheck> {
    let mut checks = Vec::new();
    let mut add = |check: &str, result: Option<(bool, u64)>| {
        checks.extend(result.map(|(up, micros)| ServerCheck { check: check.to_owned(), up, seconds: seconds(micros) }));
    };
    // What could not be asked says nothing about the name.
    let asked = examination.name.as_ref().filter(|name| !matches!(name.resolution, Resolution::NotAsked(_)));
    add("dns", asked.map(|name| (matches!(name.resolution, Resolution::Found { .. }), name.micros)));
    add("tcp", examination.connect.as_ref().map(passed));
    add("nfs", examination.null().map(passed));
    add("mountd", examination.mountd.as_ref().map(passed));
    checks
}

fn passed<T>(check: &Check<T>) -> (bool, u64) {
    (check.answer.is_ok(), check.micros)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a deadline")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests;
