use super::*;
use crate::agent::lookup::drive;
use crate::agent::registry::Newcomer;
use crate::config::{Config, OnOff};
use crate::mounts::filter::Filter;
use crate::mounts::{Process, View, mountinfo};
use crate::probe::Identity;
use crate::probe::image::Image;
use crate::probe::pool::{Limits, Pool};
use crate::server::examine::NameCheck;
use crate::server::nfs::{Attributes, Fsid};

const NOW: Now = Duration::from_secs(1000);

fn root(fsid: u64) -> Attributes {
    Attributes { directory: true, fileid: 2, fsid: Fsid(fsid, 0), links: None, created: None }
}

/// The server answers for the root.
fn answered(fsid: u64) -> Examination {
    let well = |micros| Check { answer: Ok(()), micros };
    Examination {
        version: Some(crate::server::NfsVersion::V4),
        fileid: Some(2),
        connect: Some(well(10)),
        v4: Some(well(10)),
        root: Some(Check { answer: Ok(root(fsid)), micros: 10 }),
        ..Examination::default()
    }
}

fn report(symptom: Symptom, examination: Examination, moved: Option<&'static str>) -> Report {
    Report { symptom: Some(symptom), examination, moved }
}

fn target() -> Target {
    let line = b"30 20 0:40 / /mnt rw - nfs4 srv:/x rw,vers=4.1,proto=tcp,addr=192.0.2.7\n";
    let mount = mountinfo::parse(line, View::Own).mounts.remove(0);
    let labels =
        crate::agent::target::Labels { mountpoint: String::new(), source: String::new(), fstype: String::new() };
    Target::new(1, Key::of(&mount, None), labels, &mount, 0.0)
}

fn seen(symptom: Symptom) -> Seen {
    Seen { root_hangs: symptom == Symptom::Hung, ..Seen::new(symptom) }
}

#[test]
fn a_client_is_stuck_after_two_answers_half_a_minute_apart_and_a_probe_that_hung_in_between() {
    let mut inquiry = Inquiry::default();
    let mut ask = |at: Now, looked: Option<Now>| {
        inquiry
            .conclude(Symptom::Hung, &report(Symptom::Hung, answered(5), None), seen(Symptom::Hung), looked, at)
            .cause
    };
    assert_eq!(ask(NOW, Some(NOW)), None);
    assert_eq!(ask(NOW + Duration::from_secs(10), Some(NOW + Duration::from_secs(5))), None, "too soon");
    let later = NOW + STUCK_APART;
    assert_eq!(ask(later, Some(NOW.saturating_sub(Duration::from_secs(1)))), None, "not tried since the first answer");
    assert_eq!(ask(later, None), None);
    assert_eq!(ask(later, Some(NOW + Duration::from_secs(20))), Some(Cause::ClientStuck));
}

#[test]
fn an_answer_that_fails_to_come_begins_the_count_anew() {
    let mut inquiry = Inquiry::default();
    let dead = Examination {
        connect: Some(Check { answer: Err(crate::server::Failure::Timeout), micros: 1 }),
        ..Examination::default()
    };
    let hung = |examination| report(Symptom::Hung, examination, None);
    let late = NOW + STUCK_APART;
    inquiry.conclude(Symptom::Hung, &hung(answered(5)), seen(Symptom::Hung), Some(NOW), NOW);
    inquiry.conclude(Symptom::Hung, &hung(dead), seen(Symptom::Hung), Some(NOW), NOW + Duration::from_secs(10));
    let last = inquiry.conclude(Symptom::Hung, &hung(answered(5)), seen(Symptom::Hung), Some(late), late);
    assert_eq!(last.cause, None);
}

#[test]
fn what_proves_that_the_server_moved_comes_before_the_silence_of_its_old_address() {
    let silent = crate::server::Failure::Connect(crate::server::Connect::Timeout);
    let old = Examination { connect: Some(Check { answer: Err(silent), micros: 1 }), ..Examination::default() };
    let mut inquiry = Inquiry::default();
    let mut conclude = |moved| {
        let report = report(Symptom::Hung, old.clone(), moved);
        inquiry.conclude(Symptom::Hung, &report, seen(Symptom::Hung), Some(NOW), NOW)
    };
    assert_eq!(conclude(None).cause, Some(Cause::ServerUnreachable));
    let moved = conclude(Some("it answers there"));
    assert_eq!((moved.cause, moved.why.as_deref()), (Some(Cause::AddressChanged), Some("it answers there")));
}

#[test]
fn at_a_new_address_only_the_mounts_own_root_is_an_answer() {
    assert!(answers_for_root(&answered(5)));
    let another = Examination { fileid: Some(7), ..answered(5) };
    assert!(!answers_for_root(&another), "another directory has the handle there");
    let unknown = Examination { fileid: None, ..answered(5) };
    assert!(!answers_for_root(&unknown));
    let deleted = Attributes { links: Some(0), ..root(5) };
    assert!(!answers_for_root(&Examination { root: Some(Check { answer: Ok(deleted), micros: 1 }), ..answered(5) }));
}

#[test]
fn an_emptied_mount_is_compared_with_good_times() {
    let emptied = |inquiry: &mut Inquiry, fsid| {
        let report = report(Symptom::Emptied, answered(fsid), None);
        inquiry.conclude(Symptom::Emptied, &report, seen(Symptom::Emptied), Some(NOW), NOW).cause
    };
    let mut inquiry = Inquiry::default();
    assert_eq!(emptied(&mut inquiry, 6), None, "nothing to compare with");
    inquiry.baseline = Some(Baseline { root: root(5), depth: None });
    assert_eq!(emptied(&mut inquiry, 5), None, "people delete files");
    assert_eq!(emptied(&mut inquiry, 6), Some(Cause::FilesystemReplaced));
}

#[test]
fn a_pulse_corrects_what_is_shown_of_a_server() {
    let target = target();
    let mut inquiries = Inquiries::default();
    let mut shown = |news| {
        inquiries.note(&target, news, 1.0);
        let checks = inquiries.checks().remove(0).checks;
        checks.iter().map(|check| format!("{} {}", check.check, check.up)).collect::<Vec<_>>()
    };
    let dns = ServerCheck { check: "dns".to_owned(), up: true, seconds: 0.1 };
    let well = ServerAnswer::of(&answered(5)).expect("it was asked");
    assert_eq!(shown([vec![dns], pulse(&well)].concat()), ["dns true", "tcp true", "nfs true"]);
    let silent = ServerAnswer { connect: Connect::Timeout, null: None, connecting: Duration::ZERO, rtt: None };
    assert_eq!(shown(pulse(&silent)), ["dns true", "tcp false"], "NFS was not asked and cannot be there");
    assert_eq!(shown(pulse(&well)), ["dns true", "tcp true", "nfs true"]);
}

#[test]
fn a_pulse_that_tells_otherwise_ends_what_was_found_before_and_asks_anew() {
    let mut target = target();
    target.verdict.state = State::Hung;
    let answer = |connect, null| ServerAnswer { connect, null, connecting: Duration::ZERO, rtt: None };
    let refused = || answer(Connect::Refused, None);
    let silent = || answer(Connect::Ok, Some(crate::server::Null::Timeout));
    let well = || ServerAnswer::of(&answered(5)).expect("it was asked");
    let after = |target: &Target, cause, told: &ServerAnswer| {
        let found = Examined { symptom: Symptom::Hung, cause: Some(cause), why: None };
        let mut inquiries = Inquiries::default();
        let symptom = Some(Symptom::Hung);
        let inquiry = Inquiry { asked: Some(NOW), symptom, found: vec![(NOW, found)], ..Inquiry::default() };
        inquiries.targets.insert(target.id, inquiry);
        inquiries.hear(target, told);
        let due = Inquiries::due_at(inquiries.targets.get(&target.id), symptom);
        (inquiries.examined(target, NOW).and_then(|examined| examined.cause), due)
    };
    let kept = |cause| (Some(cause), Some(NOW + EVERY));
    let ended = (None, Some(Now::ZERO));
    assert_eq!(after(&target, Cause::ServerRefused, &silent()), ended);
    assert_eq!(after(&target, Cause::ServerRefused, &well()), ended);
    assert_eq!(after(&target, Cause::ServerRefused, &refused()), kept(Cause::ServerRefused));
    assert_eq!(after(&target, Cause::ServerUnresponsive, &well()), kept(Cause::ServerUnresponsive), "NULL alone");
    assert_eq!(after(&target, Cause::AddressChanged, &refused()), kept(Cause::AddressChanged));
    let mut asking = Inquiries::default();
    let under_way = Inquiry { asked: Some(NOW), in_flight: true, symptom: Some(Symptom::Hung), ..Inquiry::default() };
    asking.targets.insert(target.id, under_way);
    asking.hear(&target, &silent());
    assert_eq!(Inquiries::due_at(asking.targets.get(&target.id), Some(Symptom::Hung)), None, "it is being asked about");
    target.mount.origin.proxy_port = Some(20049);
    assert_eq!(after(&target, Cause::ServerUnreachable, &refused()), kept(Cause::ServerUnreachable), "a proxy's word");
}

#[test]
fn what_is_emptied_while_its_canary_hangs_is_explained_as_either_and_not_asked_about_at_each_turn() {
    let mut target = target();
    target.verdict.state = State::Hung;
    let found = |symptom, cause| Examined { symptom, cause: Some(cause), why: None };
    let all = vec![
        (NOW, found(Symptom::Hung, Cause::ServerUnresponsive)),
        (NOW, found(Symptom::Emptied, Cause::FilesystemReplaced)),
    ];
    let mut inquiries = Inquiries::default();
    let inquiry = Inquiry { asked: Some(NOW), symptom: Some(Symptom::Emptied), found: all, ..Inquiry::default() };
    inquiries.targets.insert(target.id, inquiry);
    let cause = |target: &Target| inquiries.examined(target, NOW).and_then(|examined| examined.cause);
    assert_eq!(cause(&target), Some(Cause::ServerUnresponsive));
    let due = |symptom| Inquiries::due_at(inquiries.targets.get(&1), Some(symptom));
    assert_eq!(due(Symptom::Hung), Some(NOW + EVERY));
    assert_eq!(due(Symptom::Refused), Some(Now::ZERO), "that is news");
    target.emptied = true;
    assert_eq!(cause(&target), Some(Cause::FilesystemReplaced));
}

#[test]
fn what_is_well_again_is_asked_about_at_once() {
    let hung = Inquiry { asked: Some(NOW), symptom: Some(Symptom::Hung), ..Inquiry::default() };
    assert_eq!(Inquiries::due_at(Some(&hung), Some(Symptom::Hung)), Some(NOW + EVERY));
    assert_eq!(Inquiries::due_at(Some(&hung), None), Some(Now::ZERO));
    let well = Inquiry { asked: Some(NOW), ..Inquiry::default() };
    assert_eq!(Inquiries::due_at(Some(&well), None), Some(NOW + BACKGROUND));
    let nameless = Inquiry { nameless: true, ..well };
    assert_eq!(Inquiries::due_at(Some(&nameless), None), Some(NOW + NAMELESS), "its name may be back");
}

#[test]
fn a_name_that_could_not_be_asked_for_is_not_called_gone() {
    let with = |resolution| {
        let name = NameCheck { name: "server.example".to_owned(), resolution, micros: 7 };
        checks(&Examination { name: Some(name), ..Examination::default() })
    };
    assert!(!with(Resolution::Gone)[0].up);
    assert!(with(Resolution::NotAsked("4 lookups are still waiting for the resolver".to_owned())).is_empty());
}

/// A pass over so many mounts that only a container has, of one server, all in this state.
fn pass(mounts: u32, server: SocketAddr, state: State) -> Core {
    let config = Config { timeout: Duration::from_millis(500), containers: OnOff::Off, ..Config::default() };
    let pool = Pool::new(Image::of_this_binary().unwrap(), Limits { warm: 1, max: 4, per_owner: 4 });
    let mut core = Core::new(config, Filter::default(), pool, "node".to_owned(), true);
    let view = View::Container(Process { pid: 7, start: 1 });
    let line = |number: u32| {
        let (ip, port) = (server.ip(), server.port());
        format!("{number} 1 0:{number} / /data{number} rw - nfs4 {ip}:/a rw,vers=4.1,hard,port={port},addr={ip}\n")
    };
    let table: String = (100..100 + mounts).map(line).collect();
    let newcomer = |mount| Newcomer { mount, through: None, label: None, owner: None, alone: true };
    let newcomers = mountinfo::parse(table.as_bytes(), view).mounts.into_iter().map(newcomer).collect();
    let identity = Identity { handle: vec![1], ino: 2, unique_mount_id: None };
    for newcomer in core.registry.update_view(view, newcomers).to_identify {
        let id = core.registry.identified(&newcomer, Some(&identity), 0.0).unwrap();
        let now = core.now();
        let target = core.registry.targets.get_mut(&id).unwrap();
        (target.judged, target.verdict.state) = (true, state);
        core.servers.watch(target, state == State::Hung, now);
    }
    core
}

/// So long the pass takes; it gives up after ten seconds.
async fn driven(core: &mut Core) -> Duration {
    let begin = tokio::time::Instant::now();
    drive(core, begin + Duration::from_secs(10)).await.unwrap();
    begin.elapsed()
}

#[tokio::test]
async fn a_pass_asks_about_mounts_that_only_containers_have_and_does_not_wait_for_ever() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    drop(listener);
    let mut core = pass(3, server, State::Stale);
    let took = driven(&mut core).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(core.inquiries.checks().len(), 1, "the server was asked");
}

#[tokio::test]
async fn a_server_that_answers_nobody_is_not_asked_about_each_of_its_mounts() {
    // It takes connections and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut core = pass(40, listener.local_addr().unwrap(), State::Hung);
    let deadline = core.servers.deadline();
    let took = driven(&mut core).await;
    assert!(took < deadline * 8, "{took:?}");
}
