//! ONC RPC version 2 over TCP (RFC 5531): just enough to send one call and to understand every reply to it.
//!
//! The peer may be anything that listens on the port, so nothing it sends is trusted: lengths are checked before they
//! are used, a reply is bounded in bytes and in fragments, and [`decode_reply`] is total. Time is the caller's: wrap
//! [`exchange`] in a timeout.

use std::fmt;
use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Program number of NFS (RFC 1813, section 2.1).
pub const NFS_PROGRAM: u32 = 100_003;

/// Longest reply in bytes, over all fragments. The longest one expected has 36; the rest is room for the calls of
/// a diagnosis. Bounds the memory that a peer can make us use.
pub const MAX_REPLY: usize = 64 * 1024;

/// Most fragments of one reply. RFC 5531 allows empty ones, so the bound on bytes alone would let a peer keep us reading.
pub const MAX_FRAGMENTS: usize = 256;

/// The top bit of a fragment's header says that it is the last one of its record (RFC 5531, section 11).
const LAST_FRAGMENT: u32 = 1 << 31;

const RPC_VERSION: u32 = 2;
const MSG_CALL: u32 = 0;
const MSG_REPLY: u32 = 1;
const AUTH_NONE: u32 = 0;

/// RFC 5531, section 8.2: the body of a credential or verifier has at most this many bytes.
const MAX_AUTH_BODY: u32 = 400;

/// Header of a call without arguments and without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Ties the reply to the call.
    pub xid: u32,
    /// Program ([`NFS_PROGRAM`]).
    pub program: u32,
    /// Version of the program.
    pub version: u32,
    /// Procedure; 0 is NULL in every program.
    pub procedure: u32,
}

impl Call {
    /// The call as one record of one fragment, ready for the socket.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        const BODY: u32 = 10 * 4;
        #[rustfmt::skip]
        let words = [
            LAST_FRAGMENT | BODY,
            self.xid, MSG_CALL, RPC_VERSION, self.program, self.version, self.procedure,
            AUTH_NONE, 0, // credential: flavour, length
            AUTH_NONE, 0, // verifier: flavour, length
        ];
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }
}

/// A well-formed reply. The bytes of an accepted one are the results that follow the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `MSG_ACCEPTED`: the message was understood, which does not mean that it was executed.
    Accepted(Accept, &'a [u8]),
    /// `MSG_DENIED`.
    Denied(Denial),
}

/// `accept_stat` of RFC 5531.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Executed.
    Success,
    /// The program is not offered on this port.
    ProgramUnavailable,
    /// The program is offered in other versions.
    ProgramMismatch {
        /// Lowest one.
        low: u32,
        /// Highest one.
        high: u32,
    },
    /// The version has no such procedure.
    ProcedureUnavailable,
    /// The server could not decode the arguments.
    GarbageArguments,
    /// An error of the server, such as no memory.
    SystemError,
}

/// `reject_stat` of RFC 5531.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The server speaks other versions of RPC.
    RpcMismatch {
        /// Lowest one.
        low: u32,
        /// Highest one.
        high: u32,
    },
    /// The credentials do not suffice; the number is an `auth_stat` (RFC 5531, section 9).
    Auth(u32),
}

/// Why an exchange gave no well-formed reply.
#[derive(Debug, Error)]
pub enum RpcError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The peer closed the connection before the reply was complete.
    #[error("the peer closed the connection after {received} bytes of its reply")]
    Closed {
        /// Bytes of the record received until then, without fragment headers.
        received: usize,
    },
    /// The reply is longer than [`MAX_REPLY`].
    #[error("the reply announces {announced} bytes, more than the {MAX_REPLY} that a reply may have")]
    TooLong {
        /// Bytes that the fragments seen so far announce together.
        announced: usize,
    },
    /// The reply has more than [`MAX_FRAGMENTS`] fragments.
    #[error("the reply has more than {MAX_FRAGMENTS} fragments")]
    TooManyFragments,
    /// The record is not a reply to the call.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Why a record is not a reply to the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("the reply ends before its {field}")]
    Short {
        /// The first field that is missing.
        field: Field,
    },
    /// It answers another call.
    #[error("the reply has transaction id {got:#010x}, the call had {want:#010x}")]
    WrongXid {
        /// Id of the call.
        want: u32,
        /// Id of the record.
        got: u32,
    },
    /// A field has a value that RFC 5531 does not know.
    #[error("the {field} of the reply is {value}, which RFC 5531 does not know")]
    BadValue {
        /// The field.
        field: Field,
        /// Its value.
        value: u32,
    },
}

/// A field of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `xid`.
    Xid,
    /// `mtype`: call or reply.
    MessageType,
    /// `reply_stat`: accepted or denied.
    ReplyStatus,
    /// Flavour, length or body of the verifier.
    Verifier,
    /// `accept_stat`.
    AcceptStatus,
    /// `reject_stat`.
    RejectStatus,
    /// `auth_stat`.
    AuthStatus,
    /// The lowest or highest version of a mismatch.
    Versions,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Xid => "transaction id",
            Field::MessageType => "message type",
            Field::ReplyStatus => "reply status",
            Field::Verifier => "verifier",
            Field::AcceptStatus => "accept status",
            Field::RejectStatus => "reject status",
            Field::AuthStatus => "authentication status",
            Field::Versions => "versions",
        })
    }
}

/// Sends a call and reads the record that comes back. It has no time limit of its own.
///
/// # Errors
/// [`RpcError`], except `Decode`: the record is not looked into, that is for [`decode_reply`].
pub async fn exchange<S>(stream: &mut S, call: Call) -> Result<Vec<u8>, RpcError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&call.encode()).await?;
    read_record(stream).await
}

async fn read_record<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Vec<u8>, RpcError> {
    let mut record = Vec::new();
    for _ in 0..MAX_FRAGMENTS {
        let mut header = [0; 4];
        read_all(stream, &mut header, record.len()).await?;
        let header = u32::from_be_bytes(header);
        let length = usize::try_from(header & !LAST_FRAGMENT).unwrap_or(usize::MAX);
        let received = record.len();
        let announced = received.saturating_add(length);
        if announced > MAX_REPLY {
            return Err(RpcError::TooLong { announced });
        }
        record.resize(announced, 0);
        let fragment = record.get_mut(received..).unwrap_or_default();
        read_all(stream, fragment, received).await?;
        if header & LAST_FRAGMENT != 0 {
            return Ok(record);
        }
    }
    Err(RpcError::TooManyFragments)
}

async fn read_all<R: AsyncRead + Unpin>(stream: &mut R, buffer: &mut [u8], received: usize) -> Result<(), RpcError> {
    match stream.read_exact(buffer).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(RpcError::Closed { received }),
        Err(error) => Err(RpcError::Io(error)),
    }
}

/// Understands a record as the reply to the call with this `xid`.
///
/// # Errors
/// [`DecodeError`] says which field is missing or wrong. Bytes after the header are the results and are not judged.
pub fn decode_reply(record: &[u8], xid: u32) -> Result<Reply<'_>, DecodeError> {
    let mut reader = Reader(record);
    let got = reader.word(Field::Xid)?;
    if got != xid {
        return Err(DecodeError::WrongXid { want: xid, got });
    }
    match reader.word(Field::MessageType)? {
        MSG_REPLY => {}
        value => return Err(DecodeError::BadValue { field: Field::MessageType, value }),
    }
    match reader.word(Field::ReplyStatus)? {
        0 => accepted(reader),
        1 => denied(reader).map(Reply::Denied),
        value => Err(DecodeError::BadValue { field: Field::ReplyStatus, value }),
    }
}

fn accepted(mut reader: Reader<'_>) -> Result<Reply<'_>, DecodeError> {
    let _flavour = reader.word(Field::Verifier)?;
    let length = reader.word(Field::Verifier)?;
    if length > MAX_AUTH_BODY {
        return Err(DecodeError::BadValue { field: Field::Verifier, value: length });
    }
    reader.skip_opaque(length, Field::Verifier)?;
    let accept = match reader.word(Field::AcceptStatus)? {
        0 => Accept::Success,
        1 => Accept::ProgramUnavailable,
        2 => Accept::ProgramMismatch { low: reader.word(Field::Versions)?, high: reader.word(Field::Versions)? },
        3 => Accept::ProcedureUnavailable,
        4 => Accept::GarbageArguments,
        5 => Accept::SystemError,
        value => return Err(DecodeError::BadValue { field: Field::AcceptStatus, value }),
    };
    Ok(Reply::Accepted(accept, reader.0))
}

fn denied(mut reader: Reader<'_>) -> Result<Denial, DecodeError> {
    match reader.word(Field::RejectStatus)? {
        0 => Ok(Denial::RpcMismatch { low: reader.word(Field::Versions)?, high: reader.word(Field::Versions)? }),
        1 => Ok(Denial::Auth(reader.word(Field::AuthStatus)?)),
        value => Err(DecodeError::BadValue { field: Field::RejectStatus, value }),
    }
}

/// The part of a record that is not read yet. XDR: big-endian words, opaque bytes padded to four (RFC 4506).
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn word(&mut self, field: Field) -> Result<u32, DecodeError> {
        let (word, rest) = self.0.split_first_chunk::<4>().ok_or(DecodeError::Short { field })?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*word))
    }

    fn skip_opaque(&mut self, length: u32, field: Field) -> Result<(), DecodeError> {
        let padded = usize::try_from(length).ok().and_then(|length| length.checked_next_multiple_of(4));
        self.0 = padded.and_then(|padded| self.0.get(padded..)).ok_or(DecodeError::Short { field })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
