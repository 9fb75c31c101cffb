use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// The kubelet's clock and ours.
const WALL: UnixSeconds = 10_000.0;

fn waiting(pod: usize, server: &str, export: &str, since: u64) -> Waiting {
    let server = Server { name: server.into(), efs: false, options: String::new() };
    Waiting {
        pod_uid: format!("pod-{pod}"),
        directory: "pv".into(),
        source: format!("{}:{export}", server.name),
        wanted: Wanted { server, export: export.into() },
        since,
    }
}

fn answer(result: Severity, cause: Option<Cause>) -> Answer {
    let words = cause.map_or("It is offered.", Cause::as_str).to_owned();
    Answer { result, cause, summary: words, advice: "Do it.".into(), address: None, checked: WALL }
}

/// A minute ago.
const LONG_AGO: u64 = 9_940;

#[test]
fn two_hundred_pods_of_one_dead_server_cost_one_examination() {
    let mut book = Book::default();
    let all: Vec<Waiting> = (0..200).map(|pod| waiting(pod, "srv", &format!("/{pod}"), LONG_AGO)).collect();
    book.take(all.clone(), SECOND);
    let asked = book.due(SECOND, WALL);
    assert_eq!(asked.len(), 1);
    assert!(book.due(SECOND * 3, WALL).is_empty(), "it is being asked");
    book.answered(&asked[0], answer(Severity::Dead, Some(Cause::ServerUnreachable)), SECOND * 4);
    book.take(all, SECOND * 20);
    assert!(book.due(SECOND * 20, WALL).is_empty());
    let (rows, count) = book.rows(SECOND * 20, WALL);
    assert_eq!((rows.len(), count), (200, 200));
    assert!(rows.iter().all(|row| row.blocked && row.cause == Some(Cause::ServerUnreachable)));
    assert_eq!(book.due(SECOND * 40, WALL).len(), 1, "half a minute later it is asked again");
}

#[test]
fn what_concerns_one_export_is_asked_for_each_and_not_all_at_once() {
    let mut book = Book::default();
    book.take(vec![waiting(0, "srv", "/a", LONG_AGO), waiting(1, "srv", "/b", LONG_AGO)], SECOND);
    let first = book.due(SECOND, WALL);
    book.answered(&first[0], answer(Severity::Dead, Some(Cause::ExportGone)), SECOND * 2);
    assert!(book.due(SECOND * 2, WALL).is_empty(), "not so soon");
    let second = book.due(SECOND * 4, WALL);
    assert_eq!(second.len(), 1);
    assert_ne!(first[0].export, second[0].export);
    book.answered(&second[0], answer(Severity::Healthy, None), SECOND * 4);
    let (rows, _) = book.rows(SECOND * 5, WALL);
    let said: Vec<_> = rows.iter().map(|row| (row.blocked, row.cause)).collect();
    assert_eq!(said, [(true, Some(Cause::ExportGone)), (false, None)]);
}

#[test]
fn many_servers_are_asked_a_few_at_a_time() {
    let mut book = Book::default();
    book.take((0..20).map(|pod| waiting(pod, &format!("srv-{pod}"), "/", LONG_AGO)).collect(), SECOND);
    let asked = book.due(SECOND, WALL);
    assert_eq!((asked.len(), book.due(SECOND * 9, WALL).len()), (IN_FLIGHT, 0));
    book.answered(&asked[0], answer(Severity::Dead, Some(Cause::ServerRefused)), SECOND * 9);
    let next = book.due(SECOND * 9, WALL);
    assert!(next.len() == 1 && !asked.contains(&next[0]));
}

#[test]
fn nobody_is_asked_before_a_pod_has_waited_by_either_clock() {
    let mut book = Book::default();
    // The kubelet's clock is an hour ahead.
    let young = || vec![waiting(0, "srv", "/", 13_600)];
    book.take(young(), SECOND);
    assert!(!book.overdue(SECOND * 30, WALL) && book.due(SECOND * 30, WALL).is_empty());
    book.take(young(), SECOND * 31);
    assert!(book.overdue(SECOND * 31, WALL));
    book.take(Vec::new(), SECOND * 32);
    book.take(young(), SECOND * 33);
    assert!(!book.overdue(SECOND * 33, WALL), "its volume was mounted meanwhile: it begins anew");
}

#[test]
fn a_server_that_answers_again_is_not_called_dead_by_an_old_answer() {
    let mut book = Book::default();
    let both = || vec![waiting(0, "srv", "/a", LONG_AGO), waiting(1, "srv", "/b", LONG_AGO)];
    book.take(both(), SECOND);
    let asked = book.due(SECOND, WALL);
    book.answered(&asked[0], answer(Severity::Dead, Some(Cause::ServerUnreachable)), SECOND);
    let again = book.due(SECOND * 40, WALL);
    book.answered(&again[0], answer(Severity::Healthy, None), SECOND * 41);
    let (rows, _) = book.rows(SECOND * 41, WALL);
    assert!(rows.iter().all(|row| !row.blocked && row.cause.is_none()), "{rows:?}");
}

#[test]
fn a_mount_that_hangs_counts_where_there_is_one_server_to_wait_for() {
    let mount = crate::snapshot::KubeletMount {
        pid: 7,
        name: "mount.nfs4".into(),
        by: "kubelet".into(),
        seconds: 40.0,
        ..Default::default()
    };
    let hung = Mounting { hung: vec![mount], ..Mounting::default() };
    let mut book = Book::default();
    book.take(vec![waiting(0, "srv", "/a", LONG_AGO)], SECOND);
    book.mounting(hung);
    assert!(!book.rows(SECOND, WALL).0[0].blocked, "its server was not asked yet");
    let asked = book.due(SECOND, WALL);
    book.answered(&asked[0], answer(Severity::Healthy, None), SECOND);
    let (rows, _) = book.rows(SECOND, WALL);
    assert!(rows[0].blocked && rows[0].cause == Some(Cause::Unknown) && rows[0].evidence.contains("pid 7"), "{rows:?}");
    book.take(vec![waiting(0, "srv", "/a", LONG_AGO), waiting(1, "other", "/", LONG_AGO)], SECOND);
    let (rows, _) = book.rows(SECOND, WALL);
    assert!(rows.iter().all(|row| !row.blocked), "whose mount it is cannot be told: {rows:?}");
}

#[test]
fn servers_of_pods_that_are_gone_are_forgotten() {
    let mut book = Book::default();
    book.take(vec![waiting(0, "srv", "/a", LONG_AGO)], SECOND);
    let asked = book.due(SECOND, WALL);
    book.take(Vec::new(), SECOND * 2);
    assert!(!book.is_empty(), "an answer is on its way");
    book.answered(&asked[0], answer(Severity::Healthy, None), SECOND * 3);
    book.take(Vec::new(), SECOND * 4);
    assert!(book.is_empty());
}
