//! A coordinator in the world: the steps of `coordinator::run` and `coordinator::act`, any of which may be its last.

use mountwarden::coordinator::guard::Blind;
use mountwarden::coordinator::history::{Answer, History, Record};
use mountwarden::coordinator::plan::{Case, Decision, Read, Round};
use mountwarden::coordinator::request::{NodeView, Request};
use mountwarden::coordinator::time::Time;

use crate::world::World;

/// Seconds after which a process that was stopped in between knows that it may not lead any more.
const HOLD: i64 = 12;

/// The history object with its version.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) text: Option<String>,
    version: u64,
}

/// What a step led to.
pub(crate) enum Step {
    /// Nothing to judge.
    Nothing,
    /// A reservation was written: the eviction is decided.
    Decided(Box<Record>, Box<Request>),
    /// The call was made.
    Called,
}

/// One process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// It believes that it leads.
    pub(crate) leads: bool,
    /// How far its clock is off.
    pub(crate) offset: i64,
    /// The clock was set since its last round.
    pub(crate) set: bool,
    /// Decided on a history that may be old when it is written.
    pending: Option<(Record, History, u64)>,
    reserved: Option<Record>,
    answered: Option<(String, Answer)>,
}

impl Store {
    pub(crate) fn new(text: Option<String>) -> Store {
        Store { text, version: 0 }
    }

    pub(crate) fn load(&mut self, wall: Time) -> (History, u64) {
        if let Some(Ok(history)) = self.text.as_deref().map(History::parse) {
            return (history, self.version);
        }
        let history = History::begin(wall);
        self.write(&history, self.version);
        (history, self.version)
    }

    fn write(&mut self, history: &History, version: u64) -> bool {
        if version != self.version {
            return false;
        }
        self.text = Some(history.text());
        self.version += 1;
        true
    }
}

impl Process {
    pub(crate) fn new() -> Process {
        Process { leads: false, offset: 0, set: false, pending: None, reserved: None, answered: None }
    }

    /// Killed and started again.
    pub(crate) fn restart(&mut self) {
        *self = Process { offset: self.offset, ..Process::new() };
    }

    fn wall(&self, world: &World) -> Time {
        Time(world.now + self.offset)
    }

    /// Does the next thing.
    pub(crate) fn step(&mut self, world: &mut World, store: &mut Store, blind: Blind) -> Step {
        if let Some((uid, answer)) = self.answered.take() {
            if !world.faulty() {
                let (mut history, version) = store.load(self.wall(world));
                history.answered(&uid, &answer, self.wall(world));
                if store.write(&history, version) && matches!(answer, Answer::Accepted) {
                    world.remembered(&uid);
                }
            }
            return Step::Nothing;
        }
        if let Some((record, history, version)) = self.pending.take() {
            if record.at.age(self.wall(world)) <= HOLD && store.write(&history, version) {
                self.reserved = Some(record);
            }
            return Step::Nothing;
        }
        if let Some(record) = self.reserved.take() {
            return self.call(world, record, blind);
        }
        let watched = self.leads || blind.is(mountwarden::coordinator::guard::Guard::Leader);
        if watched && !world.faulty() { self.round(world, store, blind) } else { Step::Nothing }
    }

    fn call(&mut self, world: &mut World, record: Record, blind: Blind) -> Step {
        use mountwarden::coordinator::guard::Guard;
        let stopped = world.stop && !blind.is(Guard::KillSwitch);
        // The Lease tells for how long after its renewal a call may begin (`lease::HOLD`).
        let late = record.at.age(self.wall(world)) > HOLD;
        let answer = if stopped || late || (!self.leads && !blind.is(Guard::Leader)) {
            Answer::Refused
        } else {
            world.evict(&record)
        };
        self.answered = Some((record.uid.clone(), answer));
        Step::Called
    }

    fn round(&mut self, world: &mut World, store: &mut Store, blind: Blind) -> Step {
        let wall = self.wall(world);
        let (mut history, version) = store.load(wall);
        let before = history.clone();
        if std::mem::take(&mut self.set) {
            history.distrust(wall);
        }
        let now = history.clock(wall);
        let open: Vec<Record> = history.records.iter().filter(|record| record.open()).cloned().collect();
        for record in open {
            history.observe(&record.uid, &world.seen(&record), now);
        }
        let nodes: Vec<NodeView> = world.nodes.iter().map(|node| node.view.clone()).collect();
        for request in nodes.iter().flat_map(|view| &view.requests) {
            history.dead_again(&request.uid, &request.server, now);
        }
        if history != before && !store.write(&history, version) {
            return Step::Nothing;
        }
        self.decide(world, store, &nodes, blind)
    }

    fn decide(&mut self, world: &mut World, store: &mut Store, nodes: &[NodeView], blind: Blind) -> Step {
        let asked: Vec<(&str, &Request)> =
            nodes.iter().flat_map(|view| view.requests.iter().map(|request| (view.node.as_str(), request))).collect();
        let reads: Vec<Read> = asked.iter().map(|(_, request)| world.read(request)).collect();
        let cases: Vec<Case<'_>> =
            asked.iter().zip(&reads).map(|((node, request), read)| Case { node, request, read }).collect();
        let (history, version) = store.load(self.wall(world));
        let round = Round {
            remedy: &world.remedy,
            unstick: &world.unstick,
            wall: self.wall(world),
            leader: self.leads,
            stopped: world.stop.then_some("it is set"),
            history: Some(&history),
            nodes,
            blind,
        };
        let first = round.plan(&cases).into_iter().find_map(|(at, decision)| match decision {
            Decision::Evict(record) => Some((record, cases[at].request.clone())),
            Decision::Refuse(_) => None,
        });
        let Some((record, request)) = first else { return Step::Nothing };
        let mut history = history.clone();
        history.reserve((*record).clone(), world.remedy.cool_down, self.wall(world));
        if world.rng.u32(..3) == 0 {
            self.pending = Some(((*record).clone(), history, version));
        } else if store.write(&history, version) {
            self.reserved = Some((*record).clone());
        }
        Step::Decided(record, Box::new(request))
    }
}
