//! NFSv4.0 (RFC 7530) without client id and without state: what a stranger may ask.
//!
//! All of it is asked with minor version 0, whose compounds need no session. A server that has only 4.1 and later says so
//! ([`Status::MINOR_VERS_MISMATCH`]) and stays unknown. The handles are the same in all minor versions.

mod compound;

use serde::{Deserialize, Serialize};

use super::link::{Failure, Link, Query};
use super::nfs::{Attributes, Status};
use super::rpc::NFS_PROGRAM;
use compound::{Compound, Done, Op};

const VERSION: u32 = 4;

/// Components of a path that are looked up; PATH_MAX has room for more, exports do not.
pub const MAX_COMPONENTS: usize = 64;

/// Components per compound: with two operations for each and three around them, below the sixteen operations that every
/// nfsd of Linux takes.
const PER_COMPOUND: usize = 5;

/// Calls that the longest path takes: [`MAX_COMPONENTS`] in fives.
pub(super) const MAX_COMPOUNDS: u32 = 13;

/// Does it serve version 4? All minor versions share one NULL.
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
    let done = run(link, &[Op::PutHandle(handle), Op::Attributes]).await?;
    done.iter().find_map(|done| done.attributes).ok_or_else(|| Failure::garbage("a compound without attributes"))
}

/// How far a path leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// The server's root, then each component that was reached. Bounded by [`MAX_COMPONENTS`].
    pub met: Vec<Attributes>,
    /// Components of the whole path.
    pub components: usize,
    /// Why it went no further; `None` when the whole path is there.
    pub stopped: Option<Status>,
}

impl Walk {
    /// The attributes of the path's end, if it was reached.
    #[must_use]
    pub fn end(&self) -> Option<&Attributes> {
        self.met.last().filter(|_| self.stopped.is_none() && self.met.len() == self.components + 1)
    }

    /// The directory above the place where it stopped, or above the end.
    #[must_use]
    pub fn above(&self) -> Option<&Attributes> {
        match self.end() {
            Some(_) => self.met.len().checked_sub(2).and_then(|index| self.met.get(index)),
            None => self.met.last(),
        }
    }
}

/// Looks a path up from the server's root, as the kernel's client does when it mounts.
///
/// # Errors
/// [`Failure`] when the server does not answer, or denies its root altogether; what stops the way later is part of the
/// answer.
pub async fn walk(link: &mut Link, path: &[u8]) -> Result<Walk, Failure> {
    let components: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect();
    let mut walk = Walk { met: Vec::new(), components: components.len(), stopped: None };
    if components.len() > MAX_COMPONENTS {
        walk.stopped = Some(Status::NAMETOOLONG);
        return Ok(walk);
    }
    let mut handle: Option<Vec<u8>> = None;
    // Once for the root alone, so that an empty path is an answer too.
    let mut chunks: Vec<&[&[u8]]> = components.chunks(PER_COMPOUND).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    for chunk in chunks {
        let start = match &handle {
            Some(handle) => vec![Op::PutHandle(handle)],
            None => vec![Op::PutRoot, Op::Attributes],
        };
        let names = chunk.iter().flat_map(|name| [Op::Lookup(name), Op::Attributes]);
        let ops: Vec<Op<'_>> = start.into_iter().chain(names).chain([Op::Handle]).collect();
        let done = send(link, &ops).await?;
        walk.met.extend(done.iter().filter_map(|done| done.attributes));
        let failed = done.iter().map(|done| done.status).find(|status| *status != Status::OK);
        if let Some(status) = failed {
            if walk.met.is_empty() {
                return Err(Failure::Status(status));
            }
            walk.stopped = Some(status);
            return Ok(walk);
        }
        handle = done.into_iter().rev().find_map(|done| done.handle);
        if handle.is_none() {
            return Err(Failure::garbage("a compound without a handle"));
        }
    }
    Ok(walk)
}

/// What a lock test says about the grace period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grace {
    /// The server says that it is in its grace period.
    In,
    /// It said something else. Linux's nfsd looks at the grace period first (`nfsd4_lockt`), so from it this means "not in
    /// grace"; another server may have looked at the client id first.
    NotSeen(Status),
}

/// Asks whether the server is in its grace period: a test for a lock (LOCKT) in the name of a client that does not exist.
/// It makes no state on the server, whatever it says.
///
/// # Errors
/// [`Failure`] when the question could not be put: no answer, or the handle (`None`: the root) is refused.
pub async fn grace(link: &mut Link, handle: Option<&[u8]>) -> Result<Grace, Failure> {
    let start = handle.map_or(Op::PutRoot, Op::PutHandle);
    let done = send(link, &[start, Op::TestLock]).await?;
    match done.as_slice() {
        [_, tested, ..] if tested.status == Status::GRACE => Ok(Grace::In),
        [_, tested, ..] => Ok(Grace::NotSeen(tested.status)),
        [first] => Err(Failure::Status(first.status)),
        [] => Err(Failure::garbage("a compound without results")),
    }
}

/// Makes a compound of which every operation has to succeed.
async fn run(link: &mut Link, ops: &[Op<'_>]) -> Result<Vec<Done>, Failure> {
    let done = send(link, ops).await?;
    match done.iter().map(|done| done.status).find(|status| *status != Status::OK) {
        Some(status) => Err(Failure::Status(status)),
        None => Ok(done),
    }
}

async fn send(link: &mut Link, ops: &[Op<'_>]) -> Result<Vec<Done>, Failure> {
    let arguments = Compound(ops).encode();
    let results = link.call(&Query::own(NFS_PROGRAM, VERSION, compound::PROCEDURE, arguments)).await?;
    Compound(ops).decode(&results)
}

/// The results of a compound with as many operations as [`walk`] sends at most, and a lock test behind them.
pub(super) fn decode_longest(results: &[u8]) -> Result<usize, Failure> {
    let names = (0..PER_COMPOUND).flat_map(|_| [Op::Lookup(b"name"), Op::Attributes]);
    let ops: Vec<Op<'_>> =
        [Op::PutRoot, Op::Attributes].into_iter().chain(names).chain([Op::Handle, Op::TestLock]).collect();
    Compound(&ops).decode(results).map(|done| done.len())
}

#[cfg(test)]
mod tests;
