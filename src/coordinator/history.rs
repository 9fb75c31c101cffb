//! What was done: the one value that stands between the coordinator and doing too much.
//!
//! It is written before each eviction with the version that was read (compare and swap), so of two coordinators that
//! both believe to lead, one loses the write and decides anew on what the other did. Its clock only goes forward
//! ([`History::clock`]), and where a clock was set, everything before counts as unknown ([`History::distrust`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::{Time, seconds};

/// How long an eviction is in flight when its replacement does not become Ready.
pub const SETTLE: Duration = Duration::from_secs(120);

/// First wait after a budget or the API server said no; it doubles with each further one.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(10);

/// Longest wait.
pub const BACKOFF_LAST: Duration = Duration::from_secs(300);

/// Records that are kept. An object of the API holds about a megabyte; a record is at most 2 kB (names have limits), as
/// a rule 400 bytes.
pub const MAX_RECORDS: usize = 1000;

/// Bad ends in a row that open the breaker of a server.
pub const BREAKER: usize = 3;

/// Everything that must be remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Format of this value; only [`History::VERSION`] is understood.
    pub version: u32,
    /// When it began: before this nothing is known.
    pub began: Time,
    /// When it was last written.
    pub written: Time,
    /// What was done, oldest first.
    pub records: Vec<Record>,
}

/// One eviction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// When it was decided.
    pub at: Time,
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Its workload (`Deployment/web`).
    pub workload: String,
    /// UID of its controller; empty where there is none.
    pub controller: String,
    /// The dead server.
    pub server: String,
    /// Whether somebody makes a new pod.
    pub replaced: bool,
    /// The newest creation time among the pods of its controller: what is younger is a replacement.
    pub newest: Time,
    /// How far it is.
    pub stage: Stage,
    /// How often the API server said no to it.
    #[serde(default)]
    pub tries: u32,
    /// UID of the replacement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
}

/// How far an eviction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Written down, the call may or may not have been made.
    Reserved,
    /// The API server said 201 (again).
    Accepted,
    /// The API server said no; it may be tried again at `until`.
    Refused {
        /// When.
        until: Time,
    },
    /// A dry run would have evicted it.
    Simulated,
    /// The replacement is Ready, or the pod is gone and none is to come.
    Done {
        /// When.
        at: Time,
    },
    /// The replacement did not become Ready in time.
    NotReady {
        /// When that was clear.
        at: Time,
    },
    /// The replacement's mount is dead too.
    DeadAgain {
        /// When that was told.
        at: Time,
    },
    /// The pod is still there, not even Terminating.
    NoEffect {
        /// When that was clear.
        at: Time,
    },
}

/// How an eviction call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 201.
    Accepted,
    /// 201 to a dry run.
    Simulated,
    /// Not evicted and nothing began: 429, 403, 404, 409, 410, 500 of the budgets.
    Refused,
    /// Nobody knows whether it began: a timeout, a cut connection, 5xx.
    Unknown,
}

/// Clocks of two coordinators may differ by so much.
const SKEW: i64 = 60;

/// What is seen of a pod that was evicted, and of its replacement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// A pod with the evicted UID exists.
    pub pod: bool,
    /// It is Terminating.
    pub terminating: bool,
    /// A pod of the same controller, younger than the eviction: its UID, and whether it is Ready.
    pub replacement: Option<(String, bool)>,
}

impl Record {
    /// Counts against the budgets.
    #[must_use]
    pub fn in_flight(&self, now: Time) -> bool {
        match self.stage {
            Stage::Reserved | Stage::Accepted | Stage::Simulated => self.at.age(now) < seconds(SETTLE),
            _ => false,
        }
    }

    /// A pod was really (or, in a dry run, would have been) sent away.
    #[must_use]
    pub fn counts(&self) -> bool {
        !matches!(self.stage, Stage::Refused { .. } | Stage::NoEffect { .. })
    }

    /// How it ended, where that bears on the breaker: when, and whether badly.
    fn end(&self) -> Option<(Time, bool)> {
        match self.stage {
            Stage::Done { at } => Some((at, false)),
            Stage::NotReady { at } | Stage::DeadAgain { at } => Some((at, true)),
            _ => None,
        }
    }

    /// Whether it bears on any decision yet.
    fn bears(&self, cool_down: Duration, now: Time) -> bool {
        let last = match self.stage {
            Stage::Refused { until } => until,
            _ => self.end().map_or(self.at, |(at, _)| at),
        };
        last.age(now) < seconds(cool_down.max(SETTLE))
    }

    /// Whether a look at the pod and its controller would say something new.
    #[must_use]
    pub fn open(&self) -> bool {
        matches!(self.stage, Stage::Reserved | Stage::Accepted | Stage::NotReady { .. })
    }
}

impl History {
    /// The format that is written.
    pub const VERSION: u32 = 1;

    /// A history that knows nothing from before `now`.
    #[must_use]
    pub fn begin(now: Time) -> History {
        History { version: History::VERSION, began: now, written: now, records: Vec::new() }
    }

    /// Reads the stored text.
    ///
    /// # Errors
    /// Why it cannot be used: then everything counts as unknown.
    pub fn parse(text: &str) -> Result<History, String> {
        let history: History = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if history.version != History::VERSION {
            return Err(format!("its version is {}, this coordinator knows {}", history.version, History::VERSION));
        }
        if history.records.len() > MAX_RECORDS {
            return Err(format!("it has {} records, at most {MAX_RECORDS} are ever written", history.records.len()));
        }
        Ok(history)
    }

    /// The text to store.
    #[must_use]
    pub fn text(&self) -> String {
        // Plain data: strings and numbers.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The time by this history: `wall`, but never before what was written. Set back, the clock stands still here until
    /// it has caught up, and no cool-down ends early.
    #[must_use]
    pub fn clock(&self, wall: Time) -> Time {
        wall.max(self.written)
    }

    /// Whether a whole cool-down lies behind its beginning.
    #[must_use]
    pub fn known_since(&self, cool_down: Duration, now: Time) -> bool {
        self.began.age(now) >= seconds(cool_down)
    }

    /// `wall` lies before what was written by more than clocks may differ: one of the two was wrong.
    #[must_use]
    pub fn contradicts(&self, wall: Time) -> bool {
        self.written.age(wall) < -SKEW
    }

    /// Records in flight.
    pub fn in_flight(&self, now: Time) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.in_flight(now))
    }

    /// Whether the breaker of a server is open: the last [`BREAKER`] evictions that ended within the cool-down ended
    /// badly.
    #[must_use]
    pub fn breaker_open(&self, server: &str, cool_down: Duration, now: Time) -> bool {
        let mut ends: Vec<(Time, bool)> =
            self.records.iter().filter(|record| record.server == server).filter_map(Record::end).collect();
        ends.retain(|(at, _)| at.age(now) < seconds(cool_down));
        ends.sort_by_key(|(at, bad)| (*at, !bad));
        ends.len() >= BREAKER && ends.iter().rev().take(BREAKER).all(|(_, bad)| *bad)
    }

    /// Servers whose breaker is open.
    #[must_use]
    pub fn breakers(&self, cool_down: Duration, now: Time) -> Vec<String> {
        let mut servers: Vec<&str> = self.records.iter().map(|record| record.server.as_str()).collect();
        servers.sort_unstable();
        servers.dedup();
        servers.retain(|server| self.breaker_open(server, cool_down, now));
        servers.into_iter().map(str::to_owned).collect()
    }

    /// So much was done within the cool-down that there is no room for one more.
    #[must_use]
    pub fn full(&self, cool_down: Duration, now: Time) -> bool {
        self.records.iter().filter(|record| record.bears(cool_down, now)).count() >= MAX_RECORDS
    }

    /// Writes an eviction down before it is tried. A refused try of the same pod is taken up again.
    ///
    /// Only now is forgotten what bears on nothing any more: a fresh request stands behind it, so the clock is right. A
    /// coordinator whose clock runs an hour ahead would else forget all cool-downs, and leave no trace of that.
    pub fn reserve(&mut self, mut record: Record, cool_down: Duration, now: Time) {
        self.records.retain(|record| record.bears(cool_down, now));
        let same = |old: &Record| old.uid == record.uid && matches!(old.stage, Stage::Refused { .. });
        if let Some(at) = self.records.iter().position(same) {
            record.tries = self.records.remove(at).tries;
        }
        self.records.push(record);
        self.touch(now);
    }

    /// Writes down how the call ended. Where nobody knows, the reservation stands until a look at the pod tells.
    pub fn answered(&mut self, uid: &str, answer: &Answer, now: Time) {
        let reserved = |record: &&mut Record| record.uid == uid && record.stage == Stage::Reserved;
        if let Some(record) = self.records.iter_mut().rev().find(reserved) {
            match answer {
                Answer::Accepted => record.stage = Stage::Accepted,
                Answer::Simulated => record.stage = Stage::Simulated,
                Answer::Refused => record.refuse(now),
                Answer::Unknown => {}
            }
        }
        self.touch(now);
    }

    /// Takes in what is seen of the pod of an eviction that is open. Says whether anything changed.
    pub fn observe(&mut self, uid: &str, seen: &Seen, now: Time) -> bool {
        let Some(record) = self.records.iter_mut().rev().find(|record| record.uid == uid && record.open()) else {
            return false;
        };
        let before = record.clone();
        record.observe(seen, now);
        let changed = *record != before;
        if changed {
            self.touch(now);
        }
        changed
    }

    /// A fresh request names this pod: if it is a replacement, it did not help. Says whether that is news.
    pub fn dead_again(&mut self, uid: &str, server: &str, now: Time) -> bool {
        let hit = |record: &&mut Record| {
            record.server == server
                && record.replacement.as_deref() == Some(uid)
                && matches!(record.stage, Stage::Done { .. })
        };
        let Some(record) = self.records.iter_mut().find(hit) else { return false };
        record.stage = Stage::DeadAgain { at: now };
        self.touch(now);
        true
    }

    /// The clock cannot be trusted: whatever happened before counts as unknown.
    pub fn distrust(&mut self, now: Time) {
        self.touch(now);
        self.began = self.written;
    }

    fn touch(&mut self, now: Time) {
        self.written = self.written.max(now);
    }
}

impl Record {
    fn refuse(&mut self, now: Time) {
        let doubled = BACKOFF_FIRST.saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX));
        self.tries = self.tries.saturating_add(1).min(16);
        self.stage = Stage::Refused { until: now.plus(doubled.min(BACKOFF_LAST)) };
    }

    fn observe(&mut self, seen: &Seen, now: Time) {
        let over = self.at.age(now) >= seconds(SETTLE);
        let leaving = !seen.pod || seen.terminating;
        match self.stage {
            Stage::Reserved | Stage::Accepted if leaving => {
                self.stage = Stage::Accepted;
                self.follow(seen, over, now);
            }
            // The call was never made, or it failed: nothing began.
            Stage::Reserved if over => self.refuse(now),
            Stage::Accepted if over => self.stage = Stage::NoEffect { at: now },
            Stage::NotReady { .. } => self.follow(seen, false, now),
            _ => {}
        }
    }

    fn follow(&mut self, seen: &Seen, over: bool, now: Time) {
        match &seen.replacement {
            _ if !self.replaced && (!seen.pod || over) => self.stage = Stage::Done { at: now },
            _ if !self.replaced => {}
            Some((uid, true)) => {
                self.replacement = Some(uid.clone());
                self.stage = Stage::Done { at: now };
            }
            _ if over => self.stage = Stage::NotReady { at: now },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
