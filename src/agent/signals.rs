//! Readings of transport states and FUSE queues, by a worker: when they are made, and what follows from them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use tokio::time::Instant;

use super::core::{Core, Event};
use super::target::Target;
use crate::mounts::Kind;
use crate::passive::sunrpc::Link;
use crate::probe::pool::{Class, Outcome};
use crate::probe::schedule::{Now, TargetId};
use crate::probe::wire::{Answer, Job, Signals, SignalsJob};
use crate::verdict::judge::words::errno_name;
use crate::verdict::{State, Waiting};

/// Shortest time between two readings.
const SHORTEST: Duration = Duration::from_secs(1);

/// A reading may cost a ten-thousandth of the time: the next one waits so many times as long as the last one took. It opens
/// a file for each FUSE connection, and only explains what the probes find anyway.
const COST: u32 = 10_000;

/// It never waits for longer than so many intervals.
const LONGEST: u32 = 4;

/// Connections of one server that are told in words.
const TOLD: usize = 4;

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct Readings {
    next: Now,
    in_flight: bool,
    links: HashMap<IpAddr, Vec<Link>>,
    queues: HashMap<u32, Queue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Queue {
    waiting: u64,
    /// Since when the number is the same.
    since: Now,
    /// It was the same in two readings.
    stuck: bool,
}

impl Readings {
    pub(super) fn next_wake(&self) -> Option<Now> {
        (!self.in_flight).then_some(self.next)
    }

    /// Takes the queues of a reading over. Gives those that stopped moving.
    fn take_queues(&mut self, waiting: &[(u32, u64)], now: Now) -> Vec<u32> {
        let mut stopped = Vec::new();
        let mut queues = HashMap::with_capacity(waiting.len());
        for &(minor, waiting) in waiting {
            let same = self.queues.get(&minor).filter(|before| before.waiting == waiting && waiting > 0);
            if same.is_some_and(|before| !before.stuck) {
                stopped.push(minor);
            }
            let since = same.map_or(now, |before| before.since);
            queues.insert(minor, Queue { waiting, since, stuck: same.is_some() });
        }
        self.queues = queues;
        stopped
    }

    /// What waits for the daemon of a target, if it does not move.
    pub(super) fn waiting(&self, target: &Target, now: Now) -> Option<Waiting> {
        let queue = self.queues.get(&target.dev.minor).filter(|queue| queue.stuck && is_fuse(target))?;
        let millis = u64::try_from(now.saturating_sub(queue.since).as_millis()).unwrap_or(u64::MAX);
        Some(Waiting { requests: queue.waiting, millis })
    }

    /// What the kernel says of the connections to the server of a target.
    pub(super) fn transports(&self, target: &Target) -> Vec<String> {
        let links = target.mount.origin.address.filter(|_| target.facts.is_nfs()).and_then(|ip| self.links.get(&ip));
        // All local proxies have one address: it could be any of them.
        let links = links.filter(|_| target.mount.origin.proxy_port.is_none()).into_iter().flatten();
        links.take(TOLD).map(Link::to_string).collect()
    }
}

fn is_fuse(target: &Target) -> bool {
    target.facts.kind == Some(Kind::Fuse)
}

impl Core {
    /// Starts a reading if one is due and somebody needs it.
    pub(super) fn read_signals(&mut self, now: Now) {
        if self.signals.in_flight || self.signals.next > now {
            return;
        }
        let targets = || self.registry.targets.values();
        let mut connections: Vec<u32> = targets().filter(|target| is_fuse(target)).map(|t| t.dev.minor).collect();
        connections.sort_unstable();
        connections.dedup();
        // A connection explains a mount that does not answer, and nothing else.
        let transports = targets().any(|target| target.facts.is_nfs() && target.memory.state == State::Hung);
        if connections.is_empty() && !transports {
            self.signals.links.clear();
            self.signals.queues.clear();
            self.signals.next = now + (self.config.interval / 3).max(SHORTEST);
            return;
        }
        self.signals.in_flight = true;
        let host = self.config.proc_root.join("1/root/sys").as_os_str().as_bytes().to_vec();
        let job = SignalsJob { roots: vec![b"/sys".to_vec(), host], transports, connections };
        let (pool, deadline) = (self.pool.clone(), self.config.timeout);
        let started = Instant::now();
        self.running.spawn(async move {
            let outcome = pool.run(Job::Signals(job), "signals", Class::Hopeful, deadline, deadline).await;
            Event::Signalled { outcome, took: started.elapsed() }
        });
    }

    /// A reading came back.
    pub(super) fn on_signals(&mut self, outcome: Outcome, took: Duration) {
        let now = self.now();
        self.signals.in_flight = false;
        let cost = took.saturating_mul(COST).min(self.config.interval * LONGEST);
        self.signals.next = now + cost.max(self.config.interval / 3).max(SHORTEST);
        let signals = match outcome {
            Outcome::Answered(Answer::Signals(signals)) => signals,
            _ => Signals::default(),
        };
        self.say_sources(&signals);
        self.signals.links.clear();
        for (address, link) in signals.transports {
            self.signals.links.entry(address).or_default().push(link);
        }
        let stopped = self.signals.take_queues(&signals.waiting, now);
        let stuck = |target: &&Target| is_fuse(target) && stopped.contains(&target.dev.minor);
        let ids: Vec<TargetId> = self.registry.targets.values().filter(stuck).map(|target| target.id).collect();
        for id in ids {
            self.hurry_once(id, now);
        }
    }

    fn say_sources(&mut self, signals: &Signals) {
        let words = |what: &str, errno: i32| format!("{what}: {}", errno_name(errno));
        if let Some(errno) = signals.transports_errno {
            self.evidence_from("transport_state", Some(words("read /sys/kernel/sunrpc (Linux 5.14)", errno)));
        } else if !signals.transports.is_empty() {
            self.evidence_from("transport_state", None);
        }
        if let Some(errno) = signals.waiting_errno {
            self.evidence_from("fuse_control", Some(words("read /sys/fs/fuse/connections (fusectl)", errno)));
        } else if !signals.waiting.is_empty() {
            self.evidence_from("fuse_control", None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_does_not_move_is_told_once() {
        let mut readings = Readings::default();
        let seconds = Duration::from_secs;
        assert!(readings.take_queues(&[(51, 3), (52, 0), (53, 1)], seconds(0)).is_empty());
        assert_eq!(readings.take_queues(&[(51, 3), (52, 0), (53, 2)], seconds(5)), [51]);
        assert!(readings.take_queues(&[(51, 3), (52, 0), (53, 1)], seconds(10)).is_empty(), "said already");
        assert_eq!(readings.queues[&51], Queue { waiting: 3, since: seconds(0), stuck: true });
        assert!(readings.take_queues(&[(51, 2)], seconds(15)).is_empty(), "one was answered");
        assert_eq!(readings.take_queues(&[(51, 2)], seconds(20)), [51]);
        assert!(readings.take_queues(&[], seconds(25)).is_empty());
        assert!(readings.queues.is_empty(), "what is gone takes no memory");
    }
}
