//! `cleanup`: removes what the agents leave in the cluster.

use std::path::PathBuf;

use clap::Args;

use super::output::{complain, print};
use super::settings::{Choice, Chosen};
use super::{Exit, run};
use crate::cluster::cleanup::{self, Removed};
use crate::config::{Config, OnOff};

/// The command line of `cleanup`.
#[derive(Args)]
pub(super) struct CleanupArgs {
    #[arg(long, help = "Only say what would be removed; nothing is changed")]
    dry_run: bool,
    #[command(flatten)]
    settings: Chosen<Place>,
}

/// What says where the cluster is.
enum Place {}

impl Choice for Place {
    const NAMES: &'static [&'static str] = &["kubernetes.kubeconfig"];
}

/// Removes, and says what.
pub(super) fn cleanup(arguments: &CleanupArgs) -> Exit {
    match arguments.settings.load() {
        Ok(config) if config.kubernetes == OnOff::Off => {
            complain("kubernetes.enabled is off in this configuration, so there is no cluster to clean up");
            Exit::Config
        }
        Ok(config) => match removed(&config, arguments.dry_run) {
            Ok(removed) => report(&removed, arguments.dry_run),
            Err(error) => {
                complain(&format!("{error:#}"));
                Exit::Runtime
            }
        },
        Err(errors) => run::bad_config(&errors),
    }
}

fn removed(config: &Config, dry_run: bool) -> anyhow::Result<Removed> {
    let kubeconfig = (!config.kubeconfig.is_empty()).then(|| PathBuf::from(&config.kubeconfig));
    let runtime = run::runtime()?;
    let result = runtime.block_on(cleanup::run(kubeconfig, dry_run));
    runtime.shutdown_background();
    Ok(result?)
}

fn report(removed: &Removed, dry_run: bool) -> Exit {
    let verb = if dry_run { "would remove" } else { "removed" };
    for what in &removed.done {
        print(&format!("{verb} {what}\n"));
    }
    for failure in &removed.failed {
        complain(failure);
    }
    if removed.done.is_empty() && removed.failed.is_empty() {
        print("nothing to remove\n");
    }
    if removed.failed.is_empty() { Exit::Healthy } else { Exit::Runtime }
}
