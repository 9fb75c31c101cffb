//! NFSv3 (RFC 1813): NULL and GETATTR.

use super::link::{Failure, Link, Query};
use super::nfs::{Attributes, Fsid, Status};
use super::rpc::NFS_PROGRAM;
use super::xdr::{Reader, Writer};

const VERSION: u32 = 3;
const GETATTR: u32 = 1;
/// `ftype3`.
const NF3DIR: u32 = 2;

/// Does it serve this version?
///
/// # Errors
/// [`Failure`]; a server without this version says which it has ([`Failure::NotExecuted`]).
pub async fn null(link: &mut Link) -> Result<(), Failure> {
    link.call(&Query::null(NFS_PROGRAM, VERSION)).await.map(drop)
}

/// Attributes of a handle. With plain credentials no permission is needed for them.
///
/// # Errors
/// [`Failure`]; of the server's own errors above all STALE and BADHANDLE.
pub async fn getattr(link: &mut Link, handle: &[u8]) -> Result<Attributes, Failure> {
    let mut arguments = Writer::default();
    arguments.opaque(handle);
    let results = link.call(&Query::own(NFS_PROGRAM, VERSION, GETATTR, arguments.finish())).await?;
    decode(&results)
}

pub(super) fn decode(results: &[u8]) -> Result<Attributes, Failure> {
    let mut reader = Reader::new(results);
    match reader.word().map(Status) {
        Some(Status::OK) => attributes(reader).ok_or_else(|| Failure::garbage("the attributes are cut short")),
        Some(status) => Err(Failure::Status(status)),
        None => Err(Failure::garbage("the reply of GETATTR has no status")),
    }
}

/// `fattr3` up to the fileid; what follows are times.
fn attributes(mut reader: Reader<'_>) -> Option<Attributes> {
    let kind = reader.word()?;
    let _mode = reader.word()?;
    let links = reader.word()?;
    // uid, gid.
    reader.hyper()?;
    // size, used, rdev.
    for _ in 0..3 {
        reader.hyper()?;
    }
    let fsid = Fsid(reader.hyper()?, 0);
    let fileid = reader.hyper()?;
    Some(Attributes { directory: kind == NF3DIR, fileid, fsid, links: Some(links), created: None })
}
