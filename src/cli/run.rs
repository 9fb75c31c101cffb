//! `run` and `check-config`.

use std::sync::Arc;

use anyhow::Context;

use super::Exit;
use super::output::{complain, print};
use super::settings::Settings;
use crate::config::Config;
use crate::logging::{Logs, Output};

/// The agent.
pub(super) fn run(settings: Settings) -> Exit {
    let config = match settings.load() {
        Ok(config) => config,
        Err(errors) => return bad_config(&errors),
    };
    match start(config, settings) {
        Ok(()) => Exit::Healthy,
        Err(error) => {
            complain(&format!("{error:#}"));
            Exit::Runtime
        }
    }
}

fn start(config: Config, settings: Settings) -> anyhow::Result<()> {
    let logs = Logs::start(config.log_format, &config.log_level, Output::Stdout)?;
    let reload = Arc::new(move || Ok(settings.load()?));
    let runtime = runtime()?;
    // As a task of its own: whatever wakes the future of `block_on` writes to an eventfd and polls it back, twice for each
    // probe, while a task is put on a list.
    let result = runtime.block_on(async { tokio::spawn(crate::agent::run(config, reload, logs)).await });
    // A name look-up may still sit in a thread of the runtime; it must not delay the end.
    runtime.shutdown_background();
    result.context("the loop failed")?
}

/// One thread, this one: probe workers die with the thread that started them, and it lives as long as the process.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Checks the configuration and prints what is in force.
pub(super) fn check_config(settings: &Settings) -> Exit {
    match settings.load() {
        Ok(config) => {
            print(&crate::config::docs::effective(&config));
            Exit::Healthy
        }
        Err(errors) => bad_config(&errors),
    }
}

pub(super) fn bad_config(errors: &crate::config::ConfigErrors) -> Exit {
    complain(&format!("the configuration is not valid:\n{errors}"));
    Exit::Config
}
