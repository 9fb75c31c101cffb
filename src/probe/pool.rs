//! The workers: kept warm, given one job at a time, killed at the deadline, abandoned when they do not die.
//!
//! A missed deadline is described, not judged: which step the worker had entered, whether it used CPU since, what the
//! kernel says it is doing, and whether our own clock was on time. All of it works without privilege.

mod admission;
mod blocked;
mod process;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

pub use admission::Class;
use admission::{Admission, Permit};
pub use blocked::{Blocked, OwnClock};
use process::{Heard, Process};

use super::image::Image;
use super::wire::{Answer, Job};

/// A job waits so long for a warm worker before one more is started. A probe that is answered takes a fraction of a
/// millisecond, starting a process takes two: a burst of probes is better served by the workers that are there.
const WARM_WAIT: Duration = Duration::from_millis(20);

/// Workers that died while they were idle are looked for so often. Until then a job that meets one takes the next.
const BURY_EVERY: Duration = Duration::from_secs(1);

/// tokio's timers are so exact. What is left of a deadline below that is not worth another wait.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// Bounds of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Workers kept ready; 0: each job has a new one, which ends with it.
    pub warm: usize,
    /// Workers busy or stuck at a time.
    pub max: usize,
    /// The same for one owner.
    pub per_owner: usize,
}

/// What came of a job.
#[derive(Debug)]
pub enum Outcome {
    /// The worker answered.
    Answered(Answer),
    /// A step missed its deadline. The worker was killed; `gone` resolves when the kernel has let it go.
    Missed {
        /// What was seen at the deadline.
        blocked: Blocked,
        /// Resolves (or is closed) when the worker is reaped.
        gone: oneshot::Receiver<()>,
    },
    /// The worker ended or broke the wire format; it says nothing about the mount.
    Lost(String),
    /// No worker became free in time: too many are blocked.
    NoRoom,
    /// No worker could be started.
    NotStarted(io::Error),
}

impl Outcome {
    /// Why there is no answer of the kind that was asked for, in words. `missed`: what a missed deadline means.
    #[must_use]
    pub fn no_answer(&self, missed: &str) -> String {
        match self {
            Outcome::Answered(_) => "the worker answered another question".to_owned(),
            Outcome::Missed { .. } => missed.to_owned(),
            Outcome::Lost(why) => why.clone(),
            Outcome::NoRoom => "no worker is free".to_owned(),
            Outcome::NotStarted(error) => format!("no worker can be started: {error}"),
        }
    }
}

/// Counters of the pool, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Workers waiting for work.
    pub idle: u64,
    /// Workers with a job.
    pub busy: u64,
    /// Workers killed and not yet reaped.
    pub stuck: u64,
    /// Killed at a deadline.
    pub killed: u64,
    /// Started.
    pub started: u64,
    /// Ended by themselves or by somebody else.
    pub lost: u64,
    /// Broke the wire format.
    pub protocol_errors: u64,
    /// Could not be started.
    pub spawn_errors: u64,
    /// Jobs not run for want of a worker.
    pub cap_hits: u64,
}

/// The pool; clones share it.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    image: Arc<Image>,
    limits: Limits,
    admission: Arc<Admission>,
    state: Mutex<State>,
    /// A worker was given back.
    returned: Notify,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Process>,
    counts: Counts,
    /// When the idle ones were last looked at.
    buried: Option<Instant>,
}

impl Pool {
    /// A pool whose workers start from `image`. Must be called, and used, inside a tokio runtime whose thread lives as
    /// long as the process: workers die with the thread that started them (PR_SET_PDEATHSIG).
    #[must_use]
    pub fn new(image: Image, limits: Limits) -> Pool {
        Pool::sharing(Arc::new(image), limits)
    }

    /// Another pool of workers of the same program, with bounds of its own.
    #[must_use]
    pub fn beside(&self, limits: Limits) -> Pool {
        Pool::sharing(Arc::clone(&self.shared.image), limits)
    }

    /// The program that its workers are.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.shared.image)
    }

    fn sharing(image: Arc<Image>, limits: Limits) -> Pool {
        let admission = Arc::new(Admission::new(limits.max, limits.per_owner));
        let shared = Shared { image, limits, admission, state: Mutex::default(), returned: Notify::new() };
        let pool = Pool { shared: Arc::new(shared) };
        pool.keep_warm();
        pool
    }

    /// Runs a job in a worker. Each step has `deadline`; `patience` bounds the wait for a free worker.
    pub async fn run(&self, job: Job, owner: &str, class: Class, deadline: Duration, patience: Duration) -> Outcome {
        let Some(permit) = self.shared.admission.acquire(owner, class, patience).await else {
            self.state().counts.cap_hits += 1;
            return Outcome::NoRoom;
        };
        self.run_admitted(job, permit, deadline).await
    }

    /// Counters for metrics.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let state = self.state();
        Counts { idle: state.idle.len() as u64, ..state.counts }
    }

    /// Kills the workers and waits for them, but no longer than `within`: those that are stuck die when the kernel lets
    /// them, and the rest would die with us anyway. It only keeps them from being left to an init that does not reap.
    pub async fn end(&self, within: Duration) {
        let idle = std::mem::take(&mut self.state().idle);
        let waits: Vec<_> = idle.into_iter().map(|process| process.kill_and_reap(None)).collect();
        let all = async {
            for wait in waits {
                // A task that failed has nothing more to wait for.
                let _ = wait.await;
            }
        };
        // Out of time: see above.
        let _ = timeout(within, all).await;
    }

    async fn run_admitted(&self, job: Job, permit: Permit, deadline: Duration) -> Outcome {
        // A warm worker may have been killed by somebody meanwhile; that is noticed at the first write or read, and a
        // fresh one takes the job. A fresh one that ends too is reported.
        loop {
            let (mut process, fresh) = match self.take().await {
                Ok(taken) => taken,
                Err(error) => {
                    self.state().counts.spawn_errors += 1;
                    return Outcome::NotStarted(error);
                }
            };
            if let Err(error) = process.begin(&job).await {
                self.discard(process, true);
                if fresh {
                    return Outcome::Lost(format!("the worker did not take the job: {error}"));
                }
                continue;
            }
            match self.wait(&mut process, deadline).await {
                Wait::Answered(answer) => {
                    self.give_back(process);
                    return Outcome::Answered(answer);
                }
                Wait::Ended { heard_of } if !fresh && !heard_of => self.discard(process, true),
                Wait::Ended { .. } => {
                    self.discard(process, true);
                    return Outcome::Lost("the worker ended before it answered".to_owned());
                }
                Wait::Broken(error) => {
                    self.state().counts.protocol_errors += 1;
                    self.discard(process, false);
                    return Outcome::Lost(error);
                }
                Wait::Missed(blocked) => {
                    let gone = self.abandon(process, permit);
                    return Outcome::Missed { blocked, gone };
                }
            }
        }
    }

    async fn wait(&self, process: &mut Process, deadline: Duration) -> Wait {
        let mut clock = OwnClock::start(deadline);
        loop {
            match timeout_at(clock.deadline(), process.hear()).await {
                Ok(Ok(Heard::Done(answer))) => return Wait::Answered(answer),
                Ok(Ok(Heard::Ended)) => return Wait::Ended { heard_of: process.entered().is_some() },
                Ok(Err(error)) => return Wait::Broken(error.to_string()),
                Err(_) => {}
            }
            let entered = process.entered();
            let left = entered.map(|entered| deadline.saturating_sub(entered.ago()));
            match left.filter(|left| *left > TIMER_GRAIN) {
                // It came to its present step on the way: each has the whole deadline.
                Some(left) => clock = OwnClock::start(left),
                None => return Wait::Missed(Blocked::describe(process.pid(), entered, &clock)),
            }
        }
    }

    /// A warm worker, or a new one (`true`). It counts as busy until it is given back, discarded or abandoned.
    async fn take(&self) -> io::Result<(Process, bool)> {
        let taken = match timeout(WARM_WAIT, self.take_warm()).await {
            Ok(Some(process)) => (process, false),
            Ok(None) | Err(_) => (self.start()?, true),
        };
        self.state().counts.busy += 1;
        Ok(taken)
    }

    /// A worker that is idle or becomes so; `None` when none is at work that could.
    async fn take_warm(&self) -> Option<Process> {
        loop {
            let returned = self.shared.returned.notified();
            {
                let mut state = self.state();
                if let Some(process) = state.idle.pop() {
                    return Some(process);
                }
                if self.shared.limits.warm == 0 || state.counts.busy < self.shared.limits.warm as u64 {
                    return None;
                }
            }
            returned.await;
        }
    }

    fn start(&self) -> io::Result<Process> {
        let process = Process::start(self.shared.image.path())?;
        self.state().counts.started += 1;
        Ok(process)
    }

    fn give_back(&self, process: Process) {
        let mut state = self.state();
        state.counts.busy -= 1;
        if state.idle.len() < self.shared.limits.warm {
            state.idle.push(process);
            drop(state);
            self.shared.returned.notify_one();
            self.keep_warm();
            return;
        }
        drop(state);
        // Closing its socket ends it.
        process.end();
    }

    fn discard(&self, process: Process, lost: bool) {
        {
            let mut state = self.state();
            state.counts.busy -= 1;
            state.counts.lost += u64::from(lost);
        }
        // The task that reaps it runs by itself.
        drop(process.kill_and_reap(None));
        self.keep_warm();
    }

    /// Kills a worker that missed its deadline. Its permit is held until the kernel lets it go.
    fn abandon(&self, process: Process, permit: Permit) -> oneshot::Receiver<()> {
        let (sender, gone) = oneshot::channel();
        {
            let mut state = self.state();
            state.counts.busy -= 1;
            state.counts.killed += 1;
            state.counts.stuck += 1;
        }
        let shared = Arc::clone(&self.shared);
        drop(process.kill_and_reap(Some(Box::new(move || {
            shared.state().counts.stuck -= 1;
            drop(permit);
            // Nobody may be waiting any more: the target can be gone.
            let _ = sender.send(());
        }))));
        self.keep_warm();
        gone
    }

    /// Starts workers until enough are ready or at work, so that a killed one is replaced before it is needed.
    fn keep_warm(&self) {
        self.bury();
        loop {
            {
                let state = self.state();
                if state.idle.len() as u64 + state.counts.busy >= self.shared.limits.warm as u64 {
                    return;
                }
            }
            match self.start() {
                Ok(process) => self.state().idle.push(process),
                Err(error) => {
                    self.state().counts.spawn_errors += 1;
                    tracing::debug!(%error, "cannot start a spare probe worker");
                    return;
                }
            }
        }
    }

    /// Idle workers that somebody killed would stay zombies that count as ready. Asking costs a waitid(2) for each.
    fn bury(&self) {
        let mut state = self.state();
        let now = Instant::now();
        if state.buried.is_some_and(|at| now < at + BURY_EVERY) {
            return;
        }
        state.buried = Some(now);
        let before = state.idle.len();
        state.idle.retain_mut(|process| !process.ended());
        let lost = before - state.idle.len();
        state.counts.lost += lost as u64;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Wait {
    Answered(Answer),
    Ended { heard_of: bool },
    Broken(String),
    Missed(Blocked),
}

#[cfg(test)]
mod tests;
