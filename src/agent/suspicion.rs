//! All known entries of a mount are gone. Was the filesystem replaced, or did somebody delete them?
//!
//! Before that is judged, and before other entries are learned in their place, it is found out what only now can be: did the
//! transport reconnect (counters younger than the probe), and if so, does the server say another filesystem or another
//! directory for the very handle (an examination younger than the probe, compared with one from good times).

use super::core::Core;
use super::target::Target;
use crate::mounts::View;
use crate::probe::ProbeReport;
use crate::probe::schedule::{Now, TargetId};

/// A look that waits to be judged.
#[derive(Debug)]
pub(super) struct Suspicion {
    view: View,
    report: ProbeReport,
    since: Now,
    waits_for: Wanted,
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Counters,
    Server,
}

impl Core {
    /// Holds a look back at which all entries were gone; false when there is nothing to wait for, and it is to be judged.
    pub(super) fn suspect(&mut self, id: TargetId, report: &ProbeReport, now: Now) -> bool {
        let since = match self.suspected.remove(&id) {
            _ if !report.sentinels_gone() => {
                self.doubt(id, false);
                return false;
            }
            // The question is still under way. It does not hold back a second look for ever.
            Some(before)
                if before.waits_for == Wanted::Server && now.saturating_sub(before.since) < self.patience() =>
            {
                self.suspected.insert(id, Suspicion { report: report.clone(), ..before });
                return true;
            }
            Some(before) if before.waits_for == Wanted::Server => return false,
            Some(before) => before.since,
            None => now,
        };
        let Some(view) = self.registry.targets.get(&id).and_then(Target::view) else { return false };
        let asked = self.transports.ask_now(view, now);
        if asked {
            let report = report.clone();
            self.suspected.insert(id, Suspicion { view, report, since, waits_for: Wanted::Counters });
        }
        asked
    }

    /// An examination takes a few deadlines where a server is slow; no round of probes is lost to one that is silent.
    fn patience(&self) -> std::time::Duration {
        self.config.interval.max(self.servers.deadline() * 4)
    }

    /// Counters came that are younger than every question for them.
    pub(super) fn counters_are_fresh(&mut self, view: View) {
        let now = self.now();
        let counting = |one: &Suspicion| one.view == view && one.waits_for == Wanted::Counters;
        let waiting: Vec<TargetId> =
            self.suspected.iter().filter(|(_, one)| counting(one)).map(|(id, _)| *id).collect();
        for id in waiting {
            if !self.server_may_tell(id) {
                self.judge_suspicion(id);
                continue;
            }
            self.doubt(id, true);
            if self.registry.targets.get(&id).is_some_and(|target| self.inquiries.examined(target, now).is_some()) {
                self.judge_suspicion(id);
            } else if let Some(suspicion) = self.suspected.get_mut(&id) {
                suspicion.waits_for = Wanted::Server;
                self.next_inquiry = now;
            }
        }
    }

    /// The server answered about an emptied mount.
    pub(super) fn server_told(&mut self, id: TargetId) {
        if self.suspected.get(&id).is_some_and(|one| one.waits_for == Wanted::Server) {
            self.judge_suspicion(id);
        }
    }

    fn judge_suspicion(&mut self, id: TargetId) {
        if let Some(suspicion) = self.suspected.remove(&id) {
            self.judge_report(id, suspicion.report);
            self.doubt(id, false);
        }
    }

    fn doubt(&mut self, id: TargetId, emptied: bool) {
        if let Some(target) = self.registry.targets.get_mut(&id) {
            target.emptied = emptied;
        }
    }

    /// The transport reconnected since the last good look, and there is something to compare the server's words with.
    fn server_may_tell(&self, id: TargetId) -> bool {
        let Some(target) = self.registry.targets.get(&id) else { return false };
        let before = target.memory.good.as_ref().and_then(|good| good.connects);
        let now = target.transport.map(|transport| transport.connects);
        before.zip(now).is_some_and(|(before, now)| now > before) && self.inquiries.may_compare(target)
    }
}
