//! What would be done about each pod on a dead mount, or which guard says no (`mountwarden status --plan`).

use super::core::Core;
use crate::config::RemedyMode;
use crate::coordinator::guard::Guard;
use crate::mounts::octal;
use crate::probe::schedule::TargetId;
use crate::remedy::guards::with_detail;
use crate::snapshot::{Intent, PodPlan};
use crate::verdict::State;

/// Pods that are listed: as many as the largest nodes run.
const MOST: usize = 512;

impl Core {
    pub(super) fn plan(&self) -> Vec<PodPlan> {
        let suspects = self.suspects();
        let plan = suspects.into_iter().take(MOST).map(|(uid, mounts)| {
            let name = self.names.pod(&uid);
            let states = mounts.iter().filter_map(|(id, _)| self.registry.targets.get(id));
            let state = states.map(|target| target.verdict.state).max_by_key(|state| rank(*state));
            let ids: Vec<TargetId> = mounts.iter().map(|(id, _)| *id).collect();
            PodPlan {
                namespace: name.map(|pod| pod.namespace.clone()).unwrap_or_default(),
                pod: name.map(|pod| pod.name.clone()).unwrap_or_default(),
                mounts: mounts.iter().map(|(_, member)| octal::label(member.mountpoint.as_os_str())).collect(),
                state: state.unwrap_or(State::Unknown),
                evict: self.evict_intent(&uid, &ids),
                unstick: self.unstick_intent(&uid),
                pod_uid: uid,
            }
        });
        plan.collect()
    }

    /// The agent's part of an eviction, asked in the coordinator's order.
    fn evict_intent(&self, uid: &str, ids: &[TargetId]) -> Intent {
        if self.config.remedy.mode == RemedyMode::Observe {
            return evict_refused(Guard::Mode, "");
        }
        let dead = |id: &&TargetId| {
            let target = self.registry.targets.get(id);
            target.is_some_and(|target| matches!(target.verdict.state, State::Stale | State::Lost))
        };
        let dead: Vec<&TargetId> = ids.iter().filter(dead).collect();
        if dead.is_empty() {
            return evict_refused(Guard::State, "");
        }
        let gates: Vec<_> = dead.iter().filter_map(|id| self.rescues.status(**id)).collect();
        let Some(open) = gates.iter().find(|gate| gate.open) else {
            let why = gates.first().map_or("no trial mount can be made of it", |gate| gate.words.as_str());
            return evict_refused(Guard::Gate, why);
        };
        let Some(pod) = self.names.pod(uid) else {
            return evict_refused(Guard::Unread, "the agent does not know its name");
        };
        if pod.terminating {
            return evict_refused(Guard::Terminating, "");
        }
        match pod.remedy.annotations() {
            Some(words) if !words.allowed().evict => return evict_refused(Guard::Forbidden, ""),
            Some(words) if self.config.remedy.require_opt_in && !words.asked().evict => {
                return evict_refused(Guard::OptIn, "");
            }
            _ => {}
        }
        let words = format!("the coordinator is asked for a rescue: {}", open.words);
        Intent { go: true, guard: None, words, advice: String::new() }
    }

    fn unstick_intent(&self, uid: &str) -> Intent {
        match self.unsticks.decision(uid) {
            Some(Ok(plan)) => {
                let count = plan.releases.iter().map(|(_, mounts)| mounts.len()).sum::<usize>();
                let words = match self.config.remedy.mode {
                    RemedyMode::Enforce => format!("{count} of its mounts are released"),
                    RemedyMode::DryRun | RemedyMode::Observe => format!("{count} of its mounts would be released"),
                };
                Intent { go: true, guard: None, words, advice: String::new() }
            }
            Some(Err(refusal)) => Intent::refused(refusal.guard.as_str(), refusal.words(), refusal.guard.advice()),
            None => Intent {
                go: false,
                guard: None,
                words: "it was not looked at yet".to_owned(),
                advice: "Nothing: it is looked at within seconds.".to_owned(),
            },
        }
    }
}

fn evict_refused(guard: Guard, detail: &str) -> Intent {
    Intent::refused(guard.as_str(), with_detail(guard.says(), detail), guard.advice())
}

/// What leads to an action comes before what waits.
fn rank(state: State) -> u8 {
    match state {
        State::Lost => 2,
        State::Stale => 1,
        _ => 0,
    }
}
