//! `check`: one pass over the mounts, without an agent.

use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{colours, complain, print};
use super::settings::Settings;
use super::text::escape;
use super::{Exit, nagios, paths, plan, run, table};
use crate::agent::CheckResult;
use crate::logging::{Logs, Output};
use crate::snapshot::Snapshot;

/// The command line of `check`.
#[derive(Args)]
pub(super) struct CheckArgs {
    /// Paths to check: the mounts that hold them, and those on the way. Without any: all.
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::Other)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    settings: Settings,
}

/// How the result is written.
#[derive(Args, Clone, Copy)]
pub(super) struct Form {
    /// Print the JSON document of /api/v1/mounts.
    #[arg(long, conflicts_with = "nagios")]
    pub(super) json: bool,
    /// Print one line with performance data, as a Nagios plugin.
    #[arg(long)]
    pub(super) nagios: bool,
    /// No network mounts is "could not tell" (3), not "all healthy" (0).
    #[arg(long)]
    pub(super) require: bool,
}

impl Form {
    /// Writes the result and says how it ends.
    pub(super) fn report(self, snapshot: &Snapshot, not_monitored: &[PathBuf]) -> Exit {
        let missing = self.require && snapshot.mounts.is_empty();
        let untold = missing || !not_monitored.is_empty() || !snapshot.ready;
        let exit = Exit::of(snapshot, untold);
        let strangers: Vec<String> = not_monitored.iter().map(|path| shown(path)).collect();
        if self.nagios {
            print(&nagios::line(snapshot, &strangers, exit));
            return exit;
        }
        if self.json {
            match serde_json::to_string_pretty(snapshot) {
                Ok(document) => print(&(document + "\n")),
                Err(error) => return self.could_not_tell(&format!("cannot write the document: {error}")),
            }
        } else {
            print(&table::render(snapshot, colours()));
            if let Some(error) = &snapshot.agent.host_error {
                complain(&format!("what is mounted on the host alone is not seen: {error}"));
            }
        }
        for stranger in strangers {
            complain(&format!("{stranger} is on no monitored mount; `mountwarden check` without a path lists all"));
        }
        exit
    }

    /// Writes only what would be done about pods.
    pub(super) fn report_plan(self, snapshot: &Snapshot) -> Exit {
        if self.json {
            match serde_json::to_string_pretty(&snapshot.plan) {
                Ok(document) => print(&(document + "\n")),
                Err(error) => return self.could_not_tell(&format!("cannot write the document: {error}")),
            }
        } else {
            print(&plan::render(&snapshot.plan));
        }
        Exit::of(snapshot, !snapshot.ready)
    }

    /// Says why there is no result, where the caller looks for it.
    pub(super) fn could_not_tell(self, why: &str) -> Exit {
        if self.nagios {
            print(&nagios::unknown(why));
        } else {
            complain(why);
        }
        Exit::Unknown
    }
}

fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

/// One pass.
pub(super) fn check(arguments: &CheckArgs) -> Exit {
    match pass(arguments) {
        Ok(result) => arguments.form.report(&result.snapshot, &result.not_monitored),
        Err(error) => arguments.form.could_not_tell(&format!("{error:#}")),
    }
}

fn pass(arguments: &CheckArgs) -> anyhow::Result<CheckResult> {
    let config = arguments.settings.load()?;
    let paths = arguments.paths.iter().map(|path| absolute(path)).collect::<anyhow::Result<Vec<_>>>()?;
    // Standard output is the result's; log lines only where somebody asked for them.
    let logs = arguments
        .settings
        .overrides
        .has("log.level")
        .then(|| Logs::start(config.log_format, &config.log_level, Output::Stderr))
        .transpose()?;
    let runtime = run::runtime()?;
    let result = runtime.block_on(crate::agent::check(&config, &paths));
    runtime.shutdown_background();
    if let Some(logs) = logs {
        logs.close(std::time::Duration::from_millis(500));
    }
    result
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    paths::absolute(path).map_err(|error| {
        anyhow::anyhow!("the working directory has no name ({error}), so {} needs a full path", shown(path))
    })
}
