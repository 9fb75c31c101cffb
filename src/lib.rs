//! mountwarden watches the network mounts of a node and says which are hung, stale, lost, read-only, full or denied,
//! and why.
//!
//! The flow, and the rooms in its order:
//!
//! | step | module | touches |
//! |---|---|---|
//! | discover | [`mounts`] | own and PID 1's mountinfo |
//! | attribute | [`pods`] | cgroups of processes; containers' mount tables, read by workers |
//! | find who waits | [`pending`] | names and the mount table; `stat`, `wchan`, `stack` of `mount` processes |
//! | probe | [`probe`], [`server`] | the mounts (in worker processes only), the servers' ports |
//! | write, where told to | [`canary`] | nothing: records in, what other nodes say out; [`probe`] writes |
//! | listen | [`passive`] | the kernel log; what the kernel says of transports and queues |
//! | judge | [`verdict`] | nothing: evidence and time in, verdict out |
//! | report, to the cluster | [`cluster`] | the Kubernetes API |
//! | remedy | [`remedy`] | umount2(2) in a worker of its own |
//! | report | [`snapshot`], [`metrics`], [`http`], [`cli`] | memory and sockets |
//!
//! [`diagnose`] asks all of it about one mount, or about an export before it is mounted.
//!
//! [`agent`] builds these parts and owns the loop; [`config`] says how it is meant to run.
//!
//! Tenets:
//! 1. Only a probe worker process touches a monitored mount. A hung mount costs one small process and nothing else.
//! 2. A scrape reads memory only.
//! 3. Unknown is a value, and it is not "healthy".
//! 4. A missed deadline is evidence only when the worker really sat in the kernel and our own clock was on time.
//! 5. Every limit and every loss of the agent is a metric.

pub mod agent;
pub mod canary;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod coordinator;
pub mod diagnose;
pub mod http;
pub mod localfs;
pub mod logging;
pub mod metrics;
pub mod mounts;
pub mod passive;
pub mod pending;
pub mod pods;
pub mod probe;
pub mod remedy;
pub mod server;
pub mod snapshot;
pub mod verdict;

/// Runs a worker if this process was started as one, of whatever kind; `None` otherwise. To be called before any thread
/// exists.
#[must_use]
pub fn worker_entry() -> Option<std::process::ExitCode> {
    probe::worker_entry().or_else(remedy::release::worker_entry)
}

/// The fake API server of the integration tests, for the unit tests of `cluster` and `coordinator`.
#[cfg(test)]
#[path = "../tests/common/apiserver.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "test code shared with the integration tests; each side uses its part"
)]
pub(crate) mod apiserver;
