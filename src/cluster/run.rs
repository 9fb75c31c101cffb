//! The thread of the cluster's side, and what the agent's loop sees of it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::api::Kube;
use super::ask::{Answerer, Ask, Asker};
use super::connect::{self, ConnectError};
use super::lint::Lint;
use super::node_mounts::NodeMountsStatus;
use super::objects::{Objects, Reader};
use super::pace::Pace;
use super::pods::{Pods, Watcher};
use super::report::{Reporter, Said, Wish};
use super::stats::{ClusterStats, Stats};
use super::{condition, events, names, object, requests};
use crate::config::{Config, OnOff};
use crate::pods::names::PodNames;
use crate::snapshot::Snapshot;

/// Wishes between the reporter and the sender; the sender's own queue is the one that is meant to hold them.
const WISHES: usize = 1024;

/// What the node needs to say in the cluster.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) wanted: OnOff,
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) node: String,
    pub(super) events: bool,
    pub(super) condition: bool,
    pub(super) pace: Pace,
}

/// The cluster's side, from the agent's loop.
#[derive(Debug)]
pub struct Cluster {
    names: watch::Receiver<Arc<PodNames>>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    asker: Asker,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
    stats: Stats,
}

impl Cluster {
    /// Starts it, where there is a cluster to talk to or one is wanted. It never waits for the API server.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub fn start(config: &Config, node: &str) -> io::Result<Option<Cluster>> {
        let kubeconfig = (!config.kubeconfig.is_empty()).then(|| PathBuf::from(&config.kubeconfig));
        Self::start_with(Setup {
            wanted: config.kubernetes,
            kubeconfig,
            node: node.to_owned(),
            events: config.kubernetes_events == OnOff::On,
            condition: config.kubernetes_condition == OnOff::On,
            pace: Pace::default(),
        })
    }

    pub(super) fn start_with(setup: Setup) -> io::Result<Option<Cluster>> {
        let any = setup.kubeconfig.is_some() || connect::is_pod();
        if setup.wanted == OnOff::Off || (setup.wanted == OnOff::Auto && !any) {
            return Ok(None);
        }
        let (names_to, names) = watch::channel(Arc::default());
        let (snapshots, snapshots_from) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let stats = Stats::default();
        let (asker, asks) = Asker::new();
        let part = Parts { setup, names: names_to, snapshots: snapshots_from, asks, stopped, stats: stats.clone() };
        // It waits for sockets alone. The files it reads are the pod's token and its CA, which the kubelet keeps in memory.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("cluster".to_owned()).spawn(move || {
            runtime.block_on(part.run());
            // A look-up of the API server's name may still sit in the resolver.
            runtime.shutdown_background();
            end.send_replace(true);
        })?;
        Ok(Some(Cluster { names, snapshots, asker, stop, ended, stats }))
    }

    /// What is known of this node's pods.
    #[must_use]
    pub fn names(&self) -> Arc<PodNames> {
        Arc::clone(&self.names.borrow())
    }

    /// Hears of every change of them.
    #[must_use]
    pub fn watch_names(&self) -> watch::Receiver<Arc<PodNames>> {
        self.names.clone()
    }

    /// Who asks it, and has it say something.
    #[must_use]
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// The loop's newest snapshot.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.snapshots.send_replace(Some(snapshot));
    }

    /// What it counts about itself.
    #[must_use]
    pub fn stats(&self) -> ClusterStats {
        self.stats.get()
    }

    /// Says in the cluster that the agent ends, and waits for that no longer than `limit`.
    pub async fn stop(&self, limit: Duration) {
        self.stop.send_replace(true);
        // A thread that is late is left behind: the process ends anyway.
        let _ = timeout(limit, self.ended.clone().wait_for(|ended| *ended)).await;
    }
}

/// What goes into the thread.
struct Parts {
    setup: Setup,
    names: watch::Sender<Arc<PodNames>>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    asks: mpsc::Receiver<Ask>,
    stopped: watch::Receiver<bool>,
    stats: Stats,
}

impl Parts {
    async fn run(self) {
        let mut stopped = self.stopped.clone();
        let (kube, namespace) = tokio::select! {
            connected = self.connected() => connected,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let Setup { node, pace, .. } = &self.setup;
        let (watcher, pods) = Watcher::new(kube.clone(), node, *pace, self.stats.clone());
        let (reader, objects) = Reader::new(kube.clone(), node, *pace, self.stats.clone());
        let (wishes_to, wishes) = mpsc::channel(WISHES);
        let (condition_to, condition) = watch::channel(None);
        let (object_to, object) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(watcher.run());
        tasks.spawn(reader.run(pods.clone()));
        let answerer = Answerer {
            kube: kube.clone(),
            node: node.clone(),
            namespace,
            names: self.names.subscribe(),
            wishes: self.setup.events.then(|| wishes_to.clone()),
            node_uid: String::new(),
        };
        tasks.spawn(answerer.run(self.asks));
        if self.setup.events {
            tasks.spawn(events::Sender::new(kube.clone(), node, *pace, self.stats.clone()).run(wishes));
        }
        tasks.spawn(object::Writer::new(kube.clone(), node, *pace, self.stats.clone()).run(object, objects.clone()));
        let last_words = self.setup.condition.then(|| {
            let writer = condition::Writer::new(kube.clone(), node, *pace, self.stats.clone());
            tokio::spawn(writer.run(condition, self.stopped.clone()))
        });
        let talker = Talker {
            setup: self.setup,
            names: self.names,
            stats: self.stats,
            wishes: wishes_to,
            condition: condition_to,
            object: object_to,
            reporter: Reporter::default(),
            lint: Lint::default(),
        };
        tasks.spawn(talker.run(pods, objects, self.snapshots));
        let ended = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => None,
            ended = tasks.join_next() => ended,
        };
        // Each runs for ever: one that ends is a defect, and the others are worth more than nothing.
        if let Some(ended) = ended {
            tracing::error!(?ended, "a part of the cluster's side ended; names and Events are no longer up to date");
            let _ = stopped.wait_for(|stop| *stop).await;
        }
        tasks.shutdown().await;
        if let Some(last_words) = last_words {
            let _ = last_words.await;
        }
    }

    /// The API server, and the namespace that this agent is in. Credentials may come late (a projected token), so it is tried
    /// for ever.
    async fn connected(&self) -> (Kube, String) {
        loop {
            match connect::client(self.setup.kubeconfig.clone()).await {
                Ok(client) => {
                    self.stats.trouble("connect", None);
                    let namespace = client.default_namespace().to_owned();
                    return (Kube::new(client, self.stats.clone(), self.setup.pace.call), namespace);
                }
                Err(error) => self.say(&error),
            }
            sleep(self.setup.pace.longest_retry).await;
        }
    }

    fn say(&self, error: &ConnectError) {
        self.stats.trouble("connect", Some(error.to_string()));
    }
}

/// Joins what the node sees with what the cluster knows.
struct Talker {
    setup: Setup,
    names: watch::Sender<Arc<PodNames>>,
    stats: Stats,
    wishes: mpsc::Sender<Wish>,
    condition: watch::Sender<Option<condition::Condition>>,
    object: watch::Sender<Option<NodeMountsStatus>>,
    reporter: Reporter,
    lint: Lint,
}

impl Talker {
    async fn run(
        mut self,
        mut pods: watch::Receiver<Arc<Pods>>,
        mut objects: watch::Receiver<Arc<Objects>>,
        mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    ) {
        loop {
            let started = Instant::now();
            let known = Arc::new(names::names(&pods.borrow_and_update(), &objects.borrow_and_update()));
            self.names.send_if_modified(|present| {
                let news = **present != *known;
                if news {
                    *present = Arc::clone(&known);
                }
                news
            });
            self.lint.look(&known).iter().for_each(|words| tracing::warn!("{words}"));
            let snapshot = snapshots.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                let objects = Arc::clone(&objects.borrow());
                self.look(&snapshot, &known, &objects);
            }
            tokio::select! {
                changed = pods.changed() => if changed.is_err() { return },
                changed = objects.changed() => if changed.is_err() { return },
                changed = snapshots.changed() => if changed.is_err() { return },
            }
            // A burst costs one pass; a pass that is long makes the next one wait.
            sleep(self.setup.pace.gather.max(started.elapsed().min(self.setup.pace.gather * 5))).await;
        }
    }

    fn look(&mut self, snapshot: &Snapshot, names: &PodNames, objects: &Objects) {
        let news = self.reporter.look(snapshot, names, objects);
        news.lines.iter().for_each(say);
        for wish in news.wishes.into_iter().filter(|_| self.setup.events) {
            if self.wishes.try_send(wish).is_err() {
                self.stats.dropped("budget");
            }
        }
        if let Some(condition) = condition::Condition::of(snapshot) {
            changed(&self.condition, condition);
        }
        if snapshot.ready {
            changed(
                &self.object,
                object::status(snapshot, names, self.reporter.absent(), &requests::of(snapshot, names)),
            );
        }
    }
}

/// Tells only what is news.
fn changed<T: PartialEq>(to: &watch::Sender<Option<T>>, value: T) {
    to.send_if_modified(|present| {
        let news = present.as_ref() != Some(&value);
        if news {
            *present = Some(value);
        }
        news
    });
}

/// One line per transition and pod.
fn say(said: &Said) {
    let Said { pod, volume, state, well, cause, words } = said;
    if *well {
        tracing::info!(pod, volume, state, "{words}");
    } else {
        tracing::warn!(pod, volume, state, cause, "{words}");
    }
}
