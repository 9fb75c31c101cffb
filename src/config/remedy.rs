//! Settings of the remedies: what may be done about pods on dead mounts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Rescue of pods by eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// Whether anything is done at all.
    pub mode: RemedyMode,
    /// Whether a pod, or its namespace, must ask for it.
    pub require_opt_in: bool,
    /// Whether a pod is evicted when its replacement will find another directory.
    pub evict_on_replaced: OnReplaced,
    /// Evictions in flight in the whole cluster.
    pub in_flight: usize,
    /// How long a replacement is left alone.
    pub cool_down: Duration,
    /// Shortest time between the two trial mounts.
    pub grace: Duration,
}

impl Default for Remedy {
    fn default() -> Self {
        Remedy {
            mode: RemedyMode::Observe,
            require_opt_in: true,
            evict_on_replaced: OnReplaced::SameNames,
            in_flight: 5,
            cool_down: Duration::from_secs(30 * 60),
            grace: Duration::from_secs(30),
        }
    }
}

/// Release of mounts that keep a pod in Terminating.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstick {
    /// Also those that hang.
    pub hung: bool,
    /// How long they must have hung.
    pub hung_after: Duration,
    /// Also those of pods that the cluster does not know any more.
    pub orphans: bool,
}

impl Default for Unstick {
    fn default() -> Self {
        Unstick { hung: false, hung_after: Duration::from_secs(15 * 60), orphans: false }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, $($(#[$inner:meta])* $variant:ident = $word:literal,)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$inner])* $variant,)* }

        impl $name {
            /// The word of the configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($name::$variant),)*
                    other => Err(format!("{other:?} is no {}; write {}", $what, [$($word),*].join(", "))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// Whether remedies act.
    RemedyMode, "mode of the remedies",
    /// Nothing is done.
    Observe = "observe",
    /// Everything is decided and said, the API server only checks.
    DryRun = "dry-run",
    /// Pods are evicted and released.
    Enforce = "enforce",
}

words! {
    /// What counts as the same data where the root of a fresh mount is another directory.
    OnReplaced, "answer to other data",
    /// At least half of the names known from before are there.
    SameNames = "same_names",
    /// Whatever is there, an empty directory too.
    Always = "always",
    /// Nothing but the same directory.
    Never = "never",
}
