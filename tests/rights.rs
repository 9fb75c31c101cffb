//! What each right of the coordinator's account is for: the real binary against an API server that enforces the manifests'
//! roles, with all of them and with each taken away in turn. The table in docs/privileges.md is made here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common {
    #![allow(
        dead_code,
        unreachable_pub,
        clippy::indexing_slicing,
        reason = "shared: each test crate uses its part of it"
    )]
    pub mod apiserver;
    pub mod shop;
    pub mod table;
    pub mod wait;
}

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::apiserver::{Right, Rights};
use common::shop::Cluster;
use common::wait::eventually;
use serde_json::{Value, json};

const NAMESPACE: &str = "mountwarden";

/// A round takes 5 s, a refusal is read again after 6, and the machine is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A coordinator with its log in a file.
struct Coordinator {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Coordinator {
    fn start(cluster: &Cluster) -> Coordinator {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mountwarden"));
        command
            .args(["coordinate", "--remedy-mode", "enforce", "--listen", "127.0.0.1:0", "--listen-ui", ""])
            .env("KUBECONFIG", cluster.kubeconfig())
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdin(Stdio::null())
            .stdout(log.reopen().unwrap());
        Coordinator { child: command.spawn().unwrap(), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rights() -> Rights {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s/install-remedy-enforce.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let objects: Vec<Value> = text.split("\n---\n").map(|part| serde_saphyr::from_str(part).unwrap()).collect();
    Rights::of(&objects, "mountwarden-coordinator")
}

/// A rescue with two refusals before it; how far it came.
struct Rescue {
    cluster: Cluster,
    coordinator: Coordinator,
    asked: Instant,
    stage: Stage,
}

/// What is asked for. The same guard says no twice, since only its second Event is counted up: the request is withdrawn in
/// between, and so forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Unknown,
    Withdrawn,
    UnknownAgain,
    Same,
}

const STEPS: [&str; 6] = ["refused", "refused again", "evicted", "told", "remembered", "ended"];

impl Rescue {
    fn begin(rights: Rights, with_history: bool) -> Rescue {
        let cluster = Cluster::in_namespace(NAMESPACE);
        if with_history {
            cluster.begin_history();
        }
        cluster.stop(Some("false"));
        cluster.web(1);
        cluster.api.grant(rights);
        let coordinator = Coordinator::start(&cluster);
        let rescue = Rescue { cluster, coordinator, asked: Instant::now(), stage: Stage::Unknown };
        rescue.ask();
        rescue
    }

    fn ask(&self) {
        let mut request = self.cluster.request("web-0", "u0");
        if self.stage != Stage::Same {
            request["gate"]["root"] = json!("unknown");
        }
        let requests = if self.stage == Stage::Withdrawn { &[][..] } else { &[request][..] };
        self.cluster.asks("n0", requests);
    }

    /// Goes one step on where it can, and says which steps are done.
    fn go_on(&mut self) -> BTreeSet<&'static str> {
        let mut done = BTreeSet::new();
        let mut done_if = |step: &'static str, is: bool| is.then(|| done.insert(step)).is_some();
        let refusal = self.cluster.event("web-0", "MountEvictionRefused");
        let times = refusal.as_ref().map(|event| event["series"]["count"].as_u64().unwrap_or(1));
        let said = |times: usize| self.coordinator.log().matches("guard=\"gate_unknown\"").count() >= times;
        let refused = done_if("refused", times.is_some());
        let again = done_if("refused again", times > Some(1));
        let evicted = done_if("evicted", self.cluster.evictions().iter().any(|asked| asked.status == 201));
        done_if("told", self.cluster.event("web-0", "MountEvictionRequested").is_some());
        let record = self.cluster.history("enforce")["records"][0].clone();
        done_if("remembered", record["uid"] == "u0");
        let ended = done_if("ended", record["stage"]["done"]["at"].is_i64());
        let waited = self.asked.elapsed() > Duration::from_secs(10);
        let stage = match self.stage {
            Stage::Unknown if refused || said(1) => Stage::Withdrawn,
            // A round takes 5 s; one that came later has forgotten nothing, and it is withdrawn once more.
            Stage::Withdrawn if waited => Stage::UnknownAgain,
            Stage::UnknownAgain if again || said(2) => Stage::Same,
            Stage::UnknownAgain if waited => Stage::Withdrawn,
            stage => stage,
        };
        if evicted && !ended && self.cluster.api.object("pods", "shop", "web-9").is_none() {
            self.cluster.replaced("web-0", "web-9", "u9", true);
        }
        if !evicted && (stage != self.stage || waited) {
            (self.stage, self.asked) = (stage, Instant::now());
            self.ask();
        }
        done
    }

    fn until(&mut self, undone: &[&str]) {
        eventually("the rescue comes so far", PATIENCE, || {
            let done = self.go_on();
            STEPS.iter().all(|step| undone.contains(step) || done.contains(step)).then_some(())
        });
    }

    /// What it says about a right that is missing, without the time and the fields of the line.
    fn complaint(&self) -> Option<String> {
        let log = self.coordinator.log();
        let line =
            log.lines().find(|line| line.contains(" mountwarden::coordinator::") && line.contains("is forbidden"))?;
        let words = line.split_once(" mountwarden::coordinator::")?.1.split_once(": ")?.1;
        let end = words.find("(403 Forbidden)").map_or(words.len(), |at| at + "(403 Forbidden)".len());
        Some(words[..end].replace("system:serviceaccount:mountwarden:", "..."))
    }
}

/// The steps that cannot be made without this right, and what that means. `None`: it depends on when what is read.
fn without(right: &Right) -> (Option<&'static [&'static str]>, &'static str) {
    const NOTHING: Option<&[&str]> = Some(&STEPS);
    const NO_RESCUE: Option<&[&str]> = Some(&["evicted", "told", "remembered", "ended"]);
    match right.to_string().as_str() {
        "list nodemounts.mountwarden.io" => (NOTHING, "no request is heard"),
        "watch nodemounts.mountwarden.io" => (None, "requests are heard late"),
        "get pods" => (NOTHING, "nobody is evicted"),
        "list pods"
        | "get namespaces"
        | "get nodes"
        | "get persistentvolumeclaims"
        | "get persistentvolumes"
        | "get replicasets.apps"
        | "list poddisruptionbudgets.policy" => (NO_RESCUE, "nobody is evicted (guard `unread`)"),
        "create pods/eviction" => (Some(&["evicted", "told", "ended"]), "nobody is evicted (guard `not_allowed`)"),
        "create events.events.k8s.io" => (Some(&["refused", "refused again", "told"]), "no Event; evictions go on"),
        "patch events.events.k8s.io" => (Some(&["refused again"]), "an Event is not counted up; evictions go on"),
        "get leases.coordination.k8s.io mountwarden-coordinator" | "create leases.coordination.k8s.io" => {
            (NOTHING, "nobody leads, so nobody is evicted")
        }
        "update leases.coordination.k8s.io mountwarden-coordinator" => (None, "it leads for 12 s, and nobody after it"),
        "get configmaps mountwarden-history" => (NOTHING, "nobody is evicted"),
        "create configmaps" => (NOTHING, "no history is begun, so nobody is evicted; needed once"),
        "update configmaps mountwarden-history" => (NO_RESCUE, "nobody is evicted (guard `history`)"),
        "get configmaps mountwarden-remedy" => (NOTHING, "nobody is evicted: the kill switch counts as set"),
        other => panic!("{other} is granted, and nobody says what for"),
    }
}

#[test]
fn each_right_of_the_coordinator_is_missed_and_its_absence_told() {
    let rights = rights();
    let rows = std::thread::scope(|scope| {
        let runs: Vec<_> = rights
            .iter()
            .map(|right| {
                let rights = &rights;
                scope.spawn(move || {
                    let (undone, means) = without(right);
                    let mut rescue = Rescue::begin(rights.without(right), right.to_string() != "create configmaps");
                    let said = eventually("what is missing is said", PATIENCE, || {
                        let done = rescue.go_on();
                        let far = undone
                            .is_none_or(|undone| STEPS.iter().all(|step| undone.contains(step) || done.contains(step)));
                        rescue.complaint().filter(|_| far)
                    });
                    let done = rescue.go_on();
                    let undone = undone.unwrap_or_default();
                    assert!(!undone.iter().any(|step| done.contains(step)), "without {right}: {done:?}");
                    format!("| {right} | {means} | {said} |")
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
    });
    let head = "| right | without it | and the coordinator says |\n|---|---|---|\n";
    common::table::hold("docs/privileges.md", "coordinator rights", &(head.to_owned() + &rows.join("\n")));
}

#[test]
fn all_rights_of_the_coordinator_are_used_and_no_other() {
    let rights = rights();
    let mut rescue = Rescue::begin(rights.clone(), true);
    rescue.until(&[]);
    let mut used = rights.used(&rescue.cluster.api.asked());
    assert_eq!(rescue.complaint(), None);
    // The first coordinator of a cluster makes the Lease and the history.
    let fresh = Rescue::begin(rights.clone(), false);
    eventually("a history is begun", PATIENCE, || fresh.cluster.history("enforce")["began"].is_i64().then_some(()));
    used.extend(rights.used(&fresh.cluster.api.asked()));
    let granted: BTreeSet<Right> = rights.iter().cloned().collect();
    assert_eq!(used, granted, "granted and not used, or the other way round");
}
