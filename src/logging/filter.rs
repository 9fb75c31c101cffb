//! Checks a filter before it is used.

use std::str::FromStr;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Why a filter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A single word that is no level. The filter's own parser takes it for a module's name and silences the rest.
    #[error("{word:?} is no log level; write error, warn, info, debug, trace or off{hint}")]
    Level {
        /// The word.
        word: String,
        /// The nearest level.
        hint: String,
    },
    /// Anything else that does not parse.
    #[error("{text:?} is no log filter ({reason}); write for example info or info,mountwarden::probe=debug")]
    Syntax {
        /// The filter.
        text: String,
        /// What its parser says.
        reason: tracing_subscriber::filter::ParseError,
    },
    /// Nothing.
    #[error("an empty log level; write for example info")]
    Empty,
}

/// Says whether `text` can be used as a filter.
///
/// # Errors
/// Why not, with the nearest level where one word is mistyped.
pub fn check_filter(text: &str) -> Result<(), FilterError> {
    parse(text).map(|_| ())
}

pub(super) fn parse(text: &str) -> Result<EnvFilter, FilterError> {
    if text.trim().is_empty() {
        return Err(FilterError::Empty);
    }
    for word in text.split(',').map(str::trim) {
        // A bare module name is legal for the parser too, but written with its level nobody can misread it.
        let single = !word.contains(['=', '[']);
        if single && LevelFilter::from_str(word).is_err() {
            return Err(FilterError::Level { word: word.to_owned(), hint: hint(word) });
        }
    }
    EnvFilter::try_new(text).map_err(|reason| FilterError::Syntax { text: text.to_owned(), reason })
}

fn hint(word: &str) -> String {
    let word = word.to_ascii_lowercase();
    let likeness = |level: &str| strsim::jaro_winkler(level, &word);
    match LEVELS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(level) if likeness(level) > 0.7 => format!(" (did you mean {level}?)"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_taken() {
        for text in ["info", "INFO", "off", "info,mountwarden::probe=debug", "mountwarden=trace", "warn,hyper=off"] {
            assert!(check_filter(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_mistyped_level_is_refused_and_the_nearest_named() {
        let error = check_filter("infoo").unwrap_err().to_string();
        assert!(error.contains("did you mean info?"), "{error}");
        let error = check_filter("debg,hyper=off").unwrap_err().to_string();
        assert!(error.contains("did you mean debug?"), "{error}");
    }

    #[test]
    fn nonsense_and_nothing_are_refused() {
        for text in ["", " ", "mountwarden=loud", "mountwarden::probe", "[[["] {
            assert!(check_filter(text).is_err(), "{text}");
        }
    }
}
