//! What a camera offers: pixel formats, sizes and frame intervals, as the driver lists them.
//! Must never change the device.

use std::fmt;

use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::{FrameSizeEnum, Stepwise};
use v4l::video::Capture;
use v4l::{Device, FourCC, Fraction};

use crate::media::PixelFormat;
use crate::session::device::FormatWish;

/// Lines that [`Offer::lines`] gives.
const LINES_MAX: usize = 64;
/// Modes that are looked at; a driver that lists more offers nothing worth having behind them.
const MODES_MAX: usize = 4096;
/// Sizes that are tried where a driver gives a range.
const SIZES: [(u32, u32); 9] = [
    (1920, 1080),
    (1280, 720),
    (1024, 768),
    (960, 540),
    (800, 600),
    (640, 480),
    (640, 360),
    (320, 240),
    (160, 120),
];
/// Rates that are tried where a driver gives a range, in frames a second.
const RATES: [u32; 8] = [60, 50, 30, 25, 20, 15, 10, 5];
/// The rate that is assumed where a driver tells none.
const RATE_ASSUMED: f64 = 30.0;

/// Time between two frames as V4L2 has it, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub numerator: u32,
    pub denominator: u32,
}

/// One way in which a camera can deliver pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mode {
    pub fourcc: FourCC,
    pub width: u32,
    pub height: u32,
    /// `None` where the driver doesn't tell.
    pub interval: Option<Interval>,
}

/// All modes of a camera.
#[derive(Debug, Default)]
pub struct Offer {
    pub modes: Vec<Mode>,
    /// The driver gives ranges, of which `modes` holds usual points only.
    pub has_ranges: bool,
}

impl Interval {
    /// The interval of a read-back; `None` when a driver leaves it zero.
    pub fn new(fraction: Fraction) -> Option<Self> {
        let Fraction { numerator, denominator } = fraction;
        (numerator > 0 && denominator > 0).then_some(Self { numerator, denominator })
    }

    /// Frames a second.
    pub fn rate(self) -> f64 {
        f64::from(self.denominator) / f64::from(self.numerator)
    }

    /// Nanoseconds between two frames.
    pub fn nanos(self) -> u64 {
        u64::from(self.numerator) * 1_000_000_000 / u64::from(self.denominator)
    }
}

impl Mode {
    /// The pixel format, if it is one that we can record.
    pub fn pixel(&self) -> Option<PixelFormat> {
        PixelFormat::from_fourcc(self.fourcc.str().ok()?)
    }

    /// The place in [`PixelFormat::ALL`]; behind it for what we can't record.
    pub fn place(&self) -> usize {
        let own = self.pixel();
        PixelFormat::ALL.iter().position(|known| Some(*known) == own).unwrap_or(PixelFormat::ALL.len())
    }

    /// Frames a second; a usual value where the driver doesn't tell.
    pub fn rate(&self) -> f64 {
        self.interval.map_or(RATE_ASSUMED, Interval::rate)
    }
}

impl Offer {
    /// Asks the driver (`VIDIOC_ENUM_FMT`, `_FRAMESIZES`, `_FRAMEINTERVALS`). Where it gives ranges,
    /// the usual points of them are taken, and what `wish` asks for if it lies inside.
    pub fn of(device: &Device, wish: &FormatWish) -> std::io::Result<Self> {
        let mut offer = Self::default();
        for description in device.enum_formats()? {
            for (width, height) in offer.sizes(device, description.fourcc, wish) {
                for interval in offer.intervals(device, description.fourcc, width, height, wish) {
                    offer.modes.push(Mode { fourcc: description.fourcc, width, height, interval });
                }
            }
            offer.modes.truncate(MODES_MAX);
        }
        if offer.modes.is_empty() {
            offer.modes.extend(current(device));
        }
        Ok(offer)
    }

    /// The modes as text for people, a line for each pixel format and size; those first that can be
    /// recorded.
    pub fn lines(&self) -> Vec<String> {
        let mut modes = self.modes.clone();
        modes.sort_by_key(Mode::place);
        let mut lines: Vec<(Mode, Vec<String>)> = Vec::new();
        for mode in &modes {
            let rate = mode.interval.map_or_else(|| "any rate".to_owned(), |known| rate_text(known.rate()));
            let same = |(first, _): &&mut (Mode, Vec<String>)| {
                (first.fourcc, first.width, first.height) == (mode.fourcc, mode.width, mode.height)
            };
            let is_full = lines.len() >= LINES_MAX;
            match lines.iter_mut().find(same) {
                Some((_, rates)) if rates.contains(&rate) => {}
                Some((_, rates)) => rates.push(rate),
                None if is_full => {}
                None => lines.push((*mode, vec![rate])),
            }
        }
        let text = |(mode, rates): (Mode, Vec<String>)| {
            format!("{} {}x{} at {}/s", mode.fourcc, mode.width, mode.height, rates.join(", "))
        };
        lines.into_iter().map(text).collect()
    }

    fn sizes(&mut self, device: &Device, fourcc: FourCC, wish: &FormatWish) -> Vec<(u32, u32)> {
        let mut sizes = Vec::new();
        for size in device.enum_framesizes(fourcc).unwrap_or_default() {
            match size.size {
                FrameSizeEnum::Discrete(one) => sizes.push((one.width, one.height)),
                FrameSizeEnum::Stepwise(range) => {
                    self.has_ranges = true;
                    sizes.extend(sizes_of(&range, wish));
                }
            }
        }
        if sizes.is_empty() {
            // A driver without the call has one size per format: the present one.
            sizes.extend(
                current(device).filter(|mode| mode.fourcc == fourcc).map(|mode| (mode.width, mode.height)),
            );
        }
        sizes
    }

    fn intervals(
        &mut self,
        device: &Device,
        fourcc: FourCC,
        width: u32,
        height: u32,
        wish: &FormatWish,
    ) -> Vec<Option<Interval>> {
        let mut intervals = Vec::new();
        for interval in device.enum_frameintervals(fourcc, width, height).unwrap_or_default() {
            match interval.interval {
                FrameIntervalEnum::Discrete(one) => intervals.extend(Interval::new(one)),
                FrameIntervalEnum::Stepwise(range) => {
                    self.has_ranges = true;
                    let (min, max) = (Interval::new(range.min), Interval::new(range.max));
                    intervals.extend(intervals_of(min, max, wish.frame_rate));
                }
            }
        }
        if intervals.is_empty() { vec![None] } else { intervals.into_iter().map(Some).collect() }
    }
}

/// The mode that the device is in.
fn current(device: &Device) -> Option<Mode> {
    let format = device.format().ok()?;
    let interval = device.params().ok().and_then(|params| Interval::new(params.interval));
    Some(Mode { fourcc: format.fourcc, width: format.width, height: format.height, interval })
}

fn sizes_of(range: &Stepwise, wish: &FormatWish) -> Vec<(u32, u32)> {
    let on_step = |value: u32, min: u32, max: u32, step: u32| {
        (min..=max).contains(&value) && (value - min).is_multiple_of(step.max(1))
    };
    let wished = wish.width.zip(wish.height);
    let mut sizes: Vec<(u32, u32)> = wished.into_iter().chain(SIZES).collect();
    sizes.retain(|&(width, height)| {
        on_step(width, range.min_width, range.max_width, range.step_width)
            && on_step(height, range.min_height, range.max_height, range.step_height)
    });
    if sizes.is_empty() {
        sizes.push((range.max_width, range.max_height));
    }
    sizes
}

fn intervals_of(min: Option<Interval>, max: Option<Interval>, wish: Option<f64>) -> Vec<Interval> {
    let (Some(min), Some(max)) = (min, max) else { return Vec::new() };
    let inside = |rate: f64| rate <= min.rate() * 1.001 && rate >= max.rate() * 0.999;
    let wished = wish.filter(|rate| rate.is_finite() && inside(*rate)).map(|rate| Interval {
        numerator: 1000,
        // In range by `inside`: a driver's rates are 32 bit.
        denominator: (rate * 1000.0).round() as u32,
    });
    let usual = RATES.into_iter().filter(|rate| inside(f64::from(*rate)));
    let usual = usual.map(|rate| Interval { numerator: 1, denominator: rate });
    let mut intervals: Vec<Interval> = wished.into_iter().chain(usual).collect();
    if intervals.is_empty() {
        intervals.push(min);
    }
    intervals
}

/// A rate with as many decimals as it needs, up to two.
pub fn rate_text(rate: f64) -> String {
    let text = format!("{rate:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{} at {}/s", self.fourcc, self.width, self.height, rate_text(self.rate()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(fourcc: [u8; 4], width: u32, height: u32, rate: u32) -> Mode {
        let interval = Some(Interval { numerator: 1, denominator: rate });
        Mode { fourcc: FourCC::new(&fourcc), width, height, interval }
    }

    #[test]
    fn modes_of_one_size_share_a_line_and_usable_ones_come_first() {
        let modes = vec![
            mode(*b"H264", 1280, 720, 30),
            mode(*b"YUYV", 640, 480, 30),
            mode(*b"MJPG", 1280, 720, 30),
            mode(*b"MJPG", 1280, 720, 15),
            Mode { interval: None, ..mode(*b"GREY", 64, 64, 1) },
        ];
        let offer = Offer { modes, has_ranges: false };
        let expected = [
            "MJPG 1280x720 at 30, 15/s",
            "YUYV 640x480 at 30/s",
            "GREY 64x64 at any rate/s",
            "H264 1280x720 at 30/s",
        ];
        assert_eq!(offer.lines(), expected);
    }

    #[test]
    fn an_endless_list_is_cut() {
        let modes = (1..1000).map(|n| mode(*b"MJPG", n, n, 30)).collect();
        assert_eq!(Offer { modes, has_ranges: false }.lines().len(), LINES_MAX);
    }

    #[test]
    fn a_range_holds_the_wish_and_the_usual_points_inside_it() {
        let range = Stepwise {
            min_width: 2,
            max_width: 1300,
            step_width: 1,
            min_height: 1,
            max_height: 800,
            step_height: 1,
        };
        let wish = FormatWish {
            width: Some(1001),
            height: Some(601),
            frame_rate: Some(12.5),
            ..FormatWish::default()
        };
        let sizes = sizes_of(&range, &wish);
        assert_eq!(sizes.first(), Some(&(1001, 601)));
        assert!(sizes.contains(&(1280, 720)) && !sizes.contains(&(1920, 1080)));
        let (fast, slow) =
            (Interval { numerator: 1, denominator: 50 }, Interval { numerator: 1, denominator: 10 });
        let rates: Vec<f64> =
            intervals_of(Some(fast), Some(slow), wish.frame_rate).into_iter().map(Interval::rate).collect();
        assert_eq!(rates, [12.5, 50.0, 30.0, 25.0, 20.0, 15.0, 10.0]);
    }

    #[test]
    fn a_step_of_zero_is_survived() {
        let range = Stepwise {
            min_width: 640,
            max_width: 640,
            step_width: 0,
            min_height: 480,
            max_height: 480,
            step_height: 0,
        };
        assert_eq!(sizes_of(&range, &FormatWish::default()), [(640, 480)]);
    }
}
