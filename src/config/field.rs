//! Kinds of settings: how each is read from text, what its limits are, and where in [`Config`] it lives.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Config, LogFormat, OnOff};
use crate::canary::Ids;
use crate::verdict::Finding;

/// The kind of a setting, with its place in [`Config`].
#[derive(Clone, Copy)]
pub enum Field {
    /// A length of time, at least `min`.
    Duration {
        /// Shortest allowed.
        min: Duration,
        /// Its place.
        at: fn(&mut Config) -> &mut Duration,
    },
    /// A whole number.
    Count {
        /// Smallest allowed.
        min: usize,
        /// Largest allowed.
        max: usize,
        /// Its place.
        at: fn(&mut Config) -> &mut usize,
    },
    /// An address to listen on.
    Address {
        /// Whether the listener can be turned off by an empty text.
        optional: bool,
        /// Its place.
        at: fn(&mut Config) -> &mut String,
    },
    /// Yes or no.
    Switch(fn(&mut Config) -> &mut bool),
    /// When pods are rescued.
    RemedyMode(fn(&mut Config) -> &mut crate::config::RemedyMode),
    /// Whether pods are rescued onto other data.
    OnReplaced(fn(&mut Config) -> &mut crate::config::OnReplaced),
    /// User, group, groups and umask, or nobody in particular.
    Ids(fn(&mut Config) -> &mut Option<Ids>),
    /// Any text.
    Text(fn(&mut Config) -> &mut String),
    /// A tracing filter.
    LogFilter(fn(&mut Config) -> &mut String),
    /// The format of log lines.
    Format(fn(&mut Config) -> &mut LogFormat),
    /// On or off, or (where `auto` says so) as the agent finds it.
    OnOff {
        /// Whether `auto` can be said.
        auto: bool,
        /// Its place.
        at: fn(&mut Config) -> &mut OnOff,
    },
    /// An absolute path.
    Path(fn(&mut Config) -> &mut PathBuf),
    /// Glob patterns.
    Globs(fn(&mut Config) -> &mut Vec<String>),
    /// Words of findings.
    Findings(fn(&mut Config) -> &mut Vec<Finding>),
    /// Names.
    Names(fn(&mut Config) -> &mut Vec<String>),
}

/// A value to set, still as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// One word or number.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl Field {
    /// What belongs here, for the complaint about something else.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Field::Duration { .. } => "a duration such as 15s or 2m",
            Field::Count { .. } => "a whole number",
            Field::Address { .. } => "an address such as \":12049\" (in quotes)",
            Field::Switch(_) => "true or false",
            Field::RemedyMode(_) => "observe, dry-run or enforce",
            Field::OnReplaced(_) => "same_names, always or never",
            Field::Ids(_) => "an identity such as \"uid=1000 gid=1000\"",
            Field::Text(_) => "text (put it in quotes)",
            Field::LogFilter(_) => "a level such as info (in quotes if it is no plain word)",
            Field::Format(_) => "text or json",
            Field::OnOff { auto: true, .. } => "auto, on or off",
            Field::OnOff { .. } => "on or off",
            Field::Path(_) => "a path",
            Field::Globs(_) => "a list of patterns such as [\"nfs*\"]",
            Field::Findings(_) => "a list of findings such as [soft_writable]",
            Field::Names(_) => "a list of names",
        }
    }

    /// Whether a list belongs here.
    pub(crate) fn is_list(self) -> bool {
        matches!(self, Field::Globs(_) | Field::Findings(_) | Field::Names(_))
    }

    /// Reads `raw` and stores it.
    ///
    /// # Errors
    /// Why the text cannot be used, and what would be right.
    pub(super) fn set(self, config: &mut Config, raw: &Raw) -> Result<(), String> {
        match raw {
            Raw::One(text) if !self.is_list() => self.set_one(config, text),
            Raw::One(text) => self.set_many(config, &split_list(text)),
            Raw::Many(items) if self.is_list() => self.set_many(config, items),
            Raw::Many(_) => Err(format!("must be {}, not a list", self.expected())),
        }
    }

    /// Says whether `text` can be a value (for a list: its items, separated by commas).
    ///
    /// # Errors
    /// Why not, and what would be right.
    pub fn check(self, text: &str) -> Result<(), String> {
        self.set(&mut Config::default(), &Raw::One(text.to_owned()))
    }

    fn set_one(self, config: &mut Config, text: &str) -> Result<(), String> {
        match self {
            Field::Duration { min, at } => *at(config) = duration(text, min)?,
            Field::Count { min, max, at } => *at(config) = count(text, min, max)?,
            Field::Address { optional, at } => *at(config) = address(text, optional)?,
            Field::Switch(at) => *at(config) = switch(text)?,
            Field::RemedyMode(at) => *at(config) = text.parse()?,
            Field::OnReplaced(at) => *at(config) = text.parse()?,
            Field::Ids(at) => *at(config) = if text.is_empty() { None } else { Some(text.parse()?) },
            Field::Text(at) => text.clone_into(at(config)),
            Field::LogFilter(at) => {
                crate::logging::check_filter(text).map_err(|error| error.to_string())?;
                text.clone_into(at(config));
            }
            Field::Format(at) => *at(config) = text.parse()?,
            Field::OnOff { auto, at } => {
                let known = OnOff::ALL.iter().find(|word| word.as_str() == text && (auto || **word != OnOff::Auto));
                *at(config) = *known.ok_or_else(|| format!("{text:?} must be {}", self.expected()))?;
            }
            Field::Path(at) if text.starts_with('/') => *at(config) = PathBuf::from(text),
            Field::Path(_) => return Err(format!("{text:?} is not an absolute path")),
            Field::Globs(_) | Field::Findings(_) | Field::Names(_) => self.set_many(config, &[text.to_owned()])?,
        }
        Ok(())
    }

    fn set_many(self, config: &mut Config, items: &[String]) -> Result<(), String> {
        match self {
            Field::Globs(at) => {
                items.iter().try_for_each(|item| glob(item))?;
                items.clone_into(at(config));
            }
            Field::Findings(at) => *at(config) = items.iter().map(|item| finding(item)).collect::<Result<_, _>>()?,
            Field::Names(at) => items.clone_into(at(config)),
            _ => return Err(format!("must be {}, not a list", self.expected())),
        }
        Ok(())
    }

    /// The value in `config` as YAML, the way a person would write it in the file.
    pub(crate) fn yaml(self, config: &Config) -> String {
        let mut config = config.clone();
        match self {
            Field::Duration { at, .. } => humantime::format_duration(*at(&mut config)).to_string().replace(' ', ""),
            Field::Count { at, .. } => at(&mut config).to_string(),
            Field::Address { at, .. } => quoted(at(&mut config)),
            Field::Switch(at) => at(&mut config).to_string(),
            Field::RemedyMode(at) => at(&mut config).to_string(),
            Field::OnReplaced(at) => at(&mut config).to_string(),
            Field::Ids(at) => quoted(&at(&mut config).as_ref().map(Ids::to_string).unwrap_or_default()),
            Field::Text(at) | Field::LogFilter(at) => scalar(at(&mut config)),
            Field::Format(at) => at(&mut config).to_string(),
            Field::OnOff { at, .. } => at(&mut config).as_str().to_owned(),
            Field::Path(at) => scalar(&at(&mut config).to_string_lossy()),
            Field::Findings(at) => {
                let words: Vec<&str> = at(&mut config).iter().map(|finding| finding.as_str()).collect();
                format!("[{}]", words.join(", "))
            }
            Field::Globs(at) | Field::Names(at) => {
                format!("[{}]", at(&mut config).iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A YAML scalar: plain where that cannot be misread, else in double quotes.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && !matches!(text.to_ascii_lowercase().as_str(), "null" | "true" | "false" | "yes" | "no" | "on" | "off");
    if plain { text.to_owned() } else { quoted(text) }
}

/// A JSON string is a YAML double-quoted scalar.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn finding(word: &str) -> Result<Finding, String> {
    Finding::from_word(word).ok_or_else(|| {
        let likeness = |finding: &Finding| strsim::jaro_winkler(finding.as_str(), word);
        let near = Finding::ALL.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        match near.filter(|near| likeness(near) >= super::schema::LIKE) {
            Some(near) => format!("there is no finding {word:?}, did you mean \"{near}\"?"),
            None => {
                let all: Vec<&str> = Finding::ALL.iter().map(|finding| finding.as_str()).collect();
                format!("there is no finding {word:?}; there are {}", all.join(", "))
            }
        }
    })
}

fn duration(text: &str, min: Duration) -> Result<Duration, String> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("{text:?} has no unit, did you mean {text}s?"));
    }
    let value = humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is no duration ({error}); write for example 15s, 500ms or 2m"))?;
    if value < min {
        return Err(format!("{text} is too short, the least is {}", humantime::format_duration(min)));
    }
    Ok(value)
}

fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
}

fn count(text: &str, min: usize, max: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(format!("{text:?} is no whole number from {min} to {max}")),
    }
}

/// `:12049` (all addresses of the machine, IPv6 and IPv4), `1.2.3.4:80`, `[::]:80`.
fn address(text: &str, optional: bool) -> Result<String, String> {
    let off = text.is_empty() || text == "off";
    if off && optional {
        return Ok(String::new());
    }
    let port_only = text.strip_prefix(':').is_some_and(|port| u16::from_str(port).is_ok());
    if port_only || std::net::SocketAddr::from_str(text).is_ok() {
        return Ok(text.to_owned());
    }
    let off = if optional { ", or \"\" to turn it off" } else { "" };
    Err(format!("{text:?} is no address to listen on; write :12049, 192.0.2.7:12049 or [::]:12049{off}"))
}

fn glob(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("an empty pattern matches nothing: leave it out".to_owned());
    }
    globset::Glob::new(text).map(|_| ()).map_err(|error| format!("{text:?} is no glob pattern: {}", error.kind()))
}

/// Splits at commas, but not inside the braces or brackets of a glob (`/mnt/{a,b}` is one pattern).
pub(super) fn split_list(text: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let mut items = vec![String::new()];
    for c in text.chars() {
        match c {
            '{' | '[' => depth = depth.saturating_add(1),
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c == ',' && depth == 0 {
            items.push(String::new());
        } else if let Some(item) = items.last_mut() {
            item.push(c);
        }
    }
    items.iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(format!("{other:?} is no log format; write text or json")),
        }
    }
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}
