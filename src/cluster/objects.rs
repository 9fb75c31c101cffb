//! What is read of the cluster when a pod needs it: claims, volumes, annotations of namespaces and of the Node. Kept
//! while a pod needs it, read again now and then; a reading that fails keeps the last one.

mod holders;

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::api::{Failure, Kube};
use super::api_pod::{Annotations, Network, PathSource};
use super::pace::Pace;
use super::pods::Pods;
use super::stats::Stats;

/// Objects of one kind that are kept.
const MAX_OBJECTS: usize = 4096;

/// An object that is missing or half made (a claim without its volume) is looked at again so many times as often.
const SOON: u32 = 20;

/// A claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Claim {
    pub(super) metadata: Identity,
    pub(super) spec: ClaimSpec,
}

/// Name and UID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Identity {
    pub(super) uid: String,
    /// Of the Node its region.
    pub(super) labels: Annotations,
    pub(super) annotations: Annotations,
}

/// What a claim got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ClaimSpec {
    pub(super) volume_name: String,
    pub(super) storage_class_name: Option<String>,
    pub(super) access_modes: Vec<String>,
}

/// A PersistentVolume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Volume {
    pub(super) spec: VolumeSpec,
}

/// Where its data are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct VolumeSpec {
    #[serde(flatten)]
    pub(super) network: Network,
    pub(super) host_path: Option<PathSource>,
    pub(super) local: Option<PathSource>,
    pub(super) storage_class_name: Option<String>,
    pub(super) access_modes: Vec<String>,
    pub(super) mount_options: Vec<String>,
}

/// A namespace, or the Node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Annotated {
    pub(super) metadata: Identity,
}

/// Everything that was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    /// By (namespace, name).
    pub(super) claims: HashMap<(String, String), Arc<Claim>>,
    pub(super) volumes: HashMap<String, Arc<Volume>>,
    pub(super) namespaces: HashMap<String, Arc<Annotated>>,
    pub(super) node: Option<Arc<Annotated>>,
    /// Of claims for one node that a pod here waits for: the pod of another node that has it, with its node.
    pub(super) holders: HashMap<(String, String), String>,
}

impl Objects {
    pub(super) fn claim(&self, namespace: &str, name: &str) -> Option<&Claim> {
        self.claims.get(&(namespace.to_owned(), name.to_owned())).map(|claim| &**claim)
    }

    /// The volume of a claim, with its name.
    pub(super) fn volume_of<'a>(&'a self, claim: &'a Claim) -> Option<(&'a str, Option<&'a Volume>)> {
        let name = claim.spec.volume_name.as_str();
        (!name.is_empty()).then(|| (name, self.volumes.get(name).map(|volume| &**volume)))
    }
}

/// When each object is read next.
struct Due<K>(HashMap<K, Instant>);

impl<K: Hash + Eq + Ord + Clone> Due<K> {
    /// Forgets what nobody needs, and says what is due.
    fn of(&mut self, wanted: &BTreeSet<K>, now: Instant) -> Vec<K> {
        self.0.retain(|key, _| wanted.contains(key));
        let due = |key: &&K| self.0.get(*key).is_none_or(|at| *at <= now);
        wanted.iter().filter(due).take(MAX_OBJECTS).cloned().collect()
    }
}

/// Reads objects as pods need them.
pub(super) struct Reader {
    kube: Kube,
    node: String,
    pace: Pace,
    stats: Stats,
    known: Objects,
    claims: Due<(String, String)>,
    volumes: Due<String>,
    namespaces: Due<String>,
    others: Due<String>,
    next_node: Instant,
    publish: watch::Sender<Arc<Objects>>,
}

impl Reader {
    pub(super) fn new(kube: Kube, node: &str, pace: Pace, stats: Stats) -> (Reader, watch::Receiver<Arc<Objects>>) {
        let (publish, receiver) = watch::channel(Arc::default());
        let reader = Reader {
            kube,
            node: node.to_owned(),
            pace,
            stats,
            known: Objects::default(),
            claims: Due(HashMap::new()),
            volumes: Due(HashMap::new()),
            namespaces: Due(HashMap::new()),
            others: Due(HashMap::new()),
            next_node: Instant::now(),
            publish,
        };
        (reader, receiver)
    }

    /// Until the pods' side ends.
    pub(super) async fn run(mut self, mut pods: watch::Receiver<Arc<Pods>>) {
        loop {
            let present = Arc::clone(&pods.borrow_and_update());
            self.pass(&present).await;
            let next = Instant::now() + self.pace.refresh / SOON;
            tokio::select! {
                more = super::pods::settled(&mut pods, self.pace.gather) => if !more { return },
                () = sleep_until(next) => {}
            }
        }
    }

    async fn pass(&mut self, pods: &Pods) {
        let now = Instant::now();
        if self.next_node <= now {
            let path = format!("/api/v1/nodes/{}", self.node);
            let read = self.read::<Annotated>("nodes", &path).await;
            self.next_node = now + if read.is_ok() { self.pace.refresh } else { self.pace.refresh / SOON };
            match read {
                Ok(Some(node)) => {
                    self.known.node = Some(Arc::new(node));
                    self.stats.trouble("node", None);
                }
                Ok(None) => {
                    let words = format!("there is no Node {:?}: set NODE_NAME from spec.nodeName", self.node);
                    self.stats.trouble("node", Some(words));
                }
                Err(_) => {}
            }
        }
        let namespaces: BTreeSet<String> = pods.pods.values().map(|pod| pod.metadata.namespace.clone()).collect();
        self.known.namespaces.retain(|name, _| namespaces.contains(name));
        for name in self.namespaces.of(&namespaces, now) {
            let read = self.read::<Annotated>("namespaces", &format!("/api/v1/namespaces/{name}")).await;
            let Some(value) = kept(&mut self.namespaces, &name, read, self.pace) else { continue };
            self.known.namespaces.insert(name, Arc::new(value));
        }
        let claims: BTreeSet<(String, String)> = pods.pods.values().flat_map(|pod| claims_of(pod)).collect();
        self.known.claims.retain(|key, _| claims.contains(key));
        for key in self.claims.of(&claims, now) {
            let (namespace, name) = &key;
            let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}");
            let read = self.read::<Claim>("persistentvolumeclaims", &path).await;
            let Some(claim) = kept(&mut self.claims, &key, read, self.pace) else { continue };
            if claim.spec.volume_name.is_empty() {
                self.claims.0.insert(key.clone(), Instant::now() + self.pace.refresh / SOON);
            }
            self.known.claims.insert(key, Arc::new(claim));
        }
        let volumes: BTreeSet<String> =
            self.known.claims.values().map(|claim| claim.spec.volume_name.clone()).collect();
        let volumes: BTreeSet<String> = volumes.into_iter().filter(|name| !name.is_empty()).collect();
        self.known.volumes.retain(|name, _| volumes.contains(name));
        for name in self.volumes.of(&volumes, now) {
            let read = self.read::<Volume>("persistentvolumes", &format!("/api/v1/persistentvolumes/{name}")).await;
            let Some(volume) = kept(&mut self.volumes, &name, read, self.pace) else { continue };
            self.known.volumes.insert(name, Arc::new(volume));
        }
        self.look_for_holders(pods, now).await;
        self.publish.send_replace(Arc::new(self.known.clone()));
    }

    /// One object; `None` where there is none of that name.
    async fn read<T: DeserializeOwned>(&self, resource: &'static str, path: &str) -> Result<Option<T>, Failure> {
        // A node that starts with 500 pods must not ask for a thousand objects at once.
        sleep(self.pace.gather / 10).await;
        match self.kube.get(resource, path).await {
            Ok(object) => {
                self.stats.trouble(resource, None);
                Ok(Some(object))
            }
            Err(failure) if failure.is(404) => Ok(None),
            Err(failure) => {
                self.stats.trouble(resource, Some(format!("{resource} cannot be read: {failure}")));
                Err(failure)
            }
        }
    }
}

/// What is to be kept of a reading, and when the next one is due.
fn kept<K: Hash + Eq + Clone, T>(due: &mut Due<K>, key: &K, read: Result<Option<T>, Failure>, pace: Pace) -> Option<T> {
    let wait = if matches!(read, Ok(Some(_))) {
        pace.refresh.mul_f64(0.75 + fastrand::f64() / 2.0)
    } else {
        pace.refresh / SOON
    };
    due.0.insert(key.clone(), Instant::now() + wait);
    read.ok().flatten()
}

fn claims_of(pod: &super::api_pod::ApiPod) -> Vec<(String, String)> {
    let claims = pod.spec.volumes.iter().filter_map(|volume| pod.claim_of(volume));
    claims.map(|name| (pod.metadata.namespace.clone(), name)).collect()
}
