//! The worker: the same binary in a hidden mode, single-threaded, on one socket, sitting in `/`.
//!
//! It may be killed at any moment and may never come back from a system call. So it holds nothing: no descriptor but its
//! socket and what the step at hand needs, no lock, no file of anybody.
#![expect(clippy::disallowed_methods, reason = "this is the code that touches mounts, in an expendable process")]
#![expect(unsafe_code, reason = "close_range has no safe wrapper")]

use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Instant;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use rustix::io::Errno;

use super::wire::{self, Answer, CounterRow, Decoder, Job, Message, Place, ProbeSpec, Request};
use super::{ProbeReport, SentinelFate, Step, StepResult, sentinel, steps, trial};
use crate::mounts::mountstats;

/// First argument of the hidden mode.
pub const WORKER_ARGUMENT: &str = "probe-worker";

/// Largest mountstats that is read: 50,000 mounts of 7 kB would be more than a node has.
const MOUNTSTATS_LIMIT: usize = 256 << 20;

/// Largest state file of the EFS mount helper that is read, and how many of them.
const EFS_FILE_LIMIT: usize = 64 << 10;
const EFS_FILES: usize = 1024;

/// Runs the worker if this process was started as one; `None` otherwise. To be called before any thread exists.
#[must_use]
pub fn worker_entry() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != WORKER_ARGUMENT {
        return None;
    }
    let parent = arguments.next().and_then(|text| text.to_str()?.parse::<i32>().ok());
    Some(match parent.map(start) {
        Some(Ok(())) => ExitCode::SUCCESS,
        // There is nobody to tell: stderr is closed, and the agent counts a worker that ends.
        Some(Err(_)) | None => ExitCode::FAILURE,
    })
}

/// Cuts the process off from everything but its socket, then serves.
fn start(parent: i32) -> Result<(), Errno> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(errno)?;
    // The parent may have died before that took effect.
    if nix::unistd::getppid().as_raw() != parent {
        return Ok(());
    }
    // Its root and start directory may lie on a mount that dies later; `/` of the agent does not.
    std::env::set_current_dir("/").map_err(|_| Errno::IO)?;
    let _ = prctl::set_name(c"mountwarden-prb");
    // A worker that dumps core on a dead mount would be one more problem.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: no object in this process owns a descriptor above 0 yet: it has just been started and only read its
    // arguments. stdout and stderr are among those closed, so that a stuck worker holds nobody's pipe open.
    unsafe {
        libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0);
    }
    Worker { socket: rustix::stdio::stdin(), seq: 0 }.serve()
}

fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

struct Worker<'fd> {
    socket: BorrowedFd<'fd>,
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
        let frame = wire::encode(message).map_err(|_| Errno::MSGSIZE)?;
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            let count = rustix::io::retry_on_intr(|| rustix::io::write(self.socket, rest))?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Says which step comes next, and how much CPU was used so far: at a missed deadline the agent compares.
    fn enter(&self, step: Step) -> Result<(), Errno> {
        let used = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_err(errno)?;
        let cpu_nanos = u64::try_from(used.tv_sec()).unwrap_or(0).saturating_mul(1_000_000_000)
            + u64::try_from(used.tv_nsec()).unwrap_or(0);
        self.send(&Message::Entering { seq: self.seq, step, cpu_nanos })
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
            Job::EfsState(path) => {
                self.enter(Step::EfsState)?;
                match state_files(&path) {
                    Ok(files) => Answer::Files(files),
                    Err(errno) => Answer::Failed { errno: errno.raw_os_error() },
                }
            }
            Job::Trial(spec) => Answer::Trial(trial::run(&spec, &|step| self.enter(step))?),
        })
    }

    /// The steps of one probe. It ends at the first one that makes the next meaningless.
    fn probe(&self, spec: &ProbeSpec) -> Result<ProbeReport, Errno> {
        let mut report = ProbeReport::default();
        // Without another mount on the way the open never blocks (measured), so it is not worth a message of its own.
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
        if spec.learn > 0 && intact {
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
    mountstats::parse(bytes)
        .nfs
        .iter()
        .take(wire::MAX_ROWS)
        .map(|mount| CounterRow {
            mountpoint: mount.mountpoint.as_bytes().to_vec(),
            source: mount.source.as_bytes().to_vec(),
            counters: mount.counters(),
        })
        .collect()
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
