//! When the first sample of each period was captured, on CLOCK_MONOTONIC.
//! Must never wait or read a clock: it works on what the callback noted.
//!
//! cpal tells stream time (ALSA's htstamp, CLOCK_MONOTONIC_RAW where the driver can). The callback notes
//! CLOCK_MONOTONIC beside it; what lies between the two is the offset of the clocks plus the time that
//! the callback was held up, which is never negative. The least difference of the last seconds is
//! therefore the offset. (`stream.now()` would tell it too, but takes a lock that a blocked read of a
//! plugin holds for ever.) What is left is the grain of the driver's stamps, some milliseconds on USB:
//! a low pass over the count of samples takes it out.

use std::time::Duration;

use crate::clock::MonoTime;
use crate::media::TimestampSource;

/// How long a least difference counts: it follows the clocks' drift (500 ppm at the most) within 2 ms.
const WINDOW_NS: u64 = 2_000_000_000;
/// A stamp this far beside the count of samples is a gap, also where ALSA told of none.
const JUMP_NS: i64 = 50_000_000;
/// Periods over which the stamps are averaged: 0.8 s at 100 ms each, where a device whose clock is
/// 100 ppm off is followed within 80 µs.
const SMOOTHED_PERIODS_MAX: i64 = 8;
/// Stamps that stand still this often in a row are none.
const FROZEN_MAX: u32 = 3;

/// What the callback noted about one period.
#[derive(Clone, Copy, Debug, Default)]
pub struct Period {
    /// CLOCK_MONOTONIC in the callback.
    pub arrival: MonoTime,
    /// Stream time of the driver's status, in nanoseconds.
    pub status_ns: u64,
    /// Stream time of the first sample, in nanoseconds.
    pub capture_ns: u64,
    /// Samples per channel.
    pub samples: u32,
    /// Samples per channel that found the ring full since the period before.
    pub lost: u32,
    /// The driver lost an unknown count of samples since the period before.
    pub has_gap: bool,
}

/// Turns periods into timestamps.
#[derive(Debug)]
pub struct Timeline {
    sample_rate: u32,
    stamps: TimestampSource,
    offset: Offset,
    /// When the next period begins if nothing is lost, and how many periods that rests on.
    expected: Option<(MonoTime, i64)>,
    last: MonoTime,
    last_status_ns: u64,
    frozen: u32,
}

/// The least difference between CLOCK_MONOTONIC and stream time, in two windows that take turns.
#[derive(Debug, Default)]
struct Offset {
    window_end_ns: u64,
    present: Option<i64>,
    before: Option<i64>,
}

impl Timeline {
    /// A timeline for a stream of `sample_rate`, whose stamps are said to come from `stamps`.
    pub fn new(sample_rate: u32, stamps: TimestampSource) -> Self {
        let (offset, last) = (Offset::default(), MonoTime::default());
        Self { sample_rate, stamps, offset, expected: None, last, last_status_ns: 0, frozen: 0 }
    }

    /// Where the stamps come from; turns to arrival for good when the driver's prove unusable.
    pub fn source(&self) -> TimestampSource {
        self.stamps
    }

    /// When the first sample of `period` was captured: later than all that were given, never in the future.
    pub fn stamp(&mut self, period: &Period) -> MonoTime {
        let measured = self.measure(period).min(period.arrival);
        let (stamp, periods) = match self.expected {
            Some((expected, periods)) => {
                let expected = expected + self.length_of(period.lost);
                let error = difference(measured, expected);
                if error > 0 && (period.has_gap || error > JUMP_NS) {
                    (measured, 1)
                } else {
                    let periods = (periods + 1).min(SMOOTHED_PERIODS_MAX);
                    // Time never runs back: what came early is followed by shortening periods.
                    let shortest = -(difference(self.end_of(expected, period), expected) / 2);
                    (shifted(expected, (error / periods).max(shortest)), periods)
                }
            }
            None => (measured, 1),
        };
        // A device that hands over more than its rate must not run into the future.
        let stamp = stamp.min(period.arrival).max(self.last + Duration::from_nanos(1));
        self.last = stamp;
        self.expected = Some((self.end_of(stamp, period), periods));
        stamp
    }

    fn end_of(&self, start: MonoTime, period: &Period) -> MonoTime {
        start + self.length_of(period.samples)
    }

    fn measure(&mut self, period: &Period) -> MonoTime {
        let is_frozen = period.status_ns <= self.last_status_ns || period.capture_ns > period.status_ns;
        self.frozen = if is_frozen { self.frozen.saturating_add(1) } else { 0 };
        self.last_status_ns = period.status_ns;
        let by_arrival = period.arrival - self.length_of(period.samples);
        if self.frozen >= FROZEN_MAX {
            self.stamps = TimestampSource::Arrival;
        }
        if is_frozen || self.frozen >= FROZEN_MAX {
            return by_arrival;
        }
        let offset = self.offset.follow(period);
        shifted(MonoTime::from_nanos(period.capture_ns), offset)
    }

    fn length_of(&self, samples: u32) -> Duration {
        Duration::from_nanos(u64::from(samples) * 1_000_000_000 / u64::from(self.sample_rate.max(1)))
    }
}

impl Offset {
    fn follow(&mut self, period: &Period) -> i64 {
        if period.status_ns >= self.window_end_ns {
            self.before = self.present.take();
            self.window_end_ns = period.status_ns + WINDOW_NS;
        }
        let sample = difference(period.arrival, MonoTime::from_nanos(period.status_ns));
        let present = self.present.map_or(sample, |least| least.min(sample));
        self.present = Some(present);
        self.before.map_or(present, |least| least.min(present))
    }
}

/// `a - b` in nanoseconds; points since boot lie within 292 years of each other.
fn difference(a: MonoTime, b: MonoTime) -> i64 {
    a.nanos().wrapping_sub(b.nanos()).cast_signed()
}

fn shifted(point: MonoTime, ns: i64) -> MonoTime {
    MonoTime::from_nanos(point.nanos().saturating_add_signed(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const OFFSET: u64 = 5_000 * MS;

    /// Period `n` of a perfect device at 48 kHz in periods of 10 ms, handed over `late` after its end.
    fn period(n: u64, late: u64) -> Period {
        let capture_ns = n * 10 * MS;
        let status_ns = capture_ns + 10 * MS + late;
        Period {
            arrival: MonoTime::from_nanos(status_ns + OFFSET),
            status_ns,
            capture_ns,
            samples: 480,
            ..Period::default()
        }
    }

    fn timeline() -> Timeline {
        Timeline::new(48_000, TimestampSource::Driver)
    }

    fn off_ns(stamp: MonoTime, n: u64) -> i64 {
        difference(stamp, MonoTime::from_nanos(OFFSET + n * 10 * MS))
    }

    #[test]
    fn stamps_are_the_first_samples_time_on_the_monotonic_clock() {
        let mut timeline = timeline();
        for n in 0..100 {
            let stamp = timeline.stamp(&period(n, n * 7919 % 5 * MS));
            assert_eq!(off_ns(stamp, n), 0, "period {n}");
        }
        assert_eq!(timeline.source(), TimestampSource::Driver);
    }

    #[test]
    fn a_callback_that_is_held_up_moves_nothing_for_long() {
        let mut timeline = timeline();
        for n in 0..1000 {
            let mut held_up = period(n, 0);
            held_up.arrival = held_up.arrival + Duration::from_micros(n * 7919 % 900);
            let off = off_ns(timeline.stamp(&held_up), n);
            assert!(off.abs() < 1_000_000, "period {n} is {off} ns off");
            assert!(n < 200 || off.abs() < 50_000, "period {n} is {off} ns off");
        }
    }

    #[test]
    fn coarse_stamps_are_smoothed() {
        let mut timeline = timeline();
        for n in 0..1000 {
            let mut coarse = period(n, 0);
            coarse.capture_ns = coarse.capture_ns.saturating_sub(n * 7919 % 4 * MS);
            let off = off_ns(timeline.stamp(&coarse), n);
            assert!(n < 100 || (-2_500_000..-500_000).contains(&off), "period {n} is {off} ns off");
        }
    }

    #[test]
    fn a_clock_that_drifts_is_followed() {
        let mut timeline = timeline();
        for n in 0..6000 {
            // The raw clock runs 100 ppm slow of the monotonic one.
            let mut slow = period(n, 0);
            slow.status_ns -= slow.status_ns / 10_000;
            slow.capture_ns -= slow.capture_ns / 10_000;
            let off = off_ns(timeline.stamp(&slow), n);
            assert!(off.abs() < 600_000, "period {n} is {off} ns off");
        }
    }

    #[test]
    fn lost_samples_and_gaps_show_as_jumps() {
        let mut timeline = timeline();
        for n in 0..50 {
            timeline.stamp(&period(n, 0));
        }
        let lost = Period { lost: 960, ..period(52, 0) };
        assert_eq!(off_ns(timeline.stamp(&lost), 52), 0);
        let gap = Period { has_gap: true, ..period(56, 0) };
        assert_eq!(off_ns(timeline.stamp(&gap), 56), 0);
        assert_eq!(off_ns(timeline.stamp(&period(80, 0)), 80), 0);
    }

    #[test]
    fn stamps_never_go_back() {
        let mut timeline = timeline();
        let mut last = MonoTime::default();
        for n in [0, 1, 2, 40, 3, 4, 41, 42, 0] {
            let stamp = timeline.stamp(&period(n, 0));
            assert!(stamp > last);
            last = stamp;
        }
    }

    #[test]
    fn data_that_was_late_but_not_lost_is_caught_up_with() {
        let mut timeline = timeline();
        for n in 0..20 {
            timeline.stamp(&period(n, 0));
        }
        for n in 20..30 {
            timeline.stamp(&Period { samples: 480, ..period(30, 0) });
            assert!(n < 30);
        }
        for n in 30..300 {
            let off = off_ns(timeline.stamp(&period(n, 0)), n);
            assert!(n < 200 || off.abs() < 2_000_000, "period {n} is {off} ns off");
        }
    }

    #[test]
    fn a_flood_does_not_run_into_the_future() {
        let mut timeline = timeline();
        for n in 0..1000 {
            let flooded = period(n / 100, 0);
            assert!(timeline.stamp(&flooded) <= flooded.arrival + Duration::from_nanos(100));
        }
    }

    #[test]
    fn a_driver_without_stamps_counts_by_arrival() {
        let mut timeline = timeline();
        for n in 0..20 {
            let stampless = Period { status_ns: 0, capture_ns: 0, ..period(n, 0) };
            assert_eq!(off_ns(timeline.stamp(&stampless), n), 0, "period {n}");
        }
        assert_eq!(timeline.source(), TimestampSource::Arrival);
    }
}
