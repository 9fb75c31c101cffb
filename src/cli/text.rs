//! Text for terminals: escaped, measured, shortened, wrapped.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns that `text` takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Replaces what a terminal would obey instead of show. Mount names belong to tenants: one may hold a newline, an
/// escape sequence, or a mark that turns the rest of the line around.
pub(super) fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_control() {
            // The same form as bytes that are not UTF-8 have in labels.
            let _ = write!(shown, "\\x{:02x}", u32::from(c));
        } else if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Marks without a picture that change what stands around them: zero width, direction, line and paragraph
/// separators, interlinear and tag characters (Unicode general categories Cf, Zl and Zp).
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c),
        0x00ad | 0x061c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb
        | 0xe0000..=0xe007f)
}

/// Shortens to `room` columns by taking out the middle: start and end of a path say most.
pub(super) fn shorten(text: &str, room: usize) -> String {
    const GAP: &str = "...";
    if width(text) <= room {
        return text.to_owned();
    }
    let kept = room.saturating_sub(GAP.len());
    let head: String = fitting(text.chars(), kept / 2).collect();
    let tail: Vec<char> = fitting(text.chars().rev(), kept.saturating_sub(width(&head))).collect();
    head + GAP + &tail.into_iter().rev().collect::<String>()
}

/// The first characters that fit into `room` columns.
fn fitting(chars: impl Iterator<Item = char>, room: usize) -> impl Iterator<Item = char> {
    chars
        .scan(0_usize, |used, c| {
            *used = used.saturating_add(c.width().unwrap_or(0));
            Some((*used, c))
        })
        .take_while(move |(used, _)| *used <= room)
        .map(|(_, c)| c)
}

/// Fills up with spaces to `room` columns.
pub(super) fn pad(text: &str, room: usize) -> String {
    format!("{text}{}", " ".repeat(room.saturating_sub(width(text))))
}

/// Breaks into lines of at most `room` columns: at spaces, but not inside a command in backticks, which somebody will
/// copy; only what is longer than a line is broken all the same.
pub(super) fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words(text, room.max(2)) {
        if !line.is_empty() && width(&line) + 1 + width(&word) > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// What is not to be broken, each at most `room` columns wide.
fn words(text: &str, room: usize) -> Vec<String> {
    let mut quoted = false;
    let at_gap = move |c: char| {
        quoted ^= c == '`';
        c.is_whitespace() && !quoted
    };
    let mut words = Vec::new();
    for word in text.split(at_gap).filter(|word| !word.is_empty()) {
        if width(word) <= room {
            words.push(word.to_owned());
        } else {
            words.extend(word.split_whitespace().flat_map(|part| cut(part, room)));
        }
    }
    words
}

/// The word in pieces of at most `room` columns; `room` must hold the widest character (2).
fn cut(word: &str, room: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = word;
    while !rest.is_empty() {
        let piece: String = fitting(rest.chars(), room).collect();
        let end = if piece.is_empty() { rest.len() } else { piece.len() };
        let (head, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        pieces.push(head.to_owned());
        rest = tail;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(escape("/mnt/a\nb\t\u{1b}[31m\u{7f}"), "/mnt/a\\x0ab\\x09\\x1b[31m\\x7f");
        assert_eq!(escape("a\u{9b}b\u{202e}c\u{200b}\u{2028}"), "a\\u{9b}b\\u{202e}c\\u{200b}\\u{2028}");
        assert_eq!(escape("/mnt/gr\u{fc}n \u{65e5}\u{672c} \\x41"), "/mnt/gr\u{fc}n \u{65e5}\u{672c} \\x41");
    }

    #[test]
    fn long_paths_keep_start_and_end() {
        assert_eq!(shorten("/mnt/data", 9), "/mnt/data");
        assert_eq!(shorten("/var/lib/kubelet/pods/volume-1", 15), "/var/l...lume-1");
        assert_eq!(shorten("\u{65e5}\u{672c}\u{65e5}\u{672c}\u{65e5}", 8), "\u{65e5}...\u{65e5}");
    }

    #[test]
    fn a_command_in_backticks_stays_on_one_line() {
        assert_eq!(wrap("run `df -h` now", 9), ["run", "`df -h`", "now"]);
        assert_eq!(wrap("run `df -h /mnt` now", 9), ["run `df", "-h /mnt`", "now"]);
    }

    proptest::proptest! {
        #[test]
        fn escaped_text_holds_nothing_that_moves_the_cursor(text in proptest::prelude::any::<String>()) {
            assert!(!escape(&text).chars().any(char::is_control));
        }

        #[test]
        fn shortened_text_fits(text in "\\PC{0,60}", room in 3..40_usize) {
            let shown: String = shorten(&text, room);
            let sum: usize = shown.chars().filter_map(UnicodeWidthChar::width).sum();
            assert!(sum <= room || width(&text) <= room, "{shown}");
        }

        #[test]
        fn wrapped_text_fits_and_loses_nothing(text in "[a-z` /\u{65e5}]{0,300}", room in 2..40_usize) {
            let lines = wrap(&text, room);
            assert!(lines.iter().all(|line| width(line) <= room), "{lines:?}");
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            assert_eq!(letters(&lines.concat()), letters(&text));
        }
    }
}
