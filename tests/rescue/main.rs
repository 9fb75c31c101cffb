//! Rescues in a world of our own: random histories against invariants, and how long a large one takes.
//!
//! The world is simulated; history, guards and budgets are the real ones. `MOUNTWARDEN_HISTORIES=100000` says how many
//! histories are run (`make model`), `MOUNTWARDEN_SEED` replays one, `MOUNTWARDEN_GUARDS` names the guards in which a bug is
//! planted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "tests"
)]

mod coordinator;
mod invariants;
mod model;
mod simulation;
mod world;
