//! The built coordinator against the fake API server: what it evicts, what it does not, and what it leaves behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common {
    #![allow(
        dead_code,
        unreachable_pub,
        clippy::indexing_slicing,
        reason = "shared: each test crate uses its part of it"
    )]
    pub mod apiserver;
    pub mod coordinator;
    pub mod shop;
    pub mod wait;
}

use std::time::{Duration, Instant};

use common::apiserver::{Fault, On, Order};
use common::coordinator::Coordinator;
use common::shop::Cluster;
use common::wait::{PATIENCE, eventually};
use serde_json::json;

/// Long enough for a round and more: what has not happened by then does not happen.
const ROUNDS: Duration = Duration::from_secs(7);

/// A Lease of a dead holder, and a round.
const TAKEOVER: Duration = Duration::from_secs(45);

#[test]
fn a_pod_that_a_new_one_would_heal_is_evicted_once_with_its_uid_and_its_replacement_ends_it() {
    let cluster = Cluster::with_history();
    cluster.web(1);
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    let call = eventually("an eviction", PATIENCE, || cluster.evictions().into_iter().next());
    assert_eq!(call.path, "/api/v1/namespaces/shop/pods/web-0/eviction");
    assert_eq!(
        call.body,
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web-0", "namespace": "shop"},
            "deleteOptions": {"preconditions": {"uid": "u0"}}})
    );
    assert_eq!(call.status, 201);
    eventually("the Event", PATIENCE, || cluster.event("web-0", "MountEvictionRequested"));
    eventually("in flight", PATIENCE, || coordinator.metrics().contains("coordinator_in_flight 1\n").then_some(()));
    cluster.replaced("web-0", "web-9", "u9", true);
    cluster.asks("n0", &[]);
    eventually("the history says done", PATIENCE, || {
        let history = cluster.history("enforce");
        (history["records"][0]["replacement"] == "u9" && history["records"][0]["stage"]["done"]["at"].is_i64())
            .then_some(())
    });
    eventually("nothing in flight", PATIENCE, || {
        coordinator.metrics().contains("coordinator_in_flight 0\n").then_some(())
    });
    assert_eq!(cluster.evictions().len(), 1);
    let metrics = coordinator.metrics();
    for sample in [
        "mountwarden_remedies_total{action=\"evict\",result=\"accepted\"} 1\n",
        "mountwarden_coordinator_decisions_total{guard=\"none\"} 1\n",
        "mountwarden_remedy_enabled{action=\"evict\"} 1\n",
        "mountwarden_coordinator_leader 1\n",
    ] {
        assert!(metrics.contains(sample), "{sample}{metrics}");
    }
    let told = &coordinator.decisions()[0];
    assert_eq!((&told["decision"], &told["pod"], &told["uid"]), (&json!("evict"), &json!("web-0"), &json!("u0")));
    assert!(told["evidence"].as_str().unwrap().contains("is stale (handle_invalid)"), "{told}");
}

#[test]
fn with_the_defaults_nobody_is_evicted() {
    let cluster = Cluster::with_history();
    cluster.web(1);
    let coordinator = Coordinator::start(&cluster, &[]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    eventually("a refusal", PATIENCE, || coordinator.refused("web-0", "mode"));
    assert!(cluster.evictions().is_empty());
    assert!(coordinator.metrics().contains("mountwarden_remedy_enabled{action=\"evict\"} 0\n"));
}

#[test]
fn a_dry_run_goes_the_whole_way_and_changes_nothing() {
    let cluster = Cluster::with_history();
    cluster.web(1);
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "dry-run"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    let call = eventually("a dry eviction", PATIENCE, || cluster.evictions().into_iter().next());
    assert_eq!(call.body["deleteOptions"], json!({"dryRun": ["All"], "preconditions": {"uid": "u0"}}));
    eventually("the Event", PATIENCE, || cluster.event("web-0", "MountEvictionRequested"));
    assert!(cluster.pod("web-0")["metadata"]["deletionTimestamp"].is_null());
    eventually("it says so once", PATIENCE, || coordinator.refused("web-0", "repeated"));
    assert_eq!(cluster.evictions().len(), 1);
    assert_eq!(cluster.history("dry-run")["records"][0]["stage"], "simulated");
    assert_eq!(cluster.history("enforce")["records"], json!([]), "what is played is not mixed up with what is done");
}

#[test]
fn without_a_history_it_waits_and_begins_one() {
    let cluster = Cluster::new();
    cluster.web(1);
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    eventually("a refusal", PATIENCE, || coordinator.refused("web-0", "history"));
    assert!(cluster.history("enforce")["began"].as_i64().unwrap() > 1_700_000_000);
    assert!(cluster.evictions().is_empty());
    assert!(coordinator.metrics().contains("mountwarden_coordinator_history_known 0\n"));
}

#[test]
fn a_damaged_history_counts_as_unknown_and_is_begun_anew() {
    let cluster = Cluster::with_history();
    cluster.set_history("enforce", "{\"version\":1,\"began\":0,");
    cluster.web(1);
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    eventually("a refusal", PATIENCE, || coordinator.refused("web-0", "history"));
    assert!(cluster.history("enforce")["began"].as_i64().unwrap() > 1_700_000_000);
    assert!(cluster.evictions().is_empty());
}

#[test]
fn a_history_that_is_deleted_in_between_stops_everything() {
    let cluster = Cluster::with_history();
    cluster.web(2);
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    eventually("an eviction", PATIENCE, || cluster.evictions().into_iter().next());
    cluster.api.remove("configmaps", "default", "mountwarden-history");
    cluster.replaced("web-0", "web-9", "u9", true);
    cluster.asks("n0", &[]);
    cluster.asks("n1", &[cluster.request("web-1", "u1")]);
    eventually("a refusal", PATIENCE, || coordinator.refused("web-1", "history"));
    assert_eq!(cluster.evictions().len(), 1);
}

#[test]
fn the_kill_switch_stops_and_lets_go_on() {
    let cluster = Cluster::with_history();
    cluster.web(1);
    cluster.stop(Some("true"));
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    let told = eventually("a refusal", PATIENCE, || coordinator.refused("web-0", "kill_switch"));
    assert!(told.to_string().contains("says stop"), "{told}");
    assert!(cluster.evictions().is_empty());
    cluster.stop(None);
    cluster.keeps_asking(|| cluster.evictions().first().cloned());
}

#[test]
fn a_kill_switch_that_cannot_be_read_counts_as_set() {
    let cluster = Cluster::with_history();
    cluster.web(1);
    cluster.api.fault(On::read("configmaps/mountwarden-remedy"), Fault::Status(403));
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    let told = eventually("a refusal", PATIENCE, || coordinator.refused("web-0", "kill_switch"));
    assert!(told.to_string().contains("cannot be read"), "{told}");
    assert!(cluster.evictions().is_empty());
}

#[test]
fn a_budget_that_says_no_is_asked_again_with_growing_pauses() {
    let cluster = Cluster::with_history();
    cluster.web(1);
    cluster.budget("pdb", 0, 2, 2, 3);
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    let begun = Instant::now();
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    cluster.keeps_asking(|| (cluster.evictions().len() == 2).then_some(()));
    let calls = cluster.evictions();
    assert!(calls.iter().all(|call| call.status == 429));
    assert!(calls[1].at.duration_since(calls[0].at) >= Duration::from_secs(9), "{:?}", begun.elapsed());
    eventually("said", PATIENCE, || coordinator.refused("web-0", "backoff"));
    eventually("the Event", PATIENCE, || cluster.event("web-0", "MountEvictionBlocked"));
    cluster.budget("pdb", 1, 3, 2, 3);
    cluster.keeps_asking(|| cluster.evictions().iter().any(|call| call.status == 201).then_some(()));
    assert_eq!(cluster.evictions().len(), 3);
}

#[test]
fn a_budget_that_can_never_allow_it_is_named_and_not_tried() {
    let cluster = Cluster::with_history();
    cluster.web(1);
    cluster.budget("pdb", 0, 3, 3, 3);
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    let told = eventually("a refusal", PATIENCE, || coordinator.refused("web-0", "budget_never"));
    assert!(told["words"].as_str().unwrap().contains("pdb wants all of its pods healthy"), "{told}");
    let event = eventually("the Event", PATIENCE, || cluster.event("web-0", "MountEvictionRefused"));
    assert!(event["note"].as_str().unwrap().contains("unhealthyPodEvictionPolicy: AlwaysAllow"), "{event}");
    // Another guard says no a moment later: its words are not lost in a count of the first one's.
    cluster.annotate("web-0", Some("none"));
    cluster.keeps_asking(|| {
        let refused = |event: &serde_json::Value| event["reason"] == "MountEvictionRefused";
        let events = cluster.api.objects("events").into_iter().filter(refused);
        events
            .filter_map(|event| event["note"].as_str().map(str::to_owned))
            .find(|note| note.contains("mountwarden.io/remedy on the pod"))
    });
    assert!(cluster.evictions().is_empty());
}

#[test]
fn two_budgets_over_one_pod_are_refused_before_the_server_says_500() {
    let cluster = Cluster::with_history();
    cluster.web(1);
    cluster.budget("a", 1, 3, 2, 3);
    cluster.budget("b", 1, 3, 2, 3);
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    let told = eventually("a refusal", PATIENCE, || coordinator.refused("web-0", "several_budgets"));
    assert!(told["words"].as_str().unwrap().ends_with("a, b"), "{told}");
    assert!(cluster.evictions().is_empty());
}

#[test]
fn what_the_server_answers_is_never_repeated_blindly() {
    let cases = [
        (Fault::Status(404), "pod_gone"),
        (Fault::Status(409), "other_pod"),
        (Fault::Status(410), "pod_gone"),
        (Fault::Status(403), "not_allowed"),
        (Fault::Status(503), "unread"),
        (Fault::TooMany { retry_after: 1 }, "backoff"),
        (Fault::Reset, "unread"),
        (Fault::Silent, "unread"),
    ];
    for (fault, guard) in cases {
        let cluster = Cluster::with_history();
        cluster.web(1);
        cluster.api.fault(On::path("/eviction"), fault.clone());
        let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
        cluster.asks("n0", &[cluster.request("web-0", "u0")]);
        eventually(&format!("{fault:?} is {guard}"), PATIENCE, || coordinator.refused("web-0", guard));
        cluster.stays_so(ROUNDS, || cluster.evictions().len() == 1);
    }
}

#[test]
fn a_namesake_is_not_evicted() {
    let cluster = Cluster::with_history();
    cluster.web(1);
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u-of-the-one-before")]);
    eventually("a refusal", PATIENCE, || coordinator.refused("web-0", "other_pod"));
    assert!(cluster.evictions().is_empty());
}

#[test]
fn a_node_that_lies_gets_nothing_of_other_nodes_and_ten_thousand_requests_are_two_hundred() {
    let cluster = Cluster::with_history();
    cluster.web(3);
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    let mut lies: Vec<_> = (0..10_000).map(|n| cluster.request(&format!("none-{n}"), &format!("x{n}"))).collect();
    for (pod, uid) in [("web-1", "u1"), ("web-2", "u2")] {
        let mut first = cluster.request(pod, uid);
        first["since"] = json!("2026-01-01T00:00:00Z");
        lies.insert(0, first);
    }
    cluster.asks("n0", &lies);
    eventually("a refusal", PATIENCE, || coordinator.refused("web-1", "other_node"));
    eventually("a refusal", PATIENCE, || coordinator.refused("web-2", "other_node"));
    assert!(cluster.evictions().is_empty());
    let metrics = coordinator.metrics();
    assert!(metrics.contains("coordinator_requests 200\n") && metrics.contains("left_out 9802\n"), "{metrics}");
    assert!(cluster.event("web-1", "MountEvictionRefused").is_none(), "no Event about pods of other nodes");
}

#[test]
fn a_node_that_asks_for_hundreds_takes_nobody_elses_turn() {
    let cluster = Cluster::with_history();
    cluster.web(2);
    let lies: Vec<_> = (0..200).map(|n| cluster.request(&format!("none-{n}"), &format!("x{n}"))).collect();
    cluster.asks("n0", &lies);
    cluster.asks("n1", &[cluster.request("web-1", "u1")]);
    let _coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    let call = eventually("an eviction", PATIENCE, || cluster.evictions().into_iter().next());
    assert!(call.path.contains("web-1"), "{}", call.path);
}

#[test]
fn a_volume_of_another_server_than_the_request_says_is_no_reason() {
    let cluster = Cluster::with_history();
    cluster.web(1);
    let mut request = cluster.request("web-0", "u0");
    request["server"] = json!("elsewhere");
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks_of("n0", "elsewhere", &[request]);
    eventually("a refusal", PATIENCE, || coordinator.refused("web-0", "volume"));
    assert!(cluster.evictions().is_empty());
}

#[test]
fn tenants_annotations_forbid_and_out_and_nonsense_counts_as_none() {
    for (annotation, guard) in [(Some("none"), "forbidden"), (Some("evcit"), "forbidden")] {
        let cluster = Cluster::with_history();
        cluster.web(1);
        cluster.annotate("web-0", annotation);
        let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
        cluster.asks("n0", &[cluster.request("web-0", "u0")]);
        eventually("a refusal", PATIENCE, || coordinator.refused("web-0", guard));
        assert!(cluster.evictions().is_empty());
    }
}

#[test]
fn the_api_server_gone_in_the_middle_means_no_action_and_afterwards_all_goes_on() {
    let cluster = Cluster::with_history();
    cluster.web(2);
    let coordinator = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    eventually("an eviction", PATIENCE, || cluster.evictions().into_iter().next());
    cluster.api.go_down();
    eventually("it does not lead any more", TAKEOVER, || {
        coordinator.metrics().contains("mountwarden_coordinator_leader 0\n").then_some(())
    });
    assert_eq!(coordinator.get("/healthz").0, 200, "the loop is alive all the same");
    cluster.api.come_up();
    cluster.replaced("web-0", "web-9", "u9", true);
    cluster.api.order(Order::Run);
    let asked = |name: &str| cluster.evictions().iter().filter(|call| call.path.contains(name)).count();
    cluster.asks("n0", &[]);
    cluster.keeps_asking_for("n1", "web-1", "u1", || (asked("web-1") > 0).then_some(()));
    assert_eq!((asked("web-0"), asked("web-1")), (1, 1));
}

#[test]
fn of_two_coordinators_one_acts_and_the_other_takes_over_when_it_is_killed() {
    let cluster = Cluster::with_history();
    cluster.web(2);
    let mut first = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    eventually("the first leads", PATIENCE, || first.metrics().contains("coordinator_leader 1\n").then_some(()));
    let second = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    eventually("an eviction", PATIENCE, || cluster.evictions().into_iter().next());
    assert!(second.metrics().contains("coordinator_leader 0\n") && second.decisions().as_array().unwrap().is_empty());
    first.kill();
    cluster.replaced("web-0", "web-9", "u9", true);
    cluster.asks("n0", &[]);
    let asked = |name: &str| cluster.evictions().iter().filter(|call| call.path.contains(name)).count();
    cluster.keeps_asking_for("n1", "web-1", "u1", || (asked("web-1") > 0).then_some(()));
    assert_eq!((asked("web-0"), asked("web-1")), (1, 1));
    assert!(second.metrics().contains("coordinator_leader 1\n"));
}

#[test]
fn killed_between_decision_and_call_the_next_leader_sees_the_reservation_and_adds_nothing() {
    let cluster = Cluster::with_history();
    cluster.web(1);
    cluster.api.fault_times(1, On::path("/eviction"), Fault::Silent);
    let mut first = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.asks("n0", &[cluster.request("web-0", "u0")]);
    eventually("the reservation", PATIENCE, || {
        (cluster.history("enforce")["records"][0]["stage"] == "reserved").then_some(())
    });
    first.kill();
    let calls = cluster.evictions().len();
    let second = Coordinator::start(&cluster, &["--remedy-mode", "enforce"]);
    cluster.keeps_asking(|| second.refused("web-0", "repeated"));
    assert!(second.metrics().contains("coordinator_in_flight 1\n"));
    assert_eq!(cluster.evictions().len(), calls);
}

#[test]
fn a_leader_that_ends_gives_the_lease_up() {
    let cluster = Cluster::with_history();
    let mut coordinator = Coordinator::start(&cluster, &[]);
    eventually("it leads", PATIENCE, || coordinator.metrics().contains("coordinator_leader 1\n").then_some(()));
    let lease = |cluster: &Cluster| cluster.api.object("leases", "default", "mountwarden-coordinator").unwrap();
    assert!(lease(&cluster)["spec"]["holderIdentity"].is_string());
    assert_eq!(coordinator.terminate(), Some(0));
    assert!(lease(&cluster)["spec"]["holderIdentity"].is_null());
}
