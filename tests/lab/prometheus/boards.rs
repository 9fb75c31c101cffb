//! Every query of every panel, asked of the Prometheus that scraped the run.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::services::Services;
use super::text;

/// Queries (by words in them) that find nothing in this run, and why.
const NO_DATA: [(&str, &str); 2] = [
    ("mountwarden_overloads_total", "only while an agent is late"),
    ("mountwarden_workers{state=\"stuck\"}) > 0", "only while a worker is stuck"),
];

/// What became of each query.
pub(super) struct Boards(Vec<Panel>);

struct Panel {
    board: &'static str,
    title: String,
    query: String,
    series: usize,
}

/// Asks all of them.
pub(super) fn ask(services: &Services) -> Result<Boards> {
    let mut panels = Vec::new();
    for board in ["fleet", "server", "node"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("dashboards/{board}.json"));
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        for panel in file["panels"].as_array().into_iter().flatten() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = text(&target["expr"]).to_owned();
                let found =
                    services.query_range(&filled_in(&query)).with_context(|| text(&panel["title"]).to_owned())?;
                let series = found.as_array().map_or(0, Vec::len);
                panels.push(Panel { board, title: text(&panel["title"]).to_owned(), query, series });
            }
        }
    }
    Ok(Boards(panels))
}

/// What Grafana puts in the place of the variables.
fn filled_in(query: &str) -> String {
    query.replace("$server", "nas").replace("$instance", "one").replace("$__rate_interval", "20s")
}

impl Panel {
    fn excuse(&self) -> Option<&'static str> {
        NO_DATA.iter().find(|(words, _)| self.query.contains(words)).map(|(_, why)| *why)
    }
}

impl Boards {
    /// Every query has data, or a reason why it has none here.
    pub(super) fn is_well(&self) -> bool {
        self.0.iter().all(|panel| panel.series > 0 || panel.excuse().is_some())
    }

    pub(super) fn markdown(&self) -> String {
        let with = self.0.iter().filter(|panel| panel.series > 0).count();
        let mut page = format!("{with} of {} queries have data.\n\n", self.0.len());
        page += "| board | panel | query without data | why |\n|---|---|---|---|\n";
        for panel in self.0.iter().filter(|panel| panel.series == 0) {
            let why = panel.excuse().unwrap_or("**nobody knows**");
            let _ = writeln!(page, "| {} | {} | `{}` | {why} |", panel.board, panel.title, panel.query);
        }
        page
    }
}
