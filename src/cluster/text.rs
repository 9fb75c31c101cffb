//! Tenants' text in what others read: it can neither end a line nor look like another one.

/// Longest note of an Event (`ValidateEventCreate` of Kubernetes: 1024 bytes).
pub(super) const NOTE: usize = 1024;

/// Longest name, path or source in a sentence.
const WORD: usize = 256;

/// One line: control and formatting characters as `\u{..}`, double quotes and backticks as `'`; cut to `most` bytes.
pub(super) fn line(text: &str, most: usize) -> String {
    const CUT: &str = "…";
    let mut out = String::with_capacity(text.len().min(most));
    // Where to cut should it become too long: there the mark still fits.
    let mut cut = 0;
    for c in text.chars() {
        match c {
            '"' | '`' => out.push('\''),
            c if is_unseen(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
        if out.len() > most {
            out.truncate(cut);
            out.push_str(CUT);
            return out;
        }
        if out.len() + CUT.len() <= most {
            cut = out.len();
        }
    }
    out
}

/// A tenant's word (name, path, source) within a sentence.
pub(super) fn word(text: &str) -> String {
    line(text, WORD)
}

/// Control characters, and those that are not seen but change how a line is read (bidirectional marks, joiners,
/// separators of lines and paragraphs).
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_in_it_ends_a_line_or_a_quotation() {
        assert_eq!(line("a\nlevel=error \"x\"\u{202e}", 99), "a\\u{a}level=error 'x'\\u{202e}");
        assert_eq!(line("abcdef", 6), "abcdef");
        assert_eq!(line("abcdefg", 6), "abc…");
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_bounded_line(text in any::<String>(), most in 3_usize..200) {
            let out = line(&text, most);
            prop_assert!(out.len() <= most);
            prop_assert!(!out.chars().any(|c| is_unseen(c) || c == '"' || c == '`'));
        }
    }
}
