//! What came back from outside the probes: servers, transport counters, state files.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use super::core::{Core, Event};
use super::inquiry;
use super::servers::{News, ServerKey};
use super::target::Member;
use crate::mounts::View;
use crate::mounts::efs::StateFiles;
use crate::probe::pool::{Class, Outcome};
use crate::probe::wire::{Answer, CounterRow, Job};
use crate::server::ServerAnswer;
use crate::snapshot::EvidenceSource;
use crate::verdict::judge::words::errno_name;

/// The state directory of the EFS mount helper.
const EFS_STATE: &str = "/var/run/efs";

impl Core {
    /// Takes one event in.
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Identified { newcomers, outcome } => self.on_identified(&newcomers, outcome),
            Event::Probed { id, dev, way, outcome } => self.on_probed(id, dev, way, outcome),
            Event::Reaped { dev } => {
                let now = self.now();
                self.schedule.reaped(dev, now);
            }
            Event::Answered { key, answer, turn } => {
                drop(turn);
                self.on_server(key, answer);
                // Whose turn it was not may have it now.
                self.next_inquiry = self.now();
            }
            Event::Examined { id, report, turn } => {
                drop(turn);
                self.on_examined(id, *report);
            }
            Event::Counted { view, outcome, took } => self.on_counted(view, outcome, took),
            Event::Signalled { outcome, took } => self.on_signals(outcome, took),
            Event::Canaried { id, dev, begun, outcome } => self.on_canaried(id, dev, begun, outcome),
            Event::Held { id, dev, blocked, gone } => self.on_held(id, dev, blocked, gone),
            Event::CanaryStuck { id, dev, gone } => self.on_canary_stuck(id, dev, gone),
            Event::CanaryHome { outcome } => self.on_canary_home(outcome),
            Event::Scanned { outcome, took } => self.on_scanned(outcome, took),
            Event::TablesRead { asked, at, outcome, took } => self.on_tables(asked, at, outcome, took),
            Event::EfsState { outcome } => self.on_efs_state(outcome),
            Event::Offered { wanted, answer } => self.on_offered(&wanted, *answer),
            Event::MountsScanned(mounting) => self.on_mounts_scanned(mounting),
            Event::Reloaded(result) => self.reloaded = Some(result.map(|config| *config)),
            Event::Tried { id, trial } => self.on_tried(id, *trial),
            Event::Surveyed { spec, survey, last_look } => self.on_surveyed(&spec, survey, last_look),
            Event::Switch { right_now } => self.on_switch(right_now),
            Event::Released(released) => self.on_released(*released),
            Event::Kept { outcome } => self.on_kept(&outcome),
        }
    }

    /// A server was asked for its pulse, or among other things.
    pub(super) fn on_server(&mut self, key: ServerKey, answer: ServerAnswer) {
        let (now, checked) = (self.now(), self.unix_now());
        let pulse = inquiry::pulse(&answer);
        let (news, silent) = self.servers.answered(key, answer.clone(), now);
        if let Some(target) = silent.first().and_then(|id| self.registry.targets.get(id)) {
            self.inquiries.note(target, pulse, checked);
            self.changed = true;
        }
        for id in silent {
            if let Some(target) = self.registry.targets.get(&id) {
                self.inquiries.hear(target, &answer);
            }
            self.judge_again(id);
            if news == News::Back {
                self.schedule.rearm(id, now);
            }
        }
    }

    pub(super) fn on_counted(&mut self, view: View, outcome: Outcome, took: Duration) {
        let now = self.now();
        let rows = match outcome {
            Outcome::Answered(Answer::Counters(rows)) => {
                self.evidence_from("mountstats", None);
                Some(rows)
            }
            // It ended meanwhile: no error.
            Outcome::Answered(Answer::Failed { errno: libc::ENOENT | libc::ESRCH | libc::EINVAL })
                if view.is_container() =>
            {
                None
            }
            Outcome::Answered(Answer::Failed { errno }) => {
                self.evidence_from("mountstats", Some(format!("read mountstats: {}", errno_name(errno))));
                None
            }
            _ => None,
        };
        let fresh = self.transports.counted(view, took, now, self.config.interval);
        let key = |row: CounterRow| ((row.mountpoint, row.source), (row.counters, row.operations));
        let rows: HashMap<_, _> = rows.unwrap_or_default().into_iter().map(key).collect();
        let mut reconnected = Vec::new();
        let mut received = Vec::new();
        for target in self.registry.targets.values_mut().filter(|target| target.facts.is_nfs()) {
            let source = target.key.source();
            if target.view() != Some(view) {
                continue;
            }
            let mut members = target.members.iter().filter(|member| member.view == view);
            let row = |member: &Member| {
                rows.get(&(member.mountpoint.as_os_str().as_bytes().to_vec(), source.to_vec())).cloned()
            };
            let Some((counters, operations)) = members.find_map(row) else {
                // Old counters would say "not reconnected"; none say nothing.
                target.no_counters();
                continue;
            };
            let before = target.counted(counters, operations, now);
            let rested = target.hurried.is_none_or(|at| now.saturating_sub(at) >= self.config.interval);
            if rested && before.is_some_and(|before| counters.connects > before.connects) {
                // At most once per interval: while a server refuses, the client tries and tries again.
                target.hurried = Some(now);
                reconnected.push(target.id);
            }
            // Replies that begin to come in again: its server is back, whatever our own connection says. Replies that keep
            // coming are those of other mounts of the same transport.
            let receiving = before.is_some_and(|before| counters.recvs > before.recvs);
            let received_before = std::mem::replace(&mut target.receiving, receiving);
            if receiving && !received_before {
                received.push(target.id);
            }
        }
        for id in reconnected {
            self.schedule.hurry(id, now);
        }
        for id in received {
            self.schedule.rearm(id, now);
        }
        if !fresh {
            return;
        }
        self.counters_are_fresh(view);
    }

    /// A source of passive evidence can be read, or cannot. What is missing is said once: probes do without it.
    pub(super) fn evidence_from(&mut self, source: &str, error: Option<String>) {
        let known = self.stats.evidence.iter_mut().find(|known| known.source == source);
        let news = known.as_ref().is_none_or(|known| known.error != error);
        match known {
            Some(known) => known.error.clone_from(&error),
            None => self.stats.evidence.push(EvidenceSource { source: source.to_owned(), error: error.clone() }),
        }
        self.changed |= news;
        if let Some(error) = error.filter(|_| news) {
            tracing::warn!(
                source,
                error,
                "no evidence from {source}, so verdicts say less and nothing else changes: {error}"
            );
        }
    }

    /// The state files of the EFS mount helper say which file system is behind a local proxy.
    pub(super) fn read_efs_state(&mut self, host: bool) {
        let (pool, deadline) = (self.pool.clone(), self.config.timeout);
        let path =
            if host { format!("{}/1/root{EFS_STATE}", self.config.proc_root.display()) } else { EFS_STATE.to_owned() };
        self.running.spawn(async move {
            let job = Job::EfsState(path.into_bytes());
            Event::EfsState { outcome: pool.run(job, "efs", Class::Hopeful, deadline, deadline).await }
        });
    }

    fn on_efs_state(&mut self, outcome: Outcome) {
        if let Outcome::Answered(Answer::Files(files)) = outcome {
            let files = files.into_iter().map(|(name, bytes)| (OsString::from_vec(name), bytes));
            self.efs = StateFiles::decode(files);
        }
        self.take_pending();
    }
}
