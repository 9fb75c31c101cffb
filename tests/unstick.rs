//! The built agent releases what keeps a pod in Terminating: real mounts (FUSE, whose daemon is dead), a fake API server,
//! and PID and mount namespaces in which the agent is the host. NFS and hung servers are the lab's part.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod common {
    #![allow(
        dead_code,
        unreachable_pub,
        clippy::indexing_slicing,
        reason = "shared: each test crate uses its part of it"
    )]
    pub mod agent;
    pub mod apiserver;
    pub mod fusefs;
    pub mod process;
    pub mod sandbox;
    pub mod shop;
    pub mod table;
    pub mod wait;
}

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::agent::{Agent, Launch, PROGRAM, mount_at};
use common::apiserver::{Fault, On, Rights, objects};
use common::fusefs::FuseFs;
use common::process::Blockable;
use common::sandbox::Sandbox;
use common::shop::Cluster;
use common::table;
use common::wait::{PATIENCE, eventually};
use mountwarden::snapshot::PodPlan;
use mountwarden::verdict::State;
use serde_json::json;

const UID: &str = "0b2e7d6c-9f0c-4c29-8a40-6d7a1f7e5a11";
const NODE: &str = "n0";
/// A survey, a second look and the release, on a busy machine.
const SOON: Duration = Duration::from_secs(40);

/// A pod `shop/web-0` on a FUSE volume, in a cluster that opted in.
struct Case {
    // Ended first: whoever cleans up below a mount that hangs would hang with it.
    fuse: FuseFs,
    sandbox: Sandbox,
    cluster: Cluster,
    volume: PathBuf,
}

impl Case {
    fn new(test: &str) -> Option<Case> {
        let sandbox = Sandbox::enter(test)?;
        // As in the manifests, whose rights are for it.
        let cluster = Cluster::in_namespace("mountwarden");
        cluster.api.put(objects::node(NODE));
        cluster.api.put(objects::pod("shop", "web-0", UID, NODE));
        let volume = sandbox.path().join(format!("kubelet/pods/{UID}/volumes/kubernetes.io~csi/data/mount"));
        std::fs::create_dir_all(&volume).unwrap();
        let fuse = FuseFs::mount(&volume, &[]);
        Some(Case { fuse, sandbox, cluster, volume })
    }

    /// The agent, as PID 1 of its own world: what it sees is the host.
    fn agent(&self, mode: &str) -> Agent {
        let config = self.sandbox.path().join("config.yaml");
        let unstick = "unstick: {hung: true, hung_after: 60s}";
        std::fs::write(
            &config,
            format!("interval: 1s\ntimeout: 500ms\nslow: 400ms\nremedy: {{mode: {mode}}}\n{unstick}\n"),
        )
        .unwrap();
        let wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let kubeconfig = self.cluster.kubeconfig();
        let flags =
            ["--config", config.to_str().unwrap(), "--node-name", NODE, "--kubeconfig", kubeconfig.to_str().unwrap()];
        Launch::under(&wrapper, PROGRAM, &flags).start()
    }

    /// It is being deleted, and its grace period ended so long ago.
    fn delete(&self, overdue: u64) {
        let at = SystemTime::now() - Duration::from_secs(overdue);
        self.cluster.api.modify("pods", "shop", "web-0", |pod| {
            pod["metadata"]["deletionTimestamp"] = json!(humantime::format_rfc3339_seconds(at).to_string());
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(2);
            pod["metadata"]["finalizers"] = json!(["the-kubelet/is-not-done"]);
        });
    }

    fn kill(&mut self, agent: &Agent) {
        self.fuse.kill();
        agent.eventually(&self.volume, PATIENCE, |mount| mount.state == State::Lost);
    }

    fn plan(&self, agent: &Agent, what: &str, wanted: impl Fn(&PodPlan) -> bool) -> PodPlan {
        let mut last = None;
        eventually(what, SOON, || {
            let plan = agent.snapshot().plan.into_iter().find(|pod| pod.pod_uid == UID);
            let words = plan.as_ref().map(|plan| plan.unstick.clone());
            if words != last {
                // Shown where the test fails.
                println!("{words:?}");
                last = words;
            }
            plan.filter(&wanted)
        })
    }

    fn refused(&self, agent: &Agent, guard: &str) -> PodPlan {
        self.plan(agent, guard, |pod| pod.unstick.guard.as_deref() == Some(guard))
    }

    /// What the agent's own mount table says, read from outside of it.
    fn is_mounted(&self, agent: &Agent) -> bool {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.id())).unwrap();
        let child = children.split_whitespace().next().unwrap();
        let table = std::fs::read_to_string(format!("/proc/{child}/mountinfo")).unwrap();
        table.lines().any(|line| line.split(' ').nth(4).is_some_and(|path| Path::new(path) == self.volume))
    }
}

#[test]
fn a_dead_fuse_mount_of_a_pod_in_terminating_is_taken_away_and_it_is_told() {
    let Some(mut case) = Case::new("a_dead_fuse_mount_of_a_pod_in_terminating_is_taken_away_and_it_is_told") else {
        return;
    };
    let agent = case.agent("enforce");
    case.kill(&agent);
    let plan = case.refused(&agent, "not_terminating");
    assert_eq!((plan.namespace.as_str(), plan.pod.as_str(), plan.state), ("shop", "web-0", State::Lost));
    assert!(case.is_mounted(&agent), "nothing is ever unmounted under a live pod");

    case.delete(1);
    case.refused(&agent, "grace");
    case.delete(60);
    let event = eventually("the Event", SOON, || case.cluster.event("web-0", "MountReleased"));
    assert_eq!((&event["type"], &event["regarding"]["uid"]), (&json!("Normal"), &json!(UID)));
    let note = event["note"].as_str().unwrap();
    assert!(note.starts_with("released /") && note.contains("(lost for ") && note.contains("with 1 calls"), "{note}");
    assert!(!case.is_mounted(&agent));
    eventually("it is not listed any more", PATIENCE, || {
        mount_at(&agent.snapshot(), &case.volume).is_none().then_some(())
    });
    eventually("it is counted", PATIENCE, || {
        agent
            .scrape()
            .0
            .contains("mountwarden_remedies_total{action=\"unstick\",result=\"released\"} 1\n")
            .then_some(())
    });
    assert!((agent.metric("mountwarden_remedy_enabled{action=\"unstick\"}") - 1.0).abs() < 0.1);
    let asked = case.cluster.api.asked_for("GET", "/configmaps/mountwarden-remedy");
    assert!(!asked.is_empty(), "the kill switch was read");
}

#[test]
fn a_hung_fuse_mount_is_aborted_after_its_time_and_frees_who_was_stuck_on_it() {
    let Some(mut case) = Case::new("a_hung_fuse_mount_is_aborted_after_its_time_and_frees_who_was_stuck_on_it") else {
        return;
    };
    let agent = case.agent("enforce");
    agent.eventually(&case.volume, PATIENCE, |mount| mount.state == State::Healthy);
    // It reads requests and answers none, and a killed caller does not come back: as the kubelet's own look.
    case.fuse.order("wedge");
    let mut kubelet = Blockable::start("stat", &["-f".as_ref(), case.volume.as_os_str()]);
    kubelet.wait_until_blocked(PATIENCE);
    agent.eventually(&case.volume, PATIENCE, |mount| mount.state == State::Hung);
    case.delete(60);
    case.refused(&agent, "hung_young");
    assert!(case.is_mounted(&agent) && !kubelet.ended());
    let event =
        eventually("the Event", Duration::from_secs(60) + SOON, || case.cluster.event("web-0", "MountReleased"));
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("(hung for 6") && note.contains("What was not written is lost"), "{note}");
    assert!(!case.is_mounted(&agent));
    kubelet.wait(PATIENCE);
}

#[test]
fn without_a_right_of_the_remedy_variants_nothing_is_released() {
    let Some(mut case) = Case::new("without_a_right_of_the_remedy_variants_nothing_is_released") else { return };
    let manifest = include_str!("../k8s/install-remedy-enforce.yaml");
    let objects: Vec<_> = manifest.split("\n---\n").map(|part| serde_saphyr::from_str(part).unwrap()).collect();
    let rights = Rights::of(&objects, "mountwarden-agent");
    case.delete(60);
    let agent = case.agent("enforce");
    case.kill(&agent);
    let mut table =
        "| right | without it | and the agent says (Event, log, `mountwarden status --plan`) |\n|---|---|---|\n"
            .to_owned();
    for (name, guard) in [("get configmaps mountwarden-remedy", "kill_switch"), ("get pods", "pod_unknown")] {
        let right = rights.iter().find(|right| right.to_string() == name).unwrap();
        case.cluster.api.grant(rights.without(right));
        let plan = case.refused(&agent, guard);
        table +=
            &format!("| {right} | nothing is released (guard `{guard}`) | not released: {} |\n", plan.unstick.words);
    }
    assert!(case.is_mounted(&agent));
    case.cluster.api.grant(rights);
    eventually("the Event", SOON, || case.cluster.event("web-0", "MountReleased"));
    assert!(!case.is_mounted(&agent));
    table::hold("docs/privileges.md", "agent remedy rights", &table);
}

#[test]
fn dry_run_goes_all_the_way_and_touches_nothing() {
    let Some(mut case) = Case::new("dry_run_goes_all_the_way_and_touches_nothing") else { return };
    case.delete(60);
    let agent = case.agent("dry-run");
    case.kill(&agent);
    let event = eventually("the Event", SOON, || case.cluster.event("web-0", "MountReleased"));
    assert!(event["note"].as_str().unwrap().starts_with("dry run: would release /"), "{event}");
    assert!(case.is_mounted(&agent));
    let plan = case.plan(&agent, "it would go", |pod| pod.unstick.go);
    assert_eq!(plan.unstick.words, "1 of its mounts would be released");
    eventually("it is counted", PATIENCE, || {
        agent
            .scrape()
            .0
            .contains("mountwarden_remedies_total{action=\"unstick\",result=\"simulated\"} 1\n")
            .then_some(())
    });
    assert!(agent.metric("mountwarden_remedy_enabled{action=\"unstick\"}").abs() < 0.1);
}

#[test]
fn switches_annotations_and_a_silent_api_server_hold_it_back_and_nothing_else_does() {
    let Some(mut case) = Case::new("switches_annotations_and_a_silent_api_server_hold_it_back_and_nothing_else_does")
    else {
        return;
    };
    case.cluster.stop(Some("true"));
    case.delete(60);
    let agent = case.agent("enforce");
    case.kill(&agent);
    let plan = case.refused(&agent, "kill_switch");
    assert!(plan.unstick.words.contains("says stop"), "{plan:?}");
    assert!(plan.unstick.advice.contains("mountwarden-remedy"), "{plan:?}");
    assert!(agent.metric("mountwarden_remedy_enabled{action=\"unstick\"}").abs() < 0.1);
    eventually("a refusal is told", SOON, || case.cluster.event("web-0", "MountReleaseRefused"));

    // As `mountwarden status --plan` shows it.
    let output = status_plan(&agent);
    assert!(output.contains("shop/web-0  lost") && output.contains("unstick: no (kill_switch)"), "{output}");
    assert!(output.contains("evict: no (gate)") || output.contains("evict: no (terminating)"), "{output}");

    // The switch is lifted, and the pod says no itself.
    case.cluster.annotate("web-0", Some("none"));
    case.cluster.stop(None);
    case.refused(&agent, "forbidden");
    // Within ten minutes of the first: with words of its own all the same.
    let notes = || -> Vec<String> {
        let events = case.cluster.api.objects("events").into_iter();
        let refusals = events.filter(|event| event["reason"] == "MountReleaseRefused");
        refusals.map(|event| event["note"].as_str().unwrap().to_owned()).collect()
    };
    eventually("both refusals can be read", SOON, || {
        let told = |words: &str| notes().iter().any(|note| note.contains(words));
        (told("the kill switch is set") && told("mountwarden.io/remedy on the pod")).then_some(())
    });

    // Nothing stands in the way any more, but the API server does not say so right before the act.
    case.cluster.api.fault(On::path("/pods/web-0"), Fault::Status(500));
    case.cluster.annotate("web-0", None);
    case.refused(&agent, "pod_unknown");
    assert!(case.is_mounted(&agent));

    case.cluster.api.heal();
    eventually("the Event", SOON, || case.cluster.event("web-0", "MountReleased"));
    assert!(!case.is_mounted(&agent));
}

#[test]
fn a_pod_of_the_same_name_is_another_pod() {
    let Some(mut case) = Case::new("a_pod_of_the_same_name_is_another_pod") else { return };
    case.delete(60);
    // The agent's watch hears nothing of what happens next: what it knows is old when it acts.
    let agent = case.agent("dry-run");
    case.kill(&agent);
    eventually("it would act", SOON, || case.cluster.event("web-0", "MountReleased"));
    let other = "1c3f8e7d-9f0c-4c29-8a40-6d7a1f7e5a11";
    case.cluster.api.remove("pods", "shop", "web-0");
    case.cluster.api.put(objects::pod("shop", "web-0", other, NODE));
    let plan = case.refused(&agent, "orphan");
    assert!(plan.pod.is_empty(), "the new pod's name is not the old one's: {plan:?}");
    assert!(case.is_mounted(&agent));
}

/// What the command prints.
fn status_plan(agent: &Agent) -> String {
    let output = Command::new(PROGRAM)
        .args(["status", "--plan", "--address", &agent.ui_address().to_string()])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}
