//! Events: what is wished is sent once, in order, within a budget, and kept while the API server is away.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::api::{Failure, Kube, Object, Patch};
use super::backoff::Backoff;
use super::pace::Pace;
use super::report::Wish;
use super::stats::Stats;

/// Events that may be sent at once: a node full of pods (110) whose server went away.
const BURST: u32 = 120;

/// Events that wait: as many as the largest nodes have pods.
const MAX_WAITING: usize = 512;

/// Events that are remembered to be counted up.
const MAX_SENT: usize = 1024;

/// `reportingController` of our Events.
const CONTROLLER: &str = "mountwarden.io/agent";

/// What waits and what was sent.
pub(super) struct Outbox {
    pace: Pace,
    stats: Stats,
    waiting: VecDeque<Waiting>,
    sent: HashMap<(String, &'static str), Sent>,
    /// Namespaces that turn Events away: theirs wait, and no others.
    held: BTreeMap<String, Held>,
    /// Events that may be sent now, and when that was counted.
    tokens: f64,
    counted: Instant,
}

struct Waiting {
    wish: Wish,
    /// It was sent before, and no answer came: it may be there.
    tried: bool,
}

struct Held {
    since: Instant,
    not_before: Instant,
    backoff: Backoff,
    words: String,
}

struct Sent {
    name: String,
    count: u32,
    at: Instant,
}

/// What to do for a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Create(String),
    /// Count up the Event of this name.
    Series(String, u32),
}

impl Outbox {
    pub(super) fn new(pace: Pace, stats: Stats) -> Outbox {
        Outbox {
            pace,
            stats,
            waiting: VecDeque::new(),
            sent: HashMap::new(),
            held: BTreeMap::new(),
            tokens: f64::from(BURST),
            counted: Instant::now(),
        }
    }

    /// Takes a wish in. An older one about the same that was not sent yet is replaced: what it said is in the newer one.
    pub(super) fn push(&mut self, wish: Wish) {
        if let Some(old) = self.waiting.iter_mut().find(|old| old.wish.topic == wish.topic) {
            *old = Waiting { wish, tried: false };
            self.stats.dropped("superseded");
        } else if self.waiting.len() >= MAX_WAITING {
            self.stats.dropped("budget");
        } else {
            self.waiting.push_back(Waiting { wish, tried: false });
        }
        self.note_waiting();
    }

    fn note_waiting(&self) {
        let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        self.stats.change(|stats| stats.events_waiting = waiting);
    }

    /// When the next one may be sent; none while nothing waits.
    fn due(&mut self, now: Instant) -> Option<Instant> {
        let earned = now.duration_since(self.counted).as_secs_f64() / self.pace.event.as_secs_f64();
        self.tokens = (self.tokens + earned).min(f64::from(BURST));
        self.counted = now;
        let held = |waiting: &Waiting| self.held.get(&waiting.wish.about.namespace);
        let earliest = self.waiting.iter().map(|waiting| held(waiting).map_or(now, |held| held.not_before)).min()?;
        let missing = (1.0 - self.tokens).max(0.0);
        Some(earliest.max(now + self.pace.event.mul_f64(missing)))
    }

    /// The oldest that may be sent, and whether it was sent before without an answer.
    fn next(&mut self, now: Instant) -> Option<(Wish, bool)> {
        let held = &self.held;
        let may_go = |wish: &Wish| held.get(&wish.about.namespace).is_none_or(|held| held.not_before <= now);
        let waiting = self.waiting.iter_mut().find(|waiting| may_go(&waiting.wish))?;
        Some((waiting.wish.clone(), std::mem::replace(&mut waiting.tried, true)))
    }

    /// How the wish is to be sent. A first Event has a name that a restarted agent finds again; a further incident, later
    /// than the series goes, one of its own.
    fn step(&self, wish: &Wish, now: Instant) -> Step {
        match self.sent.get(&(wish.topic.clone(), wish.reason)) {
            Some(sent) if now.duration_since(sent.at) < self.pace.series => {
                Step::Series(sent.name.clone(), sent.count + 1)
            }
            Some(_) => Step::Create(name(wish, true)),
            None => Step::Create(name(wish, false)),
        }
    }

    fn done(&mut self, wish: &Wish, name: String, count: u32, now: Instant) {
        self.held.remove(&wish.about.namespace);
        self.waiting.retain(|waiting| waiting.wish != *wish);
        self.note_waiting();
        self.tokens -= 1.0;
        if self.sent.len() >= MAX_SENT {
            let oldest = self.sent.iter().min_by_key(|(_, sent)| sent.at).map(|(key, _)| key.clone());
            oldest.map(|key| self.sent.remove(&key));
        }
        self.sent.insert((wish.topic.clone(), wish.reason), Sent { name, count, at: now });
        self.stats.sent(wish.reason);
    }

    /// It was turned away in a way that may pass (a right, a webhook, an API that is not served yet): the Events of its
    /// namespace wait. One that comes an hour after the first refusal, or waited so long, is no news any more.
    fn hold(&mut self, wish: &Wish, failure: &Failure, now: Instant) {
        let namespace = &wish.about.namespace;
        let backoff = || Backoff::new(self.pace.first_retry, self.pace.longest_retry);
        let held = self.held.entry(namespace.clone()).or_insert_with(|| Held {
            since: now,
            not_before: now,
            backoff: backoff(),
            words: String::new(),
        });
        held.not_before = now + held.backoff.after(failure);
        held.words = format!("Events in namespace {namespace:?} wait: {failure}");
        if now.duration_since(held.since) >= self.pace.give_up {
            self.refuse(wish);
        }
    }

    /// Why Events wait, of the first namespace that turns them away.
    fn trouble(&self) -> Option<String> {
        self.held.values().next().map(|held| held.words.clone())
    }

    /// It will never be taken.
    fn refuse(&mut self, wish: &Wish) {
        self.waiting.retain(|waiting| waiting.wish != *wish);
        if !self.waiting.iter().any(|waiting| waiting.wish.about.namespace == wish.about.namespace) {
            self.held.remove(&wish.about.namespace);
        }
        self.note_waiting();
        self.stats.dropped("refused");
    }
}

/// `<object>.<16 hex digits>`; as long as a name may be.
fn name(wish: &Wish, own: bool) -> String {
    let mut hasher = DefaultHasher::new();
    (&wish.topic, wish.reason).hash(&mut hasher);
    if own {
        wish.at.to_bits().hash(&mut hasher);
    }
    let object: String = wish.about.name.chars().take(200).collect();
    format!("{}.{:016x}", object.trim_end_matches(['.', '-']), hasher.finish())
}

/// Sends what comes in, for ever.
pub(super) struct Sender {
    kube: Kube,
    node: String,
    pace: Pace,
    stats: Stats,
    outbox: Outbox,
}

impl Sender {
    pub(super) fn new(kube: Kube, node: &str, pace: Pace, stats: Stats) -> Sender {
        let outbox = Outbox::new(pace, stats.clone());
        Sender { kube, node: node.to_owned(), pace, stats, outbox }
    }

    /// Until the reporter ends.
    pub(super) async fn run(mut self, mut wishes: mpsc::Receiver<Wish>) {
        let mut backoff = Backoff::new(self.pace.first_retry, self.pace.longest_retry);
        let mut not_before = Instant::now();
        loop {
            let due = self.outbox.due(Instant::now()).map(|at| at.max(not_before));
            let wait = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                wish = wishes.recv() => match wish {
                    Some(wish) => self.outbox.push(wish),
                    None => return,
                },
                () = wait => match self.send_next().await {
                    Ok(()) => {
                        backoff.reset();
                        self.stats.trouble("events", self.outbox.trouble());
                    }
                    Err(failure) => {
                        self.stats.trouble("events", Some(format!("Events wait: {failure}")));
                        not_before = Instant::now() + backoff.after(&failure);
                    }
                },
            }
        }
    }

    /// Sends the oldest that may be sent.
    ///
    /// # Errors
    /// The server takes nothing at present: all Events wait.
    async fn send_next(&mut self) -> Result<(), Failure> {
        let Some((wish, tried)) = self.outbox.next(Instant::now()) else { return Ok(()) };
        let base = format!("/apis/events.k8s.io/v1/namespaces/{}/events", wish.about.namespace);
        let mut step = self.outbox.step(&wish, Instant::now());
        loop {
            let result = match &step {
                Step::Create(name) => self.kube.create("events", &base, &event(&wish, name, &self.node)).await,
                Step::Series(name, count) => {
                    let series = json!({"series": {"count": count, "lastObservedTime": micros(wish.at)}});
                    self.kube.patch("events", &format!("{base}/{name}"), Patch::Merge, &series).await
                }
            };
            let now = Instant::now();
            match (result, step) {
                (Ok(_), Step::Create(name)) => self.outbox.done(&wish, name, 1, now),
                (Ok(_), Step::Series(name, count)) => self.outbox.done(&wish, name, count, now),
                // The answer to the first try was lost; the Event was not.
                (Err(failure), Step::Create(name)) if failure.is(409) && tried => {
                    self.outbox.done(&wish, name, 1, now);
                }
                // An agent before this one sent it.
                (Err(failure), Step::Create(name)) if failure.is(409) => {
                    step = Step::Series(name, 2);
                    continue;
                }
                // It is too old to be kept.
                (Err(failure), Step::Series(..)) if failure.is(404) => {
                    step = Step::Create(name(&wish, true));
                    continue;
                }
                (Err(failure), _) if is_final(&failure) => self.outbox.refuse(&wish),
                (Err(failure), _) if failure.is(404) && self.is_gone(&wish.about.namespace).await => {
                    self.outbox.refuse(&wish);
                }
                (Err(failure), _) if matches!(failure.code(), Some(403 | 404 | 409)) => {
                    self.outbox.hold(&wish, &failure, now);
                }
                (Err(failure), _) => return Err(failure),
            }
            return Ok(());
        }
    }

    /// There is no such namespace, by the word of a server that knows others: one that answers 404 to everything (a proxy
    /// before it, an API that is not served yet) knows nothing. The one that is there is asked for first: what answered
    /// the Event with 404 may get well between two questions.
    async fn is_gone(&self, namespace: &str) -> bool {
        let there = |name: &str| {
            let path = format!("/api/v1/namespaces/{name}");
            async move { self.kube.get::<Object>("namespaces", &path).await }
        };
        let knows_others = there("default").await.is_ok_and(|found| found.metadata.name == "default");
        knows_others && there(namespace).await.is_err_and(|failure| failure.is(404))
    }
}

/// The namespace is going, or the Event is not one: sending it again helps nobody.
fn is_final(failure: &Failure) -> bool {
    match failure {
        Failure::Refused { code: 403, message, .. } => message.contains("because it is being terminated"),
        Failure::Refused { code, .. } => matches!(code, 400 | 413 | 422),
        _ => false,
    }
}

fn event(wish: &Wish, name: &str, node: &str) -> Value {
    let about = &wish.about;
    let instance: String = node.chars().take(128).collect();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": about.namespace},
        "eventTime": micros(wish.at),
        "type": if wish.warning { "Warning" } else { "Normal" },
        "reason": wish.reason,
        "action": "Probe",
        "note": wish.note,
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": "v1",
            "kind": about.kind,
            "namespace": if about.kind == "Node" { "" } else { about.namespace.as_str() },
            "name": about.name,
            "uid": about.uid,
        },
    })
}

/// RFC 3339 with microseconds (`MicroTime`).
fn micros(at: f64) -> String {
    let at = std::time::Duration::try_from_secs_f64(at).unwrap_or_default();
    humantime::format_rfc3339_micros(std::time::UNIX_EPOCH + at).to_string()
}

#[cfg(test)]
mod tests;
