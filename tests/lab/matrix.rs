//! `matrix.yaml`: rows of expected verdicts, and the cells (row x version x mode) that they stand for.

use std::path::Path;

use anyhow::{Context, Result, bail};
use mountwarden::verdict::judge::DETECTORS;
use mountwarden::verdict::{Cause, Finding, State};
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matrix {
    /// `--interval` of the agent under test.
    interval: f64,
    /// `--timeout` of the agent under test.
    deadline: f64,
    /// `--backoff-max` of the agent under test.
    backoff_max: f64,
    /// Mount options of rows that name none.
    options: String,
    /// What detection may take beyond the formula.
    slack: f64,
    /// What the cause may take, counted from the state.
    cause_within: f64,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    what: String,
    fault: Option<String>,
    #[serde(default)]
    after_probe: bool,
    interval: Option<f64>,
    deadline: Option<f64>,
    #[serde(default)]
    agent: AgentStarts,
    #[serde(default = "all_versions")]
    versions: Vec<String>,
    #[serde(default = "all_modes")]
    modes: Vec<String>,
    options: Option<String>,
    expect: Vec<Expected>,
    within: Option<Within>,
    watch: Option<f64>,
    cause_within: Option<f64>,
    #[serde(default)]
    transient: Vec<Expected>,
    heals: Heals,
    #[serde(default)]
    hangs: bool,
    canary: Option<String>,
    #[serde(default)]
    load: bool,
    #[serde(default)]
    backing: Backing,
    #[serde(default)]
    layout: Layout,
    #[serde(default)]
    client: Client,
    #[serde(default)]
    server: Server,
    #[serde(default = "root")]
    subpath: String,
    lease: Option<u32>,
    #[serde(default)]
    detectors: Vec<String>,
    /// In which versions it depends on each of them; in the others any will do.
    #[serde(default = "all_versions")]
    detectors_in: Vec<String>,
    #[serde(default)]
    quick: Vec<String>,
}

fn all_versions() -> Vec<String> {
    ["3", "4.0", "4.1", "4.2"].map(str::to_owned).to_vec()
}

fn all_modes() -> Vec<String> {
    ["hard", "soft", "softerr"].map(str::to_owned).to_vec()
}

fn root() -> String {
    "/".to_owned()
}

/// A verdict that is right.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    pub(crate) state: State,
    /// Has to be proven in the end (`cause_within`), and is never another one; without one any cause will do.
    pub(crate) cause: Option<Cause>,
    /// Has to stand among the findings.
    pub(crate) finding: Option<Finding>,
    /// Has to stand in the sentence of evidence.
    pub(crate) says: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Within {
    #[serde(rename = "interval")]
    Interval,
    #[serde(rename = "interval+deadline")]
    IntervalAndDeadline,
    #[serde(rename = "4 intervals")]
    FourIntervals,
}

/// When the agent comes to the mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AgentStarts {
    #[default]
    BeforeFault,
    /// It never saw the mount healthy.
    AfterFault,
}

/// What makes the mount work again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Heals {
    Server,
    Remount,
    No,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Backing {
    #[default]
    Tmpfs,
    Dir,
    Ext4,
    Quota,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Layout {
    #[default]
    Alone,
    Beside,
}

/// How the client comes to the server.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Client {
    #[default]
    Direct,
    ByName,
    /// Through a program on its own host, as EFS over TLS does.
    Proxy,
}

/// Where the server runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Server {
    /// In a network namespace of the client's guest.
    #[default]
    Namespace,
    /// In a guest of its own.
    Machine,
}

/// One run of one guest. Written for it as `cell.json`, and, as far as its shell scripts need it, as `cell.env`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// `fault-version-mode`, unique.
    pub(crate) name: String,
    pub(crate) row: String,
    /// What happened, in words.
    #[serde(default)]
    pub(crate) what: String,
    pub(crate) fault: String,
    pub(crate) after_probe: bool,
    pub(crate) agent: AgentStarts,
    pub(crate) version: String,
    pub(crate) mode: String,
    pub(crate) expect: Vec<Expected>,
    pub(crate) transient: Vec<Expected>,
    /// Seconds from the complete fault until the verdict has to stand; 0 with `watch`.
    pub(crate) within: f64,
    /// Seconds for which nothing but the expected verdicts may be seen; 0 with `within`.
    pub(crate) watch: f64,
    /// Seconds from the state until its cause has to be there.
    pub(crate) cause_within: f64,
    pub(crate) heals: Heals,
    pub(crate) server: Server,
    pub(crate) hangs: bool,
    /// Whom a canary writes as (`canary.identity`); without, none is written.
    pub(crate) canary: Option<String>,
    pub(crate) load: bool,
    pub(crate) interval: f64,
    pub(crate) deadline: f64,
    pub(crate) backoff_max: f64,
    pub(crate) slack: f64,
    pub(crate) detectors: Vec<String>,
    /// A detector that the agent is told to leave out.
    pub(crate) without: Option<String>,
    pub(crate) quick: bool,
    /// `cell.env`.
    #[serde(skip)]
    pub(crate) environment: String,
}

impl Cell {
    /// The cell without each of its detectors that are `chosen`, one at a time.
    pub(crate) fn blinded(&self, chosen: impl Fn(&str) -> bool) -> Vec<Cell> {
        let detectors = self.detectors.iter().filter(|detector| chosen(detector));
        let without = |detector: &String| Cell {
            name: format!("{}-without-{detector}", self.name),
            without: Some(detector.clone()),
            ..self.clone()
        };
        detectors.map(without).collect()
    }

    /// Wall-clock limit of the guest: everything a correct cell does, on a machine that is three times too slow.
    pub(crate) fn time_limit(&self) -> std::time::Duration {
        std::time::Duration::from_secs_f64(150.0 + 1.2 * self.watch + 2.0 * self.cause_within)
    }
}

/// Reads the matrix and spreads its rows into cells.
pub(crate) fn load(path: &Path) -> Result<Vec<Cell>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read the matrix {}", path.display()))?;
    let matrix: Matrix = serde_saphyr::from_str(&text).with_context(|| format!("{} is no matrix", path.display()))?;
    let mut cells = Vec::new();
    for row in &matrix.rows {
        let known: Vec<String> =
            row.versions.iter().flat_map(|v| row.modes.iter().map(move |m| format!("{v}-{m}"))).collect();
        if let Some(stray) = row.quick.iter().find(|name| !known.contains(name)) {
            bail!("row {}: quick names {stray}, which is none of its cells", row.name);
        }
        if let Some(stray) = row.detectors.iter().find(|name| !DETECTORS.contains(&name.as_str())) {
            bail!("row {}: there is no detector {stray}, but {}", row.name, DETECTORS.join(", "));
        }
        if let Some(stray) = row.detectors_in.iter().find(|version| !all_versions().contains(version)) {
            bail!("row {}: detectors_in names {stray}, which is no version", row.name);
        }
        for version in &row.versions {
            for mode in &row.modes {
                cells.push(matrix.cell(row, version, mode)?);
            }
        }
    }
    Ok(cells)
}

impl Matrix {
    fn cell(&self, row: &Row, version: &str, mode: &str) -> Result<Cell> {
        let interval = row.interval.unwrap_or(self.interval);
        let deadline = row.deadline.unwrap_or(self.deadline);
        let within = match (row.within, row.watch) {
            (Some(Within::Interval), None) => interval,
            (Some(Within::IntervalAndDeadline), None) => interval + deadline,
            (Some(Within::FourIntervals), None) => 4.0 * interval,
            (None, Some(_)) => 0.0,
            _ => bail!("row {}: needs either `within` or `watch`", row.name),
        };
        let variant = format!("{version}-{mode}");
        Ok(Cell {
            name: format!("{}-{variant}", row.name),
            row: row.name.clone(),
            what: row.what.clone(),
            fault: row.fault.clone().unwrap_or_else(|| row.name.clone()),
            after_probe: row.after_probe,
            agent: row.agent,
            version: version.to_owned(),
            mode: mode.to_owned(),
            expect: row.expect.clone(),
            transient: row.transient.clone(),
            within,
            watch: row.watch.unwrap_or(0.0),
            cause_within: row.cause_within.unwrap_or(self.cause_within),
            heals: row.heals,
            server: row.server,
            hangs: row.hangs,
            canary: row.canary.clone(),
            load: row.load,
            interval,
            deadline,
            backoff_max: self.backoff_max,
            slack: self.slack,
            detectors: row
                .detectors
                .iter()
                .filter(|_| row.detectors_in.iter().any(|v| v == version))
                .cloned()
                .collect(),
            without: None,
            quick: row.quick.contains(&variant),
            environment: self.environment(row, version, mode),
        })
    }

    /// Shell assignments for the guest's scripts. The values come from the matrix and need no quoting.
    fn environment(&self, row: &Row, version: &str, mode: &str) -> String {
        let backing = match row.backing {
            Backing::Tmpfs => "tmpfs",
            Backing::Dir => "dir",
            Backing::Ext4 => "ext4",
            Backing::Quota => "quota",
        };
        let layout = match row.layout {
            Layout::Alone => "alone",
            Layout::Beside => "beside",
        };
        let server = match row.server {
            Server::Namespace => "namespace",
            Server::Machine => "machine",
        };
        let client = match row.client {
            Client::Direct => "direct",
            Client::ByName => "by_name",
            Client::Proxy => "proxy",
        };
        let options = row.options.as_ref().unwrap_or(&self.options);
        let lease = row.lease.map(|seconds| seconds.to_string()).unwrap_or_default();
        format!(
            "VERS={version}\nMODE={mode}\nOPTIONS={options}\nBACKING={backing}\nLAYOUT={layout}\nSUBPATH={}\nLEASE={lease}\nSERVER={server}\nCLIENT={client}\n",
            row.subpath
        )
    }
}
