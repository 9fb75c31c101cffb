//! The worker: the same binary in a hidden mode, single-threaded, with one socket and one note, sitting in `/`.
//!
//! It may be killed at any moment and may never come back from a system call. So it holds nothing: no descriptor but
//! those two and what the step at hand needs, no lock, no file of anybody.
#![expect(clippy::disallowed_methods, reason = "this is the code that touches mounts, in an expendable process")]

use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Instant;

use rustix::io::Errno;

use super::note::Entered;
use super::wire::{self, Answer, CounterRow, Decoder, Job, Message, Place, ProbeSpec, Request};
use super::{
    ProbeReport, Sentinel, SentinelFate, Step, StepResult, canary, keep, scan, sentinel, signals, spawn, steps, survey,
    tables, trial,
};
use crate::mounts::mountstats::{self, NfsStats};

/// First argument of the hidden mode.
pub const WORKER_ARGUMENT: &str = "probe-worker";

/// Largest mountstats that is read: 50,000 mounts of 7 kB would be more than a node has.
const MOUNTSTATS_LIMIT: usize = 256 << 20;

/// Largest state file of the EFS mount helper that is read, and how many of them.
const EFS_FILE_LIMIT: usize = 64 << 10;
const EFS_FILES: usize = 1024;

/// A mount that fails a step, or takes so long for one, is not asked for what can wait, in microseconds: behind softerr
/// each entry of a dead server costs another timeout (16 s were measured), and the verdict would come after all of them.
const HURRIED: u64 = 1_000_000;

/// Bytes of an answer before its rows, and upper bounds of a row without its names and of one operation (a u64 is at most
/// ten bytes of postcard).
const FRAME_HEAD: usize = 64;
const ROW_NUMBERS: usize = 48;
const OPERATION: usize = 62;

/// Runs the worker if this process was started as one; `None` otherwise. To be called before any thread exists.
#[must_use]
pub fn worker_entry() -> Option<ExitCode> {
    Some(match spawn::parent_of(WORKER_ARGUMENT)?.map(start) {
        Some(Ok(())) => ExitCode::SUCCESS,
        // There is nobody to tell: stderr is closed, and the agent counts a worker that ends.
        Some(Err(_)) | None => ExitCode::FAILURE,
    })
}

/// Cuts the process off from everything but its socket, then serves.
fn start(parent: i32) -> Result<(), Errno> {
    if !spawn::cut_off(parent, c"mountwarden-prb")? {
        return Ok(());
    }
    Worker { socket: rustix::stdio::stdin(), note: rustix::stdio::stdout(), seq: 0 }.serve()
}

fn kept(result: Result<Option<Vec<u8>>, Errno>) -> Answer {
    match result {
        Ok(bytes) => Answer::Kept(bytes),
        Err(errno) => Answer::Failed { errno: errno.raw_os_error() },
    }
}

struct Worker<'fd> {
    socket: BorrowedFd<'fd>,
    /// Memory that it shares with the agent.
    note: BorrowedFd<'fd>,
    seq: u64,
}

impl Worker<'_> {
    fn serve(&mut self) -> Result<(), Errno> {
        self.send(&Message::Ready)?;
        let mut decoder = Decoder::default();
        let mut chunk = vec![0; 1 << 14];
        loop {
            while let Some(request) = decoder.take::<Request>().map_err(|_| Errno::PROTO)? {
                self.seq = request.seq;
                let answer = self.work(request.job)?;
                self.send(&Message::Done { seq: self.seq, answer })?;
            }
            let count = rustix::io::retry_on_intr(|| rustix::io::read(self.socket, &mut chunk))?;
            if count == 0 {
                return Ok(());
            }
            decoder.push(chunk.get(..count).unwrap_or_default());
        }
    }

    fn send(&self, message: &Message) -> Result<(), Errno> {
        wire::send(self.socket, message)
    }

    /// Notes which step comes next, and how much CPU was used so far: at a missed deadline the agent compares.
    fn enter(&self, step: Step) -> Result<(), Errno> {
        Entered::now(self.seq, step).leave(self.note)
    }

    fn work(&self, job: Job) -> Result<Answer, Errno> {
        Ok(match job {
            Job::Identify(places) => {
                self.enter(Step::Open)?;
                Answer::Identities(places.iter().take(wire::MAX_BATCH).map(identify_place).collect())
            }
            Job::Probe(spec) => Answer::Report(self.probe(&spec)?),
            Job::Counters(path) => {
                self.enter(Step::Counters)?;
                match steps::read_file(&path, MOUNTSTATS_LIMIT) {
                    Ok(bytes) => Answer::Counters(counters(&bytes)),
                    Err(errno) => Answer::Failed { errno: errno.raw_os_error() },
                }
            }
            Job::Signals(job) => {
                self.enter(Step::Signals)?;
                Answer::Signals(signals::read(&job))
            }
            Job::Processes(job) => {
                self.enter(Step::Processes)?;
                match scan::run(&job) {
                    Ok(scan) => Answer::Processes(scan),
                    Err(errno) => Answer::Failed { errno: errno.raw_os_error() },
                }
            }
            Job::Tables(job) => Answer::Tables(tables::read(&job, &|| self.enter(Step::Tables))?),
            Job::EfsState(path) => {
                self.enter(Step::EfsState)?;
                match state_files(&path) {
                    Ok(files) => Answer::Files(files),
                    Err(errno) => Answer::Failed { errno: errno.raw_os_error() },
                }
            }
            Job::Canary(spec) => Answer::Canary(Box::new(canary::run(&spec, &|step| self.enter(step))?)),
            Job::CanaryHome { proc_root, run } => {
                self.enter(Step::CanaryHome)?;
                Answer::CanaryHome(canary::cgroup::home(&proc_root, &run))
            }
            Job::Survey(spec) => {
                self.enter(Step::Survey)?;
                Answer::Survey(survey::run(&spec))
            }
            Job::Recall(path) => {
                self.enter(Step::StateFile)?;
                kept(keep::recall(&path))
            }
            Job::Keep { path, bytes } => {
                self.enter(Step::StateFile)?;
                kept(keep::keep(&path, &bytes).map(|()| None))
            }
            Job::Trial(spec) => Answer::Trial(trial::run(&spec, &|step| self.enter(step))?),
        })
    }

    /// The steps of one probe. It ends at the first one that makes the next meaningless.
    fn probe(&self, spec: &ProbeSpec) -> Result<ProbeReport, Errno> {
        let mut report = ProbeReport::default();
        // Without another mount on the way the open never blocks (measured), so it is not worth a note of its own.
        self.enter(if spec.place.cached_only { Step::Open } else { Step::StatxRoot })?;
        let Some(root) = self.run(&mut report, Step::Open, || steps::open_place(&spec.place)) else {
            return Ok(report);
        };
        match steps::identify(root.as_fd(), &spec.place) {
            Ok(Some(identity)) => report.identity = Some(identity),
            Ok(None) => {
                report.mismatch = true;
                return Ok(report);
            }
            Err(errno) => {
                fail(&mut report, Step::Open, errno);
                return Ok(report);
            }
        }
        // A local filesystem answers from memory long after its device is gone.
        if let Some(device) = &spec.device
            && self.run(&mut report, Step::Device, || steps::device_there(device)).is_none()
        {
            return Ok(report);
        }
        if spec.statx_root {
            if spec.place.cached_only {
                self.enter(Step::StatxRoot)?;
            }
            report.root = self.run(&mut report, Step::StatxRoot, || steps::force(root.as_fd()));
            if report.root.is_none() {
                self.explain_refusal(&mut report, root.as_fd())?;
                return Ok(report);
            }
        }
        let intact = self.check_sentinels(spec, &mut report, root.as_fd())?;
        // When the entries are gone the totals decide whether the filesystem was replaced, so they are read at once.
        if spec.statfs || !intact {
            report.space = self.timed(&mut report, Step::Statfs, || steps::space(root.as_fd()))?;
        }
        let at_ease = report.steps.iter().all(|step| step.errno.is_none() && step.micros < HURRIED);
        if spec.learn > 0 && intact && at_ease {
            let dev = spec.place.dev;
            let next = || self.enter(Step::Learn);
            let learn = || sentinel::learn(root.as_fd(), dev, spec.learn, &next);
            report.learned = self.timed(&mut report, Step::Learn, learn)?;
        }
        Ok(report)
    }

    /// A root that is refused as stale, while statfs still works on the same handle, belongs to another directory of
    /// an export that is still there (measured: ATLAS `swap_dir`).
    fn explain_refusal(&self, report: &mut ProbeReport, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let stale = Some(Errno::STALE.raw_os_error());
        if report.step(Step::StatxRoot).is_some_and(|result| result.errno == stale) {
            report.space = self.timed(report, Step::Statfs, || steps::space(root))?;
        }
        Ok(())
    }

    /// Looks at one sentinel, and at the others only when that one is not intact. True: nothing speaks against them.
    fn check_sentinels(&self, spec: &ProbeSpec, report: &mut ProbeReport, root: BorrowedFd<'_>) -> Result<bool, Errno> {
        if spec.sentinels.is_empty() {
            return Ok(true);
        }
        let start = Instant::now();
        let begin = spec.first % spec.sentinels.len();
        let (before, after) = spec.sentinels.split_at(begin);
        let mut failed = None;
        for known in after.iter().chain(before) {
            // Each of them has the whole deadline: a slow server is not a dead one.
            self.enter(Step::Sentinel)?;
            let check = sentinel::check(root, known);
            let fate = check.fate;
            report.sentinels.push(check);
            match fate {
                SentinelFate::Intact => break,
                SentinelFate::Failed => {
                    failed = report.sentinels.last().and_then(|check| check.errno);
                    break;
                }
                SentinelFate::Gone | SentinelFate::Changed | SentinelFate::NoAccess => {}
            }
        }
        if let Some(mark) = spec.own.as_ref().filter(|_| report.sentinels_gone()) {
            self.enter(Step::Sentinel)?;
            let own = Sentinel { name: crate::canary::DIRECTORY.into(), mark: mark.clone() };
            let fate = sentinel::check(root, &own).fate;
            report.own_gone = matches!(fate, SentinelFate::Gone | SentinelFate::Changed);
        }
        report.steps.push(StepResult { step: Step::Sentinel, errno: failed, micros: micros(start) });
        Ok(!report.sentinels_gone())
    }

    /// Announces a step and runs it.
    fn timed<T>(
        &self,
        report: &mut ProbeReport,
        step: Step,
        run: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<Option<T>, Errno> {
        self.enter(step)?;
        Ok(self.run(report, step, run))
    }

    /// Runs a step, records how it ended, and gives its value if it succeeded.
    fn run<T>(&self, report: &mut ProbeReport, step: Step, run: impl FnOnce() -> Result<T, Errno>) -> Option<T> {
        let start = Instant::now();
        let result = run();
        let errno = result.as_ref().err().map(|errno| errno.raw_os_error());
        report.steps.push(StepResult { step, errno, micros: micros(start) });
        result.ok()
    }
}

fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn fail(report: &mut ProbeReport, step: Step, errno: Errno) {
    if let Some(result) = report.steps.iter_mut().find(|result| result.step == step) {
        result.errno = Some(errno.raw_os_error());
    }
}

fn identify_place(place: &Place) -> Option<super::Identity> {
    let root = steps::open_place(place).ok()?;
    steps::identify(root.as_fd(), place).ok().flatten()
}

fn counters(bytes: &[u8]) -> Vec<CounterRow> {
    use std::os::unix::ffi::OsStrExt;
    let stats = mountstats::parse(bytes);
    let bare = |mount: &NfsStats| mount.mountpoint.len() + mount.source.len() + ROW_NUMBERS;
    let mut room = wire::MAX_FRAME - FRAME_HEAD;
    let fits = |mount: &&NfsStats| {
        room = room.saturating_sub(bare(mount));
        room > 0
    };
    let mounts: Vec<&NfsStats> = stats.nfs.iter().take(wire::MAX_ROWS).take_while(fits).collect();
    // The triggers need the transport of every mount; what its operations cost is left out first.
    let mut room = wire::MAX_FRAME - FRAME_HEAD - mounts.iter().map(|mount| bare(mount)).sum::<usize>();
    let row = |mount: &&NfsStats| {
        let mut operations = mount.operations();
        match room.checked_sub(operations.len() * OPERATION) {
            Some(rest) => room = rest,
            None => operations.clear(),
        }
        let (mountpoint, source) = (mount.mountpoint.as_bytes().to_vec(), mount.source.as_bytes().to_vec());
        CounterRow { mountpoint, source, counters: mount.counters(), operations }
    };
    mounts.iter().map(row).collect()
}

/// Regular files in a directory with their contents. Symlinks are not followed.
fn state_files(path: &[u8]) -> Result<Vec<wire::NamedFile>, Errno> {
    use rustix::fs::{Mode, OFlags, RawDir};
    use std::os::unix::ffi::OsStrExt;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(std::ffi::OsStr::from_bytes(path), flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(1 << 15);
    let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
    let mut files = Vec::new();
    let mut total = 0;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !entry.file_name().to_bytes().starts_with(b"fs-") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(&directory, entry.file_name(), flags, Mode::empty()) else { continue };
        let Ok(bytes) = steps::read_all(file.as_fd(), EFS_FILE_LIMIT) else { continue };
        total += bytes.len() + entry.file_name().to_bytes().len();
        // The answer must fit one frame; what is over is no state of an ordinary node.
        if files.len() == EFS_FILES || total > wire::MAX_FRAME / 2 {
            break;
        }
        files.push((entry.file_name().to_bytes().to_vec(), bytes));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mountstats(mounts: usize, name: usize) -> String {
        let ops = [
            "GETATTR", "SETATTR", "LOOKUP", "ACCESS", "OPEN", "CLOSE", "READ", "WRITE", "COMMIT", "READDIR", "LOCK",
            "RENAME",
        ];
        let max = u64::MAX;
        let ops: String =
            ops.iter().map(|op| format!("\t{op}: {max} {max} {max} {max} {max} {max} {max} {max} {max}\n")).collect();
        let path = "x".repeat(name);
        let xprt = format!("\txprt:\ttcp 1 1 {max} 0 0 {max} {max} 0 0 0\n");
        (0..mounts)
            .map(|n| format!("device s:/{n} mounted on /{path}{n} with fstype nfs4 statvers=1.1\n{xprt}{ops}"))
            .collect()
    }

    fn frame(rows: &[CounterRow]) -> usize {
        let answer = Answer::Counters(rows.to_vec());
        wire::encode(&Message::Done { seq: u64::MAX, answer }).expect("an answer fits a frame").len()
    }

    #[test]
    fn the_rows_of_an_ordinary_node_are_whole() {
        let rows = counters(mountstats(1000, 100).as_bytes());
        assert_eq!(rows.len(), 1000);
        assert!(rows.iter().all(|row| row.operations.len() == 12));
        assert!(frame(&rows) < wire::MAX_FRAME);
    }

    #[test]
    fn operations_are_left_out_before_any_mount_is() {
        let rows = counters(mountstats(8000, 200).as_bytes());
        assert_eq!(rows.len(), 8000);
        let whole = rows.iter().filter(|row| !row.operations.is_empty()).count();
        assert!(whole > 1000 && whole < 8000, "{whole}");
        assert!(frame(&rows) <= wire::MAX_FRAME + 4);
    }

    #[test]
    fn names_that_fill_a_frame_end_the_list_and_not_the_worker() {
        let rows = counters(mountstats(3000, 4000).as_bytes());
        assert!(rows.len() > 900 && rows.len() < 3000, "{}", rows.len());
        assert!(frame(&rows) <= wire::MAX_FRAME + 4);
    }
}
