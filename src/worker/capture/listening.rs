//! What the samples of a microphone say of it: that it is muted, or overdriven. Its sound is kept all the same.

use std::time::Duration;

use crate::clock::MonoTime;

/// Sound is so for this long before it is told.
const LASTS: Duration = Duration::from_secs(3);
/// Of a thousand samples, so many at full scale are too many.
const CLIPPED_PER_MILLE: usize = 50;

/// Told of a microphone whose samples are all the same.
const MUTED: &str = "it delivers only silence: check that it is not muted or switched off";
/// Told of a microphone many of whose samples are as large as can be.
const OVERDRIVEN: &str = "its sound is cut at full scale: lower its gain";

/// Listens to one microphone.
#[derive(Debug)]
pub(super) struct Listening {
    /// The largest sample.
    full: i32,
    /// Since when it has been so.
    muted_since: Option<MonoTime>,
    overdriven_since: Option<MonoTime>,
}

impl Listening {
    /// Listens to samples of so many bits.
    pub(super) fn new(bits: u8) -> Self {
        let full = i32::try_from((1_i64 << (bits.clamp(2, 32) - 1)) - 1).unwrap_or(i32::MAX);
        Self { full, muted_since: None, overdriven_since: None }
    }

    /// Takes in what was captured at `at`; what is to be told of it now, "" for nothing.
    pub(super) fn hear(&mut self, samples: &[i32], at: MonoTime) -> &'static str {
        let Some(first) = samples.first() else { return "" };
        let is_muted = samples.iter().all(|sample| sample == first);
        let is_at_full = |sample: &&i32| **sample >= self.full || **sample < -self.full;
        let clipped = samples.iter().filter(is_at_full).count();
        let is_overdriven = !is_muted && clipped * 1000 > samples.len() * CLIPPED_PER_MILLE;
        if lasts(&mut self.muted_since, is_muted, at) {
            MUTED
        } else if lasts(&mut self.overdriven_since, is_overdriven, at) {
            OVERDRIVEN
        } else {
            ""
        }
    }
}

fn lasts(since: &mut Option<MonoTime>, is_so: bool, at: MonoTime) -> bool {
    if !is_so {
        *since = None;
        return false;
    }
    at.since(*since.get_or_insert(at)) >= LASTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(periods: &[(&[i32], u64)]) -> Vec<&'static str> {
        let mut listening = Listening::new(16);
        periods
            .iter()
            .map(|(samples, ms)| listening.hear(samples, MonoTime::from_nanos(ms * 1_000_000)))
            .collect()
    }

    #[test]
    fn silence_is_told_once_it_lasts_and_is_over_with_the_first_sound() {
        let (silence, sound): (&[i32], &[i32]) = (&[0; 100], &[0, 1, 0, -1]);
        let periods = [(silence, 0), (silence, 2999), (silence, 3000), (sound, 3100), (silence, 3200)];
        assert_eq!(told(&periods), ["", "", MUTED, "", ""]);
        assert_eq!(told(&[(&[7; 10], 0), (&[7; 10], 3000)]), ["", MUTED], "no microphone is that even");
    }

    #[test]
    fn sound_at_full_scale_is_told_and_a_single_peak_is_not() {
        let loud: Vec<i32> = (0..100).map(|at| if at % 10 == 0 { 32_767 } else { at }).collect();
        let low: Vec<i32> = (0..100).map(|at| if at % 10 == 0 { -32_768 } else { at }).collect();
        let peak: Vec<i32> = (0..100).map(|at| if at == 50 { 32_767 } else { at }).collect();
        assert_eq!(told(&[(&loud, 0), (&low, 1500), (&loud, 3000)]), ["", "", OVERDRIVEN]);
        assert_eq!(told(&[(&peak, 0), (&peak, 3000)]), ["", ""]);
    }
}
