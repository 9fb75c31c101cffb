//! Which dead mounts of pods a fresh mount would heal: trial mounts, and the gates that they open.

use std::collections::HashMap;

use super::core::{Core, Event};
use super::target::{Key, Target};
use crate::config::RemedyMode;
use crate::probe::schedule::{Now, TargetId};
use crate::probe::trial::TrialReport;
use crate::remedy::gate::{Gate, Known};
use crate::snapshot::GateStatus;
use crate::verdict::{Cause, State};

/// Trial mounts under way at a time: after an outage of a server with many exports the others wait their turn.
const IN_FLIGHT: usize = 4;

/// The gates of this node's dead targets.
#[derive(Debug, Default)]
pub(super) struct Rescues {
    gates: HashMap<TargetId, (Gate, Known)>,
    in_flight: usize,
}

impl Rescues {
    /// What is known of a target's gate; `None` where nobody asks for one.
    pub(super) fn status(&self, id: TargetId) -> Option<GateStatus> {
        self.gates.get(&id).map(|(gate, _)| match gate.open() {
            Some(report) => GateStatus { open: true, words: report.words.clone(), report: Some(report.clone()) },
            None => GateStatus { open: false, words: gate.why_closed().to_owned(), report: None },
        })
    }

    /// Forgets a target that is gone.
    pub(super) fn forget(&mut self, id: TargetId) {
        self.gates.remove(&id);
    }

    /// When a trial is due next.
    pub(super) fn next_wake(&self) -> Option<Now> {
        let room = self.in_flight < IN_FLIGHT;
        self.gates.values().filter(|_| room).filter_map(|(gate, _)| gate.next_wake()).min()
    }
}

impl Core {
    /// A target's state is another one: its gate is needed from now on, or not any more.
    pub(super) fn mind_gate(&mut self, id: TargetId) {
        let now = self.now();
        let wanted = self.config.remedy.mode != RemedyMode::Observe && !self.one_pass;
        let target = self.registry.targets.get(&id);
        let target = target.filter(|target| wanted && dead_by_itself(target) && self.is_of_a_pod(target));
        match target {
            Some(target) => {
                let known = known(target);
                let (_, kept) = self.rescues.gates.entry(id).or_insert_with(|| (Gate::new(now), known.clone()));
                // Proven later than the death itself.
                kept.replaced |= known.replaced;
            }
            None => {
                self.rescues.gates.remove(&id);
            }
        }
    }

    /// Makes the trial mounts that are due.
    pub(super) fn try_mounts(&mut self, now: Now) {
        let due: Vec<TargetId> =
            self.rescues.gates.iter_mut().filter_map(|(id, (gate, _))| gate.is_due(now).then_some(*id)).collect();
        for id in due {
            if self.rescues.in_flight >= IN_FLIGHT {
                return;
            }
            let Some(target) = self.registry.targets.get(&id) else { continue };
            let Some((gate, known)) = self.rescues.gates.get_mut(&id) else { continue };
            gate.begin();
            let names = known.names.clone();
            let mount = target.mount.clone();
            self.rescues.in_flight += 1;
            let trials = self.trials(self.config.timeout);
            self.running.spawn(async move {
                let trial = trials.anew(&mount, names).await;
                Event::Tried { id, trial: Box::new(trial) }
            });
        }
    }

    /// A trial mount came to its end.
    pub(super) fn on_tried(&mut self, id: TargetId, trial: Result<TrialReport, String>) {
        self.rescues.in_flight = self.rescues.in_flight.saturating_sub(1);
        let (now, unix, grace) = (self.now(), self.unix_now(), self.config.remedy.grace);
        let Some((gate, known)) = self.rescues.gates.get_mut(&id) else { return };
        let was_open = gate.open().is_some();
        gate.take(trial.as_ref().map_err(Clone::clone), known, grace, now, unix);
        self.changed = true;
        let Some(target) = self.registry.targets.get(&id) else { return };
        let mountpoint = &target.labels.mountpoint;
        match gate.open() {
            Some(report) if !was_open => {
                self.news = true;
                tracing::info!(
                    mountpoint,
                    gate = "open",
                    words = report.words,
                    "{mountpoint}: a fresh mount would work now"
                );
            }
            None if was_open => {
                self.news = true;
                let words = gate.why_closed();
                tracing::warn!(
                    mountpoint,
                    gate = "closed",
                    words,
                    "{mountpoint}: a fresh mount would not work any more"
                );
            }
            Some(_) | None => {}
        }
    }
}

/// Dead for whoever has it mounted, while the server answers: only then a fresh mount can be better.
fn dead_by_itself(target: &Target) -> bool {
    target.facts.is_nfs() && matches!(target.verdict.state, State::Stale | State::Lost)
}

fn known(target: &Target) -> Known {
    let (handle, fileid) = match &target.key {
        Key::Root { handle, ino, .. } => (handle.clone(), *ino),
        Key::Mount { .. } | Key::Absent { .. } => (Vec::new(), 0),
    };
    Known {
        handle,
        fileid,
        names: target.sentinels.iter().map(|sentinel| sentinel.name.clone()).collect(),
        replaced: target.cause() == Some(Cause::FilesystemReplaced),
    }
}
