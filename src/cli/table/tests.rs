use super::*;
use crate::cli::{Exit, nagios};
use crate::mounts::Origin;
use crate::snapshot::{AgentStats, AutofsTrigger, SCHEMA};
use crate::verdict::{Cause, Finding};

const NOW: f64 = 1_800_000_000.0;

fn mount(mountpoint: &str, source: &str, state: State, cause: Option<Cause>, age: f64) -> MountStatus {
    let healthy = state == State::Healthy;
    MountStatus {
        gate: None,
        mountpoint: mountpoint.to_owned(),
        source: source.to_owned(),
        fstype: "nfs4".to_owned(),
        paths: vec![mountpoint.to_owned()],
        path_count: 1,
        dev: "0:52".to_owned(),
        origin: Origin::default(),
        state,
        cause,
        since: NOW - age,
        evidence: if healthy {
            String::new()
        } else {
            "statx_root has been blocked for 12 s (deadline 5 s).".to_owned()
        },
        advice: if healthy {
            String::new()
        } else {
            "Look whether the server runs and is reachable from here: `ping -c 3 10.0.0.1` and `rpcinfo -T tcp 10.0.0.1 nfs`; \
             the mount recovers by itself when it answers again."
                .to_owned()
        },
        inherited: false,
        findings: Vec::new(),
        finding_evidence: std::collections::BTreeMap::new(),
        users: Vec::new(),
        holders: Vec::new(),
        volumes: Vec::new(),
        pod_count: 0,
        blocked_seconds: 0.0,
        last_probe: Some(NOW),
        last_success: None,
        steps: Vec::new(),
        probes: Default::default(),
        transitions: Default::default(),
        filesystem: None,
        nfs: Vec::new(),
        blocked_seconds_total: 0.0,
        canary: None,
        decision: None,
    }
}

fn snapshot(mounts: Vec<MountStatus>) -> Snapshot {
    Snapshot {
        servers: Vec::new(),
        plan: Vec::new(),
        schema: SCHEMA.to_owned(),
        version: "0.1.0".to_owned(),
        node: "n1".to_owned(),
        generated: NOW,
        ready: true,
        interval_seconds: 15.0,
        timeout_seconds: 5.0,
        canary_interval_seconds: 60.0,
        summary: Default::default(),
        mounts,
        pending: Vec::new(),
        pending_count: 0,
        kubelet_mounts: Vec::new(),
        history: Vec::new(),
        autofs: Vec::new(),
        agent: AgentStats::default(),
    }
}

fn healthy(mountpoint: &str) -> MountStatus {
    mount(mountpoint, "10.0.0.1:/export", State::Healthy, None, 7200.0)
}

/// One of each severity, with all that the footer can say.
fn mixed() -> Snapshot {
    let mut shared = healthy("/mnt/shared");
    shared.path_count = 200;
    shared.findings = vec![Finding::MaybeReplaced];
    let mut inherited = mount("/mnt/b", "10.0.0.1:/export/b", State::Hung, Some(Cause::ServerRefused), 250.0);
    inherited.inherited = true;
    let mut snapshot = snapshot(vec![
        healthy("/mnt/ok"),
        mount("/mnt/slow", "10.0.0.2:/x", State::Slow, Some(Cause::Unknown), 30.0),
        mount("/mnt/a", "10.0.0.1:/export/a", State::Hung, Some(Cause::ServerUnresponsive), 400_000.0),
        inherited,
        shared,
        mount("/mnt/new", "fuse", State::Unknown, None, -5.0),
    ]);
    snapshot.ready = false;
    snapshot.autofs = vec![AutofsTrigger { mountpoint: "/net".to_owned(), source: "-hosts".to_owned() }];
    snapshot.agent.host_error = Some("/proc/1/mountinfo: Permission denied (os error 13)".to_owned());
    snapshot.agent.mountinfo_errors_total = 2;
    snapshot
}

/// Names that are long, wide, or meant to harm the terminal.
fn nasty() -> Snapshot {
    let long = format!("/var/lib/kubelet/pods/*/volumes/kubernetes.io~nfs/{}", "very-long-volume-name-".repeat(8));
    let mut evil = mount(
        "/mnt/a\u{1b}[2J\nb | rta=0 \u{202e}c",
        "srv:/\u{65e5}\u{672c}",
        State::Stale,
        Some(Cause::HandleInvalid),
        1.0,
    );
    evil.evidence = format!("statx said \u{1b}]0;owned\u{7} ESTALE at {}", "x".repeat(300));
    snapshot(vec![
        evil,
        mount(&long, &"fs-0123456789abcdef0:/".repeat(9), State::Lost, Some(Cause::FilesystemReplaced), 90.0),
        mount(&"/mnt/\u{65e5}\u{672c}\u{8a9e}".repeat(20), "srv:/x", State::Healthy, None, 90.0),
    ])
}

#[expect(clippy::disallowed_methods, reason = "a file of the source tree, written only when asked to")]
fn compare(name: &str, found: &str) {
    let path = format!("{}/tests/fixtures/table/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "UPDATE_FIXTURES=1 writes {path}");
}

#[test]
fn the_table_looks_as_it_should() {
    compare("none", &render(&snapshot(Vec::new()), false));
    compare("one", &render(&snapshot(vec![healthy("/mnt/ok")]), false));
    compare("mixed", &render(&mixed(), false));
    compare("mixed-colours", &render(&mixed(), true));
    compare("nasty", &render(&nasty(), false));
}

#[test]
fn no_line_is_wider_than_a_hundred_columns_and_none_moves_the_cursor() {
    for snapshot in [mixed(), nasty()] {
        let table = render(&snapshot, false);
        for line in table.lines() {
            assert!(width(line) <= COLUMNS, "{} columns: {line}", width(line));
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}

#[test]
fn colours_change_nothing_but_the_colours() {
    let plain = render(&mixed(), false);
    let mut painted = render(&mixed(), true);
    assert_ne!(plain, painted);
    for code in ["1;31", "33", "36", "32", "0"] {
        painted = painted.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(plain, painted);
}

#[test]
fn the_nagios_line_looks_as_it_should() {
    let line = |snapshot: &Snapshot, strangers: &[String]| {
        nagios::line(snapshot, strangers, Exit::of(snapshot, !strangers.is_empty()))
    };
    let all = [
        line(&snapshot(Vec::new()), &[]),
        line(&snapshot(vec![healthy("/mnt/ok")]), &["/mnt/x".to_owned()]),
        line(&mixed(), &[]),
        line(&nasty(), &[]),
        line(
            &snapshot(
                (0..9).map(|n| mount(&format!("/mnt/{n}"), "s:/", State::Full, Some(Cause::Quota), 1.0)).collect(),
            ),
            &[],
        ),
        nagios::unknown("no agent\nanswers | rta=0"),
    ];
    for line in &all {
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        assert!(line.matches('|').count() <= 1, "{line:?}");
    }
    compare("nagios", &all.concat());
}

#[test]
fn the_worst_mount_decides_the_exit_code() {
    let exit = |states: &[State], untold| {
        let mounts = states.iter().map(|state| mount("/mnt/a", "s:/", *state, None, 1.0)).collect();
        Exit::of(&snapshot(mounts), untold).code()
    };
    assert_eq!(exit(&[], false), 0);
    assert_eq!(exit(&[], true), 3);
    assert_eq!(exit(&[State::Healthy], false), 0);
    assert_eq!(exit(&[State::Healthy, State::Unknown], false), 3);
    assert_eq!(exit(&[State::Unknown, State::Slow], true), 1);
    assert_eq!(exit(&[State::Slow, State::Unknown, State::Stale], true), 2);
    for state in State::ALL {
        let expected = match state {
            State::Healthy => 0,
            State::Slow | State::Readonly | State::Denied | State::Full => 1,
            State::Unknown => 3,
            State::Hung | State::Stale | State::Lost | State::Corrupt | State::Error => 2,
        };
        assert_eq!(exit(&[state], false), expected, "{state}");
    }
}
