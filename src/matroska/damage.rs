//! Where a finished file isn't what was written, as far as it tells itself: by the checksums of its clusters, by
//! those of its sound, and by bytes that nothing explains. What has a checksum that fits is right.

use std::io::{Read, Seek};
use std::ops::Range;

use super::cues::Cue;
use super::error::Error;
use super::header::{Codec, Track};
use super::reader::{Block, ClusterAt, Item, Reader};
use super::sound::is_sound;
use super::tally::Tally;
use super::units::{CLUSTER_SPAN_NS, Timestamp};

/// Places that are told of one file.
const PLACES_MAX: usize = 100;

/// What of a file isn't known to be right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// What is damaged, in the order of the file; what lies behind the hundredth place isn't looked for.
    pub places: Vec<Place>,
    /// What has no checksum: the header, the index, clusters of older or repaired files. It may be right.
    pub unchecked: Vec<Range<u64>>,
}

/// Bytes that aren't what was written: a cluster or a part of it, within which the damage can be anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From the start of the file.
    pub bytes: Range<u64>,
    /// Whose media it is.
    pub media: Vec<Span>,
}

/// Some of what a source delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The source's id.
    pub source_id: String,
    /// The source's name, as a person sees it.
    pub name: String,
    /// Where it begins in the file's time.
    pub from: Timestamp,
    /// Where it is over.
    pub to: Timestamp,
}

/// Reads all of a file.
///
/// # Errors
/// Those of [`Reader::open`]: then it is the header.
pub fn damage<R: Read + Seek>(source: R) -> Result<Damage, Error> {
    let mut reader = Reader::open(source)?;
    reader.load_index()?;
    let file_bytes = reader.file_bytes()?;
    let mut found = Found {
        cues: reader.cues().to_vec(),
        tracks: reader.tracks().to_vec(),
        damage: Damage::default(),
        cluster: None,
        index_from: None,
        payload: vec![],
    };
    found.unchecked(0..reader.header_end());
    loop {
        match reader.next_item()? {
            Item::Cluster(cluster) => {
                found.close(cluster.start);
                found.index_from = None;
                if reader.is_intact(&cluster)? == Some(true) {
                    reader.pass(&cluster);
                } else {
                    found.cluster = Some(Doubt::new(cluster, &found.tracks));
                }
            }
            Item::Block { block, start } => found.block(&mut reader, &block, start)?,
            Item::Element { start, .. } => {
                found.close(start);
                found.index_from.get_or_insert(start);
            }
            Item::End { at } => {
                found.close(at);
                break;
            }
            Item::Torn { at } => {
                let end = found.go_on(&mut reader, at)?;
                found.torn(at..end.unwrap_or(file_bytes));
                if end.is_none() {
                    break;
                }
            }
        }
        if found.damage.places.len() >= PLACES_MAX {
            break;
        }
    }
    // What follows the last cluster has no checksum.
    if let Some(from) = found.index_from {
        found.unchecked(from..file_bytes);
    }
    Ok(found.damage)
}

struct Found {
    cues: Vec<Cue>,
    tracks: Vec<Track>,
    damage: Damage,
    cluster: Option<Doubt>,
    /// Where the elements behind the last cluster begin.
    index_from: Option<u64>,
    payload: Vec<u8>,
}

/// A cluster whose checksum doesn't fit, or that has none.
struct Doubt {
    at: ClusterAt,
    /// What it holds, and what of it is in doubt.
    all: Vec<Tally>,
    doubtful: Vec<Tally>,
    bytes: Option<Range<u64>>,
    /// A packet is known to be wrong, which explains the checksum.
    is_explained: bool,
}

impl Doubt {
    fn new(at: ClusterAt, tracks: &[Track]) -> Self {
        let tallies: Vec<Tally> = tracks.iter().map(Tally::new).collect();
        Self { at, all: tallies.clone(), doubtful: tallies, bytes: None, is_explained: false }
    }

    fn widen(&mut self, by: Range<u64>) {
        self.bytes = Some(match self.bytes.take() {
            Some(bytes) => bytes.start.min(by.start)..bytes.end.max(by.end),
            None => by,
        });
    }
}

impl Found {
    fn block<R: Read + Seek>(
        &mut self,
        reader: &mut Reader<R>,
        block: &Block,
        start: u64,
    ) -> Result<(), Error> {
        let doubt = self.cluster.as_mut().expect("a block comes after its cluster");
        let track = self.tracks.iter().position(|track| track.number == block.track);
        let track = track.expect("a reader gives blocks of its tracks only");
        let codec = &self.tracks[track].codec;
        reader.payload(block, &mut self.payload)?;
        let is_sound = is_sound(codec, block.offset, &self.payload);
        let is_proven = is_sound && (!doubt.at.has_sum() || matches!(codec, Codec::Flac { .. }));
        let bytes = start..block.offset + block.payload_bytes;
        doubt.all[track].add(block.timestamp, block.payload_bytes);
        doubt.is_explained |= !is_sound;
        if !is_proven {
            doubt.doubtful[track].add(block.timestamp, block.payload_bytes);
            doubt.widen(bytes);
        }
        Ok(())
    }

    /// The cluster at hand is over at `end`.
    fn close(&mut self, end: u64) {
        let Some(doubt) = self.cluster.take() else { return };
        let whole = doubt.at.start..end;
        if !doubt.at.has_sum() {
            self.unchecked(whole.clone());
        }
        let (bytes, tallies) = match doubt.bytes {
            Some(bytes) if doubt.is_explained => (bytes, &doubt.doubtful),
            // It may be what the cluster tells of its packets.
            Some(_) => (whole, &doubt.doubtful),
            None if doubt.at.has_sum() => (whole, &doubt.all),
            None => return,
        };
        let heard = self.tracks.iter().zip(tallies).filter_map(|(track, tally)| {
            let to = Timestamp::from_ns(i64::try_from(tally.end_ns()).unwrap_or(i64::MAX));
            Some(span(track, tally.first?, to))
        });
        let media = heard.collect();
        self.damage.places.push(Place { bytes, media });
    }

    /// Nothing explains these bytes: if they are a cluster's, what any source delivered may be lost with them.
    fn torn(&mut self, bytes: Range<u64>) {
        let doubt = self.cluster.take();
        let from = doubt.as_ref().map_or(bytes.start, |doubt| doubt.at.start);
        let bytes = from..bytes.end;
        let place = |cue: &&Cue| cue.cluster_offset;
        let first = self.cues.iter().filter(|cue| bytes.contains(&cue.cluster_offset)).min_by_key(place);
        let before = self.cues.iter().filter(|cue| cue.cluster_offset < bytes.start).max_by_key(place);
        let next = self.cues.iter().filter(|cue| cue.cluster_offset >= bytes.end).min_by_key(place);
        let is_media = doubt.is_some() || self.cues.is_empty() || first.is_some();
        let from = first.or(before).map_or(Timestamp::ZERO, |cue| cue.timestamp);
        let longest = Timestamp::from_ns(from.ns().saturating_add_unsigned(CLUSTER_SPAN_NS));
        let to = next.map_or(longest, |cue| cue.timestamp);
        let media = self.tracks.iter().filter(|_| is_media).map(|track| span(track, from, to)).collect();
        self.damage.places.push(Place { bytes, media });
    }

    /// Goes on behind bytes that nothing explains: where their cluster says that it ends, else where the index
    /// knows one.
    fn go_on<R: Read + Seek>(&mut self, reader: &mut Reader<R>, at: u64) -> Result<Option<u64>, Error> {
        if let Some(skipped) = reader.skip_damage()? {
            return Ok(Some(at + skipped));
        }
        // Between two clusters it is the next one's head that can't be read.
        let behind = at + u64::from(self.cluster.is_none());
        let next = self.cues.iter().filter(|cue| cue.cluster_offset >= behind);
        let Some(next) = next.min_by_key(|cue| cue.cluster_offset) else { return Ok(None) };
        reader.go_to(next);
        Ok(Some(next.cluster_offset))
    }

    fn unchecked(&mut self, bytes: Range<u64>) {
        match self.damage.unchecked.last_mut() {
            Some(last) if last.end == bytes.start => last.end = bytes.end,
            _ => self.damage.unchecked.push(bytes),
        }
    }
}

fn span(track: &Track, from: Timestamp, to: Timestamp) -> Span {
    Span { source_id: track.source_id.clone(), name: track.name.clone(), from, to: to.max(from) }
}
