//! What can be wrong with a configuration, and where it was said.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In the configuration file as a whole.
    File(PathBuf),
    /// At a place in the configuration file; line and column count from 1.
    Place {
        /// The file.
        file: PathBuf,
        /// Line.
        line: u64,
        /// Column in characters.
        column: u64,
    },
    /// In an environment variable.
    Env(&'static str),
    /// In a flag, named without its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(file) => write!(f, "{}", file.display()),
            Origin::Place { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Origin::Env(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct ConfigError {
    /// Where it was said.
    pub origin: Origin,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file could not be read.
    #[error("cannot read the configuration file: {0}")]
    Unreadable(io::Error),
    /// The file is not text.
    #[error("not UTF-8 text from byte {offset} on")]
    NotText {
        /// The first bad byte, counted from 0.
        offset: usize,
    },
    /// The file is not YAML.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// A key that does not exist.
    #[error("unknown key {key:?}{}", did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// The key with the sections it lies in.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong shape, such as a list where a duration belongs.
    #[error("{key} must be {expected}, not {found}")]
    WrongType {
        /// The key.
        key: String,
        /// What belongs there.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A value that cannot be used.
    #[error("{key}: {reason}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// Why, and what would be right.
        reason: String,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(", did you mean {name:?}?")).unwrap_or_default()
}

/// Everything that is wrong with a configuration; prints one problem a line.
#[derive(Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) fn new(errors: Vec<ConfigError>) -> Self {
        ConfigErrors(errors)
    }

    /// The problems, in the order in which they were met.
    #[must_use]
    pub fn all(&self) -> &[ConfigError] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
