//! The recovery gate: would a fresh mount help? Two trial mounts, the grace apart, must both answer and show the same root.
//!
//! A server that is down, recovering or half up never opens it, and one that exports before it mounts shows two different
//! roots. What the new root is to the pod's own one is told, not decided: whether a pod may start on other data is a matter
//! of the configuration (`remedy.evict_on_replaced`), and the coordinator's.
//!
//! Pure: trials and time in, a report out.

use std::time::Duration;

use crate::cluster::node_mounts::{GateReport, GateRoot};
use crate::probe::schedule::Now;
use crate::probe::trial::TrialReport;
use crate::snapshot::{UnixSeconds, rfc3339};

/// A trial that failed is made again after so long.
pub const RETRY: Duration = Duration::from_secs(10);

/// What is known of the mount that is dead, from when it was well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// File handle of its root; empty where the type has none (NFSv4.0).
    pub handle: Vec<u8>,
    /// File id of its root, as the server gave it; 0 where it was never seen.
    pub fileid: u64,
    /// Names of entries in its root.
    pub names: Vec<Vec<u8>>,
    /// Its filesystem is proven to be replaced, though handle and file id are the same.
    pub replaced: bool,
}

/// One trial that the server answered.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    at: Now,
    unix: UnixSeconds,
    handle: Vec<u8>,
    fileid: u64,
    empty: bool,
    found: u32,
}

/// The gate of one dead target.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    first: Option<Seen>,
    open: Option<GateReport>,
    next: Now,
    in_flight: bool,
    /// Why it is closed, for people.
    closed: String,
}

impl Gate {
    /// A closed gate; its first trial is due at once.
    #[must_use]
    pub fn new(now: Now) -> Gate {
        Gate { first: None, open: None, next: now, in_flight: false, closed: "no trial mount was made yet".to_owned() }
    }

    /// Whether a trial is to be made now.
    #[must_use]
    pub fn is_due(&self, now: Now) -> bool {
        !self.in_flight && self.next <= now
    }

    /// A trial is under way; its end is given to [`Gate::take`].
    pub fn begin(&mut self) {
        self.in_flight = true;
    }

    /// When the next trial is due; `None` while one is under way.
    #[must_use]
    pub fn next_wake(&self) -> Option<Now> {
        (!self.in_flight).then_some(self.next)
    }

    /// What the two trials saw, while it is open.
    #[must_use]
    pub fn open(&self) -> Option<&GateReport> {
        self.open.as_ref()
    }

    /// Why it is closed, in one sentence for people.
    #[must_use]
    pub fn why_closed(&self) -> &str {
        &self.closed
    }

    /// A trial came to its end. It stays open as long as each further trial shows the same root.
    pub fn take(
        &mut self,
        trial: Result<&TrialReport, String>,
        known: &Known,
        grace: Duration,
        now: Now,
        unix: UnixSeconds,
    ) {
        self.in_flight = false;
        let seen = match trial.and_then(|report| Seen::of(report, now, unix)) {
            Ok(seen) => seen,
            Err(why) => return self.close(why, now + RETRY),
        };
        let Some(first) = self.first.clone() else {
            self.close("the first of two trial mounts answered".to_owned(), now + grace);
            self.first = Some(seen);
            return;
        };
        if !first.same_root(&seen) {
            self.close("two trial mounts found different roots: the server is not settled".to_owned(), now + grace);
            self.first = Some(seen);
            return;
        }
        if now.saturating_sub(first.at) < grace {
            self.next = first.at + grace;
            return;
        }
        self.next = now + grace;
        self.open = Some(report(&first, &seen, known));
    }

    fn close(&mut self, why: String, next: Now) {
        (self.first, self.open, self.closed, self.next) = (None, None, why, next);
    }
}

impl Seen {
    fn of(report: &TrialReport, at: Now, unix: UnixSeconds) -> Result<Seen, String> {
        let failed =
            || crate::probe::trial::words::explain(report).unwrap_or_else(|| "the trial mount failed".to_owned());
        let root = report.root.ok_or_else(failed)?;
        if root.nlink == 0 {
            return Err("the trial mount found a deleted directory".to_owned());
        }
        Ok(Seen {
            at,
            unix,
            handle: report.handle.clone(),
            fileid: root.ino,
            empty: report.names.is_empty() && !report.more_names && report.failure().is_none(),
            found: count(report.found.iter().filter(|found| **found == Some(true)).count()),
        })
    }

    fn same_root(&self, other: &Seen) -> bool {
        (&self.handle, self.fileid) == (&other.handle, other.fileid)
    }
}

fn report(first: &Seen, second: &Seen, known: &Known) -> GateReport {
    let root = compare(second, known);
    let (found, of) = (second.found, count(known.names.len()));
    let apart = second.at.saturating_sub(first.at).as_secs();
    let what = match root {
        GateRoot::Same => "the pod's own directory again: a fresh mount has the same data".to_owned(),
        GateRoot::Empty => "another directory, which is empty: a new pod starts without any data".to_owned(),
        GateRoot::Different | GateRoot::Pseudo => {
            format!("another directory, with {found} of {of} names that were known: a new pod starts on other data")
        }
        GateRoot::Unknown => "a directory that cannot be compared: the pod's own root was never seen".to_owned(),
    };
    GateReport {
        first_trial: rfc3339(first.unix),
        second_trial: rfc3339(second.unix),
        root,
        names_found: found,
        names_known: of,
        words: format!("two trial mounts, {apart} s apart, found {what}"),
    }
}

/// The new root, compared with the pod's.
fn compare(seen: &Seen, known: &Known) -> GateRoot {
    let told = !known.handle.is_empty() || known.fileid != 0;
    let by_handle = known.handle.is_empty() || seen.handle.is_empty() || known.handle == seen.handle;
    let by_fileid = known.fileid == 0 || known.fileid == seen.fileid;
    match (told, by_handle && by_fileid && !known.replaced) {
        (false, _) => GateRoot::Unknown,
        (true, true) => GateRoot::Same,
        (true, false) if seen.empty => GateRoot::Empty,
        (true, false) => GateRoot::Different,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{RootAttributes, Step, StepResult};
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Now {
        Duration::from_secs(seconds)
    }

    fn answered(fileid: u64, names: &[&str]) -> TrialReport {
        TrialReport {
            root: Some(RootAttributes { ino: fileid, nlink: 2, mode: 0o40755 }),
            handle: fileid.to_be_bytes().to_vec(),
            names: names.iter().map(|name| name.as_bytes().to_vec()).collect(),
            found: vec![Some(!names.is_empty()); 2],
            ..TrialReport::default()
        }
    }

    fn failed() -> TrialReport {
        let step = StepResult { step: Step::TrialMount, errno: Some(libc::EACCES), micros: 1 };
        TrialReport { steps: vec![step], ..TrialReport::default() }
    }

    fn known() -> Known {
        Known {
            handle: 2u64.to_be_bytes().to_vec(),
            fileid: 2,
            names: vec![b"a".to_vec(), b"b".to_vec()],
            replaced: false,
        }
    }

    fn after(trials: &[(u64, TrialReport)], known: &Known) -> Gate {
        let mut gate = Gate::new(at(0));
        for (seconds, trial) in trials {
            gate.take(
                Ok(trial),
                known,
                GRACE,
                at(*seconds),
                1_700_000_000.0 + f64::from(u32::try_from(*seconds).unwrap()),
            );
        }
        gate
    }

    #[test]
    fn one_trial_is_not_enough_and_two_must_be_the_grace_apart() {
        let gate = after(&[(0, answered(2, &["a"]))], &known());
        assert!(gate.open().is_none());
        assert_eq!(gate.next_wake(), Some(at(30)));
        let gate = after(&[(0, answered(2, &["a"])), (29, answered(2, &["a"]))], &known());
        assert!(gate.open().is_none());
        assert_eq!(gate.next_wake(), Some(at(30)));
        let gate = after(&[(0, answered(2, &["a"])), (30, answered(2, &["a"]))], &known());
        let report = gate.open().unwrap();
        assert_eq!((report.root, report.first_trial.as_str()), (GateRoot::Same, "2023-11-14T22:13:20Z"));
        assert!(report.words.starts_with("two trial mounts, 30 s apart, found the pod's own directory"));
    }

    #[test]
    fn a_root_that_changes_between_the_trials_keeps_it_closed() {
        let gate = after(&[(0, answered(2, &["a"])), (40, answered(7, &["a"])), (60, answered(7, &["a"]))], &known());
        assert!(gate.open().is_none());
        let gate = after(&[(0, answered(2, &["a"])), (40, answered(7, &["a"])), (70, answered(7, &["a"]))], &known());
        assert_eq!(gate.open().map(|report| report.root), Some(GateRoot::Different));
    }

    #[test]
    fn a_failed_trial_closes_it_and_both_are_made_anew() {
        let trials = [(0, answered(2, &["a"])), (30, answered(2, &["a"])), (60, failed()), (70, answered(2, &["a"]))];
        let gate = after(&trials, &known());
        assert!(gate.open().is_none());
        assert_eq!(after(&trials[..3], &known()).next_wake(), Some(at(70)));
        assert!(after(&trials[..3], &known()).why_closed().contains("EACCES"), "{}", gate.why_closed());
    }

    #[test]
    fn what_the_new_root_is_to_the_old_one() {
        let root = |fileid, names: &[&str], known: &Known| {
            let trial = answered(fileid, names);
            after(&[(0, trial.clone()), (30, trial)], known).open().map(|report| report.root)
        };
        assert_eq!(root(2, &["a"], &known()), Some(GateRoot::Same));
        assert_eq!(root(3, &["a"], &known()), Some(GateRoot::Different));
        assert_eq!(root(3, &[], &known()), Some(GateRoot::Empty));
        let replaced = Known { replaced: true, ..known() };
        assert_eq!(root(2, &["a"], &replaced), Some(GateRoot::Different));
        assert_eq!(root(2, &[], &replaced), Some(GateRoot::Empty));
        assert_eq!(root(2, &["a"], &Known::default()), Some(GateRoot::Unknown));
        // NFSv4.0 has no handles on the client.
        let bare = Known { handle: Vec::new(), ..known() };
        assert_eq!((root(2, &["a"], &bare), root(3, &["a"], &bare)), (Some(GateRoot::Same), Some(GateRoot::Different)));
    }

    #[test]
    fn one_trial_at_a_time() {
        let mut gate = Gate::new(at(5));
        assert!(!gate.is_due(at(4)) && gate.is_due(at(5)));
        gate.begin();
        assert!(!gate.is_due(at(500)) && gate.next_wake().is_none());
        gate.take(Err("no worker".to_owned()), &known(), GRACE, at(6), 0.0);
        assert_eq!((gate.is_due(at(15)), gate.is_due(at(16)), gate.why_closed()), (false, true, "no worker"));
    }

    proptest! {
        #[test]
        fn whatever_is_seen_it_is_open_only_after_two_equal_roots_the_grace_apart(
            trials in proptest::collection::vec((1u64..40, 0u64..3), 1..40)
        ) {
            let mut gate = Gate::new(at(0));
            let mut now = 0;
            let mut history: Vec<(u64, u64)> = Vec::new();
            for (pause, root) in trials {
                now += pause;
                // Root 0 stands for a trial that failed.
                let trial = if root == 0 { failed() } else { answered(root, &["a"]) };
                gate.take(Ok(&trial), &known(), GRACE, at(now), 0.0);
                history.push((now, root));
                if gate.open().is_some() {
                    let same = history.iter().rev().take_while(|(_, other)| *other == root && root != 0);
                    let oldest = same.last().map_or(now, |(at, _)| *at);
                    prop_assert!(now - oldest >= 30, "{history:?}");
                }
            }
        }
    }
}
