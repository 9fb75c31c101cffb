//! What the records of other nodes say: who is seen, how late, who has fallen silent. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Nodes of one mount that are remembered; the ones looked at longest ago make room.
const MOST: usize = 64;

/// A record that is older than this, by the server's clock, belongs to a node that is gone: no news any more.
pub const GONE_AFTER_MICROS: u64 = 3600 * 1_000_000;

/// What a record may promise, in seconds: more, or nothing, is not believed.
const PROMISE: std::ops::RangeInclusive<u64> = 1..=3600;

/// Beyond twice the promised interval: a write that took its deadline, and clocks that count whole seconds.
const SLACK_MICROS: u64 = 10 * 1_000_000;

/// What a node is told apart as that was not seen for so long, in milliseconds.
const FORGOTTEN_MILLIS: u64 = 3600 * 1000;

/// One look at another node's record. Times are the server's, in microseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Name of its file.
    pub id: String,
    /// Name of the node, as the record has it.
    pub node: String,
    /// Sequence number.
    pub seq: u64,
    /// The next record comes within so many seconds.
    pub interval: u64,
    /// When it was written, as an application on this node sees it.
    pub seen: u64,
    /// When it was written, as the server says when it is asked past all caches.
    pub written: u64,
}

/// What one node is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// Its records arrive as they should.
    Fresh,
    /// The server has a newer record than an application on this node sees.
    Late,
    /// It promised more records and writes none.
    Silent,
    /// Silent for so long that it is no news any more.
    Gone,
}

impl PeerState {
    /// All of them.
    pub const ALL: [PeerState; 4] = [PeerState::Fresh, PeerState::Late, PeerState::Silent, PeerState::Gone];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PeerState::Fresh => "fresh",
            PeerState::Late => "late",
            PeerState::Silent => "silent",
            PeerState::Gone => "gone",
        }
    }
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The last look at its record.
    pub look: Look,
    /// Age of its record when it was looked at, in microseconds of the server's clock.
    pub lag_micros: u64,
    /// What follows.
    pub state: PeerState,
    looked_millis: u64,
}

/// The other nodes on one mount.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    known: BTreeMap<String, Peer>,
}

impl Peers {
    /// Takes a round's looks over. `own`: when the server says that our own record of this round was written. `asked`:
    /// nodes that were looked for by name; one that has no record any more is forgotten.
    pub fn take(&mut self, own: u64, looks: Vec<Look>, asked: &[String], now_millis: u64) {
        let found = |id: &String| looks.iter().any(|look| look.id == *id);
        for id in asked.iter().filter(|id| !found(id)) {
            self.known.remove(id);
        }
        for look in looks {
            let (lag_micros, state) = judge(own, &look);
            self.known.insert(look.id.clone(), Peer { look, lag_micros, state, looked_millis: now_millis });
        }
        self.known.retain(|_, peer| now_millis.saturating_sub(peer.looked_millis) <= FORGOTTEN_MILLIS);
        while self.known.len() > MOST {
            let oldest = self.known.iter().min_by_key(|(_, peer)| peer.looked_millis).map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { return };
            self.known.remove(&oldest);
        }
    }

    /// Up to `most` nodes to look at again whatever the sample is: those that worry, the longest unseen first.
    #[must_use]
    pub fn to_ask(&self, most: usize) -> Vec<String> {
        let worries = |peer: &&Peer| matches!(peer.state, PeerState::Late | PeerState::Silent);
        let mut worrying: Vec<&Peer> = self.known.values().filter(worries).collect();
        worrying.sort_by_key(|peer| peer.looked_millis);
        worrying.into_iter().take(most).map(|peer| peer.look.id.clone()).collect()
    }

    /// All that are known, worst first.
    #[must_use]
    pub fn all(&self) -> Vec<&Peer> {
        let mut all: Vec<&Peer> = self.known.values().collect();
        all.sort_by_key(|peer| Reverse((peer.state, peer.lag_micros)));
        all
    }

    /// Whether one of them is in this state.
    #[must_use]
    pub fn any(&self, state: PeerState) -> bool {
        self.known.values().any(|peer| peer.state == state)
    }
}

fn judge(own: u64, look: &Look) -> (u64, PeerState) {
    let allowed = 2 * look.interval.clamp(*PROMISE.start(), *PROMISE.end()) * 1_000_000 + SLACK_MICROS;
    let lag = own.saturating_sub(look.written);
    let seen = own.saturating_sub(look.seen);
    let state = if lag > GONE_AFTER_MICROS {
        PeerState::Gone
    } else if lag > allowed {
        PeerState::Silent
    } else if seen > allowed {
        PeerState::Late
    } else {
        PeerState::Fresh
    };
    (lag.max(seen), state)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const OWN: u64 = 1_000_000 * SECOND;

    fn look(id: &str, age: u64) -> Look {
        let written = OWN - age * SECOND;
        Look { id: id.to_owned(), node: format!("node-{id}"), seq: 1, interval: 75, seen: written, written }
    }

    fn state_of(age: u64) -> PeerState {
        judge(OWN, &look("a", age)).1
    }

    #[test]
    fn a_node_that_stops_writing_is_silent_and_after_an_hour_gone() {
        assert_eq!([state_of(0), state_of(75), state_of(150)], [PeerState::Fresh; 3]);
        assert_eq!([state_of(161), state_of(3600)], [PeerState::Silent; 2]);
        assert_eq!(state_of(3601), PeerState::Gone);
    }

    #[test]
    fn a_newer_record_on_the_server_than_an_application_sees_is_late() {
        let late = Look { seen: OWN - 200 * SECOND, ..look("a", 10) };
        assert_eq!(judge(OWN, &late), (200 * SECOND, PeerState::Late));
    }

    #[test]
    fn a_promise_that_nobody_would_give_is_not_believed() {
        let hostile = |interval| judge(OWN, &Look { interval, ..look("a", 3000) }).1;
        assert_eq!(hostile(0), PeerState::Silent);
        assert_eq!(hostile(u64::MAX), PeerState::Fresh, "an hour at most");
        assert_eq!(judge(OWN, &Look { interval: u64::MAX, ..look("a", 3601) }).1, PeerState::Gone);
        assert_eq!(judge(OWN, &Look { written: u64::MAX, seen: 0, ..look("a", 0) }).1, PeerState::Late);
    }

    #[test]
    fn who_worries_is_looked_at_again_and_who_left_is_forgotten() {
        let mut peers = Peers::default();
        peers.take(OWN, vec![look("a", 10), look("b", 500), look("c", 400), look("d", 9000)], &[], 0);
        assert_eq!(peers.to_ask(1).len(), 1);
        assert_eq!(peers.to_ask(8), ["b", "c"]);
        peers.take(OWN, vec![look("c", 0)], &["b".to_owned(), "c".to_owned()], 1);
        assert!(!peers.any(PeerState::Silent), "b has no record any more, c writes again");
        assert_eq!(peers.all().len(), 3);
        assert_eq!(peers.all()[0].look.id, "d", "the worst first");
    }

    #[test]
    fn however_many_nodes_there_are_so_many_are_remembered() {
        let mut peers = Peers::default();
        for round in 0..500 {
            peers.take(OWN, vec![look(&format!("{round:03}"), 1)], &[], round);
        }
        assert_eq!(peers.all().len(), MOST);
        peers.take(OWN, Vec::new(), &[], 500 + FORGOTTEN_MILLIS);
        assert!(peers.all().is_empty());
    }
}
