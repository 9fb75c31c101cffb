//! What a node costs the API server.

use std::time::Duration;

use super::bench::{Bench, dead, healthy};
use crate::verdict::State;

/// At scale 20 three seconds are a minute.
const SCALE: u32 = 20;

#[test]
fn requests_of_a_node_idle_and_in_a_fault_of_a_hundred_pods() {
    let bench = Bench::start(SCALE);
    let hundred: Vec<usize> = (0..100).collect();
    bench.pods(100, "data");
    bench.show(&[healthy("srv:/a", &hundred)]);
    bench.until("the names", |bench| bench.names().iter().count() == 100 && bench.volume_known(0));
    bench.until("the condition", |bench| bench.condition()["status"] == "True");
    bench.until("nm", |bench| bench.node_mounts()["status"]["healthy"] == 1);
    let start = bench.server.asked().len();
    bench.server.forget_asked();

    let minutes = 5_u32;
    std::thread::sleep(Duration::from_secs(60) * minutes / SCALE);
    let idle = bench.server.asked();
    bench.server.forget_asked();

    bench.show(&[dead("srv:/a", State::Hung, &hundred, 1000.0)]);
    let took = bench.until("all Events", |bench| bench.stats().events_sent.get("MountHung") == Some(&101));
    bench.until("False", |bench| bench.condition()["status"] == "False");
    bench.until("nm", |bench| bench.node_mounts()["status"]["pods"] == 100);
    let fault = bench.server.asked();
    let events = fault.iter().filter(|asked| asked.path.contains("/events")).count();
    println!("start, 100 pods of one claim: {start} requests");
    println!("idle: {} requests in {minutes} minutes (scaled): {:?}", idle.len(), kinds(&idle));
    println!("fault of 100 pods: {} requests ({events} Events) in {:?} real: {:?}", fault.len(), took, kinds(&fault));
    // Heartbeat each minute, one watch in 5 to 10 minutes, now and then a refresh.
    assert!(idle.len() <= 20, "{:?}", kinds(&idle));
    assert!((101..=105).contains(&events), "one per pod and one for the claim: {events}");
    assert!(fault.len() <= events + 12, "{:?}", kinds(&fault));
}

fn kinds(asked: &[crate::apiserver::Asked]) -> std::collections::BTreeMap<String, usize> {
    let mut kinds = std::collections::BTreeMap::new();
    for asked in asked {
        let place = asked.path.split('/').rfind(|word| word.chars().all(|c| c.is_ascii_lowercase()));
        let watch = if asked.is_watch() { "WATCH" } else { &asked.method };
        *kinds.entry(format!("{watch} {}", place.unwrap_or("?"))).or_insert(0) += 1;
    }
    kinds
}

#[test]
fn ten_thousand_events_in_a_minute_are_not_sent() {
    let bench = Bench::start(SCALE);
    bench.pods(600, "data");
    bench.until("the names", |bench| bench.names().iter().count() == 600 && bench.volume_known(599));
    let all: Vec<usize> = (0..600).collect();
    for round in 0..9 {
        for state in [State::Hung, State::Stale] {
            bench.show(&[dead("srv:/a", state, &all, 1000.0 + f64::from(round))]);
            std::thread::sleep(Duration::from_millis(30));
        }
    }
    let count = || bench.server.asked_for("POST", "/events").len() + bench.server.asked_for("PATCH", "/events").len();
    std::thread::sleep(Duration::from_secs(3));
    let stats = bench.stats();
    let dropped: u64 = stats.events_dropped.values().sum();
    println!(
        "wanted over 1200: sent {}, waiting {}, dropped {:?}",
        count(),
        stats.events_waiting,
        stats.events_dropped
    );
    // The burst, and one each 150 ms for the 4 s that this takes.
    assert!(count() <= 120 + 60, "{}", count());
    assert!(stats.events_waiting <= 512 && dropped > 0, "{stats:?}");
}
