//! The alerts: real promtool runs their tests, they ask only for metrics that exist, each has a test and a runbook.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use mountwarden::metrics::catalog;

fn alerts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(alerts().join(name)).unwrap()
}

/// Runs a tool of Debian's prometheus packages; `make test` installs them. Without it the test says so and counts as passed,
/// unless `MOUNTWARDEN_TEST_NO_SKIP` is set.
fn tool(program: &str, arguments: &[&str]) {
    let output = match Command::new(program).args(arguments).current_dir(alerts()).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("MOUNTWARDEN_TEST_NO_SKIP").is_none(), "{program}: {error}");
            use std::io::Write;
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: {program} cannot be started ({error}): tests/packages.sh test");
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("SUCCESS"), "{program} {arguments:?}: {text}");
}

#[test]
fn the_rules_are_valid() {
    tool("promtool", &["check", "rules", "rules.yaml"]);
}

#[test]
fn the_rules_pass_their_tests() {
    tool("promtool", &["test", "rules", "rules_test.yaml"]);
}

/// What was scraped in a run of the lab (`make lab-prometheus RECORD=--record`), played at the speed of a real cluster.
#[test]
fn the_rules_pass_on_what_real_nfs_faults_left() {
    tool("promtool", &["test", "rules", "lab_test.yaml"]);
}

#[test]
fn the_alertmanager_example_is_valid() {
    tool("amtool", &["check-config", "alertmanager.example.yaml"]);
}

/// What follows `key` on the lines that have it.
fn values<'a>(text: &'a str, key: &'a str) -> BTreeSet<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(key)).map(str::trim).collect()
}

#[test]
fn every_alert_has_a_test_and_a_runbook() {
    let (rules, tests) = (read("rules.yaml"), read("rules_test.yaml"));
    let names = values(&rules, "- alert:");
    assert!(names.len() > 20, "only {names:?} were found");
    let runbooks = std::fs::read_to_string(alerts().join("../docs/runbooks.md")).unwrap();
    let sections = values(&runbooks, "## ");
    for name in &names {
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} fires in no test");
        assert!(sections.contains(name), "{name} has no section in docs/runbooks.md");
        let url = format!("runbook_url: docs/runbooks.md#{}", name.to_lowercase());
        assert!(rules.contains(&url), "{name} does not link to its runbook");
    }
    let left: Vec<_> =
        sections.iter().filter(|section| section.contains("Mount") && !names.contains(*section)).collect();
    assert!(left.is_empty(), "docs/runbooks.md has sections of alerts that do not exist: {left:?}");
}

/// Words that begin like a metric of ours; a recording rule has a colon in front.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let names = text.split(word).filter(|name| name.starts_with("mountwarden_") && !name.contains(':'));
    names.map(str::to_owned).collect()
}

#[test]
fn the_rules_ask_only_for_metrics_that_exist() {
    let known: BTreeSet<_> = catalog::ALL.iter().chain(catalog::COORDINATOR).map(|metric| metric.name).collect();
    let asked = metrics_in(&read("rules.yaml"));
    assert!(asked.len() > 15, "only {asked:?} were found");
    let unknown: Vec<_> = asked.iter().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "not in the catalog: {unknown:?}");
}
