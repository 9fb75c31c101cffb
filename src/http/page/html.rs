//! Escaping and numbers for the page.

use std::fmt;

/// Text for element content and quoted attributes. Control characters and the marks that reorder text are shown as codes,
/// so that a mountpoint cannot pretend to be another.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Text;

impl askama::filters::Escaper for Text {
    fn write_escaped_str<W: fmt::Write>(&self, mut to: W, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_escaped_char(&mut to, c))
    }

    fn write_escaped_char<W: fmt::Write>(&self, mut to: W, c: char) -> fmt::Result {
        match c {
            '&' => to.write_str("&amp;"),
            '<' => to.write_str("&lt;"),
            '>' => to.write_str("&gt;"),
            '"' => to.write_str("&quot;"),
            '\'' => to.write_str("&#39;"),
            c if c.is_control() || is_reordering(c) => write!(to, "\\u{{{:x}}}", u32::from(c)),
            c => to.write_char(c),
        }
    }
}

/// Bidirectional controls and zero-width characters (Unicode UAX #9, UTS #39).
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A piece of an advice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) is_command: bool,
    pub(super) text: &'a str,
}

/// Advice in pieces: what stands in backticks is a command.
pub(super) fn pieces(advice: &str) -> Vec<Piece<'_>> {
    let parts = advice.split('`').enumerate().map(|(index, text)| Piece { is_command: index % 2 == 1, text });
    parts.filter(|piece| !piece.text.is_empty()).collect()
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

/// A time that somebody configured: a deadline of 700 ms is not 0 s.
pub(super) fn setting(time: f64) -> String {
    if time < 60.0 && time.fract() > 0.0 { seconds(time) } else { age(time) }
}

/// A number of things: `1 mount`, `2 mounts`.
pub(super) fn many(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// A moment: for programs, and the time of day in UTC for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) iso: String,
    pub(super) clock: String,
    pub(super) ago: String,
}

impl Moment {
    pub(super) fn of(at: f64, now: f64) -> Moment {
        let iso = crate::snapshot::rfc3339(at);
        // With the day where it is not today's.
        let today = now - at < 86_400.0;
        let clock = iso.get(if today { 11..19 } else { 0..16 }).unwrap_or(&iso).replace('T', " ");
        Moment { clock, ago: age(now - at), iso }
    }
}

#[cfg(test)]
mod tests {
    use askama::filters::Escaper;

    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        Text.write_escaped_str(&mut out, text).unwrap();
        out
    }

    #[test]
    fn markup_controls_and_reordering_marks_are_shown_not_obeyed() {
        assert_eq!(escaped("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
        assert_eq!(escaped("a\nb\u{1b}\u{202e}\u{61c}"), "a\\u{a}b\\u{1b}\\u{202e}\\u{61c}");
    }

    #[test]
    fn commands_are_told_apart() {
        let pieces: Vec<_> =
            pieces("run `x <y>` now").into_iter().map(|piece| (piece.is_command, piece.text)).collect();
        assert_eq!(pieces, [(false, "run "), (true, "x <y>"), (false, " now")]);
    }

    #[test]
    fn ages_have_at_most_two_units() {
        let cases = [(-5.0, "0 s"), (59.9, "59 s"), (60.0, "1 min"), (3725.0, "1 h 2 min"), (90_000.0, "1 d 1 h")];
        for (seconds, words) in cases {
            assert_eq!(age(seconds), words);
        }
        assert_eq!(age(f64::NAN), "0 s");
        let configured =
            [(0.7, "700.0 ms"), (1.5, "1.5 s"), (15.0, "15 s"), (90.0, "1 min 30 s"), (90.5, "1 min 30 s")];
        for (seconds, words) in configured {
            assert_eq!(setting(seconds), words);
        }
    }

    #[test]
    fn a_moment_names_its_day_only_where_it_is_another() {
        let now = 1_790_000_000.0;
        assert_eq!(Moment::of(now - 60.0, now).clock, "14:12:20");
        assert_eq!(Moment::of(now - 2.0 * 86_400.0, now).clock, "2026-09-19 14:13");
    }
}
