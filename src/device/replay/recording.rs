//! Recordings of ours: the first track of the kind that is wanted, its frames at their recorded times.

use std::fs::File;
use std::io::Cursor;
use std::time::Duration;

use super::medium::{Label, Medium, Span};
use crate::codec::jpeg;
use crate::device::DeviceError;
use crate::matroska::{self, Codec, Next, Reader, Timestamp, TrackNumber};
use crate::media::{AudioFormat, Body, Format, PixelFormat, SampleFormat, VideoFormat};
use crate::session::device::MediaType;

/// Time between two pictures where the file tells none: of the last picture, and of the only one.
const INTERVAL: Duration = Duration::from_nanos(33_333_333);
/// Samples (per channel) of the longest FLAC block (RFC 9639, section 9.1.1).
const BLOCK_SAMPLES_MAX: u32 = 65_536;

pub(super) struct Recording {
    label: Label,
    reader: Reader<File>,
    track: TrackNumber,
    content: Content,
    format: Format,
    /// Time of the track's first frame.
    first: Option<Timestamp>,
    packet: Vec<u8>,
    samples: Vec<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Pictures,
    Flac,
    Pcm { bits: u8 },
}

impl Recording {
    pub(super) fn open(label: Label, file: File, media: MediaType) -> Result<Self, DeviceError> {
        let reader = Reader::open(file).map_err(|error| problem(&label, error))?;
        let is_wanted = |track: &&matroska::Track| track.codec.is_video() == (media == MediaType::Video);
        let Some(track) = reader.tracks().iter().find(is_wanted) else {
            return Err(label.malformed(format!("the recording has no {media} track")));
        };
        let (content, format) = content(&label, &track.codec)?;
        let (track, packet, samples) = (track.number, Vec::new(), Vec::new());
        let mut medium = Self { label, reader, track, content, format, first: None, packet, samples };
        medium.learn()?;
        Ok(medium)
    }

    /// Completes the format by the first two frames: what the header leaves open.
    fn learn(&mut self) -> Result<(), DeviceError> {
        let Some(first) = self.read()? else {
            return Err(self.label.malformed("the recording's track holds no frame"));
        };
        self.first = Some(first);
        match &mut self.format {
            Format::Video(_) => {
                let second = self.read()?;
                let distance = second.and_then(|second| u64::try_from(second.ns() - first.ns()).ok());
                if let (Format::Video(video), Some(ns @ 1..)) = (&mut self.format, distance)
                    && video.interval_ns == 0
                {
                    video.interval_ns = ns;
                }
            }
            Format::Audio(audio) => {
                let samples = self.samples.len() / usize::from(audio.channels);
                audio.period_samples = u32::try_from(samples).unwrap_or(BLOCK_SAMPLES_MAX);
            }
        }
        if let Format::Video(video) = &mut self.format
            && video.interval_ns == 0
        {
            video.interval_ns = INTERVAL.as_nanos() as u64;
        }
        self.reader.rewind();
        Ok(())
    }

    /// Reads the track's next frame; `None` at the end of what is whole.
    fn read(&mut self) -> Result<Option<Timestamp>, DeviceError> {
        let block = loop {
            match self.reader.next_block().map_err(|error| problem(&self.label, error))? {
                Next::Block(block) if block.track == self.track => break block,
                Next::Block(_) => {}
                Next::End { .. } => return Ok(None),
                Next::Torn { .. } => {
                    if self.reader.skip_damage().map_err(|error| problem(&self.label, error))?.is_none() {
                        return Ok(None);
                    }
                }
            }
        };
        self.reader.payload(&block, &mut self.packet).map_err(|error| problem(&self.label, error))?;
        self.unpack()?;
        Ok(Some(block.timestamp))
    }

    /// Makes samples of a packet of sound, and looks whether a picture has the format's size.
    fn unpack(&mut self) -> Result<(), DeviceError> {
        match (self.content, self.format) {
            (Content::Flac, Format::Audio(audio)) => self.decode_flac(audio),
            (Content::Pcm { bits }, _) => {
                self.samples.clear();
                let bytes = usize::from(bits / 8);
                // Into the upper bytes and down again, which brings the sign along.
                let sample = |bytes: &[u8]| {
                    let mut wide = [0; 4];
                    wide[4 - bytes.len()..].copy_from_slice(bytes);
                    i32::from_le_bytes(wide) >> (32 - u32::from(bits))
                };
                self.samples.extend(self.packet.chunks_exact(bytes).map(sample));
                Ok(())
            }
            (_, Format::Video(video)) => {
                if jpeg::dimensions(&self.packet) == Some((video.width, video.height)) {
                    Ok(())
                } else {
                    Err(self.label.malformed("a picture has another size than its track"))
                }
            }
            (_, Format::Audio(_)) => Ok(()),
        }
    }

    fn decode_flac(&mut self, format: AudioFormat) -> Result<(), DeviceError> {
        let mut frames = claxon::frame::FrameReader::new(Cursor::new(&self.packet));
        let block = match frames.read_next_or_eof(Vec::new()) {
            Ok(Some(block)) if block.channels() == u32::from(format.channels) => block,
            Ok(_) => return Err(self.label.malformed("a FLAC frame does not fit its track")),
            Err(error) => return Err(self.label.malformed(format!("a FLAC frame is damaged ({error})"))),
        };
        self.samples.clear();
        for at in 0..block.duration() {
            self.samples.extend((0..block.channels()).map(|channel| block.sample(channel, at)));
        }
        Ok(())
    }
}

impl Medium for Recording {
    fn format(&self) -> Format {
        self.format
    }

    fn advance(&mut self) -> Result<Option<Span>, DeviceError> {
        let Some(timestamp) = self.read()? else { return Ok(None) };
        let first = self.first.unwrap_or(timestamp);
        let at = Duration::from_nanos(u64::try_from(timestamp.ns() - first.ns()).unwrap_or(0));
        let length = match self.format {
            Format::Video(video) => Duration::from_nanos(video.interval_ns),
            Format::Audio(audio) => {
                audio.length_of((self.samples.len() / usize::from(audio.channels)) as u64)
            }
        };
        Ok(Some(Span { at, length }))
    }

    fn body(&self) -> Body<'_> {
        match self.content {
            Content::Pictures => Body::Picture { bytes: &self.packet, corrupt: false },
            Content::Flac | Content::Pcm { .. } => Body::Sound(&self.samples),
        }
    }

    fn rewind(&mut self) -> Result<(), DeviceError> {
        self.reader.rewind();
        Ok(())
    }
}

/// What a track holds and its format, as far as the header tells it.
fn content(label: &Label, codec: &Codec) -> Result<(Content, Format), DeviceError> {
    Ok(match codec {
        Codec::Mjpeg { width, height, frame_ns } => {
            let interval_ns = frame_ns.map_or(0, std::num::NonZeroU64::get);
            let (pixel, width, height) = (PixelFormat::Mjpeg, *width, *height);
            let format = VideoFormat { pixel, width, height, stride: 0, interval_ns };
            (Content::Pictures, Format::Video(format))
        }
        Codec::Flac { audio, .. } => (Content::Flac, Format::Audio(sound(label, *audio)?)),
        Codec::Pcm { audio } => (Content::Pcm { bits: audio.bits }, Format::Audio(sound(label, *audio)?)),
        other => return Err(label.malformed(format!("a track of {other:?} can't be played"))),
    })
}

fn sound(label: &Label, audio: matroska::AudioFormat) -> Result<AudioFormat, DeviceError> {
    let sample = match audio.bits {
        16 => SampleFormat::S16,
        24 => SampleFormat::S24,
        32 => SampleFormat::S32,
        bits => return Err(label.malformed(format!("sound of {bits} bits is not played"))),
    };
    if audio.rate_hz == 0 || audio.channels == 0 {
        return Err(label.malformed("its sound has no rate or no channels"));
    }
    let (sample_rate, channels) = (audio.rate_hz, u16::from(audio.channels));
    Ok(AudioFormat { sample, sample_rate, channels, period_samples: 1 })
}

fn problem(label: &Label, error: matroska::Error) -> DeviceError {
    match error {
        matroska::Error::Read { source, .. } => label.failed("reading", source),
        error => label.malformed(error.to_string()),
    }
}
