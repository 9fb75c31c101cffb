//! `mountwarden diagnose`: one mount, or an export before it is mounted, step by step; then the cause and what to do.
//!
//! It is for the night: the one who reads it has a pod that does not start ("exit status 32") or a path that does not
//! answer, and knows no RFC. Each step says what was asked, what came back and how long it took; one that failed does not
//! end it where the next still means something. Each has a deadline, so a dead mount or server ends it after as many
//! deadlines as there are steps at most. The cause comes from the rules of [`server::conclude`](crate::server::conclude)
//! and of the judge; nothing is guessed.
//!
//! | module | |
//! |---|---|
//! | [`subject`], [`options`] | what is asked about, from the command line |
//! | `server`, `mount` | the two ways: an export, a mounted path |
//! | [`steps`], [`trials`], [`processes`] | the steps |
//! | [`judge`], [`words`] | the end of it |
//! | [`report`] | the document |

pub mod docs;
pub mod judge;
mod mount;
pub mod options;
pub mod processes;
pub mod report;
pub mod server;
pub mod steps;
pub mod subject;
pub mod trials;
pub mod words;

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::server::proxy;
use crate::verdict::Severity;
use options::MountOptions;
use report::{Diagnosis, SCHEMA, StepName, StepReport, Verdict};
use server::Export;
use subject::Subject;

/// So long is waited for workers to die at the end.
const LAST_WAIT: Duration = Duration::from_millis(150);

/// What else the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The options that the mount would have.
    pub mount: MountOptions,
    /// Make no trial mount.
    pub no_mount: bool,
    /// Write a canary on the mounted path.
    pub write: bool,
    /// Region of an EFS file system.
    pub region: Option<String>,
    /// Its access point.
    pub access_point: Option<String>,
}

/// What all steps share.
struct Asked<'a> {
    options: &'a Options,
    timeout: Duration,
    proc_root: &'a Path,
}

/// Diagnoses `subject`; `target` is what the person wrote, a path in `subject` is absolute.
///
/// # Errors
/// What keeps it from being made at all: the mount table cannot be read, no worker can be started.
pub async fn diagnose(
    config: &Config,
    target: &str,
    subject: &Subject,
    options: &Options,
) -> anyhow::Result<Diagnosis> {
    let begin = Instant::now();
    let asked = Asked { options, timeout: config.timeout, proc_root: &config.proc_root };
    let mut diagnosis = match subject {
        Subject::Path(path) => of_path(path, &asked, config).await?,
        Subject::Server { server, export } => of_export(&Export { server, export, efs: false }, &asked).await,
        Subject::Efs { file_system, directory } => of_efs(file_system, directory, &asked).await,
    };
    target.clone_into(&mut diagnosis.target);
    diagnosis.seconds = begin.elapsed().as_secs_f64();
    Ok(diagnosis)
}

async fn of_path(path: &Path, asked: &Asked<'_>, config: &Config) -> anyhow::Result<Diagnosis> {
    let found = match mount::diagnose(path, asked, config).await? {
        Ok(found) => found,
        Err(why) => {
            let verdict = Verdict {
                result: Severity::Unknown,
                cause: None,
                summary: format!("This path is on no monitored mount: {why}."),
                todo: vec![
                    "`mountwarden check` lists the mounts that there are; for one that could not be made ask about its source: `mountwarden diagnose SERVER:/EXPORT`.".to_owned(),
                ],
            };
            let step = StepReport::made(
                StepName::MountTable,
                report::Outcome::Failed,
                "what is mounted there?",
                why,
                Duration::ZERO,
            );
            return Ok(document(vec![step], verdict, asked));
        }
    };
    let verdict =
        Verdict { result: found.state.severity(), cause: found.cause, summary: found.summary, todo: found.todo };
    Ok(Diagnosis {
        server: found.status.origin.server.clone(),
        export: found.status.origin.export.clone(),
        state: Some(found.state),
        candidates: found.candidates,
        mount: Some(found.status),
        ..document(found.steps, verdict, asked)
    })
}

async fn of_export(export: &Export<'_>, asked: &Asked<'_>) -> Diagnosis {
    let (steps, verdict) = server::diagnose(export, asked).await;
    Diagnosis {
        server: Some(export.server.to_owned()),
        export: Some(export.export.to_owned()),
        ..document(steps, verdict, asked)
    }
}

async fn of_efs(file_system: &str, directory: &str, asked: &Asked<'_>) -> Diagnosis {
    let name = asked.options.region.as_deref().and_then(|region| proxy::dns_name(file_system, region));
    let Some(name) = name else {
        let why = "the region is not known, and the name of a file system depends on it";
        let verdict = Verdict {
            result: Severity::Unknown,
            cause: None,
            summary: format!("Where {file_system} is could not be told: {why}."),
            todo: vec![
                "Name its region: `--region eu-west-1` (or AWS_REGION), or ask about the mount target itself: `mountwarden diagnose IP:/`.".to_owned(),
            ],
        };
        return document(
            vec![StepReport::skipped(StepName::Name, "where are its mount targets?", why)],
            verdict,
            asked,
        );
    };
    let mut diagnosis = of_export(&Export { server: &name, export: directory, efs: true }, asked).await;
    if let Some(access_point) = &asked.options.access_point {
        diagnosis.todo.push(format!(
            "The access point {access_point} was not tried: it works over TLS only, where the local proxy of efs-utils stands in between. If the rest is well and the mount is refused, look at the file system's policy and at the access point (`aws efs describe-access-points`)."
        ));
    }
    diagnosis
}

fn document(steps: Vec<StepReport>, verdict: Verdict, asked: &Asked<'_>) -> Diagnosis {
    Diagnosis {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generated: crate::agent::unix_now(),
        target: String::new(),
        server: None,
        export: None,
        steps,
        result: verdict.result,
        state: None,
        cause: verdict.cause,
        candidates: Vec::new(),
        summary: verdict.summary,
        todo: verdict.todo,
        mount: None,
        timeout_seconds: asked.timeout.as_secs_f64(),
        seconds: 0.0,
    }
}

#[cfg(test)]
mod tests;
