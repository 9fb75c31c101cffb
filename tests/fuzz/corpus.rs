//! The kept corpus: `tests/fixtures/fuzz/TARGET`, one input per line, with `\n`, `\x00` and the like for what is no
//! printable ASCII, so that a reader can see what it is and a diff what came.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Inputs that are kept of a target, and the longest of them: the corpus is replayed by every `make test`.
pub(crate) const KEPT: usize = 60;
pub(crate) const KEPT_BYTES: usize = 1024;

pub(crate) fn file(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fuzz").join(target)
}

/// The kept inputs; none where there is no file.
pub(crate) fn read(target: &str) -> Result<Vec<Vec<u8>>> {
    let Ok(text) = std::fs::read_to_string(file(target)) else { return Ok(Vec::new()) };
    text.lines()
        .enumerate()
        .map(|(at, line)| decode(line).with_context(|| format!("{target}: line {}", at + 1)))
        .collect()
}

pub(crate) fn write(target: &str, inputs: &[Vec<u8>]) -> Result<()> {
    let text: String = inputs.iter().map(|input| encode(input) + "\n").collect();
    std::fs::create_dir_all(file(target).parent().context("no directory")?)?;
    Ok(std::fs::write(file(target), text)?)
}

pub(crate) fn encode(input: &[u8]) -> String {
    input.escape_ascii().to_string()
}

fn decode(line: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = line.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&kind, tail) = rest.split_first()?;
        rest = tail;
        bytes.push(match kind {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                rest = tail;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            itself => itself,
        });
    }
    Some(bytes)
}
