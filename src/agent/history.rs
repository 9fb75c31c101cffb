//! The last hour: which states were left for which, as the page tells it. In memory only, and bounded.

use std::collections::VecDeque;

use super::target::{Target, Transition};
use crate::snapshot::{Change, UnixSeconds};
use crate::verdict::{Cause, State};

/// Older changes are forgotten.
const KEPT_SECONDS: f64 = 3600.0;

/// Most changes that are kept: a mount that flaps every interval makes eight a minute.
const KEPT: usize = 256;

/// Changes that lie closer together than this and are alike are one.
const TOGETHER_SECONDS: f64 = 60.0;

/// Mountpoints that are named in one.
const NAMED: usize = 8;

/// The changes of the last hour, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Change>);

impl History {
    /// A target's state is another one. That a mount is found healthy when it is first looked at is no news.
    pub(super) fn changed(&mut self, target: &Target, transition: &Transition, now: UnixSeconds) {
        let to = target.verdict.state;
        if transition.first && to == State::Healthy {
            return;
        }
        let from = (!transition.first).then_some(transition.from);
        self.note(target, from, Some(to), target.cause(), now);
    }

    /// A target is no longer mounted: news when it was not well.
    pub(super) fn unmounted(&mut self, target: &Target, now: UnixSeconds) {
        let from = target.verdict.state;
        if !matches!(from, State::Healthy | State::Unknown) {
            self.note(target, Some(from), None, None, now);
        }
    }

    /// Why a target is in its state became known later than the state itself.
    pub(super) fn explained(&mut self, target: &Target) {
        let (server, path, to) = (target.server_label(), &target.labels.mountpoint, Some(target.verdict.state));
        let of_it = |change: &&mut Change| {
            change.server == server && change.to == to && change.mountpoints.iter().any(|named| named == path)
        };
        if let Some(change) = self.0.iter_mut().rev().find(of_it) {
            change.cause = target.cause();
        }
    }

    /// The wall clock was set: what happened before is as long ago as it was.
    pub(super) fn move_times(&mut self, seconds: f64) {
        for change in &mut self.0 {
            change.first += seconds;
            change.last += seconds;
        }
    }

    /// The changes of the last hour, the oldest first.
    pub(super) fn since(&self, now: UnixSeconds) -> Vec<Change> {
        self.0.iter().filter(|change| now - change.last < KEPT_SECONDS).cloned().collect()
    }

    fn note(
        &mut self,
        target: &Target,
        from: Option<State>,
        to: Option<State>,
        cause: Option<Cause>,
        now: UnixSeconds,
    ) {
        self.0.retain(|change| now - change.last < KEPT_SECONDS);
        let (server, path) = (target.server_label(), &target.labels.mountpoint);
        let recent = self.0.iter_mut().rev().take_while(|change| now - change.first < TOGETHER_SECONDS);
        let mut alike = recent.filter(|change| change.server == server && change.from == from && change.to == to);
        if let Some(change) = alike.next() {
            change.last = now;
            change.count += 1;
            change.cause = change.cause.filter(|known| *known != Cause::Unknown).or(cause);
            if change.mountpoints.len() < NAMED {
                change.mountpoints.push(path.clone());
            }
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        let mountpoints = vec![path.clone()];
        self.0.push_back(Change { first: now, last: now, server, from, to, cause, mountpoints, count: 1 });
    }
}

#[cfg(test)]
mod tests;
