//! What is said about pods that wait for a volume: one line and one Event when it is known why, and when it is over. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::objects::Objects;
use super::report::{About, MANY, News, PENDING, RECOVERED, Said, Wish, about_pod};
use super::text;
use crate::pods::names::PodNames;
use crate::snapshot::{PendingVolume, Snapshot, UnixSeconds, rfc3339 as time};

/// What was said about one volume of one pod, or about one claim.
#[derive(Debug, Clone, Copy)]
struct Told {
    why: &'static str,
    since: UnixSeconds,
}

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// By pod UID and volume.
    pods: BTreeMap<(String, String), Told>,
    /// By namespace and claim.
    claims: HashMap<(String, String), Told>,
}

impl Waits {
    /// Compares who waits with what was said last.
    pub(super) fn look(&mut self, snapshot: &Snapshot, names: &PodNames, objects: &Objects, news: &mut News) {
        let key = |row: &PendingVolume| (row.pod_uid.clone(), row.volume.clone());
        let blocked = || snapshot.pending.iter().filter(|row| row.blocked && !row.pod.is_empty());
        for row in blocked() {
            let said = Told { why: row.why(), since: row.since };
            let before = self.pods.insert(key(row), said);
            if before.is_some_and(|before| before.why == row.why()) {
                continue;
            }
            let Some(pod) = names.pod(&row.pod_uid) else { continue };
            let words = words(row);
            news.lines.push(line(row, &words, false));
            news.wishes.push(wish(about_pod(pod), row, PENDING, &note(row, &words), snapshot.generated));
        }
        self.claims(blocked(), objects, snapshot.generated, news);
        let present: BTreeSet<(String, String)> = snapshot.pending.iter().map(key).collect();
        // Of more rows than are listed nobody knows which are gone.
        if snapshot.pending_count > snapshot.pending.len() {
            return;
        }
        let over: Vec<_> = self.pods.keys().filter(|key| !present.contains(*key)).cloned().collect();
        for key in over {
            let Some(said) = self.pods.remove(&key) else { continue };
            // A pod that is gone did not get its volume.
            let Some(pod) = names.pod(&key.0).filter(|pod| !pod.terminating) else { continue };
            let row = PendingVolume {
                pod_uid: key.0,
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                volume: key.1,
                ..PendingVolume::default()
            };
            let volume = text::word(&row.volume);
            let Told { why, since } = said;
            let words =
                format!("volume {volume} is no longer waited for; the pod had waited since {} ({why})", time(since));
            news.lines.push(line(&row, &words, true));
            news.wishes.push(wish(about_pod(pod), &row, RECOVERED, &words, snapshot.generated));
        }
    }

    /// A claim that several pods of this node wait for: one Event for all of them.
    fn claims<'a>(
        &mut self,
        blocked: impl Iterator<Item = &'a PendingVolume>,
        objects: &Objects,
        now: UnixSeconds,
        news: &mut News,
    ) {
        let mut waiting: BTreeMap<(String, String), (usize, &PendingVolume)> = BTreeMap::new();
        for row in blocked {
            let Some(claim) = &row.claim else { continue };
            waiting.entry((row.namespace.clone(), claim.clone())).or_insert((0, row)).0 += 1;
        }
        self.claims.retain(|key, _| waiting.contains_key(key));
        for (key, (pods, row)) in waiting {
            let Some(claim) = objects.claim(&key.0, &key.1).filter(|_| pods >= MANY) else { continue };
            let about = About {
                kind: "PersistentVolumeClaim",
                namespace: key.0.clone(),
                name: key.1.clone(),
                uid: claim.metadata.uid.clone(),
            };
            let before = self.claims.insert(key, Told { why: row.why(), since: row.since });
            if before.is_none_or(|before| before.why != row.why()) {
                let words = format!("{pods} pods of this node wait for it. {}", note(row, &words(row)));
                news.wishes.push(wish(about, row, PENDING, &words, now));
            }
        }
    }
}

/// `volume data (claim web, srv:/export) is not mounted, and the pod waits since ...: server_refused`
fn words(row: &PendingVolume) -> String {
    let claim = row.claim.as_ref().map(|claim| format!("claim {}, ", text::word(claim))).unwrap_or_default();
    format!(
        "volume {} ({claim}{}) is not mounted, and the pod waits since {}: {}",
        text::word(&row.volume),
        text::word(&row.source),
        time(row.since),
        row.why()
    )
}

fn note(row: &PendingVolume, words: &str) -> String {
    [format!("{words}."), row.evidence.clone(), row.advice.clone()]
        .iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn line(row: &PendingVolume, words: &str, well: bool) -> Said {
    let pod = text::word(&format!("{}/{}", row.namespace, row.pod));
    let evidence = if row.evidence.is_empty() { String::new() } else { format!(". {}", row.evidence) };
    let words = text::line(&format!("{pod}: {words}{evidence}"), text::NOTE);
    let state = if well { "mounted" } else { "pending" };
    let cause = if well { "" } else { row.why() };
    Said { pod, volume: text::word(&row.volume), state, well, cause, words }
}

fn wish(about: About, row: &PendingVolume, reason: &'static str, note: &str, at: UnixSeconds) -> Wish {
    let topic = format!("{}/{}/pending", about.uid, row.volume);
    Wish { about, topic, reason, warning: reason == PENDING, note: text::line(note, text::NOTE), at }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::cluster::tests::bench::{snapshot, uid};
    use crate::pods::names::PodName;
    use crate::verdict::Cause;

    fn names(pods: &[usize], terminating: bool) -> PodNames {
        let pod = |index: &usize| {
            let name =
                PodName { namespace: "shop".into(), name: format!("web-{index}"), terminating, ..PodName::default() };
            (uid(*index), name)
        };
        PodNames::new(pods.iter().map(pod).collect::<HashMap<_, _>>(), true)
    }

    fn row(pod: usize, cause: Option<Cause>) -> PendingVolume {
        PendingVolume {
            pod_uid: uid(pod),
            namespace: "shop".into(),
            pod: format!("web-{pod}"),
            volume: "data".into(),
            claim: Some("data".into()),
            source: "srv:/a".into(),
            since: 60.0,
            blocked: cause.is_some(),
            cause,
            evidence: "Nothing answers.".into(),
            advice: "Look.".into(),
            ..PendingVolume::default()
        }
    }

    fn look(waits: &mut Waits, rows: &[PendingVolume], names: &PodNames) -> (usize, Vec<(&'static str, String)>) {
        let mut news = News::default();
        let mut snapshot = snapshot(&[]);
        (snapshot.pending, snapshot.pending_count) = (rows.to_vec(), rows.len());
        let objects =
            Objects { claims: HashMap::from([(("shop".into(), "data".into()), Arc::default())]), ..Objects::default() };
        waits.look(&snapshot, names, &objects, &mut news);
        (news.lines.len(), news.wishes.into_iter().map(|wish| (wish.reason, wish.note)).collect())
    }

    #[test]
    fn one_line_and_one_event_when_it_is_known_why_and_one_at_the_end() {
        let (mut waits, names) = (Waits::default(), names(&[0], false));
        assert_eq!(look(&mut waits, &[row(0, None)], &names), (0, vec![]), "nobody knows why");
        let (lines, wishes) = look(&mut waits, &[row(0, Some(Cause::ServerUnreachable))], &names);
        let note = "volume data (claim data, srv:/a) is not mounted, and the pod waits since 1970-01-01T00:01:00Z: \
                    server_unreachable. Nothing answers. Look.";
        assert_eq!((lines, wishes), (1, vec![(PENDING, note.to_owned())]));
        assert_eq!(look(&mut waits, &[row(0, Some(Cause::ServerUnreachable))], &names), (0, vec![]));
        assert_eq!(look(&mut waits, &[row(0, None)], &names), (0, vec![]), "it may be mounted any moment");
        let (lines, wishes) = look(&mut waits, &[row(0, Some(Cause::ExportGone))], &names);
        assert_eq!((lines, wishes.len()), (1, 1), "another cause is news");
        let (lines, wishes) = look(&mut waits, &[], &names);
        assert_eq!((lines, wishes[0].0), (1, RECOVERED));
        assert_eq!(look(&mut waits, &[], &names), (0, vec![]));
    }

    #[test]
    fn a_pod_that_goes_did_not_get_its_volume() {
        let mut waits = Waits::default();
        look(&mut waits, &[row(0, Some(Cause::ServerRefused))], &names(&[0], false));
        assert_eq!(look(&mut waits, &[], &names(&[0], true)), (0, vec![]));
        look(&mut waits, &[row(1, Some(Cause::ServerRefused))], &names(&[1], false));
        assert_eq!(look(&mut waits, &[], &names(&[], false)), (0, vec![]));
    }

    #[test]
    fn a_claim_that_many_wait_for_is_told_once() {
        let (mut waits, names) = (Waits::default(), names(&[0, 1, 2], false));
        let rows: Vec<_> = (0..3).map(|pod| row(pod, Some(Cause::ServerRefused))).collect();
        let (_, wishes) = look(&mut waits, &rows, &names);
        assert_eq!(wishes.len(), 4);
        assert!(wishes[3].1.starts_with("3 pods of this node wait for it."), "{wishes:?}");
        assert_eq!(look(&mut waits, &rows, &names).1.len(), 0);
    }
}
