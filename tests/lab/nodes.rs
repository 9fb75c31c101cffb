//! `nodes`: two nodes of one export in one guest, whose canaries see each other, until one is cut off.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::interrupt;
use crate::surface;
use crate::uml::{Console, End, Guest, Host};

/// What the guest waits for, in this order.
const STATES: [&str; 4] = ["fresh", "fresh", "silent", "fresh"];
const LIMIT: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(200);

/// On the host: whether each node saw the other, and saw that it was cut off and came back.
pub(crate) fn run(agent: &Path) -> Result<bool> {
    interrupt::take()?;
    let host = Host::new(agent)?;
    let out = std::env::temp_dir().join(format!("mwlab-nodes-{}", std::process::id()));
    std::fs::create_dir_all(&out)?;
    let guest =
        Guest { name: "nodes", script: "guest/nodes.sh", out: &out, console: Console::File, arguments: Vec::new() };
    let end = host.boot(&guest).and_then(|guest| guest.wait(LIMIT, || Ok(())));
    let lines = std::fs::read_to_string(out.join("nodes")).unwrap_or_default();
    let logs =
        ["guest.log", "one.log", "two.log"].map(|log| std::fs::read_to_string(out.join(log)).unwrap_or_default());
    std::fs::remove_dir_all(&out)?;
    match end? {
        End::PoweredOff => {}
        End::Interrupted => bail!("interrupted"),
        End::TimedOut => bail!("the guest did not end: {}", logs.join("\n")),
    }
    print!("{lines}");
    let seen: Vec<&str> = lines.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    ensure!(seen == STATES, "seen {seen:?} instead of {STATES:?}: {}", logs.join("\n"));
    Ok(true)
}

/// In the guest: waits until the agent here says `state` of the node `peer`, and prints after how long it did.
pub(crate) fn wait_for(mountpoint: &str, peer: &str, state: &str, limit: f64) -> bool {
    let begin = Instant::now();
    let mut last = String::from("unseen");
    while begin.elapsed().as_secs_f64() < limit {
        let canary = surface::mount(mountpoint).and_then(|mount| mount.canary);
        let known = canary.and_then(|canary| canary.peers.into_iter().find(|known| known.node == peer));
        if let Some(known) = known {
            last = known.state;
        }
        if last == state {
            break;
        }
        std::thread::sleep(POLL);
    }
    println!("{peer} is {last} after {:.1} s", begin.elapsed().as_secs_f64());
    last == state
}
