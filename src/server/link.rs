//! One conversation with one port of a server: calls one after the other, over one connection while it lasts.
//!
//! Servers export to privileged ports only unless told `insecure`, so a call that names files leaves from one where we
//! may (CAP_NET_BIND_SERVICE). There are few of them and the kernel's client needs them too: a reserved port is given back
//! at once, by a reset, instead of resting in TIME_WAIT for a minute.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::Connect;
use super::nfs::Status;
use super::rpc::{self, Accept, Call, Credential, Denial, Reply, RpcError};

/// The ports that the kernel's client takes by default (`sunrpc.min_resvport` and `max_resvport`).
const RESERVED: RangeInclusive<u16> = 665..=1023;

/// So many reserved ports are tried; each costs a system call. Where all are taken, an ordinary one must do.
const PORT_TRIES: usize = 16;

/// Why a question has no answer. Nothing of what happened is lost: a person can read it, a rule can match it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// There was no connection to ask on; never [`Connect::Ok`].
    Connect(Connect),
    /// The deadline passed before the reply was complete.
    Timeout,
    /// The peer closed the connection before the reply was complete.
    Closed,
    /// The connection was reset before the reply was complete.
    Reset,
    /// Reading or writing failed otherwise.
    Broken(String),
    /// What came is no reply to the question: the text says why.
    Garbage(String),
    /// The server refused the message itself: its credentials, or the version of RPC.
    Denied(Denial),
    /// The server understood the message and did not execute it; never [`Accept::Success`].
    NotExecuted(Accept),
    /// The server executed it, and this is its error.
    Status(Status),
}

impl Failure {
    /// The server spoke RPC: it lives, whatever it said.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        matches!(self, Failure::Denied(_) | Failure::NotExecuted(_) | Failure::Status(_))
    }

    /// The connection was made, and nothing came back on it.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Failure::Timeout | Failure::Closed | Failure::Reset)
    }

    /// The server's error, if that is what it is.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self {
            Failure::Status(status) => Some(*status),
            _ => None,
        }
    }

    pub(super) fn garbage(what: impl Into<String>) -> Self {
        Failure::Garbage(what.into())
    }

    fn from_connect(error: &io::Error) -> Self {
        Failure::Connect(Connect::from_error(error))
    }
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Closed { .. } => Failure::Closed,
            RpcError::Io(error) => match error.kind() {
                io::ErrorKind::TimedOut => Failure::Timeout,
                io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Failure::Reset,
                io::ErrorKind::BrokenPipe => Failure::Closed,
                _ => Failure::Broken(error.to_string()),
            },
            RpcError::TooLong { .. } | RpcError::TooManyFragments | RpcError::Decode(_) => {
                Failure::Garbage(error.to_string())
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect(Connect::Timeout) => f.write_str("no answer to the connection attempt"),
            Failure::Connect(Connect::Refused) => {
                f.write_str("connection refused: nothing listens there, or a firewall rejects it")
            }
            Failure::Connect(Connect::Reset) => f.write_str("the connection was reset as soon as it was made"),
            Failure::Connect(Connect::Unreachable) => f.write_str("no route to the host"),
            Failure::Connect(Connect::Other(error)) => write!(f, "could not connect: {error}"),
            Failure::Connect(Connect::Ok) => f.write_str("connected"),
            Failure::Timeout => f.write_str("connected, no reply in time"),
            Failure::Closed => f.write_str("connected, then closed without a reply"),
            Failure::Reset => f.write_str("connected, then reset without a reply"),
            Failure::Broken(error) => write!(f, "the connection broke: {error}"),
            Failure::Garbage(why) => write!(f, "what came back is no answer: {why}"),
            Failure::Denied(Denial::Auth(status)) => write!(f, "refused our credentials ({})", auth_words(*status)),
            Failure::Denied(Denial::RpcMismatch { low, high }) => write!(f, "speaks RPC {low} to {high}, not 2"),
            Failure::NotExecuted(Accept::ProgramUnavailable) => f.write_str("does not offer this program"),
            Failure::NotExecuted(Accept::ProgramMismatch { low, high }) if low == high => {
                write!(f, "offers only version {low}")
            }
            Failure::NotExecuted(Accept::ProgramMismatch { low, high }) => write!(f, "offers versions {low} to {high}"),
            Failure::NotExecuted(Accept::ProcedureUnavailable) => f.write_str("does not know this procedure"),
            Failure::NotExecuted(Accept::GarbageArguments) => f.write_str("could not read our arguments"),
            Failure::NotExecuted(Accept::SystemError | Accept::Success) => f.write_str("had an error of its own"),
            Failure::Status(status) => write!(f, "{status}"),
        }
    }
}

/// `auth_stat` of RFC 5531, section 9.
fn auth_words(status: u32) -> String {
    match status {
        1 => "bad credentials: no export names this client".to_owned(),
        2 => "rejected credentials".to_owned(),
        5 => "too weak: it wants another security flavour".to_owned(),
        other => format!("authentication status {other}"),
    }
}

/// Which port a conversation leaves from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Any.
    Ordinary,
    /// One below 1024 where we may and one is free, else any: [`Link::privileged`] says which it was.
    Privileged,
}

/// A call to be made.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) procedure: u32,
    pub(super) credential: Credential,
    pub(super) arguments: Vec<u8>,
}

impl Query {
    /// NULL of a program: needs no credentials.
    pub(super) fn null(program: u32, version: u32) -> Self {
        Query { program, version, procedure: 0, credential: Credential::None, arguments: Vec::new() }
    }

    /// A call in our own name.
    pub(super) fn own(program: u32, version: u32, procedure: u32, arguments: Vec<u8>) -> Self {
        Query { program, version, procedure, credential: Credential::own(), arguments }
    }
}

/// A conversation with one port. It connects when it is first used, and again after the connection ended: nfsd closes it
/// after a call that it denied.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    port: Port,
    deadline: Duration,
    stream: Option<TcpStream>,
    privileged: Option<bool>,
}

impl Link {
    /// A conversation in which each call, with the connection that it may need, has `deadline`.
    #[must_use]
    pub fn new(address: SocketAddr, port: Port, deadline: Duration) -> Self {
        Link { address, port, deadline, stream: None, privileged: None }
    }

    /// Whether the last connection left from a port below 1024; `None` before the first one was tried.
    #[must_use]
    pub fn privileged(&self) -> Option<bool> {
        self.privileged
    }

    /// Makes the connection.
    ///
    /// # Errors
    /// [`Failure::Connect`].
    pub async fn connect(&mut self) -> Result<(), Failure> {
        let end = Instant::now() + self.deadline;
        self.connect_by(end).await
    }

    async fn connect_by(&mut self, end: Instant) -> Result<(), Failure> {
        let attempt = open(self.address, self.port, &mut self.privileged);
        let stream = timeout_at(end, attempt).await.map_err(|_| Failure::Connect(Connect::Timeout))?;
        self.stream = Some(stream.map_err(|error| Failure::from_connect(&error))?);
        Ok(())
    }

    /// Makes a call; gives its results.
    ///
    /// # Errors
    /// [`Failure`], but never [`Failure::Status`], which is the program's own affair.
    pub(super) async fn call(&mut self, query: &Query) -> Result<Vec<u8>, Failure> {
        self.exchange(query, false).await.map(|(results, _)| results)
    }

    /// Makes a call whose reply is a list; the flag says that it would have gone on ([`rpc::MAX_LIST`]).
    ///
    /// # Errors
    /// As [`Link::call`].
    pub(super) async fn call_for_list(&mut self, query: &Query) -> Result<(Vec<u8>, bool), Failure> {
        self.exchange(query, true).await
    }

    /// After anything but a complete reply the stream is no longer at the start of a record, and is dropped.
    async fn exchange(&mut self, query: &Query, list: bool) -> Result<(Vec<u8>, bool), Failure> {
        let end = Instant::now() + self.deadline;
        let reused = self.stream.is_some();
        match self.attempt(query, list, end).await {
            // The server may have closed an idle connection, or one on which it denied the last call.
            Err(Failure::Closed | Failure::Reset) if reused => self.attempt(query, list, end).await,
            result => result,
        }
    }

    async fn attempt(&mut self, query: &Query, list: bool, end: Instant) -> Result<(Vec<u8>, bool), Failure> {
        if self.stream.is_none() {
            self.connect_by(end).await?;
        }
        let Some(mut stream) = self.stream.take() else { return Err(Failure::Closed) };
        let xid = fastrand::u32(..);
        let call = Call { xid, program: query.program, version: query.version, procedure: query.procedure };
        let bytes = call.encode_with(query.credential, &query.arguments);
        let exchange = async {
            match list {
                true => rpc::exchange_list(&mut stream, &bytes).await,
                false => rpc::exchange_bytes(&mut stream, &bytes).await.map(|record| (record, false)),
            }
        };
        let (record, cut) = timeout_at(end, exchange).await.map_err(|_| Failure::Timeout)??;
        let results = results(&record, xid)?;
        if !cut {
            self.stream = Some(stream);
        }
        Ok((results, cut))
    }
}

fn results(record: &[u8], xid: u32) -> Result<Vec<u8>, Failure> {
    match rpc::decode_reply(record, xid).map_err(RpcError::from)? {
        Reply::Accepted(Accept::Success, results) => Ok(results.to_vec()),
        Reply::Accepted(accept, _) => Err(Failure::NotExecuted(accept)),
        Reply::Denied(denial) => Err(Failure::Denied(denial)),
    }
}

async fn open(address: SocketAddr, port: Port, privileged: &mut Option<bool>) -> io::Result<TcpStream> {
    if port == Port::Privileged {
        let first = fastrand::u16(RESERVED);
        for candidate in RESERVED.cycle_from(first).take(PORT_TRIES) {
            let socket = socket(address)?;
            match socket.bind(SocketAddr::new(any(address), candidate)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                Err(_) => continue,
            }
            *privileged = Some(true);
            // A reset at the end, so that the port is free again.
            socket.set_zero_linger()?;
            match socket.connect(address).await {
                // The pair of ports rests in TIME_WAIT.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                result => return result,
            }
        }
    }
    *privileged = Some(false);
    socket(address)?.connect(address).await
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

fn any(address: SocketAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// A range from a place within it to its end, then from its beginning.
trait CycleFrom {
    fn cycle_from(&self, first: u16) -> impl Iterator<Item = u16>;
}

impl CycleFrom for RangeInclusive<u16> {
    fn cycle_from(&self, first: u16) -> impl Iterator<Item = u16> {
        (first..=*self.end()).chain(*self.start()..first)
    }
}

#[cfg(test)]
mod tests;
