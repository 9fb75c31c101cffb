//! The wall clock: times for people and metrics that stay right when somebody sets it.

use nix::time::{ClockId, clock_gettime};

use super::core::Core;
use super::target::Target;
use crate::snapshot::UnixSeconds;

/// The clock was set when it moved by so many seconds against the one that nobody sets; less is the slewing of NTP,
/// whose sum counts once it reaches this.
const STEP: f64 = 1.0;

/// How far the wall clock is ahead of CLOCK_BOOTTIME, which goes on in suspend and which nobody sets.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    ahead: Option<f64>,
}

impl WallClock {
    /// By how much the wall clock was set since the last call, in seconds, and 0 when it was not.
    fn step(&mut self, unix: UnixSeconds, boot: f64) -> f64 {
        let ahead = unix - boot;
        let moved = ahead - *self.ahead.get_or_insert(ahead);
        if moved.abs() < STEP {
            return 0.0;
        }
        self.ahead = Some(ahead);
        moved
    }
}

impl Core {
    /// What the wall clock says. When it was set since the last call, the times that are remembered move along: a mount
    /// that has been hung for a minute has been so for a minute by the new clock too.
    pub(super) fn unix_now(&mut self) -> UnixSeconds {
        let unix = super::unix_now();
        let moved = self.wall.step(unix, boot_seconds());
        if moved != 0.0 {
            tracing::info!(seconds = moved, "the wall clock was set; the times of what happened before move along");
            self.registry.targets.values_mut().for_each(|target| move_times(target, moved));
            self.history.move_times(moved);
            self.changed = true;
        }
        unix
    }
}

fn move_times(target: &mut Target, seconds: f64) {
    let remembered = [Some(&mut target.since), target.last_probe.as_mut(), target.last_success.as_mut()];
    remembered.into_iter().flatten().for_each(|time| *time += seconds);
}

pub(super) fn boot_seconds() -> f64 {
    // CLOCK_BOOTTIME exists on every kernel that the agent runs on (2.6.39).
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0.0, |time| std::time::Duration::from(time).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: UnixSeconds = 1_780_000_000.0;
    const HOUR: f64 = 3600.0;

    #[test]
    fn a_clock_that_merely_goes_on_was_not_set() {
        let mut wall = WallClock::default();
        assert_eq!(wall.step(NOON, 10.0), 0.0);
        assert_eq!(wall.step(NOON + HOUR, 10.0 + HOUR), 0.0);
        assert_eq!(wall.step(NOON + HOUR + 0.4, 10.0 + HOUR), 0.0);
    }

    #[test]
    fn a_clock_that_is_set_moves_once_and_by_what_it_was_set() {
        let mut wall = WallClock::default();
        wall.step(NOON, 10.0);
        assert_eq!(wall.step(NOON + 6.0 * HOUR + 5.0, 15.0), 6.0 * HOUR);
        assert_eq!(wall.step(NOON + 6.0 * HOUR + 6.0, 16.0), 0.0);
        assert_eq!(wall.step(NOON - 6.0 * HOUR + 7.0, 17.0), -12.0 * HOUR);
    }

    #[test]
    fn slewing_adds_up() {
        let mut wall = WallClock::default();
        let steps = (0..=30u32).map(|tick| wall.step(NOON + f64::from(tick) * 1.125, f64::from(tick)));
        assert_eq!(steps.sum::<f64>(), 3.0);
    }
}
