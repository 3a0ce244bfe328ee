//! A tone of 440 Hz. Sample n depends on n alone, so that a reader can tell what is missing.

use std::f64::consts::TAU;

use crate::device::DeviceError;
use crate::media::{AudioFormat, SampleFormat};
use crate::session::device::DeviceSpec;

const PITCH_HZ: u64 = 440;
const AMPLITUDE: f64 = 0.25;
const SAMPLE_RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;
const CHANNELS: std::ops::RangeInclusive<u16> = 1..=8;

/// The tone in one format.
#[derive(Debug)]
pub(super) struct Tone {
    format: AudioFormat,
    /// The samples of one second, after which the tone repeats.
    second: Vec<i32>,
    samples: Vec<i32>,
}

impl Tone {
    pub(super) fn new(spec: &DeviceSpec) -> Result<Self, DeviceError> {
        let sample_rate = spec.wish.sample_rate.unwrap_or(48_000);
        let channels = spec.wish.channels.unwrap_or(1);
        if !SAMPLE_RATES.contains(&sample_rate) || !CHANNELS.contains(&channels) {
            return Err(DeviceError::Format {
                device: spec.label.clone(),
                wanted: format!("{sample_rate} Hz with {channels} channels"),
                offered: "8000 to 192000 Hz with 1 to 8 channels".into(),
            });
        }
        let rate = u64::from(sample_rate);
        let second = (0..rate).map(|at| {
            let turns = (at * PITCH_HZ % rate) as f64 / rate as f64;
            (AMPLITUDE * f64::from(i16::MAX) * (TAU * turns).sin()).round() as i32
        });
        Ok(Self {
            format: AudioFormat {
                sample: SampleFormat::S16,
                sample_rate,
                channels,
                period_samples: sample_rate / 100,
            },
            second: second.collect(),
            samples: Vec::new(),
        })
    }

    pub(super) fn format(&self) -> AudioFormat {
        self.format
    }

    pub(super) fn period_samples(&self) -> u64 {
        u64::from(self.format.period_samples)
    }

    /// The samples of period `number`, the same on every channel.
    pub(super) fn play(&mut self, number: u64) -> &[i32] {
        let first = self.period_samples().wrapping_mul(number) % u64::from(self.format.sample_rate);
        let tone = self.second.iter().cycle().skip(first as usize);
        self.samples.clear();
        for sample in tone.take(self.format.period_samples as usize) {
            self.samples.extend(std::iter::repeat_n(*sample, usize::from(self.format.channels)));
        }
        &self.samples
    }
}
