use proptest::prelude::*;

use super::super::fake::{self, Say, link, words};
use super::*;

fn list(exports: &[(&str, &[&str])]) -> Vec<u8> {
    let mut body = Writer::default();
    for (path, clients) in exports {
        body.word(1).opaque(path.as_bytes());
        for client in *clients {
            body.word(1).opaque(client.as_bytes());
        }
        body.word(0);
    }
    body.word(0);
    body.finish()
}

#[test]
fn exports_and_their_clients_are_read() {
    let bytes = list(&[("/srv", &["10.0.0.0/8", "*.example"]), ("/srv/data", &[]), ("/srvother", &["*"])]);
    let found = decode_exports(&bytes, false, "/srv/data/sub").unwrap();
    assert_eq!(found.count, 3);
    assert_eq!(found.exports[0].clients, ["10.0.0.0/8", "*.example"]);
    assert_eq!(found.holder.as_deref(), Some("/srv/data"), "the longest one above");
    assert!(!found.misses());
    assert!(decode_exports(&bytes, false, "/srv2").unwrap().misses());
    assert!(decode_exports(&list(&[]), false, "/").unwrap().misses(), "an empty list is an answer");
}

#[test]
fn an_export_holds_itself_and_what_is_below() {
    let cases =
        [("/", "/a", true), ("/a", "/a", true), ("/a/", "/a", true), ("/a", "/a/b", true), ("/a", "/ab", false)];
    for (export, path, expected) in cases {
        assert_eq!(holds(export.as_bytes(), path.as_bytes()), expected, "{export} {path}");
    }
}

#[tokio::test]
async fn a_hundred_thousand_exports_are_counted_as_far_as_they_were_read() {
    let paths: Vec<String> = (0..100_000).map(|number| format!("/exports/customer-{number:06}")).collect();
    let all: Vec<(&str, &[&str])> = paths.iter().map(|path| (path.as_str(), &["*"][..])).collect();
    let bytes = list(&all);
    let address = fake::server(move |_| Say::Results(bytes.clone())).await;
    let found = exports(&mut link(address), "/exports/customer-099999").await.unwrap();
    assert!(found.cut && found.count > 10_000 && found.count < 100_000, "at least {}", found.count);
    assert_eq!(found.exports.len(), KEPT);
    assert!(found.holder.is_none() && !found.misses(), "what was not read is not missing");
    let early = exports(&mut link(address), "/exports/customer-000500").await.unwrap();
    assert_eq!(early.holder.as_deref(), Some("/exports/customer-000500"));
}

#[test]
fn nonsense_in_the_list_is_garbage_and_bounded() {
    let whole = list(&[("/srv", &["*"]), ("/data", &["*"])]);
    for length in 0..whole.len() {
        assert!(matches!(decode_exports(&whole[..length], false, "/srv"), Err(Failure::Garbage(_))), "{length}");
        assert!(decode_exports(&whole[..length], true, "/srv").is_ok(), "what came of a cut list counts");
    }
    let long = "a".repeat(MAX_PATH + 1);
    assert!(decode_exports(&list(&[(&long, &[])]), false, "/").is_err());
    assert!(decode_exports(&words(&[2]), false, "/").is_err(), "a boolean of two");
    let crowd = vec!["*"; 10_000];
    let found = decode_exports(&list(&[("/srv", &crowd)]), false, "/srv").unwrap();
    assert_eq!(found.exports[0].clients.len(), KEPT_CLIENTS);
}

#[test]
fn bytes_of_a_path_are_escaped_for_people() {
    let mut body = Writer::default();
    body.word(1).opaque(b"/srv/\xff\x1b[2J").word(0).word(0);
    let found = decode_exports(&body.finish(), false, "/").unwrap();
    assert!(found.exports[0].path.is_ascii() && !found.exports[0].path.contains('\x1b'), "{:?}", found.exports[0].path);
}

#[tokio::test]
async fn a_mount_that_is_allowed_is_taken_back() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let address = fake::server(move |asked| {
        sender.send((asked.procedure, asked.arguments.clone())).unwrap();
        Say::Results(if asked.procedure == MNT { words(&[0, 8, 1, 2, 1, 1]) } else { Vec::new() })
    })
    .await;
    assert_eq!(may_mount(&mut link(address), "/srv").await, Ok(()));
    let path = [words(&[4]), b"/srv".to_vec()].concat();
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [(MNT, path.clone()), (UMNT, path)]);
}

#[tokio::test]
async fn a_refused_mount_leaves_nothing_to_take_back() {
    let address = fake::server(|asked| {
        assert_eq!(asked.procedure, MNT);
        Say::Results(words(&[13]))
    })
    .await;
    assert_eq!(may_mount(&mut link(address), "/srv").await, Err(Failure::Status(Status::ACCES)));
}

#[test]
fn handles_of_no_and_of_two_hundred_bytes_are_garbage() {
    let reply = |length: usize| {
        let mut body = Writer::default();
        body.word(0).opaque(&vec![7; length]).word(0);
        decode_mount(&body.finish())
    };
    assert!(matches!(reply(0), Err(Failure::Garbage(_))));
    assert_eq!((reply(1), reply(64)), (Ok(()), Ok(())));
    assert!(matches!(reply(200), Err(Failure::Garbage(_))));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut: bool) {
        let _ = decode_exports(&bytes, cut, "/srv");
        let _ = decode_mount(&bytes);
    }

    #[test]
    fn nearly_right_lists_never_panic(body in proptest::collection::vec(0_u32..6, 0..60), cut: bool) {
        if let Ok(found) = decode_exports(&words(&body), cut, "/srv") {
            prop_assert!(found.count <= body.len());
        }
    }
}
