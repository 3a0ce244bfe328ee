//! What a track holds, counted as its blocks go by.

use super::header::{Codec, Track};
use super::units::{Timestamp, TrackNumber};

const NS_PER_S: u64 = 1_000_000_000;

/// One track's blocks, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Which track.
    pub track: TrackNumber,
    /// How many blocks.
    pub blocks: u64,
    /// Bytes of their payloads together.
    pub payload_bytes: u64,
    /// The earliest timestamp, `None` without blocks.
    pub first: Option<Timestamp>,
    /// The latest timestamp, `None` without blocks.
    pub last: Option<Timestamp>,
    /// Payload bytes of the block with the latest timestamp.
    last_bytes: u64,
    length: Length,
}

/// How a block's length in time follows from what is known of its track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Ns(u64),
    /// As far apart as the blocks are on average.
    Average,
    PerByte {
        bytes_per_s: u64,
    },
}

impl Tally {
    /// A track without blocks yet.
    pub fn new(track: &Track) -> Self {
        let length = match &track.codec {
            Codec::Mjpeg { frame_ns: Some(frame_ns), .. } => Length::Ns(frame_ns.get()),
            Codec::Flac { audio, stream_info } => {
                // The largest block size, in sample groups, is at byte 2 of STREAMINFO (RFC 9639 §8.2).
                let samples = u64::from(u16::from_be_bytes([stream_info[2], stream_info[3]]));
                Length::Ns(samples * NS_PER_S / u64::from(audio.rate_hz.max(1)))
            }
            Codec::Pcm { audio } => {
                let group_bytes = u64::from(audio.channels) * u64::from(audio.bits.div_ceil(8));
                Length::PerByte { bytes_per_s: (group_bytes * u64::from(audio.rate_hz)).max(1) }
            }
            Codec::Mjpeg { frame_ns: None, .. } | Codec::Other(_) => Length::Average,
        };
        let none = (None, None);
        Self {
            track: track.number,
            blocks: 0,
            payload_bytes: 0,
            first: none.0,
            last: none.1,
            last_bytes: 0,
            length,
        }
    }

    /// Counts one block.
    pub fn add(&mut self, timestamp: Timestamp, payload_bytes: u64) {
        self.blocks += 1;
        self.payload_bytes += payload_bytes;
        self.first = Some(self.first.map_or(timestamp, |first| first.min(timestamp)));
        if self.last.is_none_or(|last| timestamp >= last) {
            self.last = Some(timestamp);
            self.last_bytes = payload_bytes;
        }
    }

    /// When the last block is over, in nanoseconds since time zero; 0 without blocks. For pictures it is an
    /// estimate.
    pub fn end_ns(&self) -> u64 {
        let (Some(first), Some(last)) = (self.first, self.last) else { return 0 };
        let length_ns = match self.length {
            Length::Ns(ns) => ns,
            Length::Average => {
                let span_ns = u64::try_from(last.ns().saturating_sub(first.ns())).unwrap_or(0);
                span_ns / (self.blocks - 1).max(1)
            }
            Length::PerByte { bytes_per_s } => {
                u64::try_from(u128::from(self.last_bytes) * u128::from(NS_PER_S) / u128::from(bytes_per_s))
                    .unwrap_or(u64::MAX)
            }
        };
        u64::try_from(last.ns()).unwrap_or(0).saturating_add(length_ns)
    }
}

/// When the last block of all tracks is over, in nanoseconds since time zero.
pub(super) fn end_ns(tallies: &[Tally]) -> u64 {
    tallies.iter().map(Tally::end_ns).max().unwrap_or(0)
}
