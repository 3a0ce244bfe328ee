//! Which of a microphone's configurations is taken for a wish. Pure.

use cpal::{SampleFormat as CpalFormat, SupportedBufferSize, SupportedStreamConfigRange};

use crate::media::SampleFormat;
use crate::session::device::FormatWish;

/// Rates that hardware has, in hertz: a plugin's range can reach to 4 GHz, and its buffers with it.
const RATE_MIN: u32 = 4_000;
const RATE_MAX: u32 = 768_000;
/// The rate that is taken unasked, in hertz.
const RATE_UNASKED: u32 = 48_000;
/// The channels that are taken unasked, if there are so many.
const CHANNELS_UNASKED_MAX: u16 = 2;
/// Periods in a second that are asked for: 100 ms each. cpal gives a stream a buffer of two periods, and
/// sound is lost when its thread is not run for one. In an emulated machine on a loaded host, four rounds
/// of 8 s each from snd-aloop lost 2 to 23 % at 10 ms, 0 to 6 % at 50 ms, nothing at 100 ms.
const PERIODS_PER_SECOND: u32 = 10;

/// A configuration to ask the driver for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub cpal_format: CpalFormat,
    pub sample: SampleFormat,
    pub sample_rate: u32,
    pub channels: u16,
    pub period_samples: u32,
}

/// The configuration to ask for. What the wish names is binding; of what meets it the first is taken
/// that has, in this order: 48 kHz (else the nearest), up to two channels (else the fewest), 16 bit,
/// 24 bit, 32 bit. Floating point is never taken: samples are recorded as the hardware made them, and
/// no integer is exactly what a float is.
pub fn choose(ranges: &[SupportedStreamConfigRange], wish: &FormatWish) -> Option<Choice> {
    let meeting = ranges.iter().filter_map(|range| {
        let sample = sample_format(range.sample_format())?;
        let (lowest, highest) = rates(range)?;
        let sample_rate = wish.sample_rate.unwrap_or(RATE_UNASKED.clamp(lowest, highest));
        let is_met = (lowest..=highest).contains(&sample_rate)
            && wish.channels.is_none_or(|channels| channels == range.channels());
        is_met.then(|| Choice {
            cpal_format: range.sample_format(),
            sample,
            sample_rate,
            channels: range.channels(),
            period_samples: period(sample_rate, *range.buffer_size()),
        })
    });
    meeting.min_by_key(|choice| {
        let excess = choice.channels.saturating_sub(CHANNELS_UNASKED_MAX);
        let lack = CHANNELS_UNASKED_MAX.saturating_sub(choice.channels);
        (choice.sample_rate.abs_diff(RATE_UNASKED), excess, lack, choice.sample.bits())
    })
}

/// The wish as text for people.
pub fn wish_text(wish: &FormatWish) -> String {
    let rate = wish.sample_rate.map(|rate| format!("{rate} Hz"));
    let channels = wish.channels.map(|channels| format!("{channels} channels"));
    let parts: Vec<String> = rate.into_iter().chain(channels).collect();
    if parts.is_empty() { "integer samples".to_owned() } else { parts.join(", ") }
}

/// What there is instead, as text for people.
pub fn offer_text(ranges: &[SupportedStreamConfigRange]) -> String {
    let usable: Vec<_> =
        ranges.iter().filter(|range| sample_format(range.sample_format()).is_some()).collect();
    if usable.is_empty() {
        let remedy = "use its `plughw:` name to let ALSA convert";
        return format!("no integers of 16, 24 (in 32) or 32 bits; {remedy}");
    }
    let mut rates: Vec<(u32, u32)> = usable.iter().filter_map(|range| rates(range)).collect();
    rates.sort_unstable();
    rates.dedup();
    let rates: Vec<String> = rates.into_iter().map(|(low, high)| span(low, high)).collect();
    let channels = |pick: fn(u16, u16) -> u16| {
        usable.iter().map(|range| range.channels()).reduce(pick).unwrap_or_default()
    };
    format!("{} Hz, {} channels", rates.join(", "), span(channels(u16::min), channels(u16::max)))
}

/// The range of rates, as far as hardware has them.
fn rates(range: &SupportedStreamConfigRange) -> Option<(u32, u32)> {
    let (lowest, highest) = (range.min_sample_rate().max(RATE_MIN), range.max_sample_rate().min(RATE_MAX));
    (lowest <= highest).then_some((lowest, highest))
}

fn span<T: PartialEq + std::fmt::Display>(low: T, high: T) -> String {
    if low == high { low.to_string() } else { format!("{low} to {high}") }
}

fn sample_format(format: CpalFormat) -> Option<SampleFormat> {
    match format {
        CpalFormat::I16 => Some(SampleFormat::S16),
        CpalFormat::I24 => Some(SampleFormat::S24),
        CpalFormat::I32 => Some(SampleFormat::S32),
        _ => None,
    }
}

fn period(sample_rate: u32, possible: SupportedBufferSize) -> u32 {
    let wanted = (sample_rate / PERIODS_PER_SECOND).max(1);
    match possible {
        SupportedBufferSize::Range { min, max } => wanted.clamp(min, max.max(min)),
        SupportedBufferSize::Unknown => wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(channels: u16, rates: (u32, u32), format: CpalFormat) -> SupportedStreamConfigRange {
        let periods = SupportedBufferSize::Range { min: 64, max: 8192 };
        SupportedStreamConfigRange::new(channels, rates.0, rates.1, periods, format)
    }

    fn wish(sample_rate: Option<u32>, channels: Option<u16>) -> FormatWish {
        FormatWish { sample_rate, channels, ..FormatWish::default() }
    }

    #[test]
    fn unasked_it_is_48_khz_16_bit_and_two_channels_at_most() {
        let ranges = [
            range(4, (8000, 192_000), CpalFormat::I16),
            range(1, (8000, 192_000), CpalFormat::I16),
            range(2, (8000, 192_000), CpalFormat::I32),
            range(2, (8000, 192_000), CpalFormat::I16),
            range(2, (8000, 192_000), CpalFormat::F32),
        ];
        let choice = choose(&ranges, &wish(None, None)).expect("a choice");
        assert_eq!(
            (choice.sample, choice.sample_rate, choice.channels, choice.period_samples),
            (SampleFormat::S16, 48_000, 2, 4800)
        );
        assert_eq!(choose(&ranges[..1], &wish(None, None)).map(|choice| choice.channels), Some(4));
        assert_eq!(choose(&ranges[..2], &wish(None, None)).map(|choice| choice.channels), Some(1));
    }

    #[test]
    fn without_48_khz_it_is_the_nearest() {
        let ranges =
            [range(1, (16_000, 16_000), CpalFormat::I16), range(1, (44_100, 44_100), CpalFormat::I16)];
        let choice = choose(&ranges, &wish(None, None)).expect("a choice");
        assert_eq!((choice.sample_rate, choice.period_samples), (44_100, 4410));
    }

    #[test]
    fn what_the_wish_names_is_binding() {
        let ranges =
            [range(1, (44_100, 44_100), CpalFormat::I16), range(2, (48_000, 48_000), CpalFormat::I24)];
        let choice = choose(&ranges, &wish(Some(48_000), None)).expect("a choice");
        assert_eq!((choice.sample, choice.channels), (SampleFormat::S24, 2));
        assert_eq!(choose(&ranges, &wish(Some(96_000), None)), None);
        assert_eq!(choose(&ranges, &wish(Some(48_000), Some(1))), None);
    }

    #[test]
    fn a_rate_that_no_hardware_has_is_refused_where_a_plugin_promises_it() {
        let ranges = [range(1, (1, u32::MAX), CpalFormat::I16)];
        assert_eq!(choose(&ranges, &wish(Some(4_000_000_000), None)), None);
        assert_eq!(choose(&ranges, &wish(Some(0), None)), None);
        assert_eq!(offer_text(&ranges), "4000 to 768000 Hz, 1 channels");
    }

    #[test]
    fn floats_are_refused_with_a_remedy() {
        let ranges = [range(2, (48_000, 48_000), CpalFormat::F32)];
        assert_eq!(choose(&ranges, &wish(None, None)), None);
        assert!(offer_text(&ranges).contains("plughw"));
    }

    #[test]
    fn a_period_outside_of_what_the_driver_can_do_is_moved_inside() {
        assert_eq!(period(48_000, SupportedBufferSize::Range { min: 6000, max: 8192 }), 6000);
        assert_eq!(period(48_000, SupportedBufferSize::Range { min: 1, max: 256 }), 256);
        assert_eq!(period(48_000, SupportedBufferSize::Unknown), 4800);
    }

    #[test]
    fn an_offer_is_told_in_short() {
        let ranges = [range(1, (8000, 48_000), CpalFormat::I16), range(2, (8000, 48_000), CpalFormat::I16)];
        assert_eq!(offer_text(&ranges), "8000 to 48000 Hz, 1 to 2 channels");
        assert_eq!(wish_text(&wish(Some(100), Some(9))), "100 Hz, 9 channels");
    }
}
