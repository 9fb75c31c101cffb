//! `run`: the loop until SIGTERM.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::core::{Core, Event, limits};
use super::kernel_log::KernelLog;
use super::listen;
use crate::cluster::Cluster;
use crate::config::{Config, OnOff};
use crate::http::HttpState;
use crate::logging::Logs;
use crate::mounts::filter::Filter;
use crate::mounts::table::Table;
use crate::mounts::watch::Watch;
use crate::pods::names::PodNames;
use crate::probe::image::Image;
use crate::probe::pool::Pool;
use crate::verdict::judge::DETECTORS;

/// The table is read in full so often even when the kernel reports no change.
const FULL_READ: Duration = Duration::from_secs(60);

/// Two readings of the table are at least so far apart: a node that mounts without pause must not keep us reading.
const READ_GAP: Duration = Duration::from_millis(100);

/// A reading may use so much of the time: the next one waits so many times as long as the last one took.
const READ_COST: u32 = 10;

/// A snapshot costs time and memory by the number of targets. News (a state that changed) is published this much later
/// than the last snapshot at least, per target and within the bounds; mere numbers by the second line, and once in an
/// interval at least: from 100 targets on at the default one.
const NEWS_GAP: (Duration, Duration, Duration) =
    (Duration::from_millis(3), Duration::from_millis(200), Duration::from_secs(1));
const NUMBERS_GAP: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(1));

/// `/healthz` hears so often that the loop is alive.
const BEAT: Duration = Duration::from_secs(1);

/// So long is waited for workers to die, and for the log to write out its last lines.
const LAST_WORDS: Duration = Duration::from_millis(150);

/// So long is waited for the API server to take that the agent ends: it must not delay a shutdown that nobody hears of.
const LAST_WORDS_TO_CLUSTER: Duration = Duration::from_millis(700);

// SIGTERM ends the agent within a second: the last words to all sides at once, then the log's.
const _: () = assert!(LAST_WORDS_TO_CLUSTER.as_millis() + LAST_WORDS.as_millis() < 1000);

/// Reading the configuration again may take so long.
const RELOAD_LIMIT: Duration = Duration::from_secs(5);

/// Reads the configuration anew.
pub type Reload = Arc<dyn Fn() -> anyhow::Result<Config> + Send + Sync>;

/// Runs the agent until SIGTERM or SIGINT. SIGHUP re-reads the configuration and keeps the old one if the new is bad.
///
/// # Errors
/// What keeps the agent from running at all: no memory file for the workers, no signals, no thread.
pub async fn run(config: Config, reload: Reload, logs: Logs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    let http = HttpState::with_proc_root(config.proc_root.clone()).context("cannot start the HTTP renderer")?;
    let (stop, stopped) = watch::channel(false);
    listen::start(&config, &http, &stopped);
    let cluster =
        Cluster::start(&config, &node_name(&config)).context("cannot start the thread of the cluster's side")?;
    let mut agent = Agent::new(config, Arc::clone(&http), cluster, logs)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = agent.core.node, "mountwarden starts");
    // A target is compared with what was known of it from its first look on. The file may lie on a dead mount: no end waits
    // for that.
    let ended = tokio::select! {
        biased;
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
        () = agent.core.recall() => false,
    };
    if ended {
        agent.end(&stop).await;
        return Ok(());
    }
    // Before the first reading: a change in between would be lost.
    let mut watch = agent.watch();
    let mut kernel_log = agent.listen();
    let mut names = agent.cluster.as_ref().map(Cluster::watch_names);
    agent.core.unsticks.asker = agent.cluster.as_ref().map(Cluster::asker);
    // One timer for the whole run: a new one would make the runtime write to its eventfd, and poll it, at every event.
    let mut timer = pin!(sleep_until(agent.wake()));
    // Also a timer of its own: the runtime writes to its eventfd for each timer that is nearer than all others, and while
    // `timer` waits to be set anew that would be the deadline of every probe that starts.
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let wake = agent.wake();
        if timer.deadline() != wake {
            timer.as_mut().reset(wake);
        }
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => agent.reload(&reload),
            // Before what may always have something ready: with thousands of probes under way it would never have its turn.
            _ = beat.tick() => agent.http.beat(),
            () = table_change(&mut watch) => agent.core.reread = true,
            Some(event) = agent.core.running.join_next() => match event {
                Ok(event) => agent.core.take(event),
                // A part that fails is a bug, and what it held is lost: a fresh start is better than a half-blind agent.
                Err(error) => return Err(error).context("a part of the agent failed"),
            },
            news = kernel_log.news() => agent.core.take_kernel_news(news),
            known = new_names(&mut names) => agent.core.take_names(known),
            () = timer.as_mut() => agent.note_delay(wake),
        }
        agent.step();
    }
    agent.end(&stop).await;
    Ok(())
}

async fn table_change(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

async fn new_names(names: &mut Option<watch::Receiver<Arc<PodNames>>>) -> Arc<PodNames> {
    if let Some(names) = names
        && names.changed().await.is_ok()
    {
        return Arc::clone(&names.borrow_and_update());
    }
    // There is no cluster, or its side ended.
    std::future::pending().await
}

struct Agent {
    core: Core,
    http: Arc<HttpState>,
    /// Where there is one.
    cluster: Option<Cluster>,
    logs: Logs,
    next_read: Instant,
    next_full_read: Instant,
    last_publish: Instant,
    host_error_said: bool,
    bad_lines_said: bool,
    longest_delay: Duration,
    /// When the longest delay is counted anew.
    next_delay: Instant,
}

impl Agent {
    fn new(config: Config, http: Arc<HttpState>, cluster: Option<Cluster>, logs: Logs) -> anyhow::Result<Agent> {
        let core = build(config, false)?;
        let now = Instant::now();
        Ok(Agent {
            core,
            http,
            cluster,
            logs,
            next_read: now,
            next_full_read: now,
            last_publish: now,
            host_error_said: false,
            bad_lines_said: false,
            longest_delay: Duration::ZERO,
            next_delay: now,
        })
    }

    fn watch(&self) -> Option<Watch> {
        match Watch::new(&self.core.config.proc_root) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, "cannot watch the mount table; it is read every {FULL_READ:?} instead");
                None
            }
        }
    }

    fn listen(&mut self) -> KernelLog {
        let opened = KernelLog::open();
        self.core.evidence_from("kernel_log", opened.as_ref().err().cloned());
        opened.unwrap_or_else(|_| KernelLog::absent())
    }

    /// Stops all parts.
    async fn end(self, stop: &watch::Sender<bool>) {
        tracing::info!("mountwarden stops");
        // Nobody has to hear it: then there is nothing to stop.
        let _ = stop.send(true);
        let Agent { core, cluster, logs, .. } = self;
        let last_words = async {
            if let Some(cluster) = cluster {
                cluster.stop(LAST_WORDS_TO_CLUSTER).await;
            }
        };
        // Side by side: one after the other all of them together could take longer than the second that is promised.
        tokio::join!(core.pool.end(LAST_WORDS), core.canaries.pool.end(LAST_WORDS), last_words);
        logs.close(LAST_WORDS);
    }

    /// When the loop has something to do next.
    fn wake(&self) -> Instant {
        let due = self.core.next_wake().map(|at| self.core.start + at);
        let read = if self.core.reread { self.next_read } else { self.next_full_read };
        let own = read.min(self.next_publish());
        due.map_or(own, |due| due.min(own))
    }

    fn note_delay(&mut self, planned: Instant) {
        self.longest_delay = self.longest_delay.max(planned.elapsed());
    }

    /// Everything that is due now, after any event.
    fn step(&mut self) {
        let now = Instant::now();
        if now >= self.next_full_read || (self.core.reread && now >= self.next_read) {
            self.read_table(now);
        }
        if let Some(result) = self.core.reloaded.take() {
            self.reloaded(result);
        }
        self.core.tick();
        if now >= self.next_publish() {
            self.publish(now);
        }
    }

    fn read_table(&mut self, now: Instant) {
        self.core.reread = false;
        match Table::read(&self.core.config.proc_root) {
            Ok(table) => {
                self.say_once(&table);
                self.core.take_table(table);
            }
            Err(error) => {
                self.core.stats.mountinfo_read_errors_total += 1;
                tracing::error!(%error, "cannot read the mount table; the last one stays in force");
            }
        }
        let gap = (now.elapsed() * READ_COST).max(READ_GAP);
        self.next_read = Instant::now() + gap;
        self.next_full_read = Instant::now() + FULL_READ.max(gap);
    }

    fn say_once(&mut self, table: &Table) {
        let host_error = table.host_error.as_ref().map(ToString::to_string);
        if let Some(error) = host_error.as_ref().filter(|_| !self.host_error_said) {
            tracing::warn!(error, "only mounts of the agent's own mount namespace are watched: {error}");
            self.host_error_said = true;
        }
        self.core.stats.host_error = host_error;
        if let Some(bad) = table.bad.first().filter(|_| !self.bad_lines_said) {
            tracing::warn!(
                lines = table.bad_count,
                "a line of the mount table cannot be read and is left out: {bad:?}"
            );
            self.bad_lines_said = true;
        }
    }

    fn publish(&mut self, now: Instant) {
        self.core.changed = false;
        self.core.news = false;
        self.core.stats.log_dropped_total = self.logs.dropped();
        self.core.stats.http_refused_total = self.http.refused_total();
        self.core.stats.loop_delay_seconds = self.longest_delay.as_secs_f64();
        if now >= self.next_delay {
            self.longest_delay = Duration::ZERO;
            self.next_delay = now + self.core.config.interval;
        }
        self.last_publish = now;
        self.core.stats.cluster = self.cluster.as_ref().map(Cluster::stats);
        let mut snapshot = self.core.snapshot();
        crate::cluster::name_volumes(&mut snapshot, &self.core.names);
        let snapshot = Arc::new(snapshot);
        if let Some(cluster) = &self.cluster {
            cluster.publish(Arc::clone(&snapshot));
        }
        self.http.publish(snapshot);
    }

    /// When the next snapshot is due. Without any change too: how long a mount has been blocked grows by itself.
    fn next_publish(&self) -> Instant {
        let interval = self.core.config.interval;
        let targets = u32::try_from(self.core.registry.targets.len()).unwrap_or(u32::MAX);
        let gap = if self.core.news {
            let (each, least, most) = NEWS_GAP;
            each.saturating_mul(targets).clamp(least, most)
        } else if self.core.changed {
            let (each, least) = NUMBERS_GAP;
            each.saturating_mul(targets).min(interval).max(least)
        } else {
            interval
        };
        self.last_publish + gap
    }

    /// Reads the configuration in a thread: the file may lie on a mount that is dead by now.
    fn reload(&mut self, reload: &Reload) {
        let reload = Arc::clone(reload);
        self.core.running.spawn(async move {
            let read = tokio::task::spawn_blocking(move || reload());
            Event::Reloaded(match timeout(RELOAD_LIMIT, read).await {
                Ok(Ok(result)) => result.map(Box::new),
                Ok(Err(error)) => Err(error).context("reading it failed"),
                Err(_) => {
                    Err(anyhow::anyhow!("reading it takes longer than {RELOAD_LIMIT:?}: is its file on a dead mount?"))
                }
            })
        });
    }

    fn reloaded(&mut self, result: anyhow::Result<Config>) {
        self.core.stats.config_reloads_total += 1;
        self.core.news = true;
        match result.and_then(|config| Ok((filter(&config)?, config))) {
            Ok((filter, config)) => self.adopt(config, filter),
            Err(error) => {
                self.core.stats.config_ok = false;
                tracing::error!("the new configuration is bad; the old one stays in force: {error:#}");
            }
        }
    }

    fn adopt(&mut self, mut config: Config, filter: Filter) {
        // As at the start, or the same numbers would look like others. It was said then.
        let _ = fit_descriptors(&mut config);
        let old = &self.core.config;
        for (name, changed) in [
            ("listen", config.listen != old.listen),
            ("listen_ui", config.listen_ui != old.listen_ui),
            ("proc_root", config.proc_root != old.proc_root),
            ("node_name", config.node_name != old.node_name),
            ("log.format", config.log_format != old.log_format),
            ("kubernetes", cluster_settings(&config) != cluster_settings(old)),
            ("workers", limits(&config) != limits(old)),
        ] {
            if changed {
                tracing::warn!(
                    "{name} changed in the configuration: that takes a restart; the old value stays in force"
                );
            }
        }
        config.listen.clone_from(&old.listen);
        config.listen_ui.clone_from(&old.listen_ui);
        config.proc_root.clone_from(&old.proc_root);
        config.node_name.clone_from(&old.node_name);
        config.log_format = old.log_format;
        (config.kubernetes, config.kubernetes_events) = (old.kubernetes, old.kubernetes_events);
        config.kubernetes_condition = old.kubernetes_condition;
        config.kubeconfig.clone_from(&old.kubeconfig);
        (config.workers_warm, config.workers_max) = (old.workers_warm, old.workers_max);
        config.workers_per_owner = old.workers_per_owner;
        if let Err(error) = self.logs.set_level(&config.log_level) {
            tracing::error!("log.level stays as it was: {error}");
        }
        self.core.stats.config_ok = true;
        self.core.reconfigure(config, filter);
        tracing::info!("the configuration was read again");
    }
}

/// The parts of a pass, for `run` and `check`.
pub(super) fn build(mut config: Config, one_pass: bool) -> anyhow::Result<Core> {
    known_detectors(&config)?;
    let wanted = config.workers_max;
    if let Some(limit) = fit_descriptors(&mut config) {
        tracing::warn!(
            limit,
            workers = config.workers_max,
            "the limit on open files is low: at most {} probe workers instead of {wanted}",
            config.workers_max
        );
    }
    let image = Image::of_this_binary().context(
        "cannot copy this binary into memory for the probe workers: is /proc mounted, are memory files allowed?",
    )?;
    let filter = filter(&config)?;
    let pool = Pool::new(image, limits(&config));
    let node = node_name(&config);
    Ok(Core::new(config, filter, pool, node, one_pass))
}

/// A name that switches nothing off would prove nothing.
fn known_detectors(config: &Config) -> anyhow::Result<()> {
    let known = |name: &str| name == "statx_root" || DETECTORS.contains(&name);
    match config.without.iter().find(|name| !known(name)) {
        Some(name) => anyhow::bail!("there is no detector {name}; there are statx_root, {}", DETECTORS.join(", ")),
        None => Ok(()),
    }
}

fn filter(config: &Config) -> anyhow::Result<Filter> {
    let filter =
        Filter::new(&config.include_fstype, &config.exclude_fstype, &config.include_mount, &config.exclude_mount)?;
    Ok(filter.with_local(&config.local_mounts)?)
}

fn cluster_settings(config: &Config) -> (OnOff, OnOff, OnOff, &str) {
    (config.kubernetes, config.kubernetes_events, config.kubernetes_condition, &config.kubeconfig)
}

fn node_name(config: &Config) -> String {
    if !config.node_name.is_empty() {
        return config.node_name.clone();
    }
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Each worker costs three descriptors (its socket, its note, its process). Where the limit is low, fewer workers are allowed rather than starts that fail;
/// then it gives the limit.
fn fit_descriptors(config: &mut Config) -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    /// Descriptors for listeners, connections, the log and the kernel files.
    const OTHERS: u64 = 32;
    const PER_WORKER: u64 = 3;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let wanted = u64::try_from(config.workers_max).unwrap_or(u64::MAX).saturating_mul(PER_WORKER).saturating_add(256);
    let limit = wanted.min(hard).max(soft);
    if limit > soft {
        // Without it the present limit holds, and the workers are fitted to that.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, limit, hard);
    }
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(soft, |(soft, _)| soft);
    let possible = usize::try_from(limit.saturating_sub(OTHERS) / PER_WORKER).unwrap_or(usize::MAX).max(2);
    if possible >= config.workers_max {
        return None;
    }
    config.workers_max = possible;
    config.workers_warm = config.workers_warm.min(possible / 2).max(1);
    config.workers_per_owner = config.workers_per_owner.min(possible);
    Some(limit)
}
