//! The loop: look, decide, act, say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::board::{Board, Standing};
use super::client::{Cluster, connect};
use super::guard::{Guard, Holds};
use super::history::{History, Seen};
use super::lease::{self, Elector, Held};
use super::plan::{Case, Decision, Read};
use super::read::{Reader, seen};
use super::request::{NodeView, Request};
use super::serve::{Private, Public};
use super::store::{Store, Stored, Written};
use super::time::Time;
use super::voice::Voice;
use super::watch::Views;
use super::{switch, watch as views};
use crate::config::{Config, Remedy, RemedyMode, Unstick};

/// Longest time between two rounds; a change of a node's report starts one at once, but not more often than [`REST`].
const PERIOD: Duration = Duration::from_secs(5);

/// Shortest time between two rounds.
const REST: Duration = Duration::from_secs(1);

/// Pods that are read in one round for each eviction that could be in flight: some will be refused.
const PER_SLOT: usize = 4;

/// Pods that are read in one round at most.
const MAX_READ: usize = 40;

/// Pods of one node that are read in one round: one that asks for thousands takes nobody else's turn.
const PER_NODE: usize = 3;

/// A pod that was read and refused is not read again before this has passed, so that the others get their turn.
const RESTING: Duration = Duration::from_secs(30);

/// The same for one that only has to wait: a little more than a round.
const WAITING: Duration = Duration::from_secs(6);

/// The wall clock was set when it moved by so much against the one that nobody sets.
const STEP: i64 = 30;

/// One coordinator.
pub(super) struct Coordinator {
    pub(super) cluster: Cluster,
    pub(super) remedy: Remedy,
    pub(super) unstick: Unstick,
    pub(super) reader: Reader,
    pub(super) store: Store,
    pub(super) views: Arc<Views>,
    pub(super) board: Arc<Board>,
    pub(super) voice: Voice,
    pub(super) held: watch::Receiver<Held>,
    resting: HashMap<String, Instant>,
    clock: Clock,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from running at all.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let cluster = connect(&config.kubeconfig).await?;
    let me = identity();
    let board = Arc::new(Board::default());
    let (stop, stopped) = watch::channel(false);
    serve(&config, &board, &stopped);
    let (views, views_board) = (Arc::new(Views::default()), Arc::clone(&board));
    let watching = tokio::spawn(views::run(cluster.client.clone(), Arc::clone(&views), views_board));
    let (hold, held) = watch::channel(Held::default());
    let electing =
        tokio::spawn(elect(Elector::new(cluster.client.clone(), &cluster.namespace, me.clone()), hold, stopped));
    tracing::info!(
        identity = me,
        namespace = cluster.namespace,
        mode = config.remedy.mode.as_str(),
        "coordinating rescues"
    );
    let coordinator = Coordinator::new(cluster, &config, &me, views, board, held);
    tokio::select! {
        () = coordinator.go() => anyhow::bail!("the loop ended by itself"),
        ended = watching => anyhow::bail!("the watch of the nodes' reports ended by itself: {ended:?}"),
        _ = terminate.recv() => tracing::info!("SIGTERM"),
        _ = interrupt.recv() => tracing::info!("SIGINT"),
    }
    // Whatever was under way is dropped: a reservation tells the next leader. Only then the Lease is given up.
    stop.send_replace(true);
    let _ = electing.await;
    Ok(())
}

fn serve(config: &Config, board: &Arc<Board>, stopped: &watch::Receiver<bool>) {
    use crate::agent::listen::listen;
    let (pages, stop, address) = (Arc::new(Public(Arc::clone(board))), stopped.clone(), config.listen.clone());
    tokio::spawn(async move {
        if let Some(listener) = listen("listen", &address).await {
            crate::http::serve::serve(listener, pages, stop).await;
        }
    });
    let (pages, stop, address) = (Arc::new(Private(Arc::clone(board))), stopped.clone(), config.listen_ui.clone());
    tokio::spawn(async move {
        if let Some(listener) = listen("listen_ui", &address).await {
            crate::http::serve::serve(listener, pages, stop).await;
        }
    });
}

/// Keeps trying for the Lease, apart from the loop, so that a slow round does not lose it.
async fn elect(mut elector: Elector, hold: watch::Sender<Held>, mut stopped: watch::Receiver<bool>) {
    let mut led = false;
    loop {
        let held = elector.step().await;
        hold.send_replace(held);
        let leads = held.may_act(Instant::now());
        if leads != led {
            tracing::info!(
                lease = lease::NAME,
                "{}",
                if leads { "this coordinator leads" } else { "another one leads" }
            );
            led = leads;
        }
        tokio::select! {
            () = tokio::time::sleep(lease::PERIOD) => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
    }
    hold.send_replace(Held::default());
    elector.resign().await;
}

/// Unique: the pod's name (which is the host name in it) and the process. A process that starts anew is another one.
fn identity() -> String {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{host}-{}-{:08x}", std::process::id(), fastrand::u32(..))
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "what nodes and the API server say is in wall-clock times")]
pub(super) fn wall() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Time(i64::try_from(since.as_secs()).unwrap_or(0))
}

impl Coordinator {
    fn new(
        cluster: Cluster,
        config: &Config,
        me: &str,
        views: Arc<Views>,
        board: Arc<Board>,
        held: watch::Receiver<Held>,
    ) -> Coordinator {
        let key = if config.remedy.mode == RemedyMode::DryRun { "dry-run" } else { "enforce" };
        Coordinator {
            remedy: config.remedy.clone(),
            unstick: config.unstick.clone(),
            reader: Reader::new(cluster.client.clone()),
            store: Store::new(cluster.client.clone(), &cluster.namespace, key),
            voice: Voice::new(cluster.client.clone(), me, Arc::clone(&board), config.remedy.mode),
            views,
            board,
            held,
            cluster,
            resting: HashMap::new(),
            clock: Clock::default(),
        }
    }

    async fn go(mut self) {
        let views = Arc::clone(&self.views);
        loop {
            self.board.beat();
            let nodes = views.all();
            if self.held.borrow().may_act(Instant::now()) {
                self.lead(&nodes).await;
            } else {
                self.show(&nodes, None, None);
            }
            tokio::time::sleep(REST).await;
            let _ = tokio::time::timeout(PERIOD - REST, views.changed.notified()).await;
        }
    }

    /// One round as leader.
    async fn lead(&mut self, nodes: &[NodeView]) {
        let stopped = switch::read(&self.cluster.client, &self.cluster.namespace).await.err();
        let stopped = stopped.as_deref();
        if let Some(why) = stopped {
            tracing::info!("nothing is evicted: {why}");
        }
        let stored = match self.load().await {
            Ok(stored) => self.look(stored, nodes).await,
            Err(_) => None,
        };
        let history = stored.as_ref().map(|stored| &stored.history);
        self.show(nodes, history, stopped);
        self.decide(nodes, history, stopped).await;
    }

    /// Takes in what became of earlier evictions. What cannot be written down is no ground for further ones: then `None`.
    async fn look(&mut self, stored: Stored, nodes: &[NodeView]) -> Option<Stored> {
        let (wall, mut history) = (wall(), stored.history.clone());
        if self.clock.was_set(wall) {
            tracing::warn!("the wall clock was set: nothing is done for a cool-down");
            history.distrust(wall);
        }
        let now = history.clock(wall);
        let open: Vec<_> = history.records.iter().filter(|record| record.open()).cloned().collect();
        let mut pods: HashMap<String, Vec<Pod>> = HashMap::new();
        for record in open {
            if !pods.contains_key(&record.namespace) {
                match self.reader.pods(&record.namespace).await {
                    Ok(all) => pods.insert(record.namespace.clone(), all),
                    Err(failure) => {
                        self.board.error("pod");
                        tracing::warn!(
                            namespace = record.namespace,
                            "what became of an eviction is not known: {failure}"
                        );
                        continue;
                    }
                };
            }
            let seen: Seen = pods.get(&record.namespace).map(|pods| seen(&record, pods)).unwrap_or_default();
            history.observe(&record.uid, &seen, now);
        }
        for request in nodes.iter().flat_map(|view| &view.requests) {
            history.dead_again(&request.uid, &request.server, now);
        }
        if history == stored.history {
            return Some(stored);
        }
        match self.store.write(&stored, history).await {
            Written::Yes(stored) => Some(*stored),
            Written::Conflict => None,
            Written::Failed(failure) => {
                self.board.error("history");
                tracing::warn!("the history could not be written: {failure}");
                None
            }
        }
    }

    fn show(&self, nodes: &[NodeView], history: Option<&History>, stopped: Option<&str>) {
        let round = self.round(history, nodes, stopped);
        let now = history.map_or(round.wall, |history| history.clock(round.wall));
        let known = history
            .is_some_and(|history| history.known_since(self.remedy.cool_down, now) && !history.contradicts(round.wall));
        self.board.standing(Standing {
            leader: round.leader,
            enabled: round.leader && stopped.is_none() && known && self.remedy.mode == RemedyMode::Enforce,
            history_known: known,
            nodes: nodes.len(),
            requests: nodes.iter().map(|view| view.requests.len()).sum(),
            left_out: nodes.iter().map(|view| view.left_out + view.malformed.len()).sum(),
            in_flight: history.map_or(0, |history| history.in_flight(now).count()),
            breakers: history.map(|history| history.breakers(self.remedy.cool_down, now)).unwrap_or_default(),
        });
    }

    async fn decide(&mut self, nodes: &[NodeView], history: Option<&History>, stopped: Option<&str>) {
        let asked: HashMap<&str, (&str, &Request)> = nodes
            .iter()
            .flat_map(|view| view.requests.iter().map(|request| (request.uid.as_str(), (view.node.as_str(), request))))
            .collect();
        self.voice.keep(|uid| asked.contains_key(uid));
        let now = Instant::now();
        self.resting.retain(|uid, until| *until > now && asked.contains_key(uid.as_str()));
        let reads = self.read(nodes, history, stopped).await;
        let cases: Vec<Case<'_>> = reads.iter().map(|(node, request, read)| Case { node, request, read }).collect();
        let decisions = self.round(history, nodes, stopped).plan(&cases);
        for (at, decision) in decisions {
            let Some(case) = cases.get(at) else { continue };
            match decision {
                Decision::Evict(_) => self.act(case).await,
                Decision::Refuse(refusal) => {
                    if matches!(case.read, Read::Facts(_) | Read::Gone | Read::Failed(_)) {
                        let rest = if refusal.guard.holds() == Holds::Wait { WAITING } else { RESTING };
                        self.resting.insert(case.request.uid.clone(), now + rest);
                    }
                    if refusal.guard == Guard::Queued {
                        continue;
                    }
                    self.voice.refused(case, &refusal, wall()).await;
                }
            }
        }
    }

    /// Reads the pods whose turn it may be; of the others nothing is read.
    async fn read(
        &self,
        nodes: &[NodeView],
        history: Option<&History>,
        stopped: Option<&str>,
    ) -> Vec<(String, Request, Read)> {
        let round = self.round(history, nodes, stopped);
        let mut all: Vec<(&str, &Request)> =
            nodes.iter().flat_map(|view| view.requests.iter().map(|request| (view.node.as_str(), request))).collect();
        all.sort_by_cached_key(|(_, request)| round.turn(request));
        let screened: Vec<bool> = all.iter().map(|(node, request)| round.screen(request, node).is_ok()).collect();
        let mut left = if round.room() == 0 { 0 } else { (round.room() * PER_SLOT).min(MAX_READ) };
        let mut of_node: HashMap<&str, usize> = HashMap::new();
        let mut reads = Vec::with_capacity(all.len());
        for ((node, request), may) in all.into_iter().zip(screened) {
            let of_node = of_node.entry(node).or_insert(0);
            let read = if may && left > 0 && *of_node < PER_NODE && !self.resting.contains_key(&request.uid) {
                left -= 1;
                *of_node += 1;
                self.reader.read(request).await
            } else {
                Read::NotYet
            };
            reads.push((node.to_owned(), request.clone(), read));
        }
        reads
    }
}

/// Notices that the wall clock was set.
#[derive(Debug, Default)]
struct Clock {
    last: Option<(Time, Instant)>,
}

impl Clock {
    fn was_set(&mut self, wall: Time) -> bool {
        let now = Instant::now();
        let last = self.last.replace((wall, now));
        last.is_some_and(|(before, at)| {
            let passed = super::time::seconds(now.duration_since(at));
            (before.age(wall) - passed).abs() > STEP
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_is_noticed_once() {
        let mut clock = Clock::default();
        assert!(!clock.was_set(Time(1000)));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(!clock.was_set(Time(1100)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(clock.was_set(Time(1105 - 3600)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!clock.was_set(Time(1110 - 3600)));
        assert!(clock.was_set(Time(1110)));
    }
}
