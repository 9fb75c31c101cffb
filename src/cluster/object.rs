//! The agent's own `NodeMounts`: the node at a glance. Written on change and not too often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::absent::Absent;
use super::api::{Failure, Kube};
use super::backoff::Backoff;
use super::node_mounts::{
    DeadMount, MAX_MOUNTS, MAX_REQUESTS, MAX_SERVERS, MAX_WAITING, NodeMountsStatus, RescueRequest, ServerSeen,
    WaitingVolume,
};
use super::objects::Objects;
use super::pace::Pace;
use super::stats::Stats;
use super::{text, uses};
use crate::pods::names::PodNames;
use crate::snapshot::rfc3339 as time;
use crate::snapshot::{MountStatus, PendingVolume, Snapshot};
use crate::verdict::{Cause, Severity, State};

/// Pods that are listed with a mount.
const LISTED_PODS: usize = 20;

/// Longest text of the object: 100 mounts of them must stay far below etcd's 1.5 MB.
const LONGEST: usize = 512;

const COLLECTION: &str = "/apis/mountwarden.io/v1alpha1/nodemounts";

/// What the node is like, without the time of writing.
pub(super) fn status(
    snapshot: &Snapshot,
    names: &PodNames,
    absent: &Absent,
    requests: &[RescueRequest],
) -> NodeMountsStatus {
    let count = |severity| number(snapshot.mounts.iter().filter(|mount| mount.severity() == severity).count());
    let mut bad: Vec<&MountStatus> = snapshot.mounts.iter().filter(|mount| mount.state != State::Healthy).collect();
    bad.sort_by(|a, b| {
        uses::rank(b.state)
            .cmp(&uses::rank(a.state))
            .then(a.since.total_cmp(&b.since))
            .then_with(|| a.mountpoint.cmp(&b.mountpoint))
    });
    let dead = bad.iter().filter(|mount| mount.severity() == Severity::Dead);
    let pods: BTreeSet<String> = dead.flat_map(|mount| uses::places(mount, names)).map(|place| place.uid).collect();
    let worst = bad.first().filter(|mount| mount.state != State::Unknown);
    let blocked: Vec<&PendingVolume> = snapshot.pending.iter().filter(|row| row.blocked).collect();
    let pending: BTreeSet<&str> = blocked.iter().map(|row| row.pod_uid.as_str()).collect();
    let (cause, since) = match (worst, blocked.first()) {
        (Some(worst), _) => (worst.cause.map(Cause::as_str), Some(worst.since)),
        (None, Some(row)) => (Some(row.why()), Some(row.since)),
        (None, None) => (None, None),
    };
    NodeMountsStatus {
        healthy: count(Severity::Healthy),
        degraded: count(Severity::Degraded),
        dead: count(Severity::Dead),
        unknown: count(Severity::Unknown),
        pods: number(pods.len()),
        pending: number(pending.len()),
        worst: worst.map(|mount| mount.state.to_string()),
        cause: cause.map(str::to_owned),
        since: since.map(time),
        reported: String::new(),
        version: snapshot.version.clone(),
        mounts: bad.iter().take(MAX_MOUNTS).map(|mount| dead_mount(mount, names, absent)).collect(),
        mounts_left_out: number(bad.len().saturating_sub(MAX_MOUNTS)),
        waiting: blocked.iter().take(MAX_WAITING).map(|row| waiting(row)).collect(),
        requests: requests.iter().take(MAX_REQUESTS).cloned().collect(),
        requests_left_out: number(requests.len().saturating_sub(MAX_REQUESTS)),
        servers: servers(snapshot),
    }
}

fn dead_mount(mount: &MountStatus, names: &PodNames, absent: &Absent) -> DeadMount {
    let uids: BTreeSet<String> = uses::places(mount, names).into_iter().map(|place| place.uid).collect();
    let full = |uid: &String| text::word(&absent.name(uid, names));
    DeadMount {
        mountpoint: text::line(&mount.mountpoint, LONGEST),
        source: text::line(&mount.source, LONGEST),
        fstype: text::word(&mount.fstype),
        state: mount.state.to_string(),
        cause: mount.cause.map(|cause| cause.to_string()),
        since: time(mount.since),
        pods: uids.iter().take(LISTED_PODS).map(full).collect(),
        pod_count: number(uids.len()),
    }
}

fn waiting(row: &PendingVolume) -> WaitingVolume {
    WaitingVolume {
        namespace: text::word(&row.namespace),
        pod: text::word(row.pod_name()),
        volume: text::word(&row.volume),
        source: text::line(&row.source, LONGEST),
        cause: row.why().to_owned(),
        since: time(row.since),
        words: text::line(&row.evidence, LONGEST),
    }
}

fn servers(snapshot: &Snapshot) -> Vec<ServerSeen> {
    let mut servers: BTreeMap<&str, (u32, u32, u32)> = BTreeMap::new();
    for mount in &snapshot.mounts {
        let Some(server) = mount.origin.server.as_deref() else { continue };
        let (mounts, dead, open) = servers.entry(server).or_default();
        *mounts += 1;
        let is_dead = mount.severity() == Severity::Dead;
        *dead += u32::from(is_dead);
        *open += u32::from(is_dead && mount.gate.as_ref().is_some_and(|gate| gate.open));
    }
    let mut servers: Vec<ServerSeen> = servers
        .into_iter()
        .map(|(server, (mounts, dead, gates_open))| ServerSeen {
            server: text::line(server, LONGEST),
            mounts,
            dead,
            gates_open,
        })
        .collect();
    // What is dead is what the coordinator must know.
    servers.sort_by(|a, b| b.dead.cmp(&a.dead).then_with(|| a.server.cmp(&b.server)));
    servers.truncate(MAX_SERVERS);
    servers
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Writes the object of one node.
pub(super) struct Writer {
    kube: Kube,
    node: String,
    pace: Pace,
    stats: Stats,
    /// The version that was last read or written; none before the object is known to exist.
    version: Option<String>,
}

impl Writer {
    pub(super) fn new(kube: Kube, node: &str, pace: Pace, stats: Stats) -> Writer {
        Writer { kube, node: node.to_owned(), pace, stats, version: None }
    }

    /// Until the reporter ends.
    pub(super) async fn run(
        mut self,
        mut wanted: watch::Receiver<Option<NodeMountsStatus>>,
        mut objects: watch::Receiver<Arc<Objects>>,
    ) {
        // The Node's UID goes into the object when it is made, and never after: a status carries no owner. So it is waited
        // for, but not for ever: it may be that the Node cannot be read.
        let _ = timeout(self.pace.longest_retry, objects.wait_for(|objects| objects.node.is_some())).await;
        let mut backoff = Backoff::new(self.pace.first_retry, self.pace.longest_retry);
        loop {
            let Some(status) = wanted.borrow_and_update().clone() else {
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let owner = objects.borrow().node.as_ref().map(|node| node.metadata.uid.clone()).unwrap_or_default();
            match self.write(&status, &owner).await {
                Ok(()) => {
                    backoff.reset();
                    self.stats.trouble("node_mounts", None);
                }
                Err(failure) => {
                    self.stats.trouble("node_mounts", Some(words(&failure)));
                    sleep(backoff.after(&failure)).await;
                    continue;
                }
            }
            let pause = Instant::now() + self.pace.object_gap;
            let rest = if status.requests.is_empty() { self.pace.object_refresh } else { self.pace.request_refresh };
            let refresh = Instant::now() + rest.mul_f64(0.9 + fastrand::f64() / 5.0);
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = sleep_until(refresh) => {}
            }
            sleep_until(pause).await;
        }
    }

    async fn write(&mut self, status: &NodeMountsStatus, owner: &str) -> Result<(), Failure> {
        let reported = super::now();
        let status = NodeMountsStatus { reported: time(reported), ..status.clone() };
        let status = serde_json::to_value(status).map_err(|error| Failure::Nonsense(error.to_string()))?;
        // Twice: the object may be gone, or changed by somebody, since it was last read.
        for _ in 0..2 {
            let version = match &self.version {
                Some(version) => version.clone(),
                None => self.found_or_made(owner).await?,
            };
            let body = self.body(&version, owner, &status);
            match self.kube.replace("nodemounts", &format!("{COLLECTION}/{}/status", self.node), &body).await {
                Ok(written) => {
                    self.version = Some(written.metadata.resource_version);
                    return Ok(());
                }
                Err(failure) if matches!(failure.code(), Some(404 | 409)) => self.version = None,
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::answer(409, "Conflict", "somebody else writes this node's NodeMounts", None))
    }

    async fn found_or_made(&self, owner: &str) -> Result<String, Failure> {
        let path = format!("{COLLECTION}/{}", self.node);
        match self.kube.get::<super::api::Object>("nodemounts", &path).await {
            Ok(found) => return Ok(found.metadata.resource_version),
            Err(failure) if failure.is(404) => {}
            Err(failure) => return Err(failure),
        }
        let mut body = self.body("", owner, &Value::Null);
        if let Some(fields) = body.as_object_mut() {
            fields.remove("status");
        }
        self.kube.create("nodemounts", COLLECTION, &body).await.map(|made| made.metadata.resource_version)
    }

    fn body(&self, version: &str, owner: &str, status: &Value) -> Value {
        // Nulls are left out by the server. Without the Node's UID the object belongs to nobody, and outlives its node until
        // `cleanup`.
        let version = (!version.is_empty()).then_some(version);
        let owners =
            (!owner.is_empty()).then(|| json!([{"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": owner}]));
        let meta = json!({"name": self.node, "resourceVersion": version, "ownerReferences": owners});
        json!({"apiVersion": "mountwarden.io/v1alpha1", "kind": "NodeMounts", "metadata": meta, "spec": {},
            "status": status})
    }
}

fn words(failure: &Failure) -> String {
    if failure.is(404) {
        return "there is no NodeMounts resource in this cluster: install its CRD, and kubectl get nm shows this node"
            .to_owned();
    }
    format!("NodeMounts is not up to date: {failure}")
}
