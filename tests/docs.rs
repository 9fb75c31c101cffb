//! The pages that the program writes are those in the repository, and the written ones leave nothing out.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;

use mountwarden::{coordinator, metrics, server, verdict};

/// Compares a page with the committed one; `MOUNTWARDEN_BLESS=1` writes it instead.
#[expect(clippy::disallowed_methods, reason = "a test reads and writes the documents of its own repository")]
fn same(page: &str, made: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    if std::env::var_os("MOUNTWARDEN_BLESS").is_some() {
        std::fs::write(&path, made).expect("write the page");
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == made, "docs/{page} is out of date: MOUNTWARDEN_BLESS=1 cargo test --test docs");
}

#[test]
fn the_metrics_page_is_what_the_catalog_says() {
    same("metrics.md", &metrics::docs::markdown());
}

#[test]
fn the_states_page_is_what_the_advice_says() {
    same("states.md", &verdict::advice::markdown());
}

#[test]
fn the_findings_page_is_what_the_findings_say() {
    same("findings.md", &verdict::findings::markdown());
}

#[test]
fn the_server_page_is_what_the_rules_say() {
    same("server.md", &server::conclude::markdown());
}

#[test]
fn the_remedy_page_has_every_guard() {
    same("remedy.md", &coordinator::docs::markdown());
}

/// All keys of a document, however deep; the keys of maps that are data (states, results, recorded evidence) are not fields.
fn fields(value: &serde_json::Value, out: &mut BTreeSet<String>) {
    const DATA: [&str; 7] =
        ["summary", "probes", "transitions", "decision", "kernel_log_lines", "results", "peer_states"];
    match value {
        serde_json::Value::Object(map) => {
            for (key, inner) in map {
                out.insert(key.clone());
                if !DATA.contains(&key.as_str()) {
                    fields(inner, out);
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|inner| fields(inner, out)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_json_document_is_described() {
    let snapshot: mountwarden::snapshot::Snapshot =
        serde_json::from_str(include_str!("fixtures/golden/snapshot.json")).expect("fixture");
    let mut names = BTreeSet::new();
    fields(&serde_json::to_value(&snapshot).expect("serialise"), &mut names);
    assert!(names.len() > 60, "the walk found only {}", names.len());
    let page = include_str!("../docs/api.md");
    let missing: Vec<_> = names.iter().filter(|name| !page.contains(&format!("| `{name}` |"))).collect();
    assert!(missing.is_empty(), "docs/api.md does not describe {missing:?}");
}

#[test]
fn no_described_field_is_made_up() {
    let snapshot: mountwarden::snapshot::Snapshot =
        serde_json::from_str(include_str!("fixtures/golden/snapshot.json")).expect("fixture");
    let mut names = BTreeSet::new();
    fields(&serde_json::to_value(&snapshot).expect("serialise"), &mut names);
    let page = include_str!("../docs/api.md");
    let described = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name);
    let stale: Vec<_> = described.filter(|name| !names.contains(*name)).collect();
    assert!(stale.is_empty(), "docs/api.md describes {stale:?}, which the document does not have");
}
