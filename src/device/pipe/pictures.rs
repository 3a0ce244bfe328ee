//! Pictures from a pipe: MJPEG, each picture stamped when the read that completed it came back.

use std::time::Duration;

use super::inlet::{Arrived, Inlet};
use crate::clock::{Clock, MonoTime, SystemClock};
use crate::codec::jpeg::{self, Splitter};
use crate::device::{Device, DeviceError};
use crate::media::{Body, Format, Frame, PixelFormat, TimestampSource, VideoFormat};
use crate::session::device::FormatWish;

/// Bytes of the largest picture; what is longer is garbage.
const PICTURE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long the first picture, which tells the size, is waited for.
const FIRST_PICTURE_WAIT: Duration = Duration::from_secs(5);
/// Least distance of two pictures that came in one read: a file holds tenths of milliseconds.
const DISTANCE_MIN: Duration = Duration::from_micros(100);

pub(super) struct Pictures {
    inlet: Inlet,
    splitter: Splitter,
    format: VideoFormat,
    /// When the last read came back.
    arrival: MonoTime,
    last: MonoTime,
    /// Bytes that belonged to no picture when the last one came, and how often there were some before one.
    discarded_bytes: u64,
    broken: u64,
    /// The first picture, read to learn the format and not handed over yet.
    first_waits: bool,
}

/// Why there is no picture.
enum Lack {
    Time,
    End,
}

impl Pictures {
    pub(super) fn open(inlet: Inlet, wish: &FormatWish) -> Result<Self, DeviceError> {
        let mut device = Self {
            inlet,
            splitter: Splitter::new(PICTURE_BYTES_MAX),
            format: VideoFormat {
                pixel: PixelFormat::Mjpeg,
                width: wish.width.unwrap_or(0),
                height: wish.height.unwrap_or(0),
                stride: 0,
                interval_ns: interval_ns(wish.frame_rate),
            },
            arrival: MonoTime::default(),
            last: MonoTime::default(),
            discarded_bytes: 0,
            broken: 0,
            first_waits: false,
        };
        let fourcc = wish.pixel_format.as_deref().unwrap_or(PixelFormat::Mjpeg.fourcc());
        if PixelFormat::from_fourcc(fourcc) != Some(PixelFormat::Mjpeg) {
            return Err(device.refused(fourcc, "MJPG"));
        }
        if device.format.width == 0 || device.format.height == 0 {
            device.learn(wish)?;
        }
        Ok(device)
    }

    /// Waits for the first picture and takes its size for the format's.
    fn learn(&mut self, wish: &FormatWish) -> Result<(), DeviceError> {
        match self.advance(SystemClock.now() + FIRST_PICTURE_WAIT)? {
            Ok(()) => {}
            Err(Lack::End) => return Err(self.inlet.ended()),
            Err(Lack::Time) if self.arrival == MonoTime::default() => return Err(self.inlet.unwritten()),
            Err(Lack::Time) => {
                let problem = "what came before the end of the wait is no whole JPEG";
                return Err(self.inlet.malformed(problem));
            }
        }
        let (width, height) = self.dimensions()?;
        let wanted = (wish.width.unwrap_or(width), wish.height.unwrap_or(height));
        if wanted != (width, height) {
            let wanted = format!("{}x{}", wanted.0, wanted.1);
            return Err(self.refused(&wanted, &format!("{width}x{height}")));
        }
        (self.format.width, self.format.height) = (width, height);
        self.first_waits = true;
        Ok(())
    }

    /// Goes on to the next picture. Reads what lies in the pipe even when `deadline` is past.
    fn advance(&mut self, deadline: MonoTime) -> Result<Result<(), Lack>, DeviceError> {
        let mut read = 0;
        loop {
            if self.splitter.advance() {
                return Ok(Ok(()));
            }
            if read > self.inlet.room() && SystemClock.now() >= deadline {
                return Ok(Err(Lack::Time));
            }
            match self.inlet.read(self.splitter.space())? {
                Arrived::Bytes(count, at) => {
                    self.splitter.filled(count);
                    self.arrival = at;
                    read += count;
                }
                Arrived::Nothing if self.inlet.wait(deadline)? => {}
                Arrived::Nothing => return Ok(Err(Lack::Time)),
                Arrived::End => {
                    self.splitter.end();
                    return Ok(if self.splitter.advance() { Ok(()) } else { Err(Lack::End) });
                }
            }
        }
    }

    /// The first picture has the size that was asked for.
    fn check_size(&self) -> Result<(), DeviceError> {
        let (width, height) = self.dimensions()?;
        if (width, height) == (self.format.width, self.format.height) {
            return Ok(());
        }
        let wanted = format!("{}x{}", self.format.width, self.format.height);
        Err(self.refused(&wanted, &format!("{width}x{height}")))
    }

    /// Size of the present picture.
    fn dimensions(&self) -> Result<(u32, u32), DeviceError> {
        jpeg::dimensions(self.splitter.picture())
            .ok_or_else(|| self.inlet.malformed("a JPEG came that does not tell its size"))
    }

    fn refused(&self, wanted: &str, offered: &str) -> DeviceError {
        DeviceError::Format {
            device: self.inlet.name().to_owned(),
            wanted: wanted.to_owned(),
            offered: offered.to_owned(),
        }
    }
}

impl Device for Pictures {
    fn format(&self) -> Format {
        Format::Video(self.format)
    }

    fn timestamp_source(&self) -> TimestampSource {
        TimestampSource::Arrival
    }

    fn start(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn next(&mut self, deadline: MonoTime) -> Result<Option<Frame<'_>>, DeviceError> {
        if self.first_waits {
            self.first_waits = false;
        } else {
            match self.advance(deadline)? {
                Ok(()) => {}
                Err(Lack::Time) => return Ok(None),
                Err(Lack::End) => return Err(self.inlet.ended()),
            }
            // What comes later is kept, whatever its size: it was captured.
            if self.last == MonoTime::default() {
                self.check_size()?;
            }
        }
        if self.splitter.discarded_bytes() > self.discarded_bytes {
            self.discarded_bytes = self.splitter.discarded_bytes();
            self.broken += 1;
        }
        let timestamp = self.arrival.max(self.last + DISTANCE_MIN);
        self.last = timestamp;
        let bytes = self.splitter.picture();
        let body = Body::Picture { bytes, corrupt: jpeg::dimensions(bytes).is_none() };
        Ok(Some(Frame { timestamp, sequence: None, body }))
    }

    fn broken(&mut self) -> u64 {
        std::mem::take(&mut self.broken)
    }

    fn close(self: Box<Self>) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// Nanoseconds between two pictures at `frame_rate`, 30 a second if there is no sensible one.
fn interval_ns(frame_rate: Option<f64>) -> u64 {
    let rate = frame_rate.filter(|rate| (0.01..=10_000.0).contains(rate)).unwrap_or(30.0);
    (1e9 / rate).round() as u64
}
