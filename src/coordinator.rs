//! The cluster's part of the rescue: which pods on dead mounts are evicted, in which order, and which never.
//!
//! Agents ask ([`crate::cluster::node_mounts::RescueRequest`]), the coordinator decides. It believes of a request only
//! what it cannot read itself, and every reason not to act is one named [`guard::Guard`].
//!
//! | module | what |
//! |---|---|
//! | [`guard`] | the rules by name, in words |
//! | [`facts`] | what is read about a pod: plain data |
//! | [`request`] | what an agent asks |
//! | [`history`] | what was done: one value that is written before each eviction, and survives restarts |
//! | [`plan`] | requests, facts, history and time in; actions and refusals out. No I/O |
//! | [`read`], [`evict`], [`store`], [`switch`], [`lease`] | the calls to the API server |
//! | [`run`] | the loop |
//! | [`board`] | what it shows over HTTP |
//!
//! The planner is pure, so every decision can be replayed in a test.

mod act;
pub mod board;
pub mod client;
pub mod docs;
pub mod evict;
pub mod facts;
pub mod guard;
pub mod history;
pub mod lease;
pub mod plan;
pub mod read;
pub mod request;
pub mod run;
mod serve;
pub mod store;
pub mod switch;
pub mod time;
mod voice;
mod watch;
