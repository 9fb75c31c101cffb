//! How the agent is meant to run: defaults, YAML file, `MOUNTWARDEN_*` environment, flags; later ones win.
//!
//! [`schema::KEYS`] is the one description of all settings: the file's keys, the flags with their environment twins,
//! the reference page and the example file are made from it.

pub mod docs;
mod error;
pub mod field;
mod file;
mod node;
mod overrides;
mod remedy;
pub mod schema;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::canary::Ids;
use crate::verdict::Finding;

pub use error::{ConfigError, ConfigErrors, Origin, Problem};
pub use overrides::Overrides;
pub use remedy::{OnReplaced, Remedy, RemedyMode, Unstick};

/// The configuration in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Time between two probes of a healthy target.
    pub interval: Duration,
    /// Deadline of one probe.
    pub timeout: Duration,
    /// A probe that takes longer is slow.
    pub slow: Duration,
    /// Longest time between two probes of a dead target.
    pub backoff_max: Duration,
    /// Entries remembered per target to notice that the filesystem behind it was replaced; 0 turns that off.
    pub sentinels: usize,
    /// Workers kept ready.
    pub workers_warm: usize,
    /// Workers that may be busy or stuck at a time.
    pub workers_max: usize,
    /// The same per owner (pod, else source).
    pub workers_per_owner: usize,
    /// Young probes (below `slow`) in flight per server.
    pub probes_per_server: usize,
    /// Address of `/metrics`, `/healthz`, `/readyz`.
    pub listen: String,
    /// Address of `/` and `/api/v1/mounts`, which name pods and exports; empty turns it off.
    pub listen_ui: String,
    /// Where proc is mounted.
    pub proc_root: PathBuf,
    /// Name of the node; empty: the host name.
    pub node_name: String,
    /// Filesystem types to watch beyond, or instead of, the known network types (glob).
    pub include_fstype: Vec<String>,
    /// Filesystem types to leave out (glob).
    pub exclude_fstype: Vec<String>,
    /// Mountpoints to watch (glob); empty: all.
    pub include_mount: Vec<String>,
    /// Mountpoints to leave out (glob).
    pub exclude_mount: Vec<String>,
    /// Mountpoints of local filesystems to watch too (glob).
    pub local_mounts: Vec<String>,
    /// Whether to look at what containers and services have mounted.
    pub containers: OnOff,
    /// Mountpoints whose mounts have a canary (glob); empty: none.
    pub canary_mounts: Vec<String>,
    /// Time between two canaries of a mount.
    pub canary_interval: Duration,
    /// Write a canary also where there is nothing else.
    pub canary_empty_root: bool,
    /// Whom a canary writes as; absent: the agent.
    pub canary_identity: Option<Ids>,
    /// Who has to be able to read what a canary wrote.
    pub canary_reader: Option<Ids>,
    /// Findings that are not shown.
    pub silence_findings: Vec<Finding>,
    /// Rescue of pods.
    pub remedy: Remedy,
    /// Release of pods that stay in Terminating.
    pub unstick: Unstick,
    /// Where the agent keeps what survives its restart; empty: nowhere.
    pub state_file: String,
    /// `text` or `json`.
    pub log_format: LogFormat,
    /// A tracing filter (`info`, `mountwarden=debug`).
    pub log_level: String,
    /// Whether to talk to the cluster.
    pub kubernetes: OnOff,
    /// A file that leads to the cluster; empty: the pod's own service account.
    pub kubeconfig: String,
    /// Whether to write Events.
    pub kubernetes_events: OnOff,
    /// Whether to write the Node's condition.
    pub kubernetes_condition: OnOff,
    /// Detectors that are switched off, for the tests that prove that each is needed.
    pub without: Vec<String>,
}

/// Format of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOff {
    /// As the agent finds it.
    Auto,
    /// On.
    On,
    /// Off.
    Off,
}

impl OnOff {
    const ALL: [OnOff; 3] = [OnOff::Auto, OnOff::On, OnOff::Off];

    /// The word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OnOff::Auto => "auto",
            OnOff::On => "on",
            OnOff::Off => "off",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            interval: Duration::from_secs(15),
            timeout: Duration::from_secs(5),
            slow: Duration::from_secs(1),
            backoff_max: Duration::from_secs(120),
            sentinels: 4,
            workers_warm: 8,
            workers_max: 128,
            workers_per_owner: 32,
            probes_per_server: 16,
            listen: ":12049".to_owned(),
            listen_ui: "127.0.0.1:12050".to_owned(),
            proc_root: PathBuf::from("/proc"),
            node_name: String::new(),
            include_fstype: Vec::new(),
            exclude_fstype: Vec::new(),
            include_mount: Vec::new(),
            exclude_mount: Vec::new(),
            local_mounts: Vec::new(),
            containers: OnOff::On,
            canary_mounts: Vec::new(),
            canary_interval: Duration::from_secs(60),
            canary_empty_root: false,
            canary_identity: None,
            canary_reader: None,
            silence_findings: Vec::new(),
            remedy: Remedy::default(),
            unstick: Unstick::default(),
            state_file: String::new(),
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            kubernetes: OnOff::Auto,
            kubeconfig: String::new(),
            kubernetes_events: OnOff::On,
            kubernetes_condition: OnOff::On,
            without: Vec::new(),
        }
    }
}

impl Config {
    /// Whether a detector is on: all are, but those that a test switched off.
    #[must_use]
    pub fn has_detector(&self, name: &str) -> bool {
        !self.without.iter().any(|off| off == name)
    }

    /// The defaults, overlaid by the YAML file (if one is named), overlaid by environment and flags.
    ///
    /// # Errors
    /// Everything that is wrong, at once: each problem names the file with line and column, the variable or the flag it
    /// comes from. Only a YAML syntax error stands alone, because nothing after it can be read.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Config, ConfigErrors> {
        let mut draft = Draft::default();
        if let Some(path) = file {
            file::apply(path, &mut draft);
        }
        overrides.apply(&mut draft);
        validate::check(&mut draft);
        if draft.errors.is_empty() { Ok(draft.config) } else { Err(ConfigErrors::new(draft.errors)) }
    }
}

/// A configuration that is being put together, with where each value came from and what was wrong so far.
#[derive(Default)]
struct Draft {
    config: Config,
    /// Origin of every setting that is not a default.
    origins: BTreeMap<&'static str, Origin>,
    /// Settings whose value could not be used: rules about them would only repeat the complaint.
    broken: BTreeSet<&'static str>,
    errors: Vec<ConfigError>,
}

impl Draft {
    /// Records where the value of `key` came from, or what is wrong with it.
    fn record(&mut self, key: &'static str, origin: Origin, result: Result<(), Problem>) {
        match result {
            Ok(()) => {
                self.origins.insert(key, origin);
            }
            Err(problem) => {
                self.broken.insert(key);
                self.errors.push(ConfigError { origin, problem });
            }
        }
    }
}

#[cfg(test)]
mod tests;
