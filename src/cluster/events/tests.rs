use std::time::Duration;

use super::*;
use crate::cluster::report::About;

fn wish(topic: &str, reason: &'static str, at: f64) -> Wish {
    let about =
        About { kind: "Pod", namespace: "shop".into(), name: format!("{}.-", "a".repeat(250)), uid: topic.into() };
    Wish { about, topic: topic.to_owned(), reason, warning: true, note: String::new(), at }
}

fn outbox() -> Outbox {
    Outbox::new(Pace::default(), Stats::default())
}

#[tokio::test(start_paused = true)]
async fn a_newer_wish_takes_the_place_of_one_that_was_not_sent() {
    let mut outbox = outbox();
    outbox.push(wish("a", "MountHung", 1.0));
    outbox.push(wish("b", "MountHung", 1.0));
    outbox.push(wish("a", "MountRecovered", 2.0));
    let order: Vec<&str> = outbox.waiting.iter().map(|waiting| waiting.wish.reason).collect();
    assert_eq!(order, ["MountRecovered", "MountHung"]);
    assert_eq!(outbox.stats.get().events_dropped["superseded"], 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_beyond_the_queue_is_counted() {
    let mut outbox = outbox();
    for index in 0..MAX_WAITING + 3 {
        outbox.push(wish(&index.to_string(), "MountHung", 1.0));
    }
    assert_eq!((outbox.waiting.len(), outbox.stats.get().events_dropped["budget"]), (MAX_WAITING, 3));
}

#[tokio::test(start_paused = true)]
async fn after_the_burst_one_goes_every_three_seconds() {
    let mut outbox = outbox();
    for index in 0..200 {
        outbox.push(wish(&index.to_string(), "MountHung", 1.0));
    }
    let start = Instant::now();
    let mut at_once = 0;
    loop {
        let now = Instant::now();
        let due = outbox.due(now).unwrap();
        if due > now {
            assert_eq!((at_once, due - now), (BURST, Duration::from_secs(3)));
            break;
        }
        let next = outbox.waiting.front().unwrap().wish.clone();
        outbox.done(&next, "x".into(), 1, now);
        at_once += 1;
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn within_the_series_it_is_counted_up_and_later_it_is_a_new_one() {
    let mut outbox = outbox();
    let first = wish("a", "MountHung", 1.0);
    let Step::Create(first_name) = outbox.step(&first, Instant::now()) else { panic!("new") };
    outbox.done(&first, first_name.clone(), 1, Instant::now());
    let again = wish("a", "MountHung", 2.0);
    assert_eq!(outbox.step(&again, Instant::now()), Step::Series(first_name.clone(), 2));
    tokio::time::advance(Duration::from_secs(601)).await;
    let Step::Create(name) = outbox.step(&again, Instant::now()) else { panic!("too late for the series") };
    assert_ne!(name, first_name);
}

#[test]
fn names_are_names_for_kubernetes_and_the_same_after_a_restart() {
    let of = |at, own| name(&wish("a", "MountHung", at), own);
    assert_eq!(of(1.0, false), of(2.0, false));
    assert_ne!(of(1.0, true), of(2.0, true));
    assert!(of(1.0, false).len() <= 253 && !of(1.0, false).contains("-."));
}

#[test]
fn only_refusals_that_last_are_final() {
    let answer = |code, message| Failure::answer(code, "", message, None);
    assert!(is_final(&answer(422, "")) && !is_final(&answer(404, "")));
    assert!(is_final(&answer(403, "unable to create new content in namespace x because it is being terminated")));
    assert!(!is_final(&answer(403, "cannot create")) && !is_final(&answer(429, "")) && !is_final(&Failure::Timeout));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_turns_events_away_holds_up_no_other() {
    let mut outbox = outbox();
    let elsewhere = |topic: &str| {
        let mut wish = wish(topic, "MountHung", 1.0);
        wish.about.namespace = "bank".into();
        wish
    };
    outbox.push(wish("a", "MountHung", 1.0));
    outbox.push(wish("b", "MountHung", 1.0));
    outbox.push(elsewhere("c"));
    let forbidden = Failure::answer(403, "Forbidden", "no", None);
    let start = Instant::now();
    let next = |outbox: &mut Outbox| outbox.next(Instant::now()).map(|(wish, tried)| (wish.topic, tried));
    assert_eq!(next(&mut outbox), Some(("a".into(), false)));
    outbox.hold(&wish("a", "MountHung", 1.0), &forbidden, start);
    assert_eq!(next(&mut outbox), Some(("c".into(), false)));
    assert_eq!(outbox.due(start), Some(start));
    outbox.done(&elsewhere("c"), "c".into(), 1, start);
    assert_eq!(next(&mut outbox), None);
    assert!(outbox.trouble().is_some_and(|words| words.contains("\"shop\"")), "{:?}", outbox.trouble());

    let again = outbox.due(start).unwrap();
    assert_eq!(again - start, Pace::default().longest_retry);
    tokio::time::advance(again - start).await;
    assert_eq!(next(&mut outbox), Some(("a".into(), true)));
    outbox.done(&wish("a", "MountHung", 1.0), "a".into(), 1, again);
    assert_eq!((next(&mut outbox), outbox.trouble()), (Some(("b".into(), false)), None));
}

#[tokio::test(start_paused = true)]
async fn what_is_turned_away_for_an_hour_is_given_up() {
    let mut outbox = outbox();
    outbox.push(wish("a", "MountHung", 1.0));
    let conflict = Failure::answer(409, "Conflict", "", None);
    outbox.hold(&wish("a", "MountHung", 1.0), &conflict, Instant::now());
    assert_eq!(outbox.waiting.len(), 1);
    tokio::time::advance(Pace::default().give_up).await;
    outbox.hold(&wish("a", "MountHung", 1.0), &conflict, Instant::now());
    assert_eq!((outbox.waiting.len(), outbox.stats.get().events_dropped["refused"]), (0, 1));
    assert_eq!(outbox.trouble(), None);
}
