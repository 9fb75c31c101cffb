//! Reading the mount tables of containers: which are asked for, and what becomes of their mounts.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::apart::Reading;
use super::{AbsentMount, Question, SeenMount, YOUNG, why};
use crate::agent::core::{Core, Event};
use crate::agent::registry::Newcomer;
use crate::mounts::{Kind, Mount, Process, View};
use crate::pods::namespaces::Holder;
use crate::probe::pool::{Class, Outcome};
use crate::probe::schedule::Now;
use crate::probe::tables::{Asked, Filesystem, MAX_TABLES, TableFate, TableRow, TablesJob};
use crate::probe::wire::{Answer, Job};
use crate::verdict::judge::words::errno_name;

impl Core {
    pub(super) fn read_tables(&mut self) {
        let mut asked = Vec::new();
        let mut questions = Vec::new();
        while let Some(process) = self.containers.unread.pop_first() {
            let Some(seen) = self.containers.views.get(&process) else { continue };
            let hash = seen.hash;
            let question =
                Question { process, wanted: self.wanted_paths(process), compared: self.compared_paths(process) };
            let bytes = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
            asked.push(Asked {
                process,
                hash,
                wanted: question.wanted.iter().map(|wanted| bytes(&wanted.path)).collect(),
                compared: question.compared.iter().map(|compared| bytes(&compared.path)).collect(),
            });
            questions.push(question);
            if asked.len() == MAX_TABLES {
                break;
            }
        }
        if asked.is_empty() {
            return;
        }
        self.containers.reading = true;
        let proc_root = self.config.proc_root.as_os_str().as_bytes().to_vec();
        let job = Job::Tables(TablesJob { proc_root, tables: asked });
        let (pool, deadline) = (self.pool.clone(), self.config.timeout);
        let (at, started) = (self.now(), Instant::now());
        self.running.spawn(async move {
            let outcome = pool.run(job, "containers", Class::Hopeful, deadline, deadline).await;
            Event::TablesRead { asked: questions, at, outcome, took: started.elapsed() }
        });
    }

    /// Tables of containers were read.
    pub(in crate::agent) fn on_tables(&mut self, asked: Vec<Question>, at: Now, outcome: Outcome, took: Duration) {
        self.containers.reading = false;
        self.containers.took += took;
        match outcome {
            Outcome::Answered(Answer::Tables(tables)) => {
                let reading = Reading { asked: at, answered: self.now() };
                for (question, fate) in asked.into_iter().zip(tables.tables) {
                    self.take_fate(&question, fate, &tables.filesystems, reading);
                }
            }
            other => {
                // Nothing waits for the end of a worker that missed its deadline; the pool reaps it.
                tracing::debug!(processes = asked.len(), why = why(&other), "tables of containers not read");
            }
        }
        self.settle_containers();
    }

    fn take_fate(&mut self, question: &Question, fate: TableFate, filesystems: &[Filesystem], reading: Reading) {
        let process = question.process;
        match fate {
            TableFate::Read(mut row) => {
                let places = std::mem::take(&mut row.places);
                if let Some(seen) = self.containers.views.get_mut(&process) {
                    seen.take_places(&question.compared, places, reading);
                }
                self.take_container(process, &question.wanted, row, filesystems);
            }
            TableFate::Same => {
                if let Some(seen) = self.containers.views.get_mut(&process) {
                    seen.confirm_places(reading);
                }
            }
            // It ended while we looked: no error, and the next look through the processes says who is left.
            TableFate::Gone => {
                self.forget_container(process);
                self.containers.lost = true;
                let now = self.now();
                self.containers.look_soon(now);
            }
            TableFate::Later => {
                self.containers.unread.insert(process);
            }
            TableFate::Failed(errno) => {
                tracing::debug!(pid = process.pid, errno = errno_name(errno), "a container's table cannot be read");
            }
        }
    }

    /// A container's table is another one than before.
    pub(super) fn take_container(
        &mut self,
        process: Process,
        wanted: &[AbsentMount],
        row: TableRow,
        filesystems: &[Filesystem],
    ) {
        let (view, now) = (View::Container(process), self.now());
        let Some(seen) = self.containers.views.get_mut(&process) else { return };
        // Only seconds after its start a container's table is whole: until then nothing is missing, and it is read again.
        let young = now.saturating_sub(seen.first) < YOUNG;
        (seen.hash, seen.again) = (row.hash, None);
        if young && !row.missing.is_empty() {
            (seen.hash, seen.again) = (0, Some(seen.first + YOUNG));
        }
        let holder = seen.holder.clone();
        let of_container = holder.container_id().is_some();
        let mut mounts = HashMap::new();
        let mut newcomers = Vec::new();
        let missing = row.missing.iter().filter_map(|index| wanted.get(usize::try_from(*index).ok()?));
        let mut absent: Vec<AbsentMount> = missing.filter(|_| !young).cloned().collect();
        for told in row.mounts {
            let Some(mut mount) = told.mount(filesystems, view) else { continue };
            if told.on_disk {
                absent.extend(self.on_disk(&mount, &holder));
                continue;
            }
            self.efs.apply(&mut mount);
            // What follows the host and is the same as there goes when that goes: the copies that services hold.
            if !of_container && told.follows && self.volumes.has(&mount) {
                continue;
            }
            let seen =
                SeenMount { source: mount.source.clone(), root: mount.root.clone(), read_only: mount.has_option("ro") };
            mounts.insert(mount.id, seen);
            newcomers.push(self.newcomer(mount, told.through, &holder));
        }
        if let Some(seen) = self.containers.views.get_mut(&process) {
            seen.mounts = mounts;
            seen.left_out = row.left_out;
        }
        let changes = self.registry.update_view(view, newcomers);
        self.take_absent(process, absent);
        self.containers.epoch += 1;
        self.changed = true;
        self.drop_targets(changes.removed);
        self.identify_all(changes.to_identify);
    }

    fn newcomer(&self, mount: Mount, through: Option<u64>, holder: &Holder) -> Newcomer {
        let uid = holder.pod_uid();
        let place = uid.and_then(|uid| self.volumes.of_mount(uid, &mount));
        let label: Option<PathBuf> = place.map(|place| place.mountpoint.clone());
        // What a session or a service has mounted for itself (flatpak, a rootless container's overlay) is its own affair.
        let known = holder.container_id().is_some() || mount.kind != Some(Kind::Fuse) && self.volumes.knows(&mount);
        let alone = self.only.is_none() && known && self.filter.wants(&mount);
        Newcomer { mount, through, label, owner: uid.map(str::to_owned), alone }
    }

    /// A container's mount joined no target and may not be one: it is tried again, since what it belongs to may have been on
    /// its way.
    pub(in crate::agent) fn try_again(&mut self, view: View) {
        let now = self.now();
        if let View::Container(process) = view
            && let Some(seen) = self.containers.views.get_mut(&process)
        {
            seen.later(now);
        }
    }

    /// What was made of a container's table is void, though the table may be as it was.
    pub(in crate::agent) fn read_anew(&mut self, view: View) {
        let View::Container(process) = view else { return };
        if let Some(seen) = self.containers.views.get_mut(&process) {
            seen.hash = 0;
            self.containers.unread.insert(process);
        }
    }

    pub(super) fn settle_containers(&mut self) {
        let containers = &mut self.containers;
        if containers.unread.is_empty() && !containers.reading && !containers.took.is_zero() {
            containers.pass_took = std::mem::take(&mut containers.took);
        }
        let all_read = containers.unread.is_empty() && !containers.reading;
        containers.settled |= containers.namespaces.scanned() && all_read;
        if all_read {
            self.compare_containers();
        }
    }
}
