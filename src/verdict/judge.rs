//! The judgement: one look at a target, what is remembered of it, and the time; a verdict comes out.
//!
//! Read [`rules`] from top to bottom: the first rule that applies decides. [`memory`] holds the hysteresis.

mod memory;
mod rules;
pub mod words;

use serde::{Deserialize, Serialize};

pub use memory::{Good, Memory, Vote};

use super::{Cause, Evidence, Finding, State};

/// A finding that a filesystem may have been replaced is shown for so long after it was last seen.
const MAYBE_REPLACED_MILLIS: u64 = 24 * 3600 * 1000;

/// How judgement is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// A probe whose longest step takes more is slow, in milliseconds.
    pub slow_millis: u64,
    /// Without a valid look for so long, the last verdict is no longer one, in milliseconds.
    pub stale_after_millis: u64,
    /// Soft evidence (slow answers, odd errors) becomes a verdict when so many of the last three looks agree.
    pub agree: usize,
    /// Detectors that are switched off (tests prove that each is needed).
    pub without: Vec<String>,
}

impl Tuning {
    fn has(&self, detector: &str) -> bool {
        !self.without.iter().any(|off| off == detector)
    }
}

/// The detectors that `--without-detector` knows.
pub const DETECTORS: [&str; 12] = [
    "blocked",
    "soft_timeout",
    "late_answer",
    "stale",
    "deleted_root",
    "refused_root",
    "sentinels",
    "fuse",
    "errno",
    "space",
    "canary",
    "on_host",
];

/// What a target's state is, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The state.
    pub state: State,
    /// Why; absent when healthy.
    pub cause: Option<Cause>,
    /// What was seen, in one sentence.
    pub evidence: String,
    /// It is another target's verdict.
    pub inherited: bool,
    /// Beside the state.
    pub findings: Vec<Finding>,
}

/// A verdict and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What to remember for the next one.
    pub memory: Memory,
    /// The sentinels are gone for an ordinary reason: choose new ones.
    pub relearn: bool,
    /// This look itself found all well.
    pub good: bool,
}

/// What one look says by itself, before hysteresis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    state: State,
    cause: Option<Cause>,
    evidence: String,
    /// Hard evidence decides alone; soft evidence needs two of three.
    hard: bool,
    replaced: Replaced,
}

/// What the sentinels say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaced {
    No,
    /// All are gone, for an ordinary reason.
    Gone,
    /// All are gone since the transport reconnected.
    Maybe,
}

/// A decision as it is recorded: [`replay`] gives the same verdict from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What was remembered before.
    pub before: Memory,
    /// What was seen.
    pub evidence: Evidence,
    /// How judgement was set.
    pub tuning: Tuning,
}

/// Judges a recorded decision again.
#[must_use]
pub fn replay(decision: &Decision) -> Judgement {
    judge(&decision.before, &decision.evidence, &decision.tuning)
}

/// Judges one look.
#[must_use]
pub fn judge(before: &Memory, evidence: &Evidence, tuning: &Tuning) -> Judgement {
    let mut memory = before.clone();
    let look = match rules::look(before, evidence, tuning) {
        Ok(look) => look,
        Err(absent) => return without_a_look(memory, evidence, tuning, absent),
    };
    memory.looked_millis = Some(evidence.at_millis);
    let (state, cause) = memory.settle(&look, tuning.agree);
    let good = matches!(look.state, State::Healthy | State::Slow);
    let relearn = good && remember(&mut memory, evidence, &look);
    memory.state = state;
    memory.cause = cause;
    let words = if (state, cause) == (look.state, look.cause) {
        look.evidence
    } else {
        format!("{} (seen once; said when two of three probes agree)", look.evidence)
    };
    let words = super::passive::explained(words, state, &evidence.passive);
    memory.evidence.clone_from(&words);
    let inherited = matches!(evidence.observation, super::Observation::Inherited { .. });
    let findings = findings(&memory, evidence.at_millis);
    Judgement { verdict: Verdict { state, cause, evidence: words, inherited, findings }, memory, relearn, good }
}

/// There was no look: the last verdict stands until it is too old, unless the reason itself makes it void.
fn without_a_look(mut memory: Memory, evidence: &Evidence, tuning: &Tuning, absent: rules::Absent) -> Judgement {
    let age = memory.looked_millis.map(|at| evidence.at_millis.saturating_sub(at));
    let stands = !absent.voids && age.is_some_and(|age| age <= tuning.stale_after_millis);
    if !stands {
        memory.state = State::Unknown;
        memory.cause = Some(absent.cause);
        memory.evidence.clone_from(&absent.evidence);
        memory.votes.clear();
    }
    let verdict = Verdict {
        state: memory.state,
        cause: memory.cause,
        evidence: memory.evidence.clone(),
        inherited: false,
        findings: findings(&memory, evidence.at_millis),
    };
    Judgement { verdict, memory, relearn: false, good: false }
}

/// Updates what later rounds compare a good one with. True: the sentinels are to be chosen anew.
fn remember(memory: &mut Memory, evidence: &Evidence, look: &Look) -> bool {
    let super::Observation::Report(report) = &evidence.observation else { return false };
    memory.answered = true;
    if look.replaced == Replaced::Maybe {
        memory.maybe_replaced_millis = Some(evidence.at_millis);
    }
    let good = memory.good.get_or_insert_default();
    if let Some(transport) = evidence.transport {
        good.connects = Some(transport.connects);
    }
    if let Some(space) = report.space {
        let moved = good.size.replace(space.size).is_some_and(|before| before != space.size);
        good.size_moves |= moved && look.replaced == Replaced::No;
    }
    look.replaced != Replaced::No
}

fn findings(memory: &Memory, now_millis: u64) -> Vec<Finding> {
    let recent = |at: u64| now_millis.saturating_sub(at) <= MAYBE_REPLACED_MILLIS;
    memory.maybe_replaced_millis.filter(|at| recent(*at)).map(|_| Finding::MaybeReplaced).into_iter().collect()
}

#[cfg(test)]
mod tests;
