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
//!
//! The planner is pure, so every decision can be replayed in a test.

pub mod docs;
pub mod facts;
pub mod guard;
pub mod history;
pub mod permission;
pub mod plan;
pub mod request;
pub mod time;
