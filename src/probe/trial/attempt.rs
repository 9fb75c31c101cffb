//! One trial in a worker of the pool, and what may be concluded from its end.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{TrialReport, TrialSpec, words};
use crate::probe::Step;
use crate::probe::pool::{Class, Outcome, Pool};
use crate::probe::wire::{Answer, Job};

/// How a trial ended.
#[derive(Debug)]
pub enum Attempt {
    /// The kernel said yes or no.
    Report(TrialReport),
    /// A step was silent until its deadline. Its worker was killed, which ends a trial at once (measured); `gone` resolves
    /// when the kernel has let it go.
    Silent {
        /// The step.
        step: Option<Step>,
        /// Resolves (or is closed) when the worker is reaped.
        gone: oneshot::Receiver<()>,
    },
    /// No trial was made, or this process was too late to tell: it says nothing about the server.
    NotMade(String),
}

impl Attempt {
    /// Why it failed, in one sentence; `None` when the server mounted it and answered for its root. `deadline` is the one
    /// that the attempt was made with.
    #[must_use]
    pub fn explain(&self, deadline: Duration) -> Option<String> {
        match self {
            Attempt::Report(report) => words::explain(report),
            Attempt::Silent { step, .. } => Some(words::silence(*step, deadline)),
            Attempt::NotMade(reason) => Some(reason.clone()),
        }
    }
}

/// Makes a trial mount in a worker. Each step has `deadline`; waiting for a free worker has as long. `owner` is whom the
/// worker counts against, should it block.
pub async fn attempt(pool: &Pool, spec: TrialSpec, owner: &str, deadline: Duration) -> Attempt {
    let not_made = |reason: &str| Attempt::NotMade(format!("no trial mount was made: {reason}"));
    match pool.run(Job::Trial(spec), owner, Class::Hopeful, deadline, deadline).await {
        Outcome::Answered(Answer::Trial(report)) => Attempt::Report(report),
        Outcome::Missed { blocked, gone } if blocked.is_evidence() => Attempt::Silent { step: blocked.step, gone },
        Outcome::Missed { .. } => not_made("this process was too late to tell, or its worker was not in the kernel"),
        Outcome::NoRoom => not_made("all workers are blocked by other mounts"),
        Outcome::NotStarted(error) => not_made(&format!("no worker could be started: {error}")),
        Outcome::Lost(why) => not_made(&why),
        Outcome::Answered(_) => not_made("the worker answered another question"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::image::Image;
    use crate::probe::pool::Limits;

    #[tokio::test]
    async fn without_a_worker_nothing_is_said_about_the_server() {
        let limits = Limits { warm: 1, max: 1, per_owner: 1 };
        let pool = Pool::new(Image::impostor("/nonexistent/worker".into()), limits);
        let spec = TrialSpec {
            fstype: "nfs4".to_owned(),
            source: b"srv:/".to_vec(),
            options: Vec::new(),
            look_for: Vec::new(),
        };
        let deadline = Duration::from_secs(1);
        let attempt = attempt(&pool, spec, "test", deadline).await;
        assert!(matches!(attempt, Attempt::NotMade(_)), "{attempt:?}");
        assert!(attempt.explain(deadline).unwrap().starts_with("no trial mount was made: no worker could be started"));
    }
}
