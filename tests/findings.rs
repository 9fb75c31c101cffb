//! Findings on the agent's whole surface: JSON, table, metrics, page and log, silenced by name, changed by a remount.
//!
//! The mounts stand in a mount table alone, so nothing but the table can be known of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared: each test crate uses its part of it")]
    pub mod agent;
    pub mod wait;
}

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::agent::{Agent, Launch, PROGRAM, mount_at};
use common::wait::{PATIENCE, eventually};
use mountwarden::snapshot::Snapshot;
use mountwarden::verdict::Finding;
use nix::sys::signal::Signal;

const USUAL: &str = "vers=4.2,rsize=1048576,wsize=1048576,hard,proto=tcp,timeo=600,retrans=2,addr=127.0.0.9";

/// A directory with a mount table and a configuration.
struct Node(tempfile::TempDir);

impl Node {
    /// NFS mounts that exist in the table alone: (mountpoint, device, superblock options).
    fn new(mounts: &[(&str, u32, &str)]) -> Node {
        let node = Node(tempfile::tempdir().unwrap());
        node.mount(mounts);
        node.configure("");
        node
    }

    fn mount(&self, mounts: &[(&str, u32, &str)]) {
        let mut table = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned();
        for (id, (path, dev, options)) in (10..).zip(mounts) {
            table += &format!("{id} 1 0:{dev} / {path} rw - nfs4 127.0.0.9:/data rw,{options}\n");
        }
        for process in ["self", "1"] {
            let directory = self.0.path().join("proc").join(process);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("mountinfo"), &table).unwrap();
        }
    }

    fn configure(&self, more: &str) {
        std::fs::write(self.path("config.yaml"), format!("interval: 1s\ntimeout: 500ms\nslow: 400ms\n{more}")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn flags(&self) -> [String; 4] {
        let text = |name: &str| self.path(name).to_str().unwrap().to_owned();
        ["--config".to_owned(), text("config.yaml"), "--proc-root".to_owned(), text("proc")]
    }

    fn start(&self) -> Agent {
        let flags = self.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--log-format", "json"]).collect();
        Launch::new(&flags).log_to(File::create(self.path("log")).unwrap()).start()
    }

    /// The log lines about findings so far.
    fn logged(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path("log")).unwrap();
        log.lines().filter(|line| line.contains("\"finding\":")).map(str::to_owned).collect()
    }
}

fn findings(snapshot: &Snapshot, path: &str) -> Vec<Finding> {
    mount_at(snapshot, Path::new(path)).expect("the mount is listed").findings
}

#[test]
fn a_finding_is_in_the_json_the_metrics_the_page_and_once_in_the_log() {
    let soft = USUAL.replace("hard", "soft");
    let node = Node::new(&[("/nowhere/soft", 40, &soft), ("/nowhere/usual", 41, &USUAL.replace("0.9", "0.8"))]);
    let mut agent = node.start();
    let snapshot = agent.snapshot();
    assert_eq!(findings(&snapshot, "/nowhere/soft"), [Finding::SoftWritable]);
    assert_eq!(findings(&snapshot, "/nowhere/usual"), []);
    let series = "mountwarden_mount_finding{mountpoint=\"/nowhere/soft\",source=\"127.0.0.9:/data\",fstype=\"nfs4\",\
        finding=\"soft_writable\"}";
    assert!((agent.metric(series) - 1.0).abs() < f64::EPSILON);
    assert!(agent.ui("/").unwrap().body.contains(Finding::SoftWritable.means()));
    // Several probes later it was still said once.
    let probes = |agent: &Agent| -> u64 {
        mount_at(&agent.snapshot(), Path::new("/nowhere/soft")).unwrap().probes.values().sum()
    };
    let first = probes(&agent);
    eventually("more probes", PATIENCE, || (probes(&agent) > first + 1).then_some(()));
    assert!(agent.terminate().0.success());
    let logged = node.logged();
    assert_eq!(logged.len(), 1, "{logged:#?}");
    for part in ["soft_writable", "/nowhere/soft", "INFO", "consequence", "advice"] {
        assert!(logged[0].contains(part), "{part}: {}", logged[0]);
    }
}

#[test]
fn findings_follow_the_table_and_the_configuration() {
    let soft = USUAL.replace("hard", "soft");
    let node = Node::new(&[("/nowhere/a", 40, USUAL)]);
    let agent = node.start();
    assert_eq!(findings(&agent.snapshot(), "/nowhere/a"), []);
    // A second mount of the same export, with options of its own: both have a finding now.
    node.mount(&[("/nowhere/a", 40, USUAL), ("/nowhere/b", 41, &soft)]);
    agent.signal(Signal::SIGHUP);
    let has = |path: &'static str, wanted: &'static [Finding]| {
        agent.eventually(Path::new(path), PATIENCE, |mount| mount.findings == wanted);
    };
    has("/nowhere/a", &[Finding::MixedOptions]);
    has("/nowhere/b", &[Finding::SoftWritable, Finding::MixedOptions]);
    node.configure("findings: {silence: [mixed_options]}\n");
    agent.signal(Signal::SIGHUP);
    has("/nowhere/a", &[]);
    has("/nowhere/b", &[Finding::SoftWritable]);
    node.mount(&[("/nowhere/a", 40, USUAL)]);
    agent.signal(Signal::SIGHUP);
    eventually("the other mount is gone", PATIENCE, || {
        mount_at(&agent.snapshot(), Path::new("/nowhere/b")).is_none().then_some(())
    });
    let logged = node.logged();
    assert_eq!(logged.len(), 3, "{logged:#?}");
}

#[test]
fn check_prints_them_and_its_exit_code_does_not_mind() {
    let soft = USUAL.replace("hard", "soft");
    let exit_and_text = |options: &str| {
        let node = Node::new(&[("/nowhere/a", 40, options)]);
        let output = Command::new(PROGRAM).arg("check").args(node.flags()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = exit_and_text(&soft);
    assert!(text.contains("finding: soft_writable: "), "{text}");
    assert_eq!(exit_and_text(USUAL).0, code);
}
