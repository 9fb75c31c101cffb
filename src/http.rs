//! What the agent says over HTTP: `/metrics`, `/healthz` and `/readyz` on one listener; the status page and its JSON, which
//! name tenants' pods and exports, on another.
//!
//! A scrape reads memory only: bodies are made by a thread of their own, and a request gets the newest finished one.
//! Nothing a client does costs more than one of 64 slots for 15 s.

pub mod host;
pub mod page;
mod renderer;
pub(crate) mod routes;
pub(crate) mod serve;
mod state;

pub use serve::{serve_metrics, serve_ui};
pub use state::{HttpError, HttpState};
