use std::ffi::OsStr;

use super::*;
use crate::agent::target::{Key, Labels};
use crate::mounts::{Dev, Kind, Mount, Origin, View};

fn target(source: &str, path: &str, state: State, cause: Option<Cause>) -> Target {
    let options = OsStr::new("rw,vers=4.1,addr=10.0.0.1");
    let mount = Mount {
        id: 40,
        parent: 1,
        dev: Dev { major: 0, minor: 51 },
        root: "/".into(),
        mountpoint: path.into(),
        fstype: "nfs4".to_owned(),
        source: source.into(),
        options: "rw".into(),
        super_options: options.to_owned(),
        kind: Kind::from_fstype("nfs4"),
        origin: Origin::parse("nfs4", OsStr::new(source), options),
        view: View::Own,
        hidden_by: None,
    };
    let labels = Labels { mountpoint: path.into(), source: source.into(), fstype: "nfs4".into() };
    let mut target = Target::new(1, Key::of(&mount, None), labels, &mount, 0.0);
    (target.verdict.state, target.verdict.cause) = (state, cause);
    target
}

fn from(from: State) -> Transition {
    Transition { from, first: false }
}

#[test]
fn a_server_that_dies_with_all_its_mounts_is_one_change() {
    let mut history = History::default();
    for index in 0..500 {
        let dead = target("srv:/a", &format!("/mnt/{index}"), State::Hung, Some(Cause::Unknown));
        history.changed(&dead, &from(State::Healthy), 100.0 + f64::from(index) / 50.0);
    }
    history.changed(&target("other:/a", "/mnt/o", State::Hung, None), &from(State::Healthy), 105.0);
    let explained = target("srv:/a", "/mnt/3", State::Hung, Some(Cause::ServerUnreachable));
    history.explained(&explained);
    let [change, other] = &history.since(110.0)[..] else { panic!("{history:?}") };
    assert_eq!((change.count, change.mountpoints.len(), change.server.as_str()), (500, NAMED, "srv"));
    assert_eq!((change.first, change.cause), (100.0, Some(Cause::ServerUnreachable)));
    assert_eq!((other.count, other.server.as_str()), (1, "other"));
}

#[test]
fn an_hour_later_it_is_forgotten_and_never_more_than_its_bound_is_kept() {
    let mut history = History::default();
    let sick = target("srv:/a", "/mnt/a", State::Hung, None);
    history.changed(&sick, &from(State::Healthy), 0.0);
    assert_eq!((history.since(3599.0).len(), history.since(3600.0).len()), (1, 0));
    for flap in 0..2 * KEPT {
        let server = format!("srv{flap}:/a");
        history.changed(&target(&server, "/mnt/a", State::Hung, None), &from(State::Healthy), 10.0);
    }
    let kept = history.since(11.0);
    assert_eq!((kept.len(), kept.last().map(|change| change.server.as_str())), (KEPT, Some("srv511")));
}

#[test]
fn only_news_is_told() {
    let mut history = History::default();
    let well = target("srv:/a", "/mnt/a", State::Healthy, None);
    history.changed(&well, &Transition { from: State::Unknown, first: true }, 1.0);
    history.unmounted(&well, 2.0);
    assert!(history.since(3.0).is_empty());
    let dead = target("srv:/a", "/mnt/a", State::Stale, None);
    history.changed(&dead, &Transition { from: State::Unknown, first: true }, 3.0);
    history.unmounted(&dead, 4.0);
    let told: Vec<_> = history.since(5.0).iter().map(|change| (change.from, change.to)).collect();
    assert_eq!(told, [(None, Some(State::Stale)), (Some(State::Stale), None)]);
}

#[test]
fn a_clock_that_is_set_takes_the_past_along() {
    let mut history = History::default();
    history.changed(&target("srv:/a", "/mnt/a", State::Hung, None), &from(State::Healthy), 100.0);
    history.move_times(86_400.0);
    assert_eq!(history.since(86_510.0).len(), 1);
}
