//! Doing what was decided, and looking at what came of it: in the host's mount table, and in the API.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::core::{Core, Event};
use super::node_allows;
use super::voice::Words;
use crate::cluster::{RightNow, Whom};
use crate::config::RemedyMode;
use crate::mounts::{Dev, View};
use crate::probe::canary::cgroup::CgroupSpec;
use crate::probe::image::Image;
use crate::probe::pool::Pool;
use crate::probe::schedule::Now;
use crate::probe::survey::SurveySpec;
use crate::remedy::release::{self, Manner, Outcome, Pace, ReleaseMount, ReleaseSpec};
use crate::remedy::unstick::{DeadMount, Plan};
use crate::verdict::State;

/// First pause after a release that failed; it doubles.
const RETRY: Duration = Duration::from_secs(30);
const LONGEST_RETRY: Duration = Duration::from_secs(600);

/// After the release the kubelet gets so long to let the pod go: it took 2 to 7 s (KUBELET.md 3b).
const KUBELET_TAKES: Duration = Duration::from_secs(60);

/// The kill switch is read again so soon while a release is under way: between two of its calls lies up to a second.
const SWITCH_AGAIN: Duration = Duration::from_millis(500);

/// What a release came to.
#[derive(Debug)]
pub(in crate::agent) struct Released {
    uid: String,
    plan: Plan,
    took: Duration,
    calls: usize,
    /// Why it is not done, or not proven.
    failure: Option<String>,
}

impl Core {
    /// Does what the last decision about a pod allows.
    pub(super) fn carry_out(&mut self, uid: &str) {
        let now = self.now();
        let enforce = self.config.remedy.mode == RemedyMode::Enforce;
        let Some(standing) = self.unsticks.pods.get_mut(uid) else { return };
        let Some(Ok(plan)) = standing.decision.clone() else { return };
        let Some(asker) = self.unsticks.asker.clone() else { return };
        if !enforce {
            standing.not_before = now + LONGEST_RETRY;
            let first = !std::mem::replace(&mut standing.simulated, true);
            return self.tell_simulated(uid, &plan, first);
        }
        self.tell_begin(uid, &plan);
        self.unsticks.busy = true;
        self.unsticks.call_off.store(false, Ordering::Relaxed);
        let specs = self.release_specs(uid, &plan);
        let (image, call_off, pool) = (self.pool.image(), Arc::clone(&self.unsticks.call_off), self.pool.clone());
        let survey = SurveySpec {
            proc_root: self.config.proc_root.as_os_str().as_bytes().to_vec(),
            uids: Vec::new(),
            devs: plan.releases.iter().flat_map(|(_, mounts)| mounts).map(|mount| mount.dev).collect(),
        };
        self.unsticks.releasing.clone_from(&survey.devs);
        let uid = uid.to_owned();
        self.running.spawn(async move {
            let start = Instant::now();
            let mut release = pin!(let_go(&image, &specs, || !call_off.load(Ordering::Relaxed)));
            let (calls, mut failure) = tokio::select! {
                done = &mut release => done,
                why = stopped(|| asker.right_now(Whom::Nobody)) => {
                    call_off.store(true, Ordering::Relaxed);
                    let (calls, failure) = release.await;
                    // It may have come to its end all the same.
                    (calls, failure.and(Some(why)))
                }
            };
            let took = start.elapsed();
            if failure.is_none() {
                failure = still_there(&pool, &survey, &plan).await;
            }
            Event::Released(Box::new(Released { uid, plan, took, calls, failure }))
        });
    }

    fn release_specs(&self, uid: &str, plan: &Plan) -> Vec<ReleaseSpec> {
        let root = self.config.proc_root.clone();
        let host = self.host_view() == Some(View::Host);
        // Seen from the host's mount namespace proc is where it always is.
        let proc_root = if host { Path::new("/proc").to_owned() } else { root.clone() };
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let spec = |(manner, mounts): &(Manner, Vec<DeadMount>)| ReleaseSpec {
            pod_uid: uid.to_owned(),
            proc_root: bytes(&proc_root),
            namespace: if host { bytes(&root.join("1/ns/mnt")) } else { Vec::new() },
            mounts: mounts.iter().take(release::MAX_MOUNTS).map(release_mount).collect(),
            manner: *manner,
            cgroup: mounts.first().map(|mount| CgroupSpec {
                proc_root: bytes(&root),
                run: self.canaries.run().to_owned(),
                dev: mount.dev,
            }),
            pace: Pace::default(),
        };
        plan.releases.iter().map(spec).collect()
    }

    /// A release came to its end.
    pub(in crate::agent) fn on_released(&mut self, released: Released) {
        let now = self.now();
        self.unsticks.busy = false;
        self.unsticks.releasing.clear();
        self.unsticks.next = now;
        self.reread = true;
        self.news = true;
        let Some(standing) = self.unsticks.pods.get_mut(&released.uid) else { return };
        let Released { uid, plan, took, calls, failure } = released;
        let words = Words::of(&plan);
        match failure {
            None => {
                standing.released = Some(now);
                standing.failures = 0;
                self.tell_released(&uid, &words, took, calls);
            }
            Some(why) => {
                let pause = RETRY.saturating_mul(1 << standing.failures.min(8)).min(LONGEST_RETRY);
                standing.failures = standing.failures.saturating_add(1);
                standing.not_before = now + pause;
                self.tell_failed(&uid, &words, &why, pause);
            }
        }
    }

    /// What was released should be gone from the API too, by the kubelet's hand.
    pub(super) fn see_who_is_gone(&mut self) {
        let now = self.now();
        if !self.names.is_complete() {
            return;
        }
        let released: Vec<(String, Now)> =
            self.unsticks.pods.iter().filter_map(|(uid, pod)| Some((uid.clone(), pod.released?))).collect();
        for (uid, at) in released {
            let took = now.saturating_sub(at);
            if self.names.pod(&uid).is_none() {
                self.unsticks.pods.remove(&uid);
                self.tell_gone(&uid, took);
            } else if took > KUBELET_TAKES {
                if let Some(standing) = self.unsticks.pods.get_mut(&uid) {
                    standing.released = None;
                    standing.not_before = now + RETRY;
                }
                self.tell_stays(&uid, took);
            }
        }
    }

    /// The target answers again: a release that is under way has nothing to abort any more.
    pub(in crate::agent) fn call_off(&self, dev: Dev, state: State) {
        if state == State::Healthy && self.unsticks.releasing.contains(&dev) {
            self.unsticks.call_off.store(true, Ordering::Relaxed);
        }
    }
}

fn release_mount(mount: &DeadMount) -> ReleaseMount {
    ReleaseMount {
        path: mount.path.as_os_str().as_bytes().to_vec(),
        mount_id: mount.mount_id,
        unique_mount_id: mount.unique_mount_id,
        dev: mount.dev,
    }
}

/// Waits until remedies must not go on, and says why. What cannot be read stops, as before a release.
async fn stopped<Reading: Future<Output = RightNow>>(read: impl Fn() -> Reading) -> String {
    loop {
        let right_now = read().await;
        if let Err(why) = &right_now.switch {
            return why.clone();
        }
        if !node_allows(&right_now) {
            return "the annotation of the node forbids it now, or cannot be read".to_owned();
        }
        sleep(SWITCH_AGAIN).await;
    }
}

/// One release after the other; how often umount2 was called, and why it did not come to its end.
async fn let_go(image: &Image, specs: &[ReleaseSpec], go_on: impl Fn() -> bool) -> (usize, Option<String>) {
    let mut calls = 0;
    for spec in specs {
        let outcome = release::release(image, spec, |_| go_on()).await;
        calls += outcome.events().iter().filter(|(_, event)| matches!(event, release::Event::Called { .. })).count();
        let stopped = outcome.events().iter().find_map(|(_, event)| match event {
            release::Event::Stopped(stop) => Some(stop.to_string()),
            _ => None,
        });
        let failure = match &outcome {
            _ if outcome.released() => None,
            Outcome::Ended { .. } => Some(stopped.unwrap_or_else(|| "the worker stopped without a word".to_owned())),
            Outcome::Lost { why, .. } => Some(why.clone()),
            Outcome::NotStarted(error) => Some(format!("no worker can be started: {error}")),
        };
        if failure.is_some() {
            return (calls, failure);
        }
    }
    (calls, None)
}

/// What the host's mount table says afterwards is what counts, not what a call returned.
async fn still_there(pool: &Pool, survey: &SurveySpec, plan: &Plan) -> Option<String> {
    let held = match super::survey(pool, survey).await.and_then(|survey| survey.held) {
        Ok(held) => held,
        Err(why) => return Some(format!("it cannot be seen whether the mounts are gone: {why}")),
    };
    let mut mounts = plan.releases.iter().flat_map(|(_, mounts)| mounts);
    let left = mounts
        .find(|mount| held.iter().any(|held| held.host && (held.dev, held.mount_id) == (mount.dev, mount.mount_id)));
    left.map(|mount| format!("{} is still in the host's mount table", mount.path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::PodNow;
    use crate::pods::names::{Reading, RemedyWords};

    fn right_now(switch: Result<(), String>, node: Reading) -> RightNow {
        let remedy = RemedyWords { node, ..RemedyWords::default() };
        RightNow { switch, remedy, pod: PodNow::Unknown("not asked".to_owned()) }
    }

    /// How long it went on, and why no longer, when this is what is read after three seconds.
    async fn stops(then: RightNow) -> (Duration, String) {
        let start = Instant::now();
        let read = || async {
            if start.elapsed() < Duration::from_secs(3) { right_now(Ok(()), Reading::Read(None)) } else { then.clone() }
        };
        let why = stopped(read).await;
        (start.elapsed(), why)
    }

    #[tokio::test(start_paused = true)]
    async fn a_release_that_is_under_way_goes_on_only_as_long_as_the_switch_and_the_node_say_so() {
        let three = Duration::from_secs(3);
        let set = right_now(Err("stop: \"true\"".to_owned()), Reading::Read(None));
        assert_eq!(stops(set).await, (three, "stop: \"true\"".to_owned()));
        for node in [Reading::Read(Some("none".to_owned())), Reading::Unread] {
            let (after, why) = stops(right_now(Ok(()), node)).await;
            assert!(after == three && why.contains("node"), "{after:?} {why}");
        }
    }
}
