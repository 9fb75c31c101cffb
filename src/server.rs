//! The server's side of a mount, without touching the mount: sockets of our own, never a path.
//!
//! A probe that hangs says that something between here and the data is dead. [`ask`] says in one call which half of it:
//! a TCP connection and an RPC NULL call. The NULL procedure needs no export, no credentials and no privileged source
//! port (RFC 5531, section 11), so any user may ask; but a server that answers it may still be unable to serve a file.
//! [`examine()`](examine::examine) asks on, and [`conclude`](conclude::conclude) says what the answers prove.
//!
//! | module | asks |
//! |---|---|
//! | [`dns`] | the host's resolver: where does the name lead now? |
//! | [`link`] | one TCP connection, by a privileged port where we may; [`Failure`] is what came instead of an answer |
//! | [`portmap`], [`mountd`] | which port, what is exported, may this machine mount it? |
//! | [`nfs3`], [`nfs4`] | what of the handle that the kernel's client holds ([`handle`]), is the export's path there, is it in grace? |
//! | [`proxy`] | EFS: does the local proxy live? |
//!
//! Everything has a deadline, reads a bounded number of bytes, and gives an answer that can be written down. The address
//! that is asked is the one that the kernel talks to (`addr=` of the mount): that is what matters to the mount even when
//! the name points elsewhere by now.

pub mod conclude;
pub mod dns;
pub mod examine;
#[cfg(test)]
pub(crate) mod fake;
pub mod handle;
pub mod link;
pub mod mountd;
pub mod nfs;
pub mod nfs3;
pub mod nfs4;
pub mod portmap;
pub mod proxy;
pub mod replies;
pub mod rpc;
mod xdr;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::verdict::Cause;
use examine::{Check, Examination};
pub use link::{Failure, Link};
use rpc::{Accept, Call, Reply, RpcError};

/// Version of the NFS program (100003) that is asked for; all minor versions of 4 share one NULL procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NfsVersion {
    /// NFSv3 (RFC 1813).
    V3,
    /// NFSv4.0, 4.1 and 4.2 (RFC 7530, 8881, 7862).
    V4,
}

impl NfsVersion {
    /// The version from a mount's `vers=` option (`3`, `4`, `4.1`); `None` for NFSv2 and for anything that is no version.
    #[must_use]
    pub fn from_option(vers: &str) -> Option<Self> {
        match vers.split('.').next() {
            Some("3") => Some(NfsVersion::V3),
            Some("4") => Some(NfsVersion::V4),
            _ => None,
        }
    }

    fn number(self) -> u32 {
        match self {
            NfsVersion::V3 => 3,
            NfsVersion::V4 => 4,
        }
    }
}

/// How the TCP connection went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connect {
    /// Established.
    Ok,
    /// No answer within the deadline, or the kernel gave up first.
    Timeout,
    /// A reset in reply to the SYN: the machine is there and nothing listens.
    Refused,
    /// Reset after it was established.
    Reset,
    /// No route, or a router says that host or network cannot be reached.
    Unreachable,
    /// Anything else, most of it trouble on this side (no descriptors, no local ports, a firewall's EPERM).
    Other(String),
}

impl Connect {
    fn from_error(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Connect::Timeout,
            io::ErrorKind::ConnectionRefused => Connect::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Connect::Reset,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Connect::Unreachable,
            // EHOSTDOWN has no kind of its own; it is what the kernel says when ARP gets no answer.
            _ if error.raw_os_error() == Some(libc::EHOSTDOWN) => Connect::Unreachable,
            _ => Connect::Other(error.to_string()),
        }
    }
}

/// What came of the NULL call on an established connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Null {
    /// The server executed it.
    Ok,
    /// The server speaks NFS, but not in this version.
    Mismatch {
        /// Lowest version that it speaks.
        low: u32,
        /// Highest version that it speaks.
        high: u32,
    },
    /// The server rejected the message itself: another RPC version, or it wants credentials even for NULL.
    Denied,
    /// The server accepted the message and did not execute it (no such program or procedure, an error of its own).
    Failed(Accept),
    /// The deadline passed before the reply was complete.
    Timeout,
    /// The connection ended before the reply was complete.
    Closed,
    /// The bytes that came are no reply to this call: the text says why. Something else than NFS has the port.
    Garbage(String),
}

impl Null {
    fn from_reply(reply: &Reply<'_>) -> Self {
        match *reply {
            Reply::Accepted(Accept::Success, _) => Null::Ok,
            Reply::Accepted(Accept::ProgramMismatch { low, high }, _) => Null::Mismatch { low, high },
            Reply::Accepted(accept, _) => Null::Failed(accept),
            Reply::Denied(_) => Null::Denied,
        }
    }

    fn of(check: &Check<()>) -> Self {
        match &check.answer {
            Ok(()) | Err(Failure::Status(_)) => Null::Ok,
            Err(Failure::Denied(_)) => Null::Denied,
            Err(Failure::NotExecuted(Accept::ProgramMismatch { low, high })) => {
                Null::Mismatch { low: *low, high: *high }
            }
            Err(Failure::NotExecuted(accept)) => Null::Failed(*accept),
            Err(Failure::Garbage(why)) => Null::Garbage(why.clone()),
            // The connection was there, so one that could not be made again ended before the reply.
            Err(Failure::Closed | Failure::Reset | Failure::Broken(_) | Failure::Connect(_)) => Null::Closed,
            Err(Failure::Timeout) => Null::Timeout,
        }
    }

    fn from_error(error: &RpcError) -> Self {
        match error {
            RpcError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Null::Timeout,
            RpcError::Io(_) | RpcError::Closed { .. } => Null::Closed,
            RpcError::TooLong { .. } | RpcError::TooManyFragments | RpcError::Decode(_) => {
                Null::Garbage(error.to_string())
            }
        }
    }
}

/// What a server said within the deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAnswer {
    /// The TCP connection.
    pub connect: Connect,
    /// The NULL call; `None` when there was no connection to send it on.
    pub null: Option<Null>,
    /// From the start to the connection, or to giving it up.
    pub connecting: Duration,
    /// From the start of the call to its complete reply; `None` without one.
    pub rtt: Option<Duration>,
}

impl fmt::Display for ServerAnswer {
    /// In words that follow "its server".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.connect, &self.null) {
            (Connect::Timeout, _) => f.write_str("does not answer on TCP"),
            (Connect::Refused, _) => f.write_str("refuses connections"),
            (Connect::Reset, _) => f.write_str("resets connections"),
            (Connect::Unreachable, _) => f.write_str("cannot be reached: there is no route"),
            (Connect::Other(error), _) => write!(f, "could not be asked: {error}"),
            (Connect::Ok, None | Some(Null::Timeout)) => f.write_str("accepts connections and answers no RPC"),
            (Connect::Ok, Some(Null::Closed)) => f.write_str("accepts connections and closes them"),
            (Connect::Ok, Some(Null::Garbage(why))) => write!(f, "answers, but not as an RPC server: {why}"),
            (Connect::Ok, Some(_)) => f.write_str("answers RPC"),
        }
    }
}

impl ServerAnswer {
    /// The server lives: any well-formed RPC reply is life, whatever it says.
    #[must_use]
    pub fn alive(&self) -> bool {
        matches!(self.null, Some(Null::Ok | Null::Mismatch { .. } | Null::Denied | Null::Failed(_)))
    }

    /// Why a mount of this server hangs, as far as this answer proves it.
    ///
    /// `None` where it proves nothing: the server answers, something else has its port, or the trouble is on this side.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        match (&self.connect, &self.null) {
            (Connect::Timeout | Connect::Unreachable, _) => Some(Cause::ServerUnreachable),
            (Connect::Refused, _) => Some(Cause::ServerRefused),
            (Connect::Ok, Some(Null::Timeout | Null::Closed)) => Some(Cause::ServerUnresponsive),
            _ => None,
        }
    }

    /// What an examination found out beside: it connects and calls NULL before it asks for anything else. `None` if it
    /// knew no address to ask.
    #[must_use]
    pub fn of(examination: &Examination) -> Option<ServerAnswer> {
        let connect = examination.connect.as_ref()?;
        let connecting = Duration::from_micros(connect.micros);
        if let Err(failure) = &connect.answer {
            let Failure::Connect(connect) = failure else { return None };
            return Some(ServerAnswer::not_connected(connect.clone(), connecting));
        }
        let check = examination.null()?;
        let mut answer = ServerAnswer { connect: Connect::Ok, null: Some(Null::of(check)), connecting, rtt: None };
        answer.rtt = answer.alive().then(|| Duration::from_micros(check.micros));
        Some(answer)
    }

    fn not_connected(connect: Connect, connecting: Duration) -> Self {
        ServerAnswer { connect, null: None, connecting, rtt: None }
    }
}

/// Connects to `addr` and sends one NULL call, all within `deadline`.
///
/// It never fails: whatever happens is an answer. Dropping the future closes the connection.
pub async fn ask(addr: SocketAddr, version: NfsVersion, deadline: Duration) -> ServerAnswer {
    let begin = Instant::now();
    let end = begin + deadline;
    let mut stream = match timeout_at(end, TcpStream::connect(addr)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return ServerAnswer::not_connected(Connect::from_error(&error), begin.elapsed()),
        Err(_) => return ServerAnswer::not_connected(Connect::Timeout, begin.elapsed()),
    };
    let called = Instant::now();
    let null = match timeout_at(end, null_call(&mut stream, version)).await {
        Ok(Ok(null)) => null,
        Ok(Err(error)) => Null::from_error(&error),
        Err(_) => Null::Timeout,
    };
    let mut answer = ServerAnswer { connect: Connect::Ok, null: Some(null), connecting: called - begin, rtt: None };
    if answer.alive() {
        answer.rtt = Some(called.elapsed());
    }
    answer
}

async fn null_call(stream: &mut TcpStream, version: NfsVersion) -> Result<Null, RpcError> {
    let call = Call { xid: fastrand::u32(..), program: rpc::NFS_PROGRAM, version: version.number(), procedure: 0 };
    let record = rpc::exchange(stream, call).await?;
    let reply = rpc::decode_reply(&record, call.xid)?;
    Ok(Null::from_reply(&reply))
}

#[cfg(test)]
mod tests;
