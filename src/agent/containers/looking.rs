//! Looking through the processes of the node: which containers there are, when they are looked for, and who is gone.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use tokio::time::Instant;

use super::{COST, Containers, FULL, GAP, MAX_VIEWS, Seen, why};
use crate::agent::core::{Core, Event};
use crate::agent::target::Target;
use crate::config::OnOff;
use crate::mounts::{Process, View};
use crate::pods::namespaces::{Holder, Namespace, Namespaces};
use crate::probe::pool::{Class, Outcome};
use crate::probe::schedule::Now;
use crate::probe::wire::{Answer, Job};

impl Core {
    fn watches_containers(&self) -> bool {
        self.config.containers != OnOff::Off
    }

    /// Starts what is due.
    pub(in crate::agent) fn look_at_containers(&mut self, now: Now) {
        let off = !self.watches_containers();
        if std::mem::replace(&mut self.containers.off, off) != off {
            self.containers.next_scan = now;
        }
        if off {
            self.stop_looking();
            return;
        }
        if !self.containers.scanning && self.containers.next_scan <= now {
            self.scan(now);
        }
        // What containers have joins what the host has, so that comes first.
        let to_be_read = self.reread && !self.one_pass;
        let host_first = !to_be_read && self.pending.is_none() && !self.registry.identifies_on_host();
        if host_first && !self.containers.reading && !self.containers.unread.is_empty() {
            self.read_tables();
        }
    }

    /// Nobody wants to know any more: what was seen in containers is forgotten.
    fn stop_looking(&mut self) {
        self.containers.settled = true;
        self.containers.namespaces_left_out = 0;
        let known: Vec<Process> = self.containers.views.keys().copied().collect();
        known.into_iter().for_each(|process| self.forget_container(process));
        self.compare_containers();
        if self.containers.namespaces.scanned() {
            self.containers.namespaces = Namespaces::default();
        }
    }

    fn scan(&mut self, now: Now) {
        self.containers.scanning = true;
        let job = self.containers.namespaces.job(self.config.proc_root.as_os_str().as_bytes(), now);
        let (pool, deadline) = (self.pool.clone(), self.config.timeout);
        let started = Instant::now();
        self.running.spawn(async move {
            let outcome = pool.run(Job::Processes(job), "containers", Class::Hopeful, deadline, deadline).await;
            Event::Scanned { outcome, took: started.elapsed() }
        });
    }

    /// The processes were looked through.
    pub(in crate::agent) fn on_scanned(&mut self, outcome: Outcome, took: Duration) {
        let now = self.now();
        self.containers.scanning = false;
        if self.containers.off {
            return;
        }
        // A look that missed its deadline on a busy machine must not blind us for minutes.
        let pause = self.config.interval.max(GAP).max(took.saturating_mul(COST).min(FULL));
        self.containers.next_scan = now + if std::mem::take(&mut self.containers.once_more) { GAP } else { pause };
        let scan = match outcome {
            Outcome::Answered(Answer::Processes(scan)) => scan,
            other => {
                self.containers.next_scan = now + self.config.interval.max(GAP);
                self.evidence_from("containers", Some(format!("look through the processes: {}", why(&other))));
                self.containers.settled = true;
                return;
            }
        };
        if scan.more {
            self.containers.next_scan = now;
        }
        let changed = self.containers.namespaces.take(scan, now);
        self.evidence_from("containers", self.containers.namespaces.blind());
        if std::mem::take(&mut self.containers.lost) || changed {
            self.take_namespaces(now);
        }
        let full = now >= self.containers.next_full;
        if full {
            self.containers.next_full = now + FULL.max(self.containers.pass_took.saturating_mul(COST));
        }
        let again =
            self.containers.views.iter().filter(|(_, seen)| full || seen.is_due(now)).map(|(process, _)| *process);
        let again: Vec<Process> = again.collect();
        self.containers.unread.extend(again);
        self.settle_containers();
    }

    /// Other namespaces, other holders, or another process to look through.
    fn take_namespaces(&mut self, now: Now) {
        let looked_into = |namespace: &&Namespace| matches!(namespace.holder, Holder::Of(_));
        let wanted: HashMap<Process, Holder> = self
            .containers
            .namespaces
            .iter()
            .filter(looked_into)
            .take(MAX_VIEWS)
            .map(|namespace| (namespace.process, namespace.holder.clone()))
            .collect();
        let all = self.containers.namespaces.iter().filter(looked_into).count();
        self.containers.namespaces_left_out = all.saturating_sub(MAX_VIEWS);
        let gone: Vec<Process> =
            self.containers.views.keys().filter(|process| !wanted.contains_key(process)).copied().collect();
        for process in gone {
            self.forget_container(process);
        }
        // A container's copy may have been the last mount of a filesystem that was replaced, whoever saw that it is gone.
        self.start_afresh(now);
        for (process, holder) in wanted {
            let Containers { views, unread, .. } = &mut self.containers;
            let seen = views.entry(process).or_insert_with(|| {
                unread.insert(process);
                Seen::new(holder.clone(), now)
            });
            if seen.holder != holder {
                seen.holder = holder;
                // What is joined and what stands alone depends on whose it is.
                seen.hash = 0;
                unread.insert(process);
            }
        }
        self.containers.epoch += 1;
        self.changed = true;
    }

    pub(super) fn forget_container(&mut self, process: Process) {
        self.containers.views.remove(&process);
        self.containers.unread.remove(&process);
        self.containers.epoch += 1;
        let removed = self.registry.forget_view(View::Container(process));
        self.drop_targets(removed);
    }

    /// Targets whose last mount is gone.
    pub(in crate::agent) fn drop_targets(&mut self, removed: Vec<Target>) {
        let now = self.now();
        let unix = self.unix_now();
        self.news |= !removed.is_empty();
        for target in removed {
            tracing::info!(
                mountpoint = target.labels.mountpoint,
                source = target.labels.source,
                fstype = target.labels.fstype,
                "{} is no longer mounted",
                target.labels.mountpoint
            );
            self.history.unmounted(&target, unix);
            self.forget(&target, now);
        }
    }
}
