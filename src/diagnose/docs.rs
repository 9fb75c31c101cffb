//! The page about `diagnose`: a head that is written here, and what the lab heard it say.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Everything above the outputs.
pub const HEAD: &str = "# mountwarden diagnose

`mountwarden diagnose` asks all there is to ask about one mount, or about an export before it is mounted (\"exit status
32\"), step by step, and ends with the cause and what to do. It needs no agent, no cluster, no configuration.

    mountwarden diagnose PATH                       a mount: table, probe, server, who waits, who uses it, a trial mount
    mountwarden diagnose --write PATH               the same, and whether it can be written to
    mountwarden diagnose SERVER:/EXPORT [-o LIST]   an export; LIST as in fstab or mountOptions
    mountwarden diagnose fs-...[:/DIR] --region R   an EFS file system

It never touches the path itself: what could hang runs in worker processes. Each step has the deadline `--timeout`. The
trial mount is made as root without a path, in no mount table, read-only, and is gone when the program ends; `--no-mount`
leaves it out. Nothing is written, unless `--write` asks for it: then one small file is written to `.mountwarden/` in the
root of the mount, read back, and taken away again, as a [canary](canary.md) does it; `--write=uid=1000` does so as that
user. Exit codes: 0 well, 1 degraded, 2 dead or cannot be mounted, 3 could not tell. `--nagios` prints one line for a
monitoring system.

## The JSON document

`--json` prints one object. Fields may be added; none changes its meaning while `schema` stays.

| field | meaning |
|---|---|
| `schema` | `mountwarden.io/diagnosis/v1` |
| `version` | version of mountwarden |
| `generated` | when it began, in seconds since 1970 |
| `target` | what was asked about |
| `server` | server as mounted or asked; null where there is none |
| `export` | path on the server |
| `steps` | the steps in their order |
| `result` | `healthy`, `degraded`, `dead` (cannot be mounted), `unknown`: exit code 0, 1, 2, 3 |
| `state` | of a mounted path, its state (states.md); else null |
| `cause` | why, as far as it is proven (server.md); null where nothing is |
| `candidates` | causes that are possible and not proven |
| `summary` | what is the matter, in words |
| `todo` | what to do, one thing after the other |
| `mount` | of a mounted path, its row of /api/v1/mounts (api.md); else null |
| `timeout_seconds` | deadline of each step |
| `seconds` | how long all of it took |

Of each step:

| field | meaning |
|---|---|
| `step` | its name, such as `name`, `connection`, `versions`, `export_path`, `trial_mount`, `probe`, `blocked` |
| `outcome` | `ok`, `failed`, `note` (neither), `skipped` (and why) |
| `asked` | what was done |
| `answer` | what came back |
| `seconds` | how long it took; null where nothing was asked |

## What it says

From real runs in the lab, made by `cargo test --test lab -- diagnoses --page`; the program gave up on each step after 2 s.
A row names the result and the proven cause.
";

/// The page in the making.
#[derive(Debug, Default)]
pub struct Page {
    /// What happened, with the results before mounting and of the mounted path.
    rows: BTreeMap<String, (Vec<String>, Vec<String>)>,
    order: Vec<String>,
    outputs: String,
}

impl Page {
    /// Adds one output: what happened, what was asked, the result in a line, the text.
    pub fn add(&mut self, what: &str, target: &str, arguments: &str, line: &str, text: &str) {
        if !self.rows.contains_key(what) {
            self.order.push(what.to_owned());
        }
        let result = line.split(',').next().unwrap_or_default();
        let row = self.rows.entry(what.to_owned()).or_default();
        let cells = if target.starts_with('/') { &mut row.1 } else { &mut row.0 };
        cells.push(format!("`{result}`"));
        let space = if arguments.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ =
            write!(self.outputs, "\n### {what}\n\n```\n$ mountwarden diagnose {target}{space}{arguments}\n{text}```\n");
    }

    /// The whole page.
    #[must_use]
    pub fn finish(self) -> String {
        let mut page = format!("{HEAD}\n| what happened | before it is mounted | mounted path |\n|---|---|---|\n");
        for what in &self.order {
            let (before, after) = self.rows.get(what).cloned().unwrap_or_default();
            let cell = |mut cells: Vec<String>| {
                cells.dedup();
                cells.join(", ")
            };
            let _ = writeln!(page, "| {what} | {} | {} |", cell(before), cell(after));
        }
        page + &self.outputs
    }
}
