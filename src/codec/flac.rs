//! FLAC (RFC 9639) with one block size for the whole stream, so that its header is known before the
//! first sample. Must never lose or change a sample: each block is decoded again (by `claxon`, which
//! shares no code with `flacenc`) and compared; a block that differs is written uncompressed.

use std::fmt;

use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, Frame, StreamInfo};
use flacenc::error::{Verified, Verify};
use flacenc::source::{Fill, FrameBuf};

use super::CodecError;
use crate::media::{AudioFormat, Format, SampleFormat};

/// Samples (per channel) of a block: what `flacenc` takes.
const BLOCK_SAMPLES: std::ops::RangeInclusive<usize> = 32..=32_767;
/// Highest rate that `flacenc` takes, in hertz.
const SAMPLE_RATE_MAX: u32 = 96_000;
/// Channels of a FLAC stream (RFC 9639, section 9.1.3).
const CHANNELS_MAX: u16 = 8;
/// Metadata block header of a STREAMINFO that is the last block (RFC 9639, section 8.1).
const LAST_STREAMINFO: [u8; 4] = [0x80, 0, 0, 34];
/// Bits of a frame that are not samples: header, one byte a channel, checksum (RFC 9639, section 9).
const FRAME_HEADER_BITS_MAX: usize = 8 * (16 + 8 + 2 + 1);

/// Order of the linear predictor for 24 bit samples. A stable predictor of order n has coefficients of
/// a sum below 2ⁿ, so that a residual (25 bits in a side channel) stays within the 32 bits of RFC 9639.
const PREDICTOR_ORDER_S24: usize = 6;

/// Encodes one stream of sound, block by block.
pub struct Encoder {
    settings: Verified<flacenc::config::Encoder>,
    /// Settings that only repeat samples or write them as they are.
    plain: Verified<flacenc::config::Encoder>,
    stream: StreamInfo,
    block: FrameBuf,
    block_samples: usize,
    channels: usize,
    bits: u8,
    codec_private: Vec<u8>,
    /// Memory of the decoder, kept between blocks.
    decoded: Vec<i32>,
    blocks: usize,
    ended: bool,
}

impl Encoder {
    /// An encoder for blocks of `block_samples` (per channel, 32 to 32767).
    ///
    /// # Errors
    /// The format can't be held by FLAC as `flacenc` writes it: 32 bit samples, more than 8 channels,
    /// more than 96 kHz.
    pub fn new(format: AudioFormat, block_samples: usize) -> Result<Self, CodecError> {
        let refused =
            |reason| CodecError::Format { codec: "flac", format: Format::Audio(format).to_string(), reason };
        if format.sample == SampleFormat::S32 {
            return Err(refused("samples are at most 24 bits deep; use pcm"));
        }
        if !(1..=CHANNELS_MAX).contains(&format.channels) {
            return Err(refused("it has 1 to 8 channels; use pcm"));
        }
        if !(1..=SAMPLE_RATE_MAX).contains(&format.sample_rate) {
            return Err(refused("its rate is 1 to 96000 Hz; use pcm"));
        }
        if !BLOCK_SAMPLES.contains(&block_samples) {
            return Err(refused("a block has 32 to 32767 samples"));
        }
        let (channels, bits) = (usize::from(format.channels), format.sample.bits());
        let rate = usize::try_from(format.sample_rate).map_err(library)?;
        let mut stream = StreamInfo::new(rate, channels, usize::from(bits)).map_err(library)?;
        stream.set_block_sizes(block_samples, block_samples).map_err(library)?;
        stream.set_frame_sizes(0, 0).map_err(library)?;
        let mut codec_private = b"fLaC".to_vec();
        codec_private.extend_from_slice(&LAST_STREAMINFO);
        codec_private.extend_from_slice(&written(&stream)?);
        let mut settings = flacenc::config::Encoder::default();
        if format.sample == SampleFormat::S24 {
            settings.subframe_coding.qlpc.lpc_order = PREDICTOR_ORDER_S24;
        }
        let mut plain = flacenc::config::Encoder::default();
        plain.subframe_coding.use_fixed = false;
        plain.subframe_coding.use_lpc = false;
        Ok(Self {
            settings: settings.into_verified().map_err(|(_, error)| library(error))?,
            plain: plain.into_verified().map_err(|(_, error)| library(error))?,
            block: FrameBuf::with_size(channels, block_samples).map_err(library)?,
            stream,
            block_samples,
            channels,
            bits,
            codec_private,
            decoded: Vec::new(),
            blocks: 0,
            ended: false,
        })
    }

    /// The stream's header as Matroska's `CodecPrivate` wants it: `fLaC` and STREAMINFO, in which the
    /// length, the checksum and the frame sizes are unknown (0).
    pub fn codec_private(&self) -> &[u8] {
        &self.codec_private
    }

    /// The body of STREAMINFO (RFC 9639, section 8.2): [`Encoder::codec_private`] without what heads it.
    pub fn stream_info(&self) -> [u8; 34] {
        *self.codec_private.last_chunk().expect("the header ends with it")
    }

    /// The next block as a FLAC frame. Only the last block of a stream may be shorter than
    /// `block_samples` (RFC 9639, section 8.2; it may then have as little as one sample).
    ///
    /// # Errors
    /// No sample, part of a sample time or more than a block; a sample outside of the format's
    /// depth; a block after a short one. The stream is unharmed by what was refused.
    pub fn encode(&mut self, interleaved: &[i32]) -> Result<Vec<u8>, CodecError> {
        if self.ended {
            return Err(CodecError::Ended { codec: "flac" });
        }
        let wanted = self.block_samples * self.channels;
        let found = interleaved.len();
        if found == 0 || found > wanted || !found.is_multiple_of(self.channels) {
            return Err(CodecError::Length { codec: "flac", found, wanted, unit: "samples" });
        }
        let limit = 1i32 << (self.bits - 1);
        if let Some(&sample) = interleaved.iter().find(|sample| !(-limit..limit).contains(*sample)) {
            return Err(CodecError::Range { codec: "flac", sample, bits: self.bits });
        }
        self.block.fill_interleaved(interleaved).map_err(library)?;
        let bytes = match self.compressed(interleaved)? {
            Some(bytes) => bytes,
            None => written(&self.frame(&self.plain)?)?,
        };
        self.blocks += 1;
        self.ended = found < wanted;
        Ok(bytes)
    }

    /// The block compressed, unless it would be larger than uncompressed or not be the same.
    /// `flacenc` 0.5.1 makes frames of hundreds of megabytes of a block that goes from loud to silent
    /// (flacenc-rs issues 246 and 256), so the size is asked before the frame is written.
    fn compressed(&mut self, interleaved: &[i32]) -> Result<Option<Vec<u8>>, CodecError> {
        let frame = self.frame(&self.settings)?;
        if frame.count_bits() > FRAME_HEADER_BITS_MAX + interleaved.len() * usize::from(self.bits) {
            return Ok(None);
        }
        let bytes = written(&frame)?;
        let mut reader = claxon::frame::FrameReader::new(std::io::Cursor::new(&bytes));
        let Ok(Some(block)) = reader.read_next_or_eof(std::mem::take(&mut self.decoded)) else {
            return Ok(None);
        };
        let mut times = interleaved.chunks_exact(self.channels).zip(0..);
        let same = block.duration() as usize * self.channels == interleaved.len()
            && times.all(|(time, at)| {
                time.iter().zip(0..).all(|(sample, channel)| *sample == block.sample(channel, at))
            });
        self.decoded = block.into_buffer();
        Ok(same.then_some(bytes))
    }

    fn frame(&self, how: &Verified<flacenc::config::Encoder>) -> Result<Frame, CodecError> {
        flacenc::encode_fixed_size_frame(how, &self.block, self.blocks, &self.stream).map_err(library)
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("block_samples", &self.block_samples)
            .field("channels", &self.channels)
            .field("bits", &self.bits)
            .field("blocks", &self.blocks)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

fn written(part: &impl BitRepr) -> Result<Vec<u8>, CodecError> {
    let mut sink = ByteSink::with_capacity(part.count_bits());
    part.write(&mut sink).map_err(library)?;
    Ok(sink.into_inner())
}

/// The library's errors can't leave their thread: what is kept is what they say.
fn library(error: impl fmt::Display) -> CodecError {
    CodecError::Library { codec: "flac", source: error.to_string().into() }
}
