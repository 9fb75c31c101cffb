//! What all nodes report, kept up to date by a watch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::Notify;

use super::board::Board;
use super::request::NodeView;
use crate::cluster::node_mounts::NodeMounts;

/// The nodes' views.
#[derive(Debug, Default)]
pub(super) struct Views {
    nodes: Mutex<HashMap<String, NodeView>>,
    /// Something changed.
    pub(super) changed: Notify,
}

impl Views {
    /// All of them, by name: so that two coordinators see the same.
    pub(super) fn all(&self) -> Vec<NodeView> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<NodeView> = nodes.values().cloned().collect();
        all.sort_by(|a, b| a.node.cmp(&b.node));
        all
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<String, NodeView>)) {
        change(&mut self.nodes.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

/// Watches for ever; where the watch is cut or too old it lists again. Until then the old views stand, and their requests
/// go stale within a minute.
pub(super) async fn run(client: Client, views: Arc<Views>, board: Arc<Board>) {
    let api: Api<NodeMounts> = Api::all(client);
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut listed: HashMap<String, NodeView> = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                let view = NodeView::read(&object);
                listed.insert(view.node.clone(), view);
            }
            Ok(watcher::Event::InitDone) => {
                let all = std::mem::take(&mut listed);
                views.change(|nodes| *nodes = all);
                board.set_ready();
            }
            Ok(watcher::Event::Apply(object)) => {
                let view = NodeView::read(&object);
                views.change(|nodes| {
                    nodes.insert(view.node.clone(), view);
                });
            }
            Ok(watcher::Event::Delete(object)) => {
                let name = object.metadata.name.unwrap_or_default();
                views.change(|nodes| {
                    nodes.remove(&name);
                });
            }
            Err(error) => {
                board.error("watch");
                tracing::warn!("the nodes' reports cannot be watched, it is tried again: {error}");
            }
        }
    }
}
