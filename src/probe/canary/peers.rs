//! The records of other nodes: a bounded sample of them each round, read as an application reads them; and the records
//! of nodes that are gone for long, which go when three looks of two nodes over days agree.
#![expect(clippy::disallowed_methods, reason = "this is the code that touches mounts, in an expendable process")]

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom, StatxFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::root::BENEATH;
use super::{file, micros_of, written};
use crate::canary::peers::Look;
use crate::canary::record::{self, Contents, Record, is_id};

/// One getdents64(2) of this size each round, however many nodes there are: about fifty names.
const LISTING_BYTES: usize = 2048;

const DAY: u64 = 24 * 3600 * 1_000_000;

/// A node whose record is older than this, by the server's clock, is marked as gone.
const MARK_AFTER: u64 = 7 * DAY;

/// Both marks must be older than this before anything is removed.
const COLLECT_AFTER: u64 = DAY;

/// Two marks, made by two different nodes.
const MARKS: [&str; 2] = ["gone1", "gone2"];

/// Longest mark: `ID SEQ`.
const MARK_BYTES: usize = 64;

/// What is around the looking.
pub struct Around<'a> {
    /// Our directory.
    pub directory: BorrowedFd<'a>,
    /// This node.
    pub own_id: &'a str,
    /// When our own record of this round was written, in microseconds of the server's clock.
    pub own_time: u64,
}

/// Whose records are wanted.
pub struct Wanted<'a> {
    /// So many of the next ones in the directory.
    pub sample: usize,
    /// Where the last sample ended; 0: at the beginning.
    pub cursor: u64,
    /// These too.
    pub ask: &'a [String],
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The records.
    pub looks: Vec<Look>,
    /// Where the next sample begins.
    pub cursor: u64,
    /// Files under the name of a node that are no record of it.
    pub refused: u64,
    /// Records of nodes long gone that were removed.
    pub collected: u64,
}

/// Looks at other nodes' records. What cannot be read is left out: it is others' to write there.
///
/// # Errors
/// Only that `enter` failed.
pub fn look(around: &Around<'_>, wanted: &Wanted<'_>, enter: &dyn Fn() -> Result<(), Errno>) -> Result<Sample, Errno> {
    let mut sample = Sample::default();
    if wanted.sample == 0 {
        return Ok(sample);
    }
    enter()?;
    let mut ids = next_ids(around, wanted, &mut sample).unwrap_or_default();
    ids.extend(wanted.ask.iter().filter(|id| is_id(id.as_bytes())).cloned());
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        enter()?;
        match one(around.directory, &id) {
            Ok(Some((look, record))) => {
                let age = around.own_time.saturating_sub(look.written);
                if age > MARK_AFTER {
                    sample.collected += u64::from(collect(around, &record).unwrap_or(false));
                }
                sample.looks.push(look);
            }
            Ok(None) => sample.refused += 1,
            // Gone meanwhile, or not ours to read.
            Err(_) => {}
        }
    }
    Ok(sample)
}

/// The next names in the directory. A cursor that means nothing any more only makes the sample another one.
fn next_ids(around: &Around<'_>, wanted: &Wanted<'_>, sample: &mut Sample) -> Result<Vec<String>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let listing = rustix::fs::openat(around.directory, ".", flags, Mode::empty())?;
    rustix::fs::seek(&listing, SeekFrom::Start(wanted.cursor))?;
    let mut buffer = Vec::with_capacity(LISTING_BYTES);
    let mut entries = RawDir::new(&listing, buffer.spare_capacity_mut());
    let mut ids = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let cursor = entry.next_entry_cookie();
        if is_id(name) && name != around.own_id.as_bytes() {
            ids.push(String::from_utf8_lossy(name).into_owned());
        }
        // The end of the directory leaves the cursor at 0: the next round begins anew.
        if ids.len() == wanted.sample || entries.is_buffer_empty() {
            sample.cursor = cursor;
            break;
        }
    }
    Ok(ids)
}

/// One record; `None`: what has its name is none.
fn one(directory: BorrowedFd<'_>, id: &str) -> Result<Option<(Look, Record)>, Errno> {
    let Some(file) = file::look_at_peer(directory, id)? else { return Ok(None) };
    let bytes = file::read_through(file.as_fd())?;
    let record = match record::read(&bytes) {
        Contents::Record(record) if record.id == id => record,
        // Just created, or being written by its node.
        Contents::Blank => return Err(Errno::AGAIN),
        _ => return Ok(None),
    };
    let cached = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let seen = micros_of(&rustix::fs::statx(&file, "", cached, StatxFlags::MTIME)?);
    let written = written(file.as_fd())?;
    let (node, seq, interval) = (record.node.clone(), record.seq, record.interval);
    Ok(Some((Look { id: id.to_owned(), node, seq, interval, seen, written }, record)))
}

/// A node that has written nothing for a week: marks it as gone, and removes its record when two nodes have said so for a
/// day. Who looks first removes nothing, and one node alone never does.
fn collect(around: &Around<'_>, record: &Record) -> Result<bool, Errno> {
    let mut makers = Vec::new();
    for mark in MARKS {
        let name = format!("{}.{mark}", record.id);
        match read_mark(around.directory, &name)? {
            Some((maker, seq, made)) if seq == record.seq => {
                if around.own_time.saturating_sub(made) < COLLECT_AFTER {
                    return Ok(false);
                }
                makers.push(maker);
            }
            // About an older record: its node came back meanwhile.
            Some(_) => {
                rustix::fs::unlinkat(around.directory, &name, AtFlags::empty())?;
                return Ok(false);
            }
            None if makers.contains(&around.own_id.to_owned()) => return Ok(false),
            None => {
                make_mark(around, &name, record.seq)?;
                return Ok(false);
            }
        }
    }
    let [first, second] = makers.as_slice() else { return Ok(false) };
    if first == second {
        return Ok(false);
    }
    // The record goes first: marks without a record mean nothing and are overwritten by the next ones.
    rustix::fs::unlinkat(around.directory, &record.id, AtFlags::empty())?;
    for mark in MARKS {
        rustix::fs::unlinkat(around.directory, format!("{}.{mark}", record.id), AtFlags::empty())?;
    }
    Ok(true)
}

fn make_mark(around: &Around<'_>, name: &str, seq: u64) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(around.directory, name, flags, Mode::from_raw_mode(0o666), BENEATH)?;
    rustix::io::write(&file, format!("{} {seq}\n", around.own_id).as_bytes())?;
    Ok(())
}

/// Who made a mark, about which record, and when.
fn read_mark(directory: BorrowedFd<'_>, name: &str) -> Result<Option<(String, u64, u64)>, Errno> {
    let file = match file::look_at_peer(directory, name) {
        Ok(Some(file)) => file,
        Ok(None) => return Err(Errno::INVAL),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let bytes = file::read_through(file.as_fd())?;
    let text = std::str::from_utf8(bytes.get(..bytes.len().min(MARK_BYTES)).unwrap_or_default()).unwrap_or_default();
    let (maker, seq) = text.trim_end().split_once(' ').unwrap_or_default();
    let seq = seq.parse().ok().filter(|_| is_id(maker.as_bytes()));
    let made = written(file.as_fd())?;
    // A mark that was half made names nobody; it counts as one about another record.
    Ok(Some(seq.map_or((String::new(), u64::MAX, made), |seq| (maker.to_owned(), seq, made))))
}
