//! Frames: one captured unit of a source, borrowed from the device that captured it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::MonoTime;
pub use crate::session::device::TimestampSource;

/// How the bytes of a picture are laid out. Names in the docs are V4L2 four-character codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelFormat {
    /// `MJPG`: each frame is a JPEG image.
    Mjpeg,
    /// `YUYV`: packed 4:2:2, two bytes a pixel.
    Yuyv,
    /// `NV12`: a plane of Y, then a plane of interleaved UV at half the size each way.
    Nv12,
    /// `GREY`: one byte a pixel.
    Grey,
    /// `RGB3`: three bytes a pixel, red first.
    Rgb24,
}

/// How a device hands over sound samples before they become `i32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleFormat {
    /// 16 bit signed; samples lie within `i16`.
    S16,
    /// 24 bit signed; samples lie within ±2²³.
    S24,
    /// 32 bit signed.
    S32,
}

/// The format of a video source, as the device delivers it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoFormat {
    /// Layout of the bytes.
    pub pixel: PixelFormat,
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes a row of the first plane; 0 for MJPEG.
    pub stride: u32,
    /// Nominal time between two frames, in nanoseconds.
    pub interval_ns: u64,
}

/// The format of an audio source, as the device delivers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AudioFormat {
    /// Depth of a sample.
    pub sample: SampleFormat,
    /// Samples a second and channel, in hertz.
    pub sample_rate: u32,
    /// Interleaved channels.
    pub channels: u16,
    /// Nominal samples (per channel) that one frame of this source holds.
    pub period_samples: u32,
}

/// The format of a source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// Pictures.
    Video(VideoFormat),
    /// Sound.
    Audio(AudioFormat),
}

/// One captured unit of a source, borrowed from its device until the next call.
#[derive(Debug)]
pub struct Frame<'a> {
    /// When the picture, or the first sample, was captured.
    pub timestamp: MonoTime,
    /// The driver's own count of frames, where it keeps one; a jump means frames it never handed over.
    pub sequence: Option<u32>,
    /// The data.
    pub body: Body<'a>,
}

/// The data of a frame.
#[derive(Debug)]
pub enum Body<'a> {
    /// The bytes of one picture, exactly as long as the picture.
    Picture {
        /// The picture in the source's pixel format.
        bytes: &'a [u8],
        /// The driver says that the picture is damaged (`V4L2_BUF_FLAG_ERROR`).
        corrupt: bool,
    },
    /// Interleaved samples, `channels` to a sample time.
    Sound(&'a [i32]),
}

impl Format {
    /// Nominal time between two frames.
    pub fn interval(&self) -> Duration {
        match self {
            Self::Video(video) => Duration::from_nanos(video.interval_ns),
            Self::Audio(audio) => audio.length_of(u64::from(audio.period_samples)),
        }
    }
}

impl AudioFormat {
    /// How long `samples` (per channel) last at the nominal rate.
    pub fn length_of(&self, samples: u64) -> Duration {
        let nanos = u128::from(samples) * 1_000_000_000 / u128::from(self.sample_rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many samples (per channel) start within `length` at the nominal rate, rounded up.
    pub fn samples_in(&self, length: Duration) -> u64 {
        let count = (length.as_nanos() * u128::from(self.sample_rate)).div_ceil(1_000_000_000);
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

impl SampleFormat {
    /// Significant bits of a sample.
    pub const fn bits(self) -> u8 {
        match self {
            Self::S16 => 16,
            Self::S24 => 24,
            Self::S32 => 32,
        }
    }
}

impl PixelFormat {
    /// Every format, the one to prefer first.
    pub const ALL: [Self; 5] = [Self::Mjpeg, Self::Yuyv, Self::Nv12, Self::Rgb24, Self::Grey];

    /// The V4L2 four-character code.
    pub const fn fourcc(self) -> &'static str {
        match self {
            Self::Mjpeg => "MJPG",
            Self::Yuyv => "YUYV",
            Self::Nv12 => "NV12",
            Self::Grey => "GREY",
            Self::Rgb24 => "RGB3",
        }
    }

    /// The format with the V4L2 four-character code `fourcc`, in any case.
    pub fn from_fourcc(fourcc: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.fourcc().eq_ignore_ascii_case(fourcc))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Video(video) => {
                let rate = 1e9 / (video.interval_ns.max(1) as f64);
                write!(f, "{} {}x{} at {rate:.2}/s", video.pixel.fourcc(), video.width, video.height)
            }
            Self::Audio(audio) => {
                let bits = audio.sample.bits();
                write!(f, "S{bits} {} Hz, {} channels", audio.sample_rate, audio.channels)
            }
        }
    }
}
