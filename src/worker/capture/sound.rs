//! Sound: samples gathered into blocks, missing ones filled with counted silence, everything after
//! the stop cut to the sample. Block times follow the device's measured clock.

use std::time::Duration;

use super::Context;
use super::pace::Drift;
use super::track::push;
use crate::clock::MonoTime;
use crate::codec::{CodecError, flac, pcm};
use crate::link::Sound;
use crate::matroska::{self, Codec};
use crate::media::{AudioFormat, Packet};
use crate::session::GapReason;

/// Samples (per channel) of a block: 21 ms at 48 kHz.
const BLOCK_SAMPLES: usize = 1024;
/// Stamps that are late by more than this mean that sound is missing.
const GAP: Duration = Duration::from_millis(20);
/// A longer gap isn't filled: the timeline jumps.
const FILL_MAX: Duration = Duration::from_secs(60);
/// How much of a stamp's deviation the clock takes on.
const FOLLOW: f64 = 0.05;

pub(super) struct Sounds {
    format: AudioFormat,
    revision: u32,
    encoder: Encoder,
    /// The last full block: a stop that is heard of a little late still cuts it.
    held: Block,
    /// The block that isn't full yet.
    block: Block,
    /// When the next sample is due, by the measured clock.
    next: Option<MonoTime>,
    drift: Drift,
}

#[derive(Default)]
struct Block {
    /// Interleaved.
    samples: Vec<i32>,
    /// How many of them (per channel) are filled silence.
    filled: u64,
    start: MonoTime,
}

enum Encoder {
    Flac(Box<flac::Encoder>),
    Pcm,
}

impl Sounds {
    pub(super) fn new(format: AudioFormat, sound: Sound, revision: u32) -> Result<Self, CodecError> {
        let encoder = match sound {
            Sound::Flac => Encoder::Flac(Box::new(flac::Encoder::new(format, BLOCK_SAMPLES)?)),
            Sound::Pcm => Encoder::Pcm,
        };
        Ok(Self {
            format,
            revision,
            encoder,
            held: Block::default(),
            block: Block::default(),
            next: None,
            drift: Drift::default(),
        })
    }

    /// Nothing was taken in yet.
    pub(super) fn is_new(&self) -> bool {
        self.next.is_none()
    }

    /// Samples (per channel) of this length of time.
    pub(super) fn samples_in(&self, length: Duration) -> u64 {
        self.format.samples_in(length)
    }

    pub(super) fn codec(&self) -> Codec {
        let audio = matroska::AudioFormat {
            rate_hz: self.format.sample_rate,
            channels: u8::try_from(self.format.channels).expect("devices with over 255 channels are refused"),
            bits: self.format.sample.bits(),
        };
        match &self.encoder {
            Encoder::Flac(encoder) => {
                let stream_info = encoder.codec_private()[8..].try_into().expect("STREAMINFO has 34 bytes");
                Codec::Flac { audio, stream_info }
            }
            Encoder::Pcm => Codec::Pcm { audio },
        }
    }

    /// Takes samples in, the first of them captured at `timestamp`; true when the stop lies within them.
    pub(super) fn take(
        &mut self,
        context: &Context,
        timestamp: MonoTime,
        samples: &[i32],
        reason: GapReason,
    ) -> bool {
        let channels = usize::from(self.format.channels);
        let count = (samples.len() / channels) as u64;
        let start = self.follow(context, timestamp, count, reason);
        let kept = context.stop.get().map_or(count, |stop| self.kept_until(start, stop, count));
        context.ledger.captured(context.source, start, start + self.format.length_of(kept), kept);
        self.gather(context, start, &samples[..kept as usize * channels], 0);
        let end = start + self.format.length_of(count);
        self.next = Some(end);
        if let Some(ppm) = self.drift.took(count, end, self.format.sample_rate) {
            context.ledger.drifts(context.source, ppm);
        }
        kept < count
    }

    /// Whether a sample begins exactly `length` after another.
    fn falls_on(&self, length: Duration) -> bool {
        (length.as_nanos() * u128::from(self.format.sample_rate)).is_multiple_of(1_000_000_000)
    }

    /// Puts what was gathered into the queue, at the end or before a jump.
    pub(super) fn flush(&mut self, context: &Context) {
        for mut block in [std::mem::take(&mut self.held), std::mem::take(&mut self.block)] {
            self.emit(context, &mut block);
        }
    }

    /// Puts a block into the queue, and empties it.
    fn emit(&mut self, context: &Context, block: &mut Block) {
        if let Some(stop) = context.stop.get() {
            self.cut_after(context, stop, block);
        }
        if block.samples.is_empty() {
            return;
        }
        let samples = (block.samples.len() / usize::from(self.format.channels)) as u64;
        let units = samples - block.filled;
        let end = block.start + self.format.length_of(samples);
        let payload = match &mut self.encoder {
            Encoder::Pcm => Ok(pcm::encode(self.format, &block.samples)),
            Encoder::Flac(encoder) => encoder.encode(&block.samples),
        };
        match payload {
            Ok(payload) => {
                let (source, timestamp, revision) = (context.source, block.start, self.revision);
                push(context, Packet { source, timestamp, end, units, revision, payload });
            }
            Err(error) => {
                tracing::error!(%error, "sound can't be encoded");
                context.ledger.lost(context.source, units);
            }
        }
        block.samples.clear();
        block.filled = 0;
    }

    /// What was gathered before the stop was heard of may reach beyond it.
    fn cut_after(&self, context: &Context, stop: MonoTime, block: &mut Block) {
        let channels = usize::from(self.format.channels);
        let samples = (block.samples.len() / channels) as u64;
        let kept = self.kept_until(block.start, stop, samples);
        if kept < samples {
            block.samples.truncate(kept as usize * channels);
            let filled = block.filled.min(kept);
            context.ledger.retract(context.source, (samples - block.filled) - (kept - filled));
            block.filled = filled;
        }
    }

    /// How many of `count` samples from `start` on are stamped no later than `stop`.
    fn kept_until(&self, start: MonoTime, stop: MonoTime, count: u64) -> u64 {
        if stop < start {
            return 0;
        }
        (self.format.samples_in(stop - start) + u64::from(self.falls_on(stop - start))).min(count)
    }

    /// When the first of `count` samples that are stamped `timestamp` was captured by the measured
    /// clock; fills what is missing before it.
    fn follow(&mut self, context: &Context, timestamp: MonoTime, count: u64, reason: GapReason) -> MonoTime {
        let Some(next) = self.next else { return timestamp };
        let late = timestamp.since(next);
        if late > GAP {
            let missing = self.format.samples_in(late);
            context.gap(next, timestamp, missing, reason);
            self.drift.restart();
            if late <= FILL_MAX {
                self.fill(context, next, missing);
            } else {
                self.fill_block(context, next);
                context.ledger.warn(format!(
                    "{} was silent for {:.1} s: that is not filled, the sound goes on after it",
                    context.settings.device.label,
                    late.as_secs_f64()
                ));
            }
            return timestamp;
        }
        // A device that hands over more than its rate must not turn the time of blocks around.
        let back_max = self.format.length_of(count.min(BLOCK_SAMPLES as u64)) / 4;
        let back = next.since(timestamp).mul_f64(FOLLOW).min(back_max);
        next + late.mul_f64(FOLLOW) - back
    }

    /// Fills the block that isn't full: only the last of a stream may be short.
    fn fill_block(&mut self, context: &Context, from: MonoTime) {
        let samples = self.block.samples.len() / usize::from(self.format.channels);
        if samples > 0 {
            self.fill(context, from, (BLOCK_SAMPLES - samples) as u64);
        }
    }

    fn fill(&mut self, context: &Context, from: MonoTime, samples: u64) {
        let silence = vec![0; BLOCK_SAMPLES * usize::from(self.format.channels)];
        let mut done = 0;
        while done < samples {
            let now = (samples - done).min(BLOCK_SAMPLES as u64);
            let at = from + self.format.length_of(done);
            self.gather(context, at, &silence[..now as usize * usize::from(self.format.channels)], now);
            done += now;
        }
        context.ledger.filled(context.source, samples);
    }

    fn gather(&mut self, context: &Context, start: MonoTime, samples: &[i32], filled: u64) {
        let channels = usize::from(self.format.channels);
        let (mut rest, mut at, mut filled) = (samples, start, filled);
        while !rest.is_empty() {
            if self.block.samples.is_empty() {
                self.block.start = at;
            }
            let room = BLOCK_SAMPLES * channels - self.block.samples.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            let count = (now.len() / channels) as u64;
            self.block.samples.extend_from_slice(now);
            let silent = filled.min(count);
            self.block.filled += silent;
            filled -= silent;
            at = at + self.format.length_of(count);
            rest = later;
            if self.block.samples.len() == BLOCK_SAMPLES * channels {
                let full = std::mem::take(&mut self.block);
                let mut oldest = std::mem::replace(&mut self.held, full);
                self.emit(context, &mut oldest);
                self.block = oldest;
            }
        }
    }
}
