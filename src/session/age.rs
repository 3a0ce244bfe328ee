//! By which time the age of media is judged: the wall clock's, unless it may have been set wrong.

use std::time::Duration;

use crate::clock::WallTime;

/// A host sets its clock so long after its boot at the latest.
const SETTLED_AFTER: Duration = Duration::from_secs(300);
/// A clock that gains more between two looks was set.
const GAIN_MAX: Duration = Duration::from_secs(60);
/// A clock that was set forward counts after this long: until then a person can set it back.
const TRUSTED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Wall time for ages. A clock that runs ahead must not have media removed that is not as old as it seems.
#[derive(Debug, Default)]
pub struct AgeClock {
    /// What was told last, and when by `CLOCK_BOOTTIME`.
    last: Option<(WallTime, Duration)>,
    /// Since when by `CLOCK_BOOTTIME` the wall clock has been ahead.
    ahead_since: Option<Duration>,
}

impl AgeClock {
    /// The time to judge by at a moment of both clocks; `None` while the host has just been booted. A step
    /// back counts at once, a step forward a day later.
    pub fn judge(&mut self, wall: WallTime, boot: Duration) -> Option<WallTime> {
        if boot < SETTLED_AFTER {
            return None;
        }
        let expected = self.last.map_or(wall, |(last, at)| last + boot.saturating_sub(at));
        let is_ahead = wall > expected + GAIN_MAX;
        let doubted_for = boot.saturating_sub(*self.ahead_since.get_or_insert(boot));
        let told = if is_ahead && doubted_for < TRUSTED_AFTER {
            expected
        } else {
            self.ahead_since = None;
            wall
        };
        self.last = Some((told, boot));
        Some(told)
    }

    /// Whether the wall clock was set forward, and isn't judged by yet.
    pub fn is_doubted(&self) -> bool {
        self.ahead_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn wall() -> WallTime {
        WallTime::from_nanos(1_777_000_000_000_000_000)
    }

    #[test]
    fn a_clock_that_runs_evenly_or_back_is_judged_by() {
        let mut ages = AgeClock::default();
        assert_eq!(ages.judge(wall() + HOUR * 9000, Duration::from_secs(299)), None, "it may not be set yet");
        for hours in 1..100 {
            assert_eq!(ages.judge(wall() + HOUR * hours, HOUR * hours), Some(wall() + HOUR * hours));
        }
        assert_eq!(ages.judge(wall(), HOUR * 100), Some(wall()));
        assert_eq!(ages.judge(wall() + HOUR, HOUR * 101), Some(wall() + HOUR));
        assert!(!ages.is_doubted());
    }

    #[test]
    fn a_clock_that_was_set_forward_counts_a_day_later() {
        let mut ages = AgeClock::default();
        let year = HOUR * 8766;
        ages.judge(wall(), HOUR);
        for hours in 1..24 {
            assert_eq!(
                ages.judge(wall() + year + HOUR * hours, HOUR + HOUR * hours),
                Some(wall() + HOUR * hours)
            );
            assert!(ages.is_doubted());
        }
        let next_day = wall() + year + HOUR * 25;
        assert_eq!(ages.judge(next_day, HOUR * 26), Some(next_day));
        assert!(!ages.is_doubted());
    }

    #[test]
    fn a_clock_that_was_set_back_in_time_has_changed_nothing() {
        let mut ages = AgeClock::default();
        ages.judge(wall(), HOUR);
        ages.judge(wall() + HOUR * 9000, HOUR * 2);
        assert_eq!(ages.judge(wall() + HOUR * 2, HOUR * 3), Some(wall() + HOUR * 2));
        assert!(!ages.is_doubted());
        // The next step has a day of its own.
        ages.judge(wall() + HOUR * 9000, HOUR * 20);
        assert_eq!(ages.judge(wall() + HOUR * 9010, HOUR * 30), Some(wall() + HOUR * 29));
    }
}
