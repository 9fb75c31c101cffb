//! `rpcs`: what the agent asks of an NFS server when all is well, as the client's kernel counts it. A figure of
//! `make bench`; nothing passes or fails here.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::interrupt;
use crate::surface;
use crate::uml::{Console, End, Guest, Host};

/// Rounds that are counted. The agent asks for the totals of a filesystem every fourth time, so it is a multiple of four.
const ROUNDS: u64 = 4;
/// Rounds before: in the first ones the agent learns what the directory holds.
const BEFORE: u64 = 2;
/// Boot, mount, and six rounds of 15 seconds.
const LIMIT: Duration = Duration::from_secs(240);

/// On the host: boots the guest and prints its count.
pub(crate) fn run(agent: &Path) -> Result<()> {
    interrupt::take()?;
    let host = Host::new(agent)?;
    let out = std::env::temp_dir().join(format!("mwlab-rpcs-{}", std::process::id()));
    std::fs::create_dir_all(&out)?;
    let guest =
        Guest { name: "rpcs", script: "guest/rpcs.sh", out: &out, console: Console::File, arguments: Vec::new() };
    let end = host.boot(&guest).and_then(|guest| guest.wait(LIMIT, || Ok(())));
    let count = std::fs::read_to_string(out.join("rpcs")).unwrap_or_default();
    let log = std::fs::read_to_string(out.join("guest.log")).unwrap_or_default();
    std::fs::remove_dir_all(&out)?;
    match end? {
        End::PoweredOff if !count.is_empty() => print!("{count}"),
        End::PoweredOff => bail!("the guest left no count: {log}"),
        End::Interrupted => bail!("interrupted"),
        End::TimedOut => bail!("the guest did not end: {log}"),
    }
    Ok(())
}

/// In the guest: prints `rounds N`, then `OPERATION N` for each kind of request that was sent meanwhile.
pub(crate) fn count(mountpoint: &str) -> Result<()> {
    let first = wait_for_round(mountpoint, BEFORE)?;
    let before = operations(mountpoint)?;
    let last = wait_for_round(mountpoint, first + ROUNDS)?;
    let after = operations(mountpoint)?;
    println!("rounds {}", last - first);
    for (name, count) in after {
        let sent = count - before.get(&name).copied().unwrap_or(0);
        if sent > 0 {
            println!("{name} {sent}");
        }
    }
    Ok(())
}

/// Waits until the agent has probed the mount so often; all probes must have been good ones.
fn wait_for_round(mountpoint: &str, wanted: u64) -> Result<u64> {
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        if let Some(mount) = surface::mount(mountpoint) {
            let done: u64 = mount.probes.values().sum();
            ensure!(mount.probes.get("ok").copied().unwrap_or(0) == done, "a probe of {mountpoint} failed");
            if done >= wanted {
                return Ok(done);
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("the agent does not probe {mountpoint}")
}

/// Requests by kind so far: the first number behind each name in the mount's `per-op statistics`.
fn operations(mountpoint: &str) -> Result<BTreeMap<String, u64>> {
    let text = std::fs::read_to_string("/proc/self/mountstats")?;
    let mounted = format!(" mounted on {mountpoint} ");
    let lines = text.lines().skip_while(|line| !line.contains(&mounted)).skip(1);
    let section = lines.take_while(|line| !line.starts_with("device "));
    let rows = section.skip_while(|line| line.trim() != "per-op statistics").skip(1);
    rows.filter(|row| !row.trim().is_empty())
        .map(|row| {
            let (name, numbers) = row.trim().split_once(':').context("a row without a name")?;
            let sent = numbers.split_whitespace().next().context("a row without numbers")?;
            Ok((name.to_owned(), sent.parse()?))
        })
        .collect()
}

/// Starts the agent as its users do, with everything at its default, for as long as `run` takes.
pub(crate) fn beside_agent(run: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut agent = Command::new(surface::AGENT)
        .arg("run")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("start the agent")?;
    let result = run();
    agent.kill()?;
    agent.wait()?;
    result
}
