//! The trial mount of a diagnosis: with the options that the kubelet would use, version by version as mount.nfs does it.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::options::MountOptions;
use super::report::{Outcome, StepName, StepReport};
use crate::probe::Step;
use crate::probe::image::Image;
use crate::probe::pool::{Limits, Pool};
use crate::probe::trial::options::next_version;
use crate::probe::trial::{Attempt, TrialOption, TrialReport, TrialSpec, attempt};
use crate::verdict::judge::words::errno_name;

/// Names of the root that are shown.
const NAMED: usize = 5;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// It was not tried, and why.
    NotMade(String),
    /// It worked, with this version.
    Mounted(String),
    /// The kernel or the server said no.
    Refused {
        /// The errno.
        errno: i32,
        /// What it means.
        words: String,
        /// The server was asked; otherwise this kernel refused by itself.
        by_server: bool,
    },
    /// A step was silent until the deadline.
    Silent(String),
}

/// A few workers of our own: a trial that blocks costs one.
///
/// # Errors
/// Workers cannot be started here.
pub fn pool() -> std::io::Result<Pool> {
    Ok(Pool::new(Image::of_this_binary()?, Limits { warm: 1, max: 4, per_owner: 4 }))
}

/// What is tried: the specs in their order, of which the first is made, and the next as the errno says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    tries: Vec<(String, TrialSpec)>,
}

impl Plan {
    /// As mount.nfs would mount `SERVER:EXPORT` with these options.
    #[must_use]
    pub fn usual(server: &str, export: &str, address: IpAddr, options: &MountOptions) -> Plan {
        let tries = options.versions.iter().map(|version| {
            let mut spec = TrialSpec::usual(server, export, version, address);
            add(&mut spec, options);
            ((*version).to_owned(), spec)
        });
        Plan { tries: tries.collect() }
    }

    /// As mount.efs would without TLS.
    #[must_use]
    pub fn efs(server: &str, directory: &str, address: IpAddr, options: &MountOptions) -> Plan {
        let mut spec = TrialSpec::efs(server, directory, address);
        add(&mut spec, options);
        Plan { tries: vec![("4.1".to_owned(), spec)] }
    }

    /// The same mount once more.
    #[must_use]
    pub fn again(version: &str, spec: TrialSpec) -> Plan {
        Plan { tries: vec![(version.to_owned(), spec)] }
    }

    /// Which version comes after one that failed so.
    fn next(&self, version: &str, errno: i32) -> Option<&(String, TrialSpec)> {
        let next = next_version(version, errno)?;
        self.tries.iter().find(|(version, _)| version == next)
    }
}

fn add(spec: &mut TrialSpec, options: &MountOptions) {
    for option in &options.others {
        spec.options.retain(|there| there.name != option.name);
        spec.options.push(option.clone());
    }
    if let Some(port) = options.port {
        spec.options.push(TrialOption { name: "port".to_owned(), value: Some(port.to_string()) });
    }
}

/// Makes the trial mounts of a plan until one works or the answer stands; a step for each. Where NFSv4 was refused and NFSv3
/// is not there, the refusal is the answer.
pub async fn make(pool: &Pool, plan: &Plan, deadline: Duration) -> (Trial, Vec<StepReport>) {
    let mut steps = Vec::new();
    let mut refused = None;
    let Some(mut current) = plan.tries.first() else {
        return (Trial::NotMade("there is no version to try".to_owned()), steps);
    };
    loop {
        let (version, spec) = current;
        let begin = Instant::now();
        let trial = judge(version, attempt(pool, spec.clone(), "diagnose", deadline).await, deadline);
        let asked = format!("a mount that nobody sees, NFS {version}, {}", spaced(&spec.shown()));
        steps.push(step(&trial, asked, begin.elapsed()));
        let errno = match &trial {
            Trial::Refused { errno, by_server: true, .. } => *errno,
            _ => return (trial, steps),
        };
        match plan.next(version, errno) {
            Some(next) => current = next,
            None => return (said_first(refused, trial, errno), steps),
        }
        if matches!(errno, libc::EPERM | libc::ENOENT) {
            refused = Some(trial);
        }
    }
}

/// A list of options that can be broken into lines.
pub(super) fn spaced(options: &str) -> String {
    options.replace(',', ", ")
}

fn said_first(refused: Option<Trial>, last: Trial, errno: i32) -> Trial {
    let absent = matches!(errno, libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::ECONNREFUSED | libc::ETIMEDOUT);
    refused.filter(|_| absent).unwrap_or(last)
}

fn judge(version: &str, attempt: Attempt, deadline: Duration) -> Trial {
    let words = attempt.explain(deadline);
    match (attempt, words) {
        (Attempt::Report(report), None) => Trial::Mounted(mounted(version, &report)),
        (Attempt::Report(report), Some(words)) => {
            let (step, errno) = report.failure().unwrap_or((Step::TrialMount, 0));
            Trial::Refused { errno, words, by_server: step != Step::TrialOpen }
        }
        (Attempt::Silent { .. }, words) => Trial::Silent(words.unwrap_or_default()),
        (Attempt::NotMade(why), _) => Trial::NotMade(why),
    }
}

fn mounted(version: &str, report: &TrialReport) -> String {
    let names: Vec<String> = report
        .names
        .iter()
        .take(NAMED)
        .map(|name| crate::mounts::octal::label(std::os::unix::ffi::OsStrExt::from_bytes(name.as_slice())))
        .collect();
    let more = report.names.len() > NAMED || report.more_names;
    let listing = match (names.is_empty(), report.failure()) {
        (_, Some((Step::TrialNames, errno))) => format!("its root may not be listed ({})", errno_name(errno)),
        (true, _) => "it is empty".to_owned(),
        (false, _) => format!("it holds {}{}", names.join(", "), if more { ", ..." } else { "" }),
    };
    format!("mounted with NFS {version}: {listing}")
}

fn step(trial: &Trial, asked: String, took: Duration) -> StepReport {
    let (outcome, answer) = match trial {
        Trial::Mounted(words) => (Outcome::Ok, words.clone()),
        Trial::Refused { words, .. } | Trial::Silent(words) => (Outcome::Failed, words.clone()),
        Trial::NotMade(why) => return StepReport::skipped(StepName::TrialMount, asked, why.clone()),
    };
    StepReport::made(StepName::TrialMount, outcome, asked, answer, took)
}
