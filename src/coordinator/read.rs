//! Reads all that must be known of a pod. What cannot be read is no reason to act.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod, Volume,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client};

use super::client::{Failure, call};
use super::facts::{Facts, Owner, VolumeServer};
use super::history::{Record, Seen};
use super::plan::Read;
use super::request::Request;
use crate::remedy::permission::ANNOTATION;

mod budget;
pub mod pod;

/// Pods of one namespace that are listed at a time, and pages: a namespace with more is not understood, and nobody in it
/// is evicted.
const PAGE: u32 = 500;
const PAGES: usize = 40;

/// Reads the cluster.
#[derive(Clone)]
pub struct Reader {
    client: Client,
}

/// Why facts are missing: the pod is not there, or the words what could not be read.
enum Missing {
    Gone,
    Failed(String),
}

fn failed(what: &'static str) -> impl Fn(Failure) -> Missing {
    move |failure| Missing::Failed(format!("{what}: {failure}"))
}

impl Reader {
    /// With this client.
    #[must_use]
    pub fn new(client: Client) -> Reader {
        Reader { client }
    }

    /// Everything about the pod that a request names.
    pub async fn read(&self, request: &Request) -> Read {
        match self.facts(request).await {
            Ok(facts) => Read::Facts(Box::new(facts)),
            Err(Missing::Gone) => Read::Gone,
            Err(Missing::Failed(why)) => Read::Failed(why),
        }
    }

    async fn facts(&self, request: &Request) -> Result<Facts, Missing> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &request.namespace);
        let pod = call(pods.get_opt(&request.pod)).await.map_err(failed("pod"))?.ok_or(Missing::Gone)?;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = call(namespaces.get(&request.namespace)).await.map_err(failed("namespace"))?;
        let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = call(nodes.get(&node_name)).await.map_err(failed("node"))?;
        let mut facts =
            pod::facts(&pod).ok_or_else(|| Missing::Failed("pod: it lacks what every pod has".to_owned()))?;
        facts.owner = self.owner(&pod).await?;
        (facts.volume, facts.local_data) = self.volumes(&pod, request).await?;
        facts.namespace_annotation = annotation(&namespace.metadata);
        facts.node_annotation = annotation(&node.metadata);
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &request.namespace);
        let budgets = call(budgets.list(&ListParams::default())).await.map_err(failed("disruption budgets"))?;
        facts.budgets = budget::of(&pod, &budgets.items);
        let siblings = self.siblings(&request.namespace, &pod).await.map_err(failed("pods of the namespace"))?;
        facts.newest_sibling = siblings.iter().filter_map(pod::created).max().unwrap_or(facts.created);
        Ok(facts)
    }

    /// The workload as people know it: a ReplicaSet is one of a Deployment's.
    async fn owner(&self, pod: &Pod) -> Result<Owner, Missing> {
        let owner = pod::owner(pod);
        let Some(name) = owner.workload.strip_prefix("ReplicaSet/") else { return Ok(owner) };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &namespace);
        let set = call(sets.get_opt(name)).await.map_err(failed("its ReplicaSet"))?;
        let above = set.as_ref().and_then(|set| pod::controller(&set.metadata));
        let workload = above.map_or(owner.workload.clone(), |above| format!("{}/{}", above.kind, above.name));
        Ok(Owner { workload, ..owner })
    }

    /// The volume that the request names, and whether the pod keeps data on its node.
    async fn volumes(&self, pod: &Pod, request: &Request) -> Result<(Option<VolumeServer>, bool), Missing> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        let (mut server, mut local) = (None, false);
        for volume in volumes {
            let bound = self.bound(pod, volume).await?;
            let asked = volume.name == request.volume;
            if asked {
                server = pod::server(volume, bound.as_ref());
            }
            local |= pod::local_data(volume, bound.as_ref(), asked);
        }
        Ok((server, local))
    }

    /// What the claim of a volume is bound to.
    async fn bound(&self, pod: &Pod, volume: &Volume) -> Result<Option<PersistentVolumeSpec>, Missing> {
        let Some(claim) = pod::claim(pod, volume) else { return Ok(None) };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let claim = call(claims.get(&claim)).await.map_err(failed("its claim"))?;
        let Some(name) = claim.spec.and_then(|spec| spec.volume_name) else { return Ok(None) };
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        Ok(call(volumes.get(&name)).await.map_err(failed("its volume"))?.spec)
    }

    /// The pods of the same controller, the pod itself too.
    async fn siblings(&self, namespace: &str, pod: &Pod) -> Result<Vec<Pod>, Failure> {
        let Some(uid) = pod::controller(&pod.metadata).map(|owner| owner.uid.clone()) else { return Ok(Vec::new()) };
        let mut all = self.pods(namespace).await?;
        all.retain(|other| pod::controller(&other.metadata).is_some_and(|owner| owner.uid == uid));
        Ok(all)
    }

    /// All pods of a namespace.
    ///
    /// # Errors
    /// What the server said, or that there are too many.
    pub async fn pods(&self, namespace: &str) -> Result<Vec<Pod>, Failure> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut all = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        for _ in 0..PAGES {
            let page = call(api.list(&params)).await?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => return Ok(all),
            }
        }
        Err(Failure::Timeout)
    }
}

/// What became of an evicted pod, among the pods of its namespace.
#[must_use]
pub fn seen(record: &Record, pods: &[Pod]) -> Seen {
    let evicted = pods.iter().find(|pod| pod.metadata.uid.as_deref() == Some(&record.uid));
    let younger = pods.iter().filter(|pod| {
        pod.metadata.uid.as_deref() != Some(&record.uid)
            && pod.metadata.deletion_timestamp.is_none()
            && pod::controller(&pod.metadata).is_some_and(|owner| owner.uid == record.controller)
            && pod::created(pod).is_some_and(|created| created > record.newest)
    });
    // One that is Ready before one that is not.
    let replacement = younger
        .map(|pod| (pod.metadata.uid.clone().unwrap_or_default(), pod::ready(pod)))
        .max_by_key(|(_, ready)| *ready);
    Seen {
        pod: evicted.is_some(),
        terminating: evicted.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some()),
        replacement,
    }
}

fn annotation(object: &ObjectMeta) -> Option<String> {
    object.annotations.as_ref()?.get(ANNOTATION).cloned()
}
