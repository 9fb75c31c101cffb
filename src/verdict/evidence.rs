//! What a verdict is made of. All of it is plain data that can be written down and judged again.

use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use super::{Cause, Passive};
use crate::mounts::mountstats::TransportCounters;
use crate::mounts::source::Mode;
use crate::mounts::{Kind, Mount, kind};
use crate::probe::pool::Blocked;
use crate::probe::{ProbeReport, Space, Step, StepResult};
use crate::server::conclude::Symptom;

/// What the mount table says of a target and what matters to the judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Kind of filesystem.
    pub kind: Option<Kind>,
    /// Hard, soft or softerr (NFS).
    pub mode: Option<Mode>,
    /// After so long without an answer a soft mount gives up a request, in milliseconds: `timeo` x (`retrans` + 1),
    /// the major timeout of TCP transports (nfs(5), measured).
    pub soft_budget_millis: Option<u64>,
    /// Requests carry plain user ids (`sec=sys` or nothing said): then GETATTR needs no permission.
    pub plain_security: bool,
    /// Somebody asked for a read-only mount.
    pub read_only: bool,
    /// A read-write mount of a superblock that is read-only.
    pub writable_on_readonly_superblock: bool,
    /// The mounted directory was deleted (`//deleted` in the table); never said of NFS, whose roots the server deletes.
    pub deleted: bool,
    /// A local filesystem on a block device.
    #[serde(default)]
    pub local: bool,
    /// The client itself says ENOTCONN when its servers are away (GlusterFS), so that proves no dead daemon.
    pub passes_enotconn: bool,
}

impl Facts {
    /// The facts of a mount.
    #[must_use]
    pub fn of(mount: &Mount) -> Facts {
        let origin = &mount.origin;
        // nfs(5): timeo in tenths of a second, 600 for TCP; retrans 2.
        let budget = u64::from(origin.timeo.unwrap_or(600)) * 100 * (u64::from(origin.retrans.unwrap_or(2)) + 1);
        let soft = matches!(origin.mode, Some(Mode::Soft | Mode::Softerr));
        // ext4 says `emergency_ro` since Linux 6.15, where it turned read-only by itself, and `rw` beside it (measured).
        let superblock_ro = mount.has_super_option("ro") || mount.has_super_option("emergency_ro");
        Facts {
            kind: mount.kind,
            mode: origin.mode,
            soft_budget_millis: soft.then_some(budget),
            plain_security: origin.security.as_deref().is_none_or(|flavour| flavour == "sys" || flavour == "null"),
            read_only: mount.read_only(),
            writable_on_readonly_superblock: superblock_ro && !mount.has_option("ro"),
            deleted: !mount.kind.is_some_and(Kind::is_nfs) && mount.root.as_bytes().ends_with(b"//deleted"),
            local: kind::on_block_device(mount),
            passes_enotconn: mount.fstype == "fuse.glusterfs",
        }
    }

    /// The facts of a target with several mounts: one of them that may be written to is enough to miss the space.
    #[must_use]
    pub fn joined(self, other: &Facts) -> Facts {
        Facts {
            read_only: self.read_only && other.read_only,
            writable_on_readonly_superblock: self.writable_on_readonly_superblock
                || other.writable_on_readonly_superblock,
            deleted: self.deleted && other.deleted,
            ..self
        }
    }

    /// NFS of any version, EFS included.
    #[must_use]
    pub fn is_nfs(&self) -> bool {
        self.kind.is_some_and(Kind::is_nfs)
    }
}

/// One look at a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation {
    /// The kernel answered; what it said.
    Report(ProbeReport),
    /// It did not answer by the deadline.
    Blocked(Blocked),
    /// A probe of another target of the same superblock is blocked; this one was not tried.
    Inherited {
        /// Label of the other target's mountpoint.
        from: String,
        /// Its cause.
        cause: Option<Cause>,
    },
    /// There was no look, and why. Says nothing about the mount.
    NotRun(NotRun),
}

impl Observation {
    /// The step that it hangs on, or that a soft mount gave up.
    #[must_use]
    pub fn stopped_at(&self) -> Option<Step> {
        match self {
            Observation::Blocked(blocked) => blocked.step,
            Observation::Report(report) => report.steps.iter().find(|step| step.errno.is_some()).map(|step| step.step),
            _ => None,
        }
    }
}

/// Why a target was not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotRun {
    /// The agent was late, suspended or starved, or the worker never ran.
    Overloaded(String),
    /// The worker ended, or broke its wire format.
    WorkerLost(String),
    /// No worker could be started.
    WorkerNotStarted(String),
    /// Too many workers are blocked.
    WorkerCap,
    /// The only way to it leads through another network mount that does not answer.
    ThroughDeadMount(String),
    /// Its only path leads through another network mount and is not wholly in the kernel's cache.
    NotCached,
    /// Another mount lies on top of it on its only path.
    Hidden,
    /// The table changed under the probe.
    TableChanged,
    /// There is no mount: what a container has instead of it says all.
    Absent,
    /// Only containers of pods that are being deleted lead to it: looking through them would hold up the kubelet.
    Terminating,
}

/// What the server said when it was asked without the mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// It answered an RPC.
    pub alive: bool,
    /// What its silence proves.
    pub cause: Option<Cause>,
    /// In words.
    pub words: String,
}

/// What the answers of a server prove about one mount ([`crate::server::conclude`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// What was the matter with the mount when its server was asked.
    pub symptom: Symptom,
    /// What is proven.
    pub cause: Option<Cause>,
    /// The sentence of the rule that proved it.
    pub why: Option<String>,
}

/// What the last canary found (written only where configured).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryView {
    /// How it ended.
    pub outcome: CanaryOutcome,
    /// So many canaries in a row ended alike.
    pub rounds: u32,
    /// It acted as root.
    pub as_root: bool,
    /// Totals of the filesystem, where it found no room.
    pub space: Option<Space>,
}

/// How a canary ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryOutcome {
    /// Written, read back, the same.
    Good,
    /// An older record of this node came back: a write was run late.
    Late,
    /// This step failed.
    Failed(StepResult),
    /// Read back, and differs.
    Differs,
    /// A step did not return by its deadline.
    Blocked(Blocked),
    /// The worker of an earlier agent, that old in milliseconds, was killed and is still in the kernel.
    Stray(u64),
}

/// What the host has in place of a mount that only containers and services have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnHost {
    /// It was mounted anew: the container kept the old mount.
    Remounted {
        /// Where the host has the new one.
        path: String,
        /// The new one's root is another directory than the old one's.
        differs: bool,
    },
    /// It is mounted there no more.
    Unmounted,
    /// The container has a directory of the node's disk in its place: nothing was mounted there when it was started.
    OnDisk {
        /// The directory: its path on the host, where one leads to it; else the one within the filesystem of the disk.
        directory: String,
    },
    /// The pod's specification wants it, and the container's table does not have it.
    Missing,
}

impl OnHost {
    /// There is no mount that could be probed.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, OnHost::OnDisk { .. } | OnHost::Missing)
    }
}

/// Everything one verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// When, in milliseconds since the agent started.
    pub at_millis: u64,
    /// What kind of target.
    pub facts: Facts,
    /// The look at it.
    pub observation: Observation,
    /// Its server, if it was asked lately.
    pub server: Option<ServerView>,
    /// What its server said of this very mount, if it was asked lately.
    #[serde(default)]
    pub examined: Option<Examined>,
    /// Its transport, if the kernel's counters could be read lately.
    pub transport: Option<TransportCounters>,
    /// What the kernel counted and said by itself.
    #[serde(default)]
    pub passive: Passive,
    /// Most servers refuse us at the same time: more likely our own rights than theirs.
    pub many_refuse: bool,
    /// The last canary, if it is young enough to count.
    pub canary: Option<CanaryView>,
    /// Of a mount that only containers and services have: what the host has in its place.
    #[serde(default)]
    pub on_host: Option<OnHost>,
}
