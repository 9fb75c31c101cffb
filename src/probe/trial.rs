//! A trial mount: would this server give this client this export now, and what lies there?
//!
//! fsopen(2), fsconfig(2), fsmount(2) and a forced statx of the new root, all on descriptors: no path, no namespace, no
//! mount.nfs, and nothing left in any mount table (measured on NFS v3 to v4.2). A mount that nobody has attached goes
//! away with its descriptor, also when the worker is killed in the middle. It is read-only, which alone gives it a
//! superblock of its own, so it asks the server afresh and disturbs no mount that is in use.
//!
//! [`attempt`] makes one in a worker of the pool, [`options`] says with which options, [`words`] what the outcome means. Needs CAP_SYS_ADMIN; fsopen(2) is Linux
//! 5.2, NFS takes it since 5.6.
#![expect(clippy::disallowed_methods, reason = "this is the code that touches mounts, in an expendable process")]

mod attempt;
pub mod options;
pub mod words;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use serde::{Deserialize, Serialize};

use super::{RootAttributes, Step, StepResult, steps};
use crate::mounts::octal;

pub use attempt::{Attempt, attempt};
pub use options::{TrialOption, TrialSpec};

/// Names of a root that an answer lists at most.
pub const MAX_NAMES: usize = 64;

/// Names that one trial looks up at most; each costs a request.
pub const MAX_LOOKED_FOR: usize = 16;

/// One getdents64(2) of this size is all that listing reads, however large the directory is.
const DIRECTORY_BYTES: usize = 32 << 10;

/// Messages that are read at most; the kernel keeps eight (`struct fc_log`).
const MAX_MESSAGES: usize = 16;

/// Longest message that is read; the kernel drops a longer one unread.
const MESSAGE_BYTES: usize = 4 << 10;

/// What a trial mount found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialReport {
    /// The steps in the order in which they were made, the failed one included; what it makes meaningless is not tried.
    pub steps: Vec<StepResult>,
    /// The option that the kernel did not take, as `name=value`.
    pub refused_option: Option<String>,
    /// What the kernel wrote about it into the filesystem context, as it stands there: `e NFS: ...` for an error, `w`
    /// for a warning, `i` for information. Printable text ([`octal::label`]).
    pub messages: Vec<String>,
    /// Attributes of the root as the server gave them: the trial answered.
    pub root: Option<RootAttributes>,
    /// File handle of the root with its type in front, comparable to [`super::Identity::handle`]; empty where the type
    /// has none (NFSv4.0).
    pub handle: Vec<u8>,
    /// The first names in the root, at most [`MAX_NAMES`], without `.` and `..`; bytes, not text.
    pub names: Vec<Vec<u8>>,
    /// The root holds more than `names`.
    pub more_names: bool,
    /// Whether the root has the names that were looked for, in their order; `None` where that could not be told.
    pub found: Vec<Option<bool>>,
}

impl TrialReport {
    /// The first step that failed, with its errno.
    #[must_use]
    pub fn failure(&self) -> Option<(Step, i32)> {
        self.steps.iter().find_map(|result| Some((result.step, result.errno?)))
    }

    /// The server mounted it and answered for its root; that the root could not be listed does not matter.
    #[must_use]
    pub fn answered(&self) -> bool {
        self.root.is_some()
    }
}

/// Makes a trial mount and lets it go again. `enter` is called before each step: each has a deadline of its own.
///
/// # Errors
/// Those of `enter` alone; what the kernel says is in the report.
pub(super) fn run(spec: &TrialSpec, enter: &dyn Fn(Step) -> Result<(), Errno>) -> Result<TrialReport, Errno> {
    let mut trial = Trial { report: TrialReport::default(), enter };
    let (mut context, mut refused) = (None, None);
    let configured = trial.step(Step::TrialOpen, || {
        let fd = rustix::mount::fsopen(spec.fstype.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
        configure(context.insert(fd).as_fd(), spec, &mut refused)
    })?;
    trial.report.refused_option = refused;
    let mount = match (&context, configured) {
        (Some(context), Some(())) => trial.step(Step::TrialMount, || create(context.as_fd()))?,
        _ => None,
    };
    if let Some(context) = &context {
        trial.report.messages = messages(context.as_fd());
    }
    if let Some(mount) = &mount {
        trial.look(mount.as_fd(), &spec.look_for)?;
    }
    // Ends sessions with the server, and waits for it if it went away meanwhile.
    trial.step(Step::TrialClose, || {
        drop((mount, context));
        Ok(())
    })?;
    Ok(trial.report)
}

struct Trial<'a> {
    report: TrialReport,
    enter: &'a dyn Fn(Step) -> Result<(), Errno>,
}

impl Trial<'_> {
    fn look(&mut self, mount: BorrowedFd<'_>, look_for: &[Vec<u8>]) -> Result<(), Errno> {
        self.report.root = self.step(Step::TrialRoot, || steps::force(mount))?;
        if self.report.root.is_none() {
            return Ok(());
        }
        self.report.handle = steps::handle(mount).unwrap_or_default();
        if let Some((names, more)) = self.step(Step::TrialNames, || names(mount))? {
            (self.report.names, self.report.more_names) = (names, more);
        }
        for name in look_for.iter().take(MAX_LOOKED_FOR) {
            (self.enter)(Step::TrialNames)?;
            self.report.found.push(has(mount, name));
        }
        Ok(())
    }

    /// Announces a step, runs it, records how it ended, and gives its value if it succeeded.
    fn step<T>(&mut self, step: Step, run: impl FnOnce() -> Result<T, Errno>) -> Result<Option<T>, Errno> {
        (self.enter)(step)?;
        let start = Instant::now();
        let result = run();
        let errno = result.as_ref().err().map(|errno| errno.raw_os_error());
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.report.steps.push(StepResult { step, errno, micros });
        Ok(result.ok())
    }
}

/// Gives the options to the kernel, which only parses them; `refused` is the one that it does not take.
fn configure(context: BorrowedFd<'_>, spec: &TrialSpec, refused: &mut Option<String>) -> Result<(), Errno> {
    rustix::mount::fsconfig_set_string(context, "source", spec.source.as_slice())?;
    for option in &spec.options {
        let given = match &option.value {
            Some(value) => rustix::mount::fsconfig_set_string(context, option.name.as_str(), value.as_str()),
            None => rustix::mount::fsconfig_set_flag(context, option.name.as_str()),
        };
        given.inspect_err(|_| *refused = Some(octal::label(option.to_string().as_ref())))?;
    }
    rustix::mount::fsconfig_set_flag(context, "ro")
}

/// Asks the server. The mount hangs on its descriptor alone.
fn create(context: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::mount::fsconfig_create(context)?;
    let harmless = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, harmless)
}

/// Each read gives one message; ENODATA says that there is none left.
fn messages(context: BorrowedFd<'_>) -> Vec<String> {
    use std::os::unix::ffi::OsStrExt;
    let mut buffer = vec![0; MESSAGE_BYTES];
    let mut found = Vec::new();
    for _ in 0..MAX_MESSAGES {
        match rustix::io::read(context, &mut buffer) {
            Ok(0) | Err(Errno::NODATA) => break,
            Ok(count) => {
                let text = buffer.get(..count).unwrap_or_default().trim_ascii_end();
                found.push(octal::label(std::ffi::OsStr::from_bytes(text)));
            }
            // Longer than anybody writes: the kernel has thrown it away.
            Err(Errno::MSGSIZE) => {}
            Err(_) => break,
        }
    }
    found
}

/// Whether a directory has an entry of this name, by the server's word.
fn has(directory: BorrowedFd<'_>, name: &[u8]) -> Option<bool> {
    use std::os::unix::ffi::OsStrExt;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_FORCE_SYNC;
    let name = std::ffi::OsStr::from_bytes(name);
    match rustix::fs::statx(directory, name, flags, StatxFlags::TYPE | StatxFlags::INO) {
        Ok(_) => Some(true),
        Err(Errno::NOENT) => Some(false),
        Err(_) => None,
    }
}

/// The first names in a directory, and whether there are more.
fn names(directory: BorrowedFd<'_>) -> Result<(Vec<Vec<u8>>, bool), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let directory = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(DIRECTORY_BYTES);
    let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == MAX_NAMES {
            return Ok((names, true));
        }
        names.push(name);
    }
    Ok((names, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn a_directory_is_listed_whole_up_to_the_limit_and_in_part_beyond() {
        let scratch = tempfile::tempdir().unwrap();
        for number in 0..MAX_NAMES {
            std::fs::write(scratch.path().join(format!("f{number}")), "").unwrap();
        }
        let (found, more) = names(open(scratch.path()).as_fd()).unwrap();
        assert_eq!((found.len(), more), (MAX_NAMES, false));
        assert!(!found.contains(&b".".to_vec()) && !found.contains(&b"..".to_vec()));
        std::fs::write(scratch.path().join("one more"), "").unwrap();
        let (found, more) = names(open(scratch.path()).as_fd()).unwrap();
        assert_eq!((found.len(), more), (MAX_NAMES, true));
    }

    #[test]
    fn names_are_bytes_and_a_root_that_is_no_directory_is_an_error() {
        use std::os::unix::ffi::OsStrExt;
        let scratch = tempfile::tempdir().unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"caf\xe9\n");
        std::fs::write(scratch.path().join(odd), "").unwrap();
        assert_eq!(names(open(scratch.path()).as_fd()).unwrap(), (vec![b"caf\xe9\n".to_vec()], false));
        assert_eq!(names(open(&scratch.path().join(odd)).as_fd()), Err(Errno::NOTDIR));
    }

    #[test]
    fn a_name_that_is_looked_for_is_there_or_not_or_cannot_be_told() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("f"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", scratch.path().join("dangling")).unwrap();
        let directory = open(scratch.path());
        let has = |name: &[u8]| super::has(directory.as_fd(), name);
        assert_eq!(
            (has(b"f"), has(b"dangling"), has(b"gone"), has(b"f/below")),
            (Some(true), Some(true), Some(false), None)
        );
    }

    #[test]
    fn a_step_that_fails_is_the_failure_and_ends_the_look_but_not_the_closing() {
        let spec = TrialSpec {
            fstype: "no-such-type".to_owned(),
            source: b"srv:/".to_vec(),
            options: Vec::new(),
            look_for: Vec::new(),
        };
        let entered = std::cell::RefCell::new(Vec::new());
        let report = run(&spec, &|step| {
            entered.borrow_mut().push(step);
            Ok(())
        })
        .unwrap();
        let (step, errno) = report.failure().unwrap();
        assert_eq!(step, Step::TrialOpen);
        // EPERM without CAP_SYS_ADMIN.
        assert!([libc::ENODEV, libc::EPERM].contains(&errno), "{errno}");
        assert_eq!(*entered.borrow(), [Step::TrialOpen, Step::TrialClose]);
        assert!(!report.answered());
    }

    #[test]
    fn when_nobody_listens_to_the_steps_the_trial_ends() {
        let spec = TrialSpec {
            fstype: "tmpfs".to_owned(),
            source: b"none".to_vec(),
            options: Vec::new(),
            look_for: Vec::new(),
        };
        assert_eq!(run(&spec, &|_| Err(Errno::PIPE)), Err(Errno::PIPE));
    }
}
