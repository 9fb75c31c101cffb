//! The table and its place in `docs/performance.md`.

use std::fmt::Write;
use std::path::Path;

const BEGIN: &str = "<!-- make bench writes from here -->";
const END: &str = "<!-- to here -->";

/// One figure.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) measured: String,
    /// Empty where none is set.
    pub(crate) goal: String,
    /// Whether the goal is kept.
    pub(crate) kept: Option<bool>,
}

impl Row {
    /// A figure without a goal.
    pub(crate) fn fact(what: impl Into<String>, measured: impl Into<String>) -> Row {
        Row { what: what.into(), measured: measured.into(), goal: String::new(), kept: None }.said()
    }

    /// A figure with a goal.
    pub(crate) fn goal(what: impl Into<String>, measured: impl Into<String>, goal: &str, kept: bool) -> Row {
        Row { what: what.into(), measured: measured.into(), goal: goal.to_owned(), kept: Some(kept) }.said()
    }

    /// Shown at once: a run takes minutes.
    fn said(self) -> Row {
        println!("          {}: {}", self.what, self.measured);
        self
    }
}

/// What was measured on.
pub(crate) struct Machine(String);

impl Machine {
    /// Asked before the measuring loads it.
    pub(crate) fn look() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let cpu = field(&read("/proc/cpuinfo"), "model name");
        let memory: u64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = read("/proc/sys/kernel/osrelease");
        let load = read("/proc/loadavg");
        let load: Vec<&str> = load.split(' ').take(3).collect();
        Machine(format!(
            "{cores} cores of {cpu}, {} GiB, Linux {}. Load average before the run: {}.",
            memory >> 20,
            kernel.trim(),
            load.join(" ")
        ))
    }
}

/// The table in Markdown.
pub(crate) fn table(machine: &Machine, rows: &[Row]) -> String {
    let mut text = format!("{}\n\n| figure | measured | goal | |\n|---|---|---|---|\n", machine.0);
    for row in rows {
        let kept = match row.kept {
            Some(true) => "kept",
            Some(false) => "**missed**",
            None => "",
        };
        writeln!(text, "| {} | {} | {} | {kept} |", row.what, row.measured, row.goal).unwrap();
    }
    text
}

/// Puts the table between its markers.
pub(crate) fn write(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("docs/performance.md has lost the marker before the table");
    let (_, tail) = rest.split_once(END).expect("docs/performance.md has lost the marker after the table");
    std::fs::write(&path, format!("{head}{BEGIN}\n{table}{END}{tail}")).unwrap();
    println!("written to {}", path.display());
}
