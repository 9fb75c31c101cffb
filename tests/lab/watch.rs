//! Polls the agent's public surface and holds what it says against what it may say.

use std::time::{Duration, Instant};

use mountwarden::snapshot::{MountStatus, UnixSeconds};
use mountwarden::verdict::{Cause, State};
use serde::{Deserialize, Serialize};

use crate::matrix::Expected;
use crate::surface;

/// Time between two looks.
const POLL: Duration = Duration::from_millis(200);

/// Seconds by which two readings of one clock may differ: what the agent leaves uncorrected, and an emulated CPU.
const CLOCK_SLACK: f64 = 3.0;

/// A change of what the agent says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Seconds since the cell began.
    at: f64,
    /// What the cell was doing.
    phase: String,
    /// `None`: the agent does not list the mount, or does not answer.
    pub(crate) state: Option<State>,
    pub(crate) cause: Option<Cause>,
    evidence: String,
}

/// What is held of the causes, beside that a wrong one is wrong at any moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Causes {
    /// The state is told before its cause is proven: servers are asked only when something needs explaining.
    MayBeUnknown,
    /// Where a cause is expected it has to be there.
    Known,
}

/// The whole history of one cell.
pub(crate) struct Watch {
    begin: Instant,
    mountpoint: &'static str,
    phase: &'static str,
    allowed: Vec<Expected>,
    /// Whether a cause may still be unknown.
    causes: Causes,
    /// The mount may be missing from the list just now.
    may_miss: bool,
    pub(crate) timeline: Vec<Change>,
    pub(crate) failures: Vec<String>,
}

impl Watch {
    pub(crate) fn new(mountpoint: &'static str) -> Watch {
        Watch {
            begin: Instant::now(),
            mountpoint,
            phase: "start",
            allowed: Vec::new(),
            causes: Causes::MayBeUnknown,
            may_miss: true,
            timeline: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// From now on anything but `allowed` is a failure, unknown causes excepted.
    pub(crate) fn phase(&mut self, name: &'static str, allowed: &[&[Expected]], may_miss: bool) {
        self.phase = name;
        self.allowed = allowed.concat();
        self.causes = Causes::MayBeUnknown;
        self.may_miss = may_miss;
    }

    /// From now on anything but `allowed` is a failure, also a cause that is not known any more.
    pub(crate) fn phase_with_causes(&mut self, name: &'static str, allowed: &[&[Expected]]) {
        self.phase(name, allowed, false);
        self.causes = Causes::Known;
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        let failure = format!("{}: {}", self.phase, what.into());
        if !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }

    /// One look at the agent, then a rest.
    pub(crate) fn look(&mut self) -> Option<MountStatus> {
        let seen = surface::look(self.mountpoint);
        if let Some((mount, generated)) = &seen {
            self.hold_times_against_the_clock(mount, *generated);
        }
        let seen = seen.map(|(mount, _)| mount);
        self.record(seen.as_ref());
        match &seen {
            None if !self.may_miss => self.fail("the agent does not show the mount"),
            Some(mount) if !matches_any(&self.allowed, mount, self.causes) => {
                self.fail(format!("{} is wrong here: {}", words(mount.state, mount.cause), mount.evidence));
            }
            _ => {}
        }
        std::thread::sleep(POLL);
        seen
    }

    /// Looks until a verdict is one of `wanted`, at most for `limit`.
    pub(crate) fn until(&mut self, wanted: &[Expected], causes: Causes, limit: Duration) -> Option<MountStatus> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if let Some(mount) = self.look().filter(|mount| matches_any(wanted, mount, causes)) {
                return Some(mount);
            }
        }
        None
    }

    /// Looks until a further probe has ended, at most for `limit`; whether one did.
    pub(crate) fn until_probed(&mut self, limit: Duration) -> bool {
        let begin = Instant::now();
        let last = |seen: Option<MountStatus>| seen.and_then(|mount| mount.last_probe);
        let before = last(self.look());
        while begin.elapsed() < limit {
            if last(self.look()) > before {
                return true;
            }
        }
        false
    }

    /// Looks for as long as `time`.
    pub(crate) fn hold(&mut self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.look();
        }
    }

    /// Nothing that the agent tells of happened before the cell began or will only happen, whatever the wall clock was
    /// set to meanwhile: `begin` is of the clock that nobody sets.
    fn hold_times_against_the_clock(&mut self, mount: &MountStatus, generated: UnixSeconds) {
        let lasted = self.begin.elapsed().as_secs_f64();
        let times =
            [("since", Some(mount.since)), ("last_probe", mount.last_probe), ("last_success", mount.last_success)];
        for (name, age) in times.into_iter().filter_map(|(name, time)| Some((name, generated - time?))) {
            if age < -CLOCK_SLACK {
                self.fail(format!("`{name}` lies in the future"));
            } else if age > lasted + CLOCK_SLACK {
                self.fail(format!("`{name}` lies before the cell began"));
            }
        }
    }

    fn record(&mut self, seen: Option<&MountStatus>) {
        let (state, cause) = (seen.map(|mount| mount.state), seen.and_then(|mount| mount.cause));
        let same = self
            .timeline
            .last()
            .is_some_and(|last| last.state == state && last.cause == cause && last.phase == self.phase);
        if !same {
            let evidence = seen.map(|mount| mount.evidence.clone()).unwrap_or_default();
            let at = self.begin.elapsed().as_secs_f64();
            self.timeline.push(Change { at, phase: self.phase.to_owned(), state, cause, evidence });
        }
    }
}

/// `guest await`: looks until the agent says `state` about the mount (and `why`, if that is asked for) or `limit` seconds
/// are over, and prints the last verdict; whether it was the wanted one.
pub(crate) fn wait_for(mountpoint: &str, state: &str, why: bool, limit: f64) -> bool {
    let begin = Instant::now();
    let wanted = |mount: &MountStatus| mount.state.as_str() == state && !(why && mount.cause == Some(Cause::Unknown));
    let mut last = None;
    while begin.elapsed().as_secs_f64() < limit {
        last = surface::mount(mountpoint);
        if last.as_ref().is_some_and(wanted) {
            break;
        }
        std::thread::sleep(POLL);
    }
    println!("{}", last.as_ref().map_or_else(|| "nothing".to_owned(), |mount| words(mount.state, mount.cause)));
    last.as_ref().is_some_and(wanted)
}

/// `state/cause`.
pub(crate) fn words(state: State, cause: Option<Cause>) -> String {
    cause.map_or_else(|| state.to_string(), |cause| format!("{state}/{cause}"))
}

pub(crate) fn matches_any(expected: &[Expected], mount: &MountStatus, causes: Causes) -> bool {
    expected.iter().any(|one| matches(one, mount, causes))
}

fn matches(expected: &Expected, mount: &MountStatus, causes: Causes) -> bool {
    let cause = match (expected.cause, mount.cause) {
        (None, _) => true,
        (Some(_), None | Some(Cause::Unknown)) if causes == Causes::MayBeUnknown => true,
        (wanted, seen) => wanted == seen,
    };
    let finding = expected.finding.is_none_or(|wanted| mount.findings.contains(&wanted));
    let says = expected.says.as_ref().is_none_or(|words| mount.evidence.contains(words));
    expected.state == mount.state && cause && finding && says
}

/// A verdict whatever its cause.
pub(crate) fn any_cause(state: State) -> Expected {
    Expected { state, cause: None, finding: None, says: None }
}
