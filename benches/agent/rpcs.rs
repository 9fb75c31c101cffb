//! Requests to an NFS server, counted by the client's kernel in a guest of the lab (`tests/lab/rpcs.rs`).

use std::process::{Child, Command, Stdio};

use crate::page::Row;

/// Goal per target and interval.
const GOAL: f64 = 3.0;

/// Builds the lab's program, so that nothing is compiled while something is measured.
pub(crate) fn build() {
    assert!(lab().arg("--no-run").status().unwrap().success(), "the lab cannot be built");
}

fn lab() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--quiet", "--locked", "--test", "lab"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// The guest under way.
pub(crate) struct Guest(Child);

impl Guest {
    /// Boots it.
    pub(crate) fn start() -> Guest {
        let mut command = lab();
        command.args(["--", "rpcs", "--agent", env!("CARGO_BIN_EXE_mountwarden")]);
        Guest(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Waits for its count: lines of `NAME NUMBER`, with the rounds first.
    pub(crate) fn row(self) -> Row {
        let output = self.0.wait_with_output().unwrap();
        assert!(output.status.success(), "the lab says what is wrong on stderr");
        let text = String::from_utf8(output.stdout).unwrap();
        let mut counts = text.lines().filter_map(|line| {
            let (name, number) = line.split_once(' ')?;
            Some((name, number.parse::<f64>().ok()?))
        });
        let (_, rounds) = counts.next().filter(|(name, _)| *name == "rounds").expect("the number of rounds");
        let operations: Vec<(&str, f64)> = counts.collect();
        let total: f64 = operations.iter().map(|(_, count)| count).sum();
        let list: Vec<String> = operations.iter().map(|(name, count)| format!("{name} {}", count / rounds)).collect();
        Row::goal(
            "RPCs per healthy NFS v4.1 target and interval, in mountstats",
            format!("{:.2} ({}), over {rounds} rounds", total / rounds, list.join(", ")),
            "at most 3",
            total / rounds <= GOAL,
        )
    }
}
