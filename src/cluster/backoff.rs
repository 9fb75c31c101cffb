//! When to try again.

use std::time::Duration;

use super::api::Failure;

/// Doubles from `first` to `longest`, with jitter, so that the agents of a thousand nodes do not come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, next: first }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait after this failure: what the server asked for, where it asked; else half to one and a half of the
    /// next step.
    pub(super) fn after(&mut self, failure: &Failure) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        let jittered = step.mul_f64(0.5 + fastrand::f64());
        let step = if failure.will_stay() { self.longest } else { jittered };
        // A server that asks for an hour does not keep us away for an hour.
        failure.retry_after().map_or(step, |asked| asked.min(self.longest).max(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_is_bounded_and_heeds_the_server() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 30);
        let timeout = Failure::Timeout;
        let waits: Vec<Duration> = (0..20).map(|_| backoff.after(&timeout)).collect();
        assert!(waits[0] <= second * 3 / 2 && waits[19] >= second * 15 && waits[19] <= second * 45, "{waits:?}");
        backoff.reset();
        let asked = Failure::answer(429, "TooManyRequests", "", Some(second * 7));
        assert_eq!(backoff.after(&asked), second * 7);
    }
}
