//! The MOUNT protocol, version 3 (RFC 1813, appendix I): what is exported, and may this machine mount it?
//!
//! mountd is a process beside the server: it may be dead while the server serves, and alive while the server is gone.
//! NFSv4 does not need it on the wire, and its paths are not always those of NFSv4.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use super::link::{Failure, Link, Query};
use super::nfs::Status;
use super::xdr::{Reader, Writer};
use crate::mounts::octal;

/// Program number of mountd.
pub const PROGRAM: u32 = 100_005;
/// The version of it that belongs to NFSv3.
pub const VERSION: u32 = 3;
/// Where Linux's and most appliances' mountd listens if nobody told it otherwise (IANA: `mountd`).
pub const USUAL_PORT: u16 = 20048;

const MNT: u32 = 1;
const UMNT: u32 = 3;
const EXPORT: u32 = 5;

/// Longest path and longest client name (`MNTPATHLEN`, `MNTNAMLEN`).
const MAX_PATH: usize = 1024;
const MAX_NAME: usize = 255;
/// Longest handle (`FHSIZE3`).
const MAX_HANDLE: usize = 64;

/// Exports that are kept for people to read; all that came are counted.
pub const KEPT: usize = 256;
/// Clients that are kept of each.
pub const KEPT_CLIENTS: usize = 16;

/// Does it answer?
///
/// # Errors
/// [`Failure`].
pub async fn null(link: &mut Link) -> Result<(), Failure> {
    link.call(&Query::null(PROGRAM, VERSION)).await.map(drop)
}

/// One export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Its directory on the server; bytes that are not UTF-8 escaped.
    pub path: String,
    /// Who may mount it, in the server's own notation; none named means everybody.
    pub clients: Vec<String>,
}

/// What a server exports, as far as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exports {
    /// The first [`KEPT`].
    pub exports: Vec<Export>,
    /// How many came.
    pub count: usize,
    /// The list was longer than anybody reads ([`MAX_LIST`](super::rpc::MAX_LIST)): there are at least `count`.
    pub cut: bool,
    /// The export that holds the path in question: the path itself or the longest one above it. `None` when none of those
    /// that came does; a list that was cut proves no absence.
    pub holder: Option<String>,
}

impl Exports {
    /// The list is complete and holds nothing of the path in question.
    #[must_use]
    pub fn misses(&self) -> bool {
        self.holder.is_none() && !self.cut
    }
}

/// The list of exports; `path` is the one in question.
///
/// # Errors
/// [`Failure`]. Some servers refuse to list their exports and serve them all the same.
pub async fn exports(link: &mut Link, path: &str) -> Result<Exports, Failure> {
    let (results, cut) = link.call_for_list(&Query::own(PROGRAM, VERSION, EXPORT, Vec::new())).await?;
    decode_exports(&results, cut, path)
}

pub(super) fn decode_exports(results: &[u8], cut: bool, path: &str) -> Result<Exports, Failure> {
    let mut found = Exports { cut, ..Exports::default() };
    let mut holder: Option<&[u8]> = None;
    let mut reader = Reader::new(results);
    loop {
        match entry(&mut reader, found.exports.len() < KEPT) {
            Some(None) => break,
            Some(Some((directory, clients))) => {
                found.count += 1;
                if holds(directory, path.as_bytes()) && holder.is_none_or(|best| best.len() < directory.len()) {
                    holder = Some(directory);
                }
                if let Some(clients) = clients {
                    found.exports.push(Export { path: octal::label(OsStr::from_bytes(directory)), clients });
                }
            }
            // The end of what was read.
            None if cut => break,
            None => {
                return Err(Failure::Garbage(format!("the list of exports breaks off after {} entries", found.count)));
            }
        }
    }
    found.holder = holder.map(|directory| octal::label(OsStr::from_bytes(directory)));
    Ok(found)
}

type Entry<'a> = (&'a [u8], Option<Vec<String>>);

/// The next entry; the inner `None` is the end of the list, the outer one the end of the bytes.
fn entry<'a>(reader: &mut Reader<'a>, keep: bool) -> Option<Option<Entry<'a>>> {
    if !follows(reader)? {
        return Some(None);
    }
    let directory = reader.opaque(MAX_PATH)?;
    let mut clients = keep.then(Vec::new);
    while follows(reader)? {
        let name = reader.opaque(MAX_NAME)?;
        if let Some(clients) = clients.as_mut().filter(|clients| clients.len() < KEPT_CLIENTS) {
            clients.push(octal::label(OsStr::from_bytes(name)));
        }
    }
    Some(Some((directory, clients)))
}

/// The boolean in front of each element of a list.
fn follows(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.word()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// An export holds itself and all below.
fn holds(export: &[u8], path: &[u8]) -> bool {
    let bare = |path: &[u8]| path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    let export = export.get(..bare(export)).unwrap_or_default();
    path.strip_prefix(export).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Asks to mount a path, and takes it back at once, so that the server's list of clients (rmtab) stays as it was.
///
/// # Errors
/// [`Failure`]; of mountd's own errors above all ACCES and NOENT. A failure of taking it back is none.
pub async fn may_mount(link: &mut Link, path: &str) -> Result<(), Failure> {
    let mut arguments = Writer::default();
    arguments.opaque(path.as_bytes());
    let arguments = arguments.finish();
    let results = link.call(&Query::own(PROGRAM, VERSION, MNT, arguments.clone())).await?;
    decode_mount(&results)?;
    // Whoever asks next finds at worst one line too many in the output of `showmount -a`.
    let _ = link.call(&Query::own(PROGRAM, VERSION, UMNT, arguments)).await;
    Ok(())
}

pub(super) fn decode_mount(results: &[u8]) -> Result<(), Failure> {
    let mut reader = Reader::new(results);
    match reader.word().map(Status) {
        Some(Status::OK) => {}
        Some(status) => return Err(Failure::Status(status)),
        None => return Err(Failure::garbage("the reply of MNT has no status")),
    }
    let handle = reader.opaque(MAX_HANDLE).filter(|handle| !handle.is_empty());
    handle.map(drop).ok_or_else(|| Failure::garbage("the reply of MNT has no handle"))
}

#[cfg(test)]
mod tests;
