//! Metrics: one catalog of names, one immutable snapshot in, one page of text out.
//!
//! Nothing is registered anywhere and no `*Vec` of the prometheus crate is used: its label hash has no separator, so two
//! mounts can share one series without a word, and a mount that is gone would leave its series behind.

pub mod catalog;
pub mod collector;
pub mod docs;
pub mod process;

pub use collector::{RenderError, render, render_into};
pub use process::ProcessStats;
