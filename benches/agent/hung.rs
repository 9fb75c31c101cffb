//! How soon mounts that stop answering all at once are known.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mountwarden::verdict::State;

use crate::common::agent::Agent;
use crate::common::fusefs::FuseFs;
use crate::common::sandbox::Sandbox;
use crate::common::wait::eventually;
use crate::page::Row;

/// Workers that may be busy at a time (`workers.max`).
const WORKERS: u32 = 128;
/// Shorter than the defaults, in about their proportion: the formula has both.
const INTERVAL: Duration = Duration::from_secs(6);
const DEADLINE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(120);

/// A moment on both clocks: ours, and the one that the agent stamps its verdicts with.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    monotonic: Instant,
    unix: f64,
}

impl Moment {
    pub(crate) fn now() -> Moment {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        Moment { monotonic: Instant::now(), unix }
    }
}

/// So many healthy superblocks hang in one moment.
pub(crate) fn all_at_once(sandbox: &Sandbox, count: usize) -> Row {
    let mut fs = FuseFs::mount_many(&sandbox.dir(&format!("dead-{count}")), count, &[]);
    let agent = Agent::start(&["--interval", "6s", "--timeout", "2s"]);
    // Two rounds later their turns are spread over the interval as they are on a node that runs for a while.
    std::thread::sleep(INTERVAL * 2);
    let begin = Moment::now();
    fs.order("hang");
    let what = format!("{count} targets hang at once");
    row(&agent, fs.mounts(), begin, INTERVAL, DEADLINE, &what)
}

/// Waits until all of `dead` are hung and says how long that took, from the fault to the verdict and to the API.
pub(crate) fn row(
    agent: &Agent,
    dead: &[PathBuf],
    begin: Moment,
    interval: Duration,
    deadline: Duration,
    what: &str,
) -> Row {
    let mut judged = HashMap::new();
    let mut published = Duration::ZERO;
    eventually("all are hung", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(100));
        let snapshot = agent.snapshot();
        for mount in snapshot.mounts.iter().filter(|mount| mount.state == State::Hung) {
            judged.entry(PathBuf::from(&mount.mountpoint)).or_insert(mount.since - begin.unix);
        }
        published = begin.monotonic.elapsed();
        dead.iter().all(|dir| judged.contains_key(dir)).then_some(())
    });
    let mut times: Vec<f64> = dead.iter().filter_map(|dir| judged.get(dir)).copied().collect();
    times.sort_by(f64::total_cmp);
    let last = times.last().copied().unwrap_or_default();
    let turns = u32::try_from(dead.len()).unwrap().div_ceil(WORKERS);
    let allowed = (interval + deadline * turns).as_secs_f64();
    Row::goal(
        format!("{what} (interval {} s, deadline {} s)", interval.as_secs(), deadline.as_secs()),
        format!(
            "the last one is judged after {last:.1} s, median {:.1} s; all are in `/api/v1/mounts` after {:.1} s",
            times.get(times.len() / 2).copied().unwrap_or_default(),
            published.as_secs_f64()
        ),
        &format!("interval + {turns} x deadline = {allowed} s"),
        published.as_secs_f64() <= allowed,
    )
}
