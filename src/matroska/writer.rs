//! Turns packets into the bytes to append. The payloads themselves never pass through here.

use super::cues::{Candidate, CueList};
use super::ebml::{self, SUM_BYTES, id};
use super::error::Error;
use super::header::{self, Codec, Header, Layout, Track};
use super::silent::{self, Spot};
use super::tags::Tag;
use super::tail;
use super::tally::{self, Tally};
use super::units::{
    CLUSTER_BYTES_MAX, CLUSTER_SPAN_NS, PACKET_BYTES_MAX, Patch, TICK_NS, Timestamp, TrackNumber,
};
use crc32fast::Hasher;
use std::time::Duration;

/// Bytes of a cluster's head: its id and its size.
const CLUSTER_HEAD_BYTES: u64 = 12;
/// Ticks that a cluster spans at most.
const CLUSTER_SPAN_TICKS: i64 = (CLUSTER_SPAN_NS / TICK_NS).cast_signed();

/// What is to be told of a packet besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its track.
    pub track: TrackNumber,
    /// Its time; not before zero.
    pub timestamp: Timestamp,
    /// Whether it can be decoded without any other: true for MJPEG, FLAC and PCM.
    pub keyframe: bool,
    /// The payload's length, 1 to [`PACKET_BYTES_MAX`] bytes.
    pub payload_bytes: u64,
    /// The payload's CRC-32, that of ISO 3309 as `crc32fast` has it.
    pub payload_crc32: u32,
}

/// What comes before a packet's payload in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Append these, then the payload. At most 64 bytes.
    pub bytes: Vec<u8>,
    /// Where the cluster starts that begins with this packet, if one does.
    pub opened: Option<u64>,
    /// The size and checksum of the cluster that this packet did not fit into any more.
    pub closed: Option<Patch>,
}

/// How a file ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Append these.
    pub tail: Vec<u8>,
    /// Apply these in order, once the whole file is durable: the last cluster's size and checksum, what hides tracks, SeekHead,
    /// Duration, and the Segment's size, which makes the file a finished one.
    pub patches: Vec<Patch>,
    /// The finished file's length.
    pub file_bytes: u64,
    /// What was written, in the order of the header's tracks.
    pub tallies: Vec<Tally>,
}

/// A file that grows, as the bytes appended to it so far determine it.
///
/// The caller appends what it is given, in order and whole, and applies each [`Patch`] when its `after` is
/// durable.
pub struct Writer {
    tracks: Vec<Track>,
    layout: Layout,
    spots: Vec<Spot>,
    /// The file's length: where the next byte goes.
    position: u64,
    cluster: Option<OpenCluster>,
    cues: CueList,
    tallies: Vec<Tally>,
}

struct OpenCluster {
    start: u64,
    ticks: u64,
    /// The checksum of what is in it so far, unless some of it was taken out.
    sum: Option<Hasher>,
}

impl Writer {
    /// How the packets of `track` are encoded.
    pub fn codec(&self, track: TrackNumber) -> Option<&Codec> {
        self.tracks.iter().find(|known| known.number == track).map(|known| &known.codec)
    }

    /// A new file, and the bytes it begins with: a multiple of
    /// [`HEADER_ALIGN_BYTES`](super::HEADER_ALIGN_BYTES).
    ///
    /// # Errors
    /// [`Error::NoTracks`], [`Error::InvalidTrack`], and [`Error::UnknownTrack`] or [`Error::TooLarge`] for
    /// the tags.
    pub fn new(header: &Header) -> Result<(Self, Vec<u8>), Error> {
        let header::Encoded { bytes, layout, spots } = header::encode(header)?;
        let writer = Self {
            tracks: header.tracks.clone(),
            layout,
            spots,
            position: bytes.len() as u64,
            cluster: None,
            cues: CueList::default(),
            tallies: header.tracks.iter().map(Tally::new).collect(),
        };
        Ok((writer, bytes))
    }

    /// Takes a packet: returns what to append in front of its payload. After an error nothing has changed.
    ///
    /// # Errors
    /// [`Error::UnknownTrack`], [`Error::PacketSize`], [`Error::BeforeZero`].
    pub fn packet(&mut self, packet: Packet) -> Result<Prefix, Error> {
        let Packet { track, timestamp, keyframe, payload_bytes, payload_crc32 } = packet;
        let at = self
            .tracks
            .iter()
            .position(|known| known.number == track)
            .ok_or(Error::UnknownTrack { track })?;
        if !(1..=PACKET_BYTES_MAX).contains(&payload_bytes) {
            return Err(Error::PacketSize { track, payload_bytes, max: PACKET_BYTES_MAX });
        }
        let ticks = timestamp.ticks().ok_or(Error::BeforeZero { track, timestamp })?;

        let mut prefix = Prefix { bytes: Vec::with_capacity(64), opened: None, closed: None };
        let cluster_ticks = match &self.cluster {
            Some(open) if self.fits(open, ticks, payload_bytes) => open.ticks,
            _ => {
                prefix.closed = self.close();
                prefix.opened = Some(self.position);
                open_cluster(&mut prefix.bytes, ticks);
                self.cluster = Some(OpenCluster { start: self.position, ticks, sum: Some(Hasher::new()) });
                ticks
            }
        };
        let block_at = self.position + prefix.bytes.len() as u64;
        let relative =
            relative(ticks, cluster_ticks).expect("a packet that doesn't fit opens its own cluster");
        block_head(&mut prefix.bytes, track, relative, keyframe, payload_bytes);

        let open = self.cluster.as_mut().expect("just opened, if there was none");
        if let Some(sum) = &mut open.sum {
            let head = prefix.opened.map_or(0, |_| (CLUSTER_HEAD_BYTES + SUM_BYTES) as usize);
            sum.update(&prefix.bytes[head..]);
            sum.combine(&Hasher::new_with_initial_len(payload_crc32, payload_bytes));
        }
        let cluster = open.start;
        if keyframe {
            self.cues.keyframe(Candidate {
                track,
                is_video: self.tracks[at].codec.is_video(),
                ticks,
                cluster,
                relative: u32::try_from(block_at - cluster - CLUSTER_HEAD_BYTES)
                    .expect("clusters are limited"),
            });
        }
        self.tallies[at].add(timestamp, payload_bytes);
        self.position += prefix.bytes.len() as u64 + payload_bytes;
        Ok(prefix)
    }

    /// The file's length with every packet so far.
    pub fn file_bytes(&self) -> u64 {
        self.position
    }

    /// What was written so far, in the order of the header's tracks.
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    /// Takes note of what a [`Cut`](super::Cut) has left in the file.
    pub fn cut(&mut self, kept: Vec<Tally>) {
        self.tallies = kept;
        if let Some(open) = &mut self.cluster {
            open.sum = None;
        }
    }

    /// Ends the file. Without a duration it is the end of the last packet; `tags` are those that weren't in
    /// the header. Tracks without a packet are hidden, if another has one, and so are their tags.
    ///
    /// # Errors
    /// [`Error::UnknownTrack`] or [`Error::TooLarge`] for the tags; a repair can still finish the file.
    pub fn finish(mut self, duration: Option<Duration>, tags: &[Tag]) -> Result<Finish, Error> {
        let closed = self.close();
        let silent = silent::of(&self.tallies);
        let tags = silent::without(&silent, tags);
        let tail = tail::build(self.layout, self.position, self.cues, &tags, &self.tracks)?;
        let duration_ns = match duration {
            Some(duration) => u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            None => tally::end_ns(&self.tallies),
        };
        let mut patches: Vec<Patch> = closed.into_iter().collect();
        patches.extend(silent::patches(&silent, &self.spots, tail.file_bytes));
        patches.extend(tail::patches(self.layout, tail.index, duration_ns, tail.file_bytes));
        Ok(Finish { tail: tail.bytes, patches, file_bytes: tail.file_bytes, tallies: self.tallies })
    }

    fn fits(&self, open: &OpenCluster, ticks: u64, payload_bytes: u64) -> bool {
        let content_bytes = self.position - open.start - CLUSTER_HEAD_BYTES;
        let near =
            relative(ticks, open.ticks).is_some_and(|relative| i64::from(relative) < CLUSTER_SPAN_TICKS);
        near && content_bytes + payload_bytes <= CLUSTER_BYTES_MAX
    }

    fn close(&mut self) -> Option<Patch> {
        let open = self.cluster.take()?;
        Some(cluster_end(open.start, self.position, open.sum.map(Hasher::finalize)))
    }
}

/// The patch that gives the cluster from `start` to `end` its size.
pub(super) fn cluster_size(start: u64, end: u64) -> Patch {
    let bytes = ebml::size8(end - start - CLUSTER_HEAD_BYTES).to_vec();
    Patch { offset: start + CLUSTER_HEAD_BYTES - 8, bytes, after: end }
}

/// The same for a cluster with room for a checksum, which it gets too, or has no more.
pub(super) fn cluster_end(start: u64, end: u64, sum: Option<u32>) -> Patch {
    let mut patch = cluster_size(start, end);
    ebml::put_sum(&mut patch.bytes, sum);
    patch
}

/// A block's time as its cluster tells it: 16 bits of ticks, so −3.2768 s to 3.2767 s (RFC 9559 §10.1).
fn relative(ticks: u64, cluster_ticks: u64) -> Option<i16> {
    i16::try_from(i128::from(ticks) - i128::from(cluster_ticks)).ok()
}

fn open_cluster(out: &mut Vec<u8>, ticks: u64) {
    ebml::put_id(out, id::CLUSTER);
    out.extend_from_slice(&ebml::SIZE_UNKNOWN);
    ebml::put_sum(out, None);
    ebml::put_uint(out, id::TIMESTAMP, ticks);
}

fn block_head(out: &mut Vec<u8>, track: TrackNumber, relative: i16, keyframe: bool, payload_bytes: u64) {
    ebml::put_id(out, id::SIMPLE_BLOCK);
    ebml::put_size(out, payload_bytes + 4);
    out.push(0x80 | track.get());
    out.extend_from_slice(&relative.to_be_bytes());
    out.push(if keyframe { 0x80 } else { 0 });
}
