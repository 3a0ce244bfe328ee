//! Which of a camera's modes is taken for a wish. Pure.

use std::cmp::Reverse;

use super::modes::{Mode, rate_text};
use crate::media::PixelFormat;
use crate::session::device::FormatWish;

/// The largest picture that is taken unasked.
const WIDTH_UNASKED_MAX: u32 = 1280;
const HEIGHT_UNASKED_MAX: u32 = 720;
/// The rate that is taken unasked, and the least that a size is worth having at, in frames a second.
const RATE_UNASKED: f64 = 30.0;
const RATE_UNASKED_MIN: f64 = 15.0;
/// How far a rate may lie beside the wish: 29.97 meets 30.
const RATE_TOLERANCE: f64 = 0.005;

/// The mode to ask the driver for. What the wish names is binding; of what meets it the first is
/// taken that is, in this order: within 1280x720, at 15/s or more, MJPEG, the largest (the smallest
/// beyond 1280x720), nearest to 30/s, the earliest in [`PixelFormat::ALL`].
pub fn choose(modes: &[Mode], wish: &FormatWish) -> Option<Mode> {
    let meeting = modes.iter().filter(|mode| mode.pixel().is_some() && meets(mode, wish));
    meeting.max_by_key(|mode| rank(mode)).copied()
}

/// Whether `mode` is all that the wish names.
pub fn meets(mode: &Mode, wish: &FormatWish) -> bool {
    let pixel = |wished: &String| mode.fourcc.str().is_ok_and(|code| code.eq_ignore_ascii_case(wished));
    wish.width.is_none_or(|width| width == mode.width)
        && wish.height.is_none_or(|height| height == mode.height)
        && wish.pixel_format.as_ref().is_none_or(pixel)
        && wish.frame_rate.is_none_or(|rate| mode.interval.is_none_or(|own| same_rate(own.rate(), rate)))
}

/// Whether two rates are the same to people.
pub fn same_rate(a: f64, b: f64) -> bool {
    (a - b).abs() <= b * RATE_TOLERANCE
}

/// The wish as text for people.
pub fn wish_text(wish: &FormatWish) -> String {
    let number = |value: Option<u32>| value.map_or_else(|| "any".to_owned(), |value| value.to_string());
    let mut parts: Vec<String> = wish.pixel_format.iter().cloned().collect();
    if wish.width.is_some() || wish.height.is_some() {
        parts.push(format!("{}x{}", number(wish.width), number(wish.height)));
    }
    parts.extend(wish.frame_rate.map(|rate| format!("{}/s", rate_text(rate))));
    if parts.is_empty() { "MJPG, YUYV, NV12, RGB3 or GREY".to_owned() } else { parts.join(" ") }
}

fn rank(mode: &Mode) -> impl Ord + use<> {
    let fits = mode.width <= WIDTH_UNASKED_MAX && mode.height <= HEIGHT_UNASKED_MAX;
    let area = i64::from(mode.width) * i64::from(mode.height);
    let off_rate = (mode.rate() - RATE_UNASKED).abs() * 1000.0;
    (
        fits,
        mode.rate() >= RATE_UNASKED_MIN,
        mode.pixel() == Some(PixelFormat::Mjpeg),
        if fits { area } else { -area },
        // Saturates for absurd rates, which are then equally bad.
        -(off_rate as i64),
        Reverse(mode.place()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::modes::Interval;
    use super::*;
    use v4l::FourCC;

    fn mode(fourcc: [u8; 4], width: u32, height: u32, rate: u32) -> Mode {
        let interval = Some(Interval { numerator: 1, denominator: rate });
        Mode { fourcc: FourCC::new(&fourcc), width, height, interval }
    }

    #[test]
    fn unasked_the_compressed_720p_at_30_is_taken() {
        let modes = [
            mode(*b"YUYV", 1280, 720, 10),
            mode(*b"MJPG", 1920, 1080, 30),
            mode(*b"MJPG", 1280, 720, 60),
            mode(*b"MJPG", 1280, 720, 30),
            mode(*b"MJPG", 640, 480, 30),
            mode(*b"H264", 1280, 720, 30),
        ];
        assert_eq!(choose(&modes, &FormatWish::default()), Some(modes[3]));
    }

    #[test]
    fn unasked_a_raw_camera_gives_its_largest_size_at_a_useful_rate() {
        let modes = [
            mode(*b"YUYV", 1280, 720, 10),
            mode(*b"YUYV", 640, 480, 30),
            mode(*b"GREY", 640, 480, 30),
            mode(*b"YUYV", 320, 240, 30),
        ];
        assert_eq!(choose(&modes, &FormatWish::default()), Some(modes[1]));
        assert_eq!(choose(&modes[..1], &FormatWish::default()), Some(modes[0]));
    }

    #[test]
    fn unasked_a_camera_with_large_pictures_only_gives_its_smallest() {
        let modes = [mode(*b"MJPG", 3840, 2160, 30), mode(*b"MJPG", 1920, 1080, 30)];
        assert_eq!(choose(&modes, &FormatWish::default()), Some(modes[1]));
    }

    #[test]
    fn what_the_wish_names_is_binding() {
        let modes =
            [mode(*b"MJPG", 1280, 720, 30), mode(*b"YUYV", 640, 480, 30), mode(*b"YUYV", 640, 480, 15)];
        let yuyv = FormatWish { pixel_format: Some("yuyv".into()), ..FormatWish::default() };
        assert_eq!(choose(&modes, &yuyv), Some(modes[1]));
        assert_eq!(
            choose(&modes, &FormatWish { frame_rate: Some(15.0), ..FormatWish::default() }),
            Some(modes[2])
        );
        assert_eq!(choose(&modes, &FormatWish { width: Some(1920), ..FormatWish::default() }), None);
        assert_eq!(choose(&modes, &FormatWish { frame_rate: Some(25.0), ..yuyv }), None);
    }

    #[test]
    fn an_unusable_pixel_format_is_never_taken() {
        let modes = [mode(*b"H264", 1280, 720, 30)];
        let wish = FormatWish { pixel_format: Some("H264".into()), ..FormatWish::default() };
        assert_eq!(choose(&modes, &wish), None);
    }

    #[test]
    fn television_rates_meet_round_ones() {
        let television = Mode {
            interval: Some(Interval { numerator: 1001, denominator: 30_000 }),
            ..mode(*b"MJPG", 640, 480, 1)
        };
        assert!(meets(&television, &FormatWish { frame_rate: Some(30.0), ..FormatWish::default() }));
        assert!(!meets(&television, &FormatWish { frame_rate: Some(29.0), ..FormatWish::default() }));
    }

    #[test]
    fn a_wish_is_told_as_it_was_made() {
        let wish = FormatWish {
            width: Some(1920),
            frame_rate: Some(59.94),
            pixel_format: Some("MJPG".into()),
            ..FormatWish::default()
        };
        assert_eq!(wish_text(&wish), "MJPG 1920xany 59.94/s");
    }
}
