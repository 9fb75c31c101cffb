//! What would be done about each pod on a dead mount, or which guard says no (`mountwarden status --plan`).

use std::collections::BTreeMap;

use super::core::Core;
use super::target::Member;
use super::unstick::is_dead;
use crate::config::RemedyMode;
use crate::coordinator::guard::Guard;
use crate::mounts::octal;
use crate::pods::names::VolumeName;
use crate::probe::schedule::TargetId;
use crate::remedy::guards::with_detail;
use crate::remedy::unstick;
use crate::snapshot::{Intent, MountUser, PodPlan};
use crate::verdict::State;

/// Pods that are listed: as many as the largest nodes run.
const MOST: usize = 512;

impl Core {
    pub(super) fn plan(&self) -> Vec<PodPlan> {
        let suspects = self.suspects();
        let in_containers = self.in_containers_alone(|uid| suspects.contains_key(uid));
        let by_kubelet = suspects.into_iter().map(|(uid, mounts)| {
            let label = |(id, member): (TargetId, Member)| (id, octal::label(member.mountpoint.as_os_str()));
            let (unstick, asked) = (self.unstick_intent(&uid), mounts.iter().map(|(id, _)| *id).collect());
            self.pod_plan(uid, mounts.into_iter().map(label).collect(), asked, unstick)
        });
        let others = in_containers.into_iter().map(|(uid, mounts)| {
            let asked = mounts.iter().map(|(id, _)| *id).filter(|id| self.is_of_a_volume(&uid, *id)).collect();
            self.pod_plan(uid, mounts, asked, nothing_to_release())
        });
        by_kubelet.chain(others).take(MOST).collect()
    }

    /// `asked`: for which of its mounts a new pod would be asked.
    fn pod_plan(&self, uid: String, mounts: Vec<(TargetId, String)>, asked: Vec<TargetId>, unstick: Intent) -> PodPlan {
        let name = self.names.pod(&uid);
        let states = mounts.iter().filter_map(|(id, _)| self.registry.targets.get(id));
        let state = states.map(|target| target.verdict.state).max_by_key(|state| rank(*state));
        let (ids, mounts): (Vec<TargetId>, Vec<String>) = mounts.into_iter().unzip();
        PodPlan {
            namespace: name.map(|pod| pod.namespace.clone()).unwrap_or_default(),
            pod: name.map(|pod| pod.name.clone()).unwrap_or_default(),
            mounts,
            state: state.unwrap_or(State::Unknown),
            evict: self.evict_intent(&uid, &ids, &asked),
            unstick,
            pod_uid: uid,
        }
    }

    /// Pods whose containers alone have something that is dead: a mount of the host that they use (hostPath), or an old copy
    /// of what the host mounted anew.
    fn in_containers_alone(&self, known: impl Fn(&str) -> bool) -> BTreeMap<String, Vec<(TargetId, String)>> {
        let mut found: BTreeMap<String, Vec<(TargetId, String)>> = BTreeMap::new();
        for target in self.registry.targets.values().filter(|target| is_dead(target)) {
            for user in target.users.listed.iter().filter(|user| !known(&user.pod_uid)) {
                let Some(path) = &user.path else { continue };
                let container = user.container.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
                found.entry(user.pod_uid.clone()).or_default().push((target.id, format!("{path}{container}")));
            }
        }
        found
    }

    /// What a container has of the target is a volume of its pod that a kubelet mounts. Below a directory of the node
    /// (hostPath) may lie anything that the node has mounted, other pods' volumes among them.
    fn is_of_a_volume(&self, uid: &str, id: TargetId) -> bool {
        let (Some(target), pod) = (self.registry.targets.get(&id), self.names.pod(uid)) else { return false };
        let of_node = |user: &MountUser| {
            let volume = pod.and_then(|pod| pod.volume(&user.volume).or_else(|| pod.volume_in(&user.volume)));
            volume.is_some_and(VolumeName::is_of_the_node)
        };
        let mut users = target.users.listed.iter().filter(|user| user.pod_uid == uid && !user.volume.is_empty());
        users.any(|user| !of_node(user))
    }

    /// The agent's part of an eviction. Between the coordinator's guards, whose order it has, stands one of its own: nobody
    /// asks for what no kubelet mounts.
    fn evict_intent(&self, uid: &str, ids: &[TargetId], asked: &[TargetId]) -> Intent {
        if self.config.remedy.mode == RemedyMode::Observe {
            return evict_refused(Guard::Mode, "");
        }
        let dead = |id: &&TargetId| {
            let target = self.registry.targets.get(id);
            target.is_some_and(|target| matches!(target.verdict.state, State::Stale | State::Lost))
        };
        if !ids.iter().any(|id| dead(&id)) {
            return evict_refused(Guard::State, "");
        }
        let dead: Vec<&TargetId> = asked.iter().filter(dead).collect();
        if dead.is_empty() {
            return evict_refused(Guard::HostPath, "");
        }
        let absent = |id: &&TargetId| self.registry.targets.get(id).is_some_and(|target| target.absent.is_some());
        if dead.iter().all(absent) {
            let words = with_detail(Guard::Gate.says(), "the container has no mount there that could be tried anew");
            return Intent::refused(Guard::Gate.as_str(), words, "Restart the pod yourself: kubectl delete pod.");
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

/// Of a pod whose containers alone have a dead mount.
fn nothing_to_release() -> Intent {
    let guard = unstick::Guard::NothingDead;
    let advice = "Nothing: only what the kubelet has mounted keeps a pod in Terminating.";
    Intent::refused(guard.as_str(), guard.says().to_owned(), advice)
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::agent::containers::AbsentMount;
    use crate::agent::target::Target;
    use crate::config::Config;
    use crate::mounts::filter::Filter;
    use crate::mounts::{Process, View, mountinfo};
    use crate::pods::names::{PodName, PodNames, VolumeOrigin};
    use crate::probe::Identity;
    use crate::probe::image::Image;
    use crate::probe::pool::{Limits, Pool};
    use crate::verdict::OnHost;

    const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";

    /// The plan for a pod that has a lost mount by a volume of this origin, or below it, in its container alone.
    fn planned(origin: VolumeOrigin, volume_of_mount: &str) -> PodPlan {
        planned_when(origin, volume_of_mount, |_| ())
    }

    fn planned_when(origin: VolumeOrigin, volume_of_mount: &str, change: impl FnOnce(&mut Target)) -> PodPlan {
        let pool = Pool::new(Image::of_this_binary().unwrap(), Limits { warm: 1, max: 4, per_owner: 4 });
        let mut config = Config::default();
        config.remedy.mode = RemedyMode::DryRun;
        let mut core = Core::new(config, Filter::default(), pool, "node".to_owned(), true);
        let volume = VolumeName { volume: "files".into(), origin: Some(origin), ..VolumeName::default() };
        let pod = PodName { namespace: "shop".into(), name: "web".into(), volumes: vec![volume], ..PodName::default() };
        core.names = PodNames::new(HashMap::from([(UID.to_owned(), pod)]), true).into();
        let view = View::Container(Process { pid: 7, start: 1 });
        let line = "90 1 0:40 / /data rw - nfs4 srv:/x rw,addr=10.0.0.1\n";
        let mount = mountinfo::parse(line.as_bytes(), view).mounts.remove(0);
        let newcomer = crate::agent::registry::Newcomer { mount, through: None, label: None, owner: None, alone: true };
        let changes = core.registry.update_view(view, vec![newcomer]);
        let identity = Identity { handle: vec![1], ino: 2, unique_mount_id: None };
        let id = core.registry.identified(&changes.to_identify[0], Some(&identity), 0.0).unwrap();
        let target = core.registry.targets.get_mut(&id).unwrap();
        target.verdict.state = State::Lost;
        change(target);
        target.users.listed = vec![MountUser {
            pod_uid: UID.to_owned(),
            volume: volume_of_mount.to_owned(),
            container: Some("app".to_owned()),
            path: Some("/data".to_owned()),
            ..MountUser::default()
        }];
        let [plan] = &core.plan()[..] else { panic!("one pod: {:?}", core.plan()) };
        plan.clone()
    }

    #[tokio::test]
    async fn a_pod_that_uses_a_directory_of_its_node_is_refused_in_plain_words() {
        let plan = planned(VolumeOrigin::HostPath("/mnt/files".into()), "files");
        assert_eq!((plan.pod_label().as_str(), &*plan.mounts), ("shop/web", &["/data (app)".to_owned()][..]));
        assert_eq!((plan.evict.go, plan.evict.guard.as_deref()), (false, Some("host_path")));
        assert!(plan.evict.words.contains("hostPath") && plan.evict.advice.contains("kubectl delete pod"), "{plan:?}");
        assert_eq!((plan.unstick.go, plan.unstick.guard.as_deref()), (false, Some("nothing_dead")));
        let below = planned(VolumeOrigin::HostPath("/mnt".into()), "");
        assert_eq!(below.evict.guard.as_deref(), Some("host_path"), "and what lies mounted below it");
        let of_kubelet = planned(VolumeOrigin::Network { source: "srv:/x".into(), fstype: "nfs".into() }, "files");
        assert_eq!(of_kubelet.evict.guard.as_deref(), Some("gate"), "a fresh mount would be made for it");
    }

    #[tokio::test]
    async fn a_mount_that_a_container_lacks_is_not_waited_for() {
        let network = VolumeOrigin::Network { source: "srv:/x".into(), fstype: "nfs".into() };
        let plan = planned_when(network, "files", |target| {
            target.absent = Some(AbsentMount {
                uid: UID.to_owned(),
                container_id: None,
                directory: "pv-files".to_owned(),
                path: "/data".into(),
                label: "/data".into(),
                source: "srv:/x".to_owned(),
                fstype: "nfs4".to_owned(),
                what: OnHost::Missing,
            });
        });
        assert_eq!((plan.evict.go, plan.evict.guard.as_deref()), (false, Some("gate")));
        assert!(plan.evict.advice.contains("kubectl delete pod"), "{plan:?}");
    }
}
