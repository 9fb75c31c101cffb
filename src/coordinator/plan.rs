//! Requests, facts, history and time in; evictions and refusals with their reasons out. Pure.
//!
//! Nothing here acts or waits. What follows is decided again, on facts that are read anew, right before each call
//! ([`Round::decide`]).

mod budgets;
mod pod;
pub mod request;
pub mod words;

use std::collections::HashMap;

use super::facts::Facts;
use super::guard::{Blind, Guard};
use super::history::{History, Record, Stage};
use super::request::{NodeView, Request};
use super::time::Time;
use crate::config::{Remedy, RemedyMode, Unstick};

/// All that a round of decisions depends on.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// Settings.
    pub remedy: &'a Remedy,
    /// Settings: a pod on a hung mount may be evicted only where its release would be allowed.
    pub unstick: &'a Unstick,
    /// The wall clock: what agents say is compared with it.
    pub wall: Time,
    /// This coordinator holds the Lease, and will for as long as a call takes.
    pub leader: bool,
    /// Why the kill switch stops: it is set, or it could not be read. `None`: it is known to be off.
    pub stopped: Option<&'a str>,
    /// What was done; `None` where it cannot be read.
    pub history: Option<&'a History>,
    /// What all nodes report.
    pub nodes: &'a [NodeView],
    /// A guard that does not see, in the tests that prove that each is needed.
    pub blind: Blind,
}

/// One request, and what was read of its pod.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The node that asks.
    pub node: &'a str,
    /// What it asks.
    pub request: &'a Request,
    /// What was read.
    pub read: &'a Read,
}

/// The outcome of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Everything.
    Facts(Box<Facts>),
    /// There is no pod of that name.
    Gone,
    /// Something could not be read, and what.
    Failed(String),
    /// It was not read in this round.
    NotYet,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Evict it (or, in a dry run, ask whether it would be evicted).
    Evict(Box<Record>),
    /// Do not.
    Refuse(Refusal),
}

/// A guard that said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which one.
    pub guard: Guard,
    /// The particulars, in words; may be empty.
    pub detail: String,
}

impl Refusal {
    pub(super) fn new(guard: Guard, detail: impl Into<String>) -> Refusal {
        Refusal { guard, detail: detail.into() }
    }

    /// The whole sentence for people.
    #[must_use]
    pub fn words(&self) -> String {
        if self.detail.is_empty() {
            self.guard.says().to_owned()
        } else {
            format!("{}: {}", self.guard.says(), self.detail)
        }
    }
}

/// A guard holds ([`Err`]) or lets pass.
type Check = Result<(), Refusal>;

impl<'a> Round<'a> {
    /// Decides about all cases, in their order of turn. Gives the index of each with its decision, the evictions in the
    /// order in which they are to be made.
    #[must_use]
    pub fn plan(&self, cases: &[Case<'a>]) -> Vec<(usize, Decision)> {
        let mut order: Vec<usize> = (0..cases.len()).collect();
        order.sort_by_cached_key(|at| cases.get(*at).map(|case| self.turn(case.request)));
        let mut history = self.history.cloned();
        let mut decisions = Vec::with_capacity(cases.len());
        for at in order {
            let Some(case) = cases.get(at) else { continue };
            let decision = self.with(history.as_ref()).decide(case);
            if let (Decision::Evict(record), Some(history)) = (&decision, &mut history) {
                history.reserve((**record).clone(), self.remedy.cool_down, self.now());
            }
            decisions.push((at, decision));
        }
        decisions
    }

    /// Decides about one case: what [`Round::plan`] does for each, and what is done again right before the call, on facts
    /// and a history that were read anew.
    #[must_use]
    pub fn decide(&self, case: &Case<'_>) -> Decision {
        match self.checks(case) {
            Ok(record) => Decision::Evict(Box::new(record)),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }

    /// The guards that need nothing but what the nodes report: cheap, so they are asked before anything is read.
    ///
    /// # Errors
    /// The guard that says no.
    pub fn screen(&self, request: &Request, node: &str) -> Result<(), Refusal> {
        self.standing()?;
        self.about_request(request)?;
        self.about_server(request, node)
    }

    /// Whether one more could be in flight at all: nothing needs to be read otherwise.
    #[must_use]
    pub fn room(&self) -> usize {
        let now = self.now();
        let taken = self.history.map_or(usize::MAX, |history| history.in_flight(now).count());
        self.remedy.in_flight.saturating_sub(taken)
    }

    /// Requests in their order of turn: who was refused less often, then who has been dead for longer.
    #[must_use]
    pub fn turn(&self, request: &Request) -> (u32, Time, String, String) {
        let records = self.history.map_or(&[][..], |history| &history.records);
        let tries = records.iter().rev().find(|record| record.uid == request.uid).map_or(0, |record| record.tries);
        (tries, request.since, request.namespace.clone(), request.pod.clone())
    }

    fn checks(&self, case: &Case<'_>) -> Result<Record, Refusal> {
        self.screen(case.request, case.node)?;
        let facts = match case.read {
            Read::Facts(facts) => facts,
            Read::Gone => return Err(Refusal::new(Guard::PodGone, "")),
            Read::Failed(why) => return Err(Refusal::new(Guard::Unread, why.clone())),
            Read::NotYet => return Err(Refusal::new(Guard::Queued, "")),
        };
        self.about_pod(case, facts)?;
        let history = self.history.ok_or_else(|| Refusal::new(Guard::History, "it could not be read"))?;
        self.about_budgets(case, facts, history)?;
        Ok(self.record(case, facts))
    }

    fn record(&self, case: &Case<'_>, facts: &Facts) -> Record {
        let request = case.request;
        Record {
            at: self.now(),
            namespace: request.namespace.clone(),
            pod: request.pod.clone(),
            uid: request.uid.clone(),
            node: case.node.to_owned(),
            workload: facts.owner.workload.clone(),
            controller: facts.controller.clone(),
            server: request.server.clone(),
            replaced: facts.owner.kind != super::facts::OwnerKind::None,
            newest: facts.newest_sibling,
            stage: Stage::Reserved,
            tries: 0,
            replacement: None,
        }
    }

    /// What holds for every pod.
    fn standing(&self) -> Check {
        self.guard(Guard::Mode, self.remedy.mode == RemedyMode::Observe, String::new)?;
        self.guard(Guard::Leader, !self.leader, String::new)?;
        self.guard(Guard::KillSwitch, self.stopped.is_some(), || self.stopped.unwrap_or_default().to_owned())?;
        let unknown = match self.history {
            None => Some("it could not be read".to_owned()),
            Some(history) if history.contradicts(self.wall) => {
                Some(format!("it was written at {}, after now: a clock is wrong", history.written))
            }
            Some(history) if !history.known_since(self.remedy.cool_down, self.now()) => {
                Some(format!("it begins at {}", history.began))
            }
            Some(_) => None,
        };
        self.guard(Guard::History, unknown.is_some(), || unknown.unwrap_or_default())
    }

    /// The time by the history's clock.
    fn now(&self) -> Time {
        self.history.map_or(self.wall, |history| history.clock(self.wall))
    }

    fn with(&self, history: Option<&'a History>) -> Round<'a> {
        Round { history, ..*self }
    }

    fn guard(&self, guard: Guard, says_no: bool, detail: impl FnOnce() -> String) -> Check {
        if says_no && !self.blind.is(guard) { Err(Refusal::new(guard, detail())) } else { Ok(()) }
    }
}

/// What a round said, by guard: for metrics.
#[must_use]
pub fn tally(decisions: &[(usize, Decision)]) -> HashMap<Guard, usize> {
    let mut tally = HashMap::new();
    for (_, decision) in decisions {
        if let Decision::Refuse(refusal) = decision {
            *tally.entry(refusal.guard).or_insert(0) += 1;
        }
    }
    tally
}

#[cfg(test)]
mod tests;
