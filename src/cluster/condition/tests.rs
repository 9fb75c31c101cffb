use std::time::Duration;

use super::*;

fn condition(status: &'static str, message: &str) -> Condition {
    Condition { status, reason: "R".into(), message: message.into() }
}

/// What is written at `now`, as (status, whether it turned).
fn speak(voice: &mut Voice, now: Instant) -> Option<(&'static str, bool)> {
    let (condition, turned) = voice.next(now)?;
    let status = condition.status;
    voice.written(condition, 1.0, now);
    Some((status, turned))
}

#[tokio::test(start_paused = true)]
async fn it_turns_false_at_once_and_true_after_a_calm_while() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut voice = Voice::new(Pace::default());
    voice.hear(condition("True", "fine"), at(0));
    assert_eq!(speak(&mut voice, at(0)), Some(("True", true)));
    voice.hear(condition("False", "1 hung"), at(1));
    assert_eq!(speak(&mut voice, at(1)), Some(("False", true)));
    voice.hear(condition("True", "fine"), at(5));
    assert_eq!(speak(&mut voice, at(6)), None, "not yet");
    voice.hear(condition("False", "1 hung"), at(20));
    voice.hear(condition("True", "fine"), at(21));
    assert_eq!(speak(&mut voice, at(36)), None, "the calm began anew");
    assert_eq!(speak(&mut voice, at(51)), Some(("True", true)));
}

#[tokio::test(start_paused = true)]
async fn messages_are_paced_and_the_heart_beats() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut voice = Voice::new(Pace::default());
    voice.hear(condition("False", "1 hung"), at(0));
    assert_eq!(speak(&mut voice, at(0)), Some(("False", true)));
    voice.hear(condition("False", "2 hung"), at(1));
    assert_eq!(speak(&mut voice, at(1)), None);
    assert_eq!(voice.wake(at(1)), at(10));
    assert_eq!(speak(&mut voice, at(10)), Some(("False", false)));
    assert_eq!(speak(&mut voice, at(69)), None);
    assert_eq!((voice.wake(at(69)), speak(&mut voice, at(70))), (at(70), Some(("False", false))));
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_before_left_is_gone_on_with() {
    let now = Instant::now();
    let mut voice = Voice::new(Pace::default());
    voice.found("True", 7.0);
    voice.hear(condition("True", "fine"), now);
    assert_eq!(voice.next(now).map(|(_, turned)| turned), Some(false), "the transition stays where it was");
    voice.hear(condition("False", "1 stale"), now);
    assert_eq!(voice.next(now).map(|(_, turned)| turned), Some(true));
}

#[test]
fn what_pods_wait_for_is_said_and_turns_nothing_false() {
    use crate::snapshot::PendingVolume;
    let golden = include_str!("../../../tests/fixtures/golden/snapshot.json");
    let mut snapshot: Snapshot = serde_json::from_str(golden).unwrap();
    (snapshot.ready, snapshot.pending) = (true, Vec::new());
    let said = |snapshot: &Snapshot| Condition::of(snapshot).map(|condition| (condition.status, condition.message));
    let (status, before) = said(&snapshot).unwrap();
    let row = |source: &str, blocked| PendingVolume {
        source: source.to_owned(),
        cause: Some(crate::verdict::Cause::ServerRefused),
        blocked,
        ..PendingVolume::default()
    };
    snapshot.pending = vec![row("slow:/x", false)];
    assert_eq!(said(&snapshot), Some((status, before.clone())), "it may only be slow");
    snapshot.pending.extend([row("srv:/a", true), row("srv:/b", true)]);
    let words = "; pods wait for srv:/a (server_refused) and 1 more, which cannot be mounted";
    assert_eq!(said(&snapshot), Some((status, format!("{before}{words}"))));
    snapshot.mounts.clear();
    assert_eq!(said(&snapshot), Some(("True", format!("0 network mounts and none is dead{words}"))));
}
