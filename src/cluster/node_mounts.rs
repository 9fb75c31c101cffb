//! `NodeMounts`: one object per node, written by its agent, read by people (`kubectl get nm`) and by the coordinator.
//!
//! Status only. Times are RFC 3339 in UTC: an API object is read by eyes as often as by programs.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nothing is configured here; the API convention wants a spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "mountwarden.io",
    version = "v1alpha1",
    kind = "NodeMounts",
    plural = "nodemounts",
    singular = "nodemounts",
    shortname = "nm",
    status = "NodeMountsStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Healthy","type":"integer","jsonPath":".status.healthy"}"#,
    printcolumn = r#"{"name":"Degraded","type":"integer","jsonPath":".status.degraded"}"#,
    printcolumn = r#"{"name":"Dead","type":"integer","jsonPath":".status.dead"}"#,
    printcolumn = r#"{"name":"Pods","type":"integer","jsonPath":".status.pods"}"#,
    printcolumn = r#"{"name":"Pending","type":"integer","jsonPath":".status.pending"}"#,
    printcolumn = r#"{"name":"Worst","type":"string","jsonPath":".status.worst"}"#,
    printcolumn = r#"{"name":"Cause","type":"string","jsonPath":".status.cause"}"#,
    printcolumn = r#"{"name":"Since","type":"date","jsonPath":".status.since"}"#,
    printcolumn = r#"{"name":"Reported","type":"date","jsonPath":".status.reported","priority":1}"#
)]
pub struct NodeMountsSpec {}

/// What the agent of this node sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeMountsStatus {
    /// Targets that are healthy.
    pub healthy: u32,
    /// Targets that work in part: slow, readonly, denied, full.
    pub degraded: u32,
    /// Targets that do not work: hung, stale, lost, corrupt, error.
    pub dead: u32,
    /// Targets of which nothing can be told.
    pub unknown: u32,
    /// Pods of this node that use a target which does not work.
    pub pods: u32,
    /// Pods of this node that do not start because a volume of theirs cannot be mounted.
    pub pending: u32,
    /// State word of the worst target; absent while all are healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst: Option<String>,
    /// Its cause; that of the volume that has been waited for longest where no target is bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When this was written.
    pub reported: String,
    /// Version of the agent that wrote it.
    pub version: String,
    /// The targets that are not healthy, worst first, at most [`MAX_MOUNTS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub mounts: Vec<DeadMount>,
    /// How many were left out of `mounts`.
    #[serde(skip_serializing_if = "is_zero")]
    pub mounts_left_out: u32,
    /// Volumes that cannot be mounted and are waited for, longest first, at most [`MAX_WAITING`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub waiting: Vec<WaitingVolume>,
    /// Pods that a fresh mount would heal, at most [`MAX_REQUESTS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub requests: Vec<RescueRequest>,
    /// How many were left out of `requests`.
    #[serde(skip_serializing_if = "is_zero")]
    pub requests_left_out: u32,
    /// Servers of this node's network mounts, with what is seen of them from here: the coordinator's view over all nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub servers: Vec<ServerSeen>,
}

/// Most targets that one object lists.
pub const MAX_MOUNTS: usize = 100;

/// Most waiting volumes that one object lists.
pub const MAX_WAITING: usize = 50;

/// Most rescue requests that one object carries.
pub const MAX_REQUESTS: usize = 200;

/// Most servers that one object lists.
pub const MAX_SERVERS: usize = 100;

/// A target that is not healthy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadMount {
    /// The label of its mountpoint, as in the metrics.
    pub mountpoint: String,
    /// The label of its source.
    pub source: String,
    /// Filesystem type.
    pub fstype: String,
    /// State word.
    pub state: String,
    /// Cause word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Since when.
    pub since: String,
    /// Pods that use it, as `namespace/name`, by UID where the name is not known, as `orphan UID` where there is no such pod;
    /// at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub pods: Vec<String>,
    /// How many use it.
    pub pod_count: u32,
}

/// A volume that cannot be mounted, and the pod that does not start for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WaitingVolume {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// Name of the volume in the pod's specification.
    pub volume: String,
    /// What is to be mounted.
    pub source: String,
    /// Cause word, or `not_shared`; `unknown` where only the kubelet's hanging mount shows it.
    pub cause: String,
    /// Since when the pod waits.
    pub since: String,
    /// What was seen, in words.
    pub words: String,
}

/// A server as this node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerSeen {
    /// The server as mounted.
    pub server: String,
    /// Targets of it on this node.
    pub mounts: u32,
    /// Targets of it that do not work.
    pub dead: u32,
    /// Dead targets whose recovery gate is open.
    pub gates_open: u32,
}

/// The agent asks that a pod be evicted, since a fresh mount would heal it. Void when `refreshed` is older than 60 s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RescueRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// Name of the volume in the pod's specification.
    pub volume: String,
    /// The server as mounted.
    pub server: String,
    /// The exported path.
    pub export: String,
    /// State word: `stale` or `lost` (`hung` only where unstick for hung mounts is enabled).
    pub state: String,
    /// Cause word.
    pub cause: String,
    /// Since when the pod's mount is dead.
    pub since: String,
    /// When the agent last confirmed that all of this still holds.
    pub refreshed: String,
    /// What the recovery gate saw.
    pub gate: GateReport,
}

/// The two trial mounts that must agree before anybody is evicted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GateReport {
    /// When the first trial mount answered.
    pub first_trial: String,
    /// When the second one did, at least the grace later.
    pub second_trial: String,
    /// What a new pod would find.
    pub root: GateRoot,
    /// Names known from before that the new root has.
    pub names_found: u32,
    /// Names known from before.
    pub names_known: u32,
    /// What was seen, in one sentence for people.
    pub words: String,
}

/// The root that a fresh mount gets, compared with the pod's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GateRoot {
    /// The same directory as the pod's: the same data.
    Same,
    /// Another directory: a new pod starts on other data.
    Different,
    /// Another directory with nothing in it.
    Empty,
    /// A pseudo directory of an NFSv4 server: nothing is exported there.
    Pseudo,
    /// It could not be compared.
    #[default]
    Unknown,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::CustomResourceExt;

    #[test]
    fn the_crd_is_cluster_scoped_with_a_status_and_bounded_lists() {
        let crd = serde_json::to_value(NodeMounts::crd()).unwrap();
        assert_eq!(crd["spec"]["scope"], "Cluster");
        assert_eq!(crd["spec"]["names"]["shortNames"][0], "nm");
        let version = &crd["spec"]["versions"][0];
        assert!(version["subresources"]["status"].is_object());
        let status = &version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
        assert_eq!(status["mounts"]["maxItems"], MAX_MOUNTS);
        assert_eq!(status["requests"]["maxItems"], MAX_REQUESTS);
        assert_eq!(status["waiting"]["maxItems"], MAX_WAITING);
        assert_eq!(status["servers"]["maxItems"], MAX_SERVERS);
    }
}
