//! Subcommands, flags, exit codes.

mod check;
mod cleanup;
mod coordinate;
mod diagnose;
mod exit;
mod help;
mod nagios;
mod output;
mod paths;
mod plan;
mod run;
mod settings;
mod shell;
mod status;
pub mod table;
mod text;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use exit::Exit;
use settings::Settings;

/// Watches the network mounts of this host: which are hung, stale, lost or denied, and why.
#[derive(Parser)]
#[command(name = "mountwarden", version, about, arg_required_else_help = true, after_help = help::EXAMPLES)]
#[command(after_long_help = help::LONG, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent: probe the mounts, serve metrics and the status page, until SIGTERM.
    #[command(after_help = help::RUN)]
    Run(Settings),
    /// Look at all network mounts, or at those that hold PATH, once; needs no agent.
    #[command(after_help = help::CHECK)]
    Check(check::CheckArgs),
    /// Say why a mount is dead, or SERVER:/EXPORT cannot be mounted, step by step.
    #[command(after_help = help::DIAGNOSE)]
    Diagnose(diagnose::DiagnoseArgs),
    /// Ask the running agent and print its table.
    #[command(after_help = help::STATUS)]
    Status(status::StatusArgs),
    /// Run the coordinator: decide in a cluster which pods on dead mounts are evicted.
    #[command(after_help = help::COORDINATE)]
    Coordinate(settings::Chosen<coordinate::Used>),
    /// Remove what the agents leave in the cluster: NodeMounts and Node conditions.
    #[command(after_help = help::CLEANUP)]
    Cleanup(cleanup::CleanupArgs),
    /// Check the configuration and print what is in force; exits 78 when it is not valid.
    CheckConfig(Settings),
    /// Print a script that completes the commands and flags of mountwarden in a shell.
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command.
    #[command(hide = true)]
    ManPages {
        /// The directory.
        #[arg(value_name = "DIR")]
        directory: std::path::PathBuf,
    },
    /// Print docs/metrics.md.
    #[command(hide = true)]
    MetricsDoc,
    /// Print docs/states.md.
    #[command(hide = true)]
    StatesDoc,
    /// Print docs/configuration.md.
    #[command(hide = true)]
    ConfigDoc {
        /// The example file instead.
        #[arg(long)]
        example: bool,
    },
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let parsed =
        Cli::command().try_get_matches_from(&arguments).and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    let exit = match parsed {
        Ok(cli) => dispatch(cli.command),
        Err(error) => help::usage(&error, &arguments),
    };
    exit.into()
}

fn dispatch(command: Command) -> Exit {
    match command {
        Command::Run(settings) => run::run(settings),
        Command::Check(arguments) => check::check(&arguments),
        Command::Diagnose(arguments) => diagnose::diagnose(&arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::Coordinate(settings) => coordinate::coordinate(&settings),
        Command::Cleanup(arguments) => cleanup::cleanup(&arguments),
        Command::CheckConfig(settings) => run::check_config(&settings),
        Command::Completions { shell } => shell::completions(shell, Cli::command()),
        Command::ManPages { directory } => shell::man_pages(&directory, Cli::command()),
        Command::MetricsDoc => {
            output::print(&crate::metrics::docs::markdown());
            Exit::Healthy
        }
        Command::StatesDoc => {
            output::print(&crate::verdict::advice::markdown());
            Exit::Healthy
        }
        Command::ConfigDoc { example } => {
            output::print(&if example { crate::config::docs::example() } else { crate::config::docs::markdown() });
            Exit::Healthy
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
