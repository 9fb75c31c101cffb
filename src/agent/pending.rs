//! Pods that wait for a volume: when it is looked, whom it is asked, what of it the snapshot has ([`crate::pending`]).

use std::net::SocketAddr;
use std::time::Duration;

use super::core::{Core, Event};
use crate::diagnose::options::MountOptions;
use crate::diagnose::server::offered;
use crate::mounts::source::NFS_PORT;
use crate::pending::book::{Answer, Book, LISTED};
use crate::pending::mounting::{self, Mounting};
use crate::pending::{Wanted, mounted, not_shared, waiting};
use crate::probe::schedule::Now;
use crate::snapshot::{KubeletMount, PendingVolume, UnixSeconds};
use crate::verdict::{Finding, Severity};

/// It is looked so often who waits.
const LOOK: Duration = Duration::from_secs(2);

/// The kubelet's mounts are looked for so often while somebody has waited for too long: that reads a file per process.
const SCAN: Duration = Duration::from_secs(10);

/// What the loop keeps about pods that wait.
#[derive(Debug, Default)]
pub(super) struct Pending {
    book: Book,
    next_look: Now,
    next_scan: Now,
    scanning: bool,
}

impl Pending {
    /// When there is something to do, where somebody waits; otherwise any wake will do.
    pub(super) fn next_wake(&self) -> Option<Now> {
        (!self.book.is_empty()).then_some(self.next_look)
    }
}

impl Core {
    /// Looks whether pods wait for volumes, and asks their servers.
    pub(super) fn look_for_waiting(&mut self, now: Now) {
        if now < self.pending_pods.next_look || !self.ready() {
            return;
        }
        self.pending_pods.next_look = now + LOOK;
        // Where the host's table cannot be read every volume would seem to be missing.
        let anybody = self.table.host_error.is_none() && self.names.iter().any(|(_, pod)| pod.waits_since.is_some());
        if !anybody && self.pending_pods.book.is_empty() {
            return;
        }
        let wait = if anybody { waiting(&self.names, &mounted(&self.table.mounts)) } else { Vec::new() };
        let wall = self.unix_now();
        let before = self.pending_pods.book.count(now, wall);
        self.pending_pods.book.take(wait, now);
        self.news |= before != self.pending_pods.book.count(now, wall);
        for wanted in self.pending_pods.book.due(now, wall) {
            self.ask_for_offer(wanted);
        }
        if self.pending_pods.book.overdue(now, wall) && now >= self.pending_pods.next_scan {
            self.scan_mounts();
        }
    }

    fn ask_for_offer(&mut self, wanted: Wanted) {
        let (resolver, turns) = (self.resolver.clone(), self.book.clone());
        let (proc_root, deadline) = (self.config.proc_root.clone(), self.servers.deadline());
        let checked = self.unix_now();
        self.running.spawn(async move {
            // A version that there is not is the mount's own trouble; the server is asked all the same.
            let options =
                MountOptions::parse(&wanted.server.options).or_else(|_| MountOptions::parse("")).unwrap_or_default();
            let server = &wanted.server;
            let port = options.port.unwrap_or(NFS_PORT);
            // Mounts of the same server may be asked about just now. Without an address there is nobody to disturb.
            let address = resolver.resolve(&server.name, deadline).await.first();
            let _turn = match address {
                Some(address) => Some(turns.next_turn(SocketAddr::new(address, port)).await),
                None => None,
            };
            let offer =
                offered(&server.name, &wanted.export, server.efs, &options, &resolver, &proc_root, deadline).await;
            let answer = Answer {
                result: offer.verdict.result,
                cause: offer.verdict.cause,
                summary: offer.verdict.summary,
                advice: match offer.verdict.result {
                    Severity::Dead | Severity::Unknown => offer.verdict.todo.join(" "),
                    _ => String::new(),
                },
                address: offer.address,
                checked,
            };
            Event::Offered { wanted: Box::new(wanted), answer: Box::new(answer) }
        });
    }

    /// In a thread: a node has thousands of processes.
    fn scan_mounts(&mut self) {
        if std::mem::replace(&mut self.pending_pods.scanning, true) {
            return;
        }
        let proc_root = self.config.proc_root.clone();
        self.running.spawn(async move {
            let scan = tokio::task::spawn_blocking(move || mounting::look(&proc_root).unwrap_or_default());
            Event::MountsScanned(scan.await.unwrap_or_default())
        });
    }

    pub(super) fn on_offered(&mut self, wanted: &Wanted, answer: Answer) {
        let now = self.now();
        self.pending_pods.book.answered(wanted, answer, now);
        // Whose turn it was not may have it now.
        self.next_inquiry = now;
        self.news = true;
    }

    pub(super) fn on_mounts_scanned(&mut self, mounting: Mounting) {
        (self.pending_pods.scanning, self.pending_pods.next_scan) = (false, self.now() + SCAN);
        self.pending_pods.book.mounting(mounting);
        self.changed = true;
    }

    /// Rows of the snapshot: volumes that are waited for, how many there are, and mounts that hang.
    pub(super) fn pending_rows(&self, wall: UnixSeconds) -> (Vec<PendingVolume>, usize, Vec<KubeletMount>) {
        let (mut rows, mut count) = self.pending_pods.book.rows(self.now(), wall);
        if !self.config.silence_findings.contains(&Finding::NotShared) {
            let more = not_shared(&self.names);
            count += more.len();
            rows.extend(more.into_iter().take(LISTED.saturating_sub(rows.len())));
        }
        (rows, count, self.pending_pods.book.mounts().hung.clone())
    }
}
