//! Letting go of a pod's dead mounts, so that the kubelet can finish: the one sequence of calls that worked in every case
//! measured (KUBELET.md 3b).
//!
//! Per mount: a descriptor that keeps a way to it, `MNT_FORCE` again and again while a process of the pod is left and
//! moves, one `MNT_FORCE|MNT_DETACH` when none is, and then the descriptor is let go. Whether it may be done at all is not
//! decided here; but what can change between decision and call is looked at again right before each call: the mount is
//! still the one that was judged, and no process of the pod can still act.
//!
//! All of it happens in a worker process of its own, in the host's mount namespace. A second process holds the same
//! descriptors and closes them last, which may take seconds; nobody waits for that.

mod call;
mod keeper;
pub mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use worker::worker_entry;

use crate::mounts::Dev;
use crate::probe::canary::cgroup::{CgroupSpec, Isolation};
use crate::probe::image::Image;
use crate::probe::spawn;
use crate::probe::wire::{self, Decoder};
use worker::WORKER_ARGUMENT;

/// Most mounts of one pod that are let go in one go: a pod has at most a few hundred volumes and subPaths.
pub const MAX_MOUNTS: usize = 512;

/// What to let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseSpec {
    /// UID of the pod whose processes must be gone, or stuck beyond SIGKILL.
    pub pod_uid: String,
    /// Where proc is mounted, as seen in the host's mount namespace.
    pub proc_root: Vec<u8>,
    /// The mount namespace to enter (`/proc/1/ns/mnt`); empty: the worker's own is the host's.
    pub namespace: Vec<u8>,
    /// The mounts in the order in which they go: subPaths first, deepest first.
    pub mounts: Vec<ReleaseMount>,
    /// How.
    pub manner: Manner,
    /// The cgroup to sit in: a worker stuck in the kernel must not keep the agent's own pod in Terminating.
    pub cgroup: Option<CgroupSpec>,
    /// How long and how often.
    pub pace: Pace,
}

/// One mount to let go, as it was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseMount {
    /// Its path in the host's mount namespace.
    pub path: Vec<u8>,
    /// Its id.
    pub mount_id: u64,
    /// Its id that is never reused, where the kernel has one (Linux 6.8).
    pub unique_mount_id: Option<u64>,
    /// Its superblock.
    pub dev: Dev,
}

/// How a mount is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// It answers nothing: abort what waits on its superblock, then take it away. Unwritten data is lost.
    Abort,
    /// It answers (`stale`, `lost`) and blocks nobody: take it away, never with MNT_FORCE.
    Detach,
}

/// How long and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Longest time between two calls with MNT_FORCE, in milliseconds; the next one comes sooner when something moved.
    pub between_millis: u64,
    /// One call may take so long, in milliseconds; then its process is killed.
    pub call_millis: u64,
    /// Most calls with MNT_FORCE per mount: a writer needs up to two for each of its dirty files, and one (measured).
    pub most_calls: u32,
    /// Calls in a row after which nothing moved before it is given up.
    pub patience: u32,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { between_millis: 1000, call_millis: 3000, most_calls: 128, patience: 10 }
    }
}

/// What the worker did, as it does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Whether it left the agent's cgroup.
    Entered(Isolation),
    /// It holds a descriptor of the mount with this index.
    Holds {
        /// Index in [`ReleaseSpec::mounts`].
        mount: usize,
    },
    /// One umount2(2).
    Called {
        /// Index in [`ReleaseSpec::mounts`].
        mount: usize,
        /// Its flags.
        flags: Flags,
        /// How it ended. EBUSY is what MNT_FORCE says while it works.
        end: CallEnd,
        /// How long it took, in milliseconds.
        millis: u64,
        /// Processes of the pod that were left when it was made.
        left: u32,
    },
    /// The mount is no longer in the host's table.
    Gone {
        /// Index in [`ReleaseSpec::mounts`].
        mount: usize,
    },
    /// It did not go on, and why.
    Stopped(Stop),
    /// All of it was done; only the last descriptors are left to be closed.
    Finished,
}

/// The flags of an umount2(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flags {
    /// `MNT_FORCE`: aborts all requests of the superblock.
    Force,
    /// `MNT_DETACH`.
    Detach,
    /// `MNT_FORCE|MNT_DETACH`.
    ForceDetach,
}

/// How an umount2(2) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallEnd {
    /// It returned 0.
    Done,
    /// It returned this errno.
    Failed(i32),
    /// It did not return in time; its process was killed, and died.
    Killed,
    /// It did not return in time, and its process does not die.
    Stuck,
}

/// Why it did not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The host's mount namespace could not be entered.
    #[error(
        "cannot enter the host's mount namespace: errno {0} (needs CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYS_CHROOT, hostPID, and no AppArmor profile that forbids it)"
    )]
    Namespace(i32),
    /// Another mount is at the path now, or none.
    #[error("{path} is not the mount any more that was judged")]
    Changed {
        /// The path, escaped.
        path: String,
    },
    /// No process could be started that closes the descriptors last.
    #[error("cannot start a process that keeps the mounts until the end: errno {0}")]
    Keeper(i32),
    /// The path could not be opened.
    #[error("cannot open {path}: errno {errno}")]
    Open {
        /// The path, escaped.
        path: String,
        /// Why.
        errno: i32,
    },
    /// A process of the pod can still act.
    #[error("{} processes of the pod can still act, the first is {}", .0.len(), .0.first().copied().unwrap_or_default())]
    Alive(Vec<i32>),
    /// Whose processes are left cannot be told.
    #[error("cannot tell which processes of the pod are left: {0}")]
    Processes(String),
    /// Processes of the pod stayed, whatever was aborted.
    #[error(
        "{left} processes of the pod stay in the kernel after {calls} calls; taking the mount away now would strand them"
    )]
    NothingMoves {
        /// How many are left.
        left: u32,
        /// Calls that were made.
        calls: u32,
    },
    /// The mount is still in the host's table after everything.
    #[error("{path} is still in the host's mount table")]
    StillThere {
        /// The path, escaped.
        path: String,
    },
}

/// How a release ended.
#[derive(Debug)]
pub enum Outcome {
    /// The worker said all that it had to say. `gone` resolves when it has ended too. The descriptors are closed some seconds later.
    Ended {
        /// Everything it did, with the time since the start.
        events: Vec<(Duration, Event)>,
        /// Resolves (or is closed) when the worker is reaped.
        gone: oneshot::Receiver<()>,
    },
    /// It fell silent, or ended early, or said nonsense. It was killed.
    Lost {
        /// What it did until then.
        events: Vec<(Duration, Event)>,
        /// What happened.
        why: String,
        /// Resolves (or is closed) when it is reaped.
        gone: oneshot::Receiver<()>,
    },
    /// No worker could be started.
    NotStarted(io::Error),
}

impl Outcome {
    /// Everything that was done.
    #[must_use]
    pub fn events(&self) -> &[(Duration, Event)] {
        match self {
            Outcome::Ended { events, .. } | Outcome::Lost { events, .. } => events,
            Outcome::NotStarted(_) => &[],
        }
    }

    /// Every mount is gone from the host's table.
    #[must_use]
    pub fn released(&self) -> bool {
        matches!(self, Outcome::Ended { events, .. } if events.iter().any(|(_, event)| *event == Event::Finished))
    }
}

/// Lets go of mounts. The worker says something before each call and waits at most [`Pace::between_millis`] and
/// [`Pace::call_millis`] between; when it says nothing for longer than both it is killed.
///
/// `go_on` hears of everything as it happens, and says whether to go on: `false` kills the worker on the spot. A release
/// that was cut short anywhere is finished by the next one.
///
/// To be called on a thread that lives as long as the process: the worker dies with the thread that started it.
pub async fn release(image: &Image, spec: &ReleaseSpec, mut go_on: impl FnMut(&Event) -> bool) -> Outcome {
    let start = tokio::time::Instant::now();
    let (mut child, mut socket) = match begin(image, spec).await {
        Ok(started) => started,
        Err(error) => return Outcome::NotStarted(error),
    };
    let mut events = Vec::new();
    let why = hear(&mut socket, spec, &mut go_on, &mut events, start).await;
    drop(socket);
    let (sender, gone) = oneshot::channel();
    if why.is_some() {
        // Fails only when it is dead already.
        let _ = child.start_kill();
    }
    tokio::spawn(async move {
        // Fails only when there is no such child any more; nobody may be listening.
        let _ = child.wait().await;
        let _ = sender.send(());
    });
    match why {
        None => Outcome::Ended { events, gone },
        Some(why) => Outcome::Lost { events, why, gone },
    }
}

async fn begin(image: &Image, spec: &ReleaseSpec) -> io::Result<(tokio::process::Child, UnixStream)> {
    let frame = wire::encode(spec).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut socket = UnixStream::from_std(ours)?;
    let child = spawn::command(image.path(), WORKER_ARGUMENT)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()?;
    socket.write_all(&frame).await?;
    Ok((child, socket))
}

/// Reads what the worker says until it is through; gives what went wrong, if something did.
async fn hear(
    socket: &mut UnixStream,
    spec: &ReleaseSpec,
    go_on: &mut impl FnMut(&Event) -> bool,
    events: &mut Vec<(Duration, Event)>,
    start: tokio::time::Instant,
) -> Option<String> {
    /// Scanning the processes of a node, and its own turn on a busy one.
    const SLACK: Duration = Duration::from_secs(5);
    let silence = Duration::from_millis(spec.pace.between_millis + spec.pace.call_millis) + SLACK;
    let most = spec.mounts.len() * (usize::try_from(spec.pace.most_calls).unwrap_or(usize::MAX).saturating_add(8));
    let mut decoder = Decoder::default();
    loop {
        match decoder.take::<Event>() {
            Ok(Some(event)) => {
                let last = matches!(event, Event::Stopped(_) | Event::Finished);
                let wanted = last || go_on(&event);
                events.push((start.elapsed(), event));
                if last {
                    return None;
                }
                if !wanted {
                    return Some("it was called off".to_owned());
                }
                if events.len() > most {
                    return Some("the worker talks without end".to_owned());
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => return Some(format!("the worker sent nonsense: {error}")),
        }
        let mut chunk = [0; 4096];
        match timeout(silence, socket.read(&mut chunk)).await {
            Ok(Ok(0)) => return Some("the worker ended early".to_owned()),
            Ok(Ok(count)) => decoder.push(chunk.get(..count).unwrap_or_default()),
            Ok(Err(error)) => return Some(format!("the worker's socket failed: {error}")),
            Err(_) => return Some(format!("the worker said nothing for {silence:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ReleaseSpec {
        ReleaseSpec {
            pod_uid: "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11".to_owned(),
            proc_root: b"/proc".to_vec(),
            namespace: Vec::new(),
            mounts: Vec::new(),
            manner: Manner::Detach,
            cgroup: None,
            pace: Pace::default(),
        }
    }

    async fn by(program: &str) -> Outcome {
        release(&Image::impostor(program.into()), &spec(), |_| true).await
    }

    #[tokio::test]
    async fn without_a_worker_nothing_is_released() {
        let outcome = by("/nonexistent/worker").await;
        assert!(matches!(outcome, Outcome::NotStarted(_)) && !outcome.released(), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_worker_that_ends_early_has_released_nothing() {
        // Either side may notice first: the request cannot be written, or there is no answer.
        let outcome = by("/bin/false").await;
        assert!(!outcome.released(), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_worker_that_talks_nonsense_is_killed() {
        // The arguments of a worker are no files, so it fails; what it was asked is never said back as an answer.
        let outcome = by("/bin/cat").await;
        assert!(!outcome.released() && outcome.events().is_empty(), "{outcome:?}");
    }

    #[test]
    fn every_reason_to_stop_is_a_sentence_with_its_numbers() {
        let stop = Stop::NothingMoves { left: 2, calls: 12 };
        assert_eq!(
            stop.to_string(),
            "2 processes of the pod stay in the kernel after 12 calls; taking the mount away now would strand them"
        );
        assert_eq!(Stop::Alive(vec![17, 18]).to_string(), "2 processes of the pod can still act, the first is 17");
    }
}
