//! The time of samples that come through a pipe. A writer hands them over in bursts, so the time of
//! arrival jumps; but no sample can arrive before it was made. The begin of the stream is therefore
//! the least of (arrival − length of all that has come), which what lies in the pipe belongs to.
//! Must never let the time of samples go backwards, nor follow a burst.

use std::time::Duration;

use crate::clock::MonoTime;
use crate::media::AudioFormat;

/// A begin that is later than known by so much means that the writer paused.
const PAUSE: Duration = Duration::from_millis(250);
/// After this time a begin is forgotten, so that a writer whose clock runs slow is followed.
const MEMORY: Duration = Duration::from_secs(5);
/// The stamps are brought to the measured begin by at most this part of the time that passes.
const SLEW: u32 = 50;

/// Stamps the samples of one stream.
#[derive(Debug)]
pub(super) struct ArrivalClock {
    format: AudioFormat,
    /// Samples (per channel) that were stamped.
    count: u64,
    /// Where the next sample lies.
    next: MonoTime,
    /// The least begin of the present and of the last stretch of [`MEMORY`].
    begins: Option<[MonoTime; 2]>,
    stretch_end: MonoTime,
}

impl ArrivalClock {
    pub(super) fn new(format: AudioFormat) -> Self {
        let (next, stretch_end) = (MonoTime::default(), MonoTime::default());
        Self { format, count: 0, next, begins: None, stretch_end }
    }

    /// Time of the first of `samples` (per channel) that were read at `arrival`, while `behind` more
    /// lay in the pipe.
    pub(super) fn stamp(&mut self, samples: u64, arrival: MonoTime, behind: u64) -> MonoTime {
        let begin = arrival - self.format.length_of(self.count + samples + behind);
        let measured = self.measured(begin, arrival) + self.format.length_of(self.count);
        let length = self.format.length_of(samples);
        let stamp = if self.count == 0 || measured.since(self.next) > PAUSE {
            measured.max(self.next)
        } else if measured > self.next {
            self.next + measured.since(self.next).min(length / SLEW)
        } else {
            self.next - self.next.since(measured).min(length / SLEW)
        };
        self.count += samples;
        self.next = stamp + length;
        stamp
    }

    /// The begin of the stream, as far as it is known when one was seen at `arrival`.
    fn measured(&mut self, begin: MonoTime, arrival: MonoTime) -> MonoTime {
        let [mut present, mut last] = self.begins.unwrap_or([begin; 2]);
        if begin.since(present.min(last)) > PAUSE {
            (present, last) = (begin, begin);
            self.stretch_end = arrival + MEMORY;
        } else if arrival >= self.stretch_end {
            (last, present) = (present, begin);
            self.stretch_end = arrival + MEMORY;
        }
        present = present.min(begin);
        self.begins = Some([present, last]);
        present.min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::SampleFormat;

    const RATE: u64 = 48_000;

    fn clock() -> ArrivalClock {
        let sample = SampleFormat::S16;
        ArrivalClock::new(AudioFormat { sample, sample_rate: 48_000, channels: 1, period_samples: 960 })
    }

    fn at(us: u64) -> MonoTime {
        MonoTime::from_nanos(1_000_000_000 + us * 1000)
    }

    /// Distance of a stamp from where sample `count` of a stream that began at `at(0)` was made.
    fn off_us(stamp: MonoTime, count: u64) -> u128 {
        let made = at(count * 1_000_000 / RATE);
        stamp.since(made).max(made.since(stamp)).as_micros()
    }

    #[test]
    fn samples_that_come_in_bursts_are_stamped_evenly() {
        let mut clock = clock();
        for burst in 0..50u64 {
            // Every 100 ms 4800 samples, read in five pieces right after another.
            for piece in 0..5 {
                let arrival = at((burst + 1) * 100_000 + piece * 50);
                let count = burst * 4800 + piece * 960;
                let stamp = clock.stamp(960, arrival, 4800 - (piece + 1) * 960);
                assert!(off_us(stamp, count) < 1000, "{burst} {piece}: {}", off_us(stamp, count));
            }
        }
    }

    #[test]
    fn a_late_reader_does_not_shift_the_sound() {
        let mut clock = clock();
        for period in 0..200u64 {
            let late = if period % 7 == 0 { 15_000 } else { 300 };
            let stamp = clock.stamp(960, at((period + 1) * 20_000 + late), 0);
            if period > 60 {
                assert!(off_us(stamp, period * 960) < 2000, "{period}: {}", off_us(stamp, period * 960));
            }
        }
    }

    #[test]
    fn a_pause_of_the_writer_is_a_gap_and_time_never_goes_backwards() {
        let mut clock = clock();
        let before = clock.stamp(960, at(20_000), 0);
        let after = clock.stamp(960, at(1_020_000), 0);
        assert_eq!(before, at(0));
        assert_eq!(after, at(1_000_000));
        // The writer makes up for half a second: its samples may not lie before those that were.
        let mut last = after + Duration::from_millis(20);
        for piece in 0..25 {
            let stamp = clock.stamp(960, at(1_040_000 + piece), 0);
            assert!(last.since(stamp) <= Duration::from_millis(1) && stamp > after);
            last = stamp + Duration::from_millis(20);
        }
    }

    #[test]
    fn a_writer_with_a_slow_clock_is_followed() {
        let mut clock = clock();
        let mut stamp = at(0);
        for period in 0..3000 {
            // 0.1 % slow: after a minute it is 60 ms behind.
            stamp = clock.stamp(960, at((period + 1) * 20_020), 0);
        }
        let made = at(2999 * 20_020);
        assert!(made.since(stamp).max(stamp.since(made)) < Duration::from_millis(12), "{made:?} {stamp:?}");
    }
}
