//! This node's pods: one list, then a watch that goes on for ever.
//!
//! The list is read from the server's cache (`resourceVersion=0`): a thousand agents that start at once must not send a
//! thousand scans of all pods to etcd. After 410 (what we know is too old) it is read anew from etcd. What breaks is tried
//! again from where it stood; meanwhile everything known stays known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::api::{Failure, Kube, Lines, Meta, Status, query_value};
use super::api_pod::ApiPod;
use super::backoff::Backoff;
use super::pace::Pace;
use super::stats::Stats;

/// Pods that are kept: four times what the largest nodes run.
const MAX_PODS: usize = 2048;

/// Items of one page, where the server reads from etcd.
const PAGE: usize = 100;

/// This node's pods as last heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Pods {
    /// By the UID of the API object.
    pub(super) pods: HashMap<Arc<str>, Arc<ApiPod>>,
    /// A whole list was read, and the watch has been heard of since within the time in which it must speak.
    pub(super) complete: bool,
}

#[derive(Deserialize)]
pub(super) struct PodList {
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<ApiPod>>,
    #[serde(default)]
    kind: String,
}

impl PodList {
    /// One page.
    async fn page(kube: &Kube, node: &str, place: &str) -> Result<PodList, Failure> {
        let selector = query_value(&format!("spec.nodeName={node}"));
        let page: PodList = kube.get("pods", &format!("/api/v1/pods?fieldSelector={selector}{place}")).await?;
        if page.kind != "PodList" {
            return Err(Failure::Nonsense(format!("asked for pods, got {:?}", super::text::word(&page.kind))));
        }
        Ok(page)
    }

    /// All pods of a node from etcd, trimmed.
    pub(super) async fn all(kube: &Kube, node: &str) -> Result<Vec<ApiPod>, Failure> {
        let (mut pods, mut next) = (Vec::new(), String::new());
        loop {
            let place = format!("&limit={PAGE}&continue={}", query_value(&next));
            let page = PodList::page(kube, node, &place).await?;
            pods.extend(page.items.unwrap_or_default().into_iter().map(ApiPod::trimmed));
            next = page.metadata.next;
            if next.is_empty() {
                return Ok(pods);
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

/// What a line of a watch is; its object is read once that is known.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Of<T> {
    object: T,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: Meta,
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::Nonsense(super::text::line(&error.to_string(), 200)))
}

/// Why a watch is over.
enum End {
    /// Its time was over: go on from here.
    Over,
    /// What is known is too old: list again.
    Expired,
    /// Try again from here.
    Failed(Failure),
}

/// Keeps the pods of one node.
pub(super) struct Watcher {
    kube: Kube,
    node: String,
    pace: Pace,
    stats: Stats,
    known: Pods,
    version: String,
    publish: watch::Sender<Arc<Pods>>,
}

impl Watcher {
    pub(super) fn new(kube: Kube, node: &str, pace: Pace, stats: Stats) -> (Watcher, watch::Receiver<Arc<Pods>>) {
        let (publish, receiver) = watch::channel(Arc::default());
        let known = Pods::default();
        (Watcher { kube, node: node.to_owned(), pace, stats, known, version: String::new(), publish }, receiver)
    }

    /// For ever.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(self.pace.first_retry, self.pace.longest_retry);
        let mut from_etcd = false;
        loop {
            if self.version.is_empty() {
                match self.list(from_etcd).await {
                    Ok(()) => from_etcd = false,
                    Err(failure) => {
                        // A token of a page that is too old, a cache that is behind: the whole list from etcd.
                        from_etcd |= failure.is(410);
                        self.failed(&failure);
                        sleep(backoff.after(&failure)).await;
                        continue;
                    }
                }
            }
            let began = Instant::now();
            match self.watch().await {
                End::Over => {
                    backoff.reset();
                    // A server that ends every watch at once must not be asked without pause.
                    if began.elapsed() < self.pace.first_retry {
                        sleep(self.pace.first_retry).await;
                    }
                }
                End::Expired => {
                    self.version.clear();
                    from_etcd = true;
                    sleep(self.pace.first_retry.mul_f64(fastrand::f64())).await;
                }
                End::Failed(failure) => {
                    if began.elapsed() > self.pace.longest_retry {
                        backoff.reset();
                    }
                    self.failed(&failure);
                    sleep(backoff.after(&failure)).await;
                }
            }
        }
    }

    fn failed(&mut self, failure: &Failure) {
        self.stats.change(|stats| stats.watching = false);
        self.stats.trouble("pods", Some(format!("pods have the names that were known before: {failure}")));
        if self.known.complete {
            self.known.complete = false;
            self.publish();
        }
    }

    fn selector(&self) -> String {
        query_value(&format!("spec.nodeName={}", self.node))
    }

    async fn list(&mut self, from_etcd: bool) -> Result<(), Failure> {
        let mut pods = HashMap::new();
        let mut left_out = 0;
        let mut next = String::new();
        loop {
            let place = if from_etcd {
                format!("&limit={PAGE}&continue={}", query_value(&next))
            } else {
                "&resourceVersion=0".to_owned()
            };
            let page = PodList::page(&self.kube, &self.node, &place).await?;
            for pod in page.items.unwrap_or_default() {
                if pods.len() < MAX_PODS {
                    let uid: Arc<str> = pod.metadata.uid.as_str().into();
                    pods.insert(uid, Arc::new(pod.trimmed()));
                } else {
                    left_out += 1;
                }
            }
            next = page.metadata.next;
            self.version = page.metadata.resource_version;
            if next.is_empty() {
                break;
            }
        }
        self.known = Pods { pods, complete: true };
        self.stats.change(|stats| (stats.listed, stats.pods_left_out) = (true, left_out));
        self.publish();
        Ok(())
    }

    async fn watch(&mut self) -> End {
        let seconds = self.pace.watch.mul_f64(1.0 + fastrand::f64()).as_secs().max(1);
        let path = format!(
            "/api/v1/pods?watch=true&allowWatchBookmarks=true&fieldSelector={}&timeoutSeconds={seconds}&resourceVersion={}",
            self.selector(),
            query_value(&self.version)
        );
        let mut lines = match self.kube.watch("pods", &path).await {
            Ok(lines) => lines,
            Err(failure) if failure.is(410) => return End::Expired,
            Err(failure) => return End::Failed(failure),
        };
        self.heard();
        loop {
            match self.line(&mut lines).await {
                Ok(true) => self.heard(),
                Ok(false) => return End::Over,
                Err(failure) if failure.is(410) => return End::Expired,
                Err(failure) => return End::Failed(failure),
            }
        }
    }

    /// The watch speaks: what is known is complete.
    fn heard(&mut self) {
        self.stats.change(|stats| stats.watching = true);
        self.stats.trouble("pods", None);
        if !self.known.complete {
            self.known.complete = true;
            self.publish();
        }
    }

    /// Takes one line; false at the end of the watch.
    async fn line(&mut self, lines: &mut Lines) -> Result<bool, Failure> {
        let Some(bytes) = lines.next(self.pace.idle).await? else { return Ok(false) };
        let Kind { kind } = read(&bytes)?;
        match kind.as_str() {
            "BOOKMARK" => self.version = read::<Of<Bookmark>>(&bytes)?.object.metadata.resource_version,
            "ERROR" => return Err(read::<Of<Status>>(&bytes)?.object.failure()),
            "ADDED" | "MODIFIED" | "DELETED" => {
                let pod = read::<Of<ApiPod>>(&bytes)?.object;
                if pod.metadata.uid.is_empty() || pod.metadata.resource_version.is_empty() {
                    return Err(Failure::Nonsense("a line of the watch is about no pod".to_owned()));
                }
                self.take(kind == "DELETED", pod);
                self.publish();
            }
            other => return Err(Failure::Nonsense(format!("a watch has no lines {:?}", super::text::word(other)))),
        }
        Ok(true)
    }

    fn take(&mut self, deleted: bool, pod: ApiPod) {
        self.version.clone_from(&pod.metadata.resource_version);
        let uid: Arc<str> = pod.metadata.uid.as_str().into();
        if deleted {
            self.known.pods.remove(&uid);
        } else if self.known.pods.len() < MAX_PODS || self.known.pods.contains_key(&uid) {
            self.known.pods.insert(uid, Arc::new(pod.trimmed()));
        } else {
            self.stats.change(|stats| stats.pods_left_out += 1);
        }
    }

    fn publish(&self) {
        let count = u64::try_from(self.known.pods.len()).unwrap_or(u64::MAX);
        self.stats.change(|stats| stats.pods = count);
        self.publish.send_replace(Arc::new(self.known.clone()));
    }
}

/// Waits at least so long between two wakes, so that a burst of changes costs one pass.
pub(super) async fn settled<T>(receiver: &mut watch::Receiver<T>, gap: Duration) -> bool {
    if receiver.changed().await.is_err() {
        return false;
    }
    sleep(gap).await;
    receiver.mark_unchanged();
    true
}
