//! MJPEG files: JPEGs one after another, played at the rate of the wish.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::time::Duration;

use super::medium::{Label, Medium, Span};
use crate::codec::jpeg::{self, Splitter};
use crate::device::DeviceError;
use crate::media::{Body, Format, PixelFormat, VideoFormat};
use crate::session::device::FormatWish;

/// Bytes of the largest picture; what is longer is garbage.
const PICTURE_BYTES_MAX: usize = 16 * 1024 * 1024;
const FRAME_RATES: std::ops::RangeInclusive<f64> = 0.1..=1000.0;

pub(super) struct Pictures {
    label: Label,
    file: File,
    splitter: Splitter,
    format: VideoFormat,
    count: u64,
}

impl Pictures {
    pub(super) fn open(label: Label, file: File, wish: &FormatWish) -> Result<Self, DeviceError> {
        let rate = wish.frame_rate.unwrap_or(30.0);
        if !FRAME_RATES.contains(&rate) {
            return Err(label.malformed(format!("it can't be played at {rate}/s, but at 0.1 to 1000/s")));
        }
        let format = VideoFormat {
            pixel: PixelFormat::Mjpeg,
            width: 0,
            height: 0,
            stride: 0,
            interval_ns: (1e9 / rate).round() as u64,
        };
        let mut medium = Self { label, file, splitter: Splitter::new(PICTURE_BYTES_MAX), format, count: 0 };
        if !medium.read()? {
            return Err(medium.label.malformed("the file holds no whole JPEG"));
        }
        let size = jpeg::dimensions(medium.splitter.picture());
        let (width, height) = size.ok_or_else(|| medium.label.malformed("a JPEG does not tell its size"))?;
        (medium.format.width, medium.format.height) = (width, height);
        medium.rewind()?;
        Ok(medium)
    }

    /// Goes on to the next picture; false at the end.
    fn read(&mut self) -> Result<bool, DeviceError> {
        loop {
            if self.splitter.advance() {
                return Ok(true);
            }
            match self.file.read(self.splitter.space()) {
                Ok(0) => {
                    self.splitter.end();
                    return Ok(self.splitter.advance());
                }
                Ok(count) => self.splitter.filled(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.label.failed("reading", error)),
            }
        }
    }
}

impl Medium for Pictures {
    fn format(&self) -> Format {
        Format::Video(self.format)
    }

    fn advance(&mut self) -> Result<Option<Span>, DeviceError> {
        if !self.read()? {
            return Ok(None);
        }
        let wanted = (self.format.width, self.format.height);
        if jpeg::dimensions(self.splitter.picture()) != Some(wanted) {
            let count = self.count;
            return Err(self.label.malformed(format!("picture {count} has another size than the first")));
        }
        let at = Duration::from_nanos(self.format.interval_ns.saturating_mul(self.count));
        self.count += 1;
        Ok(Some(Span { at, length: Duration::from_nanos(self.format.interval_ns) }))
    }

    fn body(&self) -> Body<'_> {
        Body::Picture { bytes: self.splitter.picture(), corrupt: false }
    }

    fn rewind(&mut self) -> Result<(), DeviceError> {
        self.file.rewind().map_err(|error| self.label.failed("going back to the begin", error))?;
        self.splitter.restart();
        self.count = 0;
        Ok(())
    }
}
