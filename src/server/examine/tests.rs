use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use super::super::fake::{self, Asked, BRIEF, PATIENT, Say, words};
use super::super::nfs::{Fsid, Status};
use super::*;
use crate::mounts::efs::StateFiles;
use crate::mounts::{View, mountinfo};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HANDLE: [u8; 4] = [9, 8, 7, 6];

fn question(version: NfsVersion, port: u16) -> Question {
    Question {
        name: None,
        address: Some(LOCALHOST),
        port,
        version,
        export: Some("/srv".to_owned()),
        handle: Some(RootHandle { server: HANDLE.to_vec(), fileid: 2 }),
        mountd: version == NfsVersion::V3,
        mountd_port: None,
        proxy: None,
    }
}

async fn examined(question: &Question, portmap: u16, deadline: Duration) -> Examination {
    examine_by(question, &Resolver::default(), Path::new("/proc"), deadline, portmap).await
}

/// A server that offers all programs at one port, which its portmapper gives as mountd's. What it was asked comes along.
async fn whole_server(v3: bool) -> (u16, Arc<Mutex<Vec<(u32, u32, u32)>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let own_port = Arc::new(Mutex::new(0));
    let port = Arc::clone(&own_port);
    let address = fake::server(move |call: &Asked| {
        log.lock().unwrap().push((call.program, call.version, call.procedure));
        match (call.program, call.version, call.procedure) {
            (100_000, 2, 3) => Say::Results(words(&[*port.lock().unwrap()])),
            (100_003, 3, _) if !v3 => Say::Reply(vec![1, 0, 0, 0, 2, 4, 4]),
            (100_003, 4, _) if v3 => Say::Reply(vec![1, 0, 0, 0, 2, 3, 3]),
            (_, _, 0) => Say::Results(Vec::new()),
            // A directory with two links, filesystem 5, fileid 2.
            (100_003, 3, 1) => {
                assert_eq!(call.arguments, [words(&[4]), HANDLE.to_vec()].concat());
                Say::Results(words(&[0, 2, 0o755, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 2, 0, 0]))
            }
            // Every compound fails as a whole: 4.0 is switched off.
            (100_003, 4, 1) => Say::Results(words(&[10021, 0, 0])),
            (100_005, 3, 5) => Say::Results([words(&[1, 4]), b"/srv".to_vec(), words(&[0, 0])].concat()),
            (100_005, 3, 1) => Say::Results(words(&[0, 4, 1, 1])),
            (100_005, 3, 3) => Say::Results(Vec::new()),
            other => panic!("{other:?}"),
        }
    })
    .await;
    *own_port.lock().unwrap() = u32::from(address.port());
    (address.port(), asked)
}

#[tokio::test]
async fn a_v3_mount_is_asked_about_in_order() {
    let (port, asked) = whole_server(true).await;
    let found = examined(&question(NfsVersion::V3, port), port, PATIENT).await;
    let root = Attributes { directory: true, fileid: 2, fsid: Fsid(5, 0), links: Some(2), created: None };
    assert_eq!(found.root.as_ref().and_then(Check::ok), Some(&root));
    assert!(found.connect.unwrap().answer.is_ok() && found.v3.unwrap().answer.is_ok());
    assert_eq!(found.v4.unwrap().failure().unwrap().to_string(), "offers only version 3");
    assert_eq!(found.portmap.unwrap().answer, Ok(Some(port)));
    assert_eq!(found.exports.unwrap().ok().unwrap().holder.as_deref(), Some("/srv"));
    assert_eq!(found.may_mount.unwrap().answer, Ok(()));
    assert!(found.path.is_none() && found.grace.is_none() && found.name.is_none());
    assert!(found.privileged.is_some() && found.mountd_privileged.is_some());
    let calls = [
        (100_003, 3, 0),
        (100_003, 4, 0),
        (100_003, 3, 1),
        (100_000, 2, 3),
        (100_005, 3, 0),
        (100_005, 3, 5),
        (100_005, 3, 1),
        (100_005, 3, 3),
    ];
    assert_eq!(*asked.lock().unwrap(), calls);
}

#[tokio::test]
async fn a_v4_server_without_minor_version_0_says_so_to_each_question() {
    let (port, asked) = whole_server(false).await;
    let found = examined(&question(NfsVersion::V4, port), port, PATIENT).await;
    let off = Some(&Failure::Status(Status::MINOR_VERS_MISMATCH));
    assert_eq!(found.root.as_ref().unwrap().failure(), off);
    assert_eq!(found.path.as_ref().unwrap().failure(), off);
    assert_eq!(found.grace.as_ref().unwrap().failure(), off);
    assert!(found.portmap.is_none() && found.mountd.is_none(), "NFSv4 needs none of them");
    assert_eq!(asked.lock().unwrap().len(), 5);
}

/// Each question may take its deadline, and all together no more than there are questions.
#[tokio::test]
async fn a_server_that_answers_nothing_is_left_alone_after_the_first_call() {
    let address = fake::server(|_| Say::Nothing).await;
    let begin = Instant::now();
    let found = examined(&question(NfsVersion::V3, address.port()), address.port(), BRIEF).await;
    assert_eq!(found.v3.unwrap().failure(), Some(&Failure::Timeout));
    assert!(found.v4.is_none() && found.root.is_none());
    assert_eq!(found.portmap.unwrap().failure(), Some(&Failure::Timeout), "another port, another answer");
    assert!(begin.elapsed() < BRIEF * MOST_QUESTIONS);
}

#[tokio::test]
async fn nothing_listens_and_mountd_is_asked_all_the_same() {
    let (mountd, _) = whole_server(true).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let found = examined(&question(NfsVersion::V3, closed), mountd, PATIENT).await;
    assert_eq!(found.connect.unwrap().failure(), Some(&Failure::Connect(Connect::Refused)));
    assert!(found.v3.is_none() && found.privileged.is_none());
    assert_eq!(found.may_mount.unwrap().answer, Ok(()));
}

#[tokio::test]
async fn the_mounts_own_option_names_mountd_where_the_portmapper_does_not() {
    let (port, _) = whole_server(true).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let asked = Question { mountd_port: Some(port), ..question(NfsVersion::V3, port) };
    let found = examined(&asked, closed, PATIENT).await;
    assert_eq!(found.portmap.unwrap().failure(), Some(&Failure::Connect(Connect::Refused)));
    assert!(found.mountd.unwrap().answer.is_ok());
}

#[tokio::test]
async fn a_name_without_an_address_ends_the_examination() {
    // A name that getaddrinfo refuses without asking anybody.
    let nobody = Question::unmounted(&"a".repeat(300), "/srv", NfsVersion::V4);
    let found = examined(&nobody, 1, PATIENT).await;
    assert!(matches!(found.name.unwrap().resolution, Resolution::NotAsked(_)));
    assert!(found.address.is_none() && found.connect.is_none());
}

#[test]
fn a_question_before_the_mount_takes_names_and_addresses() {
    let named = Question::unmounted("nfs.example", "/srv", NfsVersion::V3);
    assert_eq!((named.name.as_deref(), named.address, named.mountd), (Some("nfs.example"), None, true));
    for server in ["2001:db8::1", "[2001:db8::1]"] {
        let plain = Question::unmounted(server, "/srv", NfsVersion::V4);
        assert_eq!((plain.name, plain.address), (None, "2001:db8::1".parse().ok()));
    }
}

fn of(line: &str, handle: &[u8], efs: Option<&EfsMount>) -> Option<Question> {
    let parsed = mountinfo::parse(line.as_bytes(), View::Host);
    assert_eq!(parsed.mounts.len(), 1, "{line}");
    Question::of(&parsed.mounts[0], handle, efs)
}

#[test]
fn a_mount_says_what_to_ask() {
    let line = "36 25 0:26 / /mnt/a rw - nfs nfs.example:/srv/a rw,vers=3,proto=tcp,mountport=4711,addr=192.0.2.5\n";
    let question = of(line, &[], None).unwrap();
    assert_eq!((question.name.as_deref(), question.address), (Some("nfs.example"), "192.0.2.5".parse().ok()));
    assert_eq!((question.port, question.version, question.mountd_port), (2049, NfsVersion::V3, Some(4711)));
    assert_eq!((question.export.as_deref(), question.mountd, question.handle), (Some("/srv/a"), true, None));

    let by_address =
        of("36 25 0:26 / /m rw - nfs4 192.0.2.5:/ rw,vers=4.2,port=2050,addr=192.0.2.5\n", &[], None).unwrap();
    assert_eq!((by_address.name, by_address.port, by_address.version), (None, 2050, NfsVersion::V4));

    let odd = "36 25 0:26 / /m rw - nfs4 nfs.example:/a\\377 rw,vers=4.2,addr=192.0.2.5\n";
    assert_eq!(of(odd, &[], None).unwrap().export, None, "an escaped label is no path");

    for other in [
        "36 25 0:26 / /m rw - cifs //server/share rw,addr=192.0.2.5\n",
        "36 25 0:26 / /m rw - nfs a:/b rw,vers=3,proto=udp,addr=192.0.2.5\n",
        "36 25 0:26 / /m rw - nfs a:/b rw,vers=3\n",
        "36 25 0:26 / /m rw - nfs a:/b rw,vers=2,addr=192.0.2.5\n",
    ] {
        assert_eq!(of(other, &[], None), None, "{other}");
    }
}

#[test]
fn a_mount_through_a_proxy_names_what_is_behind_it() {
    let content = br#"{"pid": 4711, "region": "eu-west-1"}"#.to_vec();
    let files = StateFiles::decode(std::iter::once(("fs-0123456789abcdef0.m.20173".into(), content)));
    let line = "36 25 0:26 / /m rw - nfs4 127.0.0.1:/ rw,vers=4.1,port=20173,addr=127.0.0.1\n";
    let mut mount = mountinfo::parse(line.as_bytes(), View::Host).mounts.remove(0);
    files.apply(&mut mount);
    let efs = files.lookup(20173, Path::new("/m")).unwrap();
    let question = Question::of(&mount, &[], Some(efs)).unwrap();
    let target = "fs-0123456789abcdef0.efs.eu-west-1.amazonaws.com".to_owned();
    assert_eq!(question.proxy, Some(ProxyQuestion { pid: Some(4711), target: Some(target), led_to: None }));
    assert_eq!((question.name, question.port, question.export.as_deref()), (None, 20173, Some("/")));
}

/// A host that is cut off has no resolver either.
#[tokio::test]
async fn what_is_behind_a_proxy_is_tried_where_its_name_led_earlier() {
    for (led_to, tried) in [(None, false), (Some(LOCALHOST), true)] {
        let proxy = ProxyQuestion { pid: None, target: Some("gone.invalid".to_owned()), led_to };
        let look = ask_proxy(&proxy, &Resolver::default(), Path::new("/proc"), BRIEF).await;
        assert!(look.name.is_some_and(|name| name.resolution.first().is_none()));
        assert_eq!(look.connect.is_some(), tried);
    }
}

/// Whoever examines a server knows its pulse too, and need not ask for it once more.
#[tokio::test]
async fn an_examination_says_what_a_null_would_have_said() {
    let closed = {
        let listener = tokio::net::TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let say: [fn() -> Say; 5] = [
        || Say::Results(Vec::new()),
        || Say::Reply(vec![1, 0, 0, 0, 2, 3, 3]),
        || Say::Reply(vec![1, 1, 1, 5]),
        || Say::Last(Vec::new()),
        || Say::Nothing,
    ];
    let mut servers = vec![closed];
    for say in say {
        servers.push(fake::server(move |_| say()).await);
    }
    for server in servers {
        let mut asked = question(NfsVersion::V4, server.port());
        (asked.handle, asked.export) = (None, None);
        let found = examined(&asked, server.port(), BRIEF).await;
        let told = crate::server::ServerAnswer::of(&found).expect("it was asked");
        let alone = crate::server::ask(server, NfsVersion::V4, BRIEF).await;
        assert_eq!((&told.connect, &told.null), (&alone.connect, &alone.null));
        assert_eq!((told.alive(), told.rtt.is_some()), (alone.alive(), alone.rtt.is_some()));
    }
    assert_eq!(crate::server::ServerAnswer::of(&Examination::default()), None);
}
