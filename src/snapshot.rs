//! What the agent knows at one moment: immutable, made by the agent's loop, read by `/metrics`, the pages, `check` and
//! `status`. Serialised it is the document of `/api/v1/mounts` and of `--json` (described in `docs/api.md`).

mod change;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use change::Change;

use crate::cluster::node_mounts::GateReport;
use crate::mounts::Origin;
use crate::mounts::mountstats::Operation;
use crate::verdict::{Cause, Finding, Severity, State};

/// Version of the JSON document; raised only when a field changes its meaning or goes away.
pub const SCHEMA: &str = "mountwarden.io/mounts/v1";

/// Seconds since the epoch, with fraction. Wall clock: for people and metrics, never for deadlines.
pub type UnixSeconds = f64;

/// A time for people and API objects: RFC 3339 in UTC, in whole seconds.
#[must_use]
pub fn rfc3339(at: UnixSeconds) -> String {
    let at = std::time::Duration::try_from_secs_f64(at).unwrap_or_default();
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + at).to_string()
}

/// A pod for people: `namespace/name`, its UID where the cluster does not know it.
fn pod_label(namespace: &str, pod: &str, uid: &str) -> String {
    if pod.is_empty() { uid.to_owned() } else { format!("{namespace}/{pod}") }
}

/// Everything the agent says about its mounts and about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of mountwarden.
    pub version: String,
    /// Name of the node, from `--node-name` or the host name.
    pub node: String,
    /// When this snapshot was made.
    pub generated: UnixSeconds,
    /// The first pass over all mounts is done.
    pub ready: bool,
    /// Probe interval in seconds.
    pub interval_seconds: f64,
    /// Probe deadline in seconds.
    pub timeout_seconds: f64,
    /// Time between two canaries of a mount, in seconds.
    #[serde(default)]
    pub canary_interval_seconds: f64,
    /// Number of mounts by state word; every state is present.
    pub summary: BTreeMap<String, usize>,
    /// The targets, ordered by mountpoint.
    pub mounts: Vec<MountStatus>,
    /// Servers of NFS mounts, as they were last asked without a mount.
    #[serde(default)]
    pub servers: Vec<ServerStatus>,
    /// Volumes that pods have waited for too long, longest first (at most 200).
    #[serde(default)]
    pub pending: Vec<PendingVolume>,
    /// How many there are, the ones that are not listed too.
    #[serde(default)]
    pub pending_count: usize,
    /// Mounts of the kubelet and of CSI drivers that hang, longest first, while a pod waits (at most 16).
    #[serde(default)]
    pub kubelet_mounts: Vec<KubeletMount>,
    /// Pods on dead mounts, and what would be done about each.
    #[serde(default)]
    pub plan: Vec<PodPlan>,
    /// What changed in the last hour, the oldest first; at most 256.
    #[serde(default)]
    pub history: Vec<Change>,
    /// autofs triggers: shown, never touched.
    pub autofs: Vec<AutofsTrigger>,
    /// How the agent itself does.
    pub agent: AgentStats,
}

/// One target: what one probe answers for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountStatus {
    /// Label of the mountpoint: the path of the first member, pod UID replaced by `*`, bytes that are not UTF-8 as `\xNN`.
    pub mountpoint: String,
    /// Label of the source (a local proxy decoded).
    pub source: String,
    /// Filesystem type.
    pub fstype: String,
    /// All paths of the host that share the target, none where only containers have it (at most 64 are listed, 512 while it is not healthy; `path_count` counts all).
    pub paths: Vec<String>,
    /// How many paths share the target.
    pub path_count: usize,
    /// `st_dev` as `major:minor`.
    pub dev: String,
    /// Server, export, version, mode.
    pub origin: Origin,
    /// Its state.
    pub state: State,
    /// Why, when it is not healthy.
    pub cause: Option<Cause>,
    /// Since when it is in this state.
    pub since: UnixSeconds,
    /// What was seen, in one sentence.
    pub evidence: String,
    /// What to do, in one sentence with the command; empty when healthy.
    pub advice: String,
    /// The verdict is another target's of the same superblock, whose probe is blocked.
    pub inherited: bool,
    /// Findings beside the state.
    pub findings: Vec<Finding>,
    /// What was seen, in a sentence, by finding: of those that are about certain containers or entries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub finding_evidence: BTreeMap<Finding, String>,
    /// Pods that use it, each volume as one container sees it (at most 64 are listed, 512 while it is not healthy).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<MountUser>,
    /// Others who hold a copy of it in a mount namespace of their own: services, sessions (at most 16).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<MountHolder>,
    /// How many pods use it, the ones that are not listed too.
    #[serde(default)]
    pub pod_count: usize,
    /// What the cluster calls the volumes that lie on it (at most 64).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<MountVolume>,
    /// How long the present probe, or the last one that missed its deadline, has been blocked; 0 when it answers.
    pub blocked_seconds: f64,
    /// When the last probe ended, and when one last answered well.
    pub last_probe: Option<UnixSeconds>,
    /// When a probe last answered well.
    pub last_success: Option<UnixSeconds>,
    /// Duration of each step of the last probe that came back, in the order of the steps.
    pub steps: Vec<StepStatus>,
    /// Probes by result word since the target is known.
    pub probes: BTreeMap<String, u64>,
    /// Transitions into each state since the target is known.
    pub transitions: BTreeMap<String, u64>,
    /// Sum of the time that probes of this target were blocked past the deadline, in seconds.
    pub blocked_seconds_total: f64,
    /// Totals of its filesystem; absent where it does not say, and where it is `stale` or `lost`.
    #[serde(default)]
    pub filesystem: Option<FilesystemStatus>,
    /// What the NFS client counted, by operation; operations that were never used are left out.
    #[serde(default)]
    pub nfs: Vec<OperationStatus>,
    /// Its write canary, where one is configured.
    #[serde(default)]
    pub canary: Option<CanaryStatus>,
    /// Whether a fresh mount would heal the pods on it; only of dead mounts of pods, where remedies are not switched off.
    #[serde(default)]
    pub gate: Option<GateStatus>,
    /// The recorded decision: replaying it gives the same verdict (`verdict::judge::replay`).
    pub decision: Option<serde_json::Value>,
}

impl MountStatus {
    /// Severity of its state.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.state.severity()
    }

    /// What is the case, in words: what was seen here where that is known, else what the finding means.
    #[must_use]
    pub fn finding_words(&self, finding: Finding) -> &str {
        self.finding_evidence.get(&finding).map_or(finding.means(), String::as_str)
    }
}

/// A pod that uses a target, by a volume and, once its tables were read, as one of its containers sees it.
///
/// What the node alone knows is always there; names are there where a cluster tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct MountUser {
    /// UID in the kubelet's paths and in cgroups; for static pods the hash of their manifest.
    pub pod_uid: String,
    /// Namespace, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the pod, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The volume by its directory on the node (a PersistentVolume's name, otherwise the volume's own), or by the name in
    /// the pod's specification where known; empty for a path of the host that is no volume directory.
    pub volume: String,
    /// Claim, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Container id of the runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Name of the container, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Path in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Directory of the volume that is mounted there, where it is not the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_directory: Option<String>,
    /// The container may not write to it.
    pub read_only: bool,
    /// Why the mount is lost for this container, where that is not the mount's cause: the host may have mounted the volume
    /// of one pod anew, and unmounted that of another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// A volume on the network that is not mounted, and a pod that does not start for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PendingVolume {
    /// UID of the pod.
    pub pod_uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// The volume by the name in the pod's specification.
    pub volume: String,
    /// Its claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// The PersistentVolume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume: Option<String>,
    /// What is to be mounted.
    pub source: String,
    /// Since when the pod waits, by the kubelet's clock.
    pub since: UnixSeconds,
    /// It is shown that the mount cannot be made now; false while nobody knows, or the server offers it.
    pub blocked: bool,
    /// Why, as far as it is proven.
    pub cause: Option<Cause>,
    /// What keeps it from being mounted is no fault: `not_shared`.
    pub finding: Option<Finding>,
    /// What was seen, in words.
    pub evidence: String,
    /// What to do.
    pub advice: String,
    /// When the server was last asked.
    pub checked: Option<UnixSeconds>,
}

impl PendingVolume {
    /// The pod: `namespace/name`, its UID where the cluster does not know it.
    #[must_use]
    pub fn pod_label(&self) -> String {
        pod_label(&self.namespace, &self.pod, &self.pod_uid)
    }

    /// The pod's name, its UID where the cluster does not know it.
    #[must_use]
    pub fn pod_name(&self) -> &str {
        if self.pod.is_empty() { &self.pod_uid } else { &self.pod }
    }

    /// The word for why it is waited for: of the finding or the cause; `unknown` where neither is known.
    #[must_use]
    pub fn why(&self) -> &'static str {
        let cause = self.cause.unwrap_or(Cause::Unknown).as_str();
        self.finding.map_or(cause, Finding::as_str)
    }
}

/// A `mount` that waits in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubeletMount {
    /// Its process.
    pub pid: i32,
    /// Its name (`mount.nfs4`).
    pub name: String,
    /// Name of the process that started it (`kubelet`, a CSI driver).
    pub by: String,
    /// The kernel function that it waits in, where that may be read.
    pub function: Option<String>,
    /// How long it has been running, in seconds.
    pub seconds: f64,
}

impl MountUser {
    /// The pod: `namespace/name`, its UID where the cluster does not know it.
    #[must_use]
    pub fn pod_label(&self) -> String {
        self.pod_name().unwrap_or_else(|| self.pod_uid.clone())
    }

    /// The same in a sentence, where a UID alone says nothing.
    #[must_use]
    pub fn pod_words(&self) -> String {
        self.pod_name().unwrap_or_else(|| format!("pod {}", self.pod_uid))
    }

    fn pod_name(&self) -> Option<String> {
        let (namespace, pod) = self.namespace.as_ref().zip(self.pod.as_ref())?;
        Some(format!("{namespace}/{pod}"))
    }

    /// The pod, its container, and where in it the mount is, for people.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = self.pod_words();
        if let Some(container) = self.container.as_deref().or(self.container_id.as_deref().and_then(|id| id.get(..12)))
        {
            words.push_str(&format!(" ({container})"));
        }
        if let Some(path) = &self.path {
            words.push_str(&format!(" at {path}"));
        }
        if let Some(directory) = &self.sub_directory {
            words.push_str(&format!(" (its directory {directory})"));
        }
        if self.read_only {
            words.push_str(", read-only");
        }
        if let Some(cause) = self.cause {
            words.push_str(&format!(", {cause}"));
        }
        words
    }
}

/// Somebody who holds a copy of a mount and is no pod: a service with a mount namespace of its own, a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MountHolder {
    /// The unit, the container or the cgroup.
    pub who: String,
    /// A process in that mount namespace.
    pub pid: i32,
    /// Where the copy is, as that process sees it.
    pub path: String,
}

/// A mount's write canary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CanaryStatus {
    /// How the last one ended: `ok`, `late`, `failed`, `differs`, `timeout`, `skipped` or `refused`.
    pub result: String,
    /// The same in one sentence.
    pub detail: String,
    /// When that was.
    pub last: Option<UnixSeconds>,
    /// When one last was written and read back.
    pub last_success: Option<UnixSeconds>,
    /// Sequence number of the last record of this node.
    pub sequence: u64,
    /// Duration of each step of the last one.
    pub steps: Vec<StepStatus>,
    /// Ends by result word since the target is known.
    pub results: BTreeMap<String, u64>,
    /// Other nodes by what they are: `fresh`, `late`, `silent`, `gone`.
    pub peer_states: BTreeMap<String, usize>,
    /// The worst of the other nodes, at most 16.
    pub peers: Vec<PeerStatus>,
}

/// Another node, as its record on a mount shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name, as its record has it; the name of its file where two say the same.
    pub node: String,
    /// `fresh`, `late`, `silent` or `gone`.
    pub state: String,
    /// Age of its record when it was last looked at, in seconds of the server's clock.
    pub lag_seconds: f64,
    /// Its sequence number.
    pub sequence: u64,
}

/// A PersistentVolume that lies on a mount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MountVolume {
    /// Name of the PersistentVolume.
    pub persistent_volume: String,
    /// Name of the claim that has it.
    pub claim: String,
    /// Namespace of the claim.
    pub namespace: String,
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
}

/// The recovery gate of a dead mount of pods ([`crate::remedy::gate`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateStatus {
    /// Two trial mounts answered and agree.
    pub open: bool,
    /// What they saw, or why it is closed, in one sentence.
    pub words: String,
    /// What they saw, while it is open.
    pub report: Option<GateReport>,
}

/// A pod on a dead mount, and what would be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPlan {
    /// UID, as its directories have it.
    pub pod_uid: String,
    /// Its namespace; empty where the cluster does not know it.
    pub namespace: String,
    /// Its name; empty where the cluster does not know it.
    pub pod: String,
    /// The paths of its dead mounts; where its containers alone have them, as these see them.
    pub mounts: Vec<String>,
    /// The worst state of them.
    pub state: State,
    /// Whether a rescue by eviction is asked for; the coordinator decides about it.
    pub evict: Intent,
    /// Whether its mounts are released, so that the kubelet can end it.
    pub unstick: Intent,
}

impl PodPlan {
    /// The pod: `namespace/name`, its UID where the cluster does not know it.
    #[must_use]
    pub fn pod_label(&self) -> String {
        pod_label(&self.namespace, &self.pod, &self.pod_uid)
    }
}

/// What would be done, or which guard says no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Nothing on this node speaks against it.
    pub go: bool,
    /// The guard that says no (docs/remedy.md).
    pub guard: Option<String>,
    /// What would be done, or what the guard says.
    pub words: String,
    /// What a person can do; empty where nothing speaks against it.
    pub advice: String,
}

impl Intent {
    /// A guard says no.
    pub(crate) fn refused(guard: &str, words: String, advice: &str) -> Intent {
        Intent { go: false, guard: Some(guard.to_owned()), words, advice: advice.to_owned() }
    }
}

/// Totals of a filesystem from statfs(2), as last answered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FilesystemStatus {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Free bytes.
    pub free_bytes: u64,
    /// Free bytes for others than root.
    pub avail_bytes: u64,
    /// Inodes; 0 where the filesystem does not count them.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// When it answered.
    pub read: UnixSeconds,
}

/// What the NFS client counted for one operation since the superblock was mounted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OperationStatus {
    /// The operation; `other` for those without a name of their own, `all` where they are not told apart.
    pub operation: Operation,
    /// Calls that came to their end.
    pub operations: u64,
    /// Transmissions beyond the first of each call.
    pub retransmissions: u64,
    /// Major timeouts.
    pub timeouts: u64,
    /// Calls that ended with an error; absent before Linux 5.3.
    pub errors: Option<u64>,
    /// Seconds between sending and reply, summed up.
    pub rtt_seconds: f64,
    /// Seconds from start to end, summed up.
    pub execute_seconds: f64,
}

/// One step of the last probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepStatus {
    /// The step's word (`statx_root`, `sentinel`, `statfs`).
    pub step: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Name of the errno, if it failed (`ESTALE`).
    pub error: Option<String>,
}

/// A server as it was last asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Server as mounted.
    pub server: String,
    /// Port of NFS.
    pub port: u16,
    /// When it was asked.
    pub checked: UnixSeconds,
    /// What it was asked.
    pub checks: Vec<ServerCheck>,
}

/// One question to a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerCheck {
    /// `dns`, `tcp`, `nfs` or `mountd`.
    pub check: String,
    /// It was answered, and well.
    pub up: bool,
    /// From the question to the answer, or to giving up, in seconds.
    pub seconds: f64,
}

/// An autofs mount point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutofsTrigger {
    /// Where it is.
    pub mountpoint: String,
    /// Its map, as the kernel names it.
    pub source: String,
}

/// The agent's own health, limits and losses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentStats {
    /// Workers waiting for work.
    pub workers_idle: u64,
    /// Workers that run a probe.
    pub workers_busy: u64,
    /// Workers that were killed and have not died yet.
    pub workers_stuck: u64,
    /// Workers killed because they missed their deadline.
    pub workers_killed_total: u64,
    /// Workers started.
    pub workers_started_total: u64,
    /// Workers that ended by themselves, or by somebody else's signal.
    pub workers_lost_total: u64,
    /// Replies that did not follow the wire format (nonsense, late, twice).
    pub worker_protocol_errors_total: u64,
    /// Workers that could not be started (no descriptors, no memory).
    pub worker_spawn_errors_total: u64,
    /// Probes not run because no worker was allowed (`worker_cap`).
    pub worker_cap_hits_total: u64,
    /// Probes thrown away because the agent itself was late.
    pub overloads_total: u64,
    /// Lines of mountinfo that could not be read as such.
    pub mountinfo_errors_total: u64,
    /// Reads of the mount table that failed as a whole.
    pub mountinfo_read_errors_total: u64,
    /// Reads of the mount table.
    pub mountinfo_reads_total: u64,
    /// Mounts in the table, of all kinds.
    pub mountinfo_mounts: u64,
    /// Mount namespaces of containers and services that are not looked into: over a limit.
    #[serde(default)]
    pub container_namespaces_left_out: u64,
    /// Mounts in tables of containers that are not told: over a limit of one table, or of one answer.
    #[serde(default)]
    pub container_mounts_left_out: u64,
    /// Tables of containers whose counters are not read: over a limit.
    #[serde(default)]
    pub container_counters_left_out: u64,
    /// Why the host's mount table (PID 1's) could not be read, when it could not: what is mounted only there is missing.
    pub host_error: Option<String>,
    /// Log lines dropped because nobody read them.
    pub log_dropped_total: u64,
    /// HTTP connections refused because too many were open.
    pub http_refused_total: u64,
    /// The configuration in force is the newest one read (0 after a bad SIGHUP).
    pub config_ok: bool,
    /// Re-reads of the configuration by result.
    pub config_reloads_total: u64,
    /// Duration of the longest delay of the agent's own loop in the last interval, in seconds.
    pub loop_delay_seconds: f64,
    /// Lines of the kernel log about NFS, by what they say.
    pub kernel_log_lines: BTreeMap<String, u64>,
    /// Times that lines of the kernel log were overwritten before they were read.
    pub kernel_log_lost_total: u64,
    /// Where passive evidence is read, and why it cannot be.
    pub evidence: Vec<EvidenceSource>,
    /// Whether canary workers sit in a cgroup outside the agent's; null until one was written.
    pub canary_isolated: Option<bool>,
    /// Canary workers of earlier agents that are still stuck in the kernel.
    pub canary_strays: u64,
    /// Files under the name of another node that are no record of it.
    pub canary_records_refused_total: u64,
    /// Records of nodes long gone that this agent removed.
    pub canary_records_collected_total: u64,
    /// Times that the state file could not be read, written, or understood.
    pub state_errors_total: u64,
    /// Remedies that are in force: enforced, and not stopped by the kill switch or the node's annotation.
    pub remedies_enabled: BTreeMap<String, bool>,
    /// Remedies by what became of them.
    pub remedies: Vec<RemedyCount>,
    /// The cluster's side; null where there is none.
    pub cluster: Option<crate::cluster::ClusterStats>,
    /// Histograms of probe durations by (server, step).
    pub durations: Vec<DurationHistogram>,
}

/// Remedies of one kind that ended alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemedyCount {
    /// `unstick`.
    pub action: String,
    /// `released`, `failed`, `simulated` (dry run), `refused`, `pod_stays`.
    pub result: String,
    /// How many.
    pub count: u64,
}

/// A source of passive evidence, once it was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceSource {
    /// `kernel_log`, `mountstats`, `transport_state`, `fuse_control` or `containers`.
    pub source: String,
    /// Why it cannot be read; null while it can.
    pub error: Option<String>,
}

/// Durations of one step against one server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DurationHistogram {
    /// Server as mounted.
    pub server: String,
    /// The step's word.
    pub step: String,
    /// Observations at most as long as the bound of the same index in [`DurationHistogram::BOUNDS`]; cumulative.
    pub buckets: Vec<u64>,
    /// All observations.
    pub count: u64,
    /// Sum of the durations in seconds.
    pub sum: f64,
}

impl DurationHistogram {
    /// Upper bounds of the buckets in seconds: a healthy GETATTR is below 1 ms, the default deadline is 5 s.
    pub const BOUNDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0];

    /// Counts one duration.
    pub fn observe(&mut self, duration: std::time::Duration) {
        let seconds = duration.as_secs_f64();
        for (bound, bucket) in Self::BOUNDS.iter().zip(&mut self.buckets) {
            *bucket += u64::from(seconds <= *bound);
        }
        self.count += 1;
        self.sum += seconds;
    }
}
