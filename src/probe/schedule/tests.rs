use super::*;

const PACE: Pace = Pace { interval: Duration::from_secs(15), backoff_max: Duration::from_secs(120), per_server: 2 };

fn schedule() -> Schedule {
    Schedule::new(PACE, fastrand::Rng::with_seed(7))
}

fn dev(minor: u32) -> Dev {
    Dev { major: 0, minor }
}

fn at(seconds: u64) -> Now {
    Duration::from_secs(seconds)
}

fn in_seconds(schedule: &Schedule, now: Now) -> f64 {
    (schedule.next_wake().unwrap() - now).as_secs_f64()
}

#[test]
fn a_new_target_is_probed_at_once_and_then_each_interval_with_jitter() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    assert_eq!(schedule.take_due(at(0)), [Due::Probe(1)]);
    assert_eq!(schedule.next_wake(), None, "not again while it is in flight");
    schedule.ended(1, dev(1), Ended::Answered, at(0));
    let wait = in_seconds(&schedule, at(0));
    assert!((13.5..=15.0).contains(&wait), "{wait}");
}

#[test]
fn what_is_due_in_a_moment_is_taken_along_and_later_on_apart() {
    let mut schedule = schedule();
    for id in 1..=200 {
        schedule.add(id, dev(u32::try_from(id).unwrap()), "", true, at(0));
    }
    assert_eq!(schedule.take_due(at(0)).len(), 200);
    (1..=200).for_each(|id| schedule.ended(id, dev(u32::try_from(id).unwrap()), Ended::Answered, at(0)));
    let mut batches = Vec::new();
    while let Some(next) = schedule.next_wake() {
        assert_eq!(schedule.take_due(next - Duration::from_millis(1)), [], "nothing is early by itself");
        batches.push((next, schedule.take_due(next).len()));
    }
    // The jitter of 1.5 s holds four or five moments of 0.3 s.
    assert!((4..=6).contains(&batches.len()), "{batches:?}");
    assert!(batches.iter().all(|(_, count)| (1..=80).contains(count)), "{batches:?}");
    assert!(batches.iter().all(|(next, _)| *next <= at(15)), "late: {batches:?}");
}

#[test]
fn two_targets_of_one_superblock_are_never_in_flight_together() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    schedule.add(2, dev(1), "srv", true, at(0));
    assert_eq!(schedule.take_due(at(0)), [Due::Probe(1)]);
    schedule.ended(1, dev(1), Ended::Answered, at(1));
    assert_eq!(schedule.take_due(at(1)), [Due::Probe(2)]);
}

#[test]
fn siblings_of_a_blocked_target_inherit_and_are_probed_when_it_answers() {
    let mut schedule = schedule();
    for id in 1..=3 {
        schedule.add(id, dev(1), "srv", true, at(0));
    }
    assert_eq!(schedule.take_due(at(0)), [Due::Probe(1)]);
    schedule.ended(1, dev(1), Ended::Blocked, at(5));
    schedule.reaped(dev(1), at(5));
    assert_eq!(schedule.take_due(at(5)), [Due::Inherit(2, 1), Due::Inherit(3, 1)]);
    let again = schedule.next_wake().unwrap();
    assert_eq!(schedule.take_due(again), [Due::Probe(1)]);
    schedule.ended(1, dev(1), Ended::Answered, again);
    assert_eq!(schedule.take_due(again), [Due::Probe(2)]);
    schedule.ended(2, dev(1), Ended::Answered, again);
    assert_eq!(schedule.take_due(again), [Due::Probe(3)]);
}

#[test]
fn nothing_is_probed_while_a_killed_worker_sits_in_the_kernel() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    schedule.take_due(at(0));
    schedule.ended(1, dev(1), Ended::Blocked, at(5));
    assert_eq!(schedule.take_due(at(60)), []);
    assert_eq!(schedule.next_wake(), None);
    schedule.reaped(dev(1), at(61));
    assert_eq!(schedule.take_due(at(61)), [Due::Probe(1)]);
}

#[test]
fn back_off_doubles_from_the_interval_to_its_limit() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    let mut now = at(0);
    for expected in [15, 30, 60, 120, 120] {
        assert_eq!(schedule.take_due(now), [Due::Probe(1)]);
        schedule.ended(1, dev(1), Ended::Blocked, now);
        schedule.reaped(dev(1), now);
        assert_eq!(schedule.backoff(1), Some(at(expected)));
        now = schedule.next_wake().unwrap();
    }
}

#[test]
fn back_off_of_what_cannot_be_watched_stops_at_two_intervals() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "", false, at(0));
    let mut now = at(0);
    for expected in [15, 30, 30] {
        schedule.take_due(now);
        schedule.ended(1, dev(1), Ended::Blocked, now);
        schedule.reaped(dev(1), now);
        assert_eq!(schedule.backoff(1), Some(at(expected)));
        now = schedule.next_wake().unwrap();
    }
}

#[test]
fn a_server_that_answers_again_ends_the_back_off_at_once() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    schedule.take_due(at(0));
    schedule.ended(1, dev(1), Ended::Blocked, at(5));
    schedule.reaped(dev(1), at(5));
    schedule.rearm(1, at(7));
    assert_eq!(schedule.take_due(at(7)), [Due::Probe(1)]);
    schedule.ended(1, dev(1), Ended::Answered, at(7));
    schedule.rearm(1, at(8));
    assert_eq!(schedule.take_due(at(8)), [], "a target that answers keeps its interval");
}

#[test]
fn young_probes_per_server_are_bounded_and_old_ones_make_room() {
    let mut schedule = schedule();
    for id in 1..=5 {
        schedule.add(id, dev(u32::try_from(id).unwrap()), "srv", true, at(0));
    }
    schedule.add(6, dev(6), "other", true, at(0));
    assert_eq!(schedule.take_due(at(0)), [Due::Probe(1), Due::Probe(2), Due::Probe(6)]);
    schedule.grow_up(1);
    assert_eq!(schedule.take_due(at(1)), [Due::Probe(3)]);
    schedule.ended(2, dev(2), Ended::Answered, at(1));
    assert_eq!(schedule.take_due(at(1)), [Due::Probe(4)]);
    schedule.remove(4, at(1));
    assert_eq!(schedule.take_due(at(1)), [Due::Probe(5)]);
}

#[test]
fn removing_the_blocked_target_lets_a_sibling_be_probed() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    schedule.add(2, dev(1), "srv", true, at(0));
    schedule.take_due(at(0));
    schedule.ended(1, dev(1), Ended::Blocked, at(5));
    schedule.take_due(at(5));
    schedule.remove(1, at(6));
    assert_eq!(schedule.take_due(at(6)), [], "the killed worker is still in the kernel");
    schedule.reaped(dev(1), at(7));
    assert_eq!(schedule.take_due(at(7)), [Due::Probe(2)]);
}

#[test]
fn a_target_that_went_away_during_its_probe_leaves_nothing_behind() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    schedule.take_due(at(0));
    schedule.remove(1, at(1));
    schedule.ended(1, dev(1), Ended::Answered, at(2));
    assert!(schedule.lanes.is_empty() && schedule.servers.is_empty() && schedule.queue.is_empty());
}

#[test]
fn a_probe_that_was_not_run_is_repeated_soon() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    schedule.take_due(at(0));
    schedule.ended(1, dev(1), Ended::NotRun, at(0));
    assert!(in_seconds(&schedule, at(0)) < 4.5);
}

#[test]
fn a_shorter_pace_holds_at_once_and_not_for_all_at_the_same_time() {
    let mut schedule = schedule();
    for id in 1..=20 {
        schedule.add(id, dev(u32::try_from(id).unwrap()), "", false, at(0));
    }
    assert_eq!(schedule.take_due(at(0)).len(), 20);
    for id in 1..=19 {
        schedule.ended(id, dev(u32::try_from(id).unwrap()), Ended::Answered, at(0));
    }
    for _ in 0..3 {
        schedule.ended(20, dev(20), Ended::Blocked, at(0));
    }
    assert_eq!(schedule.backoff(20), Some(at(30)));
    schedule.set_pace(Pace { interval: at(2), backoff_max: at(120), per_server: 2 }, at(1));
    assert_eq!(schedule.backoff(20), Some(at(4)), "the longest for a target that nothing watches");
    assert!(schedule.take_due(at(1)).is_empty());
    let soon = schedule.take_due(at(2)).len();
    assert!((1..19).contains(&soon), "{soon} of 19 within half of the new interval");
    assert!(soon + schedule.take_due(at(3)).len() >= 19);
}

#[test]
fn a_longer_pace_leaves_what_is_queued() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "", false, at(0));
    schedule.take_due(at(0));
    schedule.ended(1, dev(1), Ended::Answered, at(0));
    let next = schedule.next_wake();
    schedule.set_pace(Pace { interval: at(600), ..PACE }, at(1));
    assert_eq!(schedule.next_wake(), next);
}

#[test]
fn a_miss_that_proves_nothing_backs_nobody_off() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    schedule.add(2, dev(1), "srv", true, at(0));
    schedule.take_due(at(0));
    schedule.ended(1, dev(1), Ended::Unproven, at(5));
    assert_eq!(schedule.backoff(1), None);
    assert_eq!(schedule.take_due(at(5)), [], "its worker is still in the kernel");
    schedule.reaped(dev(1), at(6));
    assert_eq!(schedule.take_due(at(6)), [Due::Probe(2)]);
}

#[test]
fn a_blocked_target_that_can_no_longer_be_reached_lets_a_sibling_try() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    schedule.add(2, dev(1), "srv", true, at(0));
    schedule.take_due(at(0));
    schedule.ended(1, dev(1), Ended::Blocked, at(5));
    schedule.reaped(dev(1), at(5));
    assert_eq!(schedule.take_due(at(5)), [Due::Inherit(2, 1)]);
    let again = schedule.next_wake().unwrap();
    assert_eq!(schedule.take_due(again), [Due::Probe(1)]);
    schedule.ended(1, dev(1), Ended::Skipped, again);
    assert_eq!(schedule.take_due(again), [Due::Probe(2)]);
}

#[test]
fn a_target_that_goes_leaves_the_rounds_of_its_siblings_alone() {
    let mut schedule = schedule();
    for id in 1..=3 {
        schedule.add(id, dev(1), "srv", true, at(0));
    }
    for id in 1..=3 {
        assert_eq!(schedule.take_due(at(0)), [Due::Probe(id)]);
        schedule.ended(id, dev(1), Ended::Answered, at(0));
    }
    schedule.remove(2, at(1));
    assert_eq!(schedule.take_due(at(1)), []);
}

#[test]
fn a_place_at_a_server_is_not_lost_on_one_whose_lane_is_taken() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    schedule.add(2, dev(2), "srv", true, at(0));
    for (id, minor) in [(3, 1), (4, 4), (5, 5)] {
        schedule.add(id, dev(minor), "srv", true, at(0));
    }
    assert_eq!(schedule.take_due(at(0)), [Due::Probe(1), Due::Probe(2)]);
    schedule.ended(2, dev(2), Ended::Answered, at(1));
    assert_eq!(schedule.take_due(at(1)), [Due::Probe(4)]);
    schedule.ended(1, dev(1), Ended::Blocked, at(5));
    assert!(schedule.take_due(at(5)).contains(&Due::Probe(5)));
}

#[test]
fn a_soft_mount_that_gives_up_is_asked_less_often_and_at_once_when_its_server_is_back() {
    let mut schedule = schedule();
    schedule.add(1, dev(1), "srv", true, at(0));
    for expected in [15, 30, 60] {
        let now = schedule.next_wake().unwrap();
        schedule.take_due(now);
        schedule.ended(1, dev(1), Ended::Answered, now);
        schedule.back_off(1, now);
        if expected == 60 {
            schedule.rearm(1, now);
            assert_eq!(schedule.take_due(now), [Due::Probe(1)]);
        }
    }
}
