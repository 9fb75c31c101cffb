//! Servers that misbehave, from the first step to the last: none keeps the diagnosis from its end, and each has its words.

use std::net::SocketAddr;

use super::*;
use crate::diagnose::report::{Outcome, StepReport};
use crate::server::fake::{self, Asked as Call, Say, record, words};
use crate::verdict::Cause;

const TIMEOUT: Duration = Duration::from_millis(400);
const NFS: u32 = 100_003;

async fn diagnosed(address: SocketAddr, export: &str) -> Diagnosis {
    let mount = MountOptions::parse(&format!("port={}", address.port())).unwrap();
    let options = Options { mount, no_mount: true, ..Options::default() };
    let config = Config { timeout: TIMEOUT, ..Config::default() };
    let server = address.ip().to_string();
    let subject = Subject::Server { server, export: export.to_owned() };
    let diagnosis = diagnose(&config, "fake", &subject, &options).await.unwrap();
    let most = TIMEOUT.as_secs_f64() * diagnosis.steps.len() as f64 + 2.0;
    assert!(diagnosis.seconds < most, "{} steps took {} s", diagnosis.steps.len(), diagnosis.seconds);
    diagnosis
}

/// A server that does the same about every call.
async fn always(say: impl Fn(&Call) -> Say + Send + Sync + 'static) -> Diagnosis {
    diagnosed(fake::server(say).await, "/data").await
}

fn step(diagnosis: &Diagnosis, name: StepName) -> &StepReport {
    diagnosis.steps.iter().find(|step| step.step == name).unwrap_or_else(|| panic!("no {name:?} in {diagnosis:#?}"))
}

#[tokio::test]
async fn what_is_no_nfs_server_is_told_from_a_dead_one() {
    let says: [fn(&Call) -> Say; 4] = [
        |_| Say::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        // A record of 2 GiB.
        |_| Say::Raw(words(&[u32::MAX, 1, 2, 3])),
        // An answer to another call.
        |call| Say::Raw(record(&words(&[!call.xid, 1, 0, 0, 0, 0]))),
        |_| Say::Raw(record(b"abc")),
    ];
    for say in says {
        let diagnosis = always(say).await;
        assert_eq!((diagnosis.result, diagnosis.cause), (Severity::Dead, None));
        assert!(diagnosis.summary.contains("is no NFS server, or a broken one: the reply"), "{}", diagnosis.summary);
        assert_eq!(step(&diagnosis, StepName::Versions).outcome, Outcome::Failed);
    }
}

#[tokio::test]
async fn silence_in_all_its_forms_is_an_unresponsive_server() {
    let says: [fn(&Call) -> Say; 4] = [
        |_| Say::Nothing,
        // A byte a second.
        |call| Say::Drip(record(&words(&[call.xid, 1, 0, 0, 0, 0]))),
        // Half a fragment, then the end; and then half a fragment and nothing more.
        |_| Say::Last(words(&[0x8000_0040, 1])),
        |_| Say::Raw(words(&[0x8000_0040, 1])),
    ];
    for say in says {
        let diagnosis = always(say).await;
        assert_eq!((diagnosis.result, diagnosis.cause), (Severity::Dead, Some(Cause::ServerUnresponsive)));
        assert!(diagnosis.summary.contains("its file service leaves calls unanswered"), "{}", diagnosis.summary);
    }
}

#[tokio::test]
async fn a_server_that_denies_every_call_is_alive_and_says_why() {
    // Every call, NULL too, is denied for its credentials; or the server speaks another RPC.
    for (tail, said) in [(vec![1, 1, 1, 2], "rejected credentials"), (vec![1, 1, 0, 3, 3], "speaks RPC 3 to 3, not 2")]
    {
        let diagnosis = always(move |_| Say::Reply(tail.clone())).await;
        assert_ne!(diagnosis.result, Severity::Healthy);
        assert!(step(&diagnosis, StepName::Versions).answer.contains(said), "{diagnosis:#?}");
    }
}

#[tokio::test]
async fn another_program_on_the_port_serves_no_version() {
    let diagnosis = always(|_| Say::Reply(vec![1, 0, 0, 0, 1])).await;
    assert_eq!((diagnosis.result, diagnosis.cause), (Severity::Dead, None));
    assert!(diagnosis.summary.contains("none of the versions"), "{}", diagnosis.summary);
}

#[tokio::test]
async fn a_server_that_answers_null_and_nothing_else_is_unresponsive() {
    let diagnosis = always(|call| match (call.program, call.procedure) {
        (NFS, 0) => Say::Results(Vec::new()),
        _ => Say::Nothing,
    })
    .await;
    assert_eq!((diagnosis.result, diagnosis.cause), (Severity::Dead, Some(Cause::ServerUnresponsive)));
}

/// Everything that it says is well-formed and senseless: a status that there is not, results that are cut short.
#[tokio::test]
async fn senseless_results_prove_nothing() {
    for results in [words(&[77]), Vec::new(), words(&[0, 0, 9]), vec![0xff; 4000]] {
        let diagnosis = always(move |call| match call.procedure {
            0 => Say::Results(Vec::new()),
            _ => Say::Results(results.clone()),
        })
        .await;
        assert_ne!(diagnosis.result, Severity::Healthy, "{}", diagnosis.summary);
        assert_eq!(step(&diagnosis, StepName::ExportPath).outcome, Outcome::Failed);
    }
}

#[tokio::test]
async fn a_path_longer_than_anybody_walks_ends_too() {
    let address = fake::server(|_| Say::Results(Vec::new())).await;
    let diagnosis = diagnosed(address, &"/a".repeat(5000)).await;
    assert_ne!(diagnosis.result, Severity::Healthy);
}

#[test]
fn a_name_with_a_thousand_addresses_is_one_line() {
    use crate::server::dns::{KEPT, Resolution};
    use crate::server::examine::{Examination, NameCheck};
    let addresses = (0..64_u8).map(|host| std::net::Ipv4Addr::new(10, 0, 0, host).into()).collect();
    let resolution = Resolution::Found { addresses, more: 1000 - KEPT };
    let name = Some(NameCheck { name: "srv".to_owned(), resolution, micros: 1 });
    let steps = steps::of(&Examination { name, ..Examination::default() }, "/", steps::Part::Service);
    assert_eq!(steps[0].answer, "10.0.0.0, 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5 and 994 more");
}

#[test]
fn a_list_of_a_hundred_thousand_exports_is_one_line() {
    use crate::server::examine::{Check, Examination};
    use crate::server::mountd::{Export, Exports};
    let exports = (0..256).map(|number| Export { path: format!("/e{number}"), clients: Vec::new() }).collect();
    let list = Exports { exports, count: 20_000, cut: true, holder: None };
    let found = Examination { exports: Some(Check { answer: Ok(list), micros: 1 }), ..Examination::default() };
    let steps = steps::of(&found, "/data", steps::Part::MountService);
    assert_eq!(steps[0].outcome, Outcome::Note);
    assert!(steps[0].answer.ends_with("and at least 19994 more, too many to read"), "{}", steps[0].answer);
    assert!(steps[0].answer.len() < 200);
}
