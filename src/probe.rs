//! The only code that touches a monitored mount, and it does so in worker processes.
//!
//! [`pool`] keeps the workers and enforces deadlines, [`wire`] is what agent and worker say to each other, [`worker`] is
//! the worker's side, [`note`] what it leaves behind in case it does not come back, [`steps`] and [`sentinel`] are the system calls it makes, [`scan`] looks through the processes and [`tables`] at what they see mounted, [`schedule`] says when which target is
//! probed, [`survey`] looks who uses what, [`keep`] keeps a file, [`canary`] writes where it was told to, [`trial`] makes a mount that nobody sees to learn whether it could be made, [`image`] is the copy of the
//! binary that workers start from.

pub mod canary;
pub mod image;
pub mod keep;
pub mod note;
pub mod pool;
pub mod scan;
pub mod schedule;
pub mod sentinel;
mod signals;
pub(crate) mod spawn;
pub mod steps;
pub mod survey;
pub mod tables;
pub mod trial;
pub mod wire;
pub mod worker;

use serde::{Deserialize, Serialize};

pub use worker::worker_entry;

/// A step of a probe: what the worker was doing when it was last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// `O_PATH` open of the mountpoint and comparison with the mount table; sends no request to the server.
    Open,
    /// Looking in sysfs for the block device below a local filesystem; it never blocks and is not announced.
    Device,
    /// Forced statx of the root: one GETATTR, whatever the caches say.
    StatxRoot,
    /// Forced statx of remembered entries.
    Sentinel,
    /// statfs of the root.
    Statfs,
    /// One directory read to choose sentinels.
    Learn,
    /// Reading a mount statistics file of the kernel.
    Counters,
    /// Reading the state files of the EFS mount helper.
    EfsState,
    /// Reading what the kernel says of connections and queues.
    Signals,
    /// Looking through the processes of the node.
    Processes,
    /// Reading the mount table of another process.
    Tables,
    /// Of a trial mount: handing its options to the kernel, which only parses them.
    TrialOpen,
    /// The server is asked to mount.
    TrialMount,
    /// Forced statx of the trial's root.
    TrialRoot,
    /// One read of the trial's root directory.
    TrialNames,
    /// Letting the trial mount go, which ends sessions with the server.
    TrialClose,
    /// Of a canary: opening our directory and file, and looking at what they are.
    CanaryOpen,
    /// Reading the record before.
    CanaryRead,
    /// Writing one block.
    CanaryWrite,
    /// Waiting until it is on stable storage.
    CanaryCommit,
    /// Reading it back, not from this node's memory.
    CanaryVerify,
    /// Taking one more block, and giving it back.
    CanaryRoom,
    /// Closing the file.
    CanaryClose,
    /// Reading it as another identity.
    CanaryReader,
    /// Reading the records of other nodes.
    CanaryPeers,
    /// Looking at a sample of the root's entries.
    CanaryEntries,
    /// Reading what a canary says of this machine, and what earlier ones left.
    CanaryHome,
    /// Reading processes, everybody's mount tables and connections.
    Survey,
    /// Reading or writing the agent's state file.
    StateFile,
}

impl Step {
    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Open => "open",
            Step::Device => "device",
            Step::StatxRoot => "statx_root",
            Step::Sentinel => "sentinel",
            Step::Statfs => "statfs",
            Step::Learn => "learn",
            Step::Counters => "counters",
            Step::EfsState => "efs_state",
            Step::Signals => "signals",
            Step::Processes => "processes",
            Step::Tables => "tables",
            Step::TrialOpen => "trial_open",
            Step::TrialMount => "trial_mount",
            Step::TrialRoot => "trial_root",
            Step::TrialNames => "trial_names",
            Step::TrialClose => "trial_close",
            Step::CanaryOpen => "canary_open",
            Step::CanaryRead => "canary_read",
            Step::CanaryWrite => "canary_write",
            Step::CanaryCommit => "canary_commit",
            Step::CanaryVerify => "canary_verify",
            Step::CanaryRoom => "canary_room",
            Step::CanaryClose => "canary_close",
            Step::CanaryReader => "canary_reader",
            Step::CanaryPeers => "canary_peers",
            Step::CanaryEntries => "canary_entries",
            Step::CanaryHome => "canary_home",
            Step::Survey => "survey",
            Step::StateFile => "state_file",
        }
    }
}

/// How one step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepResult {
    /// Which.
    pub step: Step,
    /// The errno, if it failed.
    pub errno: Option<i32>,
    /// How long it took, in microseconds, measured in the worker.
    pub micros: u64,
}

/// What tells one mounted root from another on the same superblock; none of it needs the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// File handle of the root from name_to_handle_at(2), with its type in front; empty where the type has none.
    pub handle: Vec<u8>,
    /// Inode number of the root as cached.
    pub ino: u64,
    /// The unique mount id (Linux 6.8), which is never reused.
    pub unique_mount_id: Option<u64>,
}

/// Attributes of the root as the server just gave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootAttributes {
    /// Inode number (NFS: fileid).
    pub ino: u64,
    /// Link count; 0 for a directory that was deleted.
    pub nlink: u32,
    /// Type and permission bits.
    pub mode: u16,
}

/// The totals of a filesystem, from statfs(2), in bytes and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Size in bytes.
    pub size: u64,
    /// Free bytes.
    pub free: u64,
    /// Free bytes for others than root.
    pub avail: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// An entry of the root that the target's owner is unlikely to replace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentinel {
    /// Its name: bytes, not text.
    pub name: Vec<u8>,
    /// What tells it from another file of that name ([`steps::forced_mark`]).
    pub mark: Vec<u8>,
}

/// What became of a sentinel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SentinelFate {
    /// The same file is there.
    Intact,
    /// Another file has its name.
    Changed,
    /// Nothing has its name, or the server says that its handle is stale.
    Gone,
    /// It could not be looked at for lack of permission: it says nothing.
    NoAccess,
    /// Another error.
    Failed,
}

/// One sentinel looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentinelCheck {
    /// What became of it.
    pub fate: SentinelFate,
    /// The errno behind `Gone` and `Failed`.
    pub errno: Option<i32>,
    /// How long it took, in microseconds.
    pub micros: u64,
}

/// What a worker found; the raw material of a verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The steps in the order in which they were made.
    pub steps: Vec<StepResult>,
    /// The path does not lead to the mount that the table says: no verdict, read the table again.
    pub mismatch: bool,
    /// Identity of the root.
    pub identity: Option<Identity>,
    /// Attributes of the root.
    pub root: Option<RootAttributes>,
    /// The sentinels that were looked at.
    pub sentinels: Vec<SentinelCheck>,
    /// No sentinel was intact, and our own directory, which was there before, is gone too or another one.
    #[serde(default)]
    pub own_gone: bool,
    /// Newly chosen sentinels, if learning was asked for and possible.
    pub learned: Option<Vec<Sentinel>>,
    /// Totals, if they were asked for or needed.
    pub space: Option<Space>,
}

impl ProbeReport {
    /// The result of a step, if it was made.
    #[must_use]
    pub fn step(&self, step: Step) -> Option<&StepResult> {
        self.steps.iter().find(|result| result.step == step)
    }

    /// Entries were looked at, and none of them is there any more as it was known.
    #[must_use]
    pub fn sentinels_gone(&self) -> bool {
        let gone = |check: &SentinelCheck| matches!(check.fate, SentinelFate::Gone | SentinelFate::Changed);
        !self.sentinels.is_empty() && self.sentinels.iter().all(gone)
    }
}
