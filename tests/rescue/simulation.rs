//! 300 pods on one dead server: who is rescued when.

use mountwarden::cluster::node_mounts::GateRoot;
use mountwarden::config::RemedyMode;
use mountwarden::coordinator::facts::Budget;
use mountwarden::coordinator::guard::Blind;
use mountwarden::coordinator::history::History;
use mountwarden::coordinator::time::Time;

use crate::coordinator::{Process, Step, Store};
use crate::invariants;
use crate::world::{Node, START, Server, Workload, World};

const NODES: usize = 30;
const WORKLOADS: usize = 60;
const REPLICAS: usize = 5;

/// 60 Deployments of five replicas on 30 nodes, in ten namespaces, half of them with a budget that allows one disruption.
fn large(in_flight: usize) -> World {
    let mut world = World::empty(7);
    world.remedy.mode = RemedyMode::Enforce;
    world.remedy.in_flight = in_flight;
    // An image that is there, a probe after a few seconds.
    world.start_up = (5, 20);
    world.servers = vec![Server::new()];
    world.nodes = (0..NODES).map(|_| Node { alive: true, ..Node::default() }).collect();
    world.namespaces = vec![Some("evict"); 10];
    for at in 0..WORKLOADS {
        let budget = Budget {
            name: "pdb".to_owned(),
            allowed: 1,
            healthy: 5,
            desired: 4,
            expected: 5,
            always_allow_unhealthy: false,
            pod_ready: true,
        };
        let budgets = if at % 2 == 0 { vec![budget] } else { Vec::new() };
        let workload = Workload { budgets, ..Workload::plain(at % 10) };
        world.add(workload, REPLICAS);
        for pod in at * REPLICAS..(at + 1) * REPLICAS {
            world.pods[pod].completed = false;
            world.pods[pod].node = pod % NODES;
        }
    }
    world
}

/// A budget allows what is healthy beyond four, as its controller counts.
fn count_budgets(world: &mut World) {
    for at in (0..WORKLOADS).step_by(2) {
        let ready = (0..world.pods.len()).filter(|pod| world.pods[*pod].workload == at && world.ready(*pod)).count();
        let budget = &mut world.workloads[at].budgets[0];
        budget.healthy = i32::try_from(ready).unwrap();
        budget.allowed = (budget.healthy - budget.desired).max(0);
    }
}

/// Seconds after the server is back at which each of the 300 pods was evicted, in order.
fn rescue(in_flight: usize) -> (Vec<i64>, i64) {
    let mut world = large(in_flight);
    let mut store = Store::new(Some(History::begin(Time(START - 100_000)).text()));
    let mut process = Process::new();
    process.leads = true;
    // Ten minutes of outage.
    world.servers[0].up = false;
    for _ in 0..600 {
        world.pass(1);
        one(&mut world, &mut process, &mut store);
    }
    assert!(world.calls.is_empty(), "somebody was evicted while the server was down");
    world.replace(0);
    world.servers[0].root = GateRoot::Same;
    let back = world.now;
    while world.done.len() < WORKLOADS * REPLICAS {
        world.pass(1);
        count_budgets(&mut world);
        step(&mut world, &mut process, &mut store);
        assert!(world.now - back < 6 * 3600, "only {} were rescued", world.done.len());
    }
    assert!(world.done.iter().all(|done| done.pod < WORKLOADS * REPLICAS), "a replacement was evicted");
    let times = world.done.iter().map(|done| done.at - back).collect();
    while invariants::all_rescued(&world).is_err() || (0..world.pods.len()).any(|pod| !settled(&world, pod)) {
        world.pass(1);
    }
    (times, world.now - back)
}

fn settled(world: &World, pod: usize) -> bool {
    world.pods[pod].gone || world.ready(pod)
}

/// What a round of a second does: an eviction takes a dozen calls of milliseconds.
fn step(world: &mut World, process: &mut Process, store: &mut Store) {
    for _ in 0..3 * world.remedy.in_flight {
        one(world, process, store);
    }
}

fn one(world: &mut World, process: &mut Process, store: &mut Store) {
    let before = world.done.len();
    if let Step::Decided(record, request) = process.step(world, store, Blind::NONE) {
        invariants::decided(world, process, &record, &request).unwrap();
    }
    if world.done.len() > before {
        invariants::evicted(world, process).unwrap();
    }
}

#[test]
fn three_hundred_pods_of_a_dead_server_are_rescued_in_order_and_within_the_budgets() {
    println!("| remedy.in_flight | first | 10 % | half | 90 % | last evicted | last one Ready |");
    println!("|---|---|---|---|---|---|---|");
    // The others are for `make model`: without optimisation each takes minutes.
    let all: &[usize] = if std::env::var_os("MOUNTWARDEN_HISTORIES").is_some() { &[5, 10, 20] } else { &[5] };
    for &in_flight in all {
        let (times, last) = rescue(in_flight);
        let at = |percent: usize| minutes(times[(times.len() * percent / 100).min(times.len() - 1)]);
        println!(
            "| {in_flight} | {} | {} | {} | {} | {} | {} |",
            minutes(times[0]),
            at(10),
            at(50),
            at(90),
            at(100),
            minutes(last)
        );
        assert_eq!(times.len(), 300);
        assert!(times[0] <= 60, "the first pod waits for {} s", times[0]);
    }
}

fn minutes(seconds: i64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
