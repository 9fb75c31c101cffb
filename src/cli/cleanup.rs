//! `cleanup`: removes what the agents leave in the cluster.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::output::{complain, print};
use super::{Exit, run, settings};
use crate::cluster::cleanup::{self, Removed};
use crate::config::schema::{Flag, KEYS, Key};
use crate::config::{Config, OnOff, Overrides};

/// The command line of `cleanup`.
#[derive(Args)]
pub(super) struct CleanupArgs {
    #[arg(long, help = "Only say what would be removed; nothing is changed")]
    dry_run: bool,
    #[command(flatten)]
    settings: ClusterSettings,
}

/// `--config` and `--kubeconfig`: what says where the cluster is.
struct ClusterSettings(settings::Settings);

fn kubeconfig() -> Option<(&'static Key, Flag)> {
    KEYS.iter().find(|key| key.name == "kubernetes.kubeconfig").and_then(|key| key.flag.map(|flag| (key, flag)))
}

impl Args for ClusterSettings {
    fn augment_args(command: Command) -> Command {
        let command = command.arg(settings::config_flag());
        kubeconfig().into_iter().fold(command, |command, (key, flag)| command.arg(settings::setting_flag(key, flag)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ClusterSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let mut overrides = Overrides::default();
        if let Some((key, flag)) = kubeconfig() {
            settings::take(&mut overrides, matches, key, flag);
        }
        Ok(ClusterSettings(settings::Settings { file: settings::config_file(matches), overrides }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Removes, and says what.
pub(super) fn cleanup(arguments: &CleanupArgs) -> Exit {
    match arguments.settings.0.load() {
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
