//! The run's series as a test for promtool: what was scraped, stretched to the real times of the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use super::Moment;
use super::web::Scrape;

/// In the test a sample comes every so many seconds: the scrape interval of a real cluster.
const STEP: u64 = 30;

/// Writes `alerts/lab_test.yaml`.
pub(super) fn write(scrapes: &[Scrape], moments: &[Moment], scale: u32) -> Result<()> {
    let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts");
    let rules = std::fs::read_to_string(alerts.join("rules.yaml"))?;
    let begin = scrapes.first().context("nothing was scraped")?.at;
    // Ten times longer, and one sample per STEP of that.
    let slot = |at: Instant| {
        let stretched = (at - begin).as_millis() * u128::from(scale) / 1000;
        usize::try_from(stretched / u128::from(STEP)).unwrap_or(usize::MAX)
    };
    let last = scrapes.iter().map(|scrape| slot(scrape.at)).max().unwrap_or(0);
    let mut series: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
    let wall = scrapes.iter().find_map(first_wall).context("no time of day in what was scraped")?;
    for scrape in scrapes {
        for line in scrape.body.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let metric = name.split('{').next().unwrap_or_default();
            if !asked_for(&rules, metric) {
                continue;
            }
            let Ok(value) = value.parse::<f64>() else { continue };
            let value = if metric.ends_with("_timestamp_seconds") {
                ((value - wall) * f64::from(scale)).round()
            } else {
                value
            };
            let samples = series.entry(labelled(name, &scrape.node)).or_insert_with(|| vec![None; last + 1]);
            samples[slot(scrape.at)] = Some(value);
        }
    }
    let up: BTreeSet<&str> = scrapes.iter().map(|scrape| scrape.node.as_str()).collect();
    for node in up {
        series.insert(
            format!("up{{job=\"mountwarden\",instance=\"{node}\",node=\"{node}\"}}"),
            vec![Some(1.0); last + 1],
        );
    }
    let mut page = String::from(
        "# Made by `make lab-prometheus RECORD=--record` from a real run: two nodes with three NFS mounts each.\n\
         rule_files: [rules.yaml]\n\
         evaluation_interval: 30s\n\
         tests:\n\
         - interval: 30s\n  input_series:\n",
    );
    for (name, samples) in &series {
        let _ = writeln!(page, "  - series: '{name}'\n    values: '{}'", values(samples));
    }
    page += "  promql_expr_test:\n";
    for moment in moments {
        let Some(firing) = &moment.firing else { continue };
        let at = slot(moment.at) as u64 * STEP;
        let _ = writeln!(page, "  # {}", moment.what);
        let _ =
            writeln!(page, "  - expr: count by (alertname) (ALERTS{{alertstate=\"firing\"}})\n    eval_time: {at}s");
        let samples =
            firing.iter().map(|(alert, count)| format!("{{labels: '{{alertname=\"{alert}\"}}', value: {count}}}"));
        let _ = writeln!(page, "    exp_samples: [{}]", samples.collect::<Vec<_>>().join(", "));
    }
    std::fs::write(alerts.join("lab_test.yaml"), page)?;
    println!("alerts/lab_test.yaml");
    Ok(())
}

/// The time of day at the first scrape.
fn first_wall(scrape: &Scrape) -> Option<f64> {
    let line = scrape.body.lines().find(|line| line.starts_with("mountwarden_snapshot_timestamp_seconds"))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn asked_for(rules: &str, metric: &str) -> bool {
    rules.match_indices(metric).any(|(at, _)| {
        let next = rules[at + metric.len()..].chars().next().unwrap_or(' ');
        !next.is_ascii_alphanumeric() && next != '_' && next != ':'
    })
}

/// As Prometheus stores it, with the target's labels.
fn labelled(name: &str, node: &str) -> String {
    let own = format!("job=\"mountwarden\",instance=\"{node}\",node=\"{node}\"");
    match name.split_once('{') {
        Some((metric, labels)) => format!("{metric}{{{own},{labels}"),
        None => format!("{name}{{{own}}}"),
    }
}

/// promtool's notation, with repeats in short.
fn values(samples: &[Option<f64>]) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut rest = samples;
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|value| *value == first).count();
        let word = first.map_or("_".to_owned(), |value| value.to_string());
        match (first, same) {
            (_, 1) => words.push(word),
            (None, _) => words.push(format!("_x{same}")),
            (Some(_), _) => words.push(format!("{word}x{}", same - 1)),
        }
        rest = &rest[same..];
    }
    words.join(" ")
}
