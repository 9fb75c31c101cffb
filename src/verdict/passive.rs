//! What the kernel counted and said by itself around a look. It explains a verdict in words and, but for one point of
//! proof, decides nothing.

use serde::{Deserialize, Serialize};

use super::State;
use crate::mounts::mountstats::TransportTrend;

/// A line of the kernel log about a target's server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelWords {
    /// The line.
    pub line: String,
    /// How old it is, in milliseconds.
    pub age_millis: u64,
}

/// Requests that wait for the daemon of a FUSE filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// How many.
    pub requests: u64,
    /// For how long their number has not changed, in milliseconds.
    pub millis: u64,
}

/// Passive evidence. All of it may be absent, which says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passive {
    /// What its transport did between the last two readings.
    pub trend: Option<TransportTrend>,
    /// What the kernel log last said of its server.
    pub kernel_log: Option<KernelWords>,
    /// The kernel logged that a file of this superblock became another one, since the last good look.
    pub fileid_changed: bool,
    /// What the kernel says of the connections to its server (`established`), a word or two for each.
    pub transports: Vec<String>,
    /// What waits for its daemon.
    pub waiting: Option<Waiting>,
}

/// The evidence of a verdict with what the kernel adds to it.
pub(super) fn explained(mut words: String, state: State, passive: &Passive) -> String {
    if !matches!(state, State::Hung | State::Stale | State::Lost | State::Error) {
        return words;
    }
    // The rest is about answers that do not come.
    if matches!(state, State::Hung | State::Error) {
        if let Some(trend) = passive.trend.filter(TransportTrend::troubled) {
            words += &format!("; {}", traffic(&trend));
        }
        if !passive.transports.is_empty() {
            words += &format!("; the kernel's connection to it is {}", passive.transports.join(", "));
        }
        if let Some(waiting) = passive.waiting {
            let requests = count(waiting.requests, "request waits", "requests wait");
            words += &format!("; {requests} for its daemon, unchanged for {} s", waiting.millis / 1000);
        }
    }
    if let Some(said) = &passive.kernel_log {
        words += &format!("; the kernel log said \"{}\" {} s ago", said.line, said.age_millis / 1000);
    }
    words
}

fn traffic(trend: &TransportTrend) -> String {
    let mut words = format!(
        "in {} s the NFS client sent {} and got {}",
        trend.millis.div_ceil(1000),
        count(trend.sent, "request", "requests"),
        count(trend.received, "reply", "replies")
    );
    for (number, one, many) in [
        (trend.retransmissions, "retransmission", "retransmissions"),
        (trend.timeouts, "timeout", "timeouts"),
        (trend.reconnects, "reconnect", "reconnects"),
    ] {
        if number > 0 {
            words += &format!(", {}", count(number, one, many));
        }
    }
    words
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Passive {
        Passive {
            trend: Some(TransportTrend {
                millis: 5000,
                sent: 3,
                received: 1,
                retransmissions: 2,
                timeouts: 0,
                reconnects: 1,
            }),
            kernel_log: Some(KernelWords {
                line: "nfs: server s not responding, still trying".into(),
                age_millis: 12_300,
            }),
            fileid_changed: false,
            transports: vec!["being made".to_owned()],
            waiting: Some(Waiting { requests: 9, millis: 10_000 }),
        }
    }

    #[test]
    fn a_hang_is_explained_with_everything_that_is_known() {
        let words = explained("a statx hangs".to_owned(), State::Hung, &all());
        assert_eq!(
            words,
            "a statx hangs; in 5 s the NFS client sent 3 requests and got 1 reply, 2 retransmissions, 1 reconnect; the \
             kernel's connection to it is being made; 9 requests wait for its daemon, unchanged for 10 s; the kernel log said \
             \"nfs: server s not responding, still trying\" 12 s ago"
        );
    }

    #[test]
    fn a_stale_mount_answers_so_only_the_log_explains_it() {
        let words = explained("ESTALE".to_owned(), State::Stale, &all());
        assert_eq!(words, "ESTALE; the kernel log said \"nfs: server s not responding, still trying\" 12 s ago");
    }

    #[test]
    fn what_is_well_needs_no_explanation_and_nothing_known_adds_nothing() {
        for state in [State::Healthy, State::Slow, State::Unknown, State::Full] {
            assert_eq!(explained("fine".to_owned(), state, &all()), "fine");
        }
        assert_eq!(explained("hangs".to_owned(), State::Hung, &Passive::default()), "hangs");
        let quiet = Passive {
            trend: Some(TransportTrend { sent: 2, received: 2, ..TransportTrend::default() }),
            ..Passive::default()
        };
        assert_eq!(explained("hangs".to_owned(), State::Hung, &quiet), "hangs");
    }
}
