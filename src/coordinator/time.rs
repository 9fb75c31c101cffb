//! Seconds since the epoch, as API objects have them.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// A time in whole seconds since the epoch; in JSON a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub i64);

impl Time {
    /// Reads RFC 3339 in UTC.
    #[must_use]
    pub fn parse(text: &str) -> Option<Time> {
        let time = humantime::parse_rfc3339(text).ok()?;
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_secs()).ok().map(Time)
    }

    /// How long before `later` this was; negative when it is after it.
    #[must_use]
    pub fn age(self, later: Time) -> i64 {
        later.0.saturating_sub(self.0)
    }

    /// So much later.
    #[must_use]
    pub fn plus(self, length: Duration) -> Time {
        Time(self.0.saturating_add(seconds(length)))
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Years 1970 to 9999 are all that humantime writes.
        let seconds = u64::try_from(self.0.clamp(0, 253_402_300_799)).unwrap_or(0);
        humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).fmt(f)
    }
}

/// A length of time in whole seconds, rounded up: no guard opens early.
#[must_use]
pub fn seconds(length: Duration) -> i64 {
    let whole = length.as_secs().saturating_add(u64::from(length.subsec_nanos() > 0));
    i64::try_from(whole).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_what_it_wrote() {
        let time = Time(1_790_000_000);
        assert_eq!(Time::parse(&time.to_string()), Some(time));
        assert_eq!(Time::parse("yesterday"), None);
        assert_eq!(Time::parse(""), None);
        assert_eq!(Time(i64::MIN).to_string(), "1970-01-01T00:00:00Z");
        assert!(!Time(i64::MAX).to_string().is_empty());
    }

    #[test]
    fn lengths_are_rounded_up_and_never_overflow() {
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(Time(i64::MAX).plus(Duration::MAX), Time(i64::MAX));
        assert_eq!(Time(10).age(Time(4)), -6);
    }
}
