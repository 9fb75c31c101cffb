//! Lines of the kernel log that are about NFS mounts.
//!
//! The formats are those of `rpc_check_timeout` and `call_decode` (net/sunrpc/clnt.c), `nfs_update_inode`
//! (fs/nfs/inode.c), `nfs4_state_mark_open_context_bad`, `nfs4_do_reclaim` and `nfs4_state_manager` (fs/nfs/nfs4state.c),
//! the same from Linux 5.10 to 6.12. Most are rate-limited, so a missing `OK` proves nothing, and soft mounts never print
//! one.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::mounts::{Dev, octal};

/// Longest message that is looked at; the longest line that is known is a path of 4096 bytes and some words.
const MESSAGE_LIMIT: usize = 8192;

/// Longest server name that is believed (a DNS name has at most 253 characters).
const SERVER_LIMIT: usize = 255;

/// Characters of a line that are kept to be shown.
const TEXT_LIMIT: usize = 200;

/// RPC programs whose server is that of a mount.
const PROGRAMS: [&[u8]; 3] = [b"nfs: ", b"nfsacl: ", b"lockd: "];

/// What a line says. The words are label values of `mountwarden_kernel_log_lines_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A request has waited for a major timeout and goes on waiting (`not responding, still trying`).
    NotResponding,
    /// A soft mount gave a request up (`not responding, timed out`).
    GaveUp,
    /// A request that was said to wait has its answer (`OK`).
    Answering,
    /// A handle leads to another file than it did.
    FileidChanged,
    /// State could not be recovered after the server restarted: applications get EIO for files they have open.
    RecoveryFailed,
    /// Locks were lost.
    LocksLost,
}

impl Kind {
    /// All kinds, in the order of the exposition.
    pub const ALL: [Kind; 6] = [
        Kind::NotResponding,
        Kind::GaveUp,
        Kind::Answering,
        Kind::FileidChanged,
        Kind::RecoveryFailed,
        Kind::LocksLost,
    ];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::NotResponding => "not_responding",
            Kind::GaveUp => "gave_up",
            Kind::Answering => "answering",
            Kind::FileidChanged => "fileid_changed",
            Kind::RecoveryFailed => "recovery_failed",
            Kind::LocksLost => "locks_lost",
        }
    }
}

/// A line about NFS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it says.
    pub kind: Kind,
    /// Server as mounted, without the brackets of an IPv6 address; some lines name none.
    pub server: Option<String>,
    /// Superblock, where the line names it.
    pub dev: Option<Dev>,
    /// The line as it can be shown: one line, nothing unprintable, cut off after 200 characters.
    pub text: String,
}

/// A record of `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg): `priority,sequence,time,flags;message`, then lines with
/// properties. `None`: not of the kernel (a process may write records too, but the kernel marks them), not about NFS, or
/// no record.
#[must_use]
pub fn record(bytes: &[u8]) -> Option<Line> {
    let at = bytes.iter().position(|&byte| byte == b';')?;
    let (head, rest) = (bytes.get(..at)?, bytes.get(at + 1..)?);
    let priority: u32 = std::str::from_utf8(head.split(|&byte| byte == b',').next()?).ok()?.parse().ok()?;
    // Priority is facility x 8 + level; 0 is the kernel's own facility, which devkmsg_write() gives nobody.
    if priority >> 3 != 0 {
        return None;
    }
    let message = rest.split(|&byte| byte == b'\n').next()?;
    line(&unescape(message.get(..MESSAGE_LIMIT).unwrap_or(message)))
}

/// `\xNN` of the device's escaping to bytes; what is no escape stays.
fn unescape(message: &[u8]) -> Cow<'_, [u8]> {
    if !message.contains(&b'\\') {
        return Cow::Borrowed(message);
    }
    let mut out = Vec::with_capacity(message.len());
    let mut rest = message;
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = tail.strip_prefix(b"x").and_then(|tail| tail.split_at_checked(2)).filter(|_| byte == b'\\');
        let decoded = escape.and_then(|(digits, tail)| {
            let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
            Some((u8::from_str_radix(digits, 16).ok()?, tail))
        });
        let (byte, tail) = decoded.unwrap_or((byte, tail));
        out.push(byte);
        rest = tail;
    }
    Cow::Owned(out)
}

/// A message without its header. `None`: it is not about NFS.
#[must_use]
pub fn line(message: &[u8]) -> Option<Line> {
    let message = message.trim_ascii_end();
    if let Some(rest) = PROGRAMS.iter().find_map(|program| message.strip_prefix(*program)) {
        return timeout(message, rest.strip_prefix(b"server ")?);
    }
    if let Some(rest) = message.strip_prefix(b"NFS: ") {
        return client(message, rest);
    }
    if message.starts_with(b"NFSv4: state recovery failed for open file ") {
        return Some(named(Kind::RecoveryFailed, message));
    }
    // The second half of the message about a fileid, where the log was read line by line.
    let dev = message.strip_prefix(b"fsid ").and_then(superblock)?;
    Some(Line { dev: Some(dev), ..named(Kind::FileidChanged, message) })
}

/// `SERVER not responding, still trying`, `SERVER not responding, timed out`, `SERVER OK`.
fn timeout(message: &[u8], rest: &[u8]) -> Option<Line> {
    let endings: [(&[u8], Kind); 3] = [
        (b" not responding, still trying", Kind::NotResponding),
        (b" not responding, timed out", Kind::GaveUp),
        (b" OK", Kind::Answering),
    ];
    let (server, kind) = endings.iter().find_map(|(ending, kind)| Some((rest.strip_suffix(*ending)?, *kind)))?;
    Some(Line { server: Some(name(server)?), ..named(kind, message) })
}

fn client(message: &[u8], rest: &[u8]) -> Option<Line> {
    if let Some(rest) = rest.strip_prefix(b"server ") {
        let (server, more) = split(rest, b" error: fileid changed")?;
        let dev = more.strip_prefix(b"\nfsid ").and_then(superblock);
        return Some(Line { server: Some(name(server)?), dev, ..named(Kind::FileidChanged, message) });
    }
    if rest.starts_with(b"state manager") {
        let (_, rest) = split(rest, b" failed on NFSv4 server ")?;
        let (server, _) = split(rest, b" with error ")?;
        return Some(Line { server: Some(name(server)?), ..named(Kind::RecoveryFailed, message) });
    }
    if rest.starts_with(b"nfs4_reclaim_open_state: unhandled error ") {
        return Some(named(Kind::RecoveryFailed, message));
    }
    if rest.ends_with(b"nfs4_reclaim_open_state: Lock reclaim failed!") {
        // Before Linux 5.18: the name in front is that of the function.
        return Some(named(Kind::LocksLost, message));
    }
    let (server, count) = split(rest.strip_suffix(b" locks")?, b": lost ")?;
    count.iter().all(u8::is_ascii_digit).then_some(())?;
    Some(Line { server: Some(name(server)?), ..named(Kind::LocksLost, message) })
}

/// `0:45: expected fileid ...`: the superblock's st_dev, decimal (`s_id`).
fn superblock(rest: &[u8]) -> Option<Dev> {
    let (dev, _) = split(rest, b": expected fileid ")?;
    let (major, minor) = std::str::from_utf8(dev).ok()?.split_once(':')?;
    Some(Dev { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// Before and after the first occurrence.
fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let start = bytes.windows(at.len()).position(|window| window == at)?;
    Some((bytes.get(..start)?, bytes.get(start + at.len()..)?))
}

/// A server's name as labels have it.
fn name(server: &[u8]) -> Option<String> {
    let server = server.strip_prefix(b"[").and_then(|server| server.strip_suffix(b"]")).unwrap_or(server);
    (1..=SERVER_LIMIT).contains(&server.len()).then(|| octal::label(OsStr::from_bytes(server)))
}

fn named(kind: Kind, message: &[u8]) -> Line {
    Line { kind, server: None, dev: None, text: shown(message) }
}

fn shown(message: &[u8]) -> String {
    let one_line: Vec<u8> = message.iter().map(|&byte| if byte == b'\n' { b' ' } else { byte }).collect();
    octal::label(OsStr::from_bytes(&one_line)).chars().take(TEXT_LIMIT).collect()
}

#[cfg(test)]
mod tests;
