//! What is said of releases: a log line, an Event and a count for each that was made, that failed, and that was refused.

use std::time::Duration;

use super::super::core::Core;
use super::super::unix_now;
use crate::cluster::Deed;
use crate::mounts::octal;
use crate::probe::schedule::Now;
use crate::remedy::guards::Holds;
use crate::remedy::release::Manner;
use crate::remedy::unstick::{Case, Guard, ORPHAN_AFTER, Plan, Pod};
use crate::snapshot::RemedyCount;

/// A refusal that may pass by itself is told when it stood for so long.
const TOLD_AFTER: Duration = Duration::from_secs(20);

/// Reasons of the Events.
const RELEASED: &str = "MountReleased";
const FAILED: &str = "MountReleaseFailed";
const REFUSED: &str = "MountReleaseRefused";
const ORPHANED: &str = "MountOrphaned";

/// A plan in words.
pub(super) struct Words {
    mounts: String,
    evidence: String,
    aborts: bool,
}

impl Words {
    pub(super) fn of(plan: &Plan) -> Words {
        let all = || plan.releases.iter().flat_map(|(_, mounts)| mounts);
        let path = |path: &std::path::Path| octal::label(path.as_os_str());
        Words {
            mounts: all().map(|mount| path(&mount.path)).collect::<Vec<_>>().join(", "),
            evidence: all()
                .map(|mount| format!("{} for {} s, device {}", mount.state, mount.for_how_long.as_secs(), mount.dev))
                .collect::<Vec<_>>()
                .join("; "),
            aborts: plan.releases.iter().any(|(manner, _)| *manner == Manner::Abort),
        }
    }

    fn consequence(&self) -> &'static str {
        if self.aborts {
            ". What was not written is lost, and nothing fences a request that the server has read already"
        } else {
            ""
        }
    }
}

impl Core {
    /// `namespace/name`, or the UID of a pod that nobody knew.
    fn pod_label(&self, uid: &str) -> String {
        let remembered = self.unsticks.remembered.get(uid).map(|pod| pod.full.clone());
        self.names.pod(uid).map(crate::pods::names::PodName::full).or(remembered).unwrap_or_else(|| uid.to_owned())
    }

    fn tell(&mut self, uid: &str, reason: &'static str, topic: &'static str, note: String) {
        let warning = reason != RELEASED;
        if let Some(asker) = &self.unsticks.asker {
            // What does not fit is in the log.
            let _ = asker.tell(Deed { pod_uid: uid.to_owned(), reason, topic, warning, note, at: unix_now() });
        }
    }

    fn count_remedy(&mut self, result: &'static str) {
        *self.unsticks.counts.entry(result).or_default() += 1;
        self.changed = true;
    }

    /// Releases by result.
    pub(in crate::agent) fn remedy_counts(&self) -> Vec<RemedyCount> {
        let count = |(result, count): (&&str, &u64)| RemedyCount {
            action: "unstick".to_owned(),
            result: (*result).to_owned(),
            count: *count,
        };
        self.unsticks.counts.iter().map(count).collect()
    }

    /// A refusal is told once, when it is no passing one.
    pub(super) fn tell_decision(&mut self, case: &Case, now: Now) {
        self.tell_orphan(case);
        let Some(standing) = self.unsticks.pods.get_mut(&case.uid) else { return };
        let Some(Err(refusal)) = standing.decision.clone() else { return };
        let guard = refusal.guard;
        let stood = now.saturating_sub(standing.refused_since);
        let quiet = matches!(guard, Guard::Mode | Guard::NotTerminating | Guard::Grace | Guard::OrphanYoung);
        let passes = guard.holds() == Holds::Wait && stood < TOLD_AFTER;
        if quiet || passes || standing.told == Some(guard) {
            return;
        }
        standing.told = Some(guard);
        self.count_remedy("refused");
        let (pod, words) = (self.pod_label(&case.uid), refusal.words());
        tracing::warn!(
            pod,
            pod_uid = case.uid,
            guard = guard.as_str(),
            detail = refusal.detail,
            advice = guard.advice(),
            "{pod}: its dead mounts are not released: {words}"
        );
        self.tell(&case.uid, REFUSED, guard.as_str(), format!("not released: {words}. {}", guard.advice()));
    }

    /// An orphan is reported whatever may be done about it.
    fn tell_orphan(&mut self, case: &Case) {
        let Pod::Orphan { age, .. } = case.pod else { return };
        let empty = case.left.as_ref().is_ok_and(|left| left.processes.is_empty());
        let Some(standing) = self.unsticks.pods.get_mut(&case.uid) else { return };
        if age < ORPHAN_AFTER || !empty || standing.orphan_told {
            return;
        }
        standing.orphan_told = true;
        let (pod, uid) = (self.pod_label(&case.uid), &case.uid);
        let mounts: Vec<String> = case.mounts.iter().map(|mount| octal::label(mount.path.as_os_str())).collect();
        let mounts = mounts.join(", ");
        tracing::warn!(
            pod,
            pod_uid = uid,
            mounts,
            "{pod}: the API has no such pod for {} s, it has no process, and its dead mounts are still there",
            age.as_secs()
        );
        self.tell(
            &case.uid,
            ORPHANED,
            "",
            format!(
                "pod {pod} ({}) is gone from the API, and left dead mounts: {mounts}. It was force-deleted; unstick.orphans releases them",
                case.uid
            ),
        );
    }

    pub(super) fn tell_begin(&mut self, uid: &str, plan: &Plan) {
        let (pod, words) = (self.pod_label(uid), Words::of(plan));
        tracing::info!(
            pod,
            pod_uid = uid,
            mounts = words.mounts,
            evidence = words.evidence,
            "{pod}: its dead mounts are released now"
        );
    }

    pub(super) fn tell_simulated(&mut self, uid: &str, plan: &Plan, first: bool) {
        if !first {
            return;
        }
        self.count_remedy("simulated");
        let (pod, words) = (self.pod_label(uid), Words::of(plan));
        let Words { mounts, evidence, .. } = &words;
        tracing::info!(pod, pod_uid = uid, mounts, evidence, "{pod}: dry run: its dead mounts would be released now");
        let note = format!("dry run: would release {mounts} ({evidence}){}", words.consequence());
        self.tell(uid, RELEASED, "simulated", note);
    }

    pub(super) fn tell_released(&mut self, uid: &str, words: &Words, took: Duration, calls: usize) {
        self.count_remedy("released");
        let (pod, seconds) = (self.pod_label(uid), took.as_secs_f64());
        let Words { mounts, evidence, .. } = words;
        tracing::warn!(
            pod,
            pod_uid = uid,
            mounts,
            evidence,
            seconds,
            calls,
            "{pod}: its dead mounts are out of the host's mount table"
        );
        let note =
            format!("released {mounts} ({evidence}) with {calls} calls in {seconds:.1} s{}", words.consequence());
        self.tell(uid, RELEASED, "", note);
    }

    pub(super) fn tell_failed(&mut self, uid: &str, words: &Words, why: &str, pause: Duration) {
        self.count_remedy("failed");
        let (pod, mounts) = (self.pod_label(uid), &words.mounts);
        tracing::error!(
            pod,
            pod_uid = uid,
            mounts,
            evidence = words.evidence,
            why,
            "{pod}: its dead mounts could not be released: {why}"
        );
        self.tell(uid, FAILED, "", format!("could not release {mounts}: {why}. Tried again in {} s", pause.as_secs()));
    }

    pub(super) fn tell_gone(&mut self, uid: &str, took: Duration) {
        let (pod, seconds) = (self.pod_label(uid), took.as_secs_f64());
        tracing::info!(
            pod,
            pod_uid = uid,
            seconds,
            "{pod}: gone from the API, {seconds:.1} s after its mounts were released"
        );
    }

    pub(super) fn tell_stays(&mut self, uid: &str, took: Duration) {
        self.count_remedy("pod_stays");
        let (pod, seconds) = (self.pod_label(uid), took.as_secs());
        tracing::error!(pod, pod_uid = uid, "{pod}: its mounts are gone for {seconds} s, but the API still has it");
        let note = format!(
            "its dead mounts are gone for {seconds} s, but the pod is still there. Look at its finalizers, and at the kubelet: systemctl restart kubelet frees threads that are stuck"
        );
        self.tell(uid, FAILED, "pod_stays", note);
    }
}
