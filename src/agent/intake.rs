//! From a reading of the mount table to targets: what is new is identified, what is gone is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use super::core::{Core, Event};
use super::registry::{self, Newcomer};
use super::target::{Target, place};
use crate::mounts::table::Table;
use crate::mounts::{Dev, Mount, View};
use crate::probe::Identity;
use crate::probe::pool::{Class, Outcome};
use crate::probe::schedule::{Now, TargetId};
use crate::probe::wire::{Answer, Job, MAX_BATCH};
use crate::verdict::findings;

impl Core {
    /// Takes a reading of the mount table over. Mounts through a local proxy are decoded first: names are chosen once.
    pub(super) fn take_table(&mut self, mut table: Table) {
        self.stats.mountinfo_reads_total += 1;
        self.stats.mountinfo_errors_total += table.bad_count;
        table.apply(&self.efs);
        let unknown = |mount: &Mount| mount.origin.proxy_port.is_some() && mount.origin.efs_file_system.is_none();
        if table.mounts.iter().any(unknown) {
            let host = table.mounts.iter().any(|mount| mount.view == View::Host);
            if self.pending.replace(table).is_none() {
                self.read_efs_state(host);
            }
            return;
        }
        self.adopt_table(table);
    }

    /// What waited for the state files goes on, whether they could be read or not.
    pub(super) fn take_pending(&mut self) {
        if let Some(mut table) = self.pending.take() {
            table.apply(&self.efs);
            self.adopt_table(table);
        }
    }

    fn adopt_table(&mut self, table: Table) {
        self.stats.mountinfo_mounts = table.mounts.len() as u64;
        self.table = table;
        let now = self.now();
        self.transports.take_table(&self.table, now);
        self.note_volumes();
        self.update_targets();
    }

    pub(super) fn update_targets(&mut self) {
        let now = self.now();
        let mut watched = registry::watched(&self.table.mounts, &self.filter);
        // Before the mounts that nobody asked for are left out: they count among those of one export.
        self.table_findings = findings::of_mounts(watched.iter().map(|watched| watched.mount));
        if let Some(only) = &self.only {
            watched.retain(|watched| only.contains(&(watched.mount.view, watched.mount.id)));
        }
        let changes = self.registry.update(&watched);
        self.start_afresh(now);
        self.drop_targets(changes.removed);
        let known: Vec<TargetId> = self.registry.targets.keys().copied().collect();
        known.into_iter().for_each(|id| self.note_findings(id));
        self.identify_all(changes.to_identify);
    }

    /// Starts to identify the roots of new mounts.
    pub(super) fn identify_all(&mut self, newcomers: Vec<Newcomer>) {
        let mut batches: BTreeMap<(Dev, bool), Vec<Newcomer>> = BTreeMap::new();
        for newcomer in newcomers {
            if newcomer.mount.hidden_by.is_some() {
                // No path leads to it: it can be listed, not asked.
                self.identified(&newcomer, None);
                continue;
            }
            batches.entry((newcomer.mount.dev, newcomer.through.is_some())).or_default().push(newcomer);
        }
        for newcomers in batches.into_values() {
            for batch in newcomers.chunks(MAX_BATCH) {
                self.identify(batch.to_vec());
            }
        }
    }

    /// What was known of a filesystem that nobody has mounted any more is nothing to hold its successor against.
    pub(super) fn start_afresh(&mut self, now: Now) {
        let outlived = self.registry.targets.values().filter(|target| target.outlived_replacement());
        let ids: Vec<TargetId> = outlived.map(|target| target.id).collect();
        ids.into_iter().for_each(|id| self.dissolve(id, now));
    }

    /// Forgets a target, whose mounts are all to be identified anew: with the next reading of the tables that have them.
    pub(super) fn dissolve(&mut self, id: TargetId, now: Now) {
        let members = self.registry.targets.get(&id).into_iter().flat_map(|target| &target.members);
        let views: BTreeSet<View> = members.map(|member| member.view).collect();
        if let Some(target) = self.registry.dissolve(id) {
            self.forget(&target, now);
        }
        self.reread = true;
        views.into_iter().for_each(|view| self.read_anew(view));
    }

    pub(super) fn forget(&mut self, target: &Target, now: Now) {
        let server = target.server_label();
        let last = !self.registry.targets.values().any(|other| other.server_label() == server);
        if last {
            self.durations.retain(|(name, _), _| *name != server);
        }
        self.inquiries.forget(target, last);
        self.schedule.remove(target.id, now);
        self.servers.forget(target);
        self.rescues.forget(target.id);
        self.suspected.remove(&target.id);
    }

    fn identify(&mut self, newcomers: Vec<Newcomer>) {
        let root = &self.config.proc_root;
        let places = newcomers.iter().map(|new| place(&new.member(None), new.mount.dev, root)).collect();
        let (pool, deadline) = (self.pool.clone(), self.config.timeout);
        self.running.spawn(async move {
            let outcome = pool.run(Job::Identify(places), "identify", Class::Hopeful, deadline, deadline).await;
            Event::Identified { newcomers, outcome }
        });
    }

    /// Roots were identified, or could not be in time: then each mount is a target of its own.
    pub(super) fn on_identified(&mut self, newcomers: &[Newcomer], outcome: Outcome) {
        let identities: Vec<Option<Identity>> = match outcome {
            Outcome::Answered(Answer::Identities(identities)) => identities,
            Outcome::Missed { blocked, gone } => {
                tracing::debug!(?blocked, "identifying new mounts blocked");
                if let Some(newcomer) = newcomers.first() {
                    self.schedule.occupy(newcomer.mount.dev);
                    self.await_end(newcomer.mount.dev, gone);
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        for (index, newcomer) in newcomers.iter().enumerate() {
            let identity = identities.get(index).and_then(Option::as_ref);
            self.identified(newcomer, identity);
        }
        self.news = true;
    }

    fn identified(&mut self, newcomer: &Newcomer, identity: Option<&Identity>) {
        let (now, unix) = (self.now(), self.unix_now());
        let new = self.registry.identified(newcomer, identity, unix);
        self.containers.epoch += 1;
        match self.registry.by_mount_id(newcomer.mount.id).map(|target| target.id) {
            Some(id) => self.note_findings(id),
            None => self.try_again(newcomer.mount.view),
        }
        let Some(id) = new else { return };
        self.take_up(id);
        let Some(target) = self.registry.targets.get(&id) else { return };
        self.schedule.add(id, target.dev, &target.server_label(), target.watched(), now);
        if target.takes_sentinels() {
            // The last reading does not have this mount; a replacement is proven by comparing with an early one.
            self.transports.ask_now(newcomer.mount.view, now);
        }
    }
}
