//! Snapshot in, exposition text out.
//!
//! A series of one number is written as it comes: made for an encoder first it costs ten allocations, and there are forty
//! of them for each mount. Histograms are few; their rules are the encoder's. They are built in slices: what stands in
//! memory beside the text is never more than [`SLICE`] of them.

mod cluster;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use prometheus::TextEncoder;
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use super::catalog::{self, Kind, Metric};
use super::process::ProcessStats;
use crate::passive::kernel_log;
use crate::snapshot::{
    AgentStats, DurationHistogram, FilesystemStatus, MountStatus, OperationStatus, ServerCheck, ServerStatus, Snapshot,
};
use crate::verdict::{Finding, Severity, State};

/// Histograms that are encoded at once. One costs about 2 kB until it is text, so this is 512 KiB.
const SLICE: usize = 256;

/// States that the read probes of every mount can show: their transition counters stand at 0 from the start, so that
/// `increase()` sees the first transition too. The others appear when they are first entered.
const COMMON_STATES: [State; 5] = [State::Healthy, State::Slow, State::Hung, State::Stale, State::Lost];

/// Git revision of the build; empty where the build did not say.
const REVISION: &str = match option_env!("MOUNTWARDEN_REVISION") {
    Some(revision) => revision,
    None => "",
};

/// Why no text could be made. Each is a defect of the catalog, not of the mounts.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The encoder refused a family.
    #[error("cannot encode {metric}: {source}; report this as a defect")]
    Encode {
        /// Name of the metric.
        metric: &'static str,
        /// What the encoder said.
        source: prometheus::Error,
    },
}

/// The exposition (text format 0.0.4) of a snapshot.
///
/// # Errors
/// When the encoder refuses a family, which is a defect of the catalog.
pub fn render(snapshot: &Snapshot, process: Option<&ProcessStats>) -> Result<String, RenderError> {
    let mut text = String::new();
    render_into(snapshot, process, &mut text)?;
    Ok(text)
}

/// Like [`render`], appending to a buffer, which a caller that knows the size of the last exposition makes large enough.
///
/// # Errors
/// As [`render`].
pub fn render_into(snapshot: &Snapshot, process: Option<&ProcessStats>, text: &mut String) -> Result<(), RenderError> {
    let mounts = exportable(snapshot);
    let mut page = Page { text };
    agent_head(&mut page, snapshot)?;
    mount_verdicts(&mut page, &mounts)?;
    cluster::volumes(&mut page, &mounts)?;
    mount_probes(&mut page, &mounts)?;
    filesystems(&mut page, &mounts)?;
    canaries(&mut page, &mounts)?;
    nfs_operations(&mut page, &mounts)?;
    durations(&mut page, &snapshot.agent.durations)?;
    agent_numbers(&mut page, snapshot, snapshot.mounts.len() - mounts.len())?;
    cluster::pending(&mut page, snapshot)?;
    cluster::numbers(&mut page, snapshot.agent.cluster.as_ref())?;
    process.map_or(Ok(()), |process| process_numbers(&mut page, process))
}

/// The targets with labels of their own. The agent keeps the triple unique; should it ever fail to, one duplicate would
/// make Prometheus refuse samples in silence, so the later one is left out and counted.
fn exportable(snapshot: &Snapshot) -> Vec<&MountStatus> {
    let mut seen = HashSet::with_capacity(snapshot.mounts.len());
    snapshot.mounts.iter().filter(|mount| seen.insert(triple(mount))).collect()
}

fn triple(mount: &MountStatus) -> [&str; 3] {
    [&mount.mountpoint, &mount.source, &mount.fstype]
}

fn agent_head(page: &mut Page<'_>, snapshot: &Snapshot) -> Result<(), RenderError> {
    page.family(&catalog::BUILD_INFO, |family| family.add(&[&snapshot.version, REVISION], 1.0))?;
    page.single(&catalog::READY, flag(snapshot.ready))?;
    page.single(&catalog::SNAPSHOT_TIMESTAMP, snapshot.generated)?;
    page.family(&catalog::MOUNTS, |family| {
        State::ALL.iter().try_for_each(|state| {
            let count = snapshot.summary.get(state.as_str()).copied().unwrap_or(0);
            family.add(&[state.as_str()], count_to_f64(count))
        })
    })
}

fn mount_verdicts(page: &mut Page<'_>, mounts: &[&MountStatus]) -> Result<(), RenderError> {
    page.per_mount(&catalog::MOUNT_STATE, mounts, |family, mount| {
        State::ALL.iter().try_for_each(|state| family.add_mount(mount, &[state.as_str()], flag(mount.state == *state)))
    })?;
    page.per_mount(&catalog::MOUNT_UP, mounts, |family, mount| match mount.severity() {
        Severity::Unknown => Ok(()),
        severity => family.add_mount(mount, &[], flag(severity != Severity::Dead)),
    })?;
    page.per_mount(&catalog::MOUNT_CAUSE, mounts, |family, mount| match mount.cause {
        Some(cause) if mount.state != State::Healthy => family.add_mount(mount, &[cause.as_str()], 1.0),
        _ => Ok(()),
    })?;
    page.per_mount(&catalog::MOUNT_INFO, mounts, |family, mount| {
        let origin = &mount.origin;
        let address = origin.address.map(|address| address.to_string()).unwrap_or_default();
        let port = origin.port.map(|port| port.to_string()).unwrap_or_default();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let mode = origin.mode.map_or("", mode_word);
        let (server, export) = (text(&origin.server), text(&origin.export));
        let (version, security) = (text(&origin.version), text(&origin.security));
        family.add_mount(mount, &[&server, &address, &port, &export, &version, mode, &security], 1.0)
    })?;
    page.per_mount(&catalog::MOUNT_STATE_CHANGED, mounts, |family, mount| family.add_mount(mount, &[], mount.since))?;
    page.per_mount(&catalog::MOUNT_STATE_TRANSITIONS, mounts, |family, mount| {
        State::ALL.iter().try_for_each(|state| match mount.transitions.get(state.as_str()) {
            Some(count) => family.add_mount(mount, &[state.as_str()], number(*count)),
            None if COMMON_STATES.contains(state) => family.add_mount(mount, &[state.as_str()], 0.0),
            None => Ok(()),
        })
    })?;
    page.per_mount(&catalog::MOUNT_FINDING, mounts, |family, mount| {
        let mut present = Finding::ALL.iter().filter(|finding| mount.findings.contains(finding));
        present.try_for_each(|finding| family.add_mount(mount, &[finding.as_str()], 1.0))
    })
}

fn mode_word(mode: crate::mounts::source::Mode) -> &'static str {
    use crate::mounts::source::Mode;
    match mode {
        Mode::Hard => "hard",
        Mode::Soft => "soft",
        Mode::Softerr => "softerr",
    }
}

fn mount_probes(page: &mut Page<'_>, mounts: &[&MountStatus]) -> Result<(), RenderError> {
    page.per_mount(&catalog::PROBES, mounts, |family, mount| {
        mount.probes.iter().try_for_each(|(result, count)| family.add_mount(mount, &[result], number(*count)))
    })?;
    page.per_mount(&catalog::PROBE_LAST_DURATION, mounts, |family, mount| {
        let mut steps = BTreeMap::new();
        for step in &mount.steps {
            *steps.entry(step.step.as_str()).or_insert(0.0) += step.seconds;
        }
        steps.iter().try_for_each(|(step, seconds)| family.add_mount(mount, &[step], *seconds))
    })?;
    page.per_mount(&catalog::PROBE_LAST_TIMESTAMP, mounts, |family, mount| {
        mount.last_probe.map_or(Ok(()), |time| family.add_mount(mount, &[], time))
    })?;
    page.per_mount(&catalog::PROBE_LAST_SUCCESS, mounts, |family, mount| {
        mount.last_success.map_or(Ok(()), |time| family.add_mount(mount, &[], time))
    })?;
    page.per_mount(&catalog::PROBE_BLOCKED, mounts, |family, mount| {
        family.add_mount(mount, &[], mount.blocked_seconds)
    })?;
    page.per_mount(&catalog::PROBE_BLOCKED_TOTAL, mounts, |family, mount| {
        family.add_mount(mount, &[], mount.blocked_seconds_total)
    })
}

/// Metrics that are filled alike, each with its number.
type Numbers<T> = [(&'static Metric, fn(&T) -> Option<f64>); 6];

fn filesystems(page: &mut Page<'_>, mounts: &[&MountStatus]) -> Result<(), RenderError> {
    let numbers: Numbers<FilesystemStatus> = [
        (&catalog::FILESYSTEM_SIZE, |of| Some(number(of.size_bytes))),
        (&catalog::FILESYSTEM_FREE, |of| Some(number(of.free_bytes))),
        (&catalog::FILESYSTEM_AVAIL, |of| Some(number(of.avail_bytes))),
        (&catalog::FILESYSTEM_FILES, |of| (of.files > 0).then(|| number(of.files))),
        (&catalog::FILESYSTEM_FILES_FREE, |of| (of.files > 0).then(|| number(of.files_free))),
        (&catalog::FILESYSTEM_READ, |of| Some(of.read)),
    ];
    numbers.iter().try_for_each(|(metric, value)| {
        page.per_mount(metric, mounts, |family, mount| {
            mount.filesystem.as_ref().and_then(value).map_or(Ok(()), |value| family.add_mount(mount, &[], value))
        })
    })
}

fn canaries(page: &mut Page<'_>, mounts: &[&MountStatus]) -> Result<(), RenderError> {
    let mounts: Vec<&MountStatus> = mounts.iter().copied().filter(|mount| mount.canary.is_some()).collect();
    let of = |mount: &MountStatus| mount.canary.clone().unwrap_or_default();
    page.per_mount(&catalog::CANARY_RESULTS, &mounts, |family, mount| {
        of(mount).results.iter().try_for_each(|(result, count)| family.add_mount(mount, &[result], number(*count)))
    })?;
    page.per_mount(&catalog::CANARY_DURATION, &mounts, |family, mount| {
        let mut steps = BTreeMap::new();
        for step in of(mount).steps {
            *steps.entry(step.step).or_insert(0.0) += step.seconds;
        }
        steps.iter().try_for_each(|(step, seconds)| family.add_mount(mount, &[step], *seconds))
    })?;
    page.per_mount(&catalog::CANARY_LAST, &mounts, |family, mount| {
        of(mount).last.map_or(Ok(()), |time| family.add_mount(mount, &[], time))
    })?;
    page.per_mount(&catalog::CANARY_LAST_SUCCESS, &mounts, |family, mount| {
        of(mount).last_success.map_or(Ok(()), |time| family.add_mount(mount, &[], time))
    })?;
    page.per_mount(&catalog::CANARY_PEERS, &mounts, |family, mount| {
        let states = of(mount).peer_states;
        states.iter().try_for_each(|(state, count)| family.add_mount(mount, &[state], count_to_f64(*count)))
    })?;
    page.per_mount(&catalog::CANARY_PEER_LAG, &mounts, |family, mount| {
        of(mount).peers.iter().try_for_each(|peer| family.add_mount(mount, &[&peer.node], peer.lag_seconds))
    })
}

fn nfs_operations(page: &mut Page<'_>, mounts: &[&MountStatus]) -> Result<(), RenderError> {
    let numbers: Numbers<OperationStatus> = [
        (&catalog::NFS_OPERATIONS, |of| Some(number(of.operations))),
        (&catalog::NFS_RETRANSMISSIONS, |of| Some(number(of.retransmissions))),
        (&catalog::NFS_TIMEOUTS, |of| Some(number(of.timeouts))),
        (&catalog::NFS_ERRORS, |of| of.errors.map(number)),
        (&catalog::NFS_RTT, |of| Some(of.rtt_seconds)),
        (&catalog::NFS_EXECUTE, |of| Some(of.execute_seconds)),
    ];
    numbers.iter().try_for_each(|(metric, value)| {
        page.per_mount(metric, mounts, |family, mount| {
            let mut values = mount.nfs.iter().filter_map(|of| Some((of.operation.as_str(), value(of)?)));
            values.try_for_each(|(operation, value)| family.add_mount(mount, &[operation], value))
        })
    })
}

fn durations(page: &mut Page<'_>, histograms: &[DurationHistogram]) -> Result<(), RenderError> {
    page.family(&catalog::PROBE_DURATION, |family| {
        histograms.iter().try_for_each(|histogram| family.add_histogram(histogram))
    })
}

fn servers(page: &mut Page<'_>, servers: &[ServerStatus]) -> Result<(), RenderError> {
    let mut each = |metric: &'static Metric, value: fn(&ServerCheck) -> Option<f64>| {
        page.family(metric, |family| {
            for server in servers {
                let port = server.port.to_string();
                for check in &server.checks {
                    if let Some(value) = value(check) {
                        family.add(&[&server.server, &port, &check.check], value)?;
                    }
                }
            }
            Ok(())
        })
    };
    each(&catalog::SERVER_UP, |check| Some(flag(check.up)))?;
    each(&catalog::SERVER_RTT, |check| check.up.then_some(check.seconds))?;
    page.family(&catalog::SERVER_CHECKED, |family| {
        servers.iter().try_for_each(|server| family.add(&[&server.server, &server.port.to_string()], server.checked))
    })
}

fn agent_numbers(page: &mut Page<'_>, snapshot: &Snapshot, left_out: usize) -> Result<(), RenderError> {
    let agent = &snapshot.agent;
    servers(page, &snapshot.servers)?;
    page.single(&catalog::PROBE_TIMEOUT, snapshot.timeout_seconds)?;
    page.single(&catalog::PROBE_INTERVAL, snapshot.interval_seconds)?;
    page.family(&catalog::WORKERS, |family| {
        family.add(&["idle"], number(agent.workers_idle))?;
        family.add(&["busy"], number(agent.workers_busy))?;
        family.add(&["stuck"], number(agent.workers_stuck))
    })?;
    page.family(&catalog::CONTAINERS_LEFT_OUT, |family| {
        family.add(&["namespaces"], number(agent.container_namespaces_left_out))?;
        family.add(&["mounts"], number(agent.container_mounts_left_out))?;
        family.add(&["counters"], number(agent.container_counters_left_out))
    })?;
    passive_evidence(page, agent)?;
    remedies(page, agent)?;
    page.single(&catalog::CANARY_INTERVAL, snapshot.canary_interval_seconds)?;
    if let Some(isolated) = agent.canary_isolated {
        page.single(&catalog::CANARY_ISOLATED, flag(isolated))?;
    }
    let numbers: [(&'static Metric, f64); 22] = [
        (&catalog::WORKERS_KILLED, number(agent.workers_killed_total)),
        (&catalog::WORKERS_STARTED, number(agent.workers_started_total)),
        (&catalog::WORKERS_LOST, number(agent.workers_lost_total)),
        (&catalog::WORKER_PROTOCOL_ERRORS, number(agent.worker_protocol_errors_total)),
        (&catalog::WORKER_SPAWN_ERRORS, number(agent.worker_spawn_errors_total)),
        (&catalog::WORKER_CAP_HITS, number(agent.worker_cap_hits_total)),
        (&catalog::OVERLOADS, number(agent.overloads_total)),
        (&catalog::LOOP_DELAY, agent.loop_delay_seconds),
        (&catalog::MOUNTINFO_MOUNTS, number(agent.mountinfo_mounts)),
        (&catalog::MOUNTINFO_READS, number(agent.mountinfo_reads_total)),
        (&catalog::MOUNTINFO_READ_ERRORS, number(agent.mountinfo_read_errors_total)),
        (&catalog::MOUNTINFO_ERRORS, number(agent.mountinfo_errors_total)),
        (&catalog::AUTOFS_TRIGGERS, count_to_f64(snapshot.autofs.len())),
        (&catalog::MOUNTS_LEFT_OUT, count_to_f64(left_out)),
        (&catalog::CANARY_STRAYS, number(agent.canary_strays)),
        (&catalog::CANARY_RECORDS_REFUSED, number(agent.canary_records_refused_total)),
        (&catalog::CANARY_RECORDS_COLLECTED, number(agent.canary_records_collected_total)),
        (&catalog::STATE_ERRORS, number(agent.state_errors_total)),
        (&catalog::LOG_DROPPED, number(agent.log_dropped_total)),
        (&catalog::HTTP_REFUSED, number(agent.http_refused_total)),
        (&catalog::CONFIG_OK, flag(agent.config_ok)),
        (&catalog::CONFIG_RELOADS, number(agent.config_reloads_total)),
    ];
    numbers.iter().try_for_each(|(metric, value)| page.single(metric, *value))
}

fn remedies(page: &mut Page<'_>, agent: &AgentStats) -> Result<(), RenderError> {
    page.family(&catalog::AGENT_REMEDY_ENABLED, |family| {
        agent.remedies_enabled.iter().try_for_each(|(action, on)| family.add(&[action], flag(*on)))
    })?;
    page.family(&catalog::AGENT_REMEDIES, |family| {
        let add = |family: &mut Family<'_>, one: &crate::snapshot::RemedyCount| {
            family.add(&[&one.action, &one.result], number(one.count))
        };
        agent.remedies.iter().try_for_each(|one| add(family, one))
    })
}

fn passive_evidence(page: &mut Page<'_>, agent: &AgentStats) -> Result<(), RenderError> {
    page.family(&catalog::EVIDENCE_AVAILABLE, |family| {
        agent.evidence.iter().try_for_each(|source| family.add(&[&source.source], flag(source.error.is_none())))
    })?;
    page.family(&catalog::KERNEL_LOG_LINES, |family| {
        kernel_log::Kind::ALL.iter().try_for_each(|kind| {
            let lines = agent.kernel_log_lines.get(kind.as_str()).copied().unwrap_or(0);
            family.add(&[kind.as_str()], number(lines))
        })
    })?;
    page.single(&catalog::KERNEL_LOG_LOST, number(agent.kernel_log_lost_total))
}

fn process_numbers(page: &mut Page<'_>, process: &ProcessStats) -> Result<(), RenderError> {
    page.single(&catalog::PROCESS_CPU, process.cpu_seconds)?;
    page.single(&catalog::PROCESS_RESIDENT, process.resident_bytes)?;
    page.single(&catalog::PROCESS_VIRTUAL, process.virtual_bytes)?;
    page.single(&catalog::PROCESS_OPEN_FDS, process.open_fds)?;
    if let Some(max) = process.max_fds {
        page.single(&catalog::PROCESS_MAX_FDS, max)?;
    }
    page.single(&catalog::PROCESS_START, process.start_seconds)
}

fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

/// Counters as Prometheus stores them: beyond 2^53 the last digits go, which no rate notices.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other type than f64")]
fn number(value: u64) -> f64 {
    value as f64
}

fn count_to_f64(value: usize) -> f64 {
    u64::try_from(value).map_or(f64::INFINITY, number)
}

/// The text so far.
struct Page<'a> {
    text: &'a mut String,
}

impl Page<'_> {
    fn family(
        &mut self,
        metric: &'static Metric,
        fill: impl FnOnce(&mut Family<'_>) -> Result<(), RenderError>,
    ) -> Result<(), RenderError> {
        let mut family = Family { text: self.text, metric, series: Vec::new(), headed: false };
        fill(&mut family)?;
        family.flush()
    }

    fn single(&mut self, metric: &'static Metric, value: f64) -> Result<(), RenderError> {
        self.family(metric, |family| family.add(&[], value))
    }

    fn per_mount(
        &mut self,
        metric: &'static Metric,
        mounts: &[&MountStatus],
        mut fill: impl FnMut(&mut Family<'_>, &MountStatus) -> Result<(), RenderError>,
    ) -> Result<(), RenderError> {
        self.family(metric, |family| mounts.iter().try_for_each(|mount| fill(family, mount)))
    }
}

/// One metric on its way to text.
struct Family<'a> {
    text: &'a mut String,
    metric: &'static Metric,
    /// Histograms that are not text yet.
    series: Vec<proto::Metric>,
    /// The `# HELP` and `# TYPE` lines are written.
    headed: bool,
}

impl Family<'_> {
    /// Adds a series; `values` in the order of the catalog's labels.
    fn add(&mut self, values: &[&str], value: f64) -> Result<(), RenderError> {
        self.write(values.iter().copied(), value);
        Ok(())
    }

    /// Adds a series of a mount; `values` are those of the labels after the triple.
    fn add_mount(&mut self, mount: &MountStatus, values: &[&str], value: f64) -> Result<(), RenderError> {
        self.write(triple(mount).into_iter().chain(values.iter().copied()), value);
        Ok(())
    }

    /// Writes a series of one number.
    fn write<'v>(&mut self, values: impl Iterator<Item = &'v str>, value: f64) {
        self.head();
        let text = &mut *self.text;
        text.push_str(self.metric.name);
        let mut separator = '{';
        for (name, value) in self.metric.labels.iter().zip(values) {
            text.push(separator);
            text.push_str(name);
            text.push_str("=\"");
            escape_into(text, value);
            text.push('"');
            separator = ',';
        }
        if separator == ',' {
            text.push('}');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, " {value}");
    }

    /// Writes the header before the first series. The catalog holds neither backslashes nor newlines in help texts (a
    /// test says so), hence nothing is escaped here.
    fn head(&mut self) {
        if !std::mem::replace(&mut self.headed, true) {
            self.text.push_str(&header(self.metric));
        }
    }

    fn add_histogram(&mut self, histogram: &DurationHistogram) -> Result<(), RenderError> {
        let mut out = proto::Histogram::default();
        out.set_sample_count(histogram.count);
        out.set_sample_sum(histogram.sum);
        let buckets = DurationHistogram::BOUNDS.iter().zip(&histogram.buckets).map(|(bound, count)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        });
        out.set_bucket(buckets.collect());
        let mut series = proto::Metric::from_label(labels(self.metric.labels, &[&histogram.server, &histogram.step]));
        series.set_histogram(out);
        self.push_series(series)
    }

    fn push_series(&mut self, series: proto::Metric) -> Result<(), RenderError> {
        self.series.push(series);
        if self.series.len() >= SLICE { self.flush() } else { Ok(()) }
    }

    /// Encodes the histograms that are pending. The encoder writes the two header lines each time; all but the first are
    /// taken out again.
    fn flush(&mut self) -> Result<(), RenderError> {
        if self.series.is_empty() {
            return Ok(());
        }
        let start = self.text.len();
        let mut family = MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(match self.metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(std::mem::take(&mut self.series));
        TextEncoder::new()
            .encode_utf8(&[family], self.text)
            .map_err(|source| RenderError::Encode { metric: self.metric.name, source })?;
        if std::mem::replace(&mut self.headed, true) {
            self.text.replace_range(start..start + header(self.metric).len(), "");
        }
        Ok(())
    }
}

/// The two lines before the series of a metric, as the encoder writes them.
fn header(metric: &Metric) -> String {
    format!("# HELP {0} {1}\n# TYPE {0} {2}\n", metric.name, metric.help, metric.kind.as_str())
}

/// A label's value as the text format wants it.
fn escape_into(text: &mut String, value: &str) {
    if !value.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        text.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

fn labels(names: &[&'static str], values: &[&str]) -> Vec<LabelPair> {
    names.iter().zip(values).map(|(name, value)| pair(name, value)).collect()
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

#[cfg(test)]
mod tests;
