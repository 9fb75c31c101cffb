//! The worker of a release: the same binary in a hidden mode, single-threaded, for one release, in the host's mount
//! namespace.
#![expect(clippy::disallowed_methods, reason = "a worker of its own that holds the mounts which it lets go")]

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{CallEnd, Event, Flags, Manner, ReleaseMount, ReleaseSpec, Stop, call, keeper};
use crate::localfs;
use crate::mounts::{View, mountinfo, octal};
use crate::probe::canary::cgroup;
use crate::probe::wire::{self, Decoder, Place};
use crate::probe::{spawn, steps};
use crate::remedy::processes::{self, Left};

/// First argument of the hidden mode.
pub(super) const WORKER_ARGUMENT: &str = "release-worker";

/// Between two looks at the pod's processes.
const LOOK: Duration = Duration::from_millis(50);

/// A killed process whose call was aborted may take so long from there into exit, on a busy machine.
const LEAVING: Duration = Duration::from_secs(1);

/// Runs the worker if this process was started as one; `None` otherwise. To be called before any thread exists.
#[must_use]
pub fn worker_entry() -> Option<ExitCode> {
    Some(match spawn::parent_of(WORKER_ARGUMENT)?.map(start) {
        Some(Ok(())) => ExitCode::SUCCESS,
        // There is nobody to tell: stderr is closed, and the agent sees a worker that ended early.
        Some(Err(_)) | None => ExitCode::FAILURE,
    })
}

fn start(parent: i32) -> Result<(), Errno> {
    if !spawn::cut_off(parent, c"mountwarden-rel")? {
        return Ok(());
    }
    let socket = rustix::stdio::stdin();
    let spec = read_spec(socket)?;
    let worker = Worker { socket, spec: &spec };
    match worker.work() {
        Ok(()) => worker.say(&Event::Finished),
        Err(End::Stop(stop)) => worker.say(&Event::Stopped(stop)),
        Err(End::Socket(errno)) => Err(errno),
    }
}

fn read_spec(socket: BorrowedFd<'_>) -> Result<ReleaseSpec, Errno> {
    let mut decoder = Decoder::default();
    let mut chunk = vec![0; 1 << 14];
    loop {
        if let Some(spec) = decoder.take::<ReleaseSpec>().map_err(|_| Errno::PROTO)? {
            return Ok(spec);
        }
        match rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut chunk))? {
            0 => return Err(Errno::PIPE),
            count => decoder.push(chunk.get(..count).unwrap_or_default()),
        }
    }
}

enum End {
    Stop(Stop),
    /// Nobody hears us any more.
    Socket(Errno),
}

impl From<Stop> for End {
    fn from(stop: Stop) -> End {
        End::Stop(stop)
    }
}

impl From<Errno> for End {
    fn from(errno: Errno) -> End {
        End::Socket(errno)
    }
}

struct Worker<'spec> {
    socket: BorrowedFd<'spec>,
    spec: &'spec ReleaseSpec,
}

impl Worker<'_> {
    fn say(&self, event: &Event) -> Result<(), Errno> {
        wire::send(self.socket, event)
    }

    fn work(&self) -> Result<(), End> {
        // While it holds nothing of a mount yet.
        if let Some(spec) = &self.spec.cgroup {
            self.say(&Event::Entered(cgroup::enter(spec)))?;
        }
        self.enter_namespace()?;
        // All descriptors before the first call: whatever happens on the way, no mount is without a path to force it by.
        let (mut there, mut held) = (Vec::new(), Vec::new());
        for (index, mount) in self.spec.mounts.iter().enumerate() {
            // It went away meanwhile, by the kubelet or by a release that was cut short: that is what is wanted.
            if self.listed(mount)? {
                held.push(hold(mount)?);
                there.push((index, mount));
                self.say(&Event::Holds { mount: index })?;
            } else {
                self.say(&Event::Gone { mount: index })?;
            }
        }
        if held.is_empty() {
            return Ok(());
        }
        let keeper = keeper::start(&mut held).map_err(|errno| Stop::Keeper(errno.raw_os_error()))?;
        for ((index, mount), descriptor) in there.iter().zip(held.iter()) {
            self.let_go(*index, mount, descriptor)?;
        }
        // Ours first: they are not the last ones.
        drop(held);
        drop(keeper);
        Ok(())
    }

    fn enter_namespace(&self) -> Result<(), Stop> {
        if self.spec.namespace.is_empty() {
            return Ok(());
        }
        let refused = |errno: i32| Stop::Namespace(errno);
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let path = OsStr::from_bytes(&self.spec.namespace);
        let namespace = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
        let namespace = namespace.map_err(|errno| refused(errno.raw_os_error()))?;
        nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNS).map_err(|errno| refused(errno as i32))
    }

    fn let_go(&self, index: usize, mount: &ReleaseMount, held: &OwnedFd) -> Result<(), End> {
        let flags = match self.spec.manner {
            Manner::Abort => {
                self.abort_users(index, held)?;
                Flags::ForceDetach
            }
            Manner::Detach => {
                let left = self.left()?;
                if !left.processes.is_empty() {
                    return Err(Stop::NothingMoves { left: count(&left), calls: 0 }.into());
                }
                Flags::Detach
            }
        };
        self.call(index, held, flags, 0)?;
        if self.listed(mount)? {
            return Err(Stop::StillThere { path: octal::label(OsStr::from_bytes(&mount.path)) }.into());
        }
        Ok(self.say(&Event::Gone { mount: index })?)
    }

    /// Aborts what waits on the superblock until the pod has no process: each abort lets a writer go one file further.
    fn abort_users(&self, index: usize, held: &OwnedFd) -> Result<(), End> {
        let pace = &self.spec.pace;
        let (mut calls, mut idle) = (0, 0);
        let mut left = self.left()?;
        while !left.processes.is_empty() {
            if calls >= pace.most_calls || idle >= pace.patience {
                return Err(Stop::NothingMoves { left: count(&left), calls }.into());
            }
            self.call(index, held, Flags::Force, count(&left))?;
            calls += 1;
            let before = std::mem::take(&mut left);
            left = self.after_a_pause(&before)?;
            idle = if left == before { idle + 1 } else { 0 };
        }
        Ok(())
    }

    /// Who is left after the pause between two calls. It is cut short when nobody is left, and when those that are left
    /// went a step further and wait in the kernel again: the next call is for what they wait for now.
    fn after_a_pause(&self, before: &Left) -> Result<Left, End> {
        let end = Instant::now() + Duration::from_millis(self.spec.pace.between_millis);
        let mut last = before.clone();
        loop {
            std::thread::sleep(LOOK);
            let left = self.left()?;
            let settled = left != *before && left == last;
            if left.processes.is_empty() || settled || Instant::now() >= end {
                return Ok(left);
            }
            last = left;
        }
    }

    /// The pod's processes; none of them may be able to act any more. One that was let go a moment ago runs until it is in
    /// exit: that is waited for.
    fn left(&self) -> Result<Left, Stop> {
        let root = Path::new(OsStr::from_bytes(&self.spec.proc_root));
        let end = Instant::now() + LEAVING;
        loop {
            let left = processes::left(root, &self.spec.pod_uid).map_err(|error| Stop::Processes(error.to_string()))?;
            if left.alive.is_empty() {
                return Ok(left);
            }
            if Instant::now() >= end {
                return Err(Stop::Alive(left.alive));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn call(&self, mount: usize, held: &OwnedFd, flags: Flags, left: u32) -> Result<CallEnd, End> {
        let (end, took) = call::umount(held.as_fd(), flags, Duration::from_millis(self.spec.pace.call_millis));
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.say(&Event::Called { mount, flags, end, millis, left })?;
        Ok(end)
    }

    /// Whether the mount is in the table of the namespace that this process is in.
    fn listed(&self, mount: &ReleaseMount) -> Result<bool, Stop> {
        let root = Path::new(OsStr::from_bytes(&self.spec.proc_root));
        let file = root.join("self/mountinfo");
        let bytes = localfs::read_kernel_file(&file)
            .map_err(|error| Stop::Processes(format!("{}: {error}", file.display())))?;
        let table = mountinfo::parse(&bytes, View::Own);
        Ok(table.mounts.iter().any(|listed| listed.id == mount.mount_id && listed.dev == mount.dev))
    }
}

fn hold(mount: &ReleaseMount) -> Result<OwnedFd, Stop> {
    let label = || octal::label(OsStr::from_bytes(&mount.path));
    let place = Place {
        root: Vec::new(),
        path: mount.path.clone(),
        cached_only: false,
        mount_id: mount.mount_id,
        dev: mount.dev,
    };
    let failed = |errno: Errno| Stop::Open { path: label(), errno: errno.raw_os_error() };
    let descriptor = steps::open_place(&place).map_err(failed)?;
    let identity = steps::identify(descriptor.as_fd(), &place).map_err(failed)?;
    let same = identity.is_some_and(|identity| {
        mount.unique_mount_id.is_none_or(|known| identity.unique_mount_id.is_none_or(|now| now == known))
    });
    if same { Ok(descriptor) } else { Err(Stop::Changed { path: label() }) }
}

fn count(left: &Left) -> u32 {
    u32::try_from(left.processes.len()).unwrap_or(u32::MAX)
}
