//! The synthetic device: a test picture or a tone, made on the spot and paced like a camera or a
//! microphone, which misbehaves on order. For demos, tests and dry runs of a site; must never be
//! mistaken for a real source, so each picture says its number and time.

mod canvas;
mod faults;
mod font;
mod picture;
mod tone;

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::Timespec;

use super::wait::wait;
use super::{Device, DeviceError, Wake};
use crate::clock::{Clock, MonoTime, SystemClock};
use crate::media::{Body, Format, Frame, TimestampSource};
use crate::session::device::{Address, DeviceSpec, Fault, MediaType};

use faults::Faults;
use picture::TestPicture;
use tone::Tone;

/// Pictures that wait for a late reader, as in the buffers of a driver.
const LATE_PICTURES_MAX: u64 = 8;
/// Sound that waits for a late reader.
const LATE_SOUND_MAX: Duration = Duration::from_millis(500);

/// Intervals that a slow device takes to hand over a frame.
const SLOW_INTERVALS: u32 = 4;
/// Intervals that a camera in the dark exposes a picture.
const DIM_INTERVALS: u64 = 4;

/// Opens the synthetic device of `spec`. Video is MJPEG 640x360 at 30/s and audio 48 kHz mono S16 in
/// periods of 10 ms, where the wish says nothing else.
///
/// # Errors
/// A wish that it can't fulfil, or a device that has vanished by order.
pub fn open(spec: &DeviceSpec, wake: &Wake) -> Result<Box<dyn Device>, DeviceError> {
    let orders = match &spec.address {
        Address::Synthetic { faults } => faults.clone(),
        _ => Vec::new(),
    };
    let (source, late_max) = match spec.media {
        MediaType::Video => (Source::Picture(Box::new(TestPicture::new(spec)?)), LATE_PICTURES_MAX),
        MediaType::Audio => {
            let tone = Tone::new(spec)?;
            let periods = tone.format().samples_in(LATE_SOUND_MAX) / tone.period_samples();
            (Source::Tone(tone), periods)
        }
    };
    let device = Synthetic {
        name: spec.label.clone(),
        wake: wake.clone(),
        faults: Faults::new(spec.key.clone(), orders),
        source,
        late_max,
        begin: MonoTime::default(),
        number: 0,
        unexposed: 0,
        backlog: None,
    };
    let Some(begin) = device.faults.begun() else { return Ok(Box::new(device)) };
    let due = device.due_at(begin, SystemClock.now());
    if let Some((Fault::Vanish | Fault::Change, _)) = device.faults.at(due) {
        return Err(device.missing());
    }
    let source =
        if device.faults.has_changed_before(due) { halved(spec, device.format())? } else { device.source };
    Ok(Box::new(Synthetic { source, ..device }))
}

/// What a device delivers after an order to change its format.
fn halved(spec: &DeviceSpec, format: Format) -> Result<Source, DeviceError> {
    let mut spec = spec.clone();
    match format {
        Format::Video(video) => {
            (spec.wish.width, spec.wish.height) = (Some(video.width / 2), Some(video.height / 2));
            Ok(Source::Picture(Box::new(TestPicture::new(&spec)?)))
        }
        Format::Audio(audio) => {
            spec.wish.sample_rate = Some(audio.sample_rate / 2);
            Ok(Source::Tone(Tone::new(&spec)?))
        }
    }
}

struct Synthetic {
    name: String,
    wake: Wake,
    faults: Faults,
    source: Source,
    /// Frames that wait for a late reader.
    late_max: u64,
    /// When frame 0 was due.
    begin: MonoTime,
    /// Count of the next frame.
    number: u64,
    /// Of these, the ones that a long exposure left no time for: a driver doesn't count them.
    unexposed: u64,
    /// What is left of full buffers, and the frame that comes after them.
    backlog: Option<Backlog>,
}

enum Source {
    Picture(Box<TestPicture>),
    Tone(Tone),
}

/// A reader came so late that all buffers were full: it gets those, and then what comes now.
#[derive(Clone, Copy)]
struct Backlog {
    left: u64,
    then: u64,
}

impl Device for Synthetic {
    fn format(&self) -> Format {
        match &self.source {
            Source::Picture(picture) => Format::Video(picture.format()),
            Source::Tone(tone) => Format::Audio(tone.format()),
        }
    }

    fn timestamp_source(&self) -> TimestampSource {
        TimestampSource::Driver
    }

    fn start(&mut self) -> Result<(), DeviceError> {
        let now = SystemClock.now();
        self.begin = self.faults.begin(now);
        self.number = if self.begin == now { 0 } else { self.due_at(self.begin, now) };
        self.backlog = None;
        Ok(())
    }

    fn next(&mut self, deadline: MonoTime) -> Result<Option<Frame<'_>>, DeviceError> {
        let fault = loop {
            let fault = self.faults.at(self.number);
            match fault {
                Some((Fault::Stall, end)) => self.go_on_with(end),
                Some((Fault::Dim, _)) if self.is_unexposed(self.number) => {
                    self.unexposed += 1;
                    self.go_on_with(self.number + 1);
                }
                Some((Fault::Flood, _)) => break fault,
                _ if self.wait(deadline)? => break fault,
                _ => return Ok(None),
            }
        };
        match fault.map(|(fault, _)| fault) {
            Some(Fault::Fail) => {
                self.go_on_with(self.number + 1);
                return Err(self.failed("reading a frame"));
            }
            Some(Fault::Vanish | Fault::Change) => return Err(self.missing()),
            Some(Fault::Hang) => hang(),
            Some(Fault::Panic) => panic!("a fault was ordered"),
            Some(Fault::Flood) => {
                // The frame is due now, whatever the time: those after the flood follow from here.
                self.begin = SystemClock.now() - self.time_of(self.number);
                self.faults.moved(self.begin);
            }
            Some(Fault::Slow) => {
                self.note_lateness();
                dawdle(self.format().interval() * SLOW_INTERVALS);
            }
            Some(Fault::Stall | Fault::Dim) | None => self.note_lateness(),
        }
        let number = self.number;
        let timestamp = self.begin + self.time_of(number);
        self.go_on_with(self.number + 1);
        let body = match &mut self.source {
            Source::Picture(picture) => {
                let bytes = picture.paint(number, timestamp).map_err(|source| DeviceError::Failed {
                    device: self.name.clone(),
                    doing: "compressing a picture",
                    source: std::io::Error::other(source),
                })?;
                Body::Picture { bytes, corrupt: false }
            }
            Source::Tone(tone) => Body::Sound(tone.play(number)),
        };
        // The count of a driver wraps at 32 bits.
        let sequence = Some((number - self.unexposed) as u32);
        Ok(Some(Frame { timestamp, sequence, body }))
    }

    fn close(self: Box<Self>) -> Result<(), DeviceError> {
        Ok(())
    }
}

impl Synthetic {
    /// Time from the begin to the capture of frame `number`.
    fn time_of(&self, number: u64) -> Duration {
        match &self.source {
            Source::Picture(picture) => {
                Duration::from_nanos(picture.format().interval_ns.saturating_mul(number))
            }
            Source::Tone(tone) => tone.format().length_of(tone.period_samples().saturating_mul(number)),
        }
    }

    /// When frame `number` can be had: a picture when it is captured, sound when its last sample is.
    fn ready_at(&self, number: u64) -> MonoTime {
        match self.source {
            Source::Picture(_) => self.begin + self.time_of(number),
            Source::Tone(_) => self.begin + self.time_of(number.saturating_add(1)),
        }
    }

    /// Count of the frame that is the next to be captured at `now`.
    fn due_at(&self, begin: MonoTime, now: MonoTime) -> u64 {
        let interval = self.format().interval().as_nanos().max(1);
        u64::try_from(now.since(begin).as_nanos().div_ceil(interval)).unwrap_or(u64::MAX)
    }

    /// Waits until the next frame can be had; false when `deadline` or the bell came first.
    fn wait(&self, deadline: MonoTime) -> Result<bool, DeviceError> {
        let ready_at = self.ready_at(self.number);
        if SystemClock.now() >= ready_at {
            return Ok(true);
        }
        wait(self.wake.as_fd(), &self.wake, ready_at.min(deadline)).map_err(|source| {
            DeviceError::Failed { device: self.name.clone(), doing: "waiting for a frame", source }
        })?;
        Ok(SystemClock.now() >= ready_at)
    }

    /// Whether the dark leaves no time for frame `number`.
    fn is_unexposed(&self, number: u64) -> bool {
        matches!(self.source, Source::Picture(_)) && !number.is_multiple_of(DIM_INTERVALS)
    }

    /// When more frames are due than there are buffers, those that found none are lost.
    fn note_lateness(&mut self) {
        let now = SystemClock.now();
        if self.backlog.is_some() || now < self.ready_at(self.number.saturating_add(self.late_max)) {
            return;
        }
        self.backlog = Some(Backlog { left: self.late_max, then: self.due_at(self.begin, now) });
    }

    /// Goes on with frame `number`, or with what follows the full buffers if it lies behind them.
    fn go_on_with(&mut self, number: u64) {
        let passed = number - self.number;
        self.number = number;
        if let Some(backlog) = &mut self.backlog {
            backlog.left = backlog.left.saturating_sub(passed);
            if backlog.left == 0 {
                self.number = number.max(backlog.then);
                self.backlog = None;
            }
        }
    }

    fn missing(&self) -> DeviceError {
        DeviceError::Missing { device: self.name.clone() }
    }

    fn failed(&self, doing: &'static str) -> DeviceError {
        DeviceError::Failed { device: self.name.clone(), doing, source: rustix::io::Errno::IO.into() }
    }
}

/// Takes its time, and hears no bell.
fn dawdle(length: Duration) {
    let until = SystemClock.now() + length;
    while SystemClock.now() < until {
        let left = Timespec::try_from(until.since(SystemClock.now())).ok();
        // A signal ends the poll, but not the time.
        let _ = rustix::event::poll(&mut [], left.as_ref());
    }
}

/// Never returns, and hears no bell: what a driver does that is stuck in the kernel.
fn hang() -> ! {
    loop {
        // A signal ends the poll, but not the hang.
        let _ = rustix::event::poll(&mut [], None);
    }
}
