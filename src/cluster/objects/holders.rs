//! Who has a volume that only one node can have at a time, and that a pod of this node waits for.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::{Reader, SOON, claims_of};
use crate::cluster::api::{Failure, query_value};
use crate::cluster::api_pod::{ApiPod, Volume};
use crate::cluster::names;
use crate::cluster::pods::Pods;

/// A pod of another node, as far as it matters to whom a volume belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct OtherPod {
    metadata: OtherMeta,
    spec: OtherSpec,
    status: OtherStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OtherMeta {
    name: String,
    deletion_timestamp: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OtherSpec {
    node_name: String,
    volumes: Vec<Volume>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct OtherStatus {
    phase: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OtherPods {
    metadata: OtherPage,
    items: Vec<OtherPod>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OtherPage {
    r#continue: String,
}

/// Pods of a namespace are read by so many at a time, and at most so many pages of them.
const PAGE: usize = 100;
const PAGES: usize = 20;

impl OtherPod {
    fn has(&self, claim: &str) -> bool {
        let named =
            |volume: &Volume| volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == claim);
        self.spec.volumes.iter().any(named)
    }
}

impl Reader {
    /// A pod that waits for a volume which only one node can have at a time: does a pod of another node have it? Pods of
    /// other nodes are not watched, so this is asked for such a pod alone.
    pub(super) async fn look_for_holders(&mut self, pods: &Pods, now: Instant) {
        let contested: BTreeSet<(String, String)> = pods.pods.values().flat_map(|pod| self.contested(pod)).collect();
        self.known.holders.retain(|key, _| contested.contains(key));
        let namespaces: BTreeSet<String> = contested.iter().map(|(namespace, _)| namespace.clone()).collect();
        for namespace in self.others.of(&namespaces, now) {
            let read = self.pods_elsewhere(&namespace).await;
            self.others.0.insert(namespace.clone(), Instant::now() + self.pace.refresh / SOON);
            let Ok(others) = read else { continue };
            for (_, claim) in contested.iter().filter(|(of, _)| *of == namespace) {
                let key = (namespace.clone(), claim.clone());
                match others.iter().find(|other| other.has(claim)) {
                    Some(other) => {
                        let words = format!("pod {namespace}/{} on node {}", other.metadata.name, other.spec.node_name);
                        self.known.holders.insert(key, words);
                    }
                    None => _ = self.known.holders.remove(&key),
                }
            }
        }
    }

    /// Claims of a pod that has waited for long, whose volumes are disks for one node.
    fn contested(&self, pod: &ApiPod) -> Vec<(String, String)> {
        let Some(since) = pod.waits_since() else { return Vec::new() };
        let waited = Duration::try_from_secs_f64(crate::cluster::now()).unwrap_or_default();
        if waited.saturating_sub(Duration::from_secs(since)) < self.pace.pending {
            return Vec::new();
        }
        let is_contested = |(namespace, name): &(String, String)| {
            let Some(claim) = self.known.claim(namespace, name) else { return false };
            let one_node = |mode: &String| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod";
            let modes = &claim.spec.access_modes;
            let volume = self.known.volume_of(claim).and_then(|(_, volume)| volume);
            // The access mode of a share binds nobody: it is mounted by whoever mounts it.
            let disk = volume.is_some_and(|volume| volume.spec.network.csi.is_some() && names::is_disk(&volume.spec));
            !modes.is_empty() && modes.iter().all(one_node) && disk
        };
        claims_of(pod).into_iter().filter(is_contested).collect()
    }

    async fn pods_elsewhere(&self, namespace: &str) -> Result<Vec<OtherPod>, Failure> {
        let (mut others, mut next) = (Vec::new(), String::new());
        for _ in 0..PAGES {
            let token = query_value(&next);
            let path = format!("/api/v1/namespaces/{namespace}/pods?limit={PAGE}&continue={token}");
            let Some(page) = self.read::<OtherPods>("namespaced_pods", &path).await? else { break };
            let elsewhere = |pod: &OtherPod| {
                // One that is going hands its volume over by itself.
                let ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
                    || pod.metadata.deletion_timestamp.is_some();
                !ended && !pod.spec.node_name.is_empty() && pod.spec.node_name != self.node
            };
            others.extend(page.items.into_iter().filter(elsewhere));
            next = page.metadata.r#continue;
            if next.is_empty() {
                break;
            }
        }
        Ok(others)
    }
}
