//! The replay device: a recording of ours, an MJPEG or a WAV file, played at its own pace. What a file
//! is is told by its content. Must never change what it plays, nor read a file whole into memory.

mod medium;
mod pictures;
mod recording;
mod wav;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::fs::OFlags;

use super::wait::wait;
use super::{Device, DeviceError, Wake};
use crate::clock::{Clock, MonoTime, SystemClock};
use crate::media::{Format, Frame, PixelFormat, TimestampSource};
use crate::session::device::{Address, DeviceSpec, FormatWish, MediaType};

use medium::{Label, Medium, Span};
use pictures::Pictures;
use recording::Recording;
use wav::Wav;

/// Deviation of a rate that is still the wanted one: some recordings only tell it by their first frames.
const RATE_TOLERANCE: f64 = 0.1;

/// Opens the file of `spec`.
///
/// # Errors
/// The file is missing, can't be read, or holds nothing of this kind that can be played.
pub fn open(spec: &DeviceSpec, wake: &Wake) -> Result<Box<dyn Device>, DeviceError> {
    let (path, again) = match &spec.address {
        Address::Replay { path, again } => (path.as_str(), *again),
        _ => ("", false),
    };
    let label = Label::new(&spec.label, path);
    let mut file = open_file(&label, path)?;
    let mut magic = Vec::new();
    let read = file.by_ref().take(12).read_to_end(&mut magic).and_then(|_| file.rewind());
    read.map_err(|error| label.failed("reading", error))?;
    let medium: Box<dyn Medium> = match (magic.as_slice(), spec.media) {
        ([], _) => return Err(label.malformed("the file is empty")),
        ([0xFF, 0xD8, 0xFF, ..], MediaType::Video) => {
            Box::new(Pictures::open(label.clone(), file, &spec.wish)?)
        }
        ([0xFF, 0xD8, 0xFF, ..], MediaType::Audio) => return Err(label.malformed("MJPEG holds no sound")),
        ([b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E'], MediaType::Audio) => {
            Box::new(Wav::open(label.clone(), file)?)
        }
        ([b'R', b'I', b'F', b'F', ..], _) => {
            return Err(label.malformed("a WAV file is expected for sound only"));
        }
        ([0x1A, 0x45, 0xDF, 0xA3, ..], media) => Box::new(Recording::open(label.clone(), file, media)?),
        _ => return Err(label.malformed("it is no MJPEG, WAV or Matroska file")),
    };
    check(&label, medium.format(), &spec.wish)?;
    let (wake, begin, passed) = (wake.clone(), MonoTime::default(), Duration::ZERO);
    Ok(Box::new(Replay { label, medium, again, wake, begin, passed, pass: None, pending: None, count: 0 }))
}

struct Replay {
    label: Label,
    medium: Box<dyn Medium>,
    /// Starts again at the end.
    again: bool,
    wake: Wake,
    /// When the replay began.
    begin: MonoTime,
    /// How long the passes before the present one took.
    passed: Duration,
    /// Where what was played of the present pass ends; `None` when nothing was.
    pass: Option<Duration>,
    /// The unit that was read and waits for its time.
    pending: Option<Span>,
    /// Frames that were handed over.
    count: u64,
}

impl Device for Replay {
    fn format(&self) -> Format {
        self.medium.format()
    }

    fn timestamp_source(&self) -> TimestampSource {
        TimestampSource::Driver
    }

    fn start(&mut self) -> Result<(), DeviceError> {
        self.begin = SystemClock.now();
        Ok(())
    }

    fn next(&mut self, deadline: MonoTime) -> Result<Option<Frame<'_>>, DeviceError> {
        let span = match self.pending {
            Some(span) => span,
            None => self.read()?,
        };
        self.pending = Some(span);
        let timestamp = self.begin + self.passed + span.at;
        // A picture can be had when it was taken, sound when its last sample was.
        let ready_at = match self.format() {
            Format::Video(_) => timestamp,
            Format::Audio(_) => timestamp + span.length,
        };
        if SystemClock.now() < ready_at {
            wait(self.wake.as_fd(), &self.wake, ready_at.min(deadline))
                .map_err(|error| self.label.failed("waiting for a frame", error))?;
            if SystemClock.now() < ready_at {
                return Ok(None);
            }
        }
        self.pending = None;
        let sequence = Some(self.count as u32);
        self.count += 1;
        Ok(Some(Frame { timestamp, sequence, body: self.medium.body() }))
    }

    fn close(self: Box<Self>) -> Result<(), DeviceError> {
        Ok(())
    }
}

impl Replay {
    /// The next unit of the file, from its begin again where that is wanted.
    fn read(&mut self) -> Result<Span, DeviceError> {
        loop {
            if let Some(span) = self.medium.advance()? {
                self.pass = Some(self.pass.unwrap_or_default().max(span.at + span.length));
                return Ok(span);
            }
            match self.pass.take() {
                Some(length) if self.again => self.passed += length,
                Some(_) => return Err(self.label.ended()),
                None if self.count > 0 && !self.again => return Err(self.label.ended()),
                None => return Err(self.label.malformed("the file holds no whole frame")),
            }
            self.medium.rewind()?;
        }
    }
}

/// Holds what is played against the wish: a file is what it is.
fn check(label: &Label, format: Format, wish: &FormatWish) -> Result<(), DeviceError> {
    let fits = match format {
        Format::Video(video) => {
            let rate = 1e9 / video.interval_ns.max(1) as f64;
            let code = wish.pixel_format.as_deref().unwrap_or(video.pixel.fourcc());
            wish.width.unwrap_or(video.width) == video.width
                && wish.height.unwrap_or(video.height) == video.height
                && PixelFormat::from_fourcc(code) == Some(video.pixel)
                && wish.frame_rate.is_none_or(|wanted| (wanted - rate).abs() <= wanted * RATE_TOLERANCE)
        }
        Format::Audio(audio) => {
            wish.sample_rate.unwrap_or(audio.sample_rate) == audio.sample_rate
                && wish.channels.unwrap_or(audio.channels) == audio.channels
        }
    };
    if fits { Ok(()) } else { Err(label.other_format(wish, format)) }
}

/// Opens a regular file; anything else could block, or end never.
fn open_file(label: &Label, path: &str) -> Result<File, DeviceError> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => label.missing(),
        io::ErrorKind::PermissionDenied => label.denied(),
        _ => label.failed("opening", error),
    };
    let flags = OFlags::NONBLOCK.union(OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(refused)?;
    if file.metadata().map_err(refused)?.is_file() {
        Ok(file)
    } else {
        Err(label.malformed("it is no regular file: a FIFO is read by a pipe device"))
    }
}
