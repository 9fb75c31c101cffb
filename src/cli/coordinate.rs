//! `coordinate`.

use super::Exit;
use super::output::complain;
use super::run::{bad_config, runtime};
use super::settings::{Choice, Chosen, HEADING};
use crate::config::Config;
use crate::logging::{Logs, Output};

/// What a coordinator uses; `remedy.*` and `unstick.*` without a flag too, from the file.
pub(super) enum Used {}

impl Choice for Used {
    const NAMES: &'static [&'static str] =
        &["listen", "listen_ui", "remedy.mode", "kubernetes.kubeconfig", "log.format", "log.level"];
    const HEADING: Option<&'static str> = Some(HEADING);
    const TAKES_ALL: bool = true;
}

/// The coordinator.
pub(super) fn coordinate(settings: &Chosen<Used>) -> Exit {
    let config = match settings.load() {
        Ok(config) => config,
        Err(errors) => return bad_config(&errors),
    };
    match start(config) {
        Ok(()) => Exit::Healthy,
        Err(error) => {
            complain(&format!("{error:#}"));
            Exit::Runtime
        }
    }
}

fn start(config: Config) -> anyhow::Result<()> {
    let _logs = Logs::start(config.log_format, &config.log_level, Output::Stdout)?;
    let runtime = runtime()?;
    let result = runtime.block_on(crate::coordinator::run::run(config));
    runtime.shutdown_background();
    result
}
