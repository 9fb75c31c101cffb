//! Every decision leaves a log line with its evidence, an Event on the pod and a counter. Said when it is new, not each
//! time it is asked again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};

use super::board::{Board, Told};
use super::client::call;
use super::evict::Outcome;
use super::guard::{Guard, Holds};
use super::history::Answer;
use super::plan::words::evidence;
use super::plan::{Case, Refusal};
use super::time::Time;
use crate::config::RemedyMode;

/// An Event's note may have 1 kB.
const NOTE: usize = 1000;

/// Says what was decided.
pub(super) struct Voice {
    board: Arc<Board>,
    client: Client,
    recorder: Recorder,
    mode: RemedyMode,
    /// What was said of each pod that is asked for.
    said: HashMap<String, HashSet<Guard>>,
}

impl Voice {
    pub(super) fn new(client: Client, instance: &str, board: Arc<Board>, mode: RemedyMode) -> Voice {
        let reporter = Reporter { controller: "mountwarden-coordinator".into(), instance: Some(instance.into()) };
        Voice { board, recorder: Recorder::new(client.clone(), reporter), client, mode, said: HashMap::new() }
    }

    /// Forgets what was said of pods that nobody asks for any more.
    pub(super) fn keep(&mut self, asked: impl Fn(&str) -> bool) {
        self.said.retain(|uid, _| asked(uid));
    }

    /// A guard said no.
    pub(super) async fn refused(&mut self, case: &Case<'_>, refusal: &Refusal, wall: Time) {
        let request = case.request;
        if !self.said.entry(request.uid.clone()).or_default().insert(refusal.guard) {
            return;
        }
        let told = self.told(case, wall, Some(refusal.guard), refusal.words());
        tracing::info!(
            namespace = request.namespace,
            pod = request.pod,
            uid = request.uid,
            node = case.node,
            guard = refusal.guard.as_str(),
            mode = self.mode.as_str(),
            evidence = told.evidence,
            "not evicted: {}",
            refusal.words()
        );
        self.board.tell(told, Some(refusal.guard));
        if refusal.worth_telling() && self.is_its_pod(case).await {
            let reason = match refusal.guard.holds() {
                Holds::Wait => "MountEvictionBlocked",
                Holds::Permanent => "MountEvictionRefused",
            };
            let action = format!("Evict:{}", refusal.guard.as_str());
            self.event(case, EventType::Warning, reason, action, refusal.sentence()).await;
        }
    }

    /// An eviction was tried.
    pub(super) async fn tried(&mut self, case: &Case<'_>, outcome: &Outcome, wall: Time) {
        let result = match outcome.answer {
            Answer::Accepted => "accepted",
            Answer::Simulated => "simulated",
            Answer::Refused => "refused",
            Answer::Unknown => "unknown",
        };
        self.board.result(result);
        if let Some(guard) = outcome.guard {
            self.board.error("eviction");
            return self.refused(case, &Refusal { guard, detail: outcome.words.clone() }, wall).await;
        }
        self.said.remove(&case.request.uid);
        let (request, dry) = (case.request, outcome.answer == Answer::Simulated);
        let words = if dry { "a dry run: it would be evicted" } else { "evicted" };
        let told = self.told(case, wall, None, words.to_owned());
        tracing::warn!(
            namespace = request.namespace,
            pod = request.pod,
            uid = request.uid,
            node = case.node,
            mode = self.mode.as_str(),
            evidence = told.evidence,
            "{words}"
        );
        let note = format!("{words}: {}", told.evidence);
        self.board.tell(told, None);
        self.event(case, EventType::Normal, "MountEvictionRequested", "Evict".to_owned(), note).await;
    }

    fn told(&self, case: &Case<'_>, wall: Time, guard: Option<Guard>, words: String) -> Told {
        Told {
            at: wall.to_string(),
            decision: if guard.is_some() { "refuse" } else { "evict" },
            mode: self.mode.as_str(),
            namespace: case.request.namespace.clone(),
            pod: case.request.pod.clone(),
            uid: case.request.uid.clone(),
            node: case.node.to_owned(),
            server: case.request.server.clone(),
            guard: guard.map(Guard::as_str),
            holds: guard.map(|guard| guard.holds().as_str()),
            words,
            evidence: evidence(case),
        }
    }

    /// A request is a node's word: it must not make us write Events about pods that are not that node's.
    async fn is_its_pod(&self, case: &Case<'_>) -> bool {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &case.request.namespace);
        let Ok(Some(pod)) = call(pods.get_opt(&case.request.pod)).await else { return false };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        pod.metadata.uid.as_deref() == Some(&case.request.uid) && node == Some(case.node)
    }

    /// `action` has the guard: of two Events that differ in their note alone the recorder only counts the second.
    async fn event(&self, case: &Case<'_>, type_: EventType, reason: &str, action: String, note: String) {
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(case.request.namespace.clone()),
            name: Some(case.request.pod.clone()),
            uid: Some(case.request.uid.clone()),
            ..ObjectReference::default()
        };
        let event = Event { type_, reason: reason.to_owned(), note: Some(clip(note)), action, secondary: None };
        if let Err(failure) = call(self.recorder.publish(&event, &pod)).await {
            self.board.error("event");
            tracing::warn!(pod = case.request.pod, reason, "the Event could not be written: {failure}");
        }
    }
}

fn clip(mut note: String) -> String {
    if note.len() > NOTE {
        let mut end = NOTE;
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
    }
    note
}
