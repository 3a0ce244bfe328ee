//! The bodies of the elements that head a file, as values.

use super::ebml::{self, Malformed, children, id};
use super::header::{AudioFormat, Codec, DURATION_ROOM_BYTES, Track, stream_info_format};
use super::units::{TrackNumber, WallTime};
use std::num::NonZeroU64;
use std::time::Duration;

/// What a file says about itself (RFC 9559 §5.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What a person sees as the recording's name.
    pub title: String,
    /// What wrote the bytes.
    pub muxing_app: String,
    /// The program that recorded.
    pub writing_app: String,
    /// Wall clock at the segment's time zero.
    pub wall_start: Option<WallTime>,
    /// 128 bits that name this file.
    pub segment_uuid: Option<[u8; 16]>,
    /// Nanoseconds in one tick, not 0: [`TICK_NS`](super::TICK_NS) in our files.
    pub tick_ns: NonZeroU64,
    /// How long the recording is; a file that isn't finished doesn't tell.
    pub duration: Option<Duration>,
}

/// An Info element, and where the room for its Duration starts in its body if it has such a room.
pub(super) fn info(body: &[u8]) -> Result<(Info, Option<u64>), Malformed> {
    let mut info = Info {
        title: String::new(),
        muxing_app: String::new(),
        writing_app: String::new(),
        wall_start: None,
        segment_uuid: None,
        tick_ns: NonZeroU64::new(1_000_000).expect("not zero"),
        duration: None,
    };
    let mut ticks = None;
    let mut last = None;
    for child in children(body) {
        let (id, body) = child?;
        last = Some((id, body.len()));
        match id {
            id::TITLE => info.title = ebml::string(body),
            id::MUXING_APP => info.muxing_app = ebml::string(body),
            id::WRITING_APP => info.writing_app = ebml::string(body),
            id::TIMESTAMP_SCALE => info.tick_ns = NonZeroU64::new(ebml::uint(body)?).ok_or(Malformed)?,
            id::DURATION => ticks = Some(ebml::float(body)?),
            id::DATE_UTC => {
                info.wall_start = body.try_into().ok().map(i64::from_be_bytes).map(WallTime::from_date);
            }
            id::SEGMENT_UUID => info.segment_uuid = body.try_into().ok(),
            _ => {}
        }
    }
    info.duration = ticks.and_then(|ticks| duration(ticks, info.tick_ns));
    let has_room = matches!(last, Some((id::VOID, 9) | (id::DURATION, 8)));
    Ok((info, has_room.then(|| (body.len() - DURATION_ROOM_BYTES) as u64)))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked"
)]
fn duration(ticks: f64, tick_ns: NonZeroU64) -> Option<Duration> {
    let ns = (ticks * tick_ns.get() as f64).round();
    (ns > 0.0 && ns < 1e18).then(|| Duration::from_nanos(ns as u64))
}

/// Why a Tracks element can't be used.
pub(super) enum BadTracks {
    Malformed,
    Because(&'static str),
}

impl From<Malformed> for BadTracks {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The tracks in a Tracks element; source ids are still to be found among the tags.
pub(super) fn tracks(body: &[u8]) -> Result<Vec<Track>, BadTracks> {
    let mut tracks: Vec<Track> = vec![];
    for child in children(body) {
        let (id::TRACK_ENTRY, entry) = child? else { continue };
        let track = track(entry)?;
        if tracks.iter().any(|known| known.number == track.number) {
            return Err(BadTracks::Because("two tracks have the same number"));
        }
        tracks.push(track);
    }
    if tracks.is_empty() {
        return Err(BadTracks::Because("it lists no track"));
    }
    Ok(tracks)
}

/// What a track entry has told so far.
#[derive(Default)]
struct Entry<'a> {
    number: u64,
    uid: u64,
    name: String,
    codec: String,
    private: &'a [u8],
    frame_ns: u64,
    pixels: (u64, u64),
    rate_hz: f64,
    channels: u64,
    bits: u64,
}

/// A TrackEntry without its source id.
pub(super) fn track(body: &[u8]) -> Result<Track, BadTracks> {
    let mut entry = Entry { rate_hz: 8000.0, channels: 1, ..Entry::default() };
    for child in children(body) {
        let (id, body) = child?;
        match id {
            id::TRACK_NUMBER => entry.number = ebml::uint(body)?,
            id::TRACK_UID => entry.uid = ebml::uint(body)?,
            id::NAME => entry.name = ebml::string(body),
            id::CODEC_ID => entry.codec = ebml::string(body),
            id::CODEC_PRIVATE => entry.private = body,
            id::DEFAULT_DURATION => entry.frame_ns = ebml::uint(body)?,
            id::VIDEO | id::AUDIO => media(&mut entry, body)?,
            _ => {}
        }
    }
    let number = u8::try_from(entry.number).ok().and_then(TrackNumber::new);
    Ok(Track {
        number: number.ok_or(BadTracks::Because("a track's number is not 1 to 126"))?,
        uid: NonZeroU64::new(entry.uid).ok_or(BadTracks::Because("a track has no UID"))?,
        codec: codec(&entry),
        name: entry.name,
        source_id: String::new(),
    })
}

fn media(entry: &mut Entry<'_>, body: &[u8]) -> Result<(), Malformed> {
    for child in children(body) {
        match child? {
            (id::PIXEL_WIDTH, body) => entry.pixels.0 = ebml::uint(body)?,
            (id::PIXEL_HEIGHT, body) => entry.pixels.1 = ebml::uint(body)?,
            (id::SAMPLING_FREQUENCY, body) => entry.rate_hz = ebml::float(body)?,
            (id::CHANNELS, body) => entry.channels = ebml::uint(body)?,
            (id::BIT_DEPTH, body) => entry.bits = ebml::uint(body)?,
            _ => {}
        }
    }
    Ok(())
}

/// The codec of an entry; one whose parameters make no sense is `Other`.
fn codec(entry: &Entry<'_>) -> Codec {
    let known = match entry.codec.as_str() {
        "V_MJPEG" => mjpeg(entry),
        "A_FLAC" => flac(entry.private),
        "A_PCM/INT/LIT" => audio(entry).map(|audio| Codec::Pcm { audio }),
        _ => None,
    };
    known.unwrap_or_else(|| Codec::Other(entry.codec.clone()))
}

fn mjpeg(entry: &Entry<'_>) -> Option<Codec> {
    let side = |pixels| u32::try_from(pixels).ok().filter(|pixels| *pixels > 0);
    Some(Codec::Mjpeg {
        width: side(entry.pixels.0)?,
        height: side(entry.pixels.1)?,
        frame_ns: NonZeroU64::new(entry.frame_ns),
    })
}

fn flac(private: &[u8]) -> Option<Codec> {
    // "fLaC", then STREAMINFO with its 4-byte block header; other metadata may follow.
    let block = private.strip_prefix(b"fLaC")?;
    let stream_info: [u8; 34] = block.get(4..38)?.try_into().ok()?;
    let audio = stream_info_format(&stream_info)?;
    // Type 0, whether or not it is marked as the last one.
    matches!(block[0], 0 | 0x80).then_some(Codec::Flac { audio, stream_info })
}

fn audio(entry: &Entry<'_>) -> Option<AudioFormat> {
    let rate = entry.rate_hz;
    let bits = u8::try_from(entry.bits).ok().filter(|bits| matches!(bits, 8 | 16 | 24 | 32))?;
    let channels = u8::try_from(entry.channels).ok().filter(|channels| *channels > 0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked in the same breath")]
    let rate_hz = (1.0..=4e9).contains(&rate).then_some(rate as u32)?;
    Some(AudioFormat { rate_hz, channels, bits })
}
