//! Servers for tests: they read calls as a real one does, and answer as a test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::link::{Link, Port};

/// Long enough that a busy machine never meets it where an answer is expected.
pub(crate) const PATIENT: Duration = Duration::from_secs(10);
/// For tests in which the deadline is what is waited for.
pub(crate) const BRIEF: Duration = Duration::from_millis(150);

/// A call as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) xid: u32,
    pub(crate) program: u32,
    pub(crate) version: u32,
    pub(crate) procedure: u32,
    /// Flavour of its credential.
    pub(crate) flavour: u32,
    pub(crate) arguments: Vec<u8>,
}

/// What the server does about it.
pub(crate) enum Say {
    /// Executed, with these results.
    Results(Vec<u8>),
    /// These words follow the transaction id.
    Reply(Vec<u32>),
    /// These bytes, as they are.
    Raw(Vec<u8>),
    /// These bytes, one each second.
    Drip(Vec<u8>),
    /// These bytes, then the end.
    Last(Vec<u8>),
    Nothing,
}

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// One record of one fragment.
pub(crate) fn record(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap() | 1 << 31;
    [&length.to_be_bytes(), body].concat()
}

/// Serves every connection until the test's runtime ends.
pub(crate) async fn server(answer: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = Arc::clone(&answer);
            // Ends with an error when the client is gone.
            tokio::spawn(async move { converse(stream, answer.as_ref()).await });
        }
    });
    address
}

async fn converse(mut stream: TcpStream, answer: &(impl Fn(&Asked) -> Say + Sync)) -> std::io::Result<()> {
    loop {
        let asked = read_call(&mut stream).await?;
        let xid = asked.xid.to_be_bytes();
        match answer(&asked) {
            Say::Results(results) => {
                let body = [&xid, words(&[1, 0, 0, 0, 0]).as_slice(), &results].concat();
                stream.write_all(&record(&body)).await?;
            }
            Say::Reply(tail) => stream.write_all(&record(&[&xid, words(&tail).as_slice()].concat())).await?,
            Say::Raw(bytes) => stream.write_all(&bytes).await?,
            Say::Drip(bytes) => {
                for byte in bytes {
                    stream.write_all(&[byte]).await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Say::Last(bytes) => {
                stream.write_all(&bytes).await?;
                return Ok(());
            }
            Say::Nothing => {}
        }
    }
}

async fn read_call(stream: &mut TcpStream) -> std::io::Result<Asked> {
    let length = stream.read_u32().await? & !(1 << 31);
    let mut body = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut body).await?;
    let word = |at: usize| u32::from_be_bytes(body[at * 4..at * 4 + 4].try_into().unwrap());
    assert_eq!((word(1), word(2)), (0, 2), "a call of RPC version 2");
    // The verifier behind the credential is empty.
    let arguments = 32 + usize::try_from(word(7)).unwrap() + 8;
    Ok(Asked {
        xid: word(0),
        program: word(3),
        version: word(4),
        procedure: word(5),
        flavour: word(6),
        arguments: body[arguments..].to_vec(),
    })
}

pub(crate) fn link(address: SocketAddr) -> Link {
    Link::new(address, Port::Ordinary, PATIENT)
}
