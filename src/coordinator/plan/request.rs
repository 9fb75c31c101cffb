//! Guards about what the agents report.

use super::{Check, Refusal, Round};
use crate::cluster::node_mounts::GateRoot;
use crate::config::OnReplaced;
use crate::coordinator::guard::Guard;
use crate::coordinator::request::{Gate, Request};
use crate::coordinator::time::{Time, seconds};
use crate::verdict::{Cause, State};

/// A request that was confirmed longer ago is void (DESIGN: agent proposes, coordinator disposes).
pub const FRESH: i64 = 60;

/// Clocks of a node and the coordinator may differ by so much; a request from further in the future is no fresh one, or
/// a node whose clock runs ahead would be believed for longer than others.
pub const AHEAD: i64 = 10;

/// What the gate saw holds for so long: who waits for a turn is tried again meanwhile.
pub const GATE_HOLDS: i64 = 300;

impl Round<'_> {
    pub(super) fn about_request(&self, request: &Request) -> Check {
        let age = request.refreshed.age(self.wall);
        let stale = !(-AHEAD..=FRESH).contains(&age);
        self.guard(Guard::Stale, stale, || format!("confirmed at {}", request.refreshed))?;
        self.state(request)?;
        self.gate(&request.gate)?;
        self.data(request)
    }

    fn state(&self, request: &Request) -> Check {
        let helps = match request.state {
            State::Stale | State::Lost => true,
            // A pod deleted on a hung mount stays Terminating: only where its release would be allowed, which the
            // guards about the pod ask too.
            State::Hung => self.unstick.hung && matches!(request.cause, Cause::ClientStuck | Cause::AddressChanged),
            _ => false,
        };
        self.guard(Guard::State, !helps, || format!("{}, {}", request.state.as_str(), request.cause))
    }

    fn gate(&self, gate: &Gate) -> Check {
        let closed = closed(gate, seconds(self.remedy.grace), self.wall);
        self.guard(Guard::Gate, closed.is_some(), || closed.map(str::to_owned).unwrap_or_default())
    }

    fn data(&self, request: &Request) -> Check {
        let gate = &request.gate;
        // Another filesystem behind the same handle looks the same, and is other data.
        let root = match (gate.root, request.cause) {
            (GateRoot::Same, Cause::FilesystemReplaced) => GateRoot::Different,
            (root, _) => root,
        };
        let always = self.remedy.evict_on_replaced == OnReplaced::Always;
        let words = || gate.words.clone();
        match root {
            GateRoot::Same => Ok(()),
            GateRoot::Unknown => self.guard(Guard::GateUnknown, true, words),
            GateRoot::Empty | GateRoot::Pseudo => self.guard(Guard::EmptyData, !always, words),
            GateRoot::Different => {
                let known = gate.names_known > 0
                    && u64::from(gate.names_found) * 2 >= u64::from(gate.names_known)
                    && self.remedy.evict_on_replaced == OnReplaced::SameNames;
                self.guard(Guard::OtherData, !always && !known, || {
                    format!("{} of {} known names are there; {}", gate.names_found, gate.names_known, gate.words)
                })
            }
        }
    }

    pub(super) fn about_server(&self, request: &Request, node: &str) -> Check {
        let outage = self.outage(&request.server, node);
        self.guard(Guard::Fleet, outage.is_some(), || outage.unwrap_or_default())?;
        let open = self
            .history
            .is_some_and(|history| history.breaker_open(&request.server, self.remedy.cool_down, self.now()));
        self.guard(Guard::Breaker, open, || request.server.clone())
    }

    /// Why the view over all nodes forbids to touch anything of this server.
    fn outage(&self, server: &str, node: &str) -> Option<String> {
        let asking = self.nodes.iter().find(|view| view.node == node).and_then(|view| view.server(server));
        if asking.is_none_or(|seen| seen.dead == 0) {
            return Some(format!("{node} asks, but reports no dead mount of {server}"));
        }
        let seen = || self.nodes.iter().filter_map(|view| view.server(server)).filter(|seen| seen.mounts > 0);
        let (mounting, dead) = (seen().count(), seen().filter(|seen| seen.dead > 0).count());
        let shut = seen().filter(|seen| seen.dead > seen.gates_open).count();
        (dead * 2 > mounting && shut > 0)
            .then(|| format!("{dead} of {mounting} nodes report {server} dead, {shut} of them cannot mount it anew"))
    }
}

/// Why the gate is not open, `None` when it is.
fn closed(gate: &Gate, grace: i64, wall: Time) -> Option<&'static str> {
    let (Some(first), Some(second)) = (gate.first, gate.second) else { return Some("there were not two trials yet") };
    if first.age(second) < grace {
        return Some("the two trials were not far enough apart");
    }
    if second.age(wall) < -AHEAD {
        return Some("the second trial lies in the future");
    }
    (second.age(wall) > GATE_HOLDS).then_some("the last trial was too long ago")
}

impl Refusal {
    /// Whether it concerns more than one pod.
    #[must_use]
    pub fn general(&self) -> bool {
        matches!(self.guard, Guard::Mode | Guard::Leader | Guard::KillSwitch | Guard::History)
    }
}
