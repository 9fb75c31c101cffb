//! From what the loop knows and a survey saw to what is decided on.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::super::core::Core;
use super::super::target::{Member, Target};
use super::STATEFUL;
use crate::cluster::{PodNow, RightNow};
use crate::mounts::kubelet::pod_uid;
use crate::mounts::{Kind, View};
use crate::pods::names::RemedyWords;
use crate::probe::schedule::TargetId;
use crate::probe::survey::{Survey, SurveySpec};
use crate::remedy::connections::connected;
use crate::remedy::holders::others;
use crate::remedy::unstick::{Allowed, Case, DeadMount, Pod};
use crate::snapshot::UnixSeconds;
use crate::verdict::{NotRun, Observation, State};

/// A dead target and the mount of it below the pod's directory.
pub(in crate::agent) type Suspect = (TargetId, Member);

impl Core {
    /// Pods with dead mounts in the host's table, by UID.
    pub(in crate::agent) fn suspects(&self) -> BTreeMap<String, Vec<Suspect>> {
        let mut suspects: BTreeMap<String, Vec<Suspect>> = BTreeMap::new();
        let Some(host) = self.host_view() else { return suspects };
        for target in self.registry.targets.values().filter(|target| is_dead(target)) {
            for member in target.members.iter().filter(|member| member.view == host) {
                if let Some(uid) = pod_uid(&member.mountpoint) {
                    suspects.entry(uid).or_default().push((target.id, member.clone()));
                }
            }
        }
        suspects
    }

    /// How the mounts of the host's namespace are seen; `None`: they are not.
    pub(super) fn host_view(&self) -> Option<View> {
        if self.table.host_error.is_some() {
            return None;
        }
        let host = self.table.mounts.iter().any(|mount| mount.view == View::Host);
        Some(if host { View::Host } else { View::Own })
    }

    /// Only those who are being deleted, or are gone, are worth a look.
    pub(super) fn survey_spec(&self, suspects: &BTreeMap<String, Vec<Suspect>>) -> SurveySpec {
        let orphan = |uid: &str| self.unsticks.pods.get(uid).is_some_and(|standing| standing.orphan_since.is_some());
        let going = |uid: &str| (self.wants_remedies() && self.names.terminating(uid)) || orphan(uid);
        let wanted: Vec<_> = suspects.iter().filter(|(uid, _)| going(uid)).collect();
        let ids = wanted.iter().flat_map(|(_, mounts)| mounts.iter().map(|(id, _)| id));
        let mut devs: Vec<_> = ids.filter_map(|id| self.registry.targets.get(id)).map(|target| target.dev).collect();
        devs.sort_unstable();
        devs.dedup();
        SurveySpec {
            proc_root: self.config.proc_root.as_os_str().as_bytes().to_vec(),
            uids: wanted.into_iter().map(|(uid, _)| uid.clone()).collect(),
            devs,
        }
    }

    /// Everything about one pod. `right_now`: what the API server just said; otherwise what the cluster's side knows.
    pub(super) fn case(
        &self,
        uid: &str,
        mounts: &[Suspect],
        surveyed: Option<(&SurveySpec, &Survey)>,
        right_now: Option<&RightNow>,
    ) -> (Case, Allowed) {
        let unix = super::super::unix_now();
        let (mut pod, words) = match right_now {
            Some(right_now) => (self.pod_right_now(uid, right_now, unix), Some(&right_now.remedy)),
            None => (self.pod_by_names(uid, unix), self.names.pod(uid).map(|pod| &pod.remedy)),
        };
        let remembered = self.unsticks.remembered.get(uid);
        let permitted = match &pod {
            // There is nothing left that could be annotated: the setting asks for it, and what it said while it was there
            // still counts.
            Pod::Orphan { .. } => {
                let forbids = |words: &RemedyWords| words.annotations().is_some_and(|words| !words.allowed().unstick);
                !remembered.is_some_and(|pod| forbids(&pod.remedy)) && !words.is_some_and(forbids)
            }
            _ => match words.and_then(RemedyWords::annotations) {
                Some(words) => words.allowed().unstick && (!self.config.remedy.require_opt_in || words.asked().unstick),
                None => {
                    pod = Pod::Unknown;
                    false
                }
            },
        };
        let known = pod != Pod::Unknown;
        let switch = right_now.map_or_else(|| self.switch(self.now()), |right_now| right_now.switch.clone());
        let allowed = Allowed {
            mode: self.wants_remedies(),
            stopped: switch.err(),
            permitted: permitted || !known,
            hung: self.config.unstick.hung,
            hung_after: self.config.unstick.hung_after,
            orphans: self.config.unstick.orphans,
        };
        let left = match surveyed {
            None => Err("nobody looked yet".to_owned()),
            Some((spec, survey)) => match (&survey.left, spec.uids.iter().position(|one| one == uid)) {
                (Ok(left), Some(index)) => left.get(index).cloned().ok_or_else(|| "nobody looked yet".to_owned()),
                (Ok(_), None) => Err("nobody looked yet".to_owned()),
                (Err(why), _) => Err(why.clone()),
            },
        };
        let survey = surveyed.map(|(_, survey)| survey);
        let mounts = mounts.iter().filter_map(|(id, member)| {
            let target = self.registry.targets.get(id)?;
            let listed = survey.and_then(|survey| survey.held.as_ref().ok()).is_none_or(|held| {
                let path = member.mountpoint.as_os_str().as_bytes();
                let same = |(dev, id)| (dev, id) == (target.dev, member.mount_id);
                held.iter().any(|held| held.host && same((held.dev, held.mount_id)) && held.path == path)
            });
            listed.then(|| self.dead_mount(uid, target, member, survey, unix))
        });
        (Case { uid: uid.to_owned(), pod, left, mounts: mounts.collect() }, allowed)
    }

    fn pod_by_names(&self, uid: &str, unix: UnixSeconds) -> Pod {
        match self.names.pod(uid) {
            Some(pod) => Pod::Known {
                overdue: pod.deletion.and_then(|at| passed(at, unix)).filter(|_| pod.terminating),
                stateful: pod.controller == STATEFUL,
            },
            None if self.names.is_complete() => self.orphan(uid),
            None => Pod::Unknown,
        }
    }

    fn pod_right_now(&self, uid: &str, right_now: &RightNow, unix: UnixSeconds) -> Pod {
        match &right_now.pod {
            PodNow::Unknown(_) => Pod::Unknown,
            PodNow::There { deletion, controller } => {
                Pod::Known { overdue: deletion.and_then(|at| passed(at, unix)), stateful: controller == STATEFUL }
            }
            // The list that the cluster's side keeps must agree.
            PodNow::Gone if self.names.is_complete() && self.names.pod(uid).is_none() => self.orphan(uid),
            PodNow::Gone => Pod::Unknown,
        }
    }

    fn orphan(&self, uid: &str) -> Pod {
        let since = self.unsticks.pods.get(uid).and_then(|standing| standing.orphan_since);
        let age = since.map_or(Duration::ZERO, |since| self.now().saturating_sub(since));
        Pod::Orphan { age, stateful: self.unsticks.remembered.get(uid).map(|pod| pod.stateful) }
    }

    fn dead_mount(
        &self,
        uid: &str,
        target: &Target,
        member: &Member,
        survey: Option<&Survey>,
        unix: UnixSeconds,
    ) -> DeadMount {
        let now = self.now();
        let held = survey.and_then(|survey| survey.held.as_ref().ok());
        let origin = &target.mount.origin;
        let connections = survey.and_then(|survey| survey.connections.as_ref().ok());
        let connected = connections.and_then(|connections| {
            let tcp = origin.proto.as_deref().is_some_and(|proto| proto.starts_with("tcp"));
            // What a proxy on this node keeps for the server is in nobody's table.
            let address = origin.address.filter(|address| {
                target.facts.is_nfs() && tcp && origin.proxy_port.is_none() && !address.is_loopback()
            })?;
            // Version 3 asks the portmapper where the server listens; the table does not say what it answered.
            let port =
                origin.port.filter(|_| origin.version.as_deref().is_some_and(|version| version.starts_with('4')));
            Some(connected(connections, address, port))
        });
        DeadMount {
            path: member.mountpoint.clone(),
            mount_id: member.mount_id,
            unique_mount_id: member.unique_mount_id,
            dev: target.dev,
            state: target.verdict.state,
            for_how_long: passed(target.since, unix).unwrap_or_default(),
            judged: self.is_fresh(target),
            fuse: target.facts.kind == Some(Kind::Fuse),
            others: held.map(|held| others(held, target.dev, uid)),
            blocked: if self.schedule.is_unreaped(target.dev) {
                Some(Duration::ZERO)
            } else {
                self.unsticks.blocked.get(&target.dev).map(|at| now.saturating_sub(*at))
            },
            connected,
        }
    }

    /// Its verdict is not older than one that is still shown as true, and comes from a look at this superblock.
    fn is_fresh(&self, target: &Target) -> bool {
        let looked = |target: &Target| {
            let Some(decision) = &target.decision else { return false };
            let age = self.now().saturating_sub(Duration::from_millis(decision.evidence.at_millis));
            let limit = Duration::from_millis(self.tuning(target.id).stale_after_millis);
            let observation = &decision.evidence.observation;
            age <= limit && !matches!(observation, Observation::NotRun(_) | Observation::Inherited { .. })
        };
        let waits = |target: &Target| {
            let observation = target.decision.as_ref().map(|decision| &decision.evidence.observation);
            matches!(
                observation,
                Some(
                    Observation::Inherited { .. }
                        | Observation::NotRun(NotRun::Overloaded(_) | NotRun::ThroughDeadMount(_))
                )
            )
        };
        // One target of a superblock that does not answer is tried for all of them.
        let sibling = |other: &Target| {
            other.dev == target.dev && other.verdict.state == State::Hung && !other.verdict.inherited && looked(other)
        };
        looked(target)
            // The worker that looked is in the kernel still, and nobody else may look meanwhile.
            || (target.verdict.state == State::Hung && self.schedule.is_unreaped(target.dev))
            || (target.verdict.state == State::Hung && waits(target) && self.registry.targets.values().any(sibling))
    }
}

pub(in crate::agent) fn is_dead(target: &Target) -> bool {
    matches!(target.verdict.state, State::Hung | State::Stale | State::Lost)
}

/// How long ago; `None`: it lies in the future.
fn passed(at: UnixSeconds, now: UnixSeconds) -> Option<Duration> {
    Duration::try_from_secs_f64(now - at).ok()
}
