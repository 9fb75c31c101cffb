//! The dashboards: made by their generator, and asking only for metrics that exist.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "tests")]

mod common {
    #![allow(dead_code, unreachable_pub, reason = "shared: each test crate uses its part of it")]
    pub mod sandbox;
}

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::sandbox::skip;
use mountwarden::metrics::catalog;
use serde_json::Value;

const BOARDS: [&str; 3] = ["fleet", "server", "node"];

fn dashboards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

fn board(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dashboards().join(format!("{name}.json"))).unwrap()).unwrap()
}

#[test]
fn the_dashboards_are_what_the_generator_writes() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::copy(dashboards().join("generate.py"), scratch.path().join("generate.py")).unwrap();
    match Command::new("python3").arg(scratch.path().join("generate.py")).env_remove("RUNBOOKS").status() {
        Ok(status) => assert!(status.success()),
        Err(error) => return skip("the_dashboards_are_what_the_generator_writes", &format!("python3: {error}")),
    }
    for name in BOARDS {
        let made = std::fs::read_to_string(scratch.path().join(format!("{name}.json"))).unwrap();
        let committed = std::fs::read_to_string(dashboards().join(format!("{name}.json"))).unwrap();
        assert!(made == committed, "dashboards/{name}.json is out of date: dashboards/generate.py");
    }
}

#[test]
fn the_dashboards_link_to_runbooks_where_they_are_told_to() {
    let scratch = tempfile::tempdir().unwrap();
    let generator = scratch.path().join("generate.py");
    std::fs::copy(dashboards().join("generate.py"), &generator).unwrap();
    let wiki = "https://wiki.example.com/runbooks";
    match Command::new("python3").arg(&generator).env("RUNBOOKS", wiki).status() {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            return skip("the_dashboards_link_to_runbooks_where_they_are_told_to", &format!("python3: {error}"));
        }
    }
    for name in BOARDS {
        let made = std::fs::read_to_string(scratch.path().join(format!("{name}.json"))).unwrap();
        assert!(made.contains(&format!("\"{wiki}\"")), "{name}");
        assert!(!board(name).to_string().contains("unbooks\""), "{name}: a link that leads nowhere");
    }
}

#[test]
fn the_dashboards_ask_only_for_metrics_that_exist() {
    let mut known: BTreeSet<String> =
        catalog::ALL.iter().chain(catalog::COORDINATOR).map(|metric| metric.name.to_owned()).collect();
    let buckets: Vec<_> = known.iter().map(|name| format!("{name}_bucket")).collect();
    known.extend(buckets);
    for name in BOARDS {
        let text = std::fs::read_to_string(dashboards().join(format!("{name}.json"))).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
        let asked: BTreeSet<_> =
            words.filter(|word| word.starts_with("mountwarden_") || word.starts_with("process_")).collect();
        assert!(asked.len() > 5, "{name}: only {asked:?} were found");
        let unknown: Vec<_> = asked.iter().filter(|word| !known.contains(**word)).collect();
        assert!(unknown.is_empty(), "{name}: not in the catalog: {unknown:?}");
    }
}

#[test]
fn every_panel_uses_the_data_source_of_the_variable_and_lies_beside_the_others() {
    for name in BOARDS {
        let board = board(name);
        let mut taken = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}: {}", panel["title"]);
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{name}: {}", panel["title"]);
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(taken.insert((x, y)), "{name}: {} lies over another panel", panel["title"]);
                }
            }
        }
    }
}
