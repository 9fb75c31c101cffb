//! The kernel's octal escapes in and out, and bytes of the kernel as text that is safe to print.
//!
//! `show_mountinfo` and `show_vfsstat` (fs/proc_namespace.c) write space, tab, newline and backslash as `\ooo` (`#` too
//! in sources and types, `,` and `=` too in option values); every other byte stands there as it is, UTF-8 or not.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The bytes behind a name of mountinfo or mountstats: every `\ooo` becomes its byte.
///
/// A backslash that starts no such escape stays; the kernel writes none.
#[must_use]
pub fn unescape(escaped: &[u8]) -> OsString {
    // Nearly every name: nothing to do.
    if !escaped.contains(&b'\\') {
        return OsString::from_vec(escaped.to_vec());
    }
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some((byte, after)) = escape_at(rest) {
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes)
}

fn escape_at(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] = bytes else { return None };
    Some((((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'), after))
}

/// A name as the kernel writes it into mountinfo: the inverse of [`unescape`].
#[must_use]
pub fn escape(name: &OsStr) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for &byte in name.as_bytes() {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\\' | b'#') {
            escaped.extend_from_slice(format!("\\{byte:03o}").as_bytes());
        } else {
            escaped.push(byte);
        }
    }
    escaped
}

/// A name as metrics, JSON, tables and log lines show it: one line of UTF-8 that no terminal acts on.
///
/// Bytes that are not UTF-8, control characters and characters that reorder or hide text become `\xNN`, byte by byte.
/// A backslash is doubled only where it would read as such an escape, so two names never share a label.
#[must_use]
pub fn label(name: &OsStr) -> String {
    // Nearly every name: printable ASCII.
    if let Some(text) = name.to_str()
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\')
    {
        return text.to_owned();
    }
    let mut text = String::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while !rest.is_empty() {
        let (piece, after) = next_piece(rest);
        match piece {
            Piece::Char('\\') if reads_as_escape(after) => text.push_str("\\\\"),
            Piece::Char(c) => text.push(c),
            Piece::Hidden(bytes) => {
                for byte in bytes {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\\x{byte:02x}");
                }
            }
        }
        rest = after;
    }
    text
}

/// What a label shows next: a character as it is, or bytes in hexadecimal.
enum Piece<'a> {
    Char(char),
    Hidden(&'a [u8]),
}

fn next_piece(bytes: &[u8]) -> (Piece<'_>, &[u8]) {
    // No character is longer than four bytes; looking no further keeps long names linear.
    let window = bytes.get(..4).unwrap_or(bytes);
    let first = window.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
    let Some(c) = first else {
        let (byte, after) = bytes.split_at(1.min(bytes.len()));
        return (Piece::Hidden(byte), after);
    };
    let (own, after) = bytes.split_at(c.len_utf8());
    if is_printable(c) { (Piece::Char(c), after) } else { (Piece::Hidden(own), after) }
}

/// Whether the text after a backslash would make an escape of it: another backslash (written or produced), or `xNN`.
fn reads_as_escape(after: &[u8]) -> bool {
    match after {
        [] => false,
        [b'x', a, b, ..] => a.is_ascii_hexdigit() && b.is_ascii_hexdigit(),
        [b'\\', ..] => true,
        _ => matches!(next_piece(after).0, Piece::Hidden(_)),
    }
}

fn is_printable(c: char) -> bool {
    let invisible = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' // soft hyphen, zero width space, direction marks
        | '\u{2028}'..='\u{202e}' // line and paragraph separators, embeddings and overrides
        | '\u{2060}'..='\u{206f}' // word joiner, isolates
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'); // byte order mark, annotations, tags
    !c.is_control() && !invisible
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label_of(bytes: &[u8]) -> String {
        label(OsStr::from_bytes(bytes))
    }

    /// Reads a label back, as a person would.
    fn bytes_of(label: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = label.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            match rest {
                [b'\\', b'\\', after @ ..] => {
                    bytes.push(b'\\');
                    rest = after;
                }
                [b'\\', b'x', a, b, after @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                    let hex = String::from_utf8(vec![*a, *b]).unwrap();
                    bytes.push(u8::from_str_radix(&hex, 16).unwrap());
                    rest = after;
                }
                _ => {
                    bytes.push(first);
                    rest = tail;
                }
            }
        }
        bytes
    }

    #[test]
    fn kernel_escapes_become_their_bytes() {
        assert_eq!(unescape(br"/a\040b\011c\012d\134e\043f\054g").as_bytes(), b"/a b\tc\nd\\e#f,g");
        assert_eq!(unescape(br"\377\000").as_bytes(), b"\xff\0");
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescape(br"\4\04\0a0\400\x41\").as_bytes(), br"\4\04\0a0\400\x41\");
        assert_eq!(unescape(br"\134040").as_bytes(), br"\040", "an escaped backslash starts no second escape");
    }

    #[test]
    fn a_label_keeps_text_and_shows_the_rest_in_hexadecimal() {
        assert_eq!(label_of("/mnt/größe/日本 x".as_bytes()), "/mnt/größe/日本 x");
        assert_eq!(label_of(b"/a\nb\x1b[31m\x7f\xff"), r"/a\x0ab\x1b[31m\x7f\xff");
        assert_eq!(label_of("\u{85}\u{202e}\u{2066}".as_bytes()), r"\xc2\x85\xe2\x80\xae\xe2\x81\xa6");
        assert_eq!(label_of("a\u{e9}".as_bytes().split_last().unwrap().1), r"a\xc3");
    }

    #[test]
    fn a_backslash_is_doubled_only_where_it_would_lie() {
        assert_eq!(label_of(br"C:\dir\"), r"C:\dir\");
        assert_eq!(label_of(br"/dev\x2ddisk"), r"/dev\\x2ddisk", "systemd names look like our escapes");
        assert_eq!(label_of(b"\\\xff"), r"\\\xff");
        assert_eq!(label_of(br"\\srv"), r"\\\srv");
    }

    proptest! {
        #[test]
        fn escaping_and_unescaping_is_lossless(bytes: Vec<u8>) {
            let name = OsString::from_vec(bytes);
            prop_assert_eq!(unescape(&escape(&name)), name);
        }

        #[test]
        fn any_bytes_unescape_without_panic(bytes: Vec<u8>) {
            prop_assert!(unescape(&bytes).len() <= bytes.len());
        }

        #[test]
        fn labels_are_printable_and_unique(bytes: Vec<u8>) {
            let text = label_of(&bytes);
            prop_assert!(text.chars().all(is_printable));
            prop_assert_eq!(bytes_of(&text), bytes);
        }

        #[test]
        fn labels_of_backslashes_and_hex_are_unique(text in r"[\\x0-9a-f\xff\n]{0,12}") {
            prop_assert_eq!(bytes_of(&label_of(text.as_bytes())), text.into_bytes());
        }
    }
}
