//! `says`: what the log, the metrics, `check` and `diagnose` say of one fault after the other, to be read by people:
//! docs/what-it-says.md is made of it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::interrupt;
use crate::setups::{Setup, chosen};
use crate::surface;
use crate::uml::Host;

const PAGE: &str = "docs/what-it-says.md";
/// Boot, mount, and a dozen faults with their repairs, one of which takes a minute to be explained.
const LIMIT: Duration = Duration::from_secs(900);
const MOUNTPOINT: &str = "/mnt/cl";

/// One fault, and what the agent has to call it (`-`: no cause).
struct Case {
    name: &'static str,
    fault: &'static str,
    what: &'static str,
    state: &'static str,
    cause: &'static str,
    /// What `diagnose` is asked about.
    target: &'static str,
}

macro_rules! cases {
    ($($name:literal $fault:literal $what:literal => $state:literal $cause:literal, $target:expr;)*) => {
        &[$(Case { name: $name, fault: $fault, what: $what, state: $state, cause: $cause, target: $target },)*]
    };
}

#[rustfmt::skip]
const SETUPS: &[Setup<Case>] = &[
    Setup { name: "says-server", environment: "VERS=4.1 CLIENT=by_name CANARY=uid=0 OPTIONS=timeo=150,retrans=2", cases: cases! {
        "dropped" "port_dropped" "A firewall drops port 2049" => "hung" "server_unreachable", MOUNTPOINT;
        "refused" "refused" "NFS is stopped on the server" => "hung" "server_refused", MOUNTPOINT;
        "name-gone" "name_gone" "The server's name is gone" => "healthy" "-", "nfs-server:/";
        "export-gone" "unexport" "The export is removed" => "stale" "export_gone", MOUNTPOINT;
        "mountd" "mountd_stopped" "mountd is stopped" => "hung" "server_unresponsive", MOUNTPOINT;
        "stopped" "process_stopped" "The server process is stopped" => "hung" "server_unresponsive", MOUNTPOINT;
        "read-only" "export_ro" "The export turns read-only" => "readonly" "export_readonly", MOUNTPOINT;
        "squashed" "squash" "Root is squashed" => "denied" "root_squashed", MOUNTPOINT;
        "stuck" "client_stuck" "The client is stuck, the server serves others" => "hung" "client_stuck", MOUNTPOINT;
        "moved" "address_changed" "The server moves to another address" => "hung" "address_changed", MOUNTPOINT;
    } },
    Setup { name: "says-disk", environment: "VERS=4.1 BACKING=ext4 CLIENT=direct CANARY=uid=1000 OPTIONS=timeo=150,retrans=2", cases: cases! {
        "frozen" "freeze" "The server's disk freezes" => "hung" "server_unresponsive", MOUNTPOINT;
        "full" "full" "No space is left" => "full" "out_of_space", MOUNTPOINT;
    } },
    Setup { name: "says-quota", environment: "VERS=4.1 BACKING=quota CLIENT=direct CANARY=uid=1000 OPTIONS=timeo=150,retrans=2", cases: cases! {
        "quota" "quota" "The user's quota is used up" => "full" "quota", MOUNTPOINT;
    } },
    Setup { name: "says-proxy", environment: "VERS=4.1 CLIENT=proxy CANARY=uid=0 OPTIONS=timeo=150,retrans=2", cases: cases! {
        "proxy" "proxy_dead" "EFS over TLS: the local proxy is killed" => "hung" "proxy_dead", MOUNTPOINT;
    } },
];

/// How it is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Says {
    /// The binary that speaks.
    #[arg(long, default_value = "target/release/mountwarden")]
    agent: PathBuf,
    /// Only the set-ups whose name matches (`^says-disk$`).
    #[arg(long, value_name = "REGEX")]
    only: Option<regex::Regex>,
    /// Where the outputs are kept.
    #[arg(long, default_value = "lab-out/says")]
    out: PathBuf,
    /// Makes no run, only the page of the outputs that are there.
    #[arg(long)]
    page: bool,
}

/// On the host: boots the guests one after the other and writes the page once everything was said.
pub(crate) fn run(options: &Says) -> Result<bool> {
    if !options.page {
        interrupt::take()?;
        let host = Host::new(&options.agent)?;
        for setup in chosen(SETUPS, options.only.as_ref()) {
            println!("{}", boot(&host, setup, &std::path::absolute(options.out.join(setup.name))?)?);
        }
    }
    if options.only.is_some() && !options.page {
        return Ok(true);
    }
    std::fs::write(PAGE, page(&options.out)?).with_context(|| format!("write {PAGE}"))?;
    Ok(true)
}

fn boot(host: &Host, setup: &Setup<Case>, out: &Path) -> Result<String> {
    let line = |case: &Case| {
        format!("{}|{}|{}|{}|{}|{}", case.name, case.fault, case.state, case.cause, case.target, write(setup, case))
    };
    let log = setup.run(host, "guest/says.sh", out, LIMIT, line)?;
    if log.contains("never said") || log.contains("failed") {
        bail!("the guest {} saw something else: {log}", setup.name);
    }
    Ok(format!("{}: {} cases", setup.name, setup.cases.len()))
}

/// What a person adds to `diagnose` where reading is well: the agent writes as that user, too.
fn write(setup: &Setup<Case>, case: &Case) -> String {
    let shows = matches!(case.state, "readonly" | "denied" | "full") || case.fault == "freeze";
    let identity = setup.environment.split("CANARY=").nth(1).and_then(|rest| rest.split(' ').next());
    identity.filter(|_| shows).map(|identity| format!("--write={identity}")).unwrap_or_default()
}

const HEAD: &str = "# What happened, and what is said about it

This page is made of real runs in the lab (`make lab-says`): a fault is made on a mount that the agent watches, with a canary
that it writes; what follows each fault is the last line of the agent's log, the series of `/metrics` that are not as
they were, one pass of `mountwarden check`, and the end of `mountwarden diagnose`. Times of day are left out. Everything that
diagnose says on the way stands in [diagnose.md](diagnose.md); what each state and cause means, in [states.md](states.md).

`check` never writes: what only a write can show it calls healthy. The agent's canary sees it, and `diagnose --write`.

| what happened | the agent says | `check` |
|---|---|---|
";

fn page(out: &Path) -> Result<String> {
    let (mut page, mut body) = (HEAD.to_owned(), String::new());
    for (setup, case) in SETUPS.iter().flat_map(|setup| setup.cases.iter().map(move |case| (setup, case))) {
        let read = |kind: &str| {
            let file = out.join(setup.name).join(format!("{}.{kind}", case.name));
            let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            ensure!(kind == "log" || !text.trim().is_empty(), "{} is empty", file.display());
            Ok(text)
        };
        let (log, metrics, check, diagnose) = (read("log")?, read("metrics")?, read("check")?, read("diagnose")?);
        let cause = if case.cause == "-" { String::new() } else { format!(": `{}`", case.cause) };
        let seen = check
            .lines()
            .find_map(|line| line.strip_prefix(MOUNTPOINT))
            .and_then(|rest| rest.split_whitespace().next());
        let seen = seen.unwrap_or("?");
        // It sees whatever reading shows.
        let shows = matches!(case.state, "stale" | "lost") || case.state == "hung" && case.fault != "freeze";
        ensure!(!shows || seen == case.state, "check says {seen} of {}, not {}", case.name, case.state);
        writeln!(page, "| {} | `{}`{cause} | `{seen}` |", case.what, case.state)?;
        writeln!(body, "\n## {}\n", case.what)?;
        if case.state == "healthy" {
            body.push_str("The log says nothing: the mount goes on working with the address that it has.\n\n");
        } else {
            writeln!(body, "The log:\n\n```\n{}\n```\n", without_times(log.trim_end()))?;
        }
        writeln!(body, "The metrics:\n\n```\n{}\n```\n", metrics.trim_end())?;
        writeln!(body, "```\n$ mountwarden check {MOUNTPOINT}\n{}\n```\n", check.trim_end())?;
        let asked = format!("{} {}", write(setup, case), case.target);
        writeln!(body, "```\n$ mountwarden diagnose {}\n...\n{}\n```", asked.trim_start(), conclusion(&diagnose))?;
    }
    Ok(page + &body)
}

/// A log line without its time and without the time since when.
fn without_times(line: &str) -> String {
    let time = regex::Regex::new(r#"(^\S*\d{4}-\d\d-\d\dT\S+\s+|\s?since="?\d{4}-\d\d-\d\dT\S+)"#);
    time.map_or_else(|_| line.to_owned(), |time| time.replace_all(line, "").into_owned())
}

/// What `diagnose` comes to: all after its steps.
fn conclusion(text: &str) -> &str {
    text.find("Result:").and_then(|at| text.get(at..)).unwrap_or(text).trim_end()
}

/// In the guest: looks until the agent says this state and this cause (`-`: none), at most for `limit` seconds.
pub(crate) fn explained(mountpoint: &str, state: &str, cause: &str, limit: f64) -> bool {
    let begin = Instant::now();
    let says = || {
        let mount = surface::mount(mountpoint)?;
        let told = mount.cause.map_or("-", mountwarden::verdict::Cause::as_str);
        (mount.state.as_str() == state && told == cause).then_some(())
    };
    while begin.elapsed().as_secs_f64() < limit {
        if says().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    false
}

/// In the guest: the series of a mount that say what is the matter with it.
pub(crate) fn metrics(mountpoint: &str) -> Result<()> {
    let text = surface::metrics()?;
    let of_mount = format!("mountpoint=\"{mountpoint}\"");
    let told = |line: &&str| {
        let state = line.starts_with("mountwarden_mount_state{") || line.starts_with("mountwarden_mount_cause{");
        line.contains(&of_mount) && (state && line.ends_with(" 1") || line.starts_with("mountwarden_mount_up{"))
    };
    let servers = |line: &&str| line.starts_with("mountwarden_server_up{");
    text.lines().filter(|line| told(line) || servers(line)).for_each(|line| println!("{line}"));
    Ok(())
}
