//! The cluster's words: what the node's mounts are called there, and where people look for their state.
//!
//! Everything here runs in a thread of its own, so that the agent's loop never waits for the API server, and a list of
//! 500 pods is parsed beside it. The loop hands over its snapshots and reads names; both are single values of which the
//! newest counts. With no API server all of it keeps what it knows, says so once, and goes on by itself later.
//!
//! | module | does |
//! |---|---|
//! | `connect`, `api` | the way to the API server: one request, one answer, no retry that nobody asked for |
//! | `pods`, `api_pod`, `objects` | this node's pods (list and watch), their claims and volumes (when they are needed) |
//! | `names` | both as the agent's loop uses them |
//! | [`Asker`] | the API server's word right before an action, and the Events of actions |
//! | `uses`, `report`, `waits` | which pod sits on what or waits for what, and what is new about it (pure) |
//! | `absent`, `lint` | pods without an object, annotations that mean nothing (pure) |
//! | [`cleanup`] | removes what all of this leaves |
//! | `events`, `condition`, `object` | Events, the Node's condition, [`node_mounts::NodeMounts`] |

mod absent;
mod api;
mod api_pod;
mod ask;
mod backoff;
pub mod cleanup;
mod condition;
mod connect;
mod events;
mod lint;
mod names;
pub mod node_mounts;
mod object;
mod objects;
mod pace;
mod pods;
mod report;
mod requests;
mod run;
mod stats;
mod text;
mod uses;
mod waits;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use ask::{Asker, Deed, PodNow, RightNow, Whom};
pub use run::Cluster;
pub use stats::{ClusterStats, WHY_DROPPED};
pub use uses::name_volumes;

use crate::snapshot::UnixSeconds;

/// Wall clock, for what people read.
#[expect(clippy::disallowed_methods, reason = "when something happened, as people count it")]
fn now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
