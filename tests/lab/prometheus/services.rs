//! The real Prometheus and Alertmanager (Debian's packages), with the rules of `alerts/` in a shorter time.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use regex::{Captures, Regex};
use serde_json::Value;

use super::text;
use super::web::Web;

/// A scrape; on a real cluster 30 s.
const SCRAPE: &str = "2s";
const STARTS: Duration = Duration::from_secs(60);

/// Both, until dropped.
pub(super) struct Services {
    prometheus: SocketAddr,
    children: Vec<Child>,
    begin: f64,
}

impl Services {
    pub(super) fn start(out: &Path, web: &Web, coordinator: SocketAddr, scale: u32) -> Result<Services> {
        let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts");
        let (prometheus, alertmanager) = (free()?, free()?);
        let read = |name: &str| std::fs::read_to_string(alerts.join(name)).context(name.to_owned());
        std::fs::write(out.join("rules.yaml"), faster(&read("rules.yaml")?, scale)?)?;
        let config = faster(&read("alertmanager.example.yaml")?, scale)?;
        let config = config.replace("127.0.0.1:9099", &web.address.to_string());
        std::fs::write(out.join("alertmanager.yaml"), config)?;
        std::fs::write(out.join("prometheus.yaml"), scrape_config(web.address, coordinator, alertmanager))?;
        let log = |name: &str| File::create(out.join(name));
        let mut services = Services { prometheus, children: Vec::new(), begin: now() };
        let (config, storage) = (out.join("alertmanager.yaml"), out.join("alertmanager"));
        services.spawn(
            Command::new("prometheus-alertmanager")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.path={}", storage.display()))
                .arg(format!("--web.listen-address={alertmanager}"))
                .arg("--cluster.listen-address=")
                .stderr(log("alertmanager.log")?),
        )?;
        let (config, storage) = (out.join("prometheus.yaml"), out.join("tsdb"));
        services.spawn(
            Command::new("prometheus")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", storage.display()))
                .arg(format!("--web.listen-address={prometheus}"))
                .stderr(log("prometheus.log")?),
        )?;
        for address in [alertmanager, prometheus] {
            let begin = Instant::now();
            while get(address, "/-/ready").is_err() {
                ensure!(begin.elapsed() < STARTS, "{address} is not ready: see the logs in {}", out.display());
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(services)
    }

    fn spawn(&mut self, command: &mut Command) -> Result<()> {
        let program = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        self.children.push(child.with_context(|| format!("{}: tests/packages.sh test", program.display()))?);
        Ok(())
    }

    /// The result of an instant query.
    pub(super) fn query(&self, query: &str) -> Result<Value> {
        self.api(&format!("/api/v1/query?query={}", encode(query)))
    }

    /// The result of a query over the whole run.
    pub(super) fn query_range(&self, query: &str) -> Result<Value> {
        self.api(&format!("/api/v1/query_range?query={}&start={}&end={}&step=2", encode(query), self.begin, now()))
    }

    fn api(&self, path: &str) -> Result<Value> {
        let answer: Value = serde_json::from_str(&get(self.prometheus, path)?)?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"]["result"].clone())
    }

    /// Alerts that are pending or fire now, for a failure's words.
    pub(super) fn alerts(&self) -> Result<String> {
        Ok(self.query("ALERTS")?.to_string())
    }

    /// Rows: which alerts fired, and between which seconds of the run.
    pub(super) fn fired(&self) -> Result<String> {
        let mut rows = String::new();
        let fired = self.query_range("count by (alertname) (ALERTS{alertstate=\"firing\"})")?;
        for series in fired.as_array().into_iter().flatten() {
            let times: Vec<f64> =
                series["values"].as_array().into_iter().flatten().filter_map(|pair| pair[0].as_f64()).collect();
            let (Some(first), Some(last)) = (times.first(), times.last()) else { continue };
            let name = text(&series["metric"]["alertname"]);
            let _ = writeln!(rows, "| {name} | {:.0} s | {:.0} s |", first - self.begin, last - self.begin);
        }
        Ok(rows)
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn scrape_config(web: SocketAddr, coordinator: SocketAddr, alertmanager: SocketAddr) -> String {
    let mut targets = String::new();
    for node in super::NODES {
        let labels = format!("__metrics_path__: /{node}/metrics, instance: {node}, node: {node}");
        let _ = writeln!(targets, "      - {{targets: [\"{web}\"], labels: {{{labels}}}}}");
    }
    format!(
        "global: {{scrape_interval: {SCRAPE}, evaluation_interval: {SCRAPE}}}\n\
         rule_files: [rules.yaml]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: [\"{alertmanager}\"]}}]}}]}}\n\
         scrape_configs:\n  - job_name: mountwarden\n    honor_labels: true\n    static_configs:\n{targets}  \
         - job_name: mountwarden-coordinator\n    honor_labels: true\n    static_configs:\n      \
         - {{targets: [\"{coordinator}\"], labels: {{instance: coordinator}}}}\n"
    )
}

/// The durations of a rules or Alertmanager file, so many times shorter.
fn faster(yaml: &str, scale: u32) -> Result<String> {
    let keys = Regex::new(
        r"(?m)(?P<before>\b(?:interval|for|keep_firing_for|group_wait|group_interval|repeat_interval): |\[)(?P<number>\d+)(?P<unit>[smh])(?P<after>\]|\s*$)",
    )?;
    let scaled = |found: &Captures<'_>| {
        let seconds = match &found["unit"] {
            "h" => 3600,
            "m" => 60,
            _ => 1,
        };
        let millis = found["number"].parse::<u64>().unwrap_or(0) * seconds * 1000 / u64::from(scale);
        format!("{}{millis}ms{}", &found["before"], &found["after"])
    };
    Ok(keys.replace_all(yaml, scaled).into_owned())
}

/// Body of an answer of 200. HTTP/1.0, so that it comes in one piece.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a header")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{path}: {} {body}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

fn encode(query: &str) -> String {
    query.bytes().fold(String::new(), |mut text, byte| {
        let _ = if byte.is_ascii_alphanumeric() {
            write!(text, "{}", char::from(byte))
        } else {
            write!(text, "%{byte:02X}")
        };
        text
    })
}
