//! What users may do to a healthy mount, as fast as they can: nothing of it is a reason for an alarm.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Entries of the root at any time: more than the agent remembers.
const ENTRIES: u64 = 6;

/// Runs `rounds` rounds in the root of a mount: a file is written and renamed over its predecessor, the oldest directory
/// goes and a new one comes (as `rsync --delete` leaves a changing source), and every tenth round everything is removed
/// (`rm -rf`) and unpacked anew under other names.
pub(crate) fn run(root: &Path, rounds: u64) -> Result<()> {
    for round in 0..rounds {
        once(root, round).with_context(|| format!("round {round} in {}", root.display()))?;
    }
    println!("churn: {rounds} rounds done");
    Ok(())
}

fn once(root: &Path, round: u64) -> Result<()> {
    if round.is_multiple_of(10) {
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        for number in 0..ENTRIES {
            unpack(root, round + number)?;
        }
    } else {
        let oldest = root.join(format!("tree-{}", round - 1));
        fs::remove_dir_all(oldest)?;
        unpack(root, round + ENTRIES - 1)?;
    }
    fs::write(root.join("state.tmp"), round.to_string())?;
    fs::rename(root.join("state.tmp"), root.join("state"))?;
    Ok(())
}

fn unpack(root: &Path, number: u64) -> Result<()> {
    let tree = root.join(format!("tree-{number}"));
    fs::create_dir(&tree)?;
    fs::write(tree.join("file"), b"contents")?;
    Ok(())
}
