use std::time::Duration;

use super::*;
use crate::cluster::node_mounts::{GateRoot, ServerSeen};
use crate::config::{OnReplaced, RemedyMode};
use crate::coordinator::facts::{Budget, Owner, OwnerKind, VolumeServer};
use crate::coordinator::guard::Holds;
use crate::coordinator::history::MAX_RECORDS;
use crate::coordinator::request::Gate;
use crate::verdict::{Cause, State};

const NOW: Time = Time(1_790_000_000);

/// One pod on one dead mount, with everything that a decision about it depends on. As it stands, nothing forbids to evict it.
#[derive(Clone)]
struct Scene {
    remedy: Remedy,
    unstick: Unstick,
    wall: Time,
    leader: bool,
    stopped: Option<String>,
    history: Option<History>,
    nodes: Vec<NodeView>,
    node: String,
    request: Request,
    read: Read,
}

impl Scene {
    fn allowed() -> Scene {
        let remedy = Remedy { mode: RemedyMode::Enforce, ..Remedy::default() };
        let request = request("web-1", "u1");
        Scene {
            remedy,
            unstick: Unstick::default(),
            wall: NOW,
            leader: true,
            stopped: None,
            history: Some(History::begin(Time(NOW.0 - 100_000))),
            nodes: vec![view("n1", 1, 1), view("n2", 0, 0), view("n3", 0, 0)],
            node: "n1".to_owned(),
            request,
            read: Read::Facts(Box::new(facts("u1"))),
        }
    }

    fn round(&self, blind: Blind) -> Round<'_> {
        Round {
            remedy: &self.remedy,
            unstick: &self.unstick,
            wall: self.wall,
            leader: self.leader,
            stopped: self.stopped.as_deref(),
            history: self.history.as_ref(),
            nodes: &self.nodes,
            blind,
        }
    }

    fn decide(&self, blind: Blind) -> Decision {
        let case = Case { node: &self.node, request: &self.request, read: &self.read };
        let decisions = self.round(blind).plan(&[case]);
        assert_eq!(decisions.len(), 1);
        decisions.into_iter().next().unwrap().1
    }

    fn facts(&mut self) -> &mut Facts {
        match &mut self.read {
            Read::Facts(facts) => facts,
            _ => panic!("no facts"),
        }
    }

    fn records(&mut self) -> &mut Vec<Record> {
        &mut self.history.as_mut().unwrap().records
    }
}

fn request(pod: &str, uid: &str) -> Request {
    Request {
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        uid: uid.to_owned(),
        volume: "data".to_owned(),
        server: "srv".to_owned(),
        export: "/e".to_owned(),
        state: State::Stale,
        cause: Cause::HandleInvalid,
        since: Time(NOW.0 - 600),
        refreshed: Time(NOW.0 - 5),
        gate: Gate {
            first: Some(Time(NOW.0 - 60)),
            second: Some(Time(NOW.0 - 25)),
            root: GateRoot::Same,
            names_found: 0,
            names_known: 0,
            words: "the same root both times".to_owned(),
        },
    }
}

fn facts(uid: &str) -> Facts {
    Facts {
        uid: uid.to_owned(),
        node: "n1".to_owned(),
        created: Time(NOW.0 - 50_000),
        terminating: false,
        completed: false,
        mirror: false,
        owner: Owner { kind: OwnerKind::Controller, workload: "Deployment/web".to_owned() },
        controller: "rs".to_owned(),
        volume: Some(VolumeServer::Named("srv".to_owned())),
        local_data: false,
        safe_to_evict_denied: false,
        critical: false,
        pod_annotation: None,
        namespace_annotation: Some("evict,unstick".to_owned()),
        node_annotation: None,
        budgets: Vec::new(),
        newest_sibling: Time(NOW.0 - 40_000),
    }
}

fn view(node: &str, dead: u32, gates_open: u32) -> NodeView {
    let seen = ServerSeen { server: "srv".to_owned(), mounts: 2, dead, gates_open };
    NodeView { node: node.to_owned(), servers: vec![seen], ..NodeView::default() }
}

/// Another pod's eviction, which touches nothing of the scene.
fn record(uid: &str) -> Record {
    Record {
        at: Time(NOW.0 - 20),
        namespace: "other".to_owned(),
        pod: uid.to_owned(),
        uid: uid.to_owned(),
        node: format!("node-of-{uid}"),
        workload: format!("Deployment/{uid}"),
        controller: "rs".to_owned(),
        server: "srv".to_owned(),
        replaced: true,
        newest: Time(NOW.0 - 30_000),
        stage: Stage::Accepted,
        tries: 0,
        replacement: None,
    }
}

fn budget() -> Budget {
    Budget {
        name: "pdb".to_owned(),
        allowed: 1,
        healthy: 3,
        desired: 2,
        expected: 3,
        always_allow_unhealthy: false,
        pod_ready: true,
    }
}

/// The scene in which only this guard stands between the fault and the eviction; none for those that are no rule of the
/// planner: what cannot be read or understood, and what the API server answers.
fn only(guard: Guard) -> Option<Scene> {
    let mut scene = Scene::allowed();
    let s = &mut scene;
    match guard {
        Guard::Mode => s.remedy.mode = RemedyMode::Observe,
        Guard::Leader => s.leader = false,
        Guard::KillSwitch => s.stopped = Some("it is set".to_owned()),
        Guard::History => s.history = Some(History::begin(Time(NOW.0 - 1799))),
        Guard::HistoryFull => {
            *s.records() = (0..MAX_RECORDS).map(|n| record(&format!("o{n}"))).collect();
            s.records().iter_mut().for_each(|record| record.stage = Stage::Done { at: NOW });
        }
        Guard::Stale => s.request.refreshed = Time(NOW.0 - 61),
        Guard::State => s.request.state = State::Hung,
        Guard::Gate => s.request.gate.second = Some(Time(NOW.0 - 31)),
        Guard::GateUnknown => s.request.gate.root = GateRoot::Unknown,
        Guard::OtherData => s.request.gate.root = GateRoot::Different,
        Guard::EmptyData => s.request.gate.root = GateRoot::Empty,
        Guard::Fleet => s.nodes = vec![view("n1", 1, 1), view("n2", 1, 0), view("n3", 0, 0)],
        Guard::Breaker => {
            *s.records() = ["a", "b", "c"].map(record).to_vec();
            s.records().iter_mut().for_each(|record| record.stage = Stage::NotReady { at: NOW });
        }
        Guard::OtherPod => s.facts().uid = "u2".to_owned(),
        Guard::OtherNode => s.facts().node = "n2".to_owned(),
        Guard::Terminating => s.facts().terminating = true,
        Guard::Completed => s.facts().completed = true,
        Guard::Mirror => s.facts().mirror = true,
        Guard::Volume => s.facts().volume = None,
        Guard::Forbidden => s.facts().node_annotation = Some("none".to_owned()),
        Guard::OptIn => s.facts().namespace_annotation = None,
        Guard::Bare => s.facts().owner.kind = OwnerKind::None,
        Guard::DaemonSet => s.facts().owner.kind = OwnerKind::DaemonSet,
        Guard::Job => s.facts().owner.kind = OwnerKind::Job,
        Guard::VirtualMachine => s.facts().owner.kind = OwnerKind::VirtualMachine,
        Guard::LocalData => s.facts().local_data = true,
        Guard::SafeToEvict => s.facts().safe_to_evict_denied = true,
        Guard::Critical => s.facts().critical = true,
        Guard::SeveralBudgets => s.facts().budgets = vec![budget(), budget()],
        Guard::BudgetNever => s.facts().budgets = vec![Budget { allowed: 0, healthy: 3, desired: 3, ..budget() }],
        Guard::NegativeBudget => s.facts().budgets = vec![Budget { allowed: -1, healthy: 1, ..budget() }],
        Guard::Repeated => s.records().push(Record { stage: Stage::NoEffect { at: NOW }, ..record("u1") }),
        Guard::Backoff => {
            let stage = Stage::Refused { until: Time(NOW.0 + 1) };
            s.records().push(Record { stage, ..record("u1") });
        }
        Guard::Replacement => {
            let created = s.facts().created;
            s.records().push(Record { newest: Time(created.0 - 1), stage: Stage::Done { at: NOW }, ..web("u0") });
        }
        Guard::NotReady => s.records().push(Record { stage: Stage::NotReady { at: NOW }, ..web("u0") }),
        Guard::OnePerWorkload => s.records().push(web("u0")),
        Guard::OnePerNode => s.records().push(Record { node: "n1".to_owned(), ..record("a") }),
        Guard::NamespaceShare => {
            s.records().extend(["a", "b"].map(|uid| Record { namespace: "shop".to_owned(), ..record(uid) }));
        }
        Guard::InFlight => s.records().extend(["a", "b", "c", "d", "e"].map(record)),
        Guard::Malformed | Guard::Queued | Guard::PodGone | Guard::Unread | Guard::NotAllowed => return None,
        // The agent's alone: it never asks for such a pod.
        Guard::HostPath => return None,
    }
    Some(scene)
}

/// An earlier eviction of the same workload.
fn web(uid: &str) -> Record {
    Record { namespace: "shop".to_owned(), workload: "Deployment/web".to_owned(), ..record(uid) }
}

#[test]
fn as_it_stands_nothing_forbids_it() {
    let Decision::Evict(record) = Scene::allowed().decide(Blind::NONE) else { panic!("refused") };
    assert_eq!((record.namespace.as_str(), record.pod.as_str(), record.uid.as_str()), ("shop", "web-1", "u1"));
    assert_eq!((record.stage, record.at), (Stage::Reserved, NOW));
}

#[test]
fn each_guard_alone_stands_between_the_fault_and_the_eviction() {
    let mut tested = 0;
    for guard in Guard::ALL.iter().copied() {
        let Some(scene) = only(guard) else { continue };
        match scene.decide(Blind::NONE) {
            Decision::Refuse(refusal) => assert_eq!(refusal.guard, guard, "{}", refusal.words()),
            Decision::Evict(_) => panic!("{guard} lets it pass"),
        }
        let without = scene.decide(Blind::to(guard));
        assert!(matches!(without, Decision::Evict(_)), "{guard} does not stand alone: {without:?}");
        tested += 1;
    }
    assert_eq!(tested, Guard::ALL.len() - 6);
}

#[test]
fn what_is_not_known_of_a_pod_is_no_reason_to_act() {
    let reads = [
        (Read::Gone, Guard::PodGone),
        (Read::Failed("budgets: timeout".to_owned()), Guard::Unread),
        (Read::NotYet, Guard::Queued),
    ];
    for (read, guard) in reads {
        let scene = Scene { read, ..Scene::allowed() };
        assert!(matches!(scene.decide(Blind::NONE), Decision::Refuse(refusal) if refusal.guard == guard));
    }
    let scene = Scene { history: None, ..Scene::allowed() };
    assert!(matches!(scene.decide(Blind::NONE), Decision::Refuse(refusal) if refusal.guard == Guard::History));
}

fn refused(change: impl FnOnce(&mut Scene)) -> Option<Guard> {
    let mut scene = Scene::allowed();
    change(&mut scene);
    match scene.decide(Blind::NONE) {
        Decision::Evict(_) => None,
        Decision::Refuse(refusal) => Some(refusal.guard),
    }
}

#[test]
fn a_request_is_fresh_for_sixty_seconds_and_never_from_the_future() {
    let at = |age: i64| refused(|s| s.request.refreshed = Time(NOW.0 - age));
    assert_eq!(at(60), None);
    assert_eq!(at(61), Some(Guard::Stale));
    assert_eq!(at(-10), None);
    assert_eq!(at(-11), Some(Guard::Stale));
    assert_eq!(at(3600), Some(Guard::Stale));
}

#[test]
fn only_stale_and_lost_are_healed_by_a_new_pod() {
    for state in State::ALL {
        let guard = refused(|s| s.request.state = state);
        let heals = matches!(state, State::Stale | State::Lost);
        assert_eq!(guard, (!heals).then_some(Guard::State), "{state:?}");
    }
}

#[test]
fn a_hung_mount_leads_to_an_eviction_only_where_its_release_is_allowed() {
    let hung = |cause, change: fn(&mut Scene)| {
        refused(|s| {
            s.unstick.hung = true;
            s.request.state = State::Hung;
            s.request.cause = cause;
            change(s);
        })
    };
    assert_eq!(hung(Cause::ClientStuck, |_| ()), None);
    assert_eq!(hung(Cause::AddressChanged, |_| ()), None);
    assert_eq!(hung(Cause::ServerUnreachable, |_| ()), Some(Guard::State));
    assert_eq!(hung(Cause::ClientStuck, |s| s.unstick.hung = false), Some(Guard::State));
    let evict = |s: &mut Scene| s.facts().namespace_annotation = Some("evict".to_owned());
    assert_eq!(hung(Cause::ClientStuck, evict), Some(Guard::State), "unstick is not allowed there");
    let set = |s: &mut Scene| s.facts().owner.kind = OwnerKind::StatefulSet;
    assert_eq!(hung(Cause::ClientStuck, set), Some(Guard::State), "never StatefulSet pods");
    assert_eq!(refused(|s| s.facts().owner.kind = OwnerKind::StatefulSet), None, "a stale one leaves by itself");
}

#[test]
fn the_gate_needs_two_trials_a_grace_apart_and_the_last_one_young() {
    let gate = |first: Option<i64>, second: Option<i64>| {
        refused(|s| {
            s.request.gate.first = first.map(|age| Time(NOW.0 - age));
            s.request.gate.second = second.map(|age| Time(NOW.0 - age));
        })
    };
    assert_eq!(gate(Some(30), Some(0)), None);
    assert_eq!(gate(Some(29), Some(0)), Some(Guard::Gate));
    assert_eq!(gate(Some(60), None), Some(Guard::Gate));
    assert_eq!(gate(None, Some(0)), Some(Guard::Gate));
    assert_eq!(gate(Some(0), Some(60)), Some(Guard::Gate), "in the wrong order");
    assert_eq!(gate(Some(900), Some(300)), None);
    assert_eq!(gate(Some(900), Some(301)), Some(Guard::Gate), "too long ago");
    assert_eq!(gate(Some(60), Some(-11)), Some(Guard::Gate), "in the future");
}

#[test]
fn other_data_is_refused_unless_half_of_the_names_are_there_or_it_is_wanted() {
    let root = |root, found, known, on_replaced| {
        refused(|s| {
            s.remedy.evict_on_replaced = on_replaced;
            s.request.gate.root = root;
            (s.request.gate.names_found, s.request.gate.names_known) = (found, known);
        })
    };
    use OnReplaced::{Always, Never, SameNames};
    assert_eq!(root(GateRoot::Different, 2, 4, SameNames), None);
    assert_eq!(root(GateRoot::Different, 1, 4, SameNames), Some(Guard::OtherData));
    assert_eq!(root(GateRoot::Different, 0, 0, SameNames), Some(Guard::OtherData), "nothing was known");
    assert_eq!(root(GateRoot::Different, 4, 4, Never), Some(Guard::OtherData));
    assert_eq!(root(GateRoot::Different, 0, 4, Always), None);
    assert_eq!(root(GateRoot::Different, u32::MAX, u32::MAX, SameNames), None);
    for empty in [GateRoot::Empty, GateRoot::Pseudo] {
        assert_eq!(root(empty, 4, 4, SameNames), Some(Guard::EmptyData));
        assert_eq!(root(empty, 4, 4, Never), Some(Guard::EmptyData));
        assert_eq!(root(empty, 0, 4, Always), None);
    }
    assert_eq!(root(GateRoot::Unknown, 4, 4, Always), Some(Guard::GateUnknown), "what cannot be told is no yes");
    assert_eq!(root(GateRoot::Same, 0, 4, Never), None);
}

#[test]
fn another_filesystem_behind_the_same_handle_is_other_data() {
    let guard = refused(|s| {
        s.request.state = State::Lost;
        s.request.cause = Cause::FilesystemReplaced;
    });
    assert_eq!(guard, Some(Guard::OtherData));
}

#[test]
fn an_outage_is_seen_over_all_nodes() {
    let nodes = |nodes: Vec<NodeView>| refused(|s| s.nodes = nodes);
    assert_eq!(nodes(vec![view("n1", 1, 1), view("n2", 1, 0), view("n3", 0, 0), view("n4", 0, 0)]), None, "half");
    assert_eq!(nodes(vec![view("n1", 1, 1), view("n2", 1, 1), view("n3", 2, 2)]), None, "all gates are open");
    assert_eq!(nodes(vec![view("n1", 2, 1)]), Some(Guard::Fleet), "a single node is more than half");
    assert_eq!(nodes(vec![view("n1", 1, 1)]), None);
    assert_eq!(nodes(vec![view("n2", 1, 1)]), Some(Guard::Fleet), "the node that asks does not report the server");
    assert_eq!(nodes(vec![view("n1", 0, 0), view("n2", 0, 0)]), Some(Guard::Fleet), "nor any dead mount of it");
}

#[test]
fn the_pods_own_opt_in_lifts_what_protects_it_and_a_namespace_does_not() {
    let own = |annotation: &str| {
        refused(|s| {
            s.facts().owner.kind = OwnerKind::Job;
            s.facts().local_data = true;
            s.facts().critical = true;
            s.facts().safe_to_evict_denied = true;
            s.facts().pod_annotation = Some(annotation.to_owned());
        })
    };
    assert_eq!(own("evict"), None);
    assert_eq!(own("unstick"), Some(Guard::Forbidden));
    assert_eq!(own("evcit"), Some(Guard::Forbidden), "nonsense is none");
    let never = |change: fn(&mut Facts)| {
        refused(|s| {
            s.facts().pod_annotation = Some("evict".to_owned());
            change(s.facts());
        })
    };
    assert_eq!(never(|facts| facts.mirror = true), Some(Guard::Mirror));
    assert_eq!(never(|facts| facts.completed = true), Some(Guard::Completed));
}

#[test]
fn without_require_opt_in_nobody_needs_to_ask_and_none_still_wins() {
    let all = |annotation: Option<&str>| {
        refused(|s| {
            s.remedy.require_opt_in = false;
            s.facts().namespace_annotation = annotation.map(str::to_owned);
        })
    };
    assert_eq!(all(None), None);
    assert_eq!(all(Some("none")), Some(Guard::Forbidden));
}

#[test]
fn a_volume_that_does_not_say_its_server_is_believed_and_one_that_says_another_is_not() {
    let volume = |volume| refused(|s| s.facts().volume = Some(volume));
    assert_eq!(volume(VolumeServer::Unsaid), None);
    assert_eq!(volume(VolumeServer::Named("elsewhere".to_owned())), Some(Guard::Volume));
}

#[test]
fn the_other_originals_follow_once_the_last_replacement_is_ready() {
    let after = |stage| refused(|s| s.records().push(Record { stage, ..web("u0") }));
    assert_eq!(after(Stage::Done { at: NOW }), None);
    assert_eq!(after(Stage::NotReady { at: NOW }), Some(Guard::NotReady));
    assert_eq!(after(Stage::Reserved), Some(Guard::OnePerWorkload));
}

#[test]
fn a_replacement_is_left_alone_for_a_cool_down_on_that_server_only() {
    let replacement = |age: i64, server: &str| {
        refused(|s| {
            let newest = Time(s.facts().created.0 - 1);
            let at = Time(NOW.0 - age);
            let server = server.to_owned();
            s.records().push(Record { newest, at, server, stage: Stage::Done { at }, ..web("u0") });
        })
    };
    assert_eq!(replacement(1799, "srv"), Some(Guard::Replacement));
    assert_eq!(replacement(1800, "srv"), None);
    assert_eq!(replacement(60, "other"), None);
}

#[test]
fn in_flight_ends_after_two_minutes_at_the_latest() {
    let flying = |age: i64| {
        refused(|s| {
            let records = ["a", "b", "c", "d", "e"].map(|uid| Record { at: Time(NOW.0 - age), ..record(uid) });
            s.records().extend(records);
        })
    };
    assert_eq!(flying(119), Some(Guard::InFlight));
    assert_eq!(flying(120), None);
}

#[test]
fn one_round_evicts_one_per_node_and_workload_half_per_namespace_and_five_in_all() {
    let scene = Scene::allowed();
    let nodes: Vec<NodeView> = (0..40).map(|n| view(&format!("n{n}"), 1, 1)).collect();
    let mut round = scene.round(Blind::NONE);
    round.nodes = &nodes;
    let mut requests = Vec::new();
    let mut reads = Vec::new();
    for n in 0..40 {
        let mut request = request(&format!("p{n}"), &format!("u{n}"));
        request.namespace = format!("ns{}", n % 4);
        let mut facts = facts(&format!("u{n}"));
        facts.node = format!("n{n}");
        facts.owner.workload = format!("Deployment/w{}", n / 8);
        requests.push(request);
        reads.push(Read::Facts(Box::new(facts)));
    }
    let names: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
    let cases: Vec<Case<'_>> =
        requests.iter().zip(&reads).zip(&names).map(|((request, read), node)| Case { node, request, read }).collect();
    let decisions = round.plan(&cases);
    let evicted: Vec<&Record> = decisions
        .iter()
        .filter_map(|(_, decision)| match decision {
            Decision::Evict(record) => Some(&**record),
            Decision::Refuse(_) => None,
        })
        .collect();
    assert_eq!(evicted.len(), 5);
    for namespace in 0..4 {
        assert!(evicted.iter().filter(|record| record.namespace == format!("ns{namespace}")).count() <= 2);
    }
    let mut workloads: Vec<_> = evicted.iter().map(|record| (&record.namespace, &record.workload)).collect();
    workloads.sort();
    workloads.dedup();
    assert_eq!(workloads.len(), 5, "one per workload");
}

#[test]
fn the_one_that_waited_longest_comes_first_and_who_was_refused_comes_later() {
    let mut scene = Scene::allowed();
    let (mut old, young) = (request("old", "o"), request("young", "y"));
    old.since = Time(NOW.0 - 9000);
    let round = scene.round(Blind::NONE);
    assert!(round.turn(&old) < round.turn(&young));
    let stage = Stage::Refused { until: NOW };
    scene.records().push(Record { stage, tries: 1, ..record("o") });
    let round = scene.round(Blind::NONE);
    assert!(round.turn(&old) > round.turn(&young));
}

#[test]
fn a_clock_set_back_keeps_everything_closed() {
    let mut scene = Scene::allowed();
    scene.history.as_mut().unwrap().written = Time(NOW.0 + 3600);
    assert!(matches!(scene.decide(Blind::NONE), Decision::Refuse(refusal) if refusal.guard == Guard::History));
}

#[test]
fn dry_run_and_enforce_decide_alike() {
    for guard in Guard::ALL.iter().copied().filter(|guard| *guard != Guard::Mode) {
        let Some(enforce) = only(guard) else { continue };
        let mut dry = enforce.clone();
        dry.remedy.mode = RemedyMode::DryRun;
        assert_eq!(enforce.decide(Blind::NONE), dry.decide(Blind::NONE), "{guard}");
    }
    let mut dry = Scene::allowed();
    dry.remedy.mode = RemedyMode::DryRun;
    assert_eq!(dry.decide(Blind::NONE), Scene::allowed().decide(Blind::NONE));
}

#[test]
fn every_refusal_says_what_holds_and_what_to_do() {
    for guard in Guard::ALL.iter().copied() {
        let refusal = Refusal::new(guard, "x");
        assert!(refusal.sentence().starts_with("not evicted: ") && refusal.sentence().ends_with('.'), "{guard}");
        assert!(!guard.says().ends_with('.') && guard.advice().ends_with('.'), "{guard}");
        assert!(guard.as_str().chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{guard}");
        assert!(guard.holds() == Holds::Permanent || !refusal.sentence().contains("for ever"), "{guard}");
    }
}

#[test]
fn the_evidence_names_mount_state_and_trials() {
    let scene = Scene::allowed();
    let case = Case { node: &scene.node, request: &scene.request, read: &scene.read };
    let words = words::evidence(&case);
    for part in ["volume data (srv:/e) is stale (handle_invalid) since 20", "the same directory", " and 20"] {
        assert!(words.contains(part), "{words}");
    }
}

#[test]
fn long_waits_do_not_overflow() {
    assert_eq!(refused(|s| s.remedy.cool_down = Duration::MAX), Some(Guard::History));
}
