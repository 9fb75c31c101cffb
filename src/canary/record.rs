//! A canary's record: one block of text with a checksum. Whoever may write to the mount may have written anything, so
//! whatever is read is bounded and checked.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Bytes of a record: the block that every O_DIRECT write accepts, and small beside anything else.
pub const SIZE: usize = 4096;

/// Longest name of a node that is written or believed.
const NODE: usize = 128;

const MAGIC: &str = "mountwarden canary 1";

/// What a node says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`id_of`] the node: also the name of its file.
    pub id: String,
    /// Its name.
    pub node: String,
    /// Boot id of its kernel.
    pub boot: String,
    /// Grows by one with each record.
    pub seq: u64,
    /// The next record comes within so many seconds.
    pub interval: u64,
}

/// What the file of a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// A whole record.
    Record(Record),
    /// Nothing, or zeros as a crash leaves them.
    Blank,
    /// It began as a record and is none: half written, or damaged.
    Damaged,
    /// Something else.
    Foreign,
}

/// The name of a node on every mount. Cloned machines share their machine id, so the node's name counts too.
#[must_use]
pub fn id_of(machine_id: &[u8], node: &str) -> String {
    format!("{:016x}", checksum([machine_id.trim_ascii(), b"\0", node.as_bytes()]))
}

/// Whether a file name can be a node's.
#[must_use]
pub fn is_id(name: &[u8]) -> bool {
    name.len() == 16 && name.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Record {
    /// The block that is written.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = String::with_capacity(SIZE);
        let node: String = self.node.chars().filter(|c| plain(*c)).take(NODE).collect();
        let boot: String = self.boot.chars().filter(|c| plain(*c)).take(NODE).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{MAGIC}\nid {}\nnode {node}\nboot {boot}", self.id);
        let _ = writeln!(text, "seq {}\ninterval {}", self.seq, self.interval);
        let padding = padding(self.seq, SIZE.saturating_sub(text.len() + SUM));
        let _ = writeln!(text, "sum {:016x}", checksum([text.as_bytes(), &padding]));
        let mut block = text.into_bytes();
        block.extend_from_slice(&padding);
        block
    }
}

/// What stands in a file of [`SIZE`] bytes or fewer.
#[must_use]
pub fn read(bytes: &[u8]) -> Contents {
    if bytes.iter().all(|byte| *byte == 0) {
        return Contents::Blank;
    }
    if !bytes.starts_with(MAGIC.as_bytes()) {
        return Contents::Foreign;
    }
    parse(bytes).map_or(Contents::Damaged, Contents::Record)
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let block = bytes.get(..SIZE)?;
    let mut lines = Lines { rest: block };
    (lines.next()? == MAGIC).then_some(())?;
    let id = lines.value("id")?.to_owned();
    let word = |text: &str| (text.len() <= NODE && text.chars().all(plain)).then(|| text.to_owned());
    let node = word(lines.value("node")?)?;
    let boot = word(lines.value("boot")?)?;
    let seq = lines.value("seq")?.parse().ok()?;
    let interval = lines.value("interval")?.parse().ok()?;
    let head = block.len() - lines.rest.len();
    let sum = u64::from_str_radix(lines.value("sum")?, 16).ok()?;
    let whole = sum == checksum([block.get(..head)?, lines.rest]);
    (whole && is_id(id.as_bytes())).then_some(Record { id, node, boot, seq, interval })
}

struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let end = self.rest.iter().take(256).position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(self.rest.get(..end)?).ok()?;
        self.rest = self.rest.get(end + 1..)?;
        Some(line)
    }

    fn value(&mut self, key: &str) -> Option<&'a str> {
        self.next()?.strip_prefix(key)?.strip_prefix(' ')
    }
}

/// Names of machines and boot ids hold nothing else; it can stand in a label, a log line and a terminal.
fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

/// Bytes of the line with the checksum.
const SUM: usize = "sum 0123456789abcdef\n".len();

/// Text that differs from record to record, so that the whole block is read back and not only its head.
fn padding(seq: u64, length: usize) -> Vec<u8> {
    let mut state = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |place: usize| {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if place % 64 == 63 { b'\n' } else { b'a' + u8::try_from(state >> 59 & 15).unwrap_or(0) }
    };
    (0..length).map(&mut next).collect()
}

/// FNV-1a, 64 bits: tells damage from a whole record. It keeps nobody from writing a record of his own; nothing can.
fn checksum<const N: usize>(parts: [&[u8]; N]) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        Record {
            id: id_of(b"0123\n", "node-1"),
            node: "node-1".to_owned(),
            boot: "5b3f".to_owned(),
            seq: 41,
            interval: 75,
        }
    }

    #[test]
    fn a_record_is_one_block_and_is_read_back() {
        let block = record().encode();
        assert_eq!(block.len(), SIZE);
        assert_eq!(read(&block), Contents::Record(record()));
        assert!(block.is_ascii(), "a person who finds it can read it");
    }

    #[test]
    fn each_record_is_another_block_in_all_its_parts() {
        let (one, other) = (record().encode(), Record { seq: 42, ..record() }.encode());
        let equal = one.iter().zip(&other).skip(512).filter(|(a, b)| a == b).count();
        assert!(equal < SIZE / 4, "{equal} bytes are the same");
    }

    #[test]
    fn a_record_that_was_cut_or_changed_anywhere_is_damaged_or_foreign() {
        let block = record().encode();
        for length in [1, 20, 21, 100, SIZE - 1] {
            assert!(!matches!(read(&block[..length]), Contents::Record(_)), "{length}");
        }
        for place in 0..SIZE {
            let mut changed = block.clone();
            changed[place] ^= 1;
            assert!(!matches!(read(&changed), Contents::Record(_)), "byte {place}");
        }
    }

    #[test]
    fn zeros_are_blank_and_other_files_are_foreign() {
        assert_eq!(read(b""), Contents::Blank);
        assert_eq!(read(&[0; SIZE]), Contents::Blank);
        assert_eq!(read(b"#!/bin/sh\n"), Contents::Foreign);
        assert_eq!(read(b"mountwarden canary 1\nid ../../etc\n"), Contents::Damaged);
    }

    #[test]
    fn machines_with_one_machine_id_have_names_of_their_own() {
        assert_ne!(id_of(b"abc", "a"), id_of(b"abc", "b"));
        assert_eq!(id_of(b"abc\n", "a"), id_of(b"abc", "a"));
        assert!(is_id(id_of(b"", "").as_bytes()));
        assert!(!is_id(b"0123456789ABCDEF") && !is_id(b"..") && !is_id(b"0123456789abcdef.gone1"));
    }

    #[test]
    fn a_name_that_is_no_host_name_does_no_harm() {
        let hostile = Record { node: "a\nseq 9\u{1b}[2J".to_owned(), ..record() };
        assert_eq!(read(&hostile.encode()), Contents::Record(Record { node: "aseq92J".to_owned(), ..record() }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let mut with_head = record().encode();
            with_head.truncate(bytes.len() * 8);
            with_head.extend_from_slice(&bytes);
            with_head.truncate(2 * SIZE);
            let _ = read(&with_head);
        }
    }
}
