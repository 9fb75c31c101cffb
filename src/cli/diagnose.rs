//! `diagnose`: its command line and how it ends.

mod text;

use std::path::PathBuf;

use clap::Args;

use super::output::{colours, complain, print};
use super::settings::Settings;
use super::{Exit, nagios, paths, run};
use crate::diagnose::Options;
use crate::diagnose::options::MountOptions;
use crate::diagnose::report::Diagnosis;
use crate::diagnose::subject::Subject;
use crate::logging::{Logs, Output};
use crate::verdict::Severity;

/// The command line of `diagnose`.
#[derive(Args)]
pub(super) struct DiagnoseArgs {
    /// A mounted path, an export, or an EFS file system.
    #[arg(value_name = "PATH|SERVER:/EXPORT|fs-...", value_hint = clap::ValueHint::Other, value_parser = Subject::parse)]
    subject: Subject,
    /// Mount options as in fstab or in mountOptions of a volume.
    #[arg(short = 'o', long = "options", env = "MOUNTWARDEN_OPTIONS", value_name = "LIST", value_parser = MountOptions::parse, default_value = "", hide_default_value = true, hide_env = true)]
    options: MountOptions,
    /// Make no trial mount.
    #[arg(long, env = "MOUNTWARDEN_NO_MOUNT", hide_env = true)]
    no_mount: bool,
    /// Try a small write on the path, as this user or as the one named.
    #[arg(long, value_name = "IDENTITY", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    write: Option<String>,
    /// Region of an EFS file system [default: AWS_REGION].
    #[arg(long, env = "MOUNTWARDEN_REGION", value_name = "REGION", hide_env = true)]
    region: Option<String>,
    /// Access point of an EFS file system.
    #[arg(long, env = "MOUNTWARDEN_ACCESS_POINT", value_name = "fsap-...", hide_env = true)]
    access_point: Option<String>,
    /// Print a JSON document (docs/diagnose.md).
    #[arg(long, conflicts_with = "nagios")]
    json: bool,
    /// Print one line with performance data, as a Nagios plugin.
    #[arg(long)]
    nagios: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Asks, prints, and ends as a Nagios plugin does.
pub(super) fn diagnose(arguments: &DiagnoseArgs) -> Exit {
    match ask(arguments) {
        Ok(diagnosis) => report(arguments, &diagnosis),
        Err(error) => could_not_tell(arguments, &format!("{error:#}")),
    }
}

fn ask(arguments: &DiagnoseArgs) -> anyhow::Result<Diagnosis> {
    let mut config = arguments.settings.load()?;
    let subject = match &arguments.subject {
        Subject::Path(path) => Subject::Path(absolute(path)?),
        other => other.clone(),
    };
    if let Some(identity) = &arguments.write {
        anyhow::ensure!(
            matches!(subject, Subject::Path(_)),
            "--write needs a mounted path: an export that is not mounted cannot be written to"
        );
        if !identity.is_empty() {
            let ids = identity.parse().map_err(|why| anyhow::anyhow!("--write={identity}: {why}"))?;
            config.canary_identity = Some(ids);
        }
    }
    let region = arguments.region.clone().or_else(region_of_the_environment);
    let options = Options {
        mount: arguments.options.clone(),
        no_mount: arguments.no_mount,
        write: arguments.write.is_some(),
        region,
        access_point: arguments.access_point.clone(),
    };
    // Standard output is the result's; log lines only where somebody asked for them.
    let logs = arguments
        .settings
        .overrides
        .has("log.level")
        .then(|| Logs::start(config.log_format, &config.log_level, Output::Stderr))
        .transpose()?;
    let runtime = run::runtime()?;
    let target = written(&arguments.subject);
    let result = runtime.block_on(crate::diagnose::diagnose(&config, &target, &subject, &options));
    runtime.shutdown_background();
    if let Some(logs) = logs {
        logs.close(std::time::Duration::from_millis(500));
    }
    result
}

/// As the AWS tools find it.
fn region_of_the_environment() -> Option<String> {
    let of = |name: &str| std::env::var(name).ok().filter(|region| !region.is_empty());
    of("AWS_REGION").or_else(|| of("AWS_DEFAULT_REGION"))
}

fn absolute(path: &std::path::Path) -> anyhow::Result<PathBuf> {
    paths::absolute(path).map_err(|error| {
        anyhow::anyhow!("the working directory has no name ({error}), so {} needs a full path", path.display())
    })
}

fn written(subject: &Subject) -> String {
    match subject {
        Subject::Path(path) => path.to_string_lossy().into_owned(),
        Subject::Server { server, export } if server.contains(':') => format!("[{server}]:{export}"),
        Subject::Server { server, export } => format!("{server}:{export}"),
        Subject::Efs { file_system, directory } => format!("{file_system}:{directory}"),
    }
}

fn report(arguments: &DiagnoseArgs, diagnosis: &Diagnosis) -> Exit {
    let exit = exit(diagnosis.result);
    if arguments.nagios {
        print(&nagios::diagnosis(diagnosis, exit));
        return exit;
    }
    if !arguments.json {
        print(&text::render(diagnosis, colours()));
        return exit;
    }
    match serde_json::to_string_pretty(diagnosis) {
        Ok(document) => print(&(document + "\n")),
        Err(error) => return could_not_tell(arguments, &format!("cannot write the document: {error}")),
    }
    exit
}

fn exit(result: Severity) -> Exit {
    match result {
        Severity::Healthy => Exit::Healthy,
        Severity::Degraded => Exit::Degraded,
        Severity::Dead => Exit::Dead,
        Severity::Unknown => Exit::Unknown,
    }
}

fn could_not_tell(arguments: &DiagnoseArgs, why: &str) -> Exit {
    if arguments.nagios {
        print(&nagios::unknown(why));
    } else {
        complain(why);
    }
    Exit::Unknown
}
