//! What is known when a recording starts, and the bytes a file begins with.

use super::ebml::{self, id, put, put_float, put_uint, put_void};
use super::error::Error;
use super::silent::{self, Spot};
use super::tags::{self, SOURCE_ID, Tag, TagTarget};
use super::units::{HEADER_ALIGN_BYTES, TICK_NS, TrackNumber, WallTime};
use std::num::NonZeroU64;

/// Bytes kept free at the start of the Segment for the SeekHead.
pub(super) const SEEK_ROOM_BYTES: usize = 128;
/// Bytes kept free in Info for the Duration element: a 3-byte head and a float.
pub(super) const DURATION_ROOM_BYTES: usize = 11;
/// What MuxingApp says; the writing application is the caller's.
const MUXING_APP: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// What a file says before its first packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// What a person sees as the recording's name.
    pub title: String,
    /// The program that records, with its version.
    pub writing_app: String,
    /// Wall clock at the segment's time zero (DateUTC).
    pub wall_start: WallTime,
    /// 128 random bits that name this file.
    pub segment_uuid: [u8; 16],
    /// The tracks, 1 to 126 of them.
    pub tracks: Vec<Track>,
    /// Tags that are known at the start, such as the session's id: a file that is never finished has them
    /// too. Each track's source id is added to them.
    pub tags: Vec<Tag>,
}

/// One source's stream in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Its number in this file.
    pub number: TrackNumber,
    /// A number that stays with this track when files are joined or remuxed: random, not 0.
    pub uid: NonZeroU64,
    /// The source's name, as a person sees it.
    pub name: String,
    /// The source's id, written as the track's tag [`SOURCE_ID`]; empty for none.
    pub source_id: String,
    /// How its packets are encoded.
    pub codec: Codec,
}

/// How a track's packets are encoded (RFC 9559 §5.1.4.1.21 and the codec mappings registry).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Codec {
    /// `V_MJPEG`: one JPEG image a packet, every packet a keyframe, BT.601 in full range as JFIF has it.
    Mjpeg {
        /// Width in pixels, not 0.
        width: u32,
        /// Height in pixels, not 0.
        height: u32,
        /// Nanoseconds from each frame to the next, only where they are constant (DefaultDuration).
        frame_ns: Option<NonZeroU64>,
    },
    /// `A_FLAC`: one FLAC frame a packet.
    Flac {
        /// The format, which `stream_info` has to repeat.
        audio: AudioFormat,
        /// The body of the STREAMINFO metadata block (RFC 9639 §8.2), without its block header.
        stream_info: [u8; 34],
    },
    /// `A_PCM/INT/LIT`: interleaved signed little-endian samples, whole sample groups a packet (8 bits:
    /// unsigned).
    Pcm {
        /// The format.
        audio: AudioFormat,
    },
    /// Any other codec of a file that is read, by its CodecID. No file is written with it.
    Other(String),
}

/// The shape of sampled sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioFormat {
    /// Sample groups a second, not 0.
    pub rate_hz: u32,
    /// Channels in a sample group, not 0.
    pub channels: u8,
    /// Bits of one channel's sample, 8 to 32.
    pub bits: u8,
}

impl Codec {
    /// Whether packets are pictures.
    pub fn is_video(&self) -> bool {
        matches!(self, Self::Mjpeg { .. }) || matches!(self, Self::Other(id) if id.starts_with("V_"))
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Mjpeg { width: 0, .. } | Self::Mjpeg { height: 0, .. } => Err("its picture has no pixels"),
            Self::Flac { audio, stream_info } if stream_info_format(stream_info) != Some(*audio) => {
                Err("its FLAC stream info tells another format")
            }
            Self::Pcm { audio } if !matches!(audio.bits, 8 | 16 | 24 | 32) => {
                Err("PCM has 8, 16, 24 or 32 bits")
            }
            Self::Flac { audio, .. } | Self::Pcm { audio } if audio.rate_hz == 0 || audio.channels == 0 => {
                Err("its sound has no channels or no rate")
            }
            Self::Other(_) => Err("its codec can be read but not written"),
            Self::Mjpeg { .. } | Self::Flac { .. } | Self::Pcm { .. } => Ok(()),
        }
    }
}

/// The format that a STREAMINFO body tells: 20 bits of rate, 3 of channels − 1, 5 of bits − 1 at byte 10.
pub(super) fn stream_info_format(body: &[u8; 34]) -> Option<AudioFormat> {
    let packed = u64::from_be_bytes(body[10..18].try_into().expect("8 bytes"));
    let part = |shift: u32, bits: u32| (packed >> shift) & ((1 << bits) - 1);
    Some(AudioFormat {
        rate_hz: u32::try_from(part(44, 20)).ok().filter(|rate| *rate > 0)?,
        channels: u8::try_from(part(41, 3) + 1).ok()?,
        bits: u8::try_from(part(36, 5) + 1).ok()?,
    })
}

/// A file's header as bytes, and where its parts are.
pub(super) struct Encoded {
    pub bytes: Vec<u8>,
    pub layout: Layout,
    /// What is about one track.
    pub spots: Vec<Spot>,
}

/// Where the parts of a header are that the finish writes over or points at; offsets from the start of the
/// file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The first byte of the Segment's content; the 8 before it are its size, and its first 128 the
    /// SeekHead's room.
    pub segment: u64,
    pub info: u64,
    pub tracks: u64,
    /// The Tags element of the header, if there is one.
    pub tags: Option<u64>,
    /// The 11 bytes for the Duration element.
    pub duration: u64,
}

/// Encodes a header; every offset in it follows from `header` alone.
pub(super) fn encode(header: &Header) -> Result<Encoded, Error> {
    check(header)?;
    let mut bytes = vec![];
    put(&mut bytes, id::EBML, &ebml_header());
    ebml::put_id(&mut bytes, id::SEGMENT);
    bytes.extend_from_slice(&ebml::SIZE_UNKNOWN);
    let segment = bytes.len() as u64;
    put_void(&mut bytes, SEEK_ROOM_BYTES);
    let info = bytes.len() as u64;
    put(&mut bytes, id::INFO, &info_body(header));
    let duration = bytes.len() as u64 - DURATION_ROOM_BYTES as u64;
    let tracks = bytes.len() as u64;
    let body = header.tracks.iter().fold(vec![], |mut body, track| {
        put(&mut body, id::TRACK_ENTRY, &track_entry(track));
        body
    });
    put(&mut bytes, id::TRACKS, &body);
    let tags_at = bytes.len() as u64;
    let mut spots = silent::entries(&body, tags_at - body.len() as u64);
    let tags = tags::encode(&all_tags(header), &header.tracks)?;
    bytes.extend_from_slice(&tags);
    if let Some(tag) = ebml::children(&tags).places().next() {
        let tag = tag.expect("just encoded");
        spots.extend(silent::tags(tag.body, tags_at + tag.head.length, &header.tracks));
    }
    let end = bytes.len();
    // A Void takes 2 bytes at least, so that one byte short of a page means one page more.
    let padded = (end as u64 + 2).next_multiple_of(HEADER_ALIGN_BYTES);
    put_void(&mut bytes, usize::try_from(padded).expect("tags and tracks are limited") - end);
    let tags = (!tags.is_empty()).then_some(tags_at);
    Ok(Encoded { bytes, layout: Layout { segment, info, tracks, tags, duration }, spots })
}

fn check(header: &Header) -> Result<(), Error> {
    if header.tracks.is_empty() {
        return Err(Error::NoTracks);
    }
    for (at, track) in header.tracks.iter().enumerate() {
        let invalid = |reason| Error::InvalidTrack { track: track.number, reason };
        let others = &header.tracks[..at];
        if others.iter().any(|other| other.number == track.number || other.uid == track.uid) {
            return Err(invalid("its number or its UID is taken by another track"));
        }
        if track.name.len() > 1024 {
            return Err(invalid("its name is longer than 1024 bytes"));
        }
        track.codec.check().map_err(invalid)?;
    }
    let bytes = header.title.len().max(header.writing_app.len()) as u64;
    if bytes > 1024 {
        return Err(Error::TooLarge { element: "title or writing application", bytes, max: 1024 });
    }
    Ok(())
}

fn all_tags(header: &Header) -> Vec<Tag> {
    let sources = header.tracks.iter().filter(|track| !track.source_id.is_empty()).map(|track| Tag {
        target: TagTarget::Track(track.number),
        name: SOURCE_ID.to_owned(),
        value: track.source_id.clone(),
    });
    header.tags.iter().cloned().chain(sources).collect()
}

fn ebml_header() -> Vec<u8> {
    let mut body = vec![];
    put_uint(&mut body, id::EBML_VERSION, 1);
    put_uint(&mut body, id::EBML_READ_VERSION, 1);
    put_uint(&mut body, id::EBML_MAX_ID_LENGTH, 4);
    put_uint(&mut body, id::EBML_MAX_SIZE_LENGTH, 8);
    put(&mut body, id::DOC_TYPE, b"matroska");
    put_uint(&mut body, id::DOC_TYPE_VERSION, 4);
    put_uint(&mut body, id::DOC_TYPE_READ_VERSION, 2);
    body
}

fn info_body(header: &Header) -> Vec<u8> {
    let mut body = vec![];
    put_uint(&mut body, id::TIMESTAMP_SCALE, TICK_NS);
    put(&mut body, id::SEGMENT_UUID, &header.segment_uuid);
    put(&mut body, id::DATE_UTC, &header.wall_start.date().to_be_bytes());
    put(&mut body, id::TITLE, header.title.as_bytes());
    put(&mut body, id::MUXING_APP, MUXING_APP.as_bytes());
    put(&mut body, id::WRITING_APP, header.writing_app.as_bytes());
    // A Duration of zero is not allowed, so that until there is one its place is a Void, last in the element.
    put_void(&mut body, DURATION_ROOM_BYTES);
    body
}

/// The Duration element, as long as the Void it is written over.
pub(super) fn duration_element(duration_ns: u64) -> Vec<u8> {
    let mut element = vec![];
    // Exact for any duration below 2^53 ns, 104 days.
    #[expect(clippy::cast_precision_loss, reason = "the element is a float by definition")]
    put_float(&mut element, id::DURATION, duration_ns as f64 / TICK_NS as f64);
    debug_assert_eq!(element.len(), DURATION_ROOM_BYTES, "a 2-byte id, a 1-byte size and a float");
    element
}

fn track_entry(track: &Track) -> Vec<u8> {
    let mut body = vec![];
    put_uint(&mut body, id::TRACK_NUMBER, u64::from(track.number.get()));
    put_uint(&mut body, id::TRACK_UID, track.uid.get());
    put_uint(&mut body, id::TRACK_TYPE, if track.codec.is_video() { 1 } else { 2 });
    put_uint(&mut body, id::FLAG_LACING, 0);
    put(&mut body, id::NAME, track.name.as_bytes());
    put(&mut body, id::LANGUAGE, b"und");
    match &track.codec {
        Codec::Mjpeg { width, height, frame_ns } => {
            put(&mut body, id::CODEC_ID, b"V_MJPEG");
            if let Some(frame_ns) = frame_ns {
                put_uint(&mut body, id::DEFAULT_DURATION, frame_ns.get());
            }
            put(&mut body, id::VIDEO, &video(*width, *height));
        }
        Codec::Flac { audio, stream_info } => {
            put(&mut body, id::CODEC_ID, b"A_FLAC");
            // The block header says: the last one, of type 0, with 34 bytes (RFC 9639 §8.1).
            let private = [&b"fLaC\x80\0\0\x22"[..], stream_info].concat();
            put(&mut body, id::CODEC_PRIVATE, &private);
            put(&mut body, id::AUDIO, &sound(*audio));
        }
        Codec::Pcm { audio } => {
            put(&mut body, id::CODEC_ID, b"A_PCM/INT/LIT");
            put(&mut body, id::AUDIO, &sound(*audio));
        }
        Codec::Other(_) => unreachable!("checked before anything is encoded"),
    }
    body
}

fn video(width: u32, height: u32) -> Vec<u8> {
    let mut colour = vec![];
    put_uint(&mut colour, id::MATRIX_COEFFICIENTS, 5);
    put_uint(&mut colour, id::RANGE, 2);
    let mut body = vec![];
    put_uint(&mut body, id::FLAG_INTERLACED, 2);
    put_uint(&mut body, id::PIXEL_WIDTH, u64::from(width));
    put_uint(&mut body, id::PIXEL_HEIGHT, u64::from(height));
    put(&mut body, id::COLOUR, &colour);
    body
}

fn sound(audio: AudioFormat) -> Vec<u8> {
    let mut body = vec![];
    put_float(&mut body, id::SAMPLING_FREQUENCY, f64::from(audio.rate_hz));
    put_uint(&mut body, id::CHANNELS, u64::from(audio.channels));
    put_uint(&mut body, id::BIT_DEPTH, u64::from(audio.bits));
    body
}
