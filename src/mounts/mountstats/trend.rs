//! What changed between two readings of mountstats.

use serde::{Deserialize, Serialize};

use super::{OpCounters, TransportCounters};

/// What a mount's transport did since the last look: it explains a verdict and never makes one. On an idle mount it is
/// silent for a minute after the server died (measured).
///
/// Mounts of one server share transports, so requests and replies may be those of a neighbour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportTrend {
    /// Time between the two readings, in milliseconds.
    pub millis: u64,
    /// Requests sent.
    pub sent: u64,
    /// Replies received.
    pub received: u64,
    /// Transmissions beyond the first, of calls that came to their end.
    pub retransmissions: u64,
    /// Major timeouts, of calls that came to their end.
    pub timeouts: u64,
    /// Connection attempts.
    pub reconnects: u64,
}

impl TransportTrend {
    /// The difference of two readings; `None` when a counter went backwards: it was mounted anew in between.
    #[must_use]
    pub fn between(
        before: (TransportCounters, &[OpCounters]),
        after: (TransportCounters, &[OpCounters]),
        millis: u64,
    ) -> Option<TransportTrend> {
        let ops =
            |counters: &[OpCounters]| OpCounters::total(counters).map_or((0, 0), |t| (t.retransmissions, t.timeouts));
        let ((retransmissions, timeouts), (more, late)) = (ops(before.1), ops(after.1));
        let (before, after) = (before.0, after.0);
        Some(TransportTrend {
            millis,
            sent: after.sends.checked_sub(before.sends)?,
            received: after.recvs.checked_sub(before.recvs)?,
            retransmissions: more.checked_sub(retransmissions)?,
            timeouts: late.checked_sub(timeouts)?,
            reconnects: after.connects.checked_sub(before.connects)?,
        })
    }

    /// Requests that were sent and not answered in that time.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// Something that an answering server does not show.
    #[must_use]
    pub fn troubled(&self) -> bool {
        self.unanswered() > 0 || self.retransmissions > 0 || self.timeouts > 0 || self.reconnects > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::Operation;
    use super::*;

    fn transport(connects: u64, sends: u64, recvs: u64) -> TransportCounters {
        TransportCounters { connects, sends, recvs }
    }

    fn getattr(retransmissions: u64, timeouts: u64) -> [OpCounters; 1] {
        let operation = Operation::Getattr;
        [OpCounters { operation, operations: 9, retransmissions, timeouts, errors: None, rtt_ms: 0, execute_ms: 0 }]
    }

    #[test]
    fn the_difference_of_two_readings_is_said_in_full() {
        let before = getattr(1, 0);
        let after = getattr(4, 2);
        let trend =
            TransportTrend::between((transport(2, 10, 10), &before), (transport(3, 22, 12), &after), 5000).unwrap();
        assert_eq!((trend.sent, trend.received, trend.unanswered()), (12, 2, 10));
        assert_eq!((trend.retransmissions, trend.timeouts, trend.reconnects, trend.millis), (3, 2, 1, 5000));
        assert!(trend.troubled());
    }

    #[test]
    fn a_counter_that_went_backwards_is_a_new_mount_and_no_trend() {
        let ops = getattr(0, 0);
        for after in [transport(1, 20, 20), transport(2, 9, 20), transport(2, 20, 9)] {
            assert_eq!(TransportTrend::between((transport(2, 10, 10), &ops), (after, &ops), 1), None);
        }
        let fewer = TransportTrend::between((transport(2, 1, 1), &getattr(3, 0)), (transport(2, 1, 1), &[]), 1);
        assert_eq!(fewer, None);
    }

    #[test]
    fn late_replies_are_no_trouble() {
        let ops = getattr(0, 0);
        let trend = TransportTrend::between((transport(2, 10, 8), &ops), (transport(2, 12, 12), &ops), 1).unwrap();
        assert!(!trend.troubled());
    }
}
