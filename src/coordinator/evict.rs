//! The one call that evicts, and what each answer means. None is repeated blindly.

use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use kube::api::{ObjectMeta, PostParams};
use kube::core::Status;
use kube::{Api, Client, Error};

use super::client::{Failure, call};
use super::guard::Guard;
use super::history::{Answer, Record};

/// How an eviction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// For the history.
    pub answer: Answer,
    /// The guard that the answer stands for; none where it was accepted.
    pub guard: Option<Guard>,
    /// What the server said, in words.
    pub words: String,
}

/// Evicts the pod, or with `dry_run` asks whether it could be. The precondition names the pod's UID, so a namesake is safe.
pub async fn evict(client: &Client, record: &Record, dry_run: bool) -> Outcome {
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client.clone(), &record.namespace);
    // `Api::evict` writes its options under a key that the server does not know: dry run and UID would be lost.
    let body = eviction(record, dry_run);
    // In the query too: either alone is enough for the server, and where they differ it refuses the call (propagateDryRun).
    let params = PostParams { dry_run, ..PostParams::default() };
    let answer = call(pods.create_subresource::<Eviction, Status>("eviction", &record.pod, &params, &body)).await;
    read(answer.map(|_| ()), dry_run)
}

/// The body of the call.
#[must_use]
pub fn eviction(record: &Record, dry_run: bool) -> Eviction {
    Eviction {
        metadata: ObjectMeta {
            name: Some(record.pod.clone()),
            namespace: Some(record.namespace.clone()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            dry_run: dry_run.then(|| vec!["All".to_owned()]),
            preconditions: Some(Preconditions { uid: Some(record.uid.clone()), ..Preconditions::default() }),
            ..DeleteOptions::default()
        }),
    }
}

/// What the answer means.
fn read(answer: Result<(), Failure>, dry_run: bool) -> Outcome {
    let failure = match answer {
        Ok(()) => {
            let answer = if dry_run { Answer::Simulated } else { Answer::Accepted };
            return Outcome { answer, guard: None, words: String::new() };
        }
        Err(failure) => failure,
    };
    let refused = |guard| Outcome { answer: Answer::Refused, guard: Some(guard), words: failure.to_string() };
    let Failure::Api(Error::Api(status)) = &failure else {
        // Cut off or silent: the eviction may have begun, and may begin yet.
        return Outcome { answer: Answer::Unknown, guard: Some(Guard::Unread), words: failure.to_string() };
    };
    match status.code {
        404 | 410 => refused(Guard::PodGone),
        409 => refused(Guard::OtherPod),
        // Of a budget, or of priority and fairness: both want us to come again later.
        429 => refused(Guard::Backoff),
        403 if of_a_budget(status) => refused(Guard::NegativeBudget),
        401 | 403 => refused(Guard::NotAllowed),
        500 if status.message.contains("more than one PodDisruptionBudget") => refused(Guard::SeveralBudgets),
        400..=499 => refused(Guard::NotAllowed),
        _ => Outcome { answer: Answer::Unknown, guard: Some(Guard::Unread), words: failure.to_string() },
    }
}

/// 403 has two senses: a budget whose count is negative, and a right that is missing.
fn of_a_budget(status: &Status) -> bool {
    let kind = status.details.as_ref().map(|details| details.kind.as_str()).unwrap_or_default();
    kind == "poddisruptionbudget"
        || kind == "poddisruptionbudgets"
        || status.message.contains("pdb disruptions allowed is negative")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::history::Stage;
    use crate::coordinator::time::Time;

    fn record() -> Record {
        Record {
            at: Time(0),
            namespace: "rec".to_owned(),
            pod: "free-0".to_owned(),
            uid: "c35f273c-b541-4dde-8895-8a47f4e9710b".to_owned(),
            node: "n".to_owned(),
            workload: "Deployment/free".to_owned(),
            controller: "rs".to_owned(),
            server: "srv".to_owned(),
            replaced: true,
            newest: Time(0),
            stage: Stage::Reserved,
            tries: 0,
            replacement: None,
        }
    }

    #[test]
    fn the_body_is_the_one_that_a_real_server_took() {
        for (dry_run, recording) in [
            (false, include_str!("../../tests/fixtures/api/eviction-201.json")),
            (true, include_str!("../../tests/fixtures/api/eviction-201-dryrun.json")),
        ] {
            let recording: serde_json::Value = serde_json::from_str(recording).unwrap();
            assert_eq!(serde_json::to_value(eviction(&record(), dry_run)).unwrap(), recording["request"]["body"]);
        }
    }

    fn recorded(text: &str) -> Outcome {
        let recording: serde_json::Value = serde_json::from_str(text).unwrap();
        let status: Status = serde_json::from_value(recording["response"]["body"].clone()).unwrap();
        if status.code < 400 {
            read(Ok(()), false)
        } else {
            read(Err(Failure::Api(Error::Api(Box::new(status)))), false)
        }
    }

    #[test]
    fn each_recorded_answer_has_its_meaning() {
        let cases = [
            (include_str!("../../tests/fixtures/api/eviction-201.json"), Answer::Accepted, None),
            (include_str!("../../tests/fixtures/api/eviction-again-terminating.json"), Answer::Accepted, None),
            (include_str!("../../tests/fixtures/api/eviction-404.json"), Answer::Refused, Some(Guard::PodGone)),
            (include_str!("../../tests/fixtures/api/eviction-409-uid.json"), Answer::Refused, Some(Guard::OtherPod)),
            (include_str!("../../tests/fixtures/api/eviction-429-pdb.json"), Answer::Refused, Some(Guard::Backoff)),
            (include_str!("../../tests/fixtures/api/rbac-403-eviction.json"), Answer::Refused, Some(Guard::NotAllowed)),
        ];
        for (text, answer, guard) in cases {
            let outcome = recorded(text);
            assert_eq!((&outcome.answer, outcome.guard), (&answer, guard), "{}", outcome.words);
        }
    }

    fn status(code: u16, message: &str) -> Outcome {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        read(Err(Failure::Api(Error::Api(Box::new(status)))), false)
    }

    #[test]
    fn budgets_that_can_never_allow_it_are_told_from_what_passes() {
        let several =
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        assert_eq!(status(500, several).guard, Some(Guard::SeveralBudgets));
        assert_eq!(status(500, several).answer, Answer::Refused);
        let negative = "pod disruption budget pdb is forbidden: pdb disruptions allowed is negative";
        assert_eq!(status(403, negative).guard, Some(Guard::NegativeBudget));
    }

    #[test]
    fn where_nobody_knows_the_reservation_stands() {
        for code in [500, 502, 503, 504] {
            assert_eq!(status(code, "etcdserver: request timed out").answer, Answer::Unknown);
        }
        assert_eq!(read(Err(Failure::Timeout), false).answer, Answer::Unknown);
        assert_eq!(status(410, "gone").guard, Some(Guard::PodGone));
    }
}
