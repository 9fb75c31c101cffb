//! Evidence and time in, verdict out. Nothing here does I/O, so that every decision can be replayed.

pub mod advice;
pub mod evidence;
pub mod findings;
pub mod judge;
pub mod passive;

use serde::{Deserialize, Serialize};

pub use evidence::{CanaryOutcome, CanaryView, Evidence, Examined, Facts, NotRun, Observation, OnHost, ServerView};
pub use findings::Finding;
pub use judge::{Judgement, Memory, Tuning, Verdict, judge, replay};
pub use passive::{KernelWords, Passive, Waiting};

/// What is the matter with a target: exactly one at a time. The words are label values of `mountwarden_mount_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Every enabled step answered in time.
    Healthy,
    /// Answers, but over the slow threshold in most recent probes.
    Slow,
    /// Does not answer: a step passed its deadline, or a soft mount gave up.
    Hung,
    /// The server answers but this mount's root is no longer valid or no longer exported.
    Stale,
    /// What a user expects under that path is no longer there.
    Lost,
    /// Wants to write, cannot: the filesystem is read-only.
    Readonly,
    /// Permission, shown by a canary.
    Denied,
    /// No blocks, inodes or quota.
    Full,
    /// The canary read back differs.
    Corrupt,
    /// Any other errno.
    Error,
    /// Not yet probed, or could not be probed.
    Unknown,
}

impl State {
    /// All states, in the order in which tables and metrics list them.
    pub const ALL: [State; 11] = [
        State::Healthy,
        State::Slow,
        State::Hung,
        State::Stale,
        State::Lost,
        State::Readonly,
        State::Denied,
        State::Full,
        State::Corrupt,
        State::Error,
        State::Unknown,
    ];

    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Healthy => "healthy",
            State::Slow => "slow",
            State::Hung => "hung",
            State::Stale => "stale",
            State::Lost => "lost",
            State::Readonly => "readonly",
            State::Denied => "denied",
            State::Full => "full",
            State::Corrupt => "corrupt",
            State::Error => "error",
            State::Unknown => "unknown",
        }
    }

    /// How bad it is for whoever uses the mount.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            State::Healthy => Severity::Healthy,
            State::Slow | State::Readonly | State::Denied | State::Full => Severity::Degraded,
            State::Hung | State::Stale | State::Lost | State::Corrupt | State::Error => Severity::Dead,
            State::Unknown => Severity::Unknown,
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The four classes that exit codes and `mount_up` are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing to do.
    Healthy,
    /// Works in part: slow, readonly, denied, full.
    Degraded,
    /// Does not work: hung, stale, lost, corrupt, error.
    Dead,
    /// Could not tell.
    Unknown,
}

impl Severity {
    /// Place in the order in which people want to read: dead, degraded, unknown, healthy.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Severity::Dead => 0,
            Severity::Degraded => 1,
            Severity::Unknown => 2,
            Severity::Healthy => 3,
        }
    }
}

macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// Why a target is not healthy: a bounded set. The words are label values of `mountwarden_mount_cause`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Cause { $($(#[$doc])* $variant,)* }

        impl Cause {
            /// All causes.
            pub const ALL: &'static [Cause] = &[$(Cause::$variant,)*];

            /// The word of the contract.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Cause::$variant => $word,)* }
            }
        }
    };
}

causes! {
    /// No TCP connection to the server: silence or no route.
    ServerUnreachable = "server_unreachable",
    /// The server's machine answers that nothing listens.
    ServerRefused = "server_refused",
    /// TCP answers, NFS calls do not.
    ServerUnresponsive = "server_unresponsive",
    /// NFS grace period after a restart.
    ServerRecovering = "server_recovering",
    /// The server's name does not resolve.
    DnsFailed = "dns_failed",
    /// The name now points elsewhere; the mount still talks to the old address.
    AddressChanged = "address_changed",
    /// The server no longer exports it to this client.
    ExportGone = "export_gone",
    /// The root's file handle is no longer valid on the server.
    HandleInvalid = "handle_invalid",
    /// Another filesystem behind the same handle.
    FilesystemReplaced = "filesystem_replaced",
    /// This mount hangs while the server answers for the very same handle.
    ClientStuck = "client_stuck",
    /// The local TLS proxy of an EFS mount is gone.
    ProxyDead = "proxy_dead",
    /// The FUSE daemon is gone.
    DaemonDead = "daemon_dead",
    /// The FUSE daemon runs but does not answer.
    DaemonStuck = "daemon_stuck",
    /// The host unmounted what the container still expects.
    UnmountedOnHost = "unmounted_on_host",
    /// The host mounted anew; the container still has the old mount.
    RemountedOnHost = "remounted_on_host",
    /// The container's table lacks a mount that its specification has.
    MountMissing = "mount_missing",
    /// Mode and owner refuse the identity.
    Permission = "permission",
    /// The server maps root to nobody.
    RootSquashed = "root_squashed",
    /// Over quota.
    Quota = "quota",
    /// No free blocks.
    OutOfSpace = "out_of_space",
    /// No free inodes.
    OutOfInodes = "out_of_inodes",
    /// The client mounted it read-only.
    MountedReadonly = "mounted_readonly",
    /// The server exports it read-only.
    ExportReadonly = "export_readonly",
    /// Input/output error while the server is fine.
    IoError = "io_error",
    /// The block device is gone.
    DeviceLost = "device_lost",
    /// The canary read back differs.
    DataMismatch = "data_mismatch",
    /// The agent itself was too late to tell (throttled, suspended, starved).
    AgentOverloaded = "agent_overloaded",
    /// No worker was free: too many are blocked.
    WorkerCap = "worker_cap",
    /// Nothing proves a cause.
    Unknown = "unknown",
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
