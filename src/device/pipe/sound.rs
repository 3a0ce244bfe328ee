//! Sound from a pipe: S16LE, interleaved, handed over as it comes in frames of at most 20 ms.

use super::arrival::ArrivalClock;
use super::inlet::{Arrived, Inlet};
use crate::clock::MonoTime;
use crate::device::{Device, DeviceError};
use crate::media::{AudioFormat, Body, Format, Frame, SampleFormat, TimestampSource};
use crate::session::device::FormatWish;

const SAMPLE_RATES: std::ops::RangeInclusive<u32> = 1_000..=384_000;
const CHANNELS: std::ops::RangeInclusive<u16> = 1..=32;
/// Bytes of a sample.
const WIDTH: usize = 2;

pub(super) struct Sound {
    inlet: Inlet,
    format: AudioFormat,
    clock: ArrivalClock,
    /// Bytes that came and make no whole sample time yet lie at the start.
    buffer: Vec<u8>,
    pending: usize,
    samples: Vec<i32>,
}

impl Sound {
    pub(super) fn open(inlet: Inlet, wish: &FormatWish) -> Result<Self, DeviceError> {
        let (sample_rate, channels) = (wish.sample_rate.unwrap_or(48_000), wish.channels.unwrap_or(1));
        if !SAMPLE_RATES.contains(&sample_rate) || !CHANNELS.contains(&channels) {
            return Err(DeviceError::Format {
                device: inlet.name().to_owned(),
                wanted: format!("{sample_rate} Hz with {channels} channels"),
                offered: "1000 to 384000 Hz with 1 to 32 channels".into(),
            });
        }
        let period_samples = sample_rate / 50;
        let format = AudioFormat { sample: SampleFormat::S16, sample_rate, channels, period_samples };
        let buffer = vec![0; period_samples as usize * usize::from(channels) * WIDTH];
        let clock = ArrivalClock::new(format);
        Ok(Self { inlet, format, clock, buffer, pending: 0, samples: Vec::new() })
    }

    /// Bytes of one sample time.
    fn unit(&self) -> usize {
        usize::from(self.format.channels) * WIDTH
    }
}

impl Device for Sound {
    fn format(&self) -> Format {
        Format::Audio(self.format)
    }

    fn timestamp_source(&self) -> TimestampSource {
        TimestampSource::Arrival
    }

    fn start(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn next(&mut self, deadline: MonoTime) -> Result<Option<Frame<'_>>, DeviceError> {
        let unit = self.unit();
        let arrival = loop {
            match self.inlet.read(&mut self.buffer[self.pending..])? {
                Arrived::Bytes(count, at) => {
                    self.pending += count;
                    if self.pending >= unit {
                        break at;
                    }
                }
                Arrived::Nothing if self.inlet.wait(deadline)? => {}
                Arrived::Nothing => return Ok(None),
                Arrived::End => return Err(self.inlet.ended()),
            }
        };
        let whole = self.pending - self.pending % unit;
        self.samples.clear();
        let pairs = self.buffer[..whole].as_chunks::<WIDTH>().0;
        self.samples.extend(pairs.iter().map(|pair| i32::from(i16::from_le_bytes(*pair))));
        self.buffer.copy_within(whole..self.pending, 0);
        self.pending -= whole;

        let behind = self.inlet.waiting_bytes() / unit as u64;
        let timestamp = self.clock.stamp((whole / unit) as u64, arrival, behind);
        Ok(Some(Frame { timestamp, sequence: None, body: Body::Sound(&self.samples) }))
    }

    fn close(self: Box<Self>) -> Result<(), DeviceError> {
        Ok(())
    }
}
