use super::*;

const NOW: Time = Time(1_790_000_000);
const COOL_DOWN: Duration = Duration::from_secs(1800);

fn record(uid: &str) -> Record {
    Record {
        at: NOW,
        namespace: "shop".to_owned(),
        pod: format!("pod-{uid}"),
        uid: uid.to_owned(),
        node: "n1".to_owned(),
        workload: "Deployment/web".to_owned(),
        controller: "rs".to_owned(),
        server: "srv".to_owned(),
        replaced: true,
        newest: Time(NOW.0 - 1000),
        stage: Stage::Reserved,
        tries: 0,
        replacement: None,
    }
}

fn with(record: Record) -> History {
    let mut history = History::begin(Time(NOW.0 - 10_000));
    history.reserve(record, COOL_DOWN, NOW);
    history
}

fn later(seconds: i64) -> Time {
    Time(NOW.0 + seconds)
}

fn gone(replacement: Option<(&str, bool)>) -> Seen {
    Seen { pod: false, terminating: false, replacement: replacement.map(|(uid, ready)| (uid.to_owned(), ready)) }
}

const THERE: Seen = Seen { pod: true, terminating: false, replacement: None };

#[test]
fn a_history_reads_back_what_it_wrote_and_nothing_else() {
    let mut history = with(record("u1"));
    history.answered("u1", &Answer::Refused, NOW);
    assert_eq!(History::parse(&history.text()), Ok(history.clone()));
    for text in ["", "{}", "null", "{\"version\":1}", &history.text().replace("\"version\":1", "\"version\":2")] {
        assert!(History::parse(text).is_err(), "{text}");
    }
    let mut long = History::begin(NOW);
    long.records = vec![record("u"); MAX_RECORDS + 1];
    assert!(History::parse(&long.text()).is_err());
}

#[test]
fn an_eviction_is_in_flight_until_its_replacement_is_ready() {
    let mut history = with(record("u1"));
    history.answered("u1", &Answer::Accepted, later(1));
    assert_eq!(history.in_flight(later(5)).count(), 1);
    assert!(!history.observe("u1", &gone(Some(("u2", false))), later(8)));
    assert_eq!(history.in_flight(later(8)).count(), 1);
    assert!(history.observe("u1", &gone(Some(("u2", true))), later(9)));
    assert_eq!(history.in_flight(later(9)).count(), 0);
    assert_eq!(history.records[0].stage, Stage::Done { at: later(9) });
    assert_eq!(history.records[0].replacement.as_deref(), Some("u2"));
}

#[test]
fn or_until_two_minutes_have_passed_and_a_late_ready_still_counts() {
    let mut history = with(record("u1"));
    history.answered("u1", &Answer::Accepted, NOW);
    assert!(!history.observe("u1", &gone(None), later(119)));
    assert!(history.observe("u1", &gone(None), later(120)));
    assert_eq!(history.records[0].stage, Stage::NotReady { at: later(120) });
    assert!(history.observe("u1", &gone(Some(("u2", true))), later(300)));
    assert_eq!(history.records[0].stage, Stage::Done { at: later(300) });
}

#[test]
fn a_reservation_whose_call_was_never_made_is_tried_again_later() {
    let mut history = with(record("u1"));
    history.answered("u1", &Answer::Unknown, NOW);
    assert_eq!(history.records[0].stage, Stage::Reserved);
    assert!(!history.observe("u1", &THERE, later(60)));
    assert!(history.observe("u1", &THERE, later(120)));
    assert_eq!(history.records[0].stage, Stage::Refused { until: later(130) });
}

#[test]
fn a_reservation_whose_call_took_effect_is_an_eviction() {
    let mut history = with(record("u1"));
    let leaving = Seen { terminating: true, ..THERE };
    assert!(history.observe("u1", &leaving, later(5)));
    assert_eq!(history.records[0].stage, Stage::Accepted);
}

#[test]
fn accepted_and_nothing_happened_is_not_tried_again_soon() {
    let mut history = with(record("u1"));
    history.answered("u1", &Answer::Accepted, NOW);
    history.observe("u1", &THERE, later(120));
    assert_eq!(history.records[0].stage, Stage::NoEffect { at: later(120) });
}

#[test]
fn each_refusal_doubles_the_wait_up_to_five_minutes() {
    let mut history = with(record("u1"));
    let mut waits = Vec::new();
    let mut now = NOW;
    for _ in 0..8 {
        history.answered("u1", &Answer::Refused, now);
        let Stage::Refused { until } = history.records[0].stage else { panic!("not refused") };
        waits.push(until.0 - now.0);
        now = until;
        history.reserve(Record { at: now, ..record("u1") }, COOL_DOWN, now);
        assert_eq!(history.records.len(), 1, "the same pod is one record");
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
}

#[test]
fn a_pod_that_nobody_replaces_is_done_when_it_is_gone() {
    let mut history = with(Record { replaced: false, ..record("u1") });
    history.answered("u1", &Answer::Accepted, NOW);
    assert!(history.observe("u1", &gone(None), later(5)));
    assert_eq!(history.records[0].stage, Stage::Done { at: later(5) });
}

fn ended(stages: &[Stage]) -> History {
    let mut history = History::begin(Time(NOW.0 - 10_000));
    history.records =
        stages.iter().enumerate().map(|(n, stage)| Record { stage: *stage, ..record(&n.to_string()) }).collect();
    history
}

#[test]
fn three_bad_ends_in_a_row_open_the_breaker_until_a_cool_down_has_passed() {
    let bad = |s: i64| Stage::NotReady { at: later(s) };
    let again = |s: i64| Stage::DeadAgain { at: later(s) };
    let good = |s: i64| Stage::Done { at: later(s) };
    let open = |stages: &[Stage]| ended(stages).breaker_open("srv", COOL_DOWN, later(100));
    assert!(open(&[bad(1), again(2), bad(3)]));
    assert!(!open(&[bad(1), again(2)]));
    assert!(!open(&[bad(1), good(2), bad(3), bad(4)]));
    assert!(open(&[good(1), bad(2), bad(3), bad(4)]));
    assert!(!open(&[bad(1), bad(2), bad(3), good(4)]));
    let history = ended(&[bad(1), bad(2), bad(3)]);
    assert!(!history.breaker_open("other", COOL_DOWN, later(100)));
    assert!(history.breaker_open("srv", COOL_DOWN, later(1800)));
    assert!(!history.breaker_open("srv", COOL_DOWN, later(1801)));
    assert_eq!(history.breakers(COOL_DOWN, later(100)), ["srv"]);
}

#[test]
fn a_replacement_that_asks_to_be_rescued_was_a_bad_end() {
    let mut history = with(record("u1"));
    history.answered("u1", &Answer::Accepted, NOW);
    history.observe("u1", &gone(Some(("u2", true))), later(9));
    assert!(!history.dead_again("u2", "other", later(20)));
    assert!(!history.dead_again("u1", "srv", later(20)));
    assert!(history.dead_again("u2", "srv", later(20)));
    assert!(!history.dead_again("u2", "srv", later(21)), "told once");
    assert_eq!(history.records[0].stage, Stage::DeadAgain { at: later(20) });
}

#[test]
fn what_bears_on_nothing_any_more_is_forgotten_with_the_next_eviction() {
    let stages = [
        Stage::Done { at: later(0) },
        Stage::Refused { until: later(600) },
        Stage::Accepted,
        Stage::NotReady { at: later(900) },
    ];
    let left = |seconds: i64| {
        let mut history = ended(&stages);
        history.reserve(Record { at: later(seconds), ..record("new") }, COOL_DOWN, later(seconds));
        history.records.len() - 1
    };
    assert_eq!((left(1799), left(1800), left(2399), left(2400), left(2700)), (4, 2, 2, 1, 0));
    let mut history = ended(&[]);
    history.records = vec![record("u"); MAX_RECORDS];
    assert!(history.full(COOL_DOWN, later(1)) && !history.full(COOL_DOWN, later(1800)));
}

#[test]
fn a_clock_that_runs_ahead_forgets_nothing_by_looking() {
    let mut history = with(record("u1"));
    history.answered("u1", &Answer::Accepted, NOW);
    history.observe("u1", &gone(Some(("u2", true))), later(3600));
    assert_eq!(history.records.len(), 1);
    assert!(history.contradicts(later(10)), "and what it wrote shows that its clock was another");
}

#[test]
fn the_clock_of_a_history_never_goes_back() {
    let mut history = with(record("u1"));
    let back = Time(NOW.0 - 3600);
    assert_eq!(history.clock(back), NOW);
    assert!(history.contradicts(back) && !history.contradicts(Time(NOW.0 - 60)));
    history.answered("u1", &Answer::Accepted, back);
    assert_eq!(history.written, NOW);
    history.distrust(back);
    assert_eq!(history.began, NOW);
    assert!(!history.known_since(COOL_DOWN, later(1799)) && history.known_since(COOL_DOWN, later(1800)));
}
