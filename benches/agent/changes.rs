//! How soon a change of the mount table is seen.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};

use crate::common::agent::{Agent, mount_at};
use crate::common::fusefs::FuseFs;
use crate::common::sandbox::Sandbox;
use crate::common::wait::eventually;
use crate::page::Row;
use crate::scrape::median;

const GOAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// Mounts and unmounts `pairs` times beside `targets` others, each time at another moment of the agent's second.
pub(crate) fn row(agent: &Agent, sandbox: &Sandbox, targets: usize, pairs: usize) -> Row {
    let mut times = Vec::new();
    for pair in 0..pairs {
        let dir = sandbox.dir(&format!("change-{targets}-{pair}"));
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..1500)));
        // Counted from before its daemon is started, which is a few milliseconds too early.
        let begin = Instant::now();
        let fs = FuseFs::mount(&dir, &["--source", "changes"]);
        times.push(until(agent, &dir, true, begin));
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..1500)));
        let begin = Instant::now();
        umount2(&dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).unwrap();
        times.push(until(agent, &dir, false, begin));
        drop(fs);
    }
    times.sort();
    let max = times.last().copied().unwrap_or_default();
    let seconds = |time: Duration| time.as_secs_f64();
    Row::goal(
        format!("A mount or unmount is in `/api/v1/mounts`, beside {targets} targets"),
        format!("median {:.2} s, max {:.2} s of {} changes", seconds(median(&times)), seconds(max), times.len()),
        "below 1 s",
        max < GOAL,
    )
}

fn until(agent: &Agent, dir: &Path, there: bool, begin: Instant) -> Duration {
    eventually("the change is seen", PATIENCE, || (mount_at(&agent.snapshot(), dir).is_some() == there).then_some(()));
    begin.elapsed()
}
