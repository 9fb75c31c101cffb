//! Debian's prometheus-node-exporter on the same mounts.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::sandbox::Sandbox;
use crate::common::wait::{PATIENCE, eventually};
use crate::page::Row;
use crate::scrape::{describe, get};

const PROGRAM: &str = "/usr/bin/prometheus-node-exporter";
/// What the first scrape of dead mounts gets.
const FIRST_LIMIT: Duration = Duration::from_secs(30);
/// What the later ones get: Prometheus's default.
const LATER_LIMIT: Duration = Duration::from_secs(10);
const LATER: usize = 2;
/// Scrapes of healthy mounts; each takes a tenth of a second.
const HEALTHY: usize = 50;

/// The exporter with its filesystem collector only.
pub(crate) struct Exporter {
    child: Child,
    address: SocketAddr,
}

impl Exporter {
    /// It reads the mounts of PID 1, which lives in another namespace: here `1` leads to whoever asks.
    pub(crate) fn start(sandbox: &Sandbox) -> Exporter {
        let proc_root = sandbox.dir("proc");
        symlink("/proc/self", proc_root.join("1")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--path.procfs={}", proc_root.display()))
            .args(["--collector.disable-defaults", "--collector.filesystem", "--web.disable-exporter-metrics"])
            .args(["--collector.filesystem.mount-points-exclude=^/(proc|sys|dev)($|/)"])
            .args(["--collector.filesystem.fs-types-exclude=^$"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let exporter = Exporter { child: command.spawn().unwrap(), address };
        eventually("the exporter listens", PATIENCE, || get(exporter.address, "/", LATER_LIMIT).ok());
        exporter
    }

    /// All mounts healthy.
    pub(crate) fn healthy(&self) -> Row {
        let mut bodies = Vec::new();
        let times = (0..HEALTHY).map(|_| {
            let (body, took) = get(self.address, "/metrics", FIRST_LIMIT).unwrap();
            bodies.push((shown(&body), body.len()));
            took
        });
        let text = describe(times.collect(), bodies.last().map_or(0, |(_, bytes)| *bytes));
        // It leaves some out at times (17 of 1,000 were seen to lack), which is its own affair.
        let fewest = bodies.iter().map(|(shown, _)| *shown).min().unwrap_or(0);
        assert!(fewest > 500, "the exporter shows {fewest} mounts: it reads another namespace's");
        Row::fact("node_exporter, 1,000 healthy mounts", format!("{text}; at least {fewest} mounts shown"))
    }

    /// Half of them dead.
    pub(crate) fn half_dead(&self) -> Row {
        let mut answers = vec![self.scrape(FIRST_LIMIT)];
        answers.extend((0..LATER).map(|_| self.scrape(LATER_LIMIT)));
        let first = answers.remove(0);
        let text = format!("first: {first}; then: {}", answers.join(", "));
        Row::fact("node_exporter, 1,000 mounts of which 500 hang", text)
    }

    fn scrape(&self, limit: Duration) -> String {
        match get(self.address, "/metrics", limit) {
            Ok((body, took)) => format!("{} mounts after {:.1} s", shown(&body), took.as_secs_f64()),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock) => {
                format!("no answer in {} s", limit.as_secs())
            }
            Err(error) => format!("failed: {error}"),
        }
    }
}

/// Mounts whose size it tells.
fn shown(body: &str) -> usize {
    let sizes = body.lines().filter(|line| line.starts_with("node_filesystem_size_bytes{"));
    sizes.filter(|line| line.contains("fuse.testfs")).count()
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Not waited for: its threads sit in the dead mounts until those are torn down.
        let _ = self.child.try_wait();
    }
}
