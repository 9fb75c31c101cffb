//! The node's part of a rescue: what may be done about a dead mount, and the system calls that do it.

pub mod connections;
pub mod gate;
pub mod guards;
pub mod holders;
pub mod permission;
pub mod processes;
pub mod release;
pub mod switch;
pub mod unstick;
