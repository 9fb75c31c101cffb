//! `diagnoses`: what `mountwarden diagnose` says, fault by fault, before anything is mounted and of a mounted path, held
//! against what it must say. The outputs are kept, and docs/diagnose.md is made of them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mountwarden::diagnose::docs;
use mountwarden::diagnose::report::{Diagnosis, StepName};

use crate::interrupt;
use crate::setups::{Setup, chosen};
use crate::uml::Host;

/// Boot, mount, and some faults with their repairs.
const LIMIT: Duration = Duration::from_secs(300);
/// Of a step beyond its deadline: a guest on a busy machine.
const LENIENT: f64 = 1.0;

/// One question: the fault, what is asked, and `RESULT:CAUSE` as it must be (`-`: no cause).
struct Case {
    name: &'static str,
    fault: &'static str,
    /// What happened, for the page.
    what: &'static str,
    target: &'static str,
    arguments: &'static str,
    expected: &'static str,
}

const PATH: &str = "/mnt/cl";

macro_rules! cases {
    ($($name:literal $fault:literal $what:literal: $target:expr, $arguments:literal => $expected:literal;)*) => {
        &[$(Case { name: $name, fault: $fault, what: $what, target: $target, arguments: $arguments, expected: $expected },)*]
    };
}

#[rustfmt::skip]
const SETUPS: &[Setup<Case>] = &[
    Setup { name: "v4", environment: "VERS=4.1", cases: cases! {
        "v4-well" "none" "all is well": "10.0.1.1:/", "" => "healthy:-";
        "v4-well-path" "none" "all is well": PATH, "" => "healthy:-";
        "v4-wrong-path" "none" "wrong path of the export": "10.0.1.1:/data/app", "" => "dead:export_gone";
        "v4-only" "none" "NFSv3 wanted, NFSv4 served": "10.0.1.1:/", "-o vers=3" => "dead:-";
        "v4-ordinary-port" "none" "noresvport, and the server refuses ordinary ports": "10.0.1.1:/", "-o noresvport" => "dead:permission";
        "v4-name-gone" "name_gone" "the server's name is gone": "nfs-server:/", "" => "dead:dns_failed";
        "v4-refused" "refused" "NFS is not running": "10.0.1.1:/", "" => "dead:server_refused";
        "v4-refused-path" "refused" "NFS is not running": PATH, "" => "dead:server_refused";
        "v4-port-dropped" "port_dropped" "a firewall drops port 2049": "10.0.1.1:/", "" => "dead:server_unreachable";
        "v4-port-dropped-path" "port_dropped" "a firewall drops port 2049": PATH, "" => "dead:server_unreachable";
        "v4-stopped" "process_stopped" "the server process is stopped": "10.0.1.1:/", "" => "dead:server_unresponsive";
        "v4-stopped-path" "process_stopped" "the server process is stopped": PATH, "" => "dead:server_unresponsive";
        "v4-mountd-stopped" "mountd_stopped" "mountd is stopped": "10.0.1.1:/", "" => "dead:server_unresponsive";
        "v4-mountd-stopped-path" "mountd_stopped" "mountd is stopped": PATH, "" => "dead:server_unresponsive";
        "v4-export-gone" "unexport" "the export was removed": "10.0.1.1:/", "" => "dead:export_gone";
        "v4-export-gone-path" "unexport" "the export was removed": PATH, "" => "dead:export_gone";
        "v4-swapped-path" "swap_dir" "another directory was put in its place": PATH, "" => "dead:handle_invalid";
    } },
    Setup { name: "v3", environment: "VERS=3", cases: cases! {
        "v3-well" "none" "all is well": "10.0.1.1:/mnt/exp", "-o port=2049" => "healthy:-";
        "v3-only" "none" "NFSv4 wanted, NFSv3 served": "10.0.1.1:/mnt/exp", "-o vers=4.1" => "dead:-";
        "v3-wrong-path" "none" "wrong path of the export": "10.0.1.1:/mnt/wrong", "-o port=2049" => "dead:export_gone";
        "v3-drop" "drop" "the network is cut": "10.0.1.1:/mnt/exp", "-o vers=3" => "dead:server_unreachable";
        "v3-drop-path" "drop" "the network is cut": PATH, "" => "dead:server_unreachable";
        "v3-mountd-stopped" "mountd_stopped" "mountd is stopped": "10.0.1.1:/mnt/exp", "-o port=2049" => "dead:server_unresponsive";
        "v3-export-gone" "unexport" "the export was removed": "10.0.1.1:/mnt/exp", "-o port=2049" => "dead:export_gone";
        "v3-export-gone-path" "unexport" "the export was removed": PATH, "" => "dead:export_gone";
    } },
    // Reading goes on: only what writes sees these two.
    Setup { name: "disk", environment: "VERS=4.1 BACKING=ext4", cases: cases! {
        "disk-well-write" "none" "all is well, and a write is tried": PATH, "--write=uid=1000" => "healthy:-";
        "disk-frozen" "freeze" "the server's disk is frozen": "10.0.1.1:/", "" => "healthy:-";
        "disk-frozen-path" "freeze" "the server's disk is frozen": PATH, "" => "healthy:-";
        "disk-frozen-write" "freeze" "the server's disk is frozen, and a write is tried": PATH, "--write" => "dead:server_unresponsive";
        "export-readonly" "readonly_export" "the export is read-only": "10.0.1.1:/", "" => "healthy:-";
        "export-readonly-path" "readonly_export" "the export is read-only": PATH, "" => "healthy:-";
        "export-readonly-write" "readonly_export" "the export is read-only, and a write is tried": PATH, "--write" => "degraded:export_readonly";
    } },
    Setup { name: "moved", environment: "VERS=4.1 CLIENT=by_name", cases: cases! {
        "moved" "address_changed" "the server moved to another address": "nfs-server:/", "" => "healthy:-";
        "moved-path" "address_changed" "the server moved to another address": PATH, "" => "dead:address_changed";
    } },
    Setup { name: "proxy", environment: "VERS=4.1 INSECURE=yes CLIENT=proxy", cases: cases! {
        "proxy-well-path" "none" "EFS over TLS, all is well": PATH, "" => "healthy:-";
        "proxy-killed-path" "proxy_dead" "the EFS proxy was killed": PATH, "" => "dead:proxy_dead";
    } },
];

/// What lab-quick asks for.
const QUICK: &str = "^(moved|proxy)$";

/// How it is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Diagnoses {
    /// The binary that is asked.
    #[arg(long, default_value = "target/release/mountwarden")]
    agent: std::path::PathBuf,
    /// Only the set-ups whose name matches (`^v4$`).
    #[arg(long, value_name = "REGEX")]
    only: Option<regex::Regex>,
    /// The set-ups that catch the common breakage.
    #[arg(long, conflicts_with = "only")]
    quick: bool,
    /// Where the outputs are kept.
    #[arg(long, default_value = "lab-out/diagnoses")]
    out: std::path::PathBuf,
    /// Writes docs/diagnose.md; takes all set-ups.
    #[arg(long, conflicts_with_all = ["only", "quick"])]
    page: bool,
}

/// On the host: boots the guests one after the other; whether everything that was said was right.
pub(crate) fn run(options: &Diagnoses) -> Result<bool> {
    interrupt::take()?;
    let host = Host::new(&options.agent)?;
    let only = if options.quick { Some(regex::Regex::new(QUICK)?) } else { options.only.clone() };
    let (mut passed, mut page) = (true, docs::Page::default());
    for setup in chosen(SETUPS, only.as_ref()) {
        let out = std::path::absolute(options.out.join(setup.name))?;
        let line = |case: &Case| format!("{}|{}|{}|{}", case.name, case.fault, case.target, case.arguments);
        let log = setup.run(&host, "guest/diagnose.sh", &out, LIMIT, line)?;
        for case in setup.cases {
            match held_against(case, &out) {
                Ok((line, text)) => {
                    println!("  ok      {:<24} {line}", case.name);
                    page.add(case.what, case.target, case.arguments, &line, &text);
                }
                Err(error) => {
                    passed = false;
                    println!("  FAILED  {:<24} {error:#}", case.name);
                }
            }
        }
        if !passed {
            eprintln!("{log}");
        }
    }
    if options.page && passed {
        std::fs::write("docs/diagnose.md", page.finish())?;
    }
    Ok(passed)
}

/// What was said, in a line and in full.
fn held_against(case: &Case, out: &Path) -> Result<(String, String)> {
    let json = std::fs::read_to_string(out.join(format!("{}.json", case.name))).context("no document")?;
    let said: Diagnosis =
        serde_json::from_str(&json).with_context(|| format!("the document cannot be read: {json}"))?;
    let text = std::fs::read_to_string(out.join(format!("{}.txt", case.name))).context("no text")?;
    let result = serde_json::to_value(said.result)?;
    let cause = said.cause.map_or("-", mountwarden::verdict::Cause::as_str);
    let line = format!("{}:{cause}", result.as_str().unwrap_or_default());
    if line != case.expected {
        bail!("{line}, not {}:\n{text}", case.expected);
    }
    let code = match said.result {
        mountwarden::verdict::Severity::Healthy => 0,
        mountwarden::verdict::Severity::Degraded => 1,
        mountwarden::verdict::Severity::Dead => 2,
        mountwarden::verdict::Severity::Unknown => 3,
    };
    let Some(text) = text.strip_suffix(&format!("exit {code}\n")) else { bail!("another exit code:\n{text}") };
    for step in &said.steps {
        // These are a whole pass of `check`, which may ask the server and a second sentinel.
        let deadlines = if matches!(step.step, StepName::Probe | StepName::Write) { 6.0 } else { 2.0 };
        let took = step.seconds.unwrap_or_default();
        if took > said.timeout_seconds * deadlines + LENIENT {
            bail!("the step {:?} took {took:.1} s:\n{text}", step.step);
        }
    }
    if said.seconds > said.timeout_seconds * said.steps.len() as f64 + LENIENT {
        bail!("{} steps of {} s took {:.1} s:\n{text}", said.steps.len(), said.timeout_seconds, said.seconds);
    }
    if let Some(wide) = text.lines().find(|line| line.chars().count() > 100) {
        bail!("wider than 100 columns: {wide}");
    }
    Ok((format!("{line}, {} steps in {:.1} s", said.steps.len(), said.seconds), text.to_owned()))
}

/// In the guest: a local program between the kernel and the server, as efs-proxy is one.
pub(crate) fn forward(port: u16, server: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        println!("listening");
        loop {
            let (mut client, _) = listener.accept().await?;
            let server = server.to_owned();
            tokio::spawn(async move {
                if let Ok(mut server) = tokio::net::TcpStream::connect(server).await {
                    // Whoever hangs up first ends it for both.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    })
}
