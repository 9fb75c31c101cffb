//! `prometheus`: the rules and dashboards as people run them. Two nodes with real NFS mounts in a guest, the real
//! Prometheus and Alertmanager on the loopback of the host, and a receiver that counts notifications. Beside them the real
//! coordinator on a fake API server (`rescue`).
//!
//! The guest has no network to the host: its agents' `/metrics` come through a file once a second, which a listener here
//! serves to Prometheus. What the agent did not answer is not served. All times of the rules are [`SCALE`] times shorter.

mod boards;
#[path = "../common/coordinator.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "shared with the tests")]
mod coordinator;
mod record;
mod rescue;
mod services;
#[path = "../common/shop.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "shared with the tests")]
mod shop;
#[path = "../common/wait.rs"]
#[allow(unreachable_pub, clippy::panic, reason = "shared with the tests")]
mod wait;
mod web;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::interrupt;
use crate::story::apiserver;
use crate::uml::{Console, Guest, Host, Running};
use rescue::Rescue;
use services::Services;
use web::{Notification, Web};

/// So many times shorter are `for`, `keep_firing_for`, intervals and ranges of the rules, and Alertmanager's waits.
const SCALE: u32 = 10;
/// Directories that each of the two nodes mounts.
const MOUNTS: usize = 3;
const NODES: [&str; 2] = ["one", "two"];
/// The slowest step: mounts that heal after a cut, with `keep_firing_for` and a group interval behind it.
const LIMIT: Duration = Duration::from_secs(120);
/// Longer than Alertmanager's (scaled) group interval: what else belongs to an incident has come by then.
const QUIET: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(200);

/// What `make lab-prometheus` writes, beside `lab-out/prometheus/`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The binary under test.
    #[arg(long, default_value = "target/release/mountwarden")]
    agent: PathBuf,
    /// Write the run's series into alerts/lab_test.yaml, for promtool.
    #[arg(long)]
    record: bool,
}

/// One thing that happens to the server, and what has to follow.
struct Act {
    name: &'static str,
    /// What the guest is told, and what ends it.
    fault: &'static str,
    repair: &'static str,
    /// The alert that is to be notified, for so many instances, and no other.
    alert: &'static str,
    alerts: usize,
    /// All that fires meanwhile, most of it inhibited.
    firing: &'static [(&'static str, usize)],
    /// A pod asks to be rescued meanwhile.
    rescue: bool,
}

const ACTS: [Act; 3] = [
    Act {
        name: "the server is silent for both nodes",
        fault: "drop",
        repair: "heal",
        alert: "NetworkServerDead",
        alerts: 1,
        firing: &[("NetworkMountHung", 2 * MOUNTS), ("NetworkServerDead", 1)],
        rescue: false,
    },
    Act {
        name: "the server comes back with another filesystem; then both nodes mount anew",
        fault: "swap",
        repair: "remount",
        alert: "NetworkServerDead",
        alerts: 1,
        firing: &[("NetworkMountStale", 2 * MOUNTS), ("NetworkServerDead", 1)],
        rescue: true,
    },
    Act {
        name: "one of the two nodes is cut off",
        fault: "cut_two",
        repair: "join_two",
        alert: "NetworkMountHung",
        alerts: MOUNTS,
        firing: &[("NetworkMountHung", MOUNTS)],
        rescue: false,
    },
];

/// When something was done.
pub(crate) struct Moment {
    at: Instant,
    what: String,
    /// What must fire then, with how many instances; none: nobody looked.
    firing: Option<Vec<(&'static str, usize)>>,
}

struct Run {
    out: PathBuf,
    guest: Option<Running>,
    web: Arc<Web>,
    rescue: Rescue,
    services: Services,
    begin: Instant,
    moments: Vec<Moment>,
}

/// Whether every act was told by exactly the notifications that it should be, and every panel shows data.
pub(crate) fn run(options: &Options) -> Result<bool> {
    interrupt::take()?;
    let host = Host::new(&options.agent)?;
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab-out/prometheus");
    let _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir_all(&out)?;
    let guest = Guest {
        name: "prometheus",
        script: "guest/prometheus.sh",
        out: &out,
        console: Console::File,
        arguments: vec![],
    };
    let guest = host.boot(&guest)?;
    let web = Web::start(&out, &NODES)?;
    let rescue = Rescue::start(&options.agent);
    let services = Services::start(&out, &web, rescue.address(), SCALE)?;
    let mut run = Run { out, guest: Some(guest), web, rescue, services, begin: Instant::now(), moments: Vec::new() };
    let told = run.play();
    if let Err(error) = &told {
        println!("{error:#}");
    }
    let boards = boards::ask(&run.services)?;
    run.report(&boards)?;
    if options.record && told.is_ok() {
        record::write(&run.web.scrapes(), &run.moments, SCALE)?;
    }
    run.end()?;
    Ok(told.is_ok() && boards.is_well())
}

impl Run {
    fn play(&mut self) -> Result<()> {
        let healthy = format!("count(mountwarden_mount_state{{state=\"healthy\"}} == 1) == {}", MOUNTS * NODES.len());
        self.until("all mounts are healthy", &healthy)?;
        self.note("all mounts are healthy");
        for act in &ACTS {
            self.act(act, &healthy)?;
        }
        self.bad_configuration()
    }

    fn act(&mut self, act: &Act, healthy: &str) -> Result<()> {
        // What rate() and increase() look back over.
        self.wait_for(QUIET / 2)?;
        let before = self.web.notifications().len();
        self.note(act.name);
        self.order(act.fault)?;
        let first = self.notification(before)?;
        self.note(&format!("notified: {first}"));
        ensure!(
            first.status == "firing" && first.alert == act.alert && first.alerts == act.alerts,
            "{}: the first notification is {first}, not {} of {}",
            act.name,
            act.alerts,
            act.alert
        );
        if act.rescue {
            self.rescue()?;
        }
        self.wait_for(QUIET)?;
        let others: Vec<String> = self.web.notifications()[before + 1..].iter().map(ToString::to_string).collect();
        ensure!(others.is_empty(), "{}: more than one notification: {others:?}", act.name);
        self.look(act.firing)?;
        self.order(act.repair)?;
        self.note(&format!("repaired ({})", act.repair));
        self.until("all mounts are healthy again", healthy)?;
        self.note("all mounts are healthy again");
        let last = self.notification(before + 1)?;
        self.note(&format!("notified: {last}"));
        ensure!(last.status == "resolved" && last.alert == act.alert, "{}: {last} in place of its end", act.name);
        self.until("no alert is left", "absent(ALERTS{alertstate=\"firing\"})")?;
        self.wait_for(QUIET / 2)?;
        self.look(&[])
    }

    /// Seen, and mended before anybody is told.
    fn bad_configuration(&mut self) -> Result<()> {
        self.order("spoil")?;
        self.until("the configuration is bad", "mountwarden_config_ok == 0")?;
        self.note("one of the two nodes has a bad configuration");
        self.order("mend")?;
        self.until("the configuration is good", "absent(mountwarden_config_ok == 0)")?;
        self.note("it is good again");
        self.look(&[])
    }

    /// A pod asks, the coordinator evicts it, its replacement works; each step is waited for in Prometheus.
    fn rescue(&mut self) -> Result<()> {
        self.rescue.ask();
        self.until("the coordinator evicted the pod that asks", "mountwarden_coordinator_in_flight == 1")?;
        self.note("the coordinator evicted the pod that asks");
        self.rescue.replaced();
        self.until("the rescue is over", "mountwarden_coordinator_in_flight == 0")?;
        self.note("its replacement works");
        Ok(())
    }

    /// Exactly these alerts fire.
    fn look(&mut self, expected: &[(&'static str, usize)]) -> Result<()> {
        let found = self.services.query("count by (alertname) (ALERTS{alertstate=\"firing\"})")?;
        let count = |series: &Value| {
            (text(&series["metric"]["alertname"]).to_owned(), text(&series["value"][1]).parse::<usize>().unwrap_or(0))
        };
        let mut found: Vec<(String, usize)> = found.as_array().into_iter().flatten().map(count).collect();
        found.sort();
        let words = found.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ");
        self.note(&format!("firing: {}", if words.is_empty() { "nothing" } else { &words }));
        let same = found.iter().map(|(name, count)| (name.as_str(), *count)).eq(expected.iter().copied());
        ensure!(same, "firing: {words}, not {expected:?}");
        if let Some(moment) = self.moments.last_mut() {
            moment.firing = Some(expected.to_vec());
        }
        Ok(())
    }

    fn notification(&self, number: usize) -> Result<Notification> {
        let begin = Instant::now();
        loop {
            if let Some(told) = self.web.notifications().into_iter().nth(number) {
                return Ok(told);
            }
            ensure!(begin.elapsed() < LIMIT, "no notification within {LIMIT:?}; alerts: {}", self.services.alerts()?);
            self.tick()?;
        }
    }

    /// Waits until the query has a result.
    fn until(&self, what: &str, query: &str) -> Result<()> {
        let begin = Instant::now();
        while self.services.query(query)?.as_array().is_none_or(Vec::is_empty) {
            ensure!(begin.elapsed() < LIMIT, "after {LIMIT:?} still not: {what}");
            self.tick()?;
        }
        Ok(())
    }

    fn wait_for(&self, time: Duration) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.tick()?;
        }
        Ok(())
    }

    fn tick(&self) -> Result<()> {
        if interrupt::seen() {
            bail!("interrupted");
        }
        std::thread::sleep(POLL);
        Ok(())
    }

    /// Tells the guest, and waits until it has obeyed.
    fn order(&self, order: &str) -> Result<()> {
        let file = self.out.join("order");
        std::fs::write(self.out.join("order.new"), order)?;
        std::fs::rename(self.out.join("order.new"), &file)?;
        let begin = Instant::now();
        while file.exists() {
            ensure!(begin.elapsed() < LIMIT, "the guest does not obey: {order}");
            self.tick()?;
        }
        Ok(())
    }

    fn note(&mut self, what: &str) {
        let at = Instant::now();
        println!("{:7.1} s  {what}", (at - self.begin).as_secs_f64());
        self.moments.push(Moment { at, what: what.to_owned(), firing: None });
    }

    /// The run on a page.
    fn report(&self, boards: &boards::Boards) -> Result<()> {
        let mut page = format!("# A run of `make lab-prometheus`, all times of the rules divided by {SCALE}\n\n");
        page += "| s | |\n|---|---|\n";
        for moment in &self.moments {
            let _ = writeln!(page, "| {:.1} | {} |", (moment.at - self.begin).as_secs_f64(), moment.what);
        }
        page += "\n## Alerts that fired, notified or inhibited\n\n| alert | first | last |\n|---|---|---|\n";
        page += &self.services.fired()?;
        page += "\n## Dashboards\n\n";
        page += &boards.markdown();
        std::fs::write(self.out.join("report.md"), &page).context("write the report")?;
        println!("{}", boards.markdown());
        println!("lab-out/prometheus/report.md");
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        std::fs::write(self.out.join("order"), "end")?;
        if let Some(guest) = self.guest.take() {
            guest.wait(Duration::from_secs(20), || Ok(()))?;
        }
        Ok(())
    }
}

/// In the guest: once a second what the agent here serves, into a file.
pub(crate) fn relay(file: &Path) -> Result<()> {
    let fresh = file.with_extension("new");
    loop {
        match crate::surface::metrics() {
            Ok(text) => {
                std::fs::write(&fresh, text)?;
                std::fs::rename(&fresh, file)?;
            }
            // The agent is not there (yet): then there is nothing to scrape.
            Err(_) => drop(std::fs::remove_file(file)),
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A string in an answer of theirs.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
