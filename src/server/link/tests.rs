use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::super::fake::{self, BRIEF, PATIENT, Say, link, record, words};
use super::*;

const PROGRAM: u32 = 100_003;

fn query() -> Query {
    Query::own(PROGRAM, 3, 1, vec![0, 0, 0, 7])
}

/// Asks a server that does this about every call.
async fn ask(say: impl Fn() -> Say + Send + Sync + 'static, deadline: Duration) -> Result<Vec<u8>, Failure> {
    let address = fake::server(move |_| say()).await;
    Link::new(address, Port::Ordinary, deadline).call(&query()).await
}

#[tokio::test]
async fn a_call_carries_our_ids_and_arguments_and_brings_its_results() {
    let address = fake::server(|asked| {
        assert_eq!((asked.program, asked.version, asked.procedure), (PROGRAM, 3, 1));
        assert_eq!((asked.flavour, asked.arguments.as_slice()), (1, &[0, 0, 0, 7][..]));
        Say::Results(words(&[1, 2]))
    })
    .await;
    let mut link = link(address);
    for _ in 0..2 {
        assert_eq!(link.call(&query()).await, Ok(words(&[1, 2])));
    }
    assert_eq!(link.privileged(), Some(false));
}

#[tokio::test]
async fn what_a_hostile_server_can_do_has_its_words() {
    let endless = || [0; 4].repeat(rpc::MAX_FRAGMENTS + 1);
    let cases = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "more than the 65536"),
        (words(&[u32::MAX]), "announces 2147483647 bytes"),
        (record(&words(&[7, 1, 0, 0, 0, 0])), "transaction id 0x00000007"),
        (record(&[]), "ends before its transaction id"),
        (endless(), "more than 256 fragments"),
    ];
    for (bytes, why) in cases {
        let failure = ask(move || Say::Raw(bytes.clone()), PATIENT).await.unwrap_err();
        assert!(matches!(&failure, Failure::Garbage(words) if words.contains(why)), "{failure:?}");
        assert!(!failure.is_reply() && !failure.is_silence());
    }
    for (tail, why) in
        [(vec![1, 0, 0, 4000], "verifier of the reply is 4000"), (vec![1, 9], "reply status of the reply is 9")]
    {
        let failure = ask(move || Say::Reply(tail.clone()), PATIENT).await.unwrap_err();
        assert!(matches!(&failure, Failure::Garbage(words) if words.contains(why)), "{failure:?}");
    }
}

#[tokio::test]
async fn half_a_fragment_and_the_end_is_closed() {
    for bytes in [vec![], words(&[0x8000_0040, 1]), vec![0x80]] {
        let closed = ask(move || Say::Last(bytes.clone()), PATIENT).await;
        assert_eq!(closed, Err(Failure::Closed));
    }
}

#[tokio::test]
async fn silence_and_a_byte_a_second_end_with_the_deadline() {
    for say in [|| Say::Nothing, || Say::Drip(record(&words(&[7, 1, 0, 0, 0, 0])))] {
        let begin = Instant::now();
        assert_eq!(ask(say, BRIEF).await, Err(Failure::Timeout));
        assert!(begin.elapsed() >= BRIEF && begin.elapsed() < PATIENT);
    }
}

#[tokio::test]
async fn denials_and_refusals_are_replies() {
    let cases = [
        (vec![1, 1, 1, 1], Failure::Denied(Denial::Auth(1)), "no export names this client"),
        (vec![1, 1, 0, 3, 3], Failure::Denied(Denial::RpcMismatch { low: 3, high: 3 }), "speaks RPC 3"),
        (vec![1, 0, 0, 0, 1], Failure::NotExecuted(Accept::ProgramUnavailable), "does not offer"),
        (
            vec![1, 0, 0, 0, 2, 4, 4],
            Failure::NotExecuted(Accept::ProgramMismatch { low: 4, high: 4 }),
            "only version 4",
        ),
    ];
    for (tail, failure, words) in cases {
        let reply = ask(move || Say::Reply(tail.clone()), PATIENT).await;
        assert_eq!(reply, Err(failure.clone()));
        assert!(failure.is_reply() && failure.to_string().contains(words), "{failure}");
    }
}

#[tokio::test]
async fn nothing_listening_is_refused() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let failure = link(address).call(&query()).await.unwrap_err();
    assert_eq!(failure, Failure::Connect(Connect::Refused));
}

/// nfsd closes a connection on which it denied a call; the next call makes a new one. But only once: a server that
/// always closes is not asked for ever.
#[tokio::test]
async fn a_connection_that_ended_is_made_again_once() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let address = fake::server(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
        0 => Say::Results(words(&[5])),
        1 => Say::Last(vec![]),
        2 => Say::Results(words(&[6])),
        _ => Say::Last(vec![]),
    })
    .await;
    let mut link = link(address);
    assert_eq!(link.call(&query()).await, Ok(words(&[5])));
    assert_eq!(link.call(&query()).await, Ok(words(&[6])), "by a new connection");
    assert_eq!(link.call(&query()).await, Err(Failure::Closed));
    assert_eq!(calls.load(Ordering::SeqCst), 5, "one attempt on the old connection, one on a new one");
}

/// A late reply to a call that was given up must not be taken for the next one's.
#[tokio::test]
async fn after_a_timeout_the_connection_is_not_used_again() {
    let address = fake::server(|asked| match asked.procedure {
        1 => Say::Nothing,
        _ => Say::Results(words(&[9])),
    })
    .await;
    let mut link = Link::new(address, Port::Ordinary, BRIEF);
    assert_eq!(link.call(&query()).await, Err(Failure::Timeout));
    let mut link = Link { deadline: PATIENT, ..link };
    assert!(link.stream.is_none());
    assert_eq!(link.call(&Query::null(PROGRAM, 3)).await, Ok(words(&[9])));
}

#[tokio::test]
async fn a_list_longer_than_the_bound_is_cut_and_says_so() {
    let long = || {
        let body = vec![7; 200_000];
        let last = (1_u32 << 31 | 200_000).to_be_bytes();
        let fragment = [&200_000_u32.to_be_bytes(), body.as_slice()].concat();
        [fragment.repeat(9), last.to_vec(), body].concat()
    };
    let address = fake::server(move |asked| {
        let head = [asked.xid.to_be_bytes().to_vec(), words(&[1, 0, 0, 0, 0])].concat();
        Say::Raw([&u32::try_from(head.len()).unwrap().to_be_bytes(), head.as_slice(), &long()].concat())
    })
    .await;
    let (results, cut) = link(address).call_for_list(&query()).await.unwrap();
    assert!(cut);
    assert_eq!(results.len(), rpc::MAX_LIST - 24, "the header of the reply counts too");
    let failure = link(address).call(&query()).await.unwrap_err();
    assert!(matches!(failure, Failure::Garbage(_)), "only lists may be cut");
}

/// Where this process may not take a reserved port (as on most machines that run tests without root) it says so.
#[tokio::test]
async fn the_answer_says_from_which_port_it_was_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut link = Link::new(listener.local_addr().unwrap(), Port::Privileged, PATIENT);
    assert_eq!(link.privileged(), None);
    link.connect().await.unwrap();
    let (mut stream, peer) = listener.accept().await.unwrap();
    assert_eq!(link.privileged(), Some(peer.port() < 1024), "{peer}");
    assert!(peer.port() >= 1024 || RESERVED.contains(&peer.port()), "{peer}");
    drop(link);
    if peer.port() < 1024 {
        let end = stream.read_u8().await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset, "the port is free again at once");
    }
}

#[test]
fn every_reserved_port_is_tried_once_from_any_place() {
    for first in [665, 800, 1023] {
        let mut ports: Vec<u16> = RESERVED.cycle_from(first).collect();
        assert_eq!((ports[0], ports.len()), (first, 359));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 359);
    }
}
