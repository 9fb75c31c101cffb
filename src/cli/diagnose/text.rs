//! A diagnosis for people: at most 100 columns.

use std::fmt::Write as _;

use crate::cli::text::{escape, pad, wrap};
use crate::diagnose::report::{Diagnosis, Outcome, StepReport};
use crate::verdict::Severity;

const COLUMNS: usize = 100;
/// Columns of the mark, of the step's title, and of the time.
const MARK: usize = 8;
const TITLE: usize = 17;
const TIME: usize = 9;

/// The steps, then what they come to.
pub(super) fn render(diagnosis: &Diagnosis, colours: bool) -> String {
    let mut out = format!("Diagnosis of {}\n\n", escape(&diagnosis.target));
    for step in &diagnosis.steps {
        write_step(&mut out, step, colours);
    }
    let word = diagnosis.state.map_or_else(|| result(diagnosis.result).to_owned(), |state| state.to_string());
    let word = if colours { paint(diagnosis.result, &word) } else { word };
    let cause = diagnosis.cause.map_or_else(|| "unknown".to_owned(), |cause| cause.as_str().to_owned());
    let cause = if diagnosis.result == Severity::Healthy { String::new() } else { format!(", cause: {cause}") };
    let _ = writeln!(out, "\nResult: {word}{cause}");
    paragraph(&mut out, "  ", "  ", &escape(&diagnosis.summary));
    if !diagnosis.todo.is_empty() {
        out.push_str("What to do:\n");
        for (number, todo) in diagnosis.todo.iter().enumerate() {
            paragraph(&mut out, &format!("  {}. ", number + 1), "     ", &escape(todo));
        }
    }
    let _ = writeln!(out, "\n{} steps in {}", diagnosis.steps.len(), seconds(diagnosis.seconds));
    out
}

fn write_step(out: &mut String, step: &StepReport, colours: bool) {
    let (word, colour) = match step.outcome {
        Outcome::Ok => ("ok", Severity::Healthy),
        Outcome::Failed => ("FAILED", Severity::Dead),
        Outcome::Note => ("note", Severity::Degraded),
        Outcome::Skipped => ("-", Severity::Unknown),
    };
    let mark = pad(word, MARK);
    let mark = if colours { paint(colour, &mark) } else { mark };
    let took = step.seconds.map(seconds).unwrap_or_default();
    let room = COLUMNS - MARK - TITLE - TIME;
    let blank = " ".repeat(MARK + TITLE);
    let mut lines = wrap(&escape(&step.asked), room).into_iter();
    let first = lines.next().unwrap_or_default();
    let line = format!("{mark}{}{}{took:>TIME$}", pad(step.step.title(), TITLE), pad(&first, room));
    let _ = writeln!(out, "{}", line.trim_end());
    for more in lines {
        let _ = writeln!(out, "{blank}{more}");
    }
    paragraph(out, &format!("{blank}> "), &format!("{blank}  "), &escape(&step.answer));
}

fn paragraph(out: &mut String, first: &str, indent: &str, text: &str) {
    for (number, line) in wrap(text, COLUMNS.saturating_sub(indent.len())).iter().enumerate() {
        let _ = writeln!(out, "{}{line}", if number == 0 { first } else { indent });
    }
}

fn result(result: Severity) -> &'static str {
    match result {
        Severity::Healthy => "it can be mounted",
        Severity::Degraded => "it can be mounted, but",
        Severity::Dead => "it cannot be mounted",
        Severity::Unknown => "could not tell",
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        0.0 => String::new(),
        0.0..0.1 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.1} s"),
    }
}

/// In the colour of its severity (ECMA-48 SGR).
fn paint(severity: Severity, text: &str) -> String {
    let colour = match severity {
        Severity::Dead => "1;31",
        Severity::Degraded => "33",
        Severity::Unknown => "36",
        Severity::Healthy => "32",
    };
    format!("\u{1b}[{colour}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::text::width;
    use crate::diagnose::report::{SCHEMA, StepName};
    use crate::verdict::Cause;

    fn diagnosis() -> Diagnosis {
        let long = "word ".repeat(60) + "/very/long/".repeat(30).as_str();
        let made = |outcome, answer: &str| {
            StepReport::made(StepName::OtherAddresses, outcome, &*long, answer, Duration::from_millis(1234))
        };
        Diagnosis {
            schema: SCHEMA.to_owned(),
            version: String::new(),
            generated: 0.0,
            target: "srv:/a\u{1b}[31m".to_owned(),
            server: None,
            export: None,
            steps: vec![
                made(Outcome::Ok, "yes"),
                made(Outcome::Failed, &long),
                made(Outcome::Note, "\u{1b}[2J\u{65e5}"),
                StepReport::skipped(StepName::TrialMount, "a mount", "--no-mount"),
            ],
            result: Severity::Dead,
            state: None,
            cause: Some(Cause::ServerRefused),
            candidates: Vec::new(),
            summary: long.clone(),
            todo: vec![long.clone(), "run `df -h` there".to_owned()],
            mount: None,
            timeout_seconds: 5.0,
            seconds: 2.5,
        }
    }

    #[test]
    fn no_line_is_wider_than_a_hundred_columns_and_none_moves_the_cursor() {
        let text = render(&diagnosis(), false);
        for line in text.lines() {
            assert!(width(line) <= COLUMNS, "{} columns: {line}", width(line));
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(render(&diagnosis(), true).contains("\u{1b}[1;31mFAILED"));
    }

    #[test]
    fn the_cause_and_what_to_do_come_last() {
        let text = render(&diagnosis(), false);
        let (steps, end) = text.split_once("\nResult: it cannot be mounted, cause: server_refused\n").expect(&text);
        assert!(steps.contains("FAILED  other addresses") && steps.contains("-       trial mount"), "{steps}");
        assert!(end.contains("  1. word") && end.contains("  2. run `df -h` there"), "{end}");
    }
}
