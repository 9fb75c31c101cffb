//! When which target is probed. Pure: time in, decisions out.
//!
//! Rules kept here: an interval with jitter; at most one probe in flight per superblock, and while one is blocked its
//! siblings inherit instead of blocking too; at most so many young probes per server; back-off on targets that block,
//! ended at once by [`Schedule::rearm`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::mounts::Dev;

/// Names a target for as long as the agent runs; never reused.
pub type TargetId = u64;

/// Time since the agent started.
pub type Now = Duration;

/// Up to this share of the interval each round comes early, at random: probes of a node, and of all nodes that were started
/// together, must not reach a server in step. Never late: "known within an interval" is a promise.
const JITTER: f64 = 0.1;

/// What would be due within this share of the interval is due together with the first: waking up costs more than a probe,
/// for the agent and for its workers. Early, never late, and drawn anew each round, so no two stay together.
const TOGETHER: f64 = 0.02;

/// How the schedule runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Time between two probes of a target that answers.
    pub interval: Duration,
    /// Longest time between two probes of a target that blocks, if its server can be watched.
    pub backoff_max: Duration,
    /// Probes in flight per server that have not yet taken longer than the slow threshold.
    pub per_server: usize,
}

impl Pace {
    /// The back-off ends here where nothing tells us that the server is back: 30 s at the default interval.
    fn unwatched_max(&self) -> Duration {
        self.backoff_max.min(self.interval * 2).max(self.interval)
    }

    fn longest_backoff(&self, watched: bool) -> Duration {
        if watched { self.backoff_max } else { self.unwatched_max() }
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Probe this target.
    Probe(TargetId),
    /// Do not: a probe of the second one is blocked on the same superblock. The first one inherits its verdict.
    Inherit(TargetId, TargetId),
}

/// How a probe ended, as far as the schedule cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The kernel answered, whatever it said.
    Answered,
    /// It blocked; the worker was killed.
    Blocked,
    /// It was killed at its deadline, but that proves nothing about the mount: again soon, once the worker is gone.
    Unproven,
    /// It was not run: again soon.
    NotRun,
    /// There is no way to it at present: again in an interval.
    Skipped,
}

#[derive(Debug)]
struct Slot {
    dev: Dev,
    server: String,
    watched: bool,
    next: Option<Now>,
    backoff: Option<Duration>,
    young: bool,
}

/// The superblock's state.
#[derive(Debug, Default)]
struct Lane {
    members: Vec<TargetId>,
    in_flight: Option<TargetId>,
    /// The member whose last probe blocked: it alone is probed until it answers.
    blocked: Option<TargetId>,
    /// A killed worker is still in the kernel.
    unreaped: bool,
}

#[derive(Debug, Default)]
struct Server {
    young: usize,
    waiting: VecDeque<TargetId>,
}

/// The schedule of all targets.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    slots: HashMap<TargetId, Slot>,
    lanes: HashMap<Dev, Lane>,
    servers: HashMap<String, Server>,
    queue: BTreeSet<(Now, TargetId)>,
    random: fastrand::Rng,
}

impl Schedule {
    /// An empty schedule.
    #[must_use]
    pub fn new(pace: Pace, random: fastrand::Rng) -> Schedule {
        let (slots, lanes, servers) = (HashMap::new(), HashMap::new(), HashMap::new());
        Schedule { pace, slots, lanes, servers, queue: BTreeSet::new(), random }
    }

    /// Changes the pace. What is queued for later than the new pace allows comes earlier, at random times within it: they
    /// must not all come due at once.
    pub fn set_pace(&mut self, pace: Pace, now: Now) {
        self.pace = pace;
        let mut late = Vec::new();
        for (id, slot) in &mut self.slots {
            slot.backoff = slot.backoff.map(|before| before.min(pace.longest_backoff(slot.watched)));
            let longest = slot.backoff.unwrap_or(pace.interval);
            if slot.next.is_some_and(|next| next > now + longest) {
                late.push((*id, longest));
            }
        }
        for (id, longest) in late {
            let wait = longest.mul_f64(self.random.f64());
            self.put(id, now + wait);
        }
    }

    /// Adds a target; its first probe is due now. `watched`: something tells us when its server is back.
    pub fn add(&mut self, id: TargetId, dev: Dev, server: &str, watched: bool, now: Now) {
        let slot = Slot { dev, server: server.to_owned(), watched, next: None, backoff: None, young: false };
        self.slots.insert(id, slot);
        self.lanes.entry(dev).or_default().members.push(id);
        self.put(id, now);
    }

    /// Forgets a target. A probe of it that is in flight may still report its end.
    pub fn remove(&mut self, id: TargetId, now: Now) {
        self.unqueue(id);
        self.grow_up(id);
        let Some(slot) = self.slots.remove(&id) else { return };
        if let Some(server) = self.servers.get_mut(&slot.server) {
            server.waiting.retain(|waiting| *waiting != id);
            if server.young == 0 && server.waiting.is_empty() {
                self.servers.remove(&slot.server);
            }
        }
        let Some(lane) = self.lanes.get_mut(&slot.dev) else { return };
        lane.members.retain(|member| *member != id);
        let opened = lane.blocked.take_if(|blocked| *blocked == id).is_some();
        let members = lane.members.clone();
        self.drop_idle_lane(slot.dev);
        self.wake_siblings(&members, opened, now);
    }

    /// Takes what is due, and with it what would be due in a moment. A target given out as [`Due::Probe`] counts as in
    /// flight until [`Schedule::ended`].
    pub fn take_due(&mut self, now: Now) -> Vec<Due> {
        let mut due = Vec::new();
        if self.next_wake().is_none_or(|at| at > now) {
            return due;
        }
        let until = now + self.pace.interval.mul_f64(TOGETHER);
        while let Some(&(at, id)) = self.queue.first() {
            if at > until {
                break;
            }
            self.unqueue(id);
            due.extend(self.offer(id));
        }
        due
    }

    /// When [`Schedule::take_due`] has something next.
    #[must_use]
    pub fn next_wake(&self) -> Option<Now> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// A probe has been in flight for longer than the slow threshold: it no longer counts against its server.
    pub fn grow_up(&mut self, id: TargetId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if !std::mem::take(&mut slot.young) {
            return;
        }
        let name = slot.server.clone();
        if let Some(server) = self.servers.get_mut(&name) {
            server.young = server.young.saturating_sub(1);
        }
        self.call_next(&name);
    }

    /// Calls the first that waits for a place at this server, if there is one free.
    fn call_next(&mut self, server: &str) {
        let Some(server) = self.servers.get_mut(server) else { return };
        if server.young < self.pace.per_server
            && let Some(next) = server.waiting.pop_front()
        {
            self.put(next, Duration::ZERO);
        }
    }

    /// A probe ended. `dev` is the superblock it ran on (the target may be gone). With [`Ended::Blocked`] and
    /// [`Ended::Unproven`] the lane stays taken until [`Schedule::reaped`].
    pub fn ended(&mut self, id: TargetId, dev: Dev, ended: Ended, now: Now) {
        self.grow_up(id);
        let lane = self.lanes.entry(dev).or_default();
        lane.in_flight = None;
        let opened = match ended {
            Ended::Blocked => {
                lane.unreaped = true;
                lane.blocked = lane.members.contains(&id).then_some(id);
                false
            }
            Ended::Unproven => {
                lane.unreaped = true;
                false
            }
            // Who cannot be reached cannot say when the lane is open: another member tries.
            Ended::Answered | Ended::Skipped => lane.blocked.take().is_some(),
            Ended::NotRun => false,
        };
        let members: Vec<TargetId> = lane.members.iter().copied().filter(|member| *member != id).collect();
        self.drop_idle_lane(dev);
        // Siblings learn at once that the lane is blocked (they inherit) or open again (they are probed).
        self.wake_siblings(&members, opened || ended == Ended::Blocked, now);
        self.plan_next(id, ended, now);
    }

    /// A worker that runs no probe of ours is stuck on this superblock.
    pub fn occupy(&mut self, dev: Dev) {
        self.lanes.entry(dev).or_default().unreaped = true;
    }

    /// A worker that was killed on this superblock does not die: its target stands for it until it is gone, and the
    /// siblings inherit instead of waiting without a word.
    pub fn stuck(&mut self, id: TargetId, dev: Dev, now: Now) {
        let lane = self.lanes.entry(dev).or_default();
        lane.unreaped = true;
        lane.blocked = lane.members.contains(&id).then_some(id);
        let members: Vec<TargetId> = lane.members.iter().copied().filter(|member| *member != id).collect();
        self.wake_siblings(&members, true, now);
    }

    /// A target that answers errors after its own time-out (a soft mount) is dead all the same: it is asked less often.
    pub fn back_off(&mut self, id: TargetId, now: Now) {
        self.plan_next(id, Ended::Blocked, now);
    }

    /// Wakes all, or those that were turned away and wait for the lane.
    fn wake_siblings(&mut self, members: &[TargetId], all: bool, now: Now) {
        for member in members {
            if all || self.slots.get(member).is_some_and(|slot| slot.next.is_none()) {
                self.wake(*member, now);
            }
        }
    }

    /// The kernel let the killed worker of this superblock go.
    pub fn reaped(&mut self, dev: Dev, now: Now) {
        let Some(lane) = self.lanes.get_mut(&dev) else { return };
        lane.unreaped = false;
        let candidates = lane.blocked.map_or_else(|| lane.members.clone(), |blocked| vec![blocked]);
        self.drop_idle_lane(dev);
        for id in candidates {
            // Those that became due meanwhile were turned away and wait for this.
            if self.slots.get(&id).is_some_and(|slot| slot.next.is_none()) {
                self.put(id, now);
            }
        }
    }

    /// A killed worker is still in the kernel on this superblock.
    #[must_use]
    pub fn is_unreaped(&self, dev: Dev) -> bool {
        self.lanes.get(&dev).is_some_and(|lane| lane.unreaped)
    }

    /// Somebody wants to know whether it still blocks: it is tried now, whatever its back-off, which goes on afterwards.
    pub fn try_now(&mut self, dev: Dev, now: Now) {
        let Some(lane) = self.lanes.get(&dev) else { return };
        let candidates = lane.blocked.map_or_else(|| lane.members.clone(), |blocked| vec![blocked]);
        candidates.into_iter().for_each(|id| self.wake(id, now));
    }

    /// The server is back: ends the back-off of this target and probes it now.
    pub fn rearm(&mut self, id: TargetId, now: Now) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.backoff.take().is_some() {
            self.wake(id, now);
        }
    }

    /// Something happened to its transport: probe it now unless it blocks.
    pub fn hurry(&mut self, id: TargetId, now: Now) {
        if self.slots.get(&id).is_some_and(|slot| slot.backoff.is_none()) {
            self.wake(id, now);
        }
    }

    /// Present back-off of a target that blocks.
    #[must_use]
    pub fn backoff(&self, id: TargetId) -> Option<Duration> {
        self.slots.get(&id)?.backoff
    }

    /// Decides about a target that is due.
    fn offer(&mut self, id: TargetId) -> Option<Due> {
        let slot = self.slots.get_mut(&id)?;
        let lane = self.lanes.entry(slot.dev).or_default();
        if let Some(blocked) = lane.blocked.filter(|blocked| *blocked != id) {
            // Woken again when the lane opens.
            let server = slot.server.clone();
            self.call_next(&server);
            return Some(Due::Inherit(id, blocked));
        }
        if lane.in_flight.is_some() || lane.unreaped {
            // It may have been called because a place at its server became free: the next one takes it.
            let server = slot.server.clone();
            self.call_next(&server);
            return None;
        }
        let server = self.servers.entry(slot.server.clone()).or_default();
        if !slot.server.is_empty() && server.young >= self.pace.per_server {
            if !server.waiting.contains(&id) {
                server.waiting.push_back(id);
            }
            return None;
        }
        server.young += 1;
        slot.young = true;
        lane.in_flight = Some(id);
        Some(Due::Probe(id))
    }

    fn plan_next(&mut self, id: TargetId, ended: Ended, now: Now) {
        let pace = self.pace;
        let factor = 1.0 - JITTER * self.random.f64();
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let wait = match ended {
            Ended::Answered => {
                slot.backoff = None;
                pace.interval.mul_f64(factor)
            }
            Ended::Blocked => {
                let limit = pace.longest_backoff(slot.watched);
                let wait = slot.backoff.map_or(pace.interval, |before| (before * 2).min(limit));
                slot.backoff = Some(wait);
                wait.mul_f64(factor)
            }
            Ended::Skipped => pace.interval.mul_f64(factor),
            // A target that blocks keeps its back-off: what proves nothing does not end it either.
            Ended::Unproven => slot.backoff.unwrap_or(pace.interval / 4).mul_f64(factor),
            Ended::NotRun => (pace.interval / 4).mul_f64(factor),
        };
        self.put(id, now + wait);
    }

    fn wake(&mut self, id: TargetId, now: Now) {
        let in_flight = self.slots.get(&id).and_then(|slot| self.lanes.get(&slot.dev)?.in_flight) == Some(id);
        if !in_flight {
            self.put(id, now);
        }
    }

    fn put(&mut self, id: TargetId, at: Now) {
        self.unqueue(id);
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.next = Some(at);
            self.queue.insert((at, id));
        }
    }

    fn unqueue(&mut self, id: TargetId) {
        if let Some(at) = self.slots.get_mut(&id).and_then(|slot| slot.next.take()) {
            self.queue.remove(&(at, id));
        }
    }

    fn drop_idle_lane(&mut self, dev: Dev) {
        let idle = |lane: &Lane| lane.members.is_empty() && lane.in_flight.is_none() && !lane.unreaped;
        if self.lanes.get(&dev).is_some_and(idle) {
            self.lanes.remove(&dev);
        }
    }
}

#[cfg(test)]
mod tests;
