//! Escaping and numbers for the page.

use std::fmt;

/// Text for element content and quoted attributes. Control characters and the marks that reorder text are shown as codes,
/// so that a mountpoint cannot pretend to be another.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() || is_reordering(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// Bidirectional controls and zero-width characters (Unicode UAX #9, UTS #39).
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Advice, with what stands in backticks as code.
pub(super) fn advice_html(advice: &str) -> String {
    let parts = advice.split('`').enumerate();
    parts
        .map(
            |(index, part)| {
                if index % 2 == 1 { format!("<code>{}</code>", Escaped(part)) } else { Escaped(part).to_string() }
            },
        )
        .collect()
}

/// A duration for people: at most two units, nothing below a second.
pub(super) fn age(seconds: f64) -> String {
    // A clock that was set back shows as 0, nonsense as the largest number that has a meaning here.
    let whole = std::time::Duration::try_from_secs_f64(seconds.max(0.0)).map_or(u64::from(u32::MAX), |d| d.as_secs());
    let (large, large_unit, small, small_unit) = match whole {
        0..60 => return format!("{whole} s"),
        60..3600 => (whole / 60, "min", whole % 60, "s"),
        3600..86_400 => (whole / 3600, "h", whole % 3600 / 60, "min"),
        _ => (whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    };
    if small == 0 { format!("{large} {large_unit}") } else { format!("{large} {large_unit} {small} {small_unit}") }
}

/// A short time with its fraction.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_controls_and_reordering_marks_are_shown_not_obeyed() {
        assert_eq!(Escaped("<a href=\"x\">&'").to_string(), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
        assert_eq!(Escaped("a\nb\u{1b}\u{202e}").to_string(), "a\\u{a}b\\u{1b}\\u{202e}");
    }

    #[test]
    fn commands_become_code_and_stay_escaped() {
        assert_eq!(advice_html("run `x <y>` now"), "run <code>x &lt;y&gt;</code> now");
    }

    #[test]
    fn ages_have_at_most_two_units() {
        let cases = [(-5.0, "0 s"), (59.9, "59 s"), (60.0, "1 min"), (3725.0, "1 h 2 min"), (90_000.0, "1 d 1 h")];
        for (seconds, words) in cases {
            assert_eq!(age(seconds), words);
        }
        assert_eq!(age(f64::NAN), "0 s");
    }
}
