//! The canary: one worker process, started for it, writes one block on a mount and reads it back past its own cache.
//!
//! What it meets belongs to a tenant who may be hostile: every name is resolved beneath the root, without symlinks,
//! without leaving the mount, and what is opened is looked at before it is written to. It may be killed at any moment:
//! there is one file under one fixed name, so nothing piles up, and a request that the server runs late does no harm.
#![expect(clippy::disallowed_methods, reason = "this is the code that touches mounts, in an expendable process")]

pub mod cgroup;
mod entries;
mod file;
mod identity;
pub mod peers;
mod root;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::wire::Place;
use super::{Space, Step, StepResult, steps};
use crate::canary::peers::Look;
use crate::canary::record::{self, Contents, Record};
use crate::canary::{DIRECTORY, Ids};

/// What to write, where, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanarySpec {
    /// The mount.
    pub place: Place,
    /// The node: what its record says. The sequence number is the last one that is known to have been written.
    pub record: Record,
    /// Whom to write as; absent: as the agent.
    pub writer: Option<Ids>,
    /// Who has to be able to read what the writer wrote.
    pub reader: Option<Ids>,
    /// Write also where there is nothing else.
    pub allow_empty_root: bool,
    /// There will be no further round: what was not there before is taken away again.
    pub once: bool,
    /// Look at so many records of others, from this place in the directory on.
    pub sample: usize,
    /// Where the last sample ended.
    pub cursor: u64,
    /// Look at the records of these nodes too.
    pub ask: Vec<String>,
    /// Look at a sample of the root's entries.
    pub entries: bool,
    /// Containers that have the mount: may they pass these entries?
    pub users: Vec<EntryUser>,
    /// The cgroup to sit in.
    pub cgroup: cgroup::CgroupSpec,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryReport {
    /// The steps in the order in which they were made.
    pub steps: Vec<StepResult>,
    /// Whether the worker left the agent's cgroup before it touched the mount.
    pub isolation: cgroup::Isolation,
    /// How it ended.
    pub end: CanaryEnd,
    /// The sequence number that was written.
    pub seq: Option<u64>,
    /// When the server says that it was written, in microseconds since the epoch.
    pub written: Option<u64>,
    /// The mark of the directory that it was written to ([`super::Sentinel::mark`]).
    pub directory: Option<Vec<u8>>,
    /// Totals of the filesystem where it is full.
    pub space: Option<Space>,
    /// What a second identity could do with what the first one wrote.
    pub reader: Option<ReaderEnd>,
    /// Records of other nodes.
    pub peers: peers::Sample,
    /// The root's entries, if they were looked at.
    pub entries: Option<Entries>,
}

/// How a canary ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryEnd {
    /// Written, read back, the same.
    Good,
    /// Another whole record of this node came back: an earlier write was run late, after this one, or another process of
    /// this node (`diagnose --write`, a second agent during an update) wrote meanwhile.
    Late,
    /// What came back is not what was written.
    Differs,
    /// The last step failed.
    Failed,
    /// The path leads to another mount than the table says.
    Mismatch,
    /// Nothing was written, for a reason that says nothing about the mount.
    Skipped(Skip),
    /// Nothing was written, because what is there is not ours.
    Refused(Refusal),
}

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// The root is empty, and must stay so.
    EmptyRoot,
    /// The root cannot be listed, so it may be empty.
    CannotList,
    /// The worker cannot act as the writer, or as the reader.
    Identity(i32),
}

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The directory's name is a symlink, a file, another mount.
    Directory,
    /// The directory belongs to somebody else, and only it refuses us: the root would not.
    DirectoryOwner,
    /// The file's name is no regular file.
    FileKind,
    /// The file has other names too.
    Links,
    /// The file is larger than a record can be.
    Size,
    /// The file belongs to somebody else and cannot be opened.
    Owner,
    /// The file holds something else.
    Contents,
}

/// What the reader met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReaderEnd {
    /// It read what was written.
    Read,
    /// It read something else.
    Differs,
    /// It could not.
    Failed(i32),
}

/// A sample of the root's entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// How many were looked at.
    pub looked: usize,
    /// How many of them the ids cannot pass.
    pub closed: usize,
    /// One of those.
    pub example: Vec<u8>,
    /// Containers of which no process can pass most of them.
    pub users: Vec<ClosedTo>,
}

/// A container that has the mount, and whom its processes run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryUser {
    /// Its pod and its name, in words.
    pub name: String,
    /// Ids of its processes, each once.
    pub ids: Vec<Ids>,
}

/// A container that cannot pass entries of the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedTo {
    /// [`EntryUser::name`].
    pub name: String,
    /// How many.
    pub closed: usize,
    /// One of them.
    pub example: Vec<u8>,
}

/// Why a canary did not come to its end.
enum Stop {
    End(CanaryEnd),
    /// The worker's own socket or note failed: nobody is there any more.
    Gone(Errno),
}

impl From<Skip> for Stop {
    fn from(skip: Skip) -> Stop {
        Stop::End(CanaryEnd::Skipped(skip))
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::End(CanaryEnd::Refused(refusal))
    }
}

/// Runs a canary. `enter` announces a step.
///
/// # Errors
/// Only that `enter` failed.
pub fn run(spec: &CanarySpec, enter: &dyn Fn(Step) -> Result<(), Errno>) -> Result<CanaryReport, Errno> {
    enter(Step::CanaryOpen)?;
    let isolation = cgroup::enter(&spec.cgroup);
    let report = CanaryReport {
        steps: Vec::new(),
        isolation,
        end: CanaryEnd::Good,
        seq: None,
        written: None,
        directory: None,
        space: None,
        reader: None,
        peers: peers::Sample::default(),
        entries: None,
    };
    let mut run = Run { spec, enter, report, new: false };
    match run.all() {
        Ok(end) => run.report.end = end,
        Err(Stop::End(end)) => run.report.end = end,
        Err(Stop::Gone(errno)) => return Err(errno),
    }
    Ok(run.report)
}

struct Run<'a> {
    spec: &'a CanarySpec,
    enter: &'a dyn Fn(Step) -> Result<(), Errno>,
    report: CanaryReport,
    /// There was no record of this node.
    new: bool,
}

impl Run<'_> {
    /// Announces a step, runs it, records how it ended; a failure ends the canary.
    fn step<T>(&mut self, step: Step, run: impl FnOnce() -> Result<T, Errno>) -> Result<T, Stop> {
        self.try_step(step, run)?.map_err(|_| Stop::End(CanaryEnd::Failed))
    }

    fn try_step<T>(&mut self, step: Step, run: impl FnOnce() -> Result<T, Errno>) -> Result<Result<T, Errno>, Stop> {
        (self.enter)(step).map_err(Stop::Gone)?;
        let start = Instant::now();
        let result = run();
        let errno = result.as_ref().err().map(|errno| errno.raw_os_error());
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.report.steps.push(StepResult { step, errno, micros });
        Ok(result)
    }

    fn all(&mut self) -> Result<CanaryEnd, Stop> {
        let spec = self.spec;
        let root = self.step(Step::CanaryOpen, || steps::open_place(&spec.place))?;
        if self.step(Step::CanaryOpen, || steps::identify(root.as_fd(), &spec.place))?.is_none() {
            return Ok(CanaryEnd::Mismatch);
        }
        self.look_at_entries(root.as_fd())?;
        if let Some(writer) = &spec.writer {
            identity::assume(writer).map_err(|errno| Skip::Identity(errno.raw_os_error()))?;
        }
        let directory = self.directory(root.as_fd())?;
        let end = self.write(root.as_fd(), directory.as_fd());
        if spec.once && self.new {
            (self.enter)(Step::CanaryClose).map_err(Stop::Gone)?;
            // How the write ended is what counts; a file that cannot be taken away is the next canary's.
            let _ = root::retire(root.as_fd(), directory.as_fd(), &spec.record.id);
        }
        let end = end?;
        if let Some(own) = self.report.written {
            self.look_at_peers(directory.as_fd(), own)?;
        }
        if end == CanaryEnd::Good && spec.reader.is_some() {
            self.read_as_another(root.as_fd())?;
        }
        Ok(end)
    }

    /// Opens our directory, and makes it where it is missing and wanted.
    fn directory(&mut self, root: BorrowedFd<'_>) -> Result<OwnedFd, Stop> {
        let opened = self.try_step(Step::CanaryOpen, || root::open_directory(root))?;
        if !self.spec.allow_empty_root && self.otherwise_empty(root)? {
            // Whoever empties a directory wants it empty (initdb refuses any other).
            if let Ok(directory) = opened {
                self.step(Step::CanaryOpen, || root::retire(root, directory.as_fd(), &self.spec.record.id))?;
            }
            return Err(Skip::EmptyRoot.into());
        }
        match opened {
            Ok(directory) => Ok(directory),
            Err(Errno::NOENT) => self.step(Step::CanaryOpen, || root::make_directory(root)),
            Err(Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => Err(Refusal::Directory.into()),
            Err(_) => Err(Stop::End(CanaryEnd::Failed)),
        }
    }

    fn otherwise_empty(&mut self, root: BorrowedFd<'_>) -> Result<bool, Stop> {
        match self.try_step(Step::CanaryOpen, || root::otherwise_empty(root))? {
            Ok(empty) => Ok(empty),
            // A drop box: it may be written to and not listed.
            Err(Errno::ACCESS | Errno::PERM) if root::may_write(root) => Err(Skip::CannotList.into()),
            Err(_) => Err(Stop::End(CanaryEnd::Failed)),
        }
    }

    /// Writes our record and reads it back.
    fn write(&mut self, root: BorrowedFd<'_>, directory: BorrowedFd<'_>) -> Result<CanaryEnd, Stop> {
        let id = self.spec.record.id.as_str();
        let mut opened = match self.try_step(Step::CanaryOpen, || file::open(directory, id))? {
            Ok(Ok(opened)) => opened,
            Ok(Err(refusal)) => return Err(refusal.into()),
            // A canary that acted as another user left it. The root says whether an application would be refused, too.
            Err(Errno::ACCESS | Errno::PERM) if file::is_anothers(directory) && root::may_write(root) => {
                return Err(Refusal::DirectoryOwner.into());
            }
            Err(errno) => return Err(self.failed(errno, directory)),
        };
        let known = self.spec.record.seq;
        let before = match self.step(Step::CanaryRead, || opened.read())? {
            Contents::Record(record) if record.id != id => return Err(Refusal::Contents.into()),
            Contents::Record(record) => record.seq,
            contents @ (Contents::Blank | Contents::Damaged) => {
                self.new = matches!(contents, Contents::Blank);
                0
            }
            Contents::Foreign => return Err(Refusal::Contents.into()),
        };
        let record = Record { seq: before.max(known) + 1, ..self.spec.record.clone() };
        let block = record.encode();
        self.must(Step::CanaryWrite, directory, || opened.write(&block))?;
        self.must(Step::CanaryCommit, directory, || opened.commit())?;
        self.report.seq = Some(record.seq);
        let back = self.step(Step::CanaryVerify, || opened.read_back(directory, id))?;
        self.report.written = Some(self.step(Step::CanaryVerify, || opened.written())?);
        self.report.directory = Some(self.step(Step::CanaryVerify, || steps::forced_mark(directory))?);
        self.must(Step::CanaryRoom, directory, || opened.take_room())?;
        self.step(Step::CanaryClose, || {
            drop(opened);
            Ok(())
        })?;
        Ok(compare(&block, &back, &record))
    }

    /// A step whose failure may mean that there is no room: then the totals tell what there is none of.
    fn must<T>(
        &mut self,
        step: Step,
        directory: BorrowedFd<'_>,
        run: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Stop> {
        match self.try_step(step, run)? {
            Ok(value) => Ok(value),
            Err(errno) => Err(self.failed(errno, directory)),
        }
    }

    fn failed(&mut self, errno: Errno, directory: BorrowedFd<'_>) -> Stop {
        if errno == Errno::NOSPC {
            if let Err(errno) = (self.enter)(Step::Statfs) {
                return Stop::Gone(errno);
            }
            self.report.space = steps::space(directory).ok();
        }
        Stop::End(CanaryEnd::Failed)
    }

    fn look_at_entries(&mut self, root: BorrowedFd<'_>) -> Result<(), Stop> {
        let readers: Vec<&Ids> = self.spec.writer.iter().chain(&self.spec.reader).collect();
        let users = &self.spec.users;
        if !self.spec.entries {
            return Ok(());
        }
        if readers.is_empty() && users.is_empty() {
            // There is nobody left whom an earlier look could be true of.
            self.report.entries = Some(Entries::default());
            return Ok(());
        }
        let start = self.spec.record.seq;
        // A root that we may not list has no sample; that is no failure of the canary.
        self.report.entries =
            self.try_step(Step::CanaryEntries, || entries::sample(root, &readers, users, start))?.ok();
        Ok(())
    }

    fn look_at_peers(&mut self, directory: BorrowedFd<'_>, own: u64) -> Result<(), Stop> {
        let spec = self.spec;
        let enter = || (self.enter)(Step::CanaryPeers);
        let around = peers::Around { directory, own_id: &spec.record.id, own_time: own };
        let wanted = peers::Wanted { sample: spec.sample, cursor: spec.cursor, ask: &spec.ask };
        self.report.peers = peers::look(&around, &wanted, &enter).map_err(Stop::Gone)?;
        Ok(())
    }

    /// Reads the record as the second identity, from the root on as an application would.
    fn read_as_another(&mut self, root: BorrowedFd<'_>) -> Result<(), Stop> {
        let Some(reader) = &self.spec.reader else { return Ok(()) };
        identity::assume(reader).map_err(|errno| Skip::Identity(errno.raw_os_error()))?;
        let id = self.spec.record.id.as_str();
        let read = self.try_step(Step::CanaryReader, || file::read_from(root, DIRECTORY, id))?;
        self.report.reader = Some(match read {
            Ok(bytes) => match record::read(&bytes) {
                Contents::Record(record) if record.id == id => ReaderEnd::Read,
                _ => ReaderEnd::Differs,
            },
            Err(errno) => ReaderEnd::Failed(errno.raw_os_error()),
        });
        Ok(())
    }
}

/// A whole record of this node was written by a request that the server ran late, or by another process here; anything
/// else that differs is not what was written.
fn compare(written: &[u8], back: &[u8], record: &Record) -> CanaryEnd {
    if back == written {
        return CanaryEnd::Good;
    }
    match record::read(back) {
        Contents::Record(found) if found.id == record.id => CanaryEnd::Late,
        _ => CanaryEnd::Differs,
    }
}

/// When the server says that a file was written. For our own records, which are committed by now: the mask asks for a
/// time, which on anybody else's file would flush his dirty pages.
fn written(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC | AtFlags::NO_AUTOMOUNT;
    Ok(micros_of(&rustix::fs::statx(file, "", flags, StatxFlags::MTIME)?))
}

fn micros_of(answer: &rustix::fs::Statx) -> u64 {
    let seconds = u64::try_from(answer.stx_mtime.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(u64::from(answer.stx_mtime.tv_nsec) / 1000)
}

impl CanaryReport {
    /// The step that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&StepResult> {
        self.steps.last().filter(|_| self.end == CanaryEnd::Failed)
    }

    /// The looks at other nodes' records.
    #[must_use]
    pub fn looks(&self) -> &[Look] {
        &self.peers.looks
    }
}

#[cfg(test)]
mod tests;
