//! WAV files: PCM of 16, 24 or 32 bits, played in frames of 20 ms.

use std::fs::File;
use std::io::{BufReader, ErrorKind};

use super::medium::{Label, Medium, Span};
use crate::device::DeviceError;
use crate::media::{AudioFormat, Body, Format, SampleFormat};

pub(super) struct Wav {
    label: Label,
    reader: hound::WavReader<BufReader<File>>,
    format: AudioFormat,
    samples: Vec<i32>,
    /// Samples (per channel) that were read.
    count: u64,
}

impl Wav {
    pub(super) fn open(label: Label, file: File) -> Result<Self, DeviceError> {
        let reader = hound::WavReader::new(BufReader::new(file)).map_err(|error| problem(&label, error))?;
        let spec = reader.spec();
        let sample = match (spec.sample_format, spec.bits_per_sample) {
            (hound::SampleFormat::Int, 16) => SampleFormat::S16,
            (hound::SampleFormat::Int, 24) => SampleFormat::S24,
            (hound::SampleFormat::Int, 32) => SampleFormat::S32,
            (hound::SampleFormat::Int, bits) => {
                return Err(
                    label.malformed(format!("PCM of {bits} bits is not played: convert it to 16 or 24"))
                );
            }
            (hound::SampleFormat::Float, _) => {
                return Err(
                    label.malformed("floating point sound is not played: convert it to 16 or 24 bits")
                );
            }
        };
        let (sample_rate, channels) = (spec.sample_rate, spec.channels);
        if sample_rate == 0 || channels == 0 {
            return Err(label.malformed("it has no rate or no channels"));
        }
        let period_samples = (sample_rate / 50).max(1);
        let format = AudioFormat { sample, sample_rate, channels, period_samples };
        Ok(Self { label, reader, format, samples: Vec::new(), count: 0 })
    }
}

impl Medium for Wav {
    fn format(&self) -> Format {
        Format::Audio(self.format)
    }

    fn advance(&mut self) -> Result<Option<Span>, DeviceError> {
        let channels = usize::from(self.format.channels);
        let wanted = self.format.period_samples as usize * channels;
        self.samples.clear();
        for sample in self.reader.samples::<i32>().take(wanted) {
            match sample {
                Ok(sample) => self.samples.push(sample),
                // The header promises more than the file holds: its writer was stopped.
                Err(hound::Error::IoError(error)) if is_end(&error) => break,
                Err(error) => return Err(problem(&self.label, error)),
            }
        }
        self.samples.truncate(self.samples.len() / channels * channels);
        let count = (self.samples.len() / channels) as u64;
        if count == 0 {
            return Ok(None);
        }
        let at = self.format.length_of(self.count);
        self.count += count;
        let length = self.format.length_of(self.count).saturating_sub(at);
        Ok(Some(Span { at, length }))
    }

    fn body(&self) -> Body<'_> {
        Body::Sound(&self.samples)
    }

    fn rewind(&mut self) -> Result<(), DeviceError> {
        self.count = 0;
        let back = self.reader.seek(0);
        back.map_err(|error| self.label.failed("going back to the begin", error))
    }
}

/// `hound` tells the end of a file by a kind of its own where it knows how many bytes it wants.
fn is_end(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::Other)
}

fn problem(label: &Label, error: hound::Error) -> DeviceError {
    match error {
        hound::Error::IoError(error) if !is_end(&error) => label.failed("reading", error),
        error => label.malformed(format!("it is no WAV file that can be played ({error})")),
    }
}
