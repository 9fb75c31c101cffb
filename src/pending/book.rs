//! Whom to ask about which export, and what they said. Pure: time and answers in, questions and rows out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::mounting::Mounting;
use super::{Server, Waiting, Wanted};
use crate::snapshot::{PendingVolume, UnixSeconds};
use crate::verdict::{Cause, Severity};

/// A pod must have waited for so long: a mount takes a second, of EFS with its proxy some.
pub const AFTER: Duration = Duration::from_secs(30);

/// The same export is asked about so often, and the same server about any at most once in [`APART`].
const EVERY: Duration = Duration::from_secs(30);
const APART: Duration = Duration::from_secs(2);

/// Servers that are asked at a time.
pub const IN_FLIGHT: usize = 4;

/// Volumes that are looked at; of more only the number is known.
const MOST: usize = 1024;

/// Rows of a snapshot.
pub const LISTED: usize = 200;

/// Since the agent's start.
type Now = Duration;

/// What an examination of a server came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// [`Severity::Dead`]: nobody can mount it now.
    pub result: Severity,
    /// Why, where it is proven.
    pub cause: Option<Cause>,
    /// What is the matter, in words.
    pub summary: String,
    /// What to do.
    pub advice: String,
    /// The address that was asked.
    pub address: Option<std::net::IpAddr>,
    /// When it was asked.
    pub checked: UnixSeconds,
}

impl Answer {
    /// It holds for whatever that server exports.
    fn of_whole_server(&self) -> bool {
        let causes = [Cause::DnsFailed, Cause::ServerUnreachable, Cause::ServerRefused, Cause::ServerUnresponsive];
        self.cause.is_some_and(|cause| causes.contains(&cause))
    }
}

#[derive(Debug, Default)]
struct Asked {
    busy: bool,
    last: Option<Now>,
    whole: Option<(Now, Answer)>,
    exports: HashMap<String, (Now, Answer)>,
}

impl Asked {
    fn answer(&self, export: &str) -> Option<&(Now, Answer)> {
        let own = self.exports.get(export);
        match (&self.whole, own) {
            (Some(whole), Some(own)) if own.0 > whole.0 => Some(own),
            (Some(whole), _) => Some(whole),
            (None, own) => own,
        }
    }
}

/// Everything about pods that wait.
#[derive(Debug, Default)]
pub struct Book {
    waiting: Vec<Waiting>,
    left_out: usize,
    /// When this agent first saw a volume missing: the kubelet's clock may be wrong.
    seen: HashMap<(String, String), Now>,
    servers: BTreeMap<Server, Asked>,
    mounting: Mounting,
}

impl Book {
    /// Takes a new look over: who waits now.
    pub fn take(&mut self, mut waiting: Vec<Waiting>, now: Now) {
        self.left_out = waiting.len().saturating_sub(MOST);
        waiting.truncate(MOST);
        let key = |one: &Waiting| (one.pod_uid.clone(), one.directory.clone());
        let present: HashSet<_> = waiting.iter().map(key).collect();
        self.seen.retain(|key, _| present.contains(key));
        for one in &waiting {
            self.seen.entry(key(one)).or_insert(now);
        }
        let wanted: HashSet<&Wanted> = waiting.iter().map(|one| &one.wanted).collect();
        let servers: BTreeSet<&Server> = waiting.iter().map(|one| &one.wanted.server).collect();
        // One that is being asked stays until it answered.
        self.servers.retain(|server, asked| asked.busy || servers.contains(server));
        for (server, asked) in &mut self.servers {
            let still = |export: &String| wanted.contains(&Wanted { server: server.clone(), export: export.clone() });
            asked.exports.retain(|export, _| still(export));
        }
        if waiting.is_empty() {
            self.mounting = Mounting::default();
        }
        self.waiting = waiting;
    }

    /// Nobody waits, and nobody is being asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.servers.is_empty()
    }

    /// Somebody has waited for too long.
    #[must_use]
    pub fn overdue(&self, now: Now, wall: UnixSeconds) -> bool {
        self.waiting.iter().any(|one| self.is_overdue(one, now, wall))
    }

    fn is_overdue(&self, one: &Waiting, now: Now, wall: UnixSeconds) -> bool {
        let key = (one.pod_uid.clone(), one.directory.clone());
        let observed = self.seen.get(&key).is_some_and(|seen| now.saturating_sub(*seen) >= AFTER);
        observed || wall - since(one) >= AFTER.as_secs_f64()
    }

    /// What to ask now; each is to be [`Book::answered`].
    pub fn due(&mut self, now: Now, wall: UnixSeconds) -> Vec<Wanted> {
        let busy = self.servers.values().filter(|asked| asked.busy).count();
        let mut oldest: BTreeMap<&Server, (Option<Now>, &Wanted)> = BTreeMap::new();
        for one in self.waiting.iter().filter(|one| self.is_overdue(one, now, wall)) {
            let asked = self.servers.get(&one.wanted.server);
            let rests = |asked: &Asked| asked.busy || asked.last.is_some_and(|last| now.saturating_sub(last) < APART);
            let at = asked.and_then(|asked| asked.answer(&one.wanted.export)).map(|(at, _)| *at);
            let fresh = at.is_some_and(|at| now.saturating_sub(at) < EVERY);
            if asked.is_some_and(rests) || fresh {
                continue;
            }
            let entry = oldest.entry(&one.wanted.server).or_insert((at, &one.wanted));
            if at < entry.0 {
                *entry = (at, &one.wanted);
            }
        }
        let mut due: Vec<(Option<Now>, Wanted)> =
            oldest.into_values().map(|(at, wanted)| (at, wanted.clone())).collect();
        due.sort();
        due.truncate(IN_FLIGHT.saturating_sub(busy));
        for (_, wanted) in &due {
            let asked = self.servers.entry(wanted.server.clone()).or_default();
            (asked.busy, asked.last) = (true, Some(now));
        }
        due.into_iter().map(|(_, wanted)| wanted).collect()
    }

    /// A server was asked.
    pub fn answered(&mut self, wanted: &Wanted, answer: Answer, now: Now) {
        let Some(asked) = self.servers.get_mut(&wanted.server) else { return };
        asked.busy = false;
        if answer.of_whole_server() {
            asked.exports.clear();
            asked.whole = Some((now, answer));
        } else {
            // It answers: what was true of the whole of it is no more.
            asked.whole = None;
            asked.exports.insert(wanted.export.clone(), (now, answer));
        }
    }

    /// What the kubelet's own mounts are doing.
    pub fn mounting(&mut self, mounting: Mounting) {
        self.mounting = mounting;
    }

    /// The kubelet's mounts that hang.
    #[must_use]
    pub fn mounts(&self) -> &Mounting {
        &self.mounting
    }

    /// How many volumes were waited for too long.
    #[must_use]
    pub fn count(&self, now: Now, wall: UnixSeconds) -> usize {
        self.waiting.iter().filter(|one| self.is_overdue(one, now, wall)).count() + self.left_out
    }

    /// Volumes that were waited for too long: rows, and how many there are in all.
    #[must_use]
    pub fn rows(&self, now: Now, wall: UnixSeconds) -> (Vec<PendingVolume>, usize) {
        let overdue: Vec<&Waiting> = self.waiting.iter().filter(|one| self.is_overdue(one, now, wall)).collect();
        let servers: BTreeSet<&Server> = overdue.iter().map(|one| &one.wanted.server).collect();
        let rows = overdue.iter().take(LISTED).map(|one| self.row(one, servers.len() == 1)).collect();
        (rows, overdue.len() + self.left_out)
    }

    fn row(&self, one: &Waiting, alone: bool) -> PendingVolume {
        let answer = self.servers.get(&one.wanted.server).and_then(|asked| asked.answer(&one.wanted.export));
        let answer = answer.map(|(_, answer)| answer);
        let proven = answer.is_some_and(|answer| answer.result == Severity::Dead);
        // Which server a mount of the kubelet's waits for shows only where there is one to wait for; and the server has the
        // first word: it can tell why.
        let hangs = if alone && answer.is_some() { self.mounting.words() } else { None };
        let manager = answer.and_then(|answer| self.mounting.manager(answer.address?));
        let blocked = proven || hangs.is_some() || manager.is_some();
        let evidence: Vec<String> =
            answer.map(|answer| answer.summary.clone()).into_iter().chain(hangs).chain(manager).collect();
        PendingVolume {
            pod_uid: one.pod_uid.clone(),
            volume: one.directory.clone(),
            source: one.source.clone(),
            since: since(one),
            blocked,
            cause: answer.and_then(|answer| answer.cause).or(blocked.then_some(Cause::Unknown)),
            evidence: evidence.join(" "),
            advice: answer.map(|answer| answer.advice.clone()).unwrap_or_default(),
            checked: answer.map(|answer| answer.checked),
            ..PendingVolume::default()
        }
    }
}

fn since(one: &Waiting) -> UnixSeconds {
    seconds(one.since)
}

#[expect(clippy::cast_precision_loss, reason = "seconds since the epoch")]
pub(super) fn seconds(since: u64) -> UnixSeconds {
    since as f64
}

#[cfg(test)]
mod tests;
