//! The pages that the program writes are those in the repository, and the written ones leave nothing out.
#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod common {
    #![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods, reason = "shared by tests")]
    pub mod pages;
}

use std::collections::BTreeSet;

use mountwarden::{coordinator, diagnose, metrics, server, verdict};

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
    const DATA: [&str; 12] = [
        "summary",
        "probes",
        "transitions",
        "decision",
        "kernel_log_lines",
        "requests",
        "events_sent",
        "events_dropped",
        "troubles",
        "results",
        "peer_states",
        "finding_evidence",
    ];
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

#[expect(clippy::disallowed_methods, reason = "a page of the source tree")]
fn diagnose_page() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/diagnose.md");
    std::fs::read_to_string(path).expect("the page")
}

const BY_THE_LAB: &str = "`cargo test --test lab -- diagnoses --page` writes docs/diagnose.md";

#[test]
fn the_page_about_diagnose_has_the_head_that_the_program_knows() {
    assert!(diagnose_page().starts_with(diagnose::docs::HEAD), "out of date: {BY_THE_LAB}");
}

/// The outputs come from real machines; their words are the program's, and those can be compared without any.
#[test]
fn what_the_page_shows_diagnose_say_is_what_it_would_say_today() {
    use diagnose::subject::Subject;
    use diagnose::words::{Facts, plain, todo};
    let page = diagnose_page();
    let mut compared = 0;
    for output in page.split("```\n$ mountwarden diagnose ").skip(1) {
        let text = output.split_whitespace().collect::<Vec<_>>().join(" ");
        let Some((_, cause)) = text.split_once(", cause: ") else { continue };
        let cause = cause.split(' ').next().unwrap_or_default();
        let Some(cause) = verdict::Cause::ALL.iter().find(|known| known.as_str() == cause) else { continue };
        let target = text.split(' ').next().unwrap_or_default();
        let Ok(Subject::Server { server, export }) = Subject::parse(target) else { continue };
        if matches!(cause, verdict::Cause::Permission | verdict::Cause::Unknown) {
            continue;
        }
        let address = text.split_once("TCP ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let facts = Facts { server: &server, export: &export, address, efs: false };
        for words in std::iter::once(plain(*cause, &facts)).chain(todo(*cause, &facts)) {
            assert!(text.contains(&words), "{target}: it says today: {words}\n{BY_THE_LAB}");
        }
        compared += 1;
    }
    assert!(compared >= 8, "only {compared} outputs were compared");
}

#[test]
fn every_field_of_the_diagnosis_is_described() {
    use diagnose::report::{Diagnosis, Outcome, SCHEMA, StepName, StepReport};
    let step = StepReport::made(StepName::Name, Outcome::Ok, "a", "b", std::time::Duration::ZERO);
    let diagnosis = Diagnosis {
        schema: SCHEMA.to_owned(),
        version: String::new(),
        generated: 0.0,
        target: String::new(),
        server: None,
        export: None,
        steps: vec![step],
        result: verdict::Severity::Healthy,
        state: None,
        cause: None,
        candidates: Vec::new(),
        summary: String::new(),
        todo: Vec::new(),
        mount: None,
        timeout_seconds: 0.0,
        seconds: 0.0,
    };
    let mut names = BTreeSet::new();
    fields(&serde_json::to_value(&diagnosis).expect("serialise"), &mut names);
    let head = diagnose::docs::HEAD;
    let described: BTreeSet<String> =
        head.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect();
    assert_eq!(described, names);
}

/// Where `[words](target)` of a page leads, without targets on other machines.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test reads the documents of its own repository")]
fn every_link_leads_to_a_file_and_a_section_that_exist() {
    let mut checked = 0;
    for page in common::pages::all() {
        let text = std::fs::read_to_string(&page).expect("a page");
        for target in links(&text) {
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { page.parent().expect("a folder").join(file) };
            assert!(path.exists(), "{} links to {target}, which is not there", page.display());
            if !section.is_empty() {
                let anchor = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                let there = std::fs::read_to_string(&path).expect("a page");
                let found = there.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == section);
                assert!(found, "{} links to {target}: no such section", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} links were found");
}

#[test]
fn the_index_names_every_page() {
    let index = include_str!("../docs/README.md");
    let folder = common::pages::root().join("docs");
    let pages =
        common::pages::all().into_iter().filter_map(|page| page.strip_prefix(&folder).ok().map(ToOwned::to_owned));
    let named = |page: &std::path::PathBuf| index.contains(&format!("]({}", page.display()));
    let missing: Vec<_> = pages.filter(|page| page != std::path::Path::new("README.md") && !named(page)).collect();
    assert!(missing.is_empty(), "docs/README.md does not lead to {missing:?}");
}

/// Every state and cause that the README's table of faults names is what some test demands of a real kernel.
#[test]
fn the_readme_promises_what_is_tried() {
    let table = include_str!("../README.md").split("## What it detects").nth(1).expect("the table");
    let (lab, fuse) = (include_str!("lab/matrix.yaml"), include_str!("fuse_agent.rs"));
    let words = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut rows = 0;
    for line in table.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [_, states, causes, _] = cells.as_slice() else { panic!("no row of four cells: {line}") };
        let (states, causes) = (words(states), words(causes));
        let tried = |state: &String, cause: &String| {
            let known: verdict::Cause = serde_json::from_value(cause.as_str().into()).expect("a cause");
            lab.contains(&format!("{{state: {state}, cause: {cause}}}")) || fuse.contains(&format!("Cause::{known:?}"))
        };
        assert!(!causes.is_empty(), "{line}");
        for state in &states {
            assert!(causes.iter().any(|cause| tried(state, cause)), "no test demands {state} of {line}");
        }
        for cause in &causes {
            assert!(states.iter().any(|state| tried(state, cause)), "no test demands {cause} of {line}");
        }
        rows += 1;
    }
    assert!(rows >= 12, "only {rows} rows were found");
}
