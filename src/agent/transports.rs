//! The kernel's transport counters: read for all NFS mounts at once, by a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::mounts::View;
use crate::mounts::table::Table;
use crate::probe::schedule::Now;

/// Shortest time between two readings that are not asked for.
const SHORTEST: Duration = Duration::from_secs(1);

/// A reading may cost so much of the time: the next one waits so many times as long as the last one took.
const COST: u32 = 100;

#[derive(Debug, Default)]
struct Source {
    next: Option<Now>,
    in_flight: bool,
    again: bool,
}

/// Readings of mountstats, one per mount table.
#[derive(Debug, Default)]
pub(super) struct Transports {
    sources: BTreeMap<View, Source>,
}

impl Transports {
    /// Only tables with NFS mounts have counters.
    pub(super) fn take_table(&mut self, table: &Table, now: Now) {
        for mount in table.mounts.iter().filter(|mount| mount.kind.is_some_and(|kind| kind.is_nfs())) {
            self.sources.entry(mount.view).or_insert_with(|| Source { next: Some(now), ..Source::default() });
        }
    }

    /// Counters are read in these tables of containers, and in no others of theirs.
    pub(super) fn want(&mut self, containers: &BTreeSet<View>, now: Now) {
        self.sources.retain(|view, _| !view.is_container() || containers.contains(view));
        for view in containers {
            self.sources.entry(*view).or_insert_with(|| Source { next: Some(now), ..Source::default() });
        }
    }

    /// The tables to read now.
    pub(super) fn take_due(&mut self, now: Now) -> Vec<View> {
        let mut due = Vec::new();
        for (view, source) in &mut self.sources {
            if !source.in_flight && source.next.is_some_and(|at| at <= now) {
                source.in_flight = true;
                source.next = None;
                due.push(*view);
            }
        }
        due
    }

    pub(super) fn next_wake(&self) -> Option<Now> {
        self.sources.values().filter_map(|source| source.next).min()
    }

    /// Counters that are younger than now are wanted; false when there are none to be had.
    pub(super) fn ask_now(&mut self, view: View, now: Now) -> bool {
        let Some(source) = self.sources.get_mut(&view) else { return false };
        // One that is on its way may have been read before the question.
        source.again |= source.in_flight;
        if !source.in_flight {
            source.next = Some(now);
        }
        true
    }

    /// A reading came back. True: it is younger than every question so far.
    pub(super) fn counted(&mut self, view: View, took: Duration, now: Now, interval: Duration) -> bool {
        let Some(source) = self.sources.get_mut(&view) else { return true };
        source.in_flight = false;
        if std::mem::take(&mut source.again) {
            source.next = Some(now);
            return false;
        }
        source.next = Some(now + (interval / 3).max(took * COST).min(interval).max(SHORTEST));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::Process;

    #[test]
    fn tables_of_containers_are_read_while_they_are_wanted_and_those_of_the_host_always() {
        let now = Now::from_secs(60);
        let container = |pid| View::Container(Process { pid, start: 1 });
        let mut transports = Transports::default();
        transports.sources.insert(View::Host, Source { next: Some(now), ..Source::default() });
        transports.want(&BTreeSet::from([container(7)]), now);
        assert_eq!(transports.take_due(now), [View::Host, container(7)]);
        transports.want(&BTreeSet::from([container(8)]), now);
        assert!(!transports.ask_now(container(7), now), "nothing that waits for it waits for ever");
        assert!(transports.counted(container(7), Duration::ZERO, now, Duration::from_secs(15)));
        assert_eq!(transports.take_due(now), [container(8)]);
    }
}
