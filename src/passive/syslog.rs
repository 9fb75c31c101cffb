//! The kernel log by syslog(2), for containers: CAP_SYSLOG is enough there, while `/dev/kmsg` is a device that only
//! privileged ones may open. The call never waits and takes nothing away from other readers.
//!
//! It gives lines instead of records, so a file's name with a newline in it can speak for the kernel. What follows from
//! a line is bounded for that reason too: a probe that comes early, a sentence that is wrong.
#![expect(unsafe_code, reason = "klogctl(3) has no safe wrapper")]

use std::io;

use super::kernel_log::{Line, line};

/// `SYSLOG_ACTION_READ_ALL` (include/linux/syslog.h): the last records that fit the buffer.
const READ_ALL: libc::c_int = 3;

/// Reads the newest part of the log that fits the buffer; gives its length.
///
/// # Errors
/// EPERM without CAP_SYSLOG where `kernel.dmesg_restrict` is set, or where seccomp forbids the call.
pub fn read_all(buffer: &mut [u8]) -> io::Result<usize> {
    let room = libc::c_int::try_from(buffer.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel writes at most `room` bytes to the buffer, which is at least as long and lives across the call.
    let length = unsafe { libc::klogctl(READ_ALL, buffer.as_mut_ptr().cast(), room) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

/// Finds what is new in one reading after another.
#[derive(Debug, Default)]
pub struct Tail {
    /// The last line of the last reading, with its end; `None` before the first one.
    last: Option<Vec<u8>>,
}

impl Tail {
    /// The lines about NFS since the last reading, and whether some were overwritten in between. The first reading is
    /// history.
    pub fn take(&mut self, text: &[u8]) -> (Vec<Line>, bool) {
        let last = text.split_inclusive(|&byte| byte == b'\n').next_back().unwrap_or_default().to_vec();
        let Some(before) = self.last.replace(last) else { return (Vec::new(), false) };
        let known = (!before.is_empty()).then(|| end_of(text, &before));
        let (new, lost) = match known {
            Some(Some(end)) => (text.get(end..).unwrap_or_default(), false),
            Some(None) => (text, true),
            // There was nothing at all.
            None => (text, false),
        };
        (new.split(|&byte| byte == b'\n').filter_map(of_kernel).collect(), lost)
    }
}

/// Where the last occurrence of a whole line ends.
fn end_of(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut end = text.len();
    for line in text.split_inclusive(|&byte| byte == b'\n').rev() {
        if line == wanted {
            return Some(end);
        }
        end -= line.len();
    }
    None
}

/// `<priority>[ time][caller] message`, the two in brackets only where the kernel is set so.
fn of_kernel(text: &[u8]) -> Option<Line> {
    let rest = text.strip_prefix(b"<")?;
    let end = rest.iter().position(|&byte| byte == b'>')?;
    let priority: u32 = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
    let mut message = rest.get(end + 1..)?;
    for _ in 0..2 {
        let inner = message.strip_prefix(b"[").and_then(|rest| rest.iter().position(|&byte| byte == b']'));
        message = inner.and_then(|end| message.get(end + 2..)).unwrap_or(message);
    }
    // As in `record`: facility 0 is the kernel's own.
    (priority >> 3 == 0).then(|| line(message.trim_ascii_start()))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mounts::Dev;
    use crate::passive::kernel_log::Kind;

    const OLD: &str = "<6>[    1.000000] eth0: link up\n<5>[    2.000000] nfs: server a not responding, still trying\n";

    fn kinds(lines: &[Line]) -> Vec<Kind> {
        lines.iter().map(|line| line.kind).collect()
    }

    #[test]
    fn only_what_came_after_the_first_reading_is_new() {
        let mut tail = Tail::default();
        assert_eq!(tail.take(OLD.as_bytes()), (Vec::new(), false));
        assert_eq!(tail.take(OLD.as_bytes()), (Vec::new(), false));
        let more = format!("{OLD}<5>[    3.000000][  T812] nfs: server a OK\n<13>[    4.000000] nfs: server b OK\n");
        let (lines, lost) = tail.take(more.as_bytes());
        assert_eq!((kinds(&lines), lost), (vec![Kind::Answering], false), "processes are not believed");
        assert_eq!(tail.take(more.as_bytes()), (Vec::new(), false));
    }

    #[test]
    fn a_log_that_ran_over_is_read_whole_and_said_to_have_lost_lines() {
        let mut tail = Tail::default();
        tail.take(OLD.as_bytes());
        let (lines, lost) = tail.take(b"<5>[    9.000000] nfs: server a OK\n");
        assert_eq!((kinds(&lines), lost), (vec![Kind::Answering], true));
    }

    #[test]
    fn a_log_without_times_and_an_empty_one_are_read() {
        let mut tail = Tail::default();
        assert_eq!(tail.take(b""), (Vec::new(), false));
        let (lines, lost) = tail.take(b"<5>nfs: server a not responding, timed out\n");
        assert_eq!((kinds(&lines), lost), (vec![Kind::GaveUp], false));
    }

    #[test]
    fn a_message_of_two_lines_names_the_server_and_then_the_superblock() {
        let mut tail = Tail::default();
        tail.take(OLD.as_bytes());
        let both = "<3>[    5.000000] NFS: server a error: fileid changed\n<3>[    5.000000] fsid 0:26: expected fileid 0xa, got 0x1e\n";
        let (lines, _) = tail.take(format!("{OLD}{both}").as_bytes());
        let seen: Vec<_> = lines.iter().map(|line| (line.kind, line.server.as_deref(), line.dev)).collect();
        let dev = Some(Dev { major: 0, minor: 26 });
        assert_eq!(seen, [(Kind::FileidChanged, Some("a"), None), (Kind::FileidChanged, None, dev)]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(first: Vec<u8>, second: Vec<u8>) {
            let mut tail = Tail::default();
            tail.take(&first);
            tail.take(&second);
        }
    }
}
