//! How rules that forbid an action are written down: a name, what it says, and what a person can do, in one table each.

/// How long a refusal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// It goes away by itself: the pod waits.
    Wait,
    /// Somebody must change something: the pod, its budget, the configuration.
    Permanent,
}

impl Holds {
    /// The word of the documentation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Holds::Wait => "wait",
            Holds::Permanent => "permanent",
        }
    }
}

/// What a guard says, with what is particular about the case.
pub(crate) fn with_detail(says: &str, detail: &str) -> String {
    if detail.is_empty() { says.to_owned() } else { format!("{says} ({detail})") }
}

/// `Variant Holds "name" "what it says", "what to do";` -> the enum `Guard`, in the order in which the rules are asked.
macro_rules! guards {
    ($(#[$doc:meta])* $($variant:ident $holds:ident $word:literal $says:literal, $advice:literal;)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Guard {
            $(#[doc = $says] $variant,)*
        }

        impl Guard {
            /// All guards, in the order in which they are asked.
            pub const ALL: &'static [Guard] = &[$(Guard::$variant,)*];

            /// Its name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Guard::$variant => $word,)* }
            }

            /// Whether waiting helps.
            #[must_use]
            pub fn holds(self) -> $crate::remedy::guards::Holds {
                match self { $(Guard::$variant => $crate::remedy::guards::Holds::$holds,)* }
            }

            /// What it says to a person, without the particulars of the case.
            #[must_use]
            pub fn says(self) -> &'static str {
                match self { $(Guard::$variant => $says,)* }
            }

            /// What that person can do.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self { $(Guard::$variant => $advice,)* }
            }
        }

        impl std::fmt::Display for Guard {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

pub(crate) use guards;
