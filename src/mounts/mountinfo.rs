//! `/proc/PID/mountinfo`: bytes -> [`Mount`]s, without loss and one line at a time.
//!
//! The format is that of proc_pid_mountinfo(5). A reader for text does not do: names may hold any byte but NUL, sources
//! may be empty, mount ids are unsigned, and the order of options means something (`lowerdir+=`). A line that does not
//! parse is counted and never hides the others.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::{Dev, Kind, Mount, Origin, View, octal, source};

/// Bad lines that are kept to be shown; all are counted.
pub(super) const BAD_LINES_KEPT: usize = 8;
/// Bytes of a bad line that are kept.
const EXCERPT_BYTES: usize = 120;

/// What a mount table says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The mounts in the order of the file; local ones too.
    pub mounts: Vec<Mount>,
    /// The first lines that did not parse.
    pub bad: Vec<BadLine>,
    /// How many lines did not parse.
    pub bad_count: u64,
}

/// A line of a mount table that did not parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Its number in the file, from 1.
    pub number: u64,
    /// Its beginning, as a label.
    pub excerpt: String,
}

/// Reads a whole mount table.
///
/// Every line of the kernel ends with a newline; a last line without one was cut off and counts as bad, because half an
/// address is an address too.
#[must_use]
pub fn parse(bytes: &[u8], view: View) -> Parsed {
    let mut parsed = Parsed::default();
    for (number, line) in (1..).zip(bytes.split_inclusive(|&byte| byte == b'\n')) {
        match line.strip_suffix(b"\n").and_then(|whole| parse_line(whole, view)) {
            Some(mount) => parsed.mounts.push(mount),
            None => parsed.note_bad(number, line),
        }
    }
    parsed
}

impl Parsed {
    fn note_bad(&mut self, number: u64, line: &[u8]) {
        self.bad_count += 1;
        if self.bad.len() < BAD_LINES_KEPT {
            let beginning = line.get(..EXCERPT_BYTES).unwrap_or(line);
            let beginning = beginning.strip_suffix(b"\n").unwrap_or(beginning);
            self.bad.push(BadLine { number, excerpt: octal::label(OsStr::from_bytes(beginning)) });
        }
    }
}

fn parse_line(line: &[u8], view: View) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let dev = device(fields.next()?)?;
    let root = octal::unescape(fields.next()?);
    let mountpoint = PathBuf::from(octal::unescape(fields.next()?));
    let options = raw(fields.next()?);
    // Any number of optional fields (`shared:1 master:2`) ends with a lone dash.
    fields.by_ref().find(|field| *field == b"-")?;
    // The kernel never leaves the type empty, so further spaces here are padding. A source may well be empty.
    let fstype = octal::label(&octal::unescape(fields.by_ref().find(|field| !field.is_empty())?));
    let source = octal::unescape(fields.next()?);
    let super_options = raw(&rest(fields)?);
    if mountpoint.as_os_str().is_empty() || super_options.is_empty() {
        return None;
    }
    let (kind, origin) = classify(&fstype, &source, &super_options);
    Some(Mount {
        id,
        parent,
        dev,
        root,
        mountpoint,
        fstype,
        source,
        options,
        super_options,
        kind,
        origin,
        view,
        hidden_by: None,
    })
}

/// The superblock's options are the last field; a filesystem that prints a bare space there must not lose what follows.
fn rest<'a>(mut fields: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut joined = fields.next()?.to_vec();
    for field in fields {
        joined.push(b' ');
        joined.extend_from_slice(field);
    }
    Some(joined)
}

fn classify(fstype: &str, source: &OsStr, super_options: &OsStr) -> (Option<Kind>, Origin) {
    let origin = Origin::parse(fstype, source, super_options);
    (source::classify(fstype, &origin), origin)
}

/// Options stay as the kernel wrote them: a comma within a value is escaped and must not become a separator.
fn raw(field: &[u8]) -> OsString {
    OsString::from_vec(field.to_vec())
}

fn number<N: std::str::FromStr>(field: &[u8]) -> Option<N> {
    // `parse` alone would take a sign.
    let digits = field.first().is_some_and(u8::is_ascii_digit);
    std::str::from_utf8(field).ok().filter(|_| digits)?.parse().ok()
}

fn device(field: &[u8]) -> Option<Dev> {
    let mut parts = field.splitn(2, |&byte| byte == b':');
    Some(Dev { major: number(parts.next()?)?, minor: number(parts.next()?)? })
}

#[cfg(test)]
mod tests;
