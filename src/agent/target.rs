//! A target: what one probe answers for, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::canary::Canary;
use super::containers::{AbsentMount, Users};
use crate::mounts::kubelet::pod_uid;
use crate::mounts::mountstats::{OpCounters, TransportCounters, TransportTrend};
use crate::mounts::octal;
use crate::mounts::source::NFS_PORT;
use crate::mounts::{Dev, Mount, View};
use crate::probe::schedule::{Now, TargetId};
use crate::probe::wire::Place;
use crate::probe::{Identity, Sentinel, Space, StepResult};
use crate::snapshot::UnixSeconds;
use crate::verdict::judge::Decision;
use crate::verdict::{Cause, Evidence, Facts, Finding, Judgement, Memory, OnHost, State, Tuning, Verdict};

/// What tells one target from another (DESIGN section 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Key {
    /// The root's identity is known: all mounts of this directory are one target.
    Root { dev: Dev, root: Vec<u8>, source: Vec<u8>, handle: Vec<u8>, ino: u64 },
    /// It could not be told: each mount is a target of its own.
    Mount { id: u64, dev: Dev, source: Vec<u8> },
    /// There is none: what a container lacks at a path.
    Absent { view: View, path: PathBuf },
}

impl Key {
    /// The roots are different directories, as far as that can be told.
    pub(super) fn differs(&self, other: &Key, stable_inodes: bool) -> bool {
        match (self, other) {
            (Key::Root { handle, ino, .. }, Key::Root { handle: other_handle, ino: other_ino, .. }) => {
                if handle.is_empty() || other_handle.is_empty() {
                    return stable_inodes && handle.is_empty() && other_handle.is_empty() && ino != other_ino;
                }
                handle != other_handle
            }
            _ => false,
        }
    }

    pub(super) fn source(&self) -> &[u8] {
        match self {
            Key::Root { source, .. } | Key::Mount { source, .. } => source,
            Key::Absent { .. } => b"",
        }
    }

    pub(super) fn of(mount: &Mount, identity: Option<&Identity>) -> Key {
        let source = mount.source.as_bytes().to_vec();
        match identity {
            Some(identity) => Key::Root {
                dev: mount.dev,
                root: mount.root.as_bytes().to_vec(),
                source,
                handle: identity.handle.clone(),
                // Where there is a handle it says more; the cached inode number may be the mount's, not the root's.
                ino: if identity.handle.is_empty() { identity.ino } else { 0 },
            },
            None => Key::Mount { id: mount.id, dev: mount.dev, source },
        }
    }
}

/// One mount of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) mount_id: u64,
    pub(super) unique_mount_id: Option<u64>,
    pub(super) view: View,
    pub(super) mountpoint: PathBuf,
    pub(super) hidden: bool,
    /// Mount id of the network mount that the path leads through.
    pub(super) through: Option<u64>,
}

/// Labels of a target: chosen once, unique in the agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Labels {
    pub(super) mountpoint: String,
    pub(super) source: String,
    pub(super) fstype: String,
}

/// What is known of a target.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) id: TargetId,
    pub(super) key: Key,
    pub(super) labels: Labels,
    pub(super) dev: Dev,
    /// One of its mounts as a table has it: options of the superblock, source and server are those of all of them.
    pub(super) mount: Mount,
    pub(super) facts: Facts,
    pub(super) owner: String,
    pub(super) members: Vec<Member>,
    pub(super) memory: Memory,
    pub(super) verdict: Verdict,
    pub(super) since: UnixSeconds,
    pub(super) sentinels: Vec<Sentinel>,
    pub(super) learned_at: Option<Now>,
    pub(super) rounds: usize,
    pub(super) steps: Vec<StepResult>,
    pub(super) last_probe: Option<UnixSeconds>,
    pub(super) last_success: Option<UnixSeconds>,
    pub(super) started_at: Option<Now>,
    pub(super) blocked_since: Option<Now>,
    pub(super) blocked_total: Duration,
    pub(super) probes: BTreeMap<&'static str, u64>,
    pub(super) transitions: BTreeMap<State, u64>,
    pub(super) transport: Option<TransportCounters>,
    /// What its operations cost, as mountstats last said.
    pub(super) operations: Vec<OpCounters>,
    /// What changed between its last two readings, and when the last one was made.
    pub(super) trend: Option<TransportTrend>,
    pub(super) counted_at: Now,
    /// Totals of its filesystem, and when they were read.
    pub(super) space: Option<(Space, UnixSeconds)>,
    /// The kernel logged that a file of its superblock became another one, since the last good look.
    pub(super) fileid_changed: bool,
    /// All its known entries are gone since its transport reconnected, and its server is asked about that.
    pub(super) emptied: bool,
    /// When a reconnect of its transport last made it due early.
    pub(super) hurried: Option<Now>,
    /// Replies came in between the last two readings of the counters.
    pub(super) receiving: bool,
    pub(super) decision: Option<Decision>,
    pub(super) judged: bool,
    /// Its state before the agent's restart, and since when.
    pub(super) was: Option<(State, UnixSeconds)>,
    /// The mounts whose filesystem was replaced under them, by id; empty unless that is the verdict.
    replaced_under: BTreeSet<u64>,
    /// Its canary, once one was written or tried.
    pub(super) canary: Option<Box<Canary>>,
    /// The host had it once.
    pub(super) was_on_host: bool,
    /// Of a mount that only containers and services have: what the host has in its place.
    pub(super) on_host: Option<OnHost>,
    /// There is no mount: what a container lacks.
    pub(super) absent: Option<AbsentMount>,
    /// Who uses it, as last counted.
    pub(super) users: Users,
    /// Containers that are meant to have it and have the node's disk, in words.
    pub(super) apart: Option<String>,
    /// What the mount table says of its mounts beside the state.
    pub(super) table_findings: BTreeSet<Finding>,
    /// Findings whose log line was written; one that goes away and comes back is news again.
    announced: BTreeSet<Finding>,
}

/// A state that was left for another.
pub(super) struct Transition {
    pub(super) from: State,
    pub(super) first: bool,
}

impl Target {
    pub(super) fn new(id: TargetId, key: Key, labels: Labels, mount: &Mount, now_unix: UnixSeconds) -> Target {
        let memory = Memory::default();
        Target {
            id,
            key,
            labels,
            dev: mount.dev,
            mount: mount.clone(),
            facts: Facts::of(mount),
            owner: owner(mount),
            members: Vec::new(),
            verdict: Verdict {
                state: memory.state,
                cause: memory.cause,
                evidence: memory.evidence.clone(),
                inherited: false,
                findings: Vec::new(),
            },
            memory,
            since: now_unix,
            sentinels: Vec::new(),
            learned_at: None,
            rounds: 0,
            steps: Vec::new(),
            last_probe: None,
            last_success: None,
            started_at: None,
            blocked_since: None,
            blocked_total: Duration::ZERO,
            probes: BTreeMap::new(),
            transitions: BTreeMap::new(),
            transport: None,
            operations: Vec::new(),
            trend: None,
            counted_at: Now::ZERO,
            space: None,
            fileid_changed: false,
            emptied: false,
            hurried: None,
            receiving: false,
            decision: None,
            judged: false,
            was: None,
            replaced_under: BTreeSet::new(),
            canary: None,
            was_on_host: false,
            on_host: None,
            absent: None,
            users: Users::default(),
            apart: None,
            table_findings: BTreeSet::new(),
            announced: BTreeSet::new(),
        }
    }

    /// Sentinels need handles that mean something and a transport whose reconnects can be seen.
    pub(super) fn takes_sentinels(&self) -> bool {
        self.facts.is_nfs()
    }

    /// Whether something tells us that its server is back.
    pub(super) fn watched(&self) -> bool {
        self.facts.is_nfs() && self.mount.origin.address.is_some()
    }

    /// Name under which its server's load is counted; empty for filesystems without one.
    pub(super) fn server_label(&self) -> String {
        let address = self.mount.origin.address.map(|address| address.to_string());
        self.mount.origin.server.clone().or(address).unwrap_or_default()
    }

    /// Takes a judgement over.
    pub(super) fn accept(
        &mut self,
        judgement: Judgement,
        evidence: Evidence,
        tuning: Tuning,
        now: UnixSeconds,
    ) -> Option<Transition> {
        let from = self.verdict.state;
        let first = !std::mem::replace(&mut self.judged, true);
        let before = std::mem::replace(&mut self.memory, judgement.memory);
        self.verdict = judgement.verdict;
        self.note_replaced();
        let dull = self.verdict.state == State::Healthy && self.verdict.findings.is_empty();
        self.decision = (!dull).then_some(Decision { before, evidence, tuning });
        if from == self.verdict.state && !first {
            return None;
        }
        let was = self.was.take().filter(|(state, _)| first && *state == self.verdict.state);
        self.since = was.map_or(now, |(_, since)| since.min(now));
        *self.transitions.entry(self.verdict.state).or_default() += 1;
        Some(Transition { from, first })
    }

    /// Where its server can be asked without the mount: NFS over TCP at a known address.
    pub(super) fn server_address(&self) -> Option<SocketAddr> {
        let tcp = self.mount.origin.proto.as_deref().is_none_or(|proto| proto.starts_with("tcp"));
        let address = self.mount.origin.address.filter(|_| self.facts.is_nfs() && tcp)?;
        Some(SocketAddr::new(address, self.server_port()))
    }

    /// The server's port, that of NFS where the mount says nothing else.
    pub(super) fn server_port(&self) -> u16 {
        self.mount.origin.port.unwrap_or(NFS_PORT)
    }

    /// A fresh mount of the server's new filesystem shares superblock and root with the old ones, but for whoever made it
    /// nothing is lost.
    pub(super) fn note_replaced(&mut self) {
        if (self.verdict.state, self.verdict.cause) != (State::Lost, Some(Cause::FilesystemReplaced)) {
            self.replaced_under.clear();
        } else if self.replaced_under.is_empty() {
            self.replaced_under = self.members.iter().map(|member| member.mount_id).collect();
        }
    }

    /// Every mount that lost its filesystem is gone; those that are left never had another one.
    pub(super) fn outlived_replacement(&self) -> bool {
        let old = |member: &Member| self.replaced_under.contains(&member.mount_id);
        !self.replaced_under.is_empty() && !self.members.is_empty() && !self.members.iter().any(old)
    }

    /// The table that its counters are read from: the host's, where it is there.
    pub(super) fn view(&self) -> Option<View> {
        self.members.iter().map(|member| member.view).min()
    }

    /// Takes a reading of mountstats over; gives the counters of the one before.
    pub(super) fn counted(
        &mut self,
        counters: TransportCounters,
        operations: Vec<OpCounters>,
        now: Now,
    ) -> Option<TransportCounters> {
        let passed = now.saturating_sub(std::mem::replace(&mut self.counted_at, now));
        let before = std::mem::replace(&mut self.operations, operations);
        let earlier = self.transport.replace(counters);
        self.trend = earlier.and_then(|earlier| {
            let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            TransportTrend::between((earlier, &before), (counters, &self.operations), millis)
        });
        earlier
    }

    /// Mountstats could not be read, or does not have it.
    pub(super) fn no_counters(&mut self) {
        self.transport = None;
        self.trend = None;
        self.operations = Vec::new();
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        self.verdict.cause
    }

    /// What is worth knowing beside its state, without what nobody wants to see.
    pub(super) fn findings(&self, silenced: &[Finding]) -> BTreeSet<Finding> {
        let hidden = self.members.iter().any(|member| member.hidden).then_some(Finding::Hidden);
        let written = self.canary.iter().flat_map(|canary| canary.findings());
        let works = matches!(self.verdict.state, State::Healthy | State::Slow);
        let contained = match self.on_host {
            Some(OnHost::OnDisk { .. }) => Some(Finding::OnNodeDisk),
            Some(OnHost::Remounted { .. } | OnHost::Unmounted) if works => Some(Finding::OldCopy),
            _ => None,
        };
        let apart = self.apart.is_some().then_some(Finding::NotShared);
        let all = self.table_findings.iter().chain(&self.verdict.findings).copied();
        let all = all.chain(contained).chain(hidden).chain(written).chain(apart);
        all.filter(|finding| !silenced.contains(finding)).collect()
    }

    /// What was seen, for the findings that are about somebody.
    pub(super) fn finding_words(&self, finding: Finding) -> Option<String> {
        match finding {
            Finding::NotShared => self.apart.clone(),
            Finding::UnreadableEntries => self.canary.as_ref().and_then(|canary| canary.closed_words()),
            _ => None,
        }
    }

    /// The findings that were not there when this was last asked.
    pub(super) fn new_findings(&mut self, silenced: &[Finding]) -> Vec<Finding> {
        let now = self.findings(silenced);
        let before = std::mem::replace(&mut self.announced, now);
        self.announced.difference(&before).copied().collect()
    }
}

/// How a worker reaches a member: the host's paths through PID 1's root, our own as they are.
pub(super) fn place(member: &Member, dev: Dev, proc_root: &Path) -> Place {
    let root = member.view.root(proc_root).map(|root| root.into_os_string().into_vec());
    Place {
        root: root.unwrap_or_default(),
        path: member.mountpoint.as_os_str().as_bytes().to_vec(),
        mount_id: member.mount_id,
        dev,
        cached_only: member.through.is_some(),
    }
}

/// Whose workers it counts against: the pod under whose directory it is mounted, else the source.
fn owner(mount: &Mount) -> String {
    pod_uid(&mount.mountpoint).unwrap_or_else(|| mount.origin.label.clone())
}

/// Labels that no other target has: the pod's UID as `*`, then its first digits, then whole, then the mount id.
pub(super) fn choose_labels(mount: &Mount, known_by: &Path, taken: impl Fn(&Labels) -> bool) -> Labels {
    let path = octal::label(known_by.as_os_str());
    let mut names = Vec::new();
    if let Some(uid) = pod_uid(known_by) {
        names.push(path.replacen(&uid, "*", 1));
        let digits: String = uid.chars().take(8).collect();
        names.push(path.replacen(&uid, &format!("{digits}*"), 1));
    }
    names.push(path.clone());
    let with =
        |mountpoint: String| Labels { mountpoint, source: mount.origin.label.clone(), fstype: mount.fstype.clone() };
    names
        .into_iter()
        .map(with)
        .find(|labels| !taken(labels))
        .unwrap_or_else(|| with(format!("{path} (mount {})", mount.id)))
}
