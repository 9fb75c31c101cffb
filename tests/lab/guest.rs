//! Inside the guest: one cell, from the agent's start to its end.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mountwarden::verdict::{Cause, State};
use serde::{Deserialize, Serialize};

use crate::kernel::{self, Asked};
use crate::matrix::{AgentStarts, Cell, Expected, Heals};
use crate::surface::{self, Agent};
use crate::watch::{Causes, Change, Watch, any_cause, matches_any, words};

/// Where the guest's scripts mount the export.
const MOUNTPOINT: &str = "/mnt/cl";
/// What the server exports, as the server itself sees it.
const EXPORTED: &str = "/mnt/exp";
const OUT: &str = "/run/out";
/// A guest's first start of a program reads it over hostfs, from a machine that is busy with other guests.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A hard mount comes back when TCP tries again, which it does ever less often (14 s after a cut of a minute).
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// Well below the time after which any mount of the matrix gives up (0.2 s times two).
const PROMPT: Duration = Duration::from_millis(150);
/// The agent's promise.
const TERM_LIMIT: f64 = 1.0;
/// `/metrics` reads memory; the rest is the emulated CPU.
const SCRAPE_LIMIT: f64 = 1.0;

/// What came of a cell; `result.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Empty: passed.
    pub(crate) failures: Vec<String>,
    /// Of them those that came while the fault was made and until it was known: what a detector is needed for.
    pub(crate) not_told: usize,
    /// State and cause at the end of the detection; the cause as it was when it was proven.
    pub(crate) seen_state: Option<State>,
    pub(crate) seen_cause: Option<Cause>,
    /// Guest uptime at which the fault was complete.
    pub(crate) fault_uptime: f64,
    /// From the complete fault to the verdict, and what was allowed.
    pub(crate) detection_seconds: Option<f64>,
    pub(crate) allowed_seconds: f64,
    /// From the complete fault to the cause, where one is expected.
    pub(crate) cause_seconds: Option<f64>,
    /// From the repair to the first good answer of the kernel, and from there to `healthy`.
    pub(crate) kernel_recovery_seconds: Option<f64>,
    pub(crate) healthy_again_seconds: Option<f64>,
    /// From each SIGTERM to the end of the process.
    pub(crate) term_seconds: Vec<f64>,
    /// The slowest scrape while the mount was dead.
    pub(crate) slowest_scrape_seconds: f64,
    /// Every change of what the agent said.
    pub(crate) timeline: Vec<Change>,
}

/// Runs the cell and writes `result.json`.
pub(crate) fn run(cell_file: &std::path::Path) -> Result<()> {
    let cell: Cell = serde_json::from_str(&std::fs::read_to_string(cell_file)?)?;
    let mut run = Run {
        log: File::create(format!("{OUT}/agent.log"))?,
        watch: Watch::new(MOUNTPOINT),
        outcome: Outcome::default(),
        cell,
    };
    if let Err(error) = run.all() {
        run.watch.fail(format!("{error:#}"));
    }
    run.outcome.failures = run.watch.failures;
    run.outcome.timeline = run.watch.timeline;
    let partial = format!("{OUT}/result.partial");
    std::fs::write(&partial, serde_json::to_vec_pretty(&run.outcome)?)?;
    std::fs::rename(partial, format!("{OUT}/result.json")).context("leave the result")
}

struct Run {
    cell: Cell,
    log: File,
    watch: Watch,
    outcome: Outcome,
}

impl Run {
    fn all(&mut self) -> Result<()> {
        if self.cell.agent == AgentStarts::AfterFault {
            return self.all_with_a_late_agent();
        }
        let healthy = [any_cause(State::Healthy)];
        let mut agent = self.start_agent(&healthy, "the agent does not call the mount healthy before the fault")?;
        let load = self.cell.load.then(start_load).transpose()?;
        // One more round, so that the agent has met every entry twice before anything happens.
        self.watch.phase("before the fault", &[&healthy], false);
        self.watch.hold(self.seconds(self.cell.interval + 1.0));

        if self.cell.after_probe && !self.watch.until_probed(self.seconds(2.0 * self.cell.interval)) {
            self.watch.fail("no probe ended for two intervals");
        }
        self.watch.phase("fault", &[&healthy, &self.cell.transient, &self.cell.expect], false);
        let before = self.watch.failures.len();
        let complete = self.make_fault()?;
        self.detect(complete, &healthy)?;
        if self.count_not_told(&mut agent, before)? {
            return self.end_agent(agent);
        }
        self.explain(Some(complete));
        if self.cell.hangs {
            self.while_dead()?;
            agent = self.restart_agent(agent)?;
        }
        if self.cell.heals != Heals::No {
            self.heal(&healthy)?;
        }
        drop(load);
        self.end_agent(agent)
    }

    /// The agent knows the mount only as the fault has left it.
    fn all_with_a_late_agent(&mut self) -> Result<()> {
        let healthy = [any_cause(State::Healthy)];
        let expect = self.cell.expect.clone();
        let complete = self.make_fault()?;
        let mut agent = self.meet_fault()?;
        self.detect(complete, &expect)?;
        if !self.count_not_told(&mut agent, 0)? {
            self.explain(Some(complete));
            if self.cell.heals != Heals::No {
                self.heal(&healthy)?;
            }
        }
        self.end_agent(agent)
    }

    /// Counts what went wrong until the fault was known. True: that was all that this cell is for.
    fn count_not_told(&mut self, agent: &mut Agent, failures_before: usize) -> Result<bool> {
        if let Some(status) = agent.ended() {
            bail!("the agent ended by itself, see agent.log: {status}");
        }
        self.outcome.not_told = self.watch.failures.len() - failures_before;
        Ok(self.cell.without.is_some())
    }

    fn seconds(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Starts the agent and waits until it says one of `wanted`.
    fn start_agent(&mut self, wanted: &[Expected], otherwise: &str) -> Result<Agent> {
        let mut agent = Agent::start(&self.cell, &self.log)?;
        self.watch.phase("start", &[wanted, &[any_cause(State::Unknown)]], true);
        let begin = Instant::now();
        while self.watch.until(wanted, Causes::MayBeUnknown, Duration::from_secs(1)).is_none() {
            if let Some(status) = agent.ended() {
                bail!("the agent ended by itself, see agent.log: {status}");
            }
            ensure!(begin.elapsed() < START_LIMIT, "{otherwise}");
        }
        Ok(agent)
    }

    /// Makes the fault, watching meanwhile; the moment it was complete.
    fn make_fault(&mut self) -> Result<Instant> {
        let mut script = shell(&format!("fault {}", self.cell.fault))?;
        let complete = self.finish(&mut script, "the fault")?;
        self.outcome.fault_uptime = uptime();
        Ok(complete)
    }

    /// Waits for a script of the guest, with a look at the agent now and then.
    fn finish(&mut self, script: &mut Child, what: &str) -> Result<Instant> {
        let mut looked = Instant::now();
        loop {
            if let Some(status) = script.try_wait()? {
                if !status.success() {
                    self.watch.fail(format!("the script that makes {what}: {status}"));
                }
                return Ok(Instant::now());
            }
            if looked.elapsed() > Duration::from_millis(200) {
                self.watch.look();
                looked = Instant::now();
            } else {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn detect(&mut self, complete: Instant, healthy: &[Expected]) -> Result<()> {
        let (expect, transient) = (self.cell.expect.clone(), self.cell.transient.clone());
        self.watch.phase("until it is known", &[healthy, &transient, &expect], false);
        if self.cell.watch > 0.0 {
            self.watch.hold(self.seconds(self.cell.watch));
            self.watch.phase("after the watch", &[&expect], false);
            if let Some(mount) = self.watch.look() {
                (self.outcome.seen_state, self.outcome.seen_cause) = (Some(mount.state), mount.cause);
            }
            return Ok(());
        }
        let known = self.wait_for_verdict(complete, &expect)?;
        if known.is_none_or(|seconds| seconds > self.outcome.allowed_seconds) {
            self.watch.fail(format!("not known after {:.1} s", self.outcome.allowed_seconds));
        }
        self.outcome.detection_seconds = known;
        Ok(())
    }

    /// The state is known: its cause has to be proven too, in the time that is stated for it, and to stay so.
    /// `complete`: when the fault was, for the agent that saw it come.
    fn explain(&mut self, complete: Option<Instant>) {
        let expect = self.cell.expect.clone();
        let limit = self.seconds(self.cell.cause_within);
        if expect.iter().all(|one| one.cause.is_some()) {
            let not_yet = self.not_yet_explained();
            self.watch.phase("until its cause is known", &[&expect, &not_yet], false);
            let known = self.watch.until(&expect, Causes::Known, limit);
            match (&known, complete) {
                (Some(mount), Some(complete)) => {
                    (self.outcome.seen_state, self.outcome.seen_cause) = (Some(mount.state), mount.cause);
                    self.outcome.cause_seconds = Some(complete.elapsed().as_secs_f64());
                }
                (Some(_), None) => {}
                (None, _) => {
                    let wanted: Vec<String> = expect.iter().map(|one| words(one.state, one.cause)).collect();
                    let wanted = wanted.join(" or ");
                    self.watch.fail(format!("not explained as {wanted} within {:.1} s", limit.as_secs_f64()));
                }
            }
        }
        self.watch.phase_with_causes("while it lasts", &[&expect]);
        // Short where calls hang: TCP tries again ever less often, and the new agent looks at the same anyway.
        let more = if self.cell.hangs { self.cell.deadline } else { self.cell.interval + self.cell.deadline };
        self.watch.hold(self.seconds(more));
    }

    /// Of what may be said meanwhile the verdicts of the right state: a cause that is true, and not yet the whole truth.
    fn not_yet_explained(&self) -> Vec<Expected> {
        let state = |one: &Expected| self.cell.expect.iter().any(|wanted| wanted.state == one.state);
        self.cell.transient.iter().filter(|one| one.cause.is_some() && state(one)).cloned().collect()
    }

    /// Seconds from the complete fault to the right verdict. A client whose connection broke while the server was away
    /// may have to wait before it reconnects; nobody can know more meanwhile, and the time allowed counts from then.
    fn wait_for_verdict(&mut self, complete: Instant, expect: &[Expected]) -> Result<Option<f64>> {
        let plain = self.cell.within + self.cell.slack;
        let told = [expect, &self.not_yet_explained()].concat();
        self.outcome.allowed_seconds = plain;
        loop {
            let seen = self.watch.look();
            let now = complete.elapsed().as_secs_f64();
            if let Some(mount) = &seen {
                (self.outcome.seen_state, self.outcome.seen_cause) = (Some(mount.state), mount.cause);
                let waits = !self.cell.hangs && mount.state == State::Hung && !kernel::connected();
                if waits && now < RECOVERY_LIMIT.as_secs_f64() {
                    self.outcome.allowed_seconds = now + plain;
                }
            }
            if seen.is_some_and(|mount| matches_any(&told, &mount, Causes::MayBeUnknown)) {
                return Ok(Some(now));
            }
            if now > self.outcome.allowed_seconds {
                return Ok(None);
            }
        }
    }

    /// What has to work although the mount is dead.
    fn while_dead(&mut self) -> Result<()> {
        for _ in 0..5 {
            let took = surface::scrape()?.as_secs_f64();
            self.outcome.slowest_scrape_seconds = self.outcome.slowest_scrape_seconds.max(took);
        }
        if self.outcome.slowest_scrape_seconds > SCRAPE_LIMIT {
            self.watch.fail(format!("/metrics took {:.2} s", self.outcome.slowest_scrape_seconds));
        }
        let (mount, code) = surface::status_command(MOUNTPOINT)?;
        let said = mount.map(|mount| words(mount.state, mount.cause)).unwrap_or_default();
        if !said.starts_with("hung") || code != Some(2) {
            self.watch.fail(format!("`mountwarden status` says `{said}` and exits with {code:?}, not 2"));
        }
        Ok(())
    }

    /// Ends the agent and starts a new one, which meets a mount that is dead from the beginning.
    fn restart_agent(&mut self, agent: Agent) -> Result<Agent> {
        self.end_agent(agent)?;
        let agent = self.meet_fault()?;
        self.explain(None);
        Ok(agent)
    }

    /// Starts an agent that never saw the mount without its fault: it has to know as soon as one that did.
    fn meet_fault(&mut self) -> Result<Agent> {
        let expect = self.cell.expect.clone();
        let not_yet = self.not_yet_explained();
        let at_first = [expect.as_slice(), &not_yet, &[any_cause(State::Unknown)]].concat();
        let agent = self.start_agent(&at_first, "the new agent does not list the mount")?;
        self.watch.phase("new agent", &[&at_first], false);
        let limit = self.cell.interval + self.cell.deadline + self.cell.slack;
        let told = [expect.as_slice(), &not_yet].concat();
        if self.watch.until(&told, Causes::MayBeUnknown, self.seconds(limit)).is_none() {
            self.watch.fail(format!("does not say what is expected of it within {limit:.1} s"));
        }
        Ok(agent)
    }

    fn heal(&mut self, healthy: &[Expected]) -> Result<()> {
        let (expect, transient) = (self.cell.expect.clone(), self.cell.transient.clone());
        let remount = self.cell.heals == Heals::Remount;
        let unknown = if remount { vec![any_cause(State::Unknown)] } else { Vec::new() };
        self.watch.phase("repair", &[healthy, &expect, &transient, &unknown], remount);
        let mut script = shell(&format!("heal {}", self.cell.fault))?;
        let repaired = self.finish(&mut script, "the repair")?;
        self.watch.phase("after the repair", &[healthy, &expect, &transient, &unknown], remount);
        let recovered = self.wait_for_kernel(repaired)?;
        self.outcome.kernel_recovery_seconds = Some(recovered.duration_since(repaired).as_secs_f64());
        let limit = self.seconds(2.0 * self.cell.interval + self.cell.slack);
        match self.watch.until(healthy, Causes::MayBeUnknown, limit.saturating_sub(recovered.elapsed())) {
            Some(_) => self.outcome.healthy_again_seconds = Some(recovered.elapsed().as_secs_f64()),
            None => self.watch.fail(format!("not healthy {:.1} s after the kernel recovered", limit.as_secs_f64())),
        }
        self.watch.phase("healthy again", &[healthy], false);
        self.watch.hold(self.seconds(self.cell.interval));
        Ok(())
    }

    /// When the kernel first answered well again. On soft mounts only a prompt `ok` counts: softerr also says it when it
    /// has given up.
    fn wait_for_kernel(&mut self, repaired: Instant) -> Result<Instant> {
        while repaired.elapsed() < RECOVERY_LIMIT {
            let mut asked = Asked::start(MOUNTPOINT)?;
            let answer = loop {
                if let Some(answer) = asked.poll()? {
                    break answer;
                }
                self.watch.look();
                ensure!(repaired.elapsed() < RECOVERY_LIMIT, "the kernel does not recover");
            };
            if answer.result == "ok" && (self.cell.mode == "hard" || answer.took < PROMPT) {
                return Ok(Instant::now());
            }
            self.watch.look();
        }
        bail!("the kernel does not recover")
    }

    fn end_agent(&mut self, mut agent: Agent) -> Result<()> {
        if let Some(status) = agent.ended() {
            self.watch.fail(format!("the agent ended by itself: {status}"));
        }
        let ending = agent.terminate()?;
        self.outcome.term_seconds.push(ending.seconds);
        match ending.status {
            Some(status) if status == "exit status: 0" => {}
            Some(status) => self.watch.fail(format!("SIGTERM: {status}")),
            None => self.watch.fail("SIGTERM did not end the agent"),
        }
        if ending.seconds > TERM_LIMIT {
            self.watch.fail(format!("SIGTERM took {:.2} s", ending.seconds));
        }
        if !ending.left.is_empty() {
            self.watch.fail(format!("processes left behind: {}", ending.left.join(", ")));
        }
        Ok(())
    }
}

/// Background users; killed when dropped. One that hangs is left to the end of the guest.
struct Load(Vec<Child>);

impl Drop for Load {
    fn drop(&mut self) {
        for user in &mut self.0 {
            let _ = user.kill();
        }
    }
}

/// Users of this mount, and users of the same export elsewhere, whose changes this client learns only by asking.
fn start_load() -> Result<Load> {
    let users = [MOUNTPOINT, EXPORTED].map(|directory| {
        let mut command = Command::new("/bin/bash");
        command.args(["/run/lab/guest/load.sh", directory]).current_dir("/").stdin(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("start the load")
    });
    Ok(Load(users.into_iter().collect::<Result<_>>()?))
}

/// Runs a command of the guest's shell library.
pub(crate) fn shell(command: &str) -> Result<Child> {
    let text = format!(". /run/out/cell.env; . /run/lab/guest/lib.sh; . /run/lab/guest/faults.sh; {command}");
    let mut command = Command::new("/bin/bash");
    command.args(["-c", &text]).current_dir("/").stdin(Stdio::null());
    command.spawn().context("start bash")
}

fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0)
}
