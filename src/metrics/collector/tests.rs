use std::collections::{HashMap, HashSet};

use super::*;
use crate::metrics::catalog::ALL;
use crate::snapshot::AgentStats;

fn golden_snapshot() -> Snapshot {
    serde_json::from_str(include_str!("../../../tests/fixtures/golden/snapshot.json")).expect("fixture")
}

fn process() -> ProcessStats {
    ProcessStats {
        cpu_seconds: 1.5,
        resident_bytes: 9e6,
        virtual_bytes: 2e8,
        open_fds: 24.0,
        max_fds: Some(1024.0),
        start_seconds: 1_789_990_000.0,
    }
}

/// Many mounts, each with every kind of series.
fn many(count: usize) -> Snapshot {
    let mut snapshot = golden_snapshot();
    let patterns = snapshot.mounts.clone();
    snapshot.mounts = (0..count)
        .map(|index| {
            let mut mount = patterns[index % patterns.len()].clone();
            mount.mountpoint = format!("/mnt/{index}");
            mount
        })
        .collect();
    snapshot
}

/// One line of an exposition, read by the rules of the text format, independently of the encoder.
#[derive(Debug, PartialEq, Clone)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

fn parse(text: &str) -> Vec<Sample> {
    assert!(text.ends_with('\n'), "the last line must end");
    text.lines().filter(|line| !line.starts_with('#')).map(parse_sample).collect()
}

fn parse_sample(line: &str) -> Sample {
    let split = line.find(['{', ' ']).expect("a name");
    let (name, mut rest) = line.split_at(split);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (key, tail) = rest.trim_start_matches(',').split_once("=\"").expect("a label");
            let (value, tail) = parse_quoted(tail);
            labels.push((key.to_owned(), value));
            rest = tail;
        }
        rest = &rest[1..];
    }
    Sample { name: name.to_owned(), labels, value: rest.trim_start().parse().expect("a number") }
}

fn parse_quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next().expect("an end quote") {
            (at, '"') => return (value, &text[at + 1..]),
            (_, '\\') => match chars.next().expect("an escaped character").1 {
                'n' => value.push('\n'),
                c @ ('\\' | '"') => value.push(c),
                other => panic!("\\{other} is no escape of the format"),
            },
            (_, c) => value.push(c),
        }
    }
}

fn value_of(samples: &[Sample], name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
    let has = |sample: &Sample, (key, value): &(&str, &str)| sample.labels.iter().any(|(k, v)| k == key && v == value);
    let mut hits = samples.iter().filter(|s| s.name == name && wanted.iter().all(|label| has(s, label)));
    let hit = hits.next().map(|sample| sample.value);
    assert!(hits.next().is_none(), "{name}{wanted:?} is ambiguous");
    hit
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test leaves the new text in the temporary directory")]
fn the_exposition_is_the_golden_file() {
    let text = render(&golden_snapshot(), Some(&process())).expect("render");
    // A build that knows its revision must not fail here.
    let text = text.replace(&format!("revision=\"{REVISION}\""), "revision=\"\"");
    let golden = include_str!("../../../tests/fixtures/golden/metrics.txt");
    if text != golden {
        let path = std::env::temp_dir().join("mountwarden-metrics.actual.txt");
        std::fs::write(&path, &text).expect("write the new exposition");
        panic!("the exposition changed: compare {} with tests/fixtures/golden/metrics.txt", path.display());
    }
}

proptest::proptest! {
    /// The prometheus crate's encoder is the reference for what is written without it.
    #[test]
    fn a_series_is_written_as_the_encoder_writes_it(server in ".*", step in "[a\\\\\"\n\u{e9}]*", value: f64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        let mut series = proto::Metric::from_label(labels(catalog::MOUNT_UP.labels, &[&server, &step, "nfs"]));
        series.set_gauge(gauge);
        let mut family = MetricFamily::default();
        family.set_name(catalog::MOUNT_UP.name.to_owned());
        family.set_help(catalog::MOUNT_UP.help.to_owned());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(vec![series]);
        let expected = TextEncoder::new().encode_to_string(&[family]).expect("encodes");
        let mut text = String::new();
        let add = |family: &mut Family<'_>| family.add(&[&server, &step, "nfs"], value);
        Page { text: &mut text }.family(&catalog::MOUNT_UP, add).expect("renders");
        proptest::prop_assert_eq!(text, expected);
    }
}

#[test]
fn every_metric_of_the_catalog_is_filled_and_no_other() {
    let text = render(&golden_snapshot(), Some(&process())).expect("render");
    let written: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let catalog: Vec<&str> = ALL.iter().map(|metric| metric.name).collect();
    let (written_set, catalog_set): (HashSet<_>, HashSet<_>) = (written.iter().collect(), catalog.iter().collect());
    assert_eq!(written_set, catalog_set);
    assert_eq!(written.len(), written_set.len(), "a family has two headers");
}

#[test]
fn the_labels_of_every_series_are_those_of_the_catalog() {
    for sample in parse(&render(&golden_snapshot(), Some(&process())).expect("render")) {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| sample.name.strip_suffix(suffix));
        let metric = ALL.iter().find(|metric| metric.name == sample.name || Some(metric.name) == base).expect("known");
        let names: Vec<&str> =
            sample.labels.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "le").collect();
        assert_eq!(names, metric.labels, "{}", sample.name);
    }
}

#[test]
fn no_series_stands_twice_even_over_many_slices() {
    let mut snapshot = many(SLICE * 2 + 3);
    let pattern = snapshot.agent.durations[0].clone();
    let named = |number| DurationHistogram { server: format!("srv{number}"), ..pattern.clone() };
    snapshot.agent.durations = (0..SLICE * 2 + 3).map(named).collect();
    let samples = parse(&render(&snapshot, None).expect("render"));
    let mut seen = HashMap::new();
    for sample in &samples {
        let key = (sample.name.clone(), sample.labels.clone());
        assert_eq!(seen.insert(key, ()), None, "{sample:?} stands twice");
    }
    let states = samples.iter().filter(|sample| sample.name == "mountwarden_mount_state").count();
    assert_eq!(states, snapshot.mounts.len() * State::ALL.len());
}

#[test]
fn a_family_of_many_slices_has_one_header() {
    let mut snapshot = many(SLICE * 2);
    snapshot.agent.durations = vec![snapshot.agent.durations[0].clone(); SLICE * 2];
    let text = render(&snapshot, None).expect("render");
    for metric in ALL {
        let header = format!("# TYPE {} ", metric.name);
        assert!(text.matches(&header).count() <= 1, "{} has several headers", metric.name);
    }
    assert!(text.lines().all(|line| line.starts_with('#') || line.starts_with("mountwarden_")), "a line is torn");
}

#[test]
fn backslash_quote_and_newline_survive_in_labels() {
    let samples = parse(&render(&golden_snapshot(), None).expect("render"));
    let mountpoint = "/mnt/back\\slash \"quoted\"\nnewline";
    assert_eq!(value_of(&samples, "mountwarden_mount_up", &[("mountpoint", mountpoint)]), Some(0.0));
}

#[test]
fn up_is_absent_while_unknown_and_cause_is_absent_when_healthy() {
    let samples = parse(&render(&golden_snapshot(), None).expect("render"));
    let at = |name, mountpoint| value_of(&samples, name, &[("mountpoint", mountpoint)]);
    assert_eq!(at("mountwarden_mount_up", "/mnt/user"), None);
    assert_eq!(at("mountwarden_mount_up", "/mnt/gone"), Some(0.0));
    assert_eq!(at("mountwarden_mount_up", "/mnt/data"), Some(1.0));
    assert_eq!(at("mountwarden_mount_cause", "/mnt/data"), None);
    assert_eq!(at("mountwarden_mount_cause", "/mnt/gone"), Some(1.0));
}

#[test]
fn transition_counters_of_common_states_start_at_zero() {
    let samples = parse(&render(&golden_snapshot(), None).expect("render"));
    let count = |mountpoint, state| {
        let labels = [("mountpoint", mountpoint), ("state", state)];
        value_of(&samples, "mountwarden_mount_state_transitions_total", &labels)
    };
    assert_eq!(count("/mnt/data", "hung"), Some(0.0));
    assert_eq!(count("/mnt/data", "full"), None);
    assert_eq!(count("/mnt/gone", "full"), Some(1.0));
}

#[test]
fn a_second_target_with_the_same_labels_is_left_out_and_counted() {
    let mut snapshot = golden_snapshot();
    snapshot.mounts.push(snapshot.mounts[0].clone());
    let samples = parse(&render(&snapshot, None).expect("render"));
    assert_eq!(value_of(&samples, "mountwarden_mounts_left_out", &[]), Some(1.0));
    let labels: HashSet<_> =
        samples.iter().filter(|s| s.name == "mountwarden_mount_info").map(|s| s.labels.clone()).collect();
    assert_eq!(labels.len(), 5);
}

#[test]
fn an_agent_without_mounts_still_renders() {
    let mut snapshot = golden_snapshot();
    snapshot.mounts.clear();
    snapshot.summary.clear();
    snapshot.agent = AgentStats::default();
    let samples = parse(&render(&snapshot, None).expect("render"));
    assert_eq!(value_of(&samples, "mountwarden_mounts", &[("state", "hung")]), Some(0.0));
    assert!(samples.iter().all(|sample| sample.name != "mountwarden_mount_state"));
}

#[test]
fn totals_are_absent_where_the_filesystem_says_none() {
    let samples = parse(&render(&golden_snapshot(), None).expect("render"));
    let at = |name, mountpoint| value_of(&samples, name, &[("mountpoint", mountpoint)]);
    assert_eq!(at("mountwarden_filesystem_size_bytes", "/mnt/data"), Some(107_374_182_400.0));
    assert_eq!(at("mountwarden_filesystem_files", "/mnt/data"), Some(6_553_600.0));
    // Hung: kept, with their age.
    assert_eq!(at("mountwarden_filesystem_timestamp_seconds", "/mnt/gone"), Some(1_789_999_880.25));
    // It counts no inodes (EFS): 0 of 0 would look like a full one.
    assert_eq!(at("mountwarden_filesystem_files_free", "/mnt/gone"), None);
    assert_eq!(at("mountwarden_filesystem_avail_bytes", "/mnt/user"), None);
}

#[test]
fn an_nfs_mount_with_every_operation_has_at_most_eighty_more_series() {
    use crate::mounts::mountstats::Operation;
    let mut snapshot = golden_snapshot();
    let before = parse(&render(&snapshot, None).expect("render")).len();
    let mount = snapshot.mounts.iter_mut().find(|mount| mount.mountpoint == "/mnt/data").expect("in the fixture");
    let (one, had) = (mount.nfs[0], mount.nfs.len());
    let used = Operation::ALL.iter().filter(|operation| **operation != Operation::All);
    mount.nfs = used.map(|operation| OperationStatus { operation: *operation, ..one }).collect();
    let all = mount.nfs.len();
    let after = parse(&render(&snapshot, None).expect("render")).len();
    assert_eq!(after - before, (all - had) * 6);
    assert!(all * 6 + 6 <= 80, "{} series", all * 6 + 6);
}

#[test]
fn errors_that_the_kernel_does_not_count_are_no_zero() {
    let samples = parse(&render(&golden_snapshot(), None).expect("render"));
    let at = |name, operation| value_of(&samples, name, &[("mountpoint", "/mnt/gone"), ("operation", operation)]);
    assert_eq!(at("mountwarden_nfs_timeouts_total", "all"), Some(5.0));
    assert_eq!(at("mountwarden_nfs_execute_seconds_total", "all"), Some(301.25));
    assert_eq!(at("mountwarden_nfs_errors_total", "all"), None);
}
