//! The cluster's words: what the node's mounts are called there, and where people look for their state.

pub mod node_mounts;
