//! What survives the agent's restart: since when a mount is dead, and what its filesystem looked like when it was well.
//!
//! It is kept in a file on a local filesystem, of this boot, and taken up only for the very same mount: superblock, root,
//! source and handle, and the mount's own id. Ids are reused at once, so where the kernel has none that is unique (before
//! Linux 6.8) only a pod's own path will do: the kubelet mounts there once. A file that cannot be read costs a count.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::core::{Core, Event};
use super::target::{Key, Member, Target};
use super::wall::boot_seconds;
use crate::localfs;
use crate::mounts::kubelet::pod_uid;
use crate::probe::Sentinel;
use crate::probe::keep::LONGEST;
use crate::probe::pool::{Class, Outcome};
use crate::probe::schedule::{Now, TargetId};
use crate::probe::wire::{Answer, Job};
use crate::snapshot::UnixSeconds;
use crate::verdict::State;
use crate::verdict::judge::Good;
use crate::verdict::judge::words::errno_name;

/// Layout of the file.
const VERSION: u32 = 1;

/// Targets that are kept: those that are dead first.
const MOST: usize = 2048;

/// The file is written this long after a change at the earliest, and so often where only numbers changed.
const SOON: Duration = Duration::from_secs(2);
const NOW_AND_THEN: Duration = Duration::from_secs(60);

/// Reading or writing it may take so long, the start of a worker on a busy machine included; the agent's first pass waits
/// for the reading.
const PATIENCE: Duration = Duration::from_secs(5);

/// The whole file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    version: u32,
    boot_id: String,
    targets: Vec<Record>,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    key: Key,
    mounts: Vec<Kept>,
    state: State,
    /// By CLOCK_BOOTTIME, which nobody sets.
    since_boot: f64,
    sentinels: Vec<Sentinel>,
    good: Option<Good>,
}

/// A mount of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    mount_id: u64,
    unique_mount_id: Option<u64>,
    path: Vec<u8>,
}

/// What is known of the file.
#[derive(Debug, Default)]
pub(super) struct StateFile {
    boot_id: String,
    /// What an agent before this one left, until its targets are found.
    left: HashMap<Key, Record>,
    dirty: bool,
    next: Now,
    busy: bool,
    written: Vec<u8>,
}

impl StateFile {
    /// Something changed that is worth keeping.
    pub(super) fn touch(&mut self, now: Now) {
        if !std::mem::replace(&mut self.dirty, true) {
            self.next = now + SOON;
        }
    }
}

impl Core {
    /// Reads what an agent before this one left. To be called before the first pass.
    pub(super) async fn recall(&mut self) {
        if self.config.state_file.is_empty() || self.one_pass {
            return;
        }
        let boot_id = self.config.proc_root.join("sys/kernel/random/boot_id");
        let Ok(boot_id) = localfs::read_kernel_file(&boot_id) else { return };
        self.state_file.boot_id = String::from_utf8_lossy(&boot_id).trim().to_owned();
        let job = Job::Recall(self.config.state_file.clone().into_bytes());
        match self.pool.run(job, "state", Class::Hopeful, PATIENCE, PATIENCE).await {
            Outcome::Answered(Answer::Kept(None)) => {}
            Outcome::Answered(Answer::Kept(Some(bytes))) => match parse(&bytes, &self.state_file.boot_id) {
                Ok(left) => {
                    tracing::info!(targets = left.len(), "what an earlier agent knew of this node's mounts was read");
                    self.state_file.left = left;
                }
                Err(why) => self.state_trouble(&why),
            },
            Outcome::Answered(Answer::Failed { errno }) => self.state_trouble(&explain(errno)),
            other => self.state_trouble(&no_answer(&other)),
        }
    }

    fn state_trouble(&mut self, why: &str) {
        self.stats.state_errors_total += 1;
        tracing::warn!(file = self.config.state_file, why, "the state file does not help: {why}");
    }

    /// A target is new to this agent: what an earlier one knew of it is taken up.
    pub(super) fn take_up(&mut self, id: TargetId) {
        let Some(target) = self.registry.targets.get_mut(&id) else { return };
        let Some(record) = self.state_file.left.get(&target.key) else { return };
        if !target.members.iter().any(|member| record.is_of(member)) {
            return;
        }
        let Some(record) = self.state_file.left.remove(&target.key) else { return };
        target.take_up(record, self.start.elapsed());
    }

    /// Writes the file where that is due.
    pub(super) fn keep(&mut self, now: Now) {
        let file = &self.state_file;
        if self.config.state_file.is_empty() || self.one_pass || file.busy || now < file.next || !self.was_ready {
            return;
        }
        let bytes = self.state_bytes(super::unix_now());
        let file = &mut self.state_file;
        (file.dirty, file.next) = (false, now + NOW_AND_THEN);
        if bytes.len() > LONGEST || bytes == file.written {
            return;
        }
        file.busy = true;
        file.written.clone_from(&bytes);
        let job = Job::Keep { path: self.config.state_file.clone().into_bytes(), bytes };
        let pool = self.pool.clone();
        self.running.spawn(async move {
            Event::Kept { outcome: pool.run(job, "state", Class::Hopeful, PATIENCE, PATIENCE).await }
        });
    }

    pub(super) fn on_kept(&mut self, outcome: &Outcome) {
        self.state_file.busy = false;
        let why = match outcome {
            Outcome::Answered(Answer::Kept(_)) => return,
            Outcome::Answered(Answer::Failed { errno }) => explain(*errno),
            other => no_answer(other),
        };
        self.state_file.written.clear();
        self.state_trouble(&why);
    }

    /// When the file is to be written next.
    pub(super) fn next_keep(&self) -> Option<Now> {
        let wanted = self.state_file.dirty && !self.state_file.busy && !self.config.state_file.is_empty();
        (wanted && self.was_ready && !self.one_pass).then_some(self.state_file.next)
    }

    fn state_bytes(&self, unix: UnixSeconds) -> Vec<u8> {
        let boot = boot_seconds();
        let mut targets: Vec<&Target> = self.registry.targets.values().filter(|target| target.judged).collect();
        targets.sort_by_key(|target| (is_well(target.verdict.state), target.id));
        let records =
            targets.into_iter().take(MOST).filter_map(|target| Record::of(target, boot - (unix - target.since)));
        let file = File { version: VERSION, boot_id: self.state_file.boot_id.clone(), targets: records.collect() };
        // Numbers and bytes: that cannot fail. An empty file is none.
        serde_json::to_vec(&file).unwrap_or_default()
    }
}

impl Target {
    fn take_up(&mut self, record: Record, now: Now) {
        if self.sentinels.is_empty() && self.takes_sentinels() && !record.sentinels.is_empty() {
            self.sentinels = record.sentinels;
            self.learned_at = Some(now);
        }
        if self.memory.good.is_none() && record.good.is_some() {
            self.memory.good = record.good;
            self.memory.answered = true;
        }
        let since = super::unix_now() - (boot_seconds() - record.since_boot).max(0.0);
        self.was = Some((record.state, since));
    }
}

impl Record {
    fn of(target: &Target, since_boot: f64) -> Option<Record> {
        // A target without identity is only known by its mount's id.
        if !matches!(target.key, Key::Root { .. }) {
            return None;
        }
        let kept = |member: &Member| Kept {
            mount_id: member.mount_id,
            unique_mount_id: member.unique_mount_id,
            path: member.mountpoint.as_os_str().as_bytes().to_vec(),
        };
        Some(Record {
            key: target.key.clone(),
            mounts: target.members.iter().map(kept).collect(),
            state: target.verdict.state,
            // Whole seconds, or the clock's own noise would be news.
            since_boot: since_boot.round(),
            sentinels: target.sentinels.clone(),
            good: target.memory.good.clone(),
        })
    }

    /// The mount is one of those that it was kept for.
    fn is_of(&self, member: &Member) -> bool {
        self.mounts.iter().any(|kept| {
            let path = member.mountpoint.as_os_str().as_bytes();
            let same = kept.mount_id == member.mount_id && kept.path == path;
            match (kept.unique_mount_id, member.unique_mount_id) {
                (Some(before), Some(now)) => same && before == now,
                _ => same && pod_uid(&member.mountpoint).is_some(),
            }
        })
    }
}

fn is_well(state: State) -> bool {
    !matches!(state, State::Hung | State::Stale | State::Lost)
}

fn parse(bytes: &[u8], boot_id: &str) -> Result<HashMap<Key, Record>, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| format!("it is damaged: {error}"))?;
    if file.version != VERSION {
        return Err(format!("it has version {}, not {VERSION}", file.version));
    }
    // Of another boot: no number in it means anything any more, and that is no error.
    let ours = file.boot_id == boot_id;
    let records = file.targets.into_iter().take(MOST).filter(|record| ours && record.since_boot.is_finite());
    Ok(records.map(|record| (record.key.clone(), record)).collect())
}

fn explain(errno: i32) -> String {
    match errno {
        libc::EXDEV => "it does not lie on a local filesystem".to_owned(),
        errno => errno_name(errno),
    }
}

fn no_answer(outcome: &Outcome) -> String {
    outcome.no_answer(&format!("it was not read or written within {PATIENCE:?}: is it on a dead mount?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{Dev, View};
    use proptest::prelude::*;

    const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";

    fn record(unique: Option<u64>, path: &str) -> Record {
        let dev = Dev { major: 0, minor: 44 };
        let key = Key::Root { dev, root: b"/".to_vec(), source: b"srv:/x".to_vec(), handle: vec![1, 2], ino: 0 };
        let mounts = vec![Kept { mount_id: 40, unique_mount_id: unique, path: path.as_bytes().to_vec() }];
        Record { key, mounts, state: State::Hung, since_boot: 17.0, sentinels: Vec::new(), good: None }
    }

    fn member(id: u64, unique: Option<u64>, path: &str) -> Member {
        let mountpoint = path.into();
        Member { mount_id: id, unique_mount_id: unique, view: View::Own, mountpoint, hidden: false, through: None }
    }

    fn file(boot_id: &str) -> Vec<u8> {
        let file = File { version: VERSION, boot_id: boot_id.to_owned(), targets: vec![record(None, "/mnt/a")] };
        serde_json::to_vec(&file).unwrap()
    }

    #[test]
    fn it_reads_back_what_it_wrote_in_the_same_boot_only() {
        let left = parse(&file("a"), "a").unwrap();
        assert_eq!(left.values().collect::<Vec<_>>(), [&record(None, "/mnt/a")]);
        assert!(parse(&file("a"), "b").unwrap().is_empty());
    }

    #[test]
    fn what_is_damaged_or_of_another_version_is_an_error_in_words() {
        let bytes = file("a");
        assert!(parse(&bytes[..bytes.len() - 1], "a").unwrap_err().starts_with("it is damaged"));
        let newer = String::from_utf8(bytes).unwrap().replace("\"version\":1", "\"version\":2");
        assert_eq!(parse(newer.as_bytes(), "a").unwrap_err(), "it has version 2, not 1");
    }

    #[test]
    fn only_the_very_same_mount_takes_it_up() {
        let pods = format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~nfs/data");
        let unique = record(Some(9), "/mnt/a");
        assert!(unique.is_of(&member(40, Some(9), "/mnt/a")));
        assert!(!unique.is_of(&member(40, Some(10), "/mnt/a")), "the id was reused");
        assert!(!unique.is_of(&member(41, Some(9), "/mnt/a")));
        assert!(!record(None, "/mnt/a").is_of(&member(40, None, "/mnt/a")), "it may have been mounted anew");
        assert!(record(None, &pods).is_of(&member(40, None, &pods)), "the kubelet mounts there once");
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes, "a");
        }
    }
}
