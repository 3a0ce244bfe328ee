//! The test picture: colour bars, a moving bar, the frame's number and its time (UTC). The background
//! is drawn once; only what moves is drawn for each frame.

use super::canvas::{Canvas, Colour};
use super::font::{GLYPH_HEIGHT, GLYPH_WIDTH, glyph};
use crate::clock::{Clock, MonoTime, SystemClock};
use crate::codec::{CodecError, jpeg};
use crate::device::DeviceError;
use crate::media::{PixelFormat, VideoFormat};
use crate::session::device::DeviceSpec;

const SIDE_PIXELS: std::ops::RangeInclusive<u32> = 16..=7680;
const FRAME_RATES: std::ops::RangeInclusive<f64> = 0.1..=1000.0;
const QUALITY: u8 = 80;
const BARS: [Colour; 8] = [
    [191, 191, 191],
    [191, 191, 0],
    [0, 191, 191],
    [0, 191, 0],
    [191, 0, 191],
    [191, 0, 0],
    [0, 0, 191],
    [64, 64, 64],
];
const WHITE: Colour = [255, 255, 255];
const BLACK: Colour = [0, 0, 0];
/// Characters of the longest line, the time.
const LINE_CHARS: u32 = 12;

/// Draws the frames of one device.
pub(super) struct TestPicture {
    format: VideoFormat,
    background: Canvas,
    canvas: Canvas,
    encoder: Option<jpeg::Encoder>,
    jpeg: Vec<u8>,
    /// Pixels a side of a dot of the digits; even.
    dot: u32,
}

impl TestPicture {
    pub(super) fn new(spec: &DeviceSpec) -> Result<Self, DeviceError> {
        let wish = &spec.wish;
        let (width, height) = (wish.width.unwrap_or(640), wish.height.unwrap_or(360));
        let frame_rate = wish.frame_rate.unwrap_or(30.0);
        let fourcc = wish.pixel_format.as_deref().unwrap_or(PixelFormat::Mjpeg.fourcc());
        let refused = || DeviceError::Format {
            device: spec.label.clone(),
            wanted: format!("{fourcc} {width}x{height} at {frame_rate}/s"),
            offered: "MJPG, YUYV, NV12, RGB3 and GREY of 16 to 7680 pixels a side at 0.1 to 1000/s".into(),
        };
        let pixel = PixelFormat::from_fourcc(fourcc).ok_or_else(refused)?;
        if !SIDE_PIXELS.contains(&width)
            || !SIDE_PIXELS.contains(&height)
            || !FRAME_RATES.contains(&frame_rate)
        {
            return Err(refused());
        }
        let background = background(pixel, width, height);
        let interval_ns = (1e9 / frame_rate).round() as u64;
        let raw = VideoFormat { pixel, width, height, stride: background.stride(), interval_ns };
        let (format, encoder) = if pixel == PixelFormat::Mjpeg {
            let encoder = jpeg::Encoder::new(VideoFormat { pixel: PixelFormat::Rgb24, ..raw }, QUALITY);
            let encoder = encoder.map_err(|_| refused())?;
            (VideoFormat { stride: 0, ..raw }, Some(encoder))
        } else {
            (raw, None)
        };
        let dot = (width / (LINE_CHARS * (GLYPH_WIDTH + 1))).min(height / (3 * GLYPH_HEIGHT)).max(2) & !1;
        Ok(Self { format, canvas: background.clone(), background, encoder, jpeg: Vec::new(), dot })
    }

    pub(super) fn format(&self) -> VideoFormat {
        self.format
    }

    /// Frame `number`, captured at `timestamp`. A JPEG says its number in a comment too:
    /// `shutterd frame N`.
    pub(super) fn paint(&mut self, number: u64, timestamp: MonoTime) -> Result<&[u8], CodecError> {
        self.canvas.copy_from(&self.background);
        let bar = (self.format.width / 80).max(2) & !1;
        let places = u64::from((self.format.width / bar).max(1));
        self.canvas.fill((number % places) as u32 * bar, 0, bar, self.format.height, WHITE);

        let (dot, line) = (self.dot, self.dot * (GLYPH_HEIGHT + 2));
        let top = self.format.height.saturating_sub(2 * line + dot) & !1;
        self.canvas.fill(0, top, LINE_CHARS * (GLYPH_WIDTH + 1) * dot + dot, 2 * line + dot, BLACK);
        self.write(&format!("{number:08}"), top + dot);
        self.write(&time_of_day(timestamp), top + dot + line);

        match &mut self.encoder {
            None => Ok(self.canvas.bytes()),
            Some(encoder) => {
                let plain = encoder.encode(self.canvas.bytes())?;
                with_comment(&plain, &format!("shutterd frame {number}"), &mut self.jpeg);
                Ok(&self.jpeg)
            }
        }
    }

    fn write(&mut self, text: &str, top: u32) {
        let dot = self.dot;
        for (character, column) in text.chars().zip(0..) {
            let left = column * (GLYPH_WIDTH + 1) * dot + dot;
            for (row, y) in glyph(character).into_iter().zip(0..) {
                for x in (0..GLYPH_WIDTH).filter(|x| row >> (GLYPH_WIDTH - 1 - x) & 1 == 1) {
                    self.canvas.fill(left + x * dot, top + y * dot, dot, dot, WHITE);
                }
            }
        }
    }
}

/// Eight colour bars above a staircase of greys.
fn background(pixel: PixelFormat, width: u32, height: u32) -> Canvas {
    let mut canvas = Canvas::new(pixel, width, height);
    let split = (height / 2) & !1;
    for (colour, at) in BARS.into_iter().zip(0..) {
        let edge = |at: u32| (width * at / BARS.len() as u32).next_multiple_of(2);
        canvas.fill(edge(at), 0, edge(at + 1) - edge(at), split, colour);
    }
    let step = (width / 16).next_multiple_of(2);
    for at in 0..16 {
        canvas.fill(at * step, split, step, height - split, [at as u8 * 16; 3]);
    }
    canvas
}

/// Hours, minutes, seconds and milliseconds of the wall clock (UTC) at `timestamp`.
fn time_of_day(timestamp: MonoTime) -> String {
    let ms = SystemClock.wall_at(timestamp).nanos().div_euclid(1_000_000).rem_euclid(86_400_000);
    let (s, m, h) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    format!("{h:02}:{:02}:{:02}.{:03}", m % 60, s % 60, ms % 1000)
}

/// Puts a comment segment behind the JFIF header of `plain`, which has to come first.
fn with_comment(plain: &[u8], comment: &str, jpeg: &mut Vec<u8>) {
    let place = match plain {
        [0xFF, 0xD8, 0xFF, 0xE0, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 2,
    };
    let (head, tail) = plain.split_at(place.min(plain.len()));
    let length = u16::try_from(comment.len() + 2).expect("the comment is a few characters long");
    jpeg.clear();
    jpeg.extend_from_slice(head);
    jpeg.extend_from_slice(&[0xFF, 0xFE]);
    jpeg.extend_from_slice(&length.to_be_bytes());
    jpeg.extend_from_slice(comment.as_bytes());
    jpeg.extend_from_slice(tail);
}
