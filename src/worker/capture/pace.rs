//! How fast a source delivers against what is due: a camera in low light gives fewer frames, and a device's
//! clock is never quite the host's.

use std::time::Duration;

use crate::clock::MonoTime;

/// Frames that take so many times the usual interval are slow.
const SLOW: f64 = 1.5;
/// For so long before it is told.
const SLOW_LASTS: Duration = Duration::from_secs(2);
/// Frames after which the rate of a source without a nominal one is known.
const KNOWN_AFTER: u32 = 32;
/// A clock is compared once its stamps have settled, and then over at least this.
const SETTLES: Duration = Duration::from_secs(5);
const COMPARED: Duration = Duration::from_secs(10);

/// The frame rate of a camera.
#[derive(Debug, Default)]
pub(super) struct Pace {
    frames: u32,
    /// The shortest interval that was usual, in nanoseconds.
    usual_ns: Option<f64>,
    slow_since: Option<MonoTime>,
    told: bool,
}

impl Pace {
    /// One more frame, where frames come each `observed_ns` of late. `nominal_ns` is what the device promises, if
    /// it promises anything. Tells frames a second, as they are and as they should be, once they are too few.
    pub(super) fn frame(
        &mut self,
        observed_ns: f64,
        nominal_ns: Option<f64>,
        at: MonoTime,
    ) -> Option<(f64, f64)> {
        self.frames = self.frames.saturating_add(1);
        if self.frames > KNOWN_AFTER {
            self.usual_ns = Some(self.usual_ns.map_or(observed_ns, |usual| usual.min(observed_ns)));
        }
        let due_ns = nominal_ns.or(self.usual_ns)?;
        if observed_ns <= due_ns * SLOW {
            (self.slow_since, self.told) = (None, false);
            return None;
        }
        let lasts = at.since(*self.slow_since.get_or_insert(at)) >= SLOW_LASTS;
        if self.told || !lasts {
            return None;
        }
        self.told = true;
        Some((1e9 / observed_ns, 1e9 / due_ns))
    }
}

/// The clock of a sound device against the host's.
#[derive(Debug, Default)]
pub(super) struct Drift {
    begun: Option<MonoTime>,
    /// When it is compared from, and the samples since.
    from: Option<MonoTime>,
    samples: u64,
}

impl Drift {
    /// So many samples more, which end at `end` by the measured clock. Parts per million by which the device's
    /// clock is fast, once that is known.
    pub(super) fn took(&mut self, samples: u64, end: MonoTime, rate_hz: u32) -> Option<f64> {
        let begun = *self.begun.get_or_insert(end);
        if end.since(begun) < SETTLES {
            return None;
        }
        let Some(from) = self.from else {
            self.from = Some(end);
            return None;
        };
        self.samples += samples;
        let measured = end.since(from);
        if measured < COMPARED {
            return None;
        }
        let nominal = self.samples as f64 / f64::from(rate_hz);
        Some((nominal / measured.as_secs_f64() - 1.0) * 1e6)
    }

    /// Sound was missing: what was measured before says nothing of what comes.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn half_the_rate_is_told_once_until_it_is_over() {
        let mut pace = Pace::default();
        let mut frame = |ms: u64, observed_ms: f64| pace.frame(observed_ms * 1e6, Some(33e6), at(ms));
        assert_eq!(frame(0, 33.0), None);
        assert_eq!(frame(1000, 66.0), None);
        assert_eq!(frame(2999, 66.0), None);
        assert!(frame(3000, 66.0).is_some_and(|(is, due)| is < 16.0 && due > 30.0));
        assert_eq!(frame(9000, 66.0), None, "once");
        assert_eq!(frame(10_000, 34.0), None);
        assert_eq!(frame(11_000, 66.0), None);
        assert!(frame(13_000, 66.0).is_some(), "it is slow again");
    }

    #[test]
    fn a_source_that_promises_no_rate_is_compared_with_itself() {
        let mut pace = Pace::default();
        for frame in 0..100 {
            assert_eq!(pace.frame(200e6, None, at(frame * 200)), None, "five a second is its rate");
        }
        assert_eq!(pace.frame(400e6, None, at(30_000)), None);
        assert!(pace.frame(400e6, None, at(32_000)).is_some());
    }

    #[test]
    fn a_clock_that_gains_is_told_in_parts_per_million() {
        let mut drift = Drift::default();
        let mut told = None;
        // 48024 samples in each second, in tenths of it.
        for tenth in 0..300_u64 {
            let end = MonoTime::from_nanos(tenth * 100_000_000);
            let samples = 4802 + u64::from(tenth % 5 < 2);
            told = drift.took(samples, end, 48_000).or(told);
            assert_eq!(told.is_some(), tenth >= 150, "settled for 5 s, compared for 10 s");
        }
        assert!(told.is_some_and(|ppm| (ppm - 500.0).abs() < 5.0), "{told:?}");
        drift.restart();
        assert_eq!(drift.took(4800, at(40_000), 48_000), None);
    }
}
