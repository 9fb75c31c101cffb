//! What changed lately.

use serde::{Deserialize, Serialize};

use super::UnixSeconds;
use crate::verdict::{Cause, State};

/// Mounts of one server that went from one state into another together: a server that dies with 500 mounts is one change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When the first of them did.
    pub first: UnixSeconds,
    /// When the last of them did.
    pub last: UnixSeconds,
    /// Their server as mounted; the source where there is none.
    pub server: String,
    /// The state they left; null when it was never another.
    pub from: Option<State>,
    /// The state they entered; null when they are no longer mounted.
    pub to: Option<State>,
    /// Why, as far as it became known while they were in it.
    pub cause: Option<Cause>,
    /// Their mountpoints, at most 8.
    pub mountpoints: Vec<String>,
    /// How many they are.
    pub count: usize,
}
