//! From a decision to a call: everything is read and decided again, the reservation is written, and only then is the pod
//! evicted.

use tokio::time::Instant;

use super::client::Failure;
use super::evict::{Outcome, evict};
use super::guard::{Blind, Guard};
use super::history::{Answer, History, Record};
use super::plan::{Case, Decision, Refusal, Round};
use super::run::Coordinator;
use super::store::{Stored, Written};
use super::switch;
use crate::config::RemedyMode;

/// Tries to write over a history that somebody else wrote meanwhile.
const TRIES: usize = 3;

impl Coordinator {
    /// The settings and the standing of this moment, over this history.
    pub(super) fn round<'a>(
        &'a self,
        history: Option<&'a History>,
        nodes: &'a [super::request::NodeView],
        stopped: Option<&'a str>,
    ) -> Round<'a> {
        Round {
            remedy: &self.remedy,
            unstick: &self.unstick,
            wall: super::run::wall(),
            leader: self.held.borrow().may_act(Instant::now()),
            stopped,
            history,
            nodes,
            blind: Blind::NONE,
        }
    }

    /// Evicts one pod, if all still holds.
    pub(super) async fn act(&mut self, case: &Case<'_>) {
        let (wall, begun) = (super::run::wall(), Instant::now());
        match self.reserve(case).await {
            Ok(record) => {
                let outcome = self.make(&record, begun).await;
                self.settle(&record.uid, &outcome.answer).await;
                self.voice.tried(case, &outcome, wall).await;
            }
            Err(refusal) => self.voice.refused(case, &refusal, wall).await,
        }
    }

    /// Decides anew on what is read now, and writes the eviction down. Whoever loses the write decides anew.
    async fn reserve(&mut self, case: &Case<'_>) -> Result<Record, Refusal> {
        for _ in 0..TRIES {
            let read = self.reader.read(case.request).await;
            let stored = self.load().await.map_err(|failure| Refusal::new(Guard::History, failure.to_string()))?;
            let nodes = self.views.all();
            // What the agent says now, if it still says anything.
            let asked = nodes.iter().find(|view| view.node == case.node);
            let request = asked.and_then(|view| view.requests.iter().find(|one| one.uid == case.request.uid));
            let Some(request) = request else {
                return Err(Refusal::new(Guard::Stale, "its agent asks no more"));
            };
            let case = Case { request, read: &read, ..*case };
            match self.round(Some(&stored.history), &nodes, None).decide(&case) {
                Decision::Refuse(refusal) => return Err(refusal),
                Decision::Evict(record) => {
                    let mut history = stored.history.clone();
                    history.reserve((*record).clone(), self.remedy.cool_down, super::run::wall());
                    match self.store.write(&stored, history).await {
                        Written::Yes(_) => return Ok(*record),
                        Written::Conflict => {}
                        Written::Failed(failure) => {
                            self.board.error("history");
                            return Err(Refusal::new(Guard::History, format!("it could not be written: {failure}")));
                        }
                    }
                }
            }
        }
        Err(Refusal::new(Guard::History, "others write it all the time"))
    }

    /// The call, with the last look at the switch and the Lease right before it.
    async fn make(&self, record: &Record, begun: Instant) -> Outcome {
        let no = |guard, words: String| Outcome { answer: Answer::Refused, guard: Some(guard), words };
        if let Err(why) = switch::read(&self.cluster.client, &self.cluster.namespace).await {
            return no(Guard::KillSwitch, why);
        }
        let now = Instant::now();
        if !self.held.borrow().may_act(now) {
            return no(Guard::Leader, String::new());
        }
        // A process that was stopped in between may lead again, but what it decided and reserved is of another time.
        if now.duration_since(begun) > super::lease::HOLD {
            return no(Guard::Leader, "too much time passed between decision and call".to_owned());
        }
        evict(&self.cluster.client, record, self.remedy.mode == RemedyMode::DryRun).await
    }

    /// Writes down how it ended. Where that fails the reservation stands, and a look at the pod tells later.
    async fn settle(&self, uid: &str, answer: &Answer) {
        for _ in 0..TRIES {
            let Ok(stored) = self.load().await else { return };
            let mut history = stored.history.clone();
            history.answered(uid, answer, super::run::wall());
            match self.store.write(&stored, history).await {
                Written::Conflict => {}
                Written::Yes(_) => return,
                Written::Failed(failure) => {
                    self.board.error("history");
                    tracing::warn!(uid, "how the eviction ended could not be written down: {failure}");
                    return;
                }
            }
        }
    }

    pub(super) async fn load(&self) -> Result<Stored, Failure> {
        let loaded = self.store.load(super::run::wall()).await;
        if let Err(failure) = &loaded {
            self.board.error("history");
            tracing::warn!("the history cannot be read, so nothing is done: {failure}");
        }
        loaded
    }
}
