//! Findings: what is worth knowing about a mount and is no state. Shown beside the verdict, never a reason to act.
//!
//! [`of_mounts`] reads them from the mount table alone: options that cost data or hours in the next outage, and mounts
//! that get in each other's way. A client with the defaults of its distribution has none; a finding that is meant so is
//! silenced by name (`findings.silence`). Pure.

mod docs;
mod rules;
mod words;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::mounts::{Mount, View};

pub use docs::markdown;
pub use rules::address_drift;

macro_rules! findings {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// Something worth knowing that is no state: shown beside the verdict, never a reason to act. The words are label
        /// values of `mountwarden_mount_finding`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Finding { $($(#[$doc])* $variant,)* }

        impl Finding {
            /// All findings.
            pub const ALL: &'static [Finding] = &[$(Finding::$variant,)*];

            /// The word of the contract.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Finding::$variant => $word,)* }
            }
        }
    };
}

findings! {
    /// The server reconnected and every known entry is gone, but nothing proves another filesystem.
    MaybeReplaced = "maybe_replaced",
    /// Another mount lies on top: the path leads elsewhere.
    Hidden = "hidden",
    /// A container writes to the node's disk where a network volume should be.
    OnNodeDisk = "on_node_disk",
    /// The host mounted it anew or unmounted it; a container kept the old mount, which works.
    OldCopy = "old_copy",
    /// EFS that gives up: `soft` or `softerr`.
    EfsSoft = "efs_soft",
    /// EFS without `noresvport`.
    EfsReservedPort = "efs_reserved_port",
    /// A mount that may be written to, and gives up.
    SoftWritable = "soft_writable",
    /// `timeo` far below the default of its transport.
    ShortTimeout = "short_timeout",
    /// `retrans` below the default, where it decides how soon a request fails.
    FewRetries = "few_retries",
    /// NFSv4.0, which has no sessions.
    NfsV40 = "nfs_v40",
    /// Locks are kept on this client, and more than one user writes.
    LocalLocks = "local_locks",
    /// `nosharecache`: several caches of one export on this node.
    SeparateCaches = "separate_caches",
    /// One export is mounted with different options.
    MixedOptions = "mixed_options",
    /// `rsize` or `wsize` is small.
    SmallTransfers = "small_transfers",
    /// A read-write mount of a superblock that is read-only.
    ReadonlySuperblock = "readonly_superblock",
    /// The server's name no longer leads to the address that the mount talks to.
    AddressDrift = "address_drift",
    /// What has the name of our canary's directory or file is not ours.
    CanaryRefused = "canary_refused",
    /// What the first identity writes the second one cannot read.
    UnreadableByB = "unreadable_by_b",
    /// Entries of the root that the configured ids cannot pass.
    UnreadableEntries = "unreadable_entries",
    /// Another node promised more records and writes none.
    PeerSilent = "peer_silent",
    /// Another node's record is seen here later than it was written.
    PeerLate = "peer_late",
    /// A pod waits for a volume for one node that a pod of another node has; or, on a mount, a container has the node's disk
    /// in place of what others have on the network.
    NotShared = "not_shared",
}

impl Finding {
    /// The finding of that name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Finding> {
        Finding::ALL.iter().copied().find(|finding| finding.as_str() == word)
    }

    /// What is the case, in a few words.
    #[must_use]
    pub fn means(self) -> &'static str {
        words::of(self).means
    }

    /// What comes of it.
    #[must_use]
    pub fn consequence(self) -> &'static str {
        words::of(self).consequence
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        words::of(self).advice
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What to do about a pod that waits for a volume that is not shared between nodes.
#[must_use]
pub fn advice_to_share() -> &'static str {
    words::WAITS.advice
}

/// Findings by mount, in the order of [`Finding::ALL`]; mounts without any are left out.
///
/// `mounts` are the watched mounts of one reading of the table.
#[must_use]
pub fn of_mounts<'table>(mounts: impl IntoIterator<Item = &'table Mount>) -> HashMap<(View, u64), Vec<Finding>> {
    rules::all(mounts.into_iter().collect())
}

#[cfg(test)]
mod tests;
