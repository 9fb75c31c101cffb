//! What a diagnosis says. Serialised it is the document of `diagnose --json` (described in `docs/diagnose.md`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::snapshot::{MountStatus, UnixSeconds};
use crate::verdict::{Cause, Severity, State};

/// Version of the JSON document; raised only when a field changes its meaning or goes away.
pub const SCHEMA: &str = "mountwarden.io/diagnosis/v1";

/// A diagnosis from its first step to what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of mountwarden.
    pub version: String,
    /// When it began.
    pub generated: UnixSeconds,
    /// What was asked about, as it was written.
    pub target: String,
    /// Server as mounted or asked.
    pub server: Option<String>,
    /// Path on the server.
    pub export: Option<String>,
    /// The steps in their order.
    pub steps: Vec<StepReport>,
    /// How it stands: the exit code in a word.
    pub result: Severity,
    /// Of a mounted path: its state.
    pub state: Option<State>,
    /// Why, as far as it is proven.
    pub cause: Option<Cause>,
    /// What is likely and not proven.
    pub candidates: Vec<Cause>,
    /// What is the matter, in words.
    pub summary: String,
    /// What to do, one thing after the other.
    pub todo: Vec<String>,
    /// Of a mounted path: its row of /api/v1/mounts.
    pub mount: Option<MountStatus>,
    /// Deadline of each step, in seconds.
    pub timeout_seconds: f64,
    /// How long all of it took, in seconds.
    pub seconds: f64,
}

/// What a step looks at, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// What is mounted at the path, and with which options.
    MountTable,
    /// What is unwise about the options.
    Findings,
    /// The probe of the mount in a worker.
    Probe,
    /// A canary, written once.
    Write,
    /// The server's name.
    Name,
    /// The local proxy of an EFS mount.
    Proxy,
    /// TCP to the port of NFS.
    Connection,
    /// TCP to the other addresses of the name.
    OtherAddresses,
    /// TCP to another port of the same machine.
    OtherPort,
    /// NULL calls.
    Versions,
    /// The root's own handle.
    RootHandle,
    /// The way to the export.
    ExportPath,
    /// The grace period.
    Grace,
    /// Port 111.
    Portmapper,
    /// mountd's NULL.
    Mountd,
    /// The list of exports.
    Exports,
    /// MNT.
    MountRight,
    /// A mount that nobody sees.
    TrialMount,
    /// Processes that wait.
    Blocked,
    /// Where else the same filesystem is mounted.
    Holders,
}

impl StepName {
    /// In words, for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            StepName::MountTable => "mount table",
            StepName::Findings => "options",
            StepName::Probe => "probe",
            StepName::Write => "write",
            StepName::Name => "name",
            StepName::Proxy => "local proxy",
            StepName::Connection => "connection",
            StepName::OtherAddresses => "other addresses",
            StepName::OtherPort => "other port",
            StepName::Versions => "NFS service",
            StepName::RootHandle => "mounted root",
            StepName::ExportPath => "exported path",
            StepName::Grace => "after a restart",
            StepName::Portmapper => "portmapper",
            StepName::Mountd => "mount service",
            StepName::Exports => "export list",
            StepName::MountRight => "right to mount",
            StepName::TrialMount => "trial mount",
            StepName::Blocked => "blocked",
            StepName::Holders => "used by",
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Not as it should be.
    Failed,
    /// Neither good nor bad.
    Note,
    /// Not made, and why.
    Skipped,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Which.
    pub step: StepName,
    /// How it ended.
    pub outcome: Outcome,
    /// What was done.
    pub asked: String,
    /// What came back.
    pub answer: String,
    /// How long it took, in seconds; absent where nothing was asked.
    pub seconds: Option<f64>,
}

impl StepReport {
    /// A step that was made.
    #[must_use]
    pub fn made(
        step: StepName,
        outcome: Outcome,
        asked: impl Into<String>,
        answer: impl Into<String>,
        took: Duration,
    ) -> Self {
        StepReport { step, outcome, asked: asked.into(), answer: answer.into(), seconds: Some(took.as_secs_f64()) }
    }

    /// A step that was not made.
    #[must_use]
    pub fn skipped(step: StepName, asked: impl Into<String>, why: impl Into<String>) -> Self {
        StepReport { step, outcome: Outcome::Skipped, asked: asked.into(), answer: why.into(), seconds: None }
    }
}

/// What the steps come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How it stands.
    pub result: Severity,
    /// Why, as far as it is proven.
    pub cause: Option<Cause>,
    /// What is the matter, in words.
    pub summary: String,
    /// What to do.
    pub todo: Vec<String>,
}
