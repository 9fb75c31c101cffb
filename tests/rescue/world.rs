//! Servers, nodes, pods, agents and an API server, second by second.

use std::time::Duration;

use fastrand::Rng;
use mountwarden::cluster::node_mounts::{GateRoot, ServerSeen};
use mountwarden::config::{OnReplaced, Remedy, RemedyMode, Unstick};
use mountwarden::coordinator::facts::{Budget, Facts, Owner, OwnerKind, VolumeServer};
use mountwarden::coordinator::history::{Answer, Record, Seen};
use mountwarden::coordinator::plan::Read;
use mountwarden::coordinator::request::{Gate, NodeView, Request};
use mountwarden::coordinator::time::Time;
use mountwarden::verdict::{Cause, State};

pub(crate) const START: i64 = 1_790_000_000;

/// A server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) up: bool,
    /// Which filesystem it exports: pods that mounted another one are stale.
    pub(crate) generation: u32,
    newest: u32,
    /// What a trial finds of it, compared with the one before.
    pub(crate) root: GateRoot,
    pub(crate) names: (u32, u32),
}

/// What pods of a workload are like.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) namespace: usize,
    pub(crate) kind: OwnerKind,
    pub(crate) server: usize,
    pub(crate) mirror: bool,
    pub(crate) local: bool,
    pub(crate) unsafe_to_evict: bool,
    pub(crate) critical: bool,
    pub(crate) annotation: Option<&'static str>,
    /// Its new pods never become Ready.
    pub(crate) broken: bool,
    pub(crate) budgets: Vec<Budget>,
}

/// A pod; its UID is its index.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) workload: usize,
    pub(crate) node: usize,
    pub(crate) created: i64,
    /// The filesystem that it mounted.
    pub(crate) mounted: Option<u32>,
    pub(crate) ready_from: i64,
    pub(crate) was_ready: bool,
    pub(crate) completed: bool,
    /// When it is gone, once it is being deleted.
    pub(crate) ends: Option<i64>,
    pub(crate) gone: bool,
}

/// A node with its agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    pub(crate) alive: bool,
    pub(crate) lies: bool,
    pub(crate) annotation: Option<&'static str>,
    /// Servers that it cannot reach.
    pub(crate) cut: Vec<usize>,
    pub(crate) view: NodeView,
    pub(crate) gates: Vec<(usize, i64, Option<i64>)>,
}

/// An eviction that took effect.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) at: i64,
    pub(crate) pod: usize,
    pub(crate) server: usize,
    pub(crate) replacement: Option<usize>,
    /// It was asked for again while it was young.
    pub(crate) asked_again: bool,
}

/// Everything.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) now: i64,
    pub(crate) rng: Rng,
    pub(crate) remedy: Remedy,
    pub(crate) unstick: Unstick,
    pub(crate) stop: bool,
    pub(crate) servers: Vec<Server>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) namespaces: Vec<Option<&'static str>>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) done: Vec<Done>,
    /// Calls that were made: when, which pod, and whether 201.
    pub(crate) calls: Vec<(i64, usize, bool)>,
    /// How often, of a hundred, the API server fails.
    pub(crate) api_faults: u32,
    /// Seconds until a new pod is Ready.
    pub(crate) start_up: (i64, i64),
}

pub(crate) fn server_name(server: usize) -> String {
    format!("srv{server}")
}

fn uid(pod: usize) -> String {
    format!("u{pod}")
}

pub(crate) fn index(uid: &str) -> Option<usize> {
    uid.strip_prefix('u')?.parse().ok()
}

impl World {
    /// A small random one, in which everything is healthy.
    pub(crate) fn random(seed: u64) -> World {
        let mut rng = Rng::with_seed(seed);
        let mut world = World::empty(seed);
        let nodes = rng.usize(2..6);
        world.nodes = (0..nodes).map(|_| Node { alive: true, ..Node::default() }).collect();
        world.servers = (0..rng.usize(1..3)).map(|_| Server::new()).collect();
        world.namespaces = (0..2).map(|_| rng.choice([Some("evict,unstick"), Some("evict"), None]).unwrap()).collect();
        if rng.u32(..4) > 0 {
            world.namespaces[0] = Some("evict");
        }
        world.remedy.mode = if rng.u32(..20) == 0 { RemedyMode::Observe } else { RemedyMode::Enforce };
        world.remedy.require_opt_in = rng.u32(..3) > 0;
        world.remedy.in_flight = rng.usize(1..6);
        world.remedy.evict_on_replaced =
            rng.choice([OnReplaced::SameNames, OnReplaced::SameNames, OnReplaced::Always, OnReplaced::Never]).unwrap();
        match rng.u32(..10) {
            // New pods of a server that all come to nothing, of more workloads than it takes to open its breaker.
            0 => (0..6).for_each(|_| {
                let broken = rng.u32(..8) > 0;
                world.add(Workload { broken, ..Workload::plain(rng.usize(..2)) }, 1);
            }),
            // Bare pods that asked for it: nothing comes after them that anybody could wait for.
            1 => (0..3).for_each(|_| {
                let workload =
                    Workload { annotation: Some("evict"), kind: OwnerKind::None, ..Workload::plain(rng.usize(..2)) };
                world.add(workload, 2);
            }),
            _ => (0..rng.usize(1..4)).for_each(|_| {
                let workload = Workload::random(&mut rng, world.servers.len());
                world.add(workload, rng.usize(1..4));
            }),
        }
        if rng.u32(..4) == 0 {
            let node = rng.usize(..nodes);
            world.nodes[node].lies = true;
        }
        if rng.u32(..6) == 0 {
            let node = rng.usize(..nodes);
            world.nodes[node].annotation = rng.choice([Some("none"), Some("evict"), Some("off")]).unwrap();
        }
        world.rng = rng;
        world
    }

    pub(crate) fn empty(seed: u64) -> World {
        World {
            now: START,
            rng: Rng::with_seed(seed),
            remedy: Remedy { mode: RemedyMode::Enforce, ..Remedy::default() },
            unstick: Unstick::default(),
            stop: false,
            servers: Vec::new(),
            workloads: Vec::new(),
            namespaces: Vec::new(),
            pods: Vec::new(),
            nodes: Vec::new(),
            done: Vec::new(),
            calls: Vec::new(),
            api_faults: 0,
            start_up: (3, 70),
        }
    }

    /// A workload with so many pods on random nodes.
    pub(crate) fn add(&mut self, workload: Workload, replicas: usize) {
        let at = self.workloads.len();
        for n in 0..replicas {
            let node = self.rng.usize(..self.nodes.len());
            let server = &self.servers[workload.server];
            self.pods.push(Pod {
                name: format!("w{at}-{n}"),
                workload: at,
                node,
                created: self.now - 100_000 - self.rng.i64(0..1000),
                mounted: Some(server.generation),
                ready_from: self.now,
                was_ready: true,
                completed: self.rng.u32(..15) == 0 && workload.kind != OwnerKind::StatefulSet,
                ends: None,
                gone: false,
            });
        }
        self.workloads.push(workload);
    }

    pub(crate) fn workload(&self, pod: usize) -> &Workload {
        &self.workloads[self.pods[pod].workload]
    }

    /// Its mount is stale by the truth.
    pub(crate) fn is_stale(&self, pod: usize) -> bool {
        let server = &self.servers[self.workload(pod).server];
        self.pods[pod].mounted.is_some_and(|mounted| mounted != server.generation)
    }

    pub(crate) fn ready(&self, pod: usize) -> bool {
        let pod = &self.pods[pod];
        !pod.gone && pod.ends.is_none() && pod.mounted.is_some() && self.now >= pod.ready_from
    }

    /// Time passes: pods end, start, mount, become Ready; agents look and report.
    pub(crate) fn pass(&mut self, seconds: i64) {
        self.now += seconds;
        for at in 0..self.pods.len() {
            if self.pods[at].ends.is_some_and(|end| self.now >= end) {
                self.pods[at].gone = true;
            }
            let server = self.workload(at).server;
            if self.pods[at].mounted.is_none() && self.servers[server].up {
                let broken = self.workload(at).broken;
                let start = self.rng.i64(self.start_up.0..self.start_up.1);
                self.pods[at].mounted = Some(self.servers[server].generation);
                self.pods[at].ready_from = if broken { i64::MAX } else { self.now + start };
            }
            let ready = self.ready(at);
            self.pods[at].was_ready |= ready;
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].alive && (self.api_faults == 0 || self.rng.u32(..10) > 0) {
                self.report(node);
            }
        }
    }

    fn report(&mut self, node: usize) {
        let view = if self.nodes[node].lies { self.lie(node) } else { self.tell(node) };
        for request in &view.requests {
            if let Some(pod) = index(&request.uid) {
                let now = self.now;
                let born = self.done.iter_mut().find(|done| done.replacement == Some(pod) && now - done.at < 1800);
                if let Some(done) = born {
                    done.asked_again = true;
                }
            }
        }
        self.nodes[node].view = view;
    }

    /// What an honest agent reports: also what the coordinator must refuse (a hung mount, a gate that is not open yet).
    fn tell(&mut self, node: usize) -> NodeView {
        let mut view = NodeView { node: format!("n{node}"), ..NodeView::default() };
        let grace = self.remedy.grace.as_secs() as i64;
        let mut gates = std::mem::take(&mut self.nodes[node].gates);
        let mut seen: Vec<ServerSeen> = (0..self.servers.len())
            .map(|server| ServerSeen { server: server_name(server), ..ServerSeen::default() })
            .collect();
        let mut keep = Vec::new();
        for pod in 0..self.pods.len() {
            let server = self.workload(pod).server;
            let here = &self.pods[pod];
            if here.node != node || here.gone || here.mounted.is_none() {
                continue;
            }
            let reached = self.servers[server].up && !self.nodes[node].cut.contains(&server);
            let (stale, terminating) = (self.is_stale(pod), here.ends.is_some());
            seen[server].mounts += 1;
            let mut gate = gates.iter().find(|gate| gate.0 == pod).copied();
            if reached && stale {
                gate = Some(match gate {
                    None => (pod, self.now, None),
                    Some((_, first, _)) if self.now - first >= grace => (pod, first, Some(self.now)),
                    Some(gate) => gate,
                });
            }
            if (!reached || stale) && !terminating {
                seen[server].dead += 1;
                seen[server].gates_open += u32::from(reached && gate.is_some_and(|gate| gate.2.is_some()));
                let state = if reached { State::Stale } else { State::Hung };
                view.requests.push(self.request(pod, state, gate));
            }
            if let Some(gate) = gate.filter(|_| stale) {
                keep.push(gate);
            }
        }
        gates.clear();
        self.nodes[node].gates = keep;
        view.servers = seen.into_iter().filter(|seen| seen.mounts > 0).collect();
        view
    }

    fn request(&self, pod: usize, state: State, gate: Option<(usize, i64, Option<i64>)>) -> Request {
        let workload = self.workload(pod);
        let server = &self.servers[workload.server];
        Request {
            namespace: format!("ns{}", workload.namespace),
            pod: self.pods[pod].name.clone(),
            uid: uid(pod),
            volume: "data".to_owned(),
            server: server_name(workload.server),
            export: "/e".to_owned(),
            state,
            cause: if state == State::Hung { Cause::ServerUnreachable } else { Cause::HandleInvalid },
            since: Time(self.now - 10),
            refreshed: Time(self.now),
            gate: Gate {
                first: gate.map(|gate| Time(gate.1)),
                second: gate.and_then(|gate| gate.2).map(Time),
                root: server.root,
                names_found: server.names.0,
                names_known: server.names.1,
                words: String::new(),
            },
        }
    }

    /// Forged evidence for any pods: of this node and others, healthy or not, with a right or a made-up UID or server.
    fn lie(&mut self, node: usize) -> NodeView {
        let mut view = NodeView { node: format!("n{node}"), ..NodeView::default() };
        for _ in 0..6 {
            let pod = self.rng.usize(..self.pods.len());
            let mut request = self.request(pod, State::Stale, Some((pod, self.now - 60, Some(self.now))));
            request.gate.root = GateRoot::Same;
            match self.rng.u32(..8) {
                0 => request.uid = uid(self.rng.usize(..self.pods.len())),
                1 => request.server = server_name(self.rng.usize(..self.servers.len())),
                2 => request.refreshed = Time(self.now + 3600),
                _ => {}
            }
            view.requests.push(request);
        }
        let open = self.rng.u32(..3) > 0;
        view.servers = (0..self.servers.len())
            .map(|server| ServerSeen {
                server: server_name(server),
                mounts: 3,
                dead: 3,
                gates_open: if open { 3 } else { 0 },
            })
            .collect();
        view
    }

    // --- the API server

    /// What is read of the pod that has the name now.
    pub(crate) fn read(&mut self, request: &Request) -> Read {
        if self.faulty() {
            return Read::Failed("the model's API server fails".to_owned());
        }
        let holder = (0..self.pods.len()).rev().find(|pod| {
            let here = &self.pods[*pod];
            !here.gone
                && here.name == request.pod
                && request.namespace == format!("ns{}", self.workload(*pod).namespace)
        });
        holder.map_or(Read::Gone, |pod| Read::Facts(Box::new(self.facts(pod))))
    }

    fn facts(&self, pod: usize) -> Facts {
        let (here, workload) = (&self.pods[pod], self.workload(pod));
        let siblings = self.pods.iter().filter(|other| other.workload == here.workload && !other.gone);
        let mut budgets = workload.budgets.clone();
        budgets.iter_mut().for_each(|budget| budget.pod_ready = self.ready(pod));
        Facts {
            uid: uid(pod),
            node: format!("n{}", here.node),
            created: Time(here.created),
            terminating: here.ends.is_some(),
            completed: here.completed,
            mirror: workload.mirror,
            owner: Owner { kind: workload.kind, workload: format!("W/{}", here.workload) },
            controller: if workload.kind == OwnerKind::None { String::new() } else { format!("c{}", here.workload) },
            volume: Some(VolumeServer::Named(server_name(workload.server))),
            local_data: workload.local,
            safe_to_evict_denied: workload.unsafe_to_evict,
            critical: workload.critical,
            pod_annotation: workload.annotation.map(str::to_owned),
            namespace_annotation: self.namespaces[workload.namespace].map(str::to_owned),
            node_annotation: self.nodes[here.node].annotation.map(str::to_owned),
            budgets,
            newest_sibling: Time(siblings.map(|other| other.created).max().unwrap_or(here.created)),
        }
    }

    /// The Eviction call.
    pub(crate) fn evict(&mut self, record: &Record) -> Answer {
        let lost = self.faulty();
        if lost && self.rng.bool() {
            return Answer::Unknown;
        }
        let Some(pod) = index(&record.uid).filter(|pod| *pod < self.pods.len() && !self.pods[*pod].gone) else {
            return Answer::Refused;
        };
        // The UID precondition: the pod that is meant, or nobody.
        let refused = self.workload(pod).budgets.iter().any(|budget| budget.allowed <= 0 && self.ready(pod));
        let accepted = !refused && self.pods[pod].name == record.pod;
        if !accepted {
            self.calls.push((self.now, pod, false));
            return Answer::Refused;
        }
        // One in eight: 201, and nothing happens. Until that answer is written down there was no eviction that anybody could
        // know of after a restart.
        let happens = self.pods[pod].ends.is_none() && (self.api_faults == 0 || self.rng.u32(..8) > 0);
        self.calls.push((self.now, pod, happens || self.pods[pod].ends.is_some()));
        if happens {
            self.delete(pod, true);
        }
        if lost { Answer::Unknown } else { Answer::Accepted }
    }

    /// The answer 201 was written into the history.
    pub(crate) fn remembered(&mut self, uid: &str) {
        let call = index(uid).and_then(|pod| self.calls.iter_mut().rfind(|call| call.1 == pod));
        call.into_iter().for_each(|call| call.2 = true);
    }

    /// Deletes a pod; its controller makes a new one.
    pub(crate) fn delete(&mut self, pod: usize, by_us: bool) {
        let grace = self.rng.i64(2..12);
        self.pods[pod].ends = Some(self.now + grace);
        let workload = self.workload(pod).clone();
        let replacement = (workload.kind != OwnerKind::None).then(|| {
            let node = self.rng.usize(..self.nodes.len());
            let name = if workload.kind == OwnerKind::StatefulSet {
                // Its name is free when the old one is gone.
                self.pods[pod].gone = true;
                self.pods[pod].name.clone()
            } else {
                format!("w{}-{}", self.pods[pod].workload, self.pods.len())
            };
            self.pods.push(Pod {
                name,
                workload: self.pods[pod].workload,
                node,
                created: self.now + 1,
                mounted: None,
                ready_from: i64::MAX,
                was_ready: false,
                completed: false,
                ends: None,
                gone: false,
            });
            self.pods.len() - 1
        });
        if by_us {
            let server = workload.server;
            self.done.push(Done { at: self.now, pod, server, replacement, asked_again: false });
        }
    }

    /// What a look at the pod of an eviction shows.
    pub(crate) fn seen(&self, record: &Record) -> Seen {
        let pod = index(&record.uid).filter(|pod| *pod < self.pods.len());
        let here = pod.map(|pod| &self.pods[pod]).filter(|pod| !pod.gone);
        let younger = (0..self.pods.len()).filter(|other| {
            let candidate = &self.pods[*other];
            !candidate.gone
                && candidate.ends.is_none()
                && Some(*other) != pod
                && record.controller == format!("c{}", candidate.workload)
                && candidate.created > record.newest.0
        });
        Seen {
            pod: here.is_some(),
            terminating: here.is_some_and(|pod| pod.ends.is_some()),
            replacement: younger.map(|pod| (uid(pod), self.ready(pod))).max_by_key(|(_, ready)| *ready),
        }
    }

    pub(crate) fn faulty(&mut self) -> bool {
        self.rng.u32(..100) < self.api_faults
    }

    // --- what goes wrong

    /// Something happens.
    pub(crate) fn event(&mut self) {
        let server = self.rng.usize(..self.servers.len());
        let node = self.rng.usize(..self.nodes.len());
        match self.rng.u32(..14) {
            0 => self.servers[server].up = false,
            1 | 2 => self.servers[server].up = true,
            3..=5 => self.replace(server),
            6 => self.servers[server].generation = 0,
            7 => self.nodes[node].alive ^= true,
            8 => {
                let nodes = self.nodes.len();
                self.nodes.iter_mut().take(nodes.div_ceil(2) + 1).for_each(|node| node.cut.push(server));
            }
            9 => self.nodes.iter_mut().for_each(|node| node.cut.clear()),
            10 => self.stop ^= true,
            11 => self.api_faults = self.rng.choice([0, 0, 10, 50]).unwrap(),
            12 => {
                let pod = self.rng.usize(..self.pods.len());
                if !self.pods[pod].gone && self.pods[pod].ends.is_none() {
                    self.delete(pod, false);
                }
            }
            _ => {
                let workload = self.rng.usize(..self.workloads.len());
                if let Some(budget) = self.workloads[workload].budgets.first_mut().filter(|budget| budget.allowed >= 0)
                {
                    budget.allowed ^= 1;
                }
            }
        }
    }

    /// Another filesystem comes up in the place of the old one.
    pub(crate) fn replace(&mut self, server: usize) {
        let root =
            self.rng.choice([GateRoot::Same, GateRoot::Same, GateRoot::Different, GateRoot::Empty, GateRoot::Unknown]);
        let known = self.rng.u32(..5);
        let found = self.rng.u32(..=known);
        let server = &mut self.servers[server];
        server.newest += 1;
        (server.generation, server.up) = (server.newest, true);
        (server.root, server.names) = (root.unwrap(), (found, known));
    }

    /// Everything that goes wrong ends.
    pub(crate) fn heal(&mut self) {
        self.api_faults = 0;
        self.stop = false;
        self.servers.iter_mut().for_each(|server| server.up = true);
        for node in &mut self.nodes {
            node.alive = true;
            node.lies = false;
            node.cut.clear();
        }
        for workload in &mut self.workloads {
            workload.broken = false;
            workload.budgets.iter_mut().filter(|budget| budget.allowed == 0).for_each(|budget| budget.allowed = 1);
        }
        for pod in &mut self.pods {
            if pod.ready_from == i64::MAX && pod.mounted.is_some() {
                pod.ready_from = self.now;
            }
        }
    }

    pub(crate) fn cool_down(&self) -> i64 {
        self.remedy.cool_down.max(Duration::from_secs(120)).as_secs() as i64
    }
}

impl Server {
    pub(crate) fn new() -> Server {
        Server { up: true, generation: 0, newest: 0, root: GateRoot::Same, names: (0, 0) }
    }
}

impl Workload {
    /// One that nothing protects, with its opt-in by the namespace.
    pub(crate) fn plain(namespace: usize) -> Workload {
        Workload {
            namespace,
            kind: OwnerKind::Controller,
            server: 0,
            mirror: false,
            local: false,
            unsafe_to_evict: false,
            critical: false,
            annotation: None,
            broken: false,
            budgets: Vec::new(),
        }
    }

    fn random(rng: &mut Rng, servers: usize) -> Workload {
        let kinds = [
            OwnerKind::Controller,
            OwnerKind::Controller,
            OwnerKind::Controller,
            OwnerKind::StatefulSet,
            OwnerKind::None,
            OwnerKind::DaemonSet,
            OwnerKind::Job,
            OwnerKind::VirtualMachine,
        ];
        let rarely = |rng: &mut Rng| rng.u32(..12) == 0;
        let budget = Budget {
            name: "pdb".to_owned(),
            allowed: 1,
            healthy: 3,
            desired: 2,
            expected: 3,
            always_allow_unhealthy: false,
            pod_ready: true,
        };
        let budgets = match rng.u32(..12) {
            0 => vec![budget.clone(), budget],
            1 => vec![Budget { allowed: -1, healthy: 1, ..budget }],
            2 => vec![Budget { allowed: 0, healthy: 3, desired: 3, ..budget }],
            3..=5 => vec![budget],
            _ => Vec::new(),
        };
        Workload {
            namespace: rng.usize(..2),
            kind: rng.choice(kinds).unwrap(),
            server: rng.usize(..servers),
            mirror: rarely(rng),
            local: rarely(rng),
            unsafe_to_evict: rarely(rng),
            critical: rarely(rng),
            annotation: rng.choice([None, None, None, None, None, Some("evict"), Some("none"), Some("evct")]).unwrap(),
            broken: rng.u32(..4) == 0,
            budgets,
        }
    }
}
