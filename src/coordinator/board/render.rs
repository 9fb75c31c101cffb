//! The coordinator's exposition (text format 0.0.4): a dozen families, so it is written directly.

use std::fmt::Write as _;

use super::{Guard, Inner};
use crate::metrics::catalog::{self, Metric};

/// Results of evictions: each has a series from the start, so that `increase()` sees the first.
const RESULTS: [&str; 4] = ["accepted", "simulated", "refused", "unknown"];

/// Calls that can fail.
pub(super) const CALLS: [&str; 6] = ["history", "kill_switch", "pod", "eviction", "event", "watch"];

pub(super) fn metrics(inner: &Inner) -> String {
    let mut page = Page(String::new());
    let standing = &inner.standing;
    page.family(&catalog::COORDINATOR_BUILD_INFO);
    page.sample(
        &catalog::COORDINATOR_BUILD_INFO,
        &[env!("CARGO_PKG_VERSION"), option_env!("MOUNTWARDEN_REVISION").unwrap_or_default()],
        1,
    );
    page.single(&catalog::COORDINATOR_LEADER, u64::from(standing.leader));
    page.family(&catalog::REMEDY_ENABLED);
    page.sample(&catalog::REMEDY_ENABLED, &["evict"], u64::from(standing.enabled));
    page.family(&catalog::REMEDIES);
    for result in RESULTS {
        page.sample(&catalog::REMEDIES, &["evict", result], inner.results.get(result).copied().unwrap_or(0));
    }
    page.family(&catalog::COORDINATOR_DECISIONS);
    for guard in std::iter::once(None).chain(Guard::ALL.iter().copied().map(Some)) {
        let word = guard.map_or("none", Guard::as_str);
        page.sample(&catalog::COORDINATOR_DECISIONS, &[word], inner.guards.get(&guard).copied().unwrap_or(0));
    }
    page.single(&catalog::COORDINATOR_REQUESTS, count(standing.requests));
    page.single(&catalog::COORDINATOR_REQUESTS_LEFT_OUT, count(standing.left_out));
    page.single(&catalog::COORDINATOR_NODES, count(standing.nodes));
    page.single(&catalog::COORDINATOR_IN_FLIGHT, count(standing.in_flight));
    page.family(&catalog::COORDINATOR_BREAKERS);
    for server in &standing.breakers {
        page.sample(&catalog::COORDINATOR_BREAKERS, &[server], 1);
    }
    page.single(&catalog::COORDINATOR_HISTORY_KNOWN, u64::from(standing.history_known));
    page.family(&catalog::COORDINATOR_API_ERRORS);
    for call in CALLS {
        page.sample(&catalog::COORDINATOR_API_ERRORS, &[call], inner.errors.get(call).copied().unwrap_or(0));
    }
    page.single(&catalog::COORDINATOR_ROUNDS, inner.rounds);
    page.0
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

struct Page(String);

impl Page {
    fn family(&mut self, metric: &Metric) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {} {}", metric.name, metric.help);
        let _ = writeln!(self.0, "# TYPE {} {}", metric.name, metric.kind.as_str());
    }

    fn single(&mut self, metric: &Metric, value: u64) {
        self.family(metric);
        self.sample(metric, &[], value);
    }

    fn sample(&mut self, metric: &Metric, values: &[&str], value: u64) {
        self.0.push_str(metric.name);
        let labels: Vec<String> =
            metric.labels.iter().zip(values).map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
        if !labels.is_empty() {
            let _ = write!(self.0, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.0, " {value}");
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
