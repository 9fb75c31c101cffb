//! From what the node sees to what is said about it: one line and one Event per transition and pod. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::absent::Absent;
use super::objects::Objects;
use super::text;
use super::uses::{self, Place, Use};
use super::waits::Waits;
use crate::pods::names::{PodName, PodNames};
use crate::snapshot::{Snapshot, UnixSeconds, rfc3339 as time};
use crate::verdict::{Cause, State};

/// A claim that so many pods of this node share gets an Event of its own.
pub(super) const MANY: usize = 2;

/// An Event that is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wish {
    /// What it is about.
    pub(super) about: About,
    /// What it says of that: a later wish with the same topic replaces one that was not sent yet.
    pub(super) topic: String,
    /// `MountHung`, ...
    pub(super) reason: &'static str,
    /// A warning, not news of what is well again.
    pub(super) warning: bool,
    /// What happened, why, since when, and what to do.
    pub(super) note: String,
    /// When it happened.
    pub(super) at: UnixSeconds,
}

/// An object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct About {
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// `namespace/pod`, or the UID of a pod without a name.
    pub(super) pod: String,
    pub(super) volume: String,
    /// The word of its state, `pending` where it is not mounted yet.
    pub(super) state: &'static str,
    /// There is nothing the matter any more.
    pub(super) well: bool,
    /// Word of its cause, or of the finding; empty where there is none.
    pub(super) cause: &'static str,
    pub(super) words: String,
}

/// How bad a state of something is known to be by those who read the Events.
#[derive(Debug, Clone, Copy)]
struct Standing {
    state: State,
    cause: Option<Cause>,
    /// When it left `healthy`.
    bad_since: UnixSeconds,
    /// The line was written, and how well the pod was known then.
    said: bool,
    named: Named,
    /// An Event was wished for this state.
    announced: bool,
    /// One was wished since it left `healthy`.
    ever: bool,
}

/// How well a pod is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Uid,
    Orphan,
    Pod,
}

/// What is not well, by pod and volume and by claim.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    pods: BTreeMap<Place, Standing>,
    claims: HashMap<(String, String), Standing>,
    waits: Waits,
    absent: Absent,
}

/// What one look at the node gives.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) lines: Vec<Said>,
    pub(super) wishes: Vec<Wish>,
}

/// The reason of an Event about a state; none for those that need nobody's attention.
pub(super) fn reason(state: State) -> Option<&'static str> {
    match state {
        State::Hung => Some("MountHung"),
        State::Stale => Some("MountStale"),
        State::Lost => Some("MountLost"),
        State::Readonly => Some("MountReadonly"),
        State::Denied => Some("MountDenied"),
        State::Full => Some("MountFull"),
        State::Corrupt => Some("MountCorrupt"),
        State::Error => Some("MountError"),
        State::Healthy | State::Slow | State::Unknown => None,
    }
}

/// The reason of the Event that ends one of the others.
pub(super) const RECOVERED: &str = "MountRecovered";

/// The reason of the Event about a volume that cannot be mounted, so that its pod does not start.
pub(super) const PENDING: &str = "MountPending";

impl Reporter {
    /// Compares the node with what was said last.
    pub(super) fn look(&mut self, snapshot: &Snapshot, names: &PodNames, objects: &Objects) -> News {
        let mut news = News::default();
        if !snapshot.ready {
            return news;
        }
        self.absent.look(snapshot, names);
        let uses = uses::of(snapshot, names);
        for (place, found) in &uses {
            self.pod(place, found, snapshot.generated, names, &mut news);
        }
        // A volume that is no longer there did not recover: its pod is gone, or is mounted anew under another target.
        self.pods.retain(|place, _| uses.contains_key(place));
        self.shared_claims(&uses, snapshot.generated, names, objects, &mut news);
        self.waits.look(snapshot, names, objects, &mut news);
        news
    }

    /// Pods without an object.
    pub(super) fn absent(&self) -> &Absent {
        &self.absent
    }

    fn pod(&mut self, place: &Place, found: &Use, now: UnixSeconds, names: &PodNames, news: &mut News) {
        let pod = names.pod(&place.uid);
        let present = self.pods.get(place).copied();
        match found.state {
            // Nothing is known that was not said.
            State::Unknown => {}
            State::Healthy => {
                let Some(before) = self.pods.remove(place) else { return };
                let end = Ended { before, at: found.since.min(now) };
                news.lines.push(said(place, &self.absent.name(&place.uid, names), pod, found, end.words()));
                if let Some(pod) = pod.filter(|_| before.ever) {
                    news.wishes.push(wish(
                        about_pod(pod),
                        &place.directory,
                        RECOVERED,
                        note(place, pod, found, &end.words(), false),
                        end.at,
                    ));
                }
            }
            state => {
                let mut standing = begun(present, found);
                let words = standing.words(found);
                let named = match pod {
                    Some(_) => Named::Pod,
                    None if self.absent.is_orphan(&place.uid) => Named::Orphan,
                    None => Named::Uid,
                };
                if !standing.said || standing.named < named {
                    (standing.said, standing.named) = (true, named);
                    news.lines.push(said(place, &self.absent.name(&place.uid, names), pod, found, words.clone()));
                }
                if let (Some(pod), Some(reason), false) = (pod, reason(state), standing.announced) {
                    (standing.announced, standing.ever) = (true, true);
                    news.wishes.push(wish(
                        about_pod(pod),
                        &place.directory,
                        reason,
                        note(place, pod, found, &words, true),
                        found.since,
                    ));
                }
                self.pods.insert(place.clone(), standing);
            }
        }
    }

    /// Claims that several pods of this node share: one Event for all of them.
    fn shared_claims(
        &mut self,
        uses: &BTreeMap<Place, Use>,
        now: UnixSeconds,
        names: &PodNames,
        objects: &Objects,
        news: &mut News,
    ) {
        let mut users: BTreeMap<(String, String), (BTreeSet<&str>, &Use)> = BTreeMap::new();
        for (place, found) in uses {
            let Some(pod) = names.pod(&place.uid) else { continue };
            let Some(claim) = pod.volume_in(&place.directory).and_then(|volume| volume.claim.clone()) else { continue };
            let (pods, worst) = users.entry((pod.namespace.clone(), claim)).or_insert((BTreeSet::new(), found));
            pods.insert(&place.uid);
            if uses::rank(worst.state) < uses::rank(found.state) {
                *worst = found;
            }
        }
        self.claims.retain(|key, _| users.contains_key(key));
        for (key, (pods, worst)) in users {
            let Some(claim) = objects.claim(&key.0, &key.1).filter(|_| pods.len() >= MANY) else { continue };
            let about = About {
                kind: "PersistentVolumeClaim",
                namespace: key.0.clone(),
                name: key.1.clone(),
                uid: claim.metadata.uid.clone(),
            };
            let many = format!("{} pods of this node share it", pods.len());
            if worst.state == State::Healthy {
                if let Some(before) = self.claims.remove(&key).filter(|before| before.ever) {
                    let end = Ended { before, at: worst.since.min(now) };
                    let words = format!("{} {}; {many}", source_of(worst), end.words());
                    news.wishes.push(wish(about, &key.1, RECOVERED, text::line(&words, text::NOTE), end.at));
                }
                continue;
            }
            let mut standing = begun(self.claims.get(&key).copied(), worst);
            if let (Some(reason), false) = (reason(worst.state), standing.announced) {
                (standing.announced, standing.ever) = (true, true);
                let words = format!("{} {}; {many}. {}", source_of(worst), standing.words(worst), worst.advice);
                news.wishes.push(wish(about, &key.1, reason, text::line(&words, text::NOTE), worst.since));
            }
            if worst.state != State::Unknown {
                self.claims.insert(key, standing);
            }
        }
    }
}

/// The standing of what is found, going on from the one before.
fn begun(before: Option<Standing>, found: &Use) -> Standing {
    match before {
        Some(before) if before.state == found.state => Standing { cause: found.cause.or(before.cause), ..before },
        Some(before) => Standing {
            state: found.state,
            cause: found.cause,
            said: false,
            named: Named::Uid,
            announced: false,
            ..before
        },
        None => Standing {
            state: found.state,
            cause: found.cause,
            bad_since: found.since,
            said: false,
            named: Named::Uid,
            announced: false,
            ever: false,
        },
    }
}

impl Standing {
    fn words(&self, found: &Use) -> String {
        let mut words = format!("is {} since {}", found.state, time(found.since));
        if found.since - self.bad_since >= 1.0 {
            words.push_str(&format!(" (not healthy since {})", time(self.bad_since)));
        }
        if let Some(cause) = found.cause {
            words.push_str(&format!(": {cause}"));
        }
        words
    }
}

/// It works again.
struct Ended {
    before: Standing,
    at: UnixSeconds,
}

impl Ended {
    fn words(&self) -> String {
        let Standing { state, cause, bad_since, .. } = self.before;
        let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        format!("works again since {}; was {state}{cause} since {}", time(self.at), time(bad_since))
    }
}

pub(super) fn about_pod(pod: &PodName) -> About {
    About { kind: "Pod", namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.api_uid.clone() }
}

fn wish(about: About, volume: &str, reason: &'static str, note: String, at: UnixSeconds) -> Wish {
    let topic = format!("{}/{volume}", about.uid);
    Wish { about, topic, reason, warning: reason != RECOVERED, note, at }
}

fn source_of(found: &Use) -> String {
    text::word(&found.source)
}

/// `volume data (claim web, srv:/export) is hung since ...: server_refused. Advice`
fn note(place: &Place, pod: &PodName, found: &Use, words: &str, advise: bool) -> String {
    let source = source_of(found);
    let named = match pod.volume_in(&place.directory) {
        Some(volume) => match &volume.claim {
            Some(claim) => format!("volume {} (claim {}, {source})", text::word(&volume.volume), text::word(claim)),
            None => format!("volume {} ({source})", text::word(&volume.volume)),
        },
        None => format!("volume {} ({source})", text::word(&place.directory)),
    };
    let advice = if advise { format!(". {}", found.advice) } else { String::new() };
    text::line(&format!("{named} {words}{advice}"), text::NOTE)
}

fn said(place: &Place, name: &str, pod: Option<&PodName>, found: &Use, words: String) -> Said {
    let volume = pod.and_then(|pod| pod.volume_in(&place.directory)).map_or(&place.directory, |volume| &volume.volume);
    let (pod, volume) = (text::word(name), text::word(volume));
    let words = text::line(&format!("{pod}: volume {volume} ({}) {words}", source_of(found)), text::NOTE);
    let (state, well) = (found.state.as_str(), found.state == State::Healthy);
    let cause = found.cause.map_or("", Cause::as_str);
    Said { pod, volume, state, well, cause, words }
}

#[cfg(test)]
mod tests;
