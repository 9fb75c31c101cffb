//! How often the cluster is asked and told. One place, so that tests can run it faster.

use std::time::Duration;

/// All times of the cluster's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// Deadline of a request with its whole answer.
    pub(super) call: Duration,
    /// A watch must speak so often: the server sends a bookmark about every minute.
    pub(super) idle: Duration,
    /// Shortest time of a watch (the longest is twice that); as client-go asks for.
    pub(super) watch: Duration,
    /// First pause after a failure.
    pub(super) first_retry: Duration,
    /// Longest pause after failures: so late is noticed that the server is back.
    pub(super) longest_retry: Duration,
    /// Time in which changes are gathered before they are worked on.
    pub(super) gather: Duration,
    /// Volumes, claims, namespaces and the Node are read again so often.
    pub(super) refresh: Duration,
    /// Two writes of `NodeMounts` are at least so far apart.
    pub(super) object_gap: Duration,
    /// `NodeMounts` is written again so often though nothing changed: its age says that the agent lives.
    pub(super) object_refresh: Duration,
    /// The same while it carries rescue requests, which are void after 60 s.
    pub(super) request_refresh: Duration,
    /// The heartbeat of the Node's condition.
    pub(super) heartbeat: Duration,
    /// All mounts must work for so long before the condition says so again.
    pub(super) calm: Duration,
    /// Two patches of the condition are at least so far apart.
    pub(super) condition_gap: Duration,
    /// One more Event may be sent so often, beyond the first burst.
    pub(super) event: Duration,
    /// An Event of the same kind about the same volume within this time counts up the last one.
    pub(super) series: Duration,
    /// An Event that a namespace turns away for so long is given up; the API server forgets those it took as soon
    /// (kube-apiserver `--event-ttl`).
    pub(super) give_up: Duration,
    /// A pod must be pending for so long before its servers are asked, and is looked at again so often.
    pub(super) pending: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        let minute = second * 60;
        Pace {
            call: second * 10,
            idle: second * 100,
            watch: minute * 5,
            first_retry: second / 2,
            longest_retry: second * 30,
            gather: second / 5,
            refresh: minute * 10,
            object_gap: second * 10,
            object_refresh: minute * 5,
            request_refresh: second * 20,
            heartbeat: minute,
            calm: second * 30,
            condition_gap: second * 10,
            event: second * 3,
            series: minute * 10,
            give_up: minute * 60,
            pending: second * 30,
        }
    }
}

#[cfg(test)]
impl Pace {
    /// All times so many times shorter.
    pub(super) fn scaled(factor: u32) -> Pace {
        let pace = Pace::default();
        Pace {
            call: pace.call / factor,
            idle: pace.idle / factor,
            // In whole seconds on the wire.
            watch: Duration::from_secs(1).max(pace.watch / factor),
            first_retry: pace.first_retry / factor,
            longest_retry: pace.longest_retry / factor,
            gather: pace.gather / factor,
            refresh: pace.refresh / factor,
            object_gap: pace.object_gap / factor,
            object_refresh: pace.object_refresh / factor,
            request_refresh: pace.request_refresh / factor,
            heartbeat: pace.heartbeat / factor,
            calm: pace.calm / factor,
            condition_gap: pace.condition_gap / factor,
            event: pace.event / factor,
            series: pace.series / factor,
            give_up: pace.give_up / factor,
            pending: pace.pending / factor,
        }
    }
}
