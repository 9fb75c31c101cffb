//! Pods that stay in Terminating because a volume of theirs is dead: looked at in rounds, and released where every guard
//! allows it.
//!
//! A round looks at all of them at once ([`crate::remedy::unstick`] decides): what the cluster's side knows, and a survey
//! by a worker. Before anything is done to one, the API server is asked and the survey is made anew, and it is decided
//! again. One pod at a time.

mod act;
mod case;
mod voice;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::core::{Core, Event};
use crate::cluster::{Asker, RightNow, Whom};
use crate::config::RemedyMode;
use crate::mounts::Dev;
use crate::mounts::kubelet::pod_uid;
use crate::pods::names::{Reading, RemedyWords};
use crate::probe::pool::{Class, Outcome, Pool};
use crate::probe::schedule::Now;
use crate::probe::survey::{Survey, SurveySpec};
use crate::probe::wire::{Answer, Job};
use crate::remedy::permission::Permission;
use crate::remedy::unstick::{Case, Guard, Plan, Refusal, plan_together};
use crate::verdict::State;

pub(super) use act::Released;
use case::Suspect;
pub(super) use case::is_dead;

/// Whether there is anybody to release is looked at so often, and those there are are surveyed so often.
const ROUND: Duration = Duration::from_secs(2);
const SURVEY_EVERY: Duration = Duration::from_secs(5);

/// A survey may take so long: scanning ten thousand threads took 0.3 s.
const SURVEY_DEADLINE: Duration = Duration::from_secs(5);

/// The kill switch is read so often for the metric, and while somebody may need a release; before one it is read anew.
const SWITCH_EVERY: Duration = Duration::from_secs(60);
const SWITCH_SOON: Duration = Duration::from_secs(10);

/// A pod that was refused at the last look is looked at again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// What was last heard of the switch holds so long.
const SWITCH_HOLDS: Duration = Duration::from_secs(150);

/// Pods that are remembered after they left the API: as many as a node has.
const REMEMBERED: usize = 2048;

/// What the loop knows of pods that may need a release.
#[derive(Debug, Default)]
pub(super) struct Unsticks {
    /// The way to the cluster's side; `None` without a cluster, and then nothing is ever done.
    pub(super) asker: Option<Asker>,
    switch: Option<(Now, Result<(), String>)>,
    /// When it was asked for last.
    switch_asked: Option<Now>,
    /// The node's annotation does not forbid it, as last read.
    node_allows: bool,
    /// When a worker was last seen blocked, by superblock.
    blocked: HashMap<Dev, Now>,
    /// What is known of each pod on a dead mount, by UID.
    pods: BTreeMap<String, Standing>,
    /// What was known of pods while the API had them.
    remembered: HashMap<String, Remembered>,
    next: Now,
    next_survey: Now,
    busy: bool,
    /// Superblocks of the release that is under way.
    releasing: Vec<Dev>,
    /// Set to call a release off.
    call_off: Arc<AtomicBool>,
    /// Actions by result.
    counts: BTreeMap<&'static str, u64>,
}

/// A pod as it was last known.
#[derive(Debug, Clone)]
struct Remembered {
    full: String,
    stateful: bool,
    remedy: RemedyWords,
}

/// One pod on a dead mount.
#[derive(Debug, Default)]
struct Standing {
    /// Since when no pod of the API has its UID.
    orphan_since: Option<Now>,
    orphan_told: bool,
    /// What was decided last.
    decision: Option<Result<Plan, Refusal>>,
    /// By what is known nothing stands in the way; the API server was not asked yet.
    ready: bool,
    /// The decision is that of a last look.
    last_look: bool,
    /// Since when the same guard says no.
    refused_since: Now,
    /// What was last told.
    told: Option<Guard>,
    /// Releases that failed, and when the next one may be tried.
    failures: u32,
    not_before: Now,
    simulated: bool,
    /// Its mounts are gone; the kubelet's turn.
    released: Option<Now>,
}

/// A pod was decided to be released, and is looked at once more.
#[derive(Debug)]
pub(super) struct LastLook {
    uid: String,
    right_now: RightNow,
}

impl Unsticks {
    /// What was last decided about a pod.
    pub(super) fn decision(&self, uid: &str) -> Option<&Result<Plan, Refusal>> {
        self.pods.get(uid)?.decision.as_ref()
    }

    /// What may be done is another thing now.
    pub(super) fn look_again(&mut self) {
        (self.next, self.next_survey, self.switch_asked) = (Now::ZERO, Now::ZERO, None);
    }

    /// When the switch is to be read next: soon as soon as somebody may need a release.
    fn next_switch(&self) -> Now {
        let pause = if self.pods.is_empty() { SWITCH_EVERY } else { SWITCH_SOON };
        self.switch_asked.map_or(Now::ZERO, |asked| asked + pause)
    }
}

impl Core {
    /// What the cluster's side tells is remembered: a force-deleted pod cannot be asked about any more.
    pub(super) fn remember_pods(&mut self) {
        let unsticks = &mut self.unsticks;
        for (uid, pod) in self.names.iter() {
            if unsticks.remembered.len() >= REMEMBERED && !unsticks.remembered.contains_key(uid) {
                let names = &self.names;
                unsticks.remembered.retain(|uid, _| names.pod(uid).is_some() || unsticks.pods.contains_key(uid));
            }
            let remembered =
                Remembered { full: pod.full(), stateful: pod.controller == STATEFUL, remedy: pod.remedy.clone() };
            unsticks.remembered.insert(uid.to_owned(), remembered);
        }
        self.see_who_is_gone();
    }

    /// A worker is proven to have been blocked on a superblock.
    pub(super) fn saw_blocked(&mut self, dev: Dev, now: Now) {
        self.unsticks.blocked.insert(dev, now);
        // It may have been all that was missing, and it is forgotten soon.
        if !self.unsticks.pods.is_empty() {
            self.unsticks.next = now;
            self.unsticks.next_survey = now;
        }
    }

    /// One round, where one is due.
    pub(super) fn look_for_stuck(&mut self, now: Now) {
        self.read_switch(now);
        if self.unsticks.busy || now < self.unsticks.next {
            return;
        }
        self.unsticks.next = now + ROUND;
        self.see_who_is_gone();
        let suspects = self.suspects();
        self.unsticks.blocked.retain(|_, at| now.saturating_sub(*at) < Duration::from_secs(60));
        let unsticks = &mut self.unsticks;
        let is_mounted = |uid: &str| {
            let mut members = self.registry.targets.values().flat_map(|target| &target.members);
            members.any(|member| pod_uid(&member.mountpoint).is_some_and(|of| of == uid))
        };
        // An orphan stays one while its mount is not known to be dead for a moment, as after a probe that came too late.
        unsticks.pods.retain(|uid, standing| {
            let orphan = standing.orphan_since.is_some();
            suspects.contains_key(uid) || standing.released.is_some() || (orphan && is_mounted(uid))
        });
        for uid in suspects.keys() {
            unsticks.pods.entry(uid.clone()).or_default();
        }
        for (uid, standing) in &mut unsticks.pods {
            let orphaned = self.names.is_complete() && self.names.pod(uid).is_none();
            standing.orphan_since = orphaned.then(|| standing.orphan_since.unwrap_or(now));
        }
        let spec = self.survey_spec(&suspects);
        if spec.uids.is_empty() {
            // Nobody is being deleted: what each guard says of the others is known without a look.
            self.decide(&suspects, None, None);
        } else if now >= self.unsticks.next_survey {
            self.unsticks.next_survey = now + SURVEY_EVERY;
            self.unsticks.busy = true;
            let pool = self.pool.clone();
            self.running.spawn(async move {
                let survey = survey(&pool, &spec).await;
                Event::Surveyed { spec, survey, last_look: None }
            });
        }
    }

    /// When the next round is due; none while nobody may need one.
    pub(super) fn next_unstick(&self) -> Option<Now> {
        let rounds = (!self.unsticks.busy && !self.unsticks.pods.is_empty()).then_some(self.unsticks.next);
        let switch = (self.wants_remedies() && self.unsticks.asker.is_some()).then(|| self.unsticks.next_switch());
        [rounds, switch].into_iter().flatten().min()
    }

    fn wants_remedies(&self) -> bool {
        self.config.remedy.mode != RemedyMode::Observe && !self.one_pass
    }

    fn read_switch(&mut self, now: Now) {
        let Some(asker) = self.unsticks.asker.clone() else { return };
        if !self.wants_remedies() || now < self.unsticks.next_switch() {
            return;
        }
        self.unsticks.switch_asked = Some(now);
        self.running.spawn(async move { Event::Switch { right_now: asker.right_now(Whom::Nobody).await } });
    }

    pub(super) fn on_switch(&mut self, right_now: RightNow) {
        let now = self.now();
        self.note_switch(now, &right_now);
    }

    fn note_switch(&mut self, now: Now, right_now: &RightNow) {
        let switch = right_now.switch.clone();
        self.unsticks.node_allows = node_allows(right_now);
        let before = self.unsticks.switch.replace((now, switch.clone())).map(|(_, before)| before);
        if before.as_ref() != Some(&switch) {
            self.changed = true;
            if let Err(why) = switch {
                tracing::warn!(why, "remedies are stopped: {why}");
            }
        }
    }

    /// Releases are made: enforced, not stopped, and not forbidden for the whole node.
    pub(super) fn unstick_enabled(&self) -> bool {
        self.config.remedy.mode == RemedyMode::Enforce && self.switch(self.now()).is_ok() && self.unsticks.node_allows
    }

    /// Whether the switch lets things go on, as last heard, and else why not.
    fn switch(&self, now: Now) -> Result<(), String> {
        match &self.unsticks.switch {
            Some((at, switch)) if now.saturating_sub(*at) <= SWITCH_HOLDS => switch.clone(),
            Some((_, Err(why))) => Err(why.clone()),
            Some((_, Ok(()))) => Err(format!("it was last read more than {SWITCH_HOLDS:?} ago")),
            None => Err("it was not read yet".to_owned()),
        }
    }

    pub(super) fn on_surveyed(
        &mut self,
        spec: &SurveySpec,
        survey: Result<Survey, String>,
        last_look: Option<LastLook>,
    ) {
        self.unsticks.busy = false;
        let now = self.now();
        let survey = survey.unwrap_or_else(|why| Survey {
            left: Err(why.clone()),
            held: Err(why.clone()),
            connections: Err(why),
        });
        if let Some(last_look) = &last_look {
            self.note_switch(now, &last_look.right_now);
        }
        self.decide(&self.suspects(), Some((spec, &survey)), last_look.as_ref());
        match last_look {
            Some(last_look) => self.carry_out(&last_look.uid),
            None => self.look_once_more(spec, now),
        }
    }

    /// Decides about every pod anew.
    fn decide(
        &mut self,
        suspects: &BTreeMap<String, Vec<Suspect>>,
        surveyed: Option<(&SurveySpec, &Survey)>,
        last_look: Option<&LastLook>,
    ) {
        let now = self.now();
        let mut cases = Vec::new();
        for (uid, mounts) in suspects {
            let right_now = last_look.filter(|look| look.uid == *uid).map(|look| &look.right_now);
            cases.push(self.case(uid, mounts, surveyed, right_now));
        }
        let decisions = plan_together(&cases);
        for ((case, _), decision) in cases.into_iter().zip(decisions) {
            let last_look = last_look.is_some_and(|look| look.uid == case.uid);
            self.take_decision(&case, decision, last_look, now);
        }
    }

    fn take_decision(&mut self, case: &Case, decision: Result<Plan, Refusal>, last_look: bool, now: Now) {
        if let Err(Refusal { guard: Guard::NobodyBlocked, .. }) = &decision {
            // All that is missing is somebody who tries.
            for mount in case.mounts.iter().filter(|mount| mount.state == State::Hung) {
                self.schedule.try_now(mount.dev, now);
            }
        }
        let Some(standing) = self.unsticks.pods.get_mut(&case.uid) else { return };
        standing.ready = decision.is_ok();
        if last_look && decision.is_err() {
            standing.not_before = now + AGAIN;
        }
        // What the API server said a moment ago counts for more than what it said before.
        let refused = standing.last_look && matches!(standing.decision, Some(Err(_)));
        if !last_look && standing.ready && refused && now < standing.not_before + AGAIN {
            return self.tell_decision(case, now);
        }
        standing.last_look = last_look;
        let guard = |decision: &Result<Plan, Refusal>| decision.as_ref().err().map(|refusal| refusal.guard);
        if standing.decision.as_ref().map(guard) != Some(guard(&decision)) {
            standing.refused_since = now;
            self.changed = true;
        }
        standing.decision = Some(decision);
        self.tell_decision(case, now);
    }

    /// Looks once more at the first pod that may be released: the API server is asked, and the survey made anew.
    fn look_once_more(&mut self, spec: &SurveySpec, now: Now) {
        let free = |standing: &Standing| standing.ready && standing.released.is_none() && standing.not_before <= now;
        let first = self.unsticks.pods.iter().find(|(_, standing)| free(standing));
        let (Some((uid, _)), Some(asker)) = (first, self.unsticks.asker.clone()) else { return };
        let uid = uid.clone();
        let whom = match self.names.pod(&uid) {
            Some(pod) => Whom::Pod {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: if pod.api_uid.is_empty() { uid.clone() } else { pod.api_uid.clone() },
            },
            None => Whom::Orphan(uid.clone()),
        };
        self.unsticks.busy = true;
        let (pool, spec) = (self.pool.clone(), spec.clone());
        self.running.spawn(async move {
            let right_now = asker.right_now(whom).await;
            let survey = survey(&pool, &spec).await;
            Event::Surveyed { spec, survey, last_look: Some(LastLook { uid, right_now }) }
        });
    }
}

/// The node's annotation does not forbid releases; one that cannot be read does.
fn node_allows(right_now: &RightNow) -> bool {
    match &right_now.remedy.node {
        Reading::Unread => false,
        Reading::Read(words) => words.as_deref().is_none_or(|words| Permission::parse(words).unstick),
    }
}

/// The kind of controller whose next pod gets the same volume.
const STATEFUL: &str = "StatefulSet";

/// One survey by a worker.
async fn survey(pool: &Pool, spec: &SurveySpec) -> Result<Survey, String> {
    let job = Job::Survey(spec.clone());
    match pool.run(job, "survey", Class::Hopeful, SURVEY_DEADLINE, SURVEY_DEADLINE).await {
        Outcome::Answered(Answer::Survey(survey)) => Ok(survey),
        other => Err(other.no_answer(&format!("looking through /proc takes longer than {SURVEY_DEADLINE:?}"))),
    }
}
