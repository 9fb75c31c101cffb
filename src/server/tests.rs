use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::*;

/// Long enough that a busy machine never meets it where an answer is expected.
const PATIENT: Duration = Duration::from_secs(10);
/// For tests in which the deadline is what is waited for.
const BRIEF: Duration = Duration::from_millis(150);

/// Asks a server that treats its first connection as `behave` says.
async fn ask_server<B, F>(behave: B, deadline: Duration) -> ServerAnswer
where
    B: FnOnce(TcpStream) -> F,
    F: Future<Output = ()>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        behave(stream).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = ask(addr, NfsVersion::V4, deadline) => answer,
        () = serve => unreachable!("serve never ends"),
    }
}

/// Reads the call, checks it, and gives its transaction id.
async fn read_call(stream: &mut TcpStream) -> [u8; 4] {
    let mut call = [0; 44];
    stream.read_exact(&mut call).await.unwrap();
    let word = |index: usize| u32::from_be_bytes(call[index * 4..index * 4 + 4].try_into().unwrap());
    assert_eq!((word(4), word(5), word(6)), (rpc::NFS_PROGRAM, 4, 0), "program, version, procedure");
    call[4..8].try_into().unwrap()
}

fn record(xid: [u8; 4], tail: &[u32]) -> Vec<u8> {
    let length = u32::try_from(4 + tail.len() * 4).unwrap() | 1 << 31;
    let mut bytes = [length.to_be_bytes(), xid].concat();
    bytes.extend(tail.iter().flat_map(|word| word.to_be_bytes()));
    bytes
}

/// Asks a server that replies with these words after the transaction id.
async fn ask_replying(tail: &[u32]) -> ServerAnswer {
    let reply = async |mut stream: TcpStream| {
        let xid = read_call(&mut stream).await;
        stream.write_all(&record(xid, tail)).await.unwrap();
        std::future::pending::<()>().await;
    };
    ask_server(reply, PATIENT).await
}

#[tokio::test]
async fn a_server_that_answers_null_is_alive_and_no_cause() {
    let answer = ask_replying(&[1, 0, 0, 0, 0]).await;
    assert_eq!((&answer.connect, &answer.null), (&Connect::Ok, &Some(Null::Ok)));
    assert!(answer.alive() && answer.rtt.is_some_and(|rtt| rtt < PATIENT));
    assert_eq!(answer.cause(), None);
}

#[tokio::test]
async fn any_well_formed_reply_is_life() {
    let cases: [(&[u32], Null); 4] = [
        (&[1, 0, 0, 0, 2, 3, 3], Null::Mismatch { low: 3, high: 3 }),
        (&[1, 0, 0, 0, 1], Null::Failed(Accept::ProgramUnavailable)),
        (&[1, 1, 1, 5], Null::Denied),
        (&[1, 1, 0, 2, 2], Null::Denied),
    ];
    for (tail, null) in cases {
        let answer = ask_replying(tail).await;
        assert_eq!(answer.null, Some(null));
        assert!(answer.alive() && answer.rtt.is_some());
        assert_eq!(answer.cause(), None);
    }
}

#[tokio::test]
async fn nothing_listening_is_refused() {
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let answer = ask(addr, NfsVersion::V3, PATIENT).await;
    assert_eq!((&answer.connect, &answer.null), (&Connect::Refused, &None));
    assert!(!answer.alive() && answer.rtt.is_none());
    assert_eq!(answer.cause(), Some(Cause::ServerRefused));
}

/// With its queue full a listener drops every further SYN, which is what a firewall's DROP looks like.
#[tokio::test]
async fn a_syn_without_an_answer_is_unreachable() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout_at(Instant::now() + BRIEF, TcpStream::connect(addr)).await {
        queued.push(stream.unwrap());
    }
    let answer = ask(addr, NfsVersion::V4, BRIEF).await;
    assert_eq!(answer.connect, Connect::Timeout);
    assert_eq!(answer.cause(), Some(Cause::ServerUnreachable));
}

#[tokio::test]
async fn a_server_that_takes_the_call_and_says_nothing_is_unresponsive() {
    let answer = ask_server(
        async |mut stream| {
            read_call(&mut stream).await;
            std::future::pending().await
        },
        BRIEF,
    )
    .await;
    assert_eq!((&answer.connect, &answer.null), (&Connect::Ok, &Some(Null::Timeout)));
    assert!(!answer.alive() && answer.rtt.is_none());
    assert_eq!(answer.cause(), Some(Cause::ServerUnresponsive));
}

/// A backlog takes connections without the server's help: the state of a stopped process, or of a nfsd without threads.
#[tokio::test]
async fn a_server_that_never_accepts_is_unresponsive() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let answer = ask(listener.local_addr().unwrap(), NfsVersion::V4, BRIEF).await;
    assert_eq!(answer.null, Some(Null::Timeout));
    assert_eq!(answer.cause(), Some(Cause::ServerUnresponsive));
}

#[tokio::test]
async fn one_deadline_holds_for_a_reply_that_drips() {
    let drip = async |mut stream: TcpStream| {
        let xid = read_call(&mut stream).await;
        for byte in record(xid, &[1, 0, 0, 0, 0]) {
            stream.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let started = Instant::now();
    let answer = ask_server(drip, Duration::from_millis(1500)).await;
    assert_eq!(answer.null, Some(Null::Timeout));
    assert!(started.elapsed() >= Duration::from_millis(1500), "it waited for the deadline");
    assert!(started.elapsed() < PATIENT, "and for no single read");
    assert_eq!(answer.cause(), Some(Cause::ServerUnresponsive));
}

#[tokio::test]
async fn a_connection_closed_before_or_within_the_reply_is_unresponsive() {
    let at_once = ask_server(async |stream| drop(stream), PATIENT).await;
    let half = ask_server(
        async |mut stream: TcpStream| {
            let xid = read_call(&mut stream).await;
            stream.write_all(&record(xid, &[1, 0, 0, 0, 0])[..10]).await.unwrap();
        },
        PATIENT,
    )
    .await;
    for answer in [at_once, half] {
        assert_eq!((&answer.connect, &answer.null), (&Connect::Ok, &Some(Null::Closed)));
        assert!(!answer.alive());
        assert_eq!(answer.cause(), Some(Cause::ServerUnresponsive));
    }
}

#[tokio::test]
async fn what_is_no_reply_is_garbage_and_proves_nothing() {
    let mut wrong_xid = record([0; 4], &[1, 0, 0, 0, 0]);
    wrong_xid[4..8].copy_from_slice(&[0xff; 4]);
    let cases: [(Vec<u8>, &str); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "more than the 65536"),
        ([0x8000_0004_u32.to_be_bytes(), [1, 2, 3, 4]].concat(), "transaction id 0x01020304"),
        (0x8000_0000_u32.to_be_bytes().to_vec(), "ends before its transaction id"),
        ([0; 4].repeat(rpc::MAX_FRAGMENTS), "more than 256 fragments"),
    ];
    for (bytes, why) in cases {
        let send = async |mut stream: TcpStream| {
            read_call(&mut stream).await;
            stream.write_all(&bytes).await.unwrap();
            std::future::pending::<()>().await;
        };
        let answer = ask_server(send, PATIENT).await;
        assert!(matches!(&answer.null, Some(Null::Garbage(text)) if text.contains(why)), "{:?}", answer.null);
        assert!(!answer.alive() && answer.rtt.is_none());
        assert_eq!(answer.cause(), None);
    }
}

#[test]
fn errors_of_connect_are_told_apart() {
    let cases = [
        (libc::ETIMEDOUT, Connect::Timeout, Some(Cause::ServerUnreachable)),
        (libc::EHOSTUNREACH, Connect::Unreachable, Some(Cause::ServerUnreachable)),
        (libc::ENETUNREACH, Connect::Unreachable, Some(Cause::ServerUnreachable)),
        (libc::EHOSTDOWN, Connect::Unreachable, Some(Cause::ServerUnreachable)),
        (libc::ECONNREFUSED, Connect::Refused, Some(Cause::ServerRefused)),
        (libc::ECONNRESET, Connect::Reset, None),
    ];
    for (errno, connect, cause) in cases {
        let answer = ServerAnswer::not_connected(Connect::from_error(&io::Error::from_raw_os_error(errno)), BRIEF);
        assert_eq!((answer.cause(), answer.connect), (cause, connect));
    }
}

#[test]
fn trouble_on_this_side_is_not_blamed_on_the_server() {
    for errno in [libc::EMFILE, libc::EADDRNOTAVAIL, libc::EPERM, libc::ENOBUFS] {
        let answer = ServerAnswer::not_connected(Connect::from_error(&io::Error::from_raw_os_error(errno)), BRIEF);
        assert!(matches!(answer.connect, Connect::Other(_)));
        assert_eq!(answer.cause(), None);
    }
}

#[test]
fn versions_come_from_the_mount_option() {
    let cases = [("3", Some(NfsVersion::V3)), ("4", Some(NfsVersion::V4)), ("4.2", Some(NfsVersion::V4)), ("2", None)];
    for (text, version) in cases {
        assert_eq!(NfsVersion::from_option(text), version);
    }
    assert_eq!(NfsVersion::from_option(""), None);
}
