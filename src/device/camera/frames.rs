//! What a V4L2 buffer is as a frame: its time, its count, its bytes. Must never touch the device.

use v4l::buffer::{Flags, Metadata};

use crate::clock::{Clock, MonoTime, SystemClock};
use crate::codec::jpeg;
use crate::media::{Body, Frame, PixelFormat, TimestampSource, VideoFormat};

/// First and last bytes of a JPEG image (ITU-T T.81, B.1.1.3).
const JPEG_START: [u8; 2] = [0xff, 0xd8];
const JPEG_END: [u8; 2] = [0xff, 0xd9];

/// Makes frames of one stream's buffers.
pub struct Frames {
    format: VideoFormat,
    stamps: TimestampSource,
    last_sequence: Option<u32>,
}

impl Frames {
    /// Frames of `format`.
    pub fn new(format: VideoFormat) -> Self {
        Self { format, stamps: TimestampSource::Driver, last_sequence: None }
    }

    /// The format of the frames.
    pub fn format(&self) -> VideoFormat {
        self.format
    }

    /// Where the timestamps come from: the driver, until it gives a frame without one. From there on
    /// all count by arrival, never a mix.
    pub fn stamps(&self) -> TimestampSource {
        self.stamps
    }

    /// The frame in `buffer`, which has just been dequeued.
    pub fn frame<'a>(&mut self, buffer: &'a [u8], metadata: &Metadata) -> Frame<'a> {
        let now = SystemClock.now();
        let timestamp = driver_stamp(metadata).filter(|_| self.stamps == TimestampSource::Driver);
        if timestamp.is_none() {
            self.stamps = TimestampSource::Arrival;
        }
        // A driver that does not count gives every frame the same number.
        let is_counted = self.last_sequence.replace(metadata.sequence) != Some(metadata.sequence);
        Frame {
            timestamp: timestamp.unwrap_or(now).min(now),
            sequence: is_counted.then_some(metadata.sequence),
            body: picture(buffer, metadata, &self.format),
        }
    }
}

/// The driver's timestamp, if it is one of CLOCK_MONOTONIC (`V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC`).
fn driver_stamp(metadata: &Metadata) -> Option<MonoTime> {
    if metadata.flags & Flags::TIMESTAMP_MASK != Flags::TIMESTAMP_MONOTONIC {
        return None;
    }
    let (seconds, micros) = (metadata.timestamp.sec, metadata.timestamp.usec);
    let nanos = u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?;
    let nanos = nanos.checked_add(u64::try_from(micros).ok()?.checked_mul(1000)?)?;
    (nanos > 0).then(|| MonoTime::from_nanos(nanos))
}

fn picture<'a>(buffer: &'a [u8], metadata: &Metadata, format: &VideoFormat) -> Body<'a> {
    let used = &buffer[..buffer.len().min(metadata.bytesused as usize)];
    let end = match raw_length(format) {
        Some(length) => (used.len() >= length).then_some(length),
        None => jpeg_length(used),
    };
    let is_marked = metadata.flags.contains(Flags::ERROR);
    Body::Picture { bytes: &used[..end.unwrap_or(used.len())], corrupt: is_marked || end.is_none() }
}

/// Bytes of the JPEG at the start of `bytes`; the walk is only for cameras that pad their pictures.
fn jpeg_length(bytes: &[u8]) -> Option<usize> {
    let is_whole = bytes.starts_with(&JPEG_START) && bytes.ends_with(&JPEG_END);
    if is_whole { Some(bytes.len()) } else { jpeg::length(bytes) }
}

/// Bytes of an uncompressed picture; `None` for MJPEG.
fn raw_length(format: &VideoFormat) -> Option<usize> {
    let plane = format.stride as usize * format.height as usize;
    match format.pixel {
        PixelFormat::Mjpeg => None,
        PixelFormat::Nv12 => Some(plane + format.stride as usize * (format.height as usize).div_ceil(2)),
        PixelFormat::Yuyv | PixelFormat::Grey | PixelFormat::Rgb24 => Some(plane),
    }
}

#[cfg(test)]
mod tests {
    use v4l::timestamp::Timestamp;

    use super::*;

    fn format(pixel: PixelFormat, stride: u32, height: u32) -> VideoFormat {
        VideoFormat { pixel, width: 4, height, stride, interval_ns: 1 }
    }

    fn metadata(bytesused: u32, flags: Flags) -> Metadata {
        Metadata { bytesused, flags, timestamp: Timestamp::new(3, 250_000), ..Metadata::default() }
    }

    fn parts<'a>(body: &Body<'a>) -> (&'a [u8], bool) {
        match *body {
            Body::Picture { bytes, corrupt } => (bytes, corrupt),
            Body::Sound(_) => unreachable!("cameras make pictures"),
        }
    }

    /// The least that has the structure of a JPEG, and what an earlier picture left behind it.
    const BUFFER: [u8; 12] = [0xff, 0xd8, 0xff, 0xda, 0, 2, 7, 0xff, 0xd9, 1, 2, 3];

    #[test]
    fn a_jpeg_ends_with_its_end_marker_or_is_corrupt() {
        let mjpeg = format(PixelFormat::Mjpeg, 0, 2);
        let picture = |used, flags| picture(&BUFFER, &metadata(used, flags), &mjpeg);
        assert_eq!(parts(&picture(9, Flags::empty())), (&BUFFER[..9], false));
        assert_eq!(parts(&picture(12, Flags::empty())), (&BUFFER[..9], false));
        assert_eq!(parts(&picture(99, Flags::empty())), (&BUFFER[..9], false));
        assert_eq!(parts(&picture(9, Flags::ERROR)), (&BUFFER[..9], true));
        assert_eq!(parts(&picture(7, Flags::empty())), (&BUFFER[..7], true));
        assert_eq!(parts(&picture(0, Flags::empty())), (&BUFFER[..0], true));
    }

    #[test]
    fn a_raw_picture_has_its_length_or_is_corrupt() {
        let buffer = [7; 64];
        let yuyv = format(PixelFormat::Yuyv, 8, 3);
        assert_eq!(parts(&picture(&buffer, &metadata(24, Flags::empty()), &yuyv)), (&buffer[..24], false));
        assert_eq!(parts(&picture(&buffer, &metadata(64, Flags::empty()), &yuyv)), (&buffer[..24], false));
        assert_eq!(parts(&picture(&buffer, &metadata(23, Flags::empty()), &yuyv)), (&buffer[..23], true));
        assert_eq!(raw_length(&format(PixelFormat::Nv12, 4, 5)), Some(32));
        assert_eq!(raw_length(&format(PixelFormat::Rgb24, 12, 2)), Some(24));
        assert_eq!(raw_length(&format(PixelFormat::Grey, 4, 2)), Some(8));
    }

    #[test]
    fn only_monotonic_stamps_are_the_drivers() {
        let stamp = |flags| driver_stamp(&metadata(0, flags)).map(MonoTime::nanos);
        assert_eq!(stamp(Flags::TIMESTAMP_MONOTONIC | Flags::MAPPED), Some(3_250_000_000));
        assert_eq!(stamp(Flags::TIMESTAMP_COPY), None);
        assert_eq!(stamp(Flags::MAPPED), None);
        let zero = Metadata { timestamp: Timestamp::new(0, 0), ..metadata(0, Flags::TIMESTAMP_MONOTONIC) };
        assert_eq!(driver_stamp(&zero), None);
    }

    #[test]
    fn one_frame_without_a_stamp_makes_all_later_ones_count_by_arrival() {
        let mut frames = Frames::new(format(PixelFormat::Mjpeg, 0, 2));
        let stamped = metadata(9, Flags::TIMESTAMP_MONOTONIC);
        let before = SystemClock.now();
        assert!(frames.frame(&BUFFER, &stamped).timestamp <= before.min(MonoTime::from_nanos(3_250_000_000)));
        assert_eq!(frames.stamps(), TimestampSource::Driver);
        assert!(frames.frame(&BUFFER, &metadata(9, Flags::empty())).timestamp >= before);
        assert!(frames.frame(&BUFFER, &stamped).timestamp >= before);
        assert_eq!(frames.stamps(), TimestampSource::Arrival);
    }

    #[test]
    fn a_driver_that_does_not_count_gives_no_sequence() {
        let mut frames = Frames::new(format(PixelFormat::Mjpeg, 0, 2));
        let mut sequence =
            |sequence| frames.frame(&BUFFER, &Metadata { sequence, ..metadata(9, Flags::empty()) }).sequence;
        assert_eq!([sequence(0), sequence(0), sequence(1), sequence(3)], [Some(0), None, Some(1), Some(3)]);
    }
}
