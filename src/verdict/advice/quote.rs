//! Words for a shell.

use std::fmt::Write as _;

/// Quotes a word for sh, so that whatever a tenant put into it stays one word and runs nothing.
///
/// Plain words stay as they are, others come in single quotes. A word with control characters, with marks that reorder
/// text on a terminal, or with a backtick (which ends a command in an advice) is written as `$'...'` (POSIX.1-2024, bash, ksh, zsh) with octal codes: it must not act on the
/// terminal that shows it. An older sh takes that form for a literal word, which is wrong but harmless: it contains no
/// quote and no character that a shell would act on outside of quotes.
#[must_use]
pub fn shell_quote(word: &str) -> String {
    if word.chars().any(must_be_coded) {
        return coded(word);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Backticks, controls, line ends of Unicode, zero-width and bidirectional marks.
fn must_be_coded(c: char) -> bool {
    c == '`'
        || c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn coded(word: &str) -> String {
    let mut quoted = String::from("$'");
    for c in word.chars() {
        if must_be_coded(c) || matches!(c, '\'' | '\\') {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\{byte:03o}");
            }
        } else {
            quoted.push(c);
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_words_stay_and_others_are_quoted() {
        assert_eq!(shell_quote("/mnt/a-b_c.d"), "/mnt/a-b_c.d");
        assert_eq!(shell_quote("/mnt/a b"), "'/mnt/a b'");
        assert_eq!(shell_quote("it's"), r"'it'\''s'");
        assert_eq!(shell_quote(""), "''");
        assert_eq!(shell_quote("/pods/*/x"), "'/pods/*/x'");
        assert_eq!(shell_quote("a\n'b\\"), r"$'a\012\047b\134'");
        assert_eq!(shell_quote("a`b"), r"$'a\140b'");
    }

    /// What a shell makes of the word.
    #[expect(clippy::disallowed_methods, reason = "a test asks a real shell; it touches no mount")]
    fn as_read_by(shell: &str, word: &str) -> Vec<u8> {
        let script = format!("printf '%s\\n' {}", shell_quote(word));
        Command::new(shell).args(["-c", &script]).output().expect("a shell").stdout
    }

    proptest! {
        // Each case starts two processes.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn a_shell_reads_back_the_very_word(word in "[^\\x00]{0,12}|[ '\"`$\\\\;&|<>\n\u{202e}a*?()!#~-]{0,12}") {
            let wanted = format!("{word}\n").into_bytes();
            prop_assert_eq!(as_read_by("bash", &word), wanted.clone());
            // sh may be dash, which may not know $'...': then it prints the form itself, as one line, and runs nothing.
            let got = as_read_by("sh", &word);
            let literal = format!("{}\n", shell_quote(&word).replace('\'', "")).into_bytes();
            prop_assert!(got == wanted || (shell_quote(&word).starts_with("$'") && got == literal), "{:?}", got);
        }
    }
}
