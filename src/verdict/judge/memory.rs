//! What is remembered of a target between two looks.

use serde::{Deserialize, Serialize};

use super::{Cause, Look, State};

/// So many looks vote.
const WINDOW: usize = 3;

/// One look, reduced to what counts in a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// What it said by itself.
    pub state: State,
    /// And why.
    pub cause: Option<Cause>,
}

/// The last round in which all was well; what came after is compared with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Good {
    /// Connections that the transport had made.
    pub connects: Option<u64>,
    /// Total size in bytes.
    pub size: Option<u64>,
    /// The size changed while the filesystem stayed: it proves nothing here.
    pub size_moves: bool,
}

/// What is remembered of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The state in force.
    pub state: State,
    /// Its cause.
    pub cause: Option<Cause>,
    /// Its sentence.
    pub evidence: String,
    /// It has answered well at least once.
    pub answered: bool,
    /// When it was last looked at, in milliseconds since the agent started.
    pub looked_millis: Option<u64>,
    /// The last looks.
    pub votes: Vec<Vote>,
    /// The last good round.
    pub good: Option<Good>,
    /// When its filesystem was last suspected to have been replaced.
    pub maybe_replaced_millis: Option<u64>,
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            state: State::Unknown,
            cause: Some(Cause::Unknown),
            evidence: "not yet probed".to_owned(),
            answered: false,
            looked_millis: None,
            votes: Vec::new(),
            good: None,
            maybe_replaced_millis: None,
        }
    }
}

impl Memory {
    /// Counts a look in and says what state follows.
    pub(super) fn settle(&mut self, look: &Look, agree: usize) -> (State, Option<Cause>) {
        self.votes.push(Vote { state: look.state, cause: look.cause });
        if self.votes.len() > WINDOW {
            self.votes.remove(0);
        }
        let agreeing = self.votes.iter().filter(|vote| vote.state == look.state).count();
        if look.hard || agreeing >= agree || look.state == self.state {
            return (look.state, look.cause);
        }
        // Soft evidence that stands alone so far. An answer, however slow, ends whatever was there before it: a mount
        // that hung and now answers late is not hung any more.
        match (self.state, look.state) {
            (State::Slow | State::Error, _) | (_, State::Error) if self.state != State::Unknown => {
                (self.state, self.cause)
            }
            (_, State::Error) => (State::Unknown, Some(Cause::Unknown)),
            _ => (State::Healthy, None),
        }
    }
}
