//! One source's track: pictures or sound, encoded and put into the queue.

use std::time::Duration;

use super::Context;
use super::arrivals::Arrivals;
use super::listening::Listening;
use super::pace::Pace;
use super::picture::Pictures;
use super::sound::Sounds;
use crate::clock::{Clock, MonoTime, SystemClock};
use crate::codec::jpeg;
use crate::device::{Device, DeviceError};
use crate::matroska::Codec;
use crate::media::{Body, Format, Frame, Packet, PixelFormat, Pushed, VideoFormat};
use crate::session::GapReason;
use crate::telemetry::chain;

use super::super::event::Event;

/// What a source's frames become.
pub(super) struct Track {
    format: Format,
    codec: Codec,
    /// Which of the source's encodings that is.
    revision: u32,
    kind: Kind,
    arrivals: Arrivals,
    last_timestamp: Option<MonoTime>,
    last_sequence: Option<u32>,
    pace: Pace,
    listening: Listening,
    reopened: bool,
    /// The device is gone, until it is opened anew.
    lost: bool,
    /// When the last frame ended.
    end: Option<MonoTime>,
}

enum Kind {
    Pictures(Pictures),
    Sounds(Sounds),
}

impl Kind {
    /// Why something is missing while the device delivers.
    fn usual_gap(&self) -> GapReason {
        match self {
            Self::Pictures(_) => GapReason::Sequence,
            Self::Sounds(_) => GapReason::Overrun,
        }
    }
}

impl Track {
    /// A track for what `device` delivers.
    pub(super) fn new(context: &Context, device: &dyn Device) -> Result<Self, DeviceError> {
        let format = device.format();
        let (kind, codec) = encoding(context, format, 0)?;
        let arrivals = Arrivals::new(format.interval(), context.stall_after);
        Ok(Self {
            format,
            codec,
            revision: 0,
            kind,
            arrivals,
            last_timestamp: None,
            last_sequence: None,
            pace: Pace::default(),
            listening: Listening::new(bits(format)),
            reopened: false,
            lost: false,
            end: None,
        })
    }

    /// The device was opened anew and delivers another format, which the next file begins with, unless that
    /// makes no difference to a file.
    pub(super) fn change_format(&mut self, context: &Context, format: Format) -> Result<(), DeviceError> {
        let (_, codec) = encoding(context, format, self.revision)?;
        let is_other = codec != self.codec;
        self.flush(context);
        if is_other {
            self.revision = context.ledger.changed(context.source, codec.clone());
        }
        let (kind, codec) = encoding(context, format, self.revision)?;
        (self.format, self.codec, self.kind) = (format, codec, kind);
        (self.pace, self.listening) = (Pace::default(), Listening::new(bits(format)));
        let device = &context.settings.device.label;
        tracing::warn!(%device, %format, "the source has another format");
        context.ledger.warn(format!("{device} has another format since: {format}"));
        Ok(())
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Nominal time between frames.
    pub(super) fn interval(&self) -> Duration {
        self.format.interval()
    }

    /// When its frames came.
    pub(super) fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// Nothing was captured yet.
    pub(super) fn is_empty(&self) -> bool {
        self.last_timestamp.is_none()
    }

    /// Takes one frame in; true when the stop lies within it, so that there is nothing more to take.
    pub(super) fn take(&mut self, context: &Context, frame: &Frame<'_>) -> bool {
        if matches!(&frame.body, Body::Picture { bytes: [], .. } | Body::Sound([])) {
            return false;
        }
        if let Some(format) = self.other_size(frame)
            && let Err(error) = self.change_format(context, format)
        {
            tracing::warn!(error = %chain(&error), "pictures of another size are kept as they are");
        }
        let now = SystemClock.now();
        let missed = self.missed(frame.sequence);
        // A driver whose stamps run backwards must not turn the file's time around.
        let floor = self.last_timestamp.map(|last| last + Duration::from_nanos(1));
        let timestamp = floor.map_or(frame.timestamp, |floor| frame.timestamp.max(floor));
        self.arrivals.came(now);
        let before = self.last_timestamp.replace(timestamp);
        let first = before.is_none();
        let recovers = context.delivers();
        let reason = match (std::mem::take(&mut self.reopened), recovers) {
            (true, _) => GapReason::Lost,
            (false, true) => GapReason::Stalled,
            (false, false) => self.kind.usual_gap(),
        };
        let reached_stop = match (&mut self.kind, &frame.body) {
            (Kind::Pictures(pictures), Body::Picture { bytes, corrupt }) => {
                if missed > 0 || matches!(reason, GapReason::Lost | GapReason::Stalled) {
                    context.gap(before.unwrap_or(timestamp), timestamp, missed, reason);
                }
                pictures.take(context, timestamp, bytes, *corrupt);
                self.watch_pace(context, now);
                false
            }
            (Kind::Sounds(sounds), Body::Sound(samples)) => {
                if let Some(end) = self.end.filter(|_| sounds.is_new()) {
                    context.gap(end, timestamp, sounds.samples_in(timestamp.since(end)), reason);
                }
                context.remark(self.listening.hear(samples, timestamp));
                sounds.take(context, timestamp, samples, reason)
            }
            _ => unreachable!("a device delivers what its format says"),
        };
        self.end = Some(timestamp + self.format.interval());
        if first {
            context.tell(Event::FirstFrame(context.source, timestamp));
        }
        reached_stop
    }

    /// The format of a whole compressed picture that has another size than those before it.
    fn other_size(&self, frame: &Frame<'_>) -> Option<Format> {
        let (Format::Video(format), Body::Picture { bytes, corrupt: false }) = (self.format, &frame.body)
        else {
            return None;
        };
        if format.pixel != PixelFormat::Mjpeg {
            return None;
        }
        let (width, height) = jpeg::dimensions(bytes)?;
        let is_other = (width, height) != (format.width, format.height);
        (is_other && jpeg::length(bytes).is_some()).then_some(Format::Video(VideoFormat {
            width,
            height,
            ..format
        }))
    }

    /// Tells of a camera that gives fewer frames than it should: no failure, since people see it in the dark.
    fn watch_pace(&mut self, context: &Context, now: MonoTime) {
        // Who writes into a pipe promises nothing.
        let promised = context.ledger.stamps_by_driver(context.source);
        let nominal_ns = promised.then(|| self.format.interval().as_secs_f64() * 1e9);
        let Some((is, due)) = self.pace.frame(self.arrivals.observed_ns(), nominal_ns, now) else { return };
        let device = &context.settings.device.label;
        tracing::warn!(%device, rate = format!("{is:.1}"), due = format!("{due:.1}"), "a source is slow");
        context.ledger.warn(format!(
            "{device} delivered about {is:.0} frames a second instead of {due:.0}: more light may help"
        ));
    }

    /// The device is gone.
    pub(super) fn lost(&mut self) {
        self.lost = true;
    }

    /// Whether the device is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// When the last frame ended.
    pub(super) fn end(&self) -> Option<MonoTime> {
        self.end
    }

    /// The device was lost and is back: its count of frames begins anew.
    pub(super) fn reopened(&mut self) {
        self.reopened = true;
        self.lost = false;
        self.last_sequence = None;
    }

    /// Puts into the queue what was taken and not yet put there.
    pub(super) fn flush(&mut self, context: &Context) {
        if let Kind::Sounds(sounds) = &mut self.kind {
            sounds.flush(context);
        }
    }

    /// How many frames the driver counted and never handed over.
    fn missed(&mut self, sequence: Option<u32>) -> u64 {
        let Some(sequence) = sequence else { return 0 };
        let Some(last) = self.last_sequence.replace(sequence) else { return 0 };
        match sequence.wrapping_sub(last) {
            // A count that went back was begun anew.
            step if step == 0 || step > u32::MAX / 2 => 0,
            step => u64::from(step - 1),
        }
    }
}

/// Bits of a sample.
fn bits(format: Format) -> u8 {
    match format {
        Format::Video(_) => 16,
        Format::Audio(audio) => audio.sample.bits(),
    }
}

/// How frames of this format are encoded.
fn encoding(context: &Context, format: Format, revision: u32) -> Result<(Kind, Codec), DeviceError> {
    let refused = |error: &dyn std::error::Error| DeviceError::Format {
        device: context.settings.device.label.clone(),
        wanted: chain(error),
        offered: format.to_string(),
    };
    match format {
        Format::Video(video) => {
            let pictures = Pictures::new(video, context.jpeg_quality, revision);
            let codec = Codec::Mjpeg { width: video.width, height: video.height, frame_ns: None };
            Ok((Kind::Pictures(pictures.map_err(|error| refused(&error))?), codec))
        }
        Format::Audio(audio) => {
            let sounds = Sounds::new(audio, context.sound, revision).map_err(|error| refused(&error))?;
            let codec = sounds.codec();
            Ok((Kind::Sounds(sounds), codec))
        }
    }
}

/// Puts a packet into the queue, or counts what it held as dropped or lost.
pub(super) fn push(context: &Context, packet: Packet) {
    match context.queue.push(packet) {
        Pushed::Taken => {}
        // The session is at its end: it was captured, and came too late for the file.
        Pushed::Closed(packet) => context.ledger.lost(packet.source, packet.units),
        Pushed::Full(packet) => {
            if context.ledger.dropped(packet.source, packet.units) {
                let device = &context.settings.device.label;
                tracing::error!(%device, "the disk is too slow: what this source delivers is being dropped");
                context.ledger.warn(format!(
                    "{device}: some of it was dropped, since the disk was too slow and the memory for it full; \
                     see media.queue_bytes_max"
                ));
            }
        }
    }
}
