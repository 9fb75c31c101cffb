//! What agent and worker say to each other: frames of a length (u32, big endian) and a postcard body.
//!
//! The worker is ours, but it sits in the kernel of a sick machine: whatever arrives is bounded and checked, and a worker
//! that breaks the format is killed and replaced.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::canary::cgroup::Home;
use super::canary::{CanaryReport, CanarySpec};
use super::scan::{Scan, ScanJob};
use super::survey::{Survey, SurveySpec};
use super::tables::{Tables, TablesJob};
use super::trial::{TrialReport, TrialSpec};
use super::{Identity, ProbeReport, Sentinel};
use crate::mounts::Dev;
use crate::mounts::mountstats::{OpCounters, TransportCounters};
use crate::passive::sunrpc::Link;

/// Longest frame: a batch of identities of some thousand mounts fits, nonsense does not.
pub const MAX_FRAME: usize = 4 << 20;

/// Most rows in one [`Answer::Counters`]; a node with more NFS mounts than that is served in part.
pub const MAX_ROWS: usize = 8192;

/// Most paths in one [`Job::Identify`].
pub const MAX_BATCH: usize = 512;

/// From agent to worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Number of the request; every answer repeats it.
    pub seq: u64,
    /// What to do.
    pub job: Job,
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Whose roots are these? Sends nothing to a server.
    Identify(Vec<Place>),
    /// Probe one target.
    Probe(ProbeSpec),
    /// Transport counters of all NFS mounts from a mountstats file.
    Counters(Vec<u8>),
    /// The files in the state directory of the EFS mount helper.
    EfsState(Vec<u8>),
    /// What sysfs says of NFS connections and FUSE queues.
    Signals(SignalsJob),
    /// Which processes there are, and which mount namespace each is in.
    Processes(ScanJob),
    /// Mount tables of other processes.
    Tables(TablesJob),
    /// Mount something that nobody sees, look at its root, let it go.
    Trial(TrialSpec),
    /// Write a canary. In a process of its own: it acts as somebody else and enters another cgroup.
    Canary(Box<CanarySpec>),
    /// What a canary says of this machine, and what the ones of earlier agents left.
    CanaryHome {
        /// The host's proc.
        proc_root: Vec<u8>,
        /// This agent's run.
        run: String,
    },
    /// Who uses what.
    Survey(SurveySpec),
    /// The agent's state file.
    Recall(Vec<u8>),
    /// The same, written.
    Keep {
        /// Its path.
        path: Vec<u8>,
        /// What it is to hold.
        bytes: Vec<u8>,
    },
}

/// A mountpoint and what the table says is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Directory that `path` is resolved in (`/proc/1/root`); empty: the worker's own root.
    pub root: Vec<u8>,
    /// Absolute path of the mountpoint as the table has it.
    pub path: Vec<u8>,
    /// The path leads through another network mount: walk it in the kernel's cache only (RESOLVE_CACHED, Linux 5.12).
    pub cached_only: bool,
    /// Mount id.
    pub mount_id: u64,
    /// Superblock.
    pub dev: Dev,
}

/// What to probe, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// Where.
    pub place: Place,
    /// Where sysfs lists the block device below a local filesystem (`/sys/dev/block/259:3`).
    pub device: Option<Vec<u8>>,
    /// Make the forced statx of the root (a test switches it off).
    pub statx_root: bool,
    /// Known sentinels. The one at `first` is looked at; the others only when that one is not intact.
    pub sentinels: Vec<Sentinel>,
    /// Which sentinel to begin with.
    pub first: usize,
    /// The mark of the directory that canaries are written to. Where none of the sentinels is intact: is it there still?
    pub own: Option<Vec<u8>>,
    /// Read statfs in any case.
    pub statfs: bool,
    /// Choose up to so many sentinels anew, after everything else answered; 0: do not.
    pub learn: usize,
}

/// From worker to agent.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and a box would be one more allocation per probe"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The worker is ready.
    Ready,
    /// The request is done.
    Done {
        /// The request.
        seq: u64,
        /// Its result.
        answer: Answer,
    },
}

/// Result of a [`Job`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of `Identify`, in the order of the places.
    Identities(Vec<Option<Identity>>),
    /// Of `Probe`.
    Report(ProbeReport),
    /// Of `Counters`: by mountpoint and source.
    Counters(Vec<CounterRow>),
    /// Of `EfsState`: name and contents.
    Files(Vec<NamedFile>),
    /// Of `Signals`.
    Signals(Signals),
    /// Of `Processes`.
    Processes(Scan),
    /// Of `Tables`.
    Tables(Tables),
    /// Of `Trial`.
    Trial(TrialReport),
    /// Of `Canary`.
    Canary(Box<CanaryReport>),
    /// Of `CanaryHome`.
    CanaryHome(Home),
    /// Of `Survey`.
    Survey(Survey),
    /// Of `Recall`, the file where there is one; of `Keep`, nothing.
    Kept(Option<Vec<u8>>),
    /// A file could not be read.
    Failed {
        /// Why.
        errno: i32,
    },
}

/// A file's name and contents.
pub type NamedFile = (Vec<u8>, Vec<u8>);

/// Counters of one NFS mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRow {
    /// Mountpoint, unescaped.
    pub mountpoint: Vec<u8>,
    /// Source, unescaped.
    pub source: Vec<u8>,
    /// Sums over its transports.
    pub counters: TransportCounters,
    /// What its operations cost; empty where a whole answer would not fit one frame.
    pub operations: Vec<OpCounters>,
}

/// Which signals are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalsJob {
    /// Where sysfs is, the first that has it answers (`/sys`, `/proc/1/root/sys`).
    pub roots: Vec<Vec<u8>>,
    /// The connections of the NFS client.
    pub transports: bool,
    /// The FUSE connections, by the minor number of `st_dev`.
    pub connections: Vec<u32>,
}

/// What sysfs says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signals {
    /// Each connection of the NFS client, by the server's address.
    pub transports: Vec<(IpAddr, Link)>,
    /// Why they could not be read.
    pub transports_errno: Option<i32>,
    /// Requests that wait, by FUSE connection.
    pub waiting: Vec<(u32, u64)>,
    /// Why they could not be read.
    pub waiting_errno: Option<i32>,
}

/// Why a frame is no frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    /// The length is 0 or over [`MAX_FRAME`].
    #[error("frame of {0} bytes (allowed: 1 to {MAX_FRAME})")]
    Length(usize),
    /// The body does not decode, or bytes are left over.
    #[error("frame does not decode")]
    Body,
}

/// A value as one frame.
///
/// # Errors
/// [`WireError::Length`] when it does not fit.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    let mut frame = vec![0; 4];
    frame = postcard::to_extend(value, frame).map_err(|_| WireError::Body)?;
    let length = frame.len() - 4;
    let header = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(WireError::Length(length))?;
    if let Some(place) = frame.first_chunk_mut::<4>() {
        *place = header.to_be_bytes();
    }
    Ok(frame)
}

/// Writes a value as one frame, for a worker: it waits until the other side takes all of it.
///
/// # Errors
/// What write(2) says; EMSGSIZE for a value that does not fit a frame.
pub(crate) fn send<T: Serialize>(socket: BorrowedFd<'_>, value: &T) -> Result<(), Errno> {
    let frame = encode(value).map_err(|_| Errno::MSGSIZE)?;
    super::steps::write_all(socket, &frame)
}

/// Collects bytes as they arrive and gives back whole frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether part of a frame is waiting for the rest.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame, `None` when more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no frame; the stream cannot be used any more.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        let Some(header) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length == 0 || length > MAX_FRAME {
            return Err(WireError::Length(length));
        }
        let Some(body) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let (value, rest) = postcard::take_from_bytes(body).map_err(|_| WireError::Body)?;
        if !rest.is_empty() {
            return Err(WireError::Body);
        }
        self.buffer.drain(..4 + length);
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_cut_anywhere_waits_for_its_rest() {
        let message = Message::Done { seq: 7, answer: Answer::Failed { errno: 12_345 } };
        let frame = encode(&message).unwrap();
        for cut in 0..frame.len() {
            let mut decoder = Decoder::default();
            decoder.push(&frame[..cut]);
            assert_eq!(decoder.take::<Message>().unwrap(), None, "cut at {cut}");
            decoder.push(&frame[cut..]);
            assert_eq!(decoder.take::<Message>().unwrap(), Some(message.clone()));
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn two_frames_in_one_read_are_two_messages() {
        let mut bytes = encode(&Message::Ready).unwrap();
        bytes.extend(encode(&Message::Done { seq: 1, answer: Answer::Failed { errno: 2 } }).unwrap());
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        assert_eq!(decoder.take::<Message>().unwrap(), Some(Message::Ready));
        assert_eq!(
            decoder.take::<Message>().unwrap(),
            Some(Message::Done { seq: 1, answer: Answer::Failed { errno: 2 } })
        );
        assert_eq!(decoder.take::<Message>().unwrap(), None);
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_before_any_memory_is_taken() {
        for length in [0_u32, u32::try_from(MAX_FRAME).unwrap() + 1, u32::MAX] {
            let mut decoder = Decoder::default();
            decoder.push(&length.to_be_bytes());
            assert!(matches!(decoder.take::<Message>(), Err(WireError::Length(_))));
        }
    }

    #[test]
    fn bytes_left_over_in_a_frame_are_an_error() {
        let mut frame = encode(&Message::Ready).unwrap();
        frame.push(0);
        let length = u32::try_from(frame.len() - 4).unwrap();
        frame[..4].copy_from_slice(&length.to_be_bytes());
        let mut decoder = Decoder::default();
        decoder.push(&frame);
        assert_eq!(decoder.take::<Message>(), Err(WireError::Body));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.take::<Message>() {}
        }
    }
}
