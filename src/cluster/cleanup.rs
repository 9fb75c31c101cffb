//! Removes what the agents leave: every `NodeMounts`, and the condition of every Node.
//!
//! Agents that still run write both again, so it is for after the DaemonSet is gone.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::api::{Failure, Kube, Meta, Patch, query_value};
use super::condition::TYPE;
use super::connect;
use super::stats::Stats;

/// Deadline of one request.
const DEADLINE: Duration = Duration::from_secs(10);

/// Objects of one page: a Node is up to 100 kB with its images.
const PAGE: usize = 50;

/// What happened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// What was removed, or would be.
    pub done: Vec<String>,
    /// What could not be, and why.
    pub failed: Vec<String>,
}

/// Why nothing could even be tried.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CleanupError(String);

#[derive(Deserialize)]
struct Page {
    metadata: PageMeta,
    #[serde(default)]
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct PageMeta {
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    metadata: Meta,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
}

/// Removes all of it; with `dry_run` it only looks.
///
/// # Errors
/// When there is no way to the cluster.
pub async fn run(kubeconfig: Option<PathBuf>, dry_run: bool) -> Result<Removed, CleanupError> {
    let client = connect::client(kubeconfig).await.map_err(|error| CleanupError(error.to_string()))?;
    let kube = Kube::new(client, Stats::default(), DEADLINE);
    let mut removed = Removed::default();
    objects(&kube, dry_run, &mut removed).await;
    conditions(&kube, dry_run, &mut removed).await;
    Ok(removed)
}

async fn objects(kube: &Kube, dry_run: bool, removed: &mut Removed) {
    let base = "/apis/mountwarden.io/v1alpha1/nodemounts";
    let found = match all(kube, "nodemounts", base).await {
        Ok(found) => found,
        // The CRD is gone, and with it all of them.
        Err(failure) if failure.is(404) => return,
        Err(failure) => {
            removed.failed.push(format!("cannot list nodemounts: {failure}"));
            return;
        }
    };
    for item in found {
        let what = format!("nodemounts/{}", item.metadata.name);
        let result =
            if dry_run { Ok(()) } else { kube.delete("nodemounts", &format!("{base}/{}", item.metadata.name)).await };
        note(removed, what, result);
    }
}

async fn conditions(kube: &Kube, dry_run: bool, removed: &mut Removed) {
    let found = match all(kube, "nodes", "/api/v1/nodes").await {
        Ok(found) => found,
        Err(failure) => {
            removed.failed.push(format!("cannot list nodes: {failure}"));
            return;
        }
    };
    let has = |item: &Item| item.status.conditions.iter().any(|condition| condition.r#type == TYPE);
    for item in found.into_iter().filter(has) {
        let name = item.metadata.name;
        let patch = json!({"status": {"conditions": [{"type": TYPE, "$patch": "delete"}]}});
        let path = format!("/api/v1/nodes/{name}/status");
        let result =
            if dry_run { Ok(()) } else { kube.patch("nodes", &path, Patch::Strategic, &patch).await.map(drop) };
        note(removed, format!("condition {TYPE} of node/{name}"), result);
    }
}

fn note(removed: &mut Removed, what: String, result: Result<(), Failure>) {
    match result {
        Ok(()) => removed.done.push(what),
        // Somebody was faster.
        Err(failure) if failure.is(404) => {}
        Err(failure) => removed.failed.push(format!("cannot remove {what}: {failure}")),
    }
}

async fn all(kube: &Kube, resource: &'static str, base: &str) -> Result<Vec<Item>, Failure> {
    let (mut items, mut next) = (Vec::new(), String::new());
    loop {
        let path = format!("{base}?limit={PAGE}&continue={}", query_value(&next));
        let page: Page = kube.get(resource, &path).await?;
        items.extend(page.items.unwrap_or_default());
        next = page.metadata.next;
        if next.is_empty() {
            return Ok(items);
        }
    }
}
