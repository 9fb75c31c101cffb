use super::*;
use proptest::prelude::*;

const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";

fn path(below: &str) -> PathBuf {
    PathBuf::from(format!("/var/lib/kubelet/pods/{UID}/{below}"))
}

fn hung(below: &str) -> DeadMount {
    DeadMount {
        path: path(below),
        mount_id: 7,
        unique_mount_id: None,
        dev: Dev { major: 0, minor: 44 },
        state: State::Hung,
        for_how_long: Duration::from_secs(1000),
        judged: true,
        fuse: false,
        others: Some(Vec::new()),
        blocked: Some(Duration::from_secs(1)),
        connected: Some(false),
    }
}

fn stale(below: &str) -> DeadMount {
    DeadMount { state: State::Stale, blocked: None, connected: Some(true), others: None, ..hung(below) }
}

const VOLUME: &str = "volumes/kubernetes.io~nfs/data";

fn case(mounts: Vec<DeadMount>) -> Case {
    let pod = Pod::Known { overdue: Some(Duration::from_secs(60)), stateful: false };
    Case { uid: UID.to_owned(), pod, left: Ok(Left::default()), mounts }
}

const ALL: Allowed = Allowed {
    mode: true,
    stopped: None,
    permitted: true,
    hung: true,
    hung_after: Duration::from_secs(900),
    orphans: true,
};

fn other(name: &str) -> Holder {
    Holder { pod: None, name: name.to_owned() }
}

fn alone(case: &Case, allowed: &Allowed) -> Result<Plan, Refusal> {
    plan(case, allowed, &BTreeSet::new())
}

fn orphan(age: Duration) -> Pod {
    Pod::Orphan { age, stateful: Some(false) }
}

fn stuck(pids: &[i32]) -> Left {
    Left { processes: pids.to_vec(), ..Left::default() }
}

/// For each guard a case in which only that guard stands between the pod and its release.
fn only(guard: Guard) -> (Case, Allowed) {
    let (mut this, mut allowed) = (case(vec![hung(VOLUME)]), ALL);
    let second = Duration::from_secs(1);
    match guard {
        Guard::Mode => allowed.mode = false,
        Guard::KillSwitch => allowed.stopped = Some("it is set".to_owned()),
        Guard::Forbidden => allowed.permitted = false,
        Guard::PodUnknown => this.pod = Pod::Unknown,
        Guard::NotTerminating => this.pod = Pod::Known { overdue: None, stateful: false },
        Guard::Grace => this.pod = Pod::Known { overdue: Some(AFTER_GRACE - second), stateful: false },
        Guard::Orphan => (this.pod, allowed.orphans) = (orphan(ORPHAN_AFTER), false),
        Guard::OrphanYoung => this.pod = orphan(ORPHAN_AFTER - second),
        Guard::ProcessesUnknown => this.left = Err("/proc/7/cgroup: Permission denied".to_owned()),
        Guard::ProcessAlive => this.left = Ok(Left { alive: vec![9], ..stuck(&[9]) }),
        Guard::NothingDead => this.mounts.clear(),
        Guard::NotThePods => this.uid = UID.replace('0', "1"),
        Guard::NotJudged => this.mounts = vec![DeadMount { judged: false, ..hung(VOLUME) }],
        Guard::NotDead => this.mounts = vec![DeadMount { state: State::Healthy, ..hung(VOLUME) }],
        Guard::ProcessLeft => (this.mounts, this.left) = (vec![stale(VOLUME)], Ok(stuck(&[9]))),
        Guard::Hung => allowed.hung = false,
        Guard::Stateful => this.pod = Pod::Known { overdue: Some(Duration::from_secs(60)), stateful: true },
        Guard::HungYoung => {
            this.mounts = vec![DeadMount { for_how_long: ALL.hung_after - second, ..hung(VOLUME) }];
        }
        Guard::SharedUnknown => this.mounts = vec![DeadMount { others: None, ..hung(VOLUME) }],
        Guard::Shared => {
            let others = ["shop/a", "shop/b", "/mnt/x", "shop/c"].map(other).to_vec();
            this.mounts = vec![DeadMount { others: Some(others), ..hung(VOLUME) }];
        }
        Guard::NobodyBlocked => {
            this.mounts = vec![DeadMount { blocked: Some(BLOCKED_WITHIN + second), ..hung(VOLUME) }];
        }
        Guard::ConnectionUnknown => this.mounts = vec![DeadMount { connected: None, ..hung(VOLUME) }],
        Guard::Connected => this.mounts = vec![DeadMount { connected: Some(true), ..hung(VOLUME) }],
    }
    (this, allowed)
}

#[test]
fn each_guard_alone_forbids_it() {
    assert!(alone(&case(vec![hung(VOLUME)]), &ALL).is_ok());
    for guard in Guard::ALL {
        let (case, allowed) = only(*guard);
        assert_eq!(alone(&case, &allowed).map_err(|refusal| refusal.guard), Err(*guard), "{guard}");
        assert!(!guard.says().is_empty() && !guard.advice().is_empty());
    }
}

#[test]
fn a_refusal_says_what_is_particular_about_it() {
    let (case, allowed) = only(Guard::Shared);
    let refusal = alone(&case, &allowed).unwrap_err();
    assert!(refusal.detail.ends_with("data: shop/a, shop/b, /mnt/x and 1 more"), "{}", refusal.detail);
}

#[test]
fn killed_writers_in_the_kernel_are_no_obstacle_for_what_hangs() {
    let case = Case { left: Ok(stuck(&[17, 18])), ..case(vec![hung(VOLUME)]) };
    let plan = alone(&case, &ALL).unwrap();
    assert_eq!(plan.releases.len(), 1);
    assert_eq!(plan.releases[0].0, Manner::Abort);
}

#[test]
fn a_fuse_mount_has_no_connection_to_wait_for() {
    let fuse = DeadMount { fuse: true, connected: None, ..hung("volumes/kubernetes.io~csi/pv/mount") };
    assert!(alone(&case(vec![fuse]), &ALL).is_ok());
}

#[test]
fn what_answers_is_detached_even_where_hung_mounts_are_not_released() {
    let allowed = Allowed { hung: false, ..ALL };
    let plan = alone(&case(vec![stale(VOLUME)]), &allowed).unwrap();
    assert_eq!(plan.releases, [(Manner::Detach, vec![stale(VOLUME)])]);
}

#[test]
fn sub_paths_go_before_their_volume_and_what_blocks_goes_first() {
    let (sub, deep) = (hung("volume-subpaths/data/app/0"), hung("volume-subpaths/data/app/0/below"));
    let mounts = vec![stale("volumes/kubernetes.io~nfs/other"), hung(VOLUME), sub.clone(), deep.clone()];
    let plan = alone(&case(mounts), &ALL).unwrap();
    assert_eq!(
        plan.releases,
        [
            (Manner::Abort, vec![deep, sub, hung(VOLUME)]),
            (Manner::Detach, vec![stale("volumes/kubernetes.io~nfs/other")]),
        ]
    );
}

#[test]
fn one_mount_that_may_not_go_keeps_all_of_them() {
    let shared = DeadMount { others: Some(vec![other("/mnt/x")]), ..hung("volumes/kubernetes.io~nfs/other") };
    let refused = alone(&case(vec![hung(VOLUME), shared]), &ALL);
    assert_eq!(refused.unwrap_err().guard, Guard::Shared);
}

const NEIGHBOUR: &str = "1c3f8e7d-9f0c-4c29-8a40-6d7a1f7e5a11";

/// A pod on the same superblock as the one of [`case`].
fn neighbours(allowed: Allowed) -> [(Case, Allowed); 2] {
    let with = |uid: &str, other: &str| {
        let holder = Holder { pod: Some(other.to_owned()), name: format!("pod {other}") };
        let path = PathBuf::from(format!("/var/lib/kubelet/pods/{uid}/{VOLUME}"));
        let mount = DeadMount { path, others: Some(vec![holder]), ..hung(VOLUME) };
        Case { uid: uid.to_owned(), ..case(vec![mount]) }
    };
    [(with(UID, NEIGHBOUR), ALL), (with(NEIGHBOUR, UID), allowed)]
}

#[test]
fn pods_on_one_superblock_go_together_or_not_at_all() {
    assert!(plan_together(&neighbours(ALL)).iter().all(Result::is_ok));
    let plans = plan_together(&neighbours(Allowed { permitted: false, ..ALL }));
    let guards: Vec<Guard> = plans.into_iter().map(|plan| plan.unwrap_err().guard).collect();
    assert_eq!(guards, [Guard::Shared, Guard::Forbidden], "who stays keeps the other");
}

/// The agent tries a mount on which nobody is blocked at once; "shared" would have it wait.
#[test]
fn each_pod_on_one_superblock_is_told_its_own_refusal() {
    let mut cases = neighbours(ALL);
    for (case, _) in &mut cases {
        case.mounts.iter_mut().for_each(|mount| mount.blocked = None);
    }
    let guards: Vec<Guard> = plan_together(&cases).into_iter().map(|plan| plan.unwrap_err().guard).collect();
    assert_eq!(guards, [Guard::NobodyBlocked, Guard::NobodyBlocked]);
}

#[test]
fn an_orphan_of_an_unknown_maker_is_let_go_only_from_what_answers() {
    let unknown = Pod::Orphan { age: ORPHAN_AFTER, stateful: None };
    let with = |mounts| Case { pod: unknown.clone(), ..case(mounts) };
    assert!(alone(&with(vec![stale(VOLUME)]), &ALL).is_ok());
    assert_eq!(alone(&with(vec![hung(VOLUME)]), &ALL).unwrap_err().guard, Guard::Stateful);
    assert!(alone(&Case { pod: orphan(ORPHAN_AFTER), ..case(vec![hung(VOLUME)]) }, &ALL).is_ok());
}

#[test]
fn killed_writers_on_what_hangs_do_not_keep_what_is_stale() {
    let mounts = vec![stale("volumes/kubernetes.io~nfs/other"), hung(VOLUME)];
    let case = Case { left: Ok(stuck(&[17])), ..case(mounts) };
    assert_eq!(alone(&case, &ALL).unwrap().releases.len(), 2);
}

proptest! {
    #[test]
    fn however_the_guards_are_combined_one_of_them_is_enough(
        chosen in proptest::sample::select(Guard::ALL),
        seconds in 0u64..2000,
        blocked in proptest::option::of(0u64..30),
        pids in 0usize..3,
    ) {
        let (mut case, allowed) = only(chosen);
        for mount in &mut case.mounts {
            mount.for_how_long = mount.for_how_long.min(Duration::from_secs(seconds));
            mount.blocked = mount.blocked.and(blocked.map(Duration::from_secs));
        }
        if let Ok(left) = &mut case.left {
            left.processes.extend((0..pids).map(|pid| i32::try_from(pid).unwrap() + 100));
        }
        if !matches!(chosen, Guard::NobodyBlocked | Guard::HungYoung) {
            prop_assert!(alone(&case, &allowed).is_err());
        }
    }
}
