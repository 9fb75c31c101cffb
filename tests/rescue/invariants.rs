//! What must hold in every world, said a second time, by the truth and without the planner.

use mountwarden::cluster::node_mounts::GateRoot;
use mountwarden::config::{OnReplaced, RemedyMode};
use mountwarden::coordinator::facts::OwnerKind;
use mountwarden::coordinator::history::Record;
use mountwarden::coordinator::request::Request;
use mountwarden::verdict::State;

use crate::coordinator::Process;
use crate::world::{Done, World, index, server_name};

/// Why a world is not as it should be.
pub(crate) type Broken = Result<(), &'static str>;

fn hold(holds: bool, says: &'static str) -> Broken {
    if holds { Ok(()) } else { Err(says) }
}

/// An eviction was decided.
pub(crate) fn decided(world: &World, process: &Process, record: &Record, request: &Request) -> Broken {
    hold(process.leads, "decided without the Lease")?;
    hold(world.remedy.mode != RemedyMode::Observe, "decided in observe")?;
    hold(!world.stop, "decided although the kill switch was set")?;
    let pod = index(&record.uid).filter(|pod| *pod < world.pods.len() && !world.pods[*pod].gone);
    let pod = pod.ok_or("decided on a UID that no pod has")?;
    the_pod(world, record, pod)?;
    permitted(world, pod)?;
    evidence(world, process, request)?;
    fleet(world, record)?;
    once(world, process, pod)?;
    breaker(world, record)
}

fn the_pod(world: &World, record: &Record, pod: usize) -> Broken {
    let here = &world.pods[pod];
    hold(here.name == record.pod, "decided on the wrong UID for this name")?;
    hold(format!("n{}", here.node) == record.node, "decided on a pod of another node than asked")?;
    hold(here.ends.is_none(), "decided on a pod that is Terminating")?;
    hold(!here.completed, "decided on a completed pod")?;
    let server = server_name(world.workload(pod).server);
    hold(server == record.server, "decided for a server that the pod does not mount")
}

/// Annotations and what protects a pod, told without the planner's own reading.
pub(crate) fn permitted(world: &World, pod: usize) -> Broken {
    let workload = world.workload(pod);
    let allows = |text: Option<&str>| matches!(text, None | Some("evict" | "evict,unstick"));
    let asks = |text: Option<&str>| matches!(text, Some("evict" | "evict,unstick"));
    let namespace = world.namespaces[workload.namespace];
    let node = world.nodes[world.pods[pod].node].annotation;
    let all = allows(workload.annotation) && allows(namespace) && allows(node);
    hold(all, "decided although an annotation forbids it")?;
    let opted = asks(workload.annotation) || asks(namespace) || !world.remedy.require_opt_in;
    hold(opted, "decided although nobody opted in")?;
    hold(!workload.mirror, "decided on a static pod")?;
    let own = asks(workload.annotation);
    hold(
        own || matches!(workload.kind, OwnerKind::Controller | OwnerKind::StatefulSet),
        "decided on a protected owner",
    )?;
    let protected = workload.local || workload.unsafe_to_evict || workload.critical;
    hold(own || !protected, "decided on a protected pod")?;
    hold(workload.budgets.len() <= 1, "decided although two budgets select it")?;
    let negative = workload.budgets.iter().any(|budget| budget.allowed < 0);
    hold(!negative, "decided although its budget is negative")?;
    let never =
        |budget: &mountwarden::coordinator::facts::Budget| budget.allowed == 0 && budget.desired >= budget.expected;
    let never = world.ready(pod) && workload.budgets.iter().any(never);
    hold(!never, "decided although its budget can never allow it")
}

/// What the agent said. Where it is honest this is the truth: a healthy mount, or a server that does not answer, is never
/// reported so.
fn evidence(world: &World, process: &Process, request: &Request) -> Broken {
    hold(matches!(request.state, State::Stale | State::Lost), "decided on a mount that no eviction heals")?;
    root(world, request.gate.root, request.gate.names_found, request.gate.names_known)?;
    let (Some(first), Some(second)) = (request.gate.first, request.gate.second) else {
        return Err("decided without two trials");
    };
    hold(second.0 - first.0 >= 30, "decided on two trials too close together")?;
    // By its own clock, for one whose clock is wrong.
    let now = world.now + process.offset;
    hold((now - request.refreshed.0).abs() <= 60, "decided on a request that is not fresh")?;
    hold(now - second.0 <= 300, "decided on a trial of long ago")
}

/// What a new pod finds, and whether that is wanted.
pub(crate) fn root(world: &World, root: GateRoot, found: u32, known: u32) -> Broken {
    let wanted = match (world.remedy.evict_on_replaced, root) {
        (_, GateRoot::Same) => true,
        (_, GateRoot::Unknown) => false,
        (OnReplaced::Always, _) => true,
        (OnReplaced::SameNames, GateRoot::Different) => known > 0 && found * 2 >= known,
        _ => false,
    };
    hold(wanted, "decided although the new pod would find other data")
}

fn fleet(world: &World, record: &Record) -> Broken {
    let (mut mounting, mut dead, mut shut, mut asks) = (0, 0, 0, false);
    for node in &world.nodes {
        for seen in node.view.servers.iter().filter(|seen| seen.server == record.server && seen.mounts > 0) {
            mounting += 1;
            dead += u32::from(seen.dead > 0);
            shut += u32::from(seen.dead > seen.gates_open);
            asks |= seen.dead > 0 && node.view.node == record.node;
        }
    }
    hold(asks && !(dead * 2 > mounting && shut > 0), "decided in an outage")
}

fn replaced_well(world: &World, done: &Done) -> bool {
    let workload = world.pods[done.pod].workload;
    done.replacement.is_none()
        || world.pods.iter().any(|pod| pod.workload == workload && pod.created > done.at && pod.was_ready)
}

/// Not twice for one incident, not again at once, not its replacement, not before the last one stands.
fn once(world: &World, process: &Process, pod: usize) -> Broken {
    let recent = world.cool_down() - 60;
    let calls = || world.calls.iter().filter(|call| call.1 == pod && world.now - call.0 < recent);
    hold(!calls().any(|call| call.2), "decided on a pod that was evicted already")?;
    if process.offset == 0 {
        let soon = calls().any(|call| world.now - call.0 < 8);
        hold(!soon, "decided again right after a no")?;
    }
    let server = world.workload(pod).server;
    let mut of_server = world.done.iter().filter(|done| done.server == server && world.now - done.at < recent);
    let replacement = of_server.any(|done| {
        world.pods[done.pod].workload == world.pods[pod].workload
            && done.replacement.is_some()
            && world.pods[pod].created > done.at
    });
    hold(!replacement, "decided on a replacement within its cool-down")?;
    let workload = world.pods[pod].workload;
    let last = world.done.iter().rfind(|done| world.pods[done.pod].workload == workload);
    let waits = last.is_some_and(|done| world.now - done.at < recent && !replaced_well(world, done));
    hold(!waits, "decided although the last replacement of the workload is not Ready")
}

/// Three bad ends in a row, known for a minute, and no good one since.
fn breaker(world: &World, record: &Record) -> Broken {
    let mut ends: Vec<&Done> = world
        .done
        .iter()
        .filter(|done| server_name(done.server) == record.server && done.replacement.is_some())
        .collect();
    ends.sort_by_key(|done| done.at);
    let fresh = ends.iter().any(|done| world.now - done.at < 180 && replaced_well(world, done));
    ends.retain(|done| world.now - done.at >= 180);
    let last: Vec<&&Done> = ends.iter().rev().take(3).collect();
    let bad = last.len() == 3 && last.iter().all(|done| !replaced_well(world, done));
    let young = last.first().is_some_and(|done| world.now - (done.at + 120) < world.cool_down() - 120)
        && last.iter().all(|done| world.now - (done.at + 120) < world.cool_down() - 120);
    hold(fresh || !(bad && young), "decided although the breaker must be open")
}

/// An eviction took effect.
pub(crate) fn evicted(world: &World, process: &Process) -> Broken {
    hold(process.leads, "called without the Lease")?;
    hold(!world.stop, "called although the kill switch was set")?;
    // A call follows its decision within seconds, so a reservation runs out a little before the truth does.
    let flying: Vec<&Done> = world
        .done
        .iter()
        .filter(|done| world.now - done.at < 80)
        .filter(|done| match done.replacement {
            Some(_) => !replaced_well(world, done),
            None => !world.pods[done.pod].gone,
        })
        .collect();
    let limit = world.remedy.in_flight;
    hold(flying.len() <= limit, "more in flight than allowed")?;
    let most = |key: &dyn Fn(&Done) -> usize| {
        flying.iter().map(|one| flying.iter().filter(|other| key(other) == key(one)).count()).max().unwrap_or(0)
    };
    let namespace = |done: &Done| world.workload(done.pod).namespace;
    hold(most(&namespace) <= (limit / 2).max(1), "more in flight than allowed in a namespace")?;
    hold(most(&|done| world.pods[done.pod].node) <= 1, "two of a node in flight")?;
    hold(most(&|done| world.pods[done.pod].workload) <= 1, "two of a workload in flight")
}

/// Once all is quiet: whoever could be rescued was.
pub(crate) fn all_rescued(world: &World) -> Broken {
    for pod in 0..world.pods.len() {
        let here = &world.pods[pod];
        let dead = !here.gone && here.ends.is_none() && !here.completed && world.is_stale(pod);
        let server = &world.servers[world.workload(pod).server];
        let wanted = root(world, server.root, server.names.0, server.names.1).is_ok();
        if dead && wanted && permitted(world, pod).is_ok() && world.remedy.mode == RemedyMode::Enforce {
            return Err("never rescued");
        }
    }
    Ok(())
}
