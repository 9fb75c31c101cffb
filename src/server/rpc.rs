//! ONC RPC version 2 over TCP (RFC 5531): just enough to send one call and to understand every reply to it.
//!
//! The peer may be anything that listens on the port, so nothing it sends is trusted: lengths are checked before they
//! are used, a reply is bounded in bytes and in fragments, and [`decode_reply`] is total. Time is the caller's: wrap
//! [`exchange`] in a timeout.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::xdr::{Reader, Writer};

/// Program number of NFS (RFC 1813, section 2.1).
pub const NFS_PROGRAM: u32 = 100_003;

/// Longest reply in bytes, over all fragments. The longest ones expected are those of a compound, of some hundred bytes.
/// Bounds the memory that a peer can make us use.
pub const MAX_REPLY: usize = 64 * 1024;

/// Bytes that are read of a list, which may be longer than anybody wants to know: about 20,000 exports.
pub const MAX_LIST: usize = 1024 * 1024;

/// Most fragments of one reply. RFC 5531 allows empty ones, so the bound on bytes alone would let a peer keep us reading.
pub const MAX_FRAGMENTS: usize = 256;

/// The top bit of a fragment's header says that it is the last one of its record (RFC 5531, section 11).
const LAST_FRAGMENT: u32 = 1 << 31;

const RPC_VERSION: u32 = 2;
const MSG_CALL: u32 = 0;
const MSG_REPLY: u32 = 1;
const AUTH_NONE: u32 = 0;
const AUTH_SYS: u32 = 1;

/// RFC 5531, section 8.2: the body of a credential or verifier has at most this many bytes.
const MAX_AUTH_BODY: u32 = 400;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// Nobody in particular; enough for NULL and for the portmapper.
    None,
    /// Plain ids (`AUTH_SYS`, RFC 5531, appendix A), without further groups and without a host name.
    Sys {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

impl Credential {
    /// The ids of this process: root for an agent that runs as root, as for the kernel's own calls when it mounts.
    #[must_use]
    pub fn own() -> Self {
        Credential::Sys { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }

    fn write(self, to: &mut Writer) {
        match self {
            Credential::None => to.word(AUTH_NONE).opaque(&[]),
            Credential::Sys { uid, gid } => {
                let mut body = Writer::default();
                // Stamp, host name, uid, gid, number of further groups.
                body.word(0).opaque(&[]).word(uid).word(gid).word(0);
                to.word(AUTH_SYS).opaque(&body.finish())
            }
        };
    }
}

/// Header of a call.
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
    /// The call without arguments and without credentials as one record of one fragment, ready for the socket.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(Credential::None, &[])
    }

    /// The same with credentials and arguments (XDR, a multiple of four bytes).
    #[must_use]
    pub fn encode_with(&self, credential: Credential, arguments: &[u8]) -> Vec<u8> {
        let mut body = Writer::default();
        body.word(self.xid).word(MSG_CALL).word(RPC_VERSION).word(self.program).word(self.version).word(self.procedure);
        credential.write(&mut body);
        // Verifier: flavour, length.
        body.word(AUTH_NONE).word(0).raw(arguments);
        let body = body.finish();
        // Our own calls have a few hundred bytes.
        let length = u32::try_from(body.len()).unwrap_or(0);
        [&(LAST_FRAGMENT | length).to_be_bytes(), body.as_slice()].concat()
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    exchange_bytes(stream, &call.encode()).await
}

/// Sends the bytes of a call and reads the record that comes back, at most [`MAX_LIST`] bytes of it: the flag says that it
/// would have gone on. For replies that are lists, of which the beginning is worth something too.
///
/// # Errors
/// [`RpcError::Io`] and [`RpcError::Closed`].
pub async fn exchange_list<S>(stream: &mut S, call: &[u8]) -> Result<(Vec<u8>, bool), RpcError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(call).await?;
    read_bounded(stream, MAX_LIST, MAX_LIST / 256).await
}

/// Sends the bytes of a call and reads the record that comes back.
///
/// # Errors
/// [`RpcError`], except `Decode`.
pub async fn exchange_bytes<S>(stream: &mut S, call: &[u8]) -> Result<Vec<u8>, RpcError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(call).await?;
    read_record(stream).await
}

async fn read_record<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Vec<u8>, RpcError> {
    let mut record = Vec::new();
    for _ in 0..MAX_FRAGMENTS {
        let (length, last) = read_header(stream, record.len()).await?;
        let received = record.len();
        let announced = received.saturating_add(length);
        if announced > MAX_REPLY {
            return Err(RpcError::TooLong { announced });
        }
        record.resize(announced, 0);
        read_all(stream, record.get_mut(received..).unwrap_or_default(), received).await?;
        if last {
            return Ok(record);
        }
    }
    Err(RpcError::TooManyFragments)
}

/// At most so many bytes and fragments of a record, and whether it would have gone on.
async fn read_bounded<R: AsyncRead + Unpin>(
    stream: &mut R,
    limit: usize,
    fragments: usize,
) -> Result<(Vec<u8>, bool), RpcError> {
    /// A peer that announces much and sends little costs no more memory than this.
    const STEP: usize = 16 * 1024;
    let mut record = Vec::new();
    for _ in 0..fragments {
        let (mut length, last) = read_header(stream, record.len()).await?;
        while length > 0 {
            let room = limit.saturating_sub(record.len());
            if room == 0 {
                return Ok((record, true));
            }
            let received = record.len();
            let step = length.min(STEP).min(room);
            record.resize(received + step, 0);
            read_all(stream, record.get_mut(received..).unwrap_or_default(), received).await?;
            length -= step;
        }
        if last {
            return Ok((record, false));
        }
    }
    Ok((record, true))
}

/// Length of the next fragment, and whether it is the last one.
async fn read_header<R: AsyncRead + Unpin>(stream: &mut R, received: usize) -> Result<(usize, bool), RpcError> {
    let mut header = [0; 4];
    read_all(stream, &mut header, received).await?;
    let header = u32::from_be_bytes(header);
    let length = usize::try_from(header & !LAST_FRAGMENT).unwrap_or(usize::MAX);
    Ok((length, header & LAST_FRAGMENT != 0))
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
    let mut reader = Reader::new(record);
    let got = word(&mut reader, Field::Xid)?;
    if got != xid {
        return Err(DecodeError::WrongXid { want: xid, got });
    }
    match word(&mut reader, Field::MessageType)? {
        MSG_REPLY => {}
        value => return Err(DecodeError::BadValue { field: Field::MessageType, value }),
    }
    match word(&mut reader, Field::ReplyStatus)? {
        0 => accepted(reader),
        1 => denied(reader).map(Reply::Denied),
        value => Err(DecodeError::BadValue { field: Field::ReplyStatus, value }),
    }
}

fn accepted(mut reader: Reader<'_>) -> Result<Reply<'_>, DecodeError> {
    let _flavour = word(&mut reader, Field::Verifier)?;
    let length = word(&mut reader, Field::Verifier)?;
    if length > MAX_AUTH_BODY {
        return Err(DecodeError::BadValue { field: Field::Verifier, value: length });
    }
    reader.padded(length).ok_or(DecodeError::Short { field: Field::Verifier })?;
    let accept = match word(&mut reader, Field::AcceptStatus)? {
        0 => Accept::Success,
        1 => Accept::ProgramUnavailable,
        2 => {
            let (low, high) = versions(&mut reader)?;
            Accept::ProgramMismatch { low, high }
        }
        3 => Accept::ProcedureUnavailable,
        4 => Accept::GarbageArguments,
        5 => Accept::SystemError,
        value => return Err(DecodeError::BadValue { field: Field::AcceptStatus, value }),
    };
    Ok(Reply::Accepted(accept, reader.rest()))
}

fn denied(mut reader: Reader<'_>) -> Result<Denial, DecodeError> {
    match word(&mut reader, Field::RejectStatus)? {
        0 => {
            let (low, high) = versions(&mut reader)?;
            Ok(Denial::RpcMismatch { low, high })
        }
        1 => Ok(Denial::Auth(word(&mut reader, Field::AuthStatus)?)),
        value => Err(DecodeError::BadValue { field: Field::RejectStatus, value }),
    }
}

fn versions(reader: &mut Reader<'_>) -> Result<(u32, u32), DecodeError> {
    Ok((word(reader, Field::Versions)?, word(reader, Field::Versions)?))
}

fn word(reader: &mut Reader<'_>, field: Field) -> Result<u32, DecodeError> {
    reader.word().ok_or(DecodeError::Short { field })
}

#[cfg(test)]
mod tests;
