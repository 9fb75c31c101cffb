//! What a thousand mounts cost the process that renders them: memory at its peak, time, bytes. A test of its own, so that
//! nothing else is in the process; run it with `--no-capture` (nextest) or `--nocapture` to see the figures.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use mountwarden::http::HttpState;
use mountwarden::metrics;
use mountwarden::snapshot::Snapshot;
use mountwarden::verdict::State;
use nix::time::{ClockId, clock_gettime};

const MOUNTS: usize = 1000;

/// Half of them hung, on paths and servers as long as a cluster has them.
fn crowd() -> Snapshot {
    let mut snapshot: Snapshot = serde_json::from_str(include_str!("fixtures/golden/snapshot.json")).expect("fixture");
    let pick =
        |state| snapshot.mounts.iter().find(|mount| mount.state == state).cloned().expect("a mount of the fixture");
    let (healthy, hung) = (pick(State::Healthy), pick(State::Hung));
    snapshot.mounts = (0..MOUNTS)
        .map(|index| {
            let mut mount = if index % 2 == 0 { healthy.clone() } else { hung.clone() };
            mount.mountpoint = format!("/var/lib/kubelet/pods/*/volumes/kubernetes.io~nfs/pvc-{index:04}");
            mount.source = format!("nfs-{:02}.storage.example.com:/exports/team-{index:04}", index % 20);
            mount.paths = vec![mount.mountpoint.replace('*', "0a1b2c3d-0a1b-4c5d-8e9f-0a1b2c3d4e5f")];
            mount
        })
        .collect();
    snapshot
}

/// Peak resident memory of this process in KiB (`VmHWM`, proc_pid_status(5)).
fn peak_kib() -> u64 {
    let status = String::from_utf8(
        mountwarden::localfs::read_kernel_file(std::path::Path::new("/proc/self/status")).expect("procfs"),
    )
    .expect("text");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// CPU time of this thread: a loaded machine does not change it.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock of every Linux").into()
}

#[test]
fn a_thousand_mounts_stay_within_the_memory_budget() {
    let state = HttpState::new().expect("thread");
    let first = Arc::new(Snapshot { ready: false, ..crowd() });
    let last = Arc::new(crowd());
    let before = peak_kib();

    // Two generations: the old bodies and the new ones exist side by side until they are swapped.
    state.publish(first);
    wait_for("mw-render has the first", || peak_kib() > before + 1024);
    state.publish(last.clone());
    wait_for("the last is rendered", || state.ready());
    let grown = peak_kib() - before;

    let begin = cpu_time();
    let text = metrics::render(&last, None).expect("render");
    let took = cpu_time() - begin;
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    println!(
        "{MOUNTS} mounts: {series} series, {} bytes, {took:?} of CPU; peak memory grew by {grown} KiB",
        text.len()
    );
    assert!(grown < 18 * 1024, "peak memory grew by {grown} KiB");
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
