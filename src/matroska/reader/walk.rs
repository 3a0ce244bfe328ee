//! From one element to the next.

use super::{Block, ClusterAt, FoundInfo, InCluster, Item, Reader, SumAt};
use crate::matroska::cues::{self, Cue, RawCue};
use crate::matroska::ebml::{self, HEAD_BYTES_MAX, Head, Malformed, NoHead, SUM_BYTES, children, id};
use crate::matroska::error::Error;
use crate::matroska::header::Track;
use crate::matroska::parse::{self, BadTracks};
use crate::matroska::silent;
use crate::matroska::tags::{self, SOURCE_ID, TagTarget};
use crate::matroska::units::{
    CUES_BYTES_MAX, CUES_MAX, HEADER_BYTES_MAX, PACKET_BYTES_MAX, TAGS_BYTES_MAX, TAGS_MAX, Timestamp,
    TrackNumber,
};
use crate::matroska::window::{WINDOW_BYTES, Window};
use std::io::{Read, Seek};

/// The longest EBML header that is read.
const EBML_HEADER_BYTES_MAX: u64 = 1024;
/// The most places that are taken from a file's SeekHeads.
const SEEKS_MAX: usize = 64;

/// Whether an element is a child of the Segment, so that it ends a cluster of unknown size.
pub(super) fn is_level1(id: u32) -> bool {
    matches!(
        id,
        id::SEEK_HEAD
            | id::INFO
            | id::TRACKS
            | id::CLUSTER
            | id::CUES
            | id::TAGS
            | id::CHAPTERS
            | id::ATTACHMENTS
    )
}

/// Checks the EBML header; returns where it ends.
pub(super) fn ebml_header<R: Read + Seek>(window: &mut Window<R>) -> Result<u64, Error> {
    let not = |reason| Error::NotMatroska { reason };
    let head = match ebml::head(window.peek(0, HEAD_BYTES_MAX)?) {
        Ok(head) => head,
        Err(NoHead::Short) => return Err(Error::HeaderIncomplete { at: 0 }),
        // A file whose length alone survived a power cut.
        Err(NoHead::Garbage) if is_blank(window)? => return Err(Error::HeaderIncomplete { at: 0 }),
        Err(NoHead::Garbage) => return Err(not("it doesn't begin with an EBML header")),
    };
    let size = head.size.filter(|size| head.id == id::EBML && *size <= EBML_HEADER_BYTES_MAX);
    let size = size.ok_or(not("it doesn't begin with an EBML header"))?;
    let mut body = vec![0; usize::try_from(size).expect("checked to be short")];
    if !window.read(head.length, &mut body)? {
        return Err(Error::HeaderIncomplete { at: 0 });
    }
    let mut is_matroska = false;
    for child in children(&body) {
        match child {
            Ok((id::DOC_TYPE, name)) => {
                is_matroska = matches!(ebml::string(name).as_str(), "matroska" | "webm");
            }
            Ok(_) => {}
            Err(Malformed) => return Err(not("its EBML header is malformed")),
        }
    }
    if is_matroska { Ok(head.length + size) } else { Err(not("its document type is another")) }
}

/// Whether a file is zeros from its beginning to its end.
fn is_blank<R: Read + Seek>(window: &mut Window<R>) -> Result<bool, Error> {
    let mut at = 0;
    loop {
        let piece = window.peek(at, WINDOW_BYTES)?;
        if piece.is_empty() || piece.iter().any(|byte| *byte != 0) {
            return Ok(piece.is_empty());
        }
        at += piece.len() as u64;
    }
}

impl<R: Read + Seek> Reader<R> {
    /// The next step. `End` and `Torn` leave the position where it is.
    pub(in crate::matroska) fn next_item(&mut self) -> Result<Item, Error> {
        loop {
            let at = self.position;
            if self.cluster.as_ref().is_some_and(|cluster| cluster.at.end == Some(at)) {
                self.cluster = None;
            }
            if self.cluster.is_none() && self.segment_end == Some(at) {
                return Ok(Item::End { at });
            }
            if at >= self.window.file_bytes(at + 1)? {
                let is_promised = self.limit().is_some();
                return Ok(if is_promised { Item::Torn { at } } else { Item::End { at } });
            }
            let Ok(head) = ebml::head(self.window.peek(at, HEAD_BYTES_MAX)?) else {
                return Ok(Item::Torn { at });
            };
            let item = match &self.cluster {
                // Nothing of that kind is ever in a cluster: one that says it reaches further has a size of which a
                // power cut kept half.
                Some(_) if is_level1(head.id) => {
                    self.cluster = None;
                    continue;
                }
                Some(_) => self.in_cluster(at, head)?,
                None => Some(self.in_segment(at, head)?),
            };
            if let Some(item) = item {
                return Ok(item);
            }
        }
    }

    /// Where the innermost open element with a known size ends.
    fn limit(&self) -> Option<u64> {
        self.cluster.as_ref().and_then(|cluster| cluster.at.end).or(self.segment_end)
    }

    /// Where the element at `at` ends, if it is whole and within its parents.
    fn end(&mut self, at: u64, head: Head) -> Result<Option<u64>, Error> {
        let Some(size) = head.size else { return Ok(None) };
        let end = at + head.length + size;
        let is_whole = end <= self.window.file_bytes(end)? && self.limit().is_none_or(|limit| end <= limit);
        Ok(is_whole.then_some(end))
    }

    fn in_segment(&mut self, at: u64, head: Head) -> Result<Item, Error> {
        if head.id == id::CLUSTER {
            let content = at + head.length;
            let end = head.size.map(|size| content + size);
            if end.is_some() && self.segment_end.is_some() && end > self.segment_end {
                return Ok(Item::Torn { at });
            }
            let sum = match *self.window.peek(content, SUM_BYTES as usize)? {
                [0xBF, 0x84, a, b, c, d] => SumAt::Sum(u32::from_le_bytes([a, b, c, d])),
                [0xEC, 0x84, ..] => SumAt::Room,
                _ => SumAt::Nothing,
            };
            let cluster = ClusterAt { start: at, content, end, size_bytes: head.size_bytes, sum };
            self.cluster = Some(InCluster { at: cluster, ticks: None });
            self.position = content;
            return Ok(Item::Cluster(cluster));
        }
        if !is_level1(head.id) && !matches!(head.id, id::VOID | id::CRC32) {
            return Ok(Item::Torn { at });
        }
        Ok(match self.element(at, head)? {
            Some(end) => {
                self.position = end;
                Item::Element { id: head.id, start: at }
            }
            None => Item::Torn { at },
        })
    }

    /// Takes what there is to know from a child of the Segment that isn't a cluster: `None` if it isn't
    /// whole, else where it ends.
    pub(super) fn element(&mut self, at: u64, head: Head) -> Result<Option<u64>, Error> {
        let Some(end) = self.end(at, head)? else { return Ok(None) };
        let limit = match head.id {
            id::INFO if self.info.is_none() => HEADER_BYTES_MAX,
            id::TRACKS if self.tracks.is_empty() => HEADER_BYTES_MAX,
            id::SEEK_HEAD => HEADER_BYTES_MAX,
            id::TAGS if !self.tags_at.contains(&at) => TAGS_BYTES_MAX,
            id::CUES if self.cues_at.is_none() => CUES_BYTES_MAX,
            _ => return Ok(Some(end)),
        };
        let from = at + head.length;
        if end - from > limit {
            return Ok(Some(end));
        }
        let mut body = vec![0; usize::try_from(end - from).expect("checked against a limit")];
        if !self.window.read(from, &mut body)? {
            return Ok(None);
        }
        let taken = match head.id {
            id::INFO => self.take_info(at, from, &body)?,
            id::TRACKS => self.take_tracks(at, from, &body)?,
            id::SEEK_HEAD => self.take_seek_head(&body),
            id::TAGS => self.take_tags(at, from, &body),
            _ => self.take_cues(at, &body),
        };
        Ok(taken.is_ok().then_some(end))
    }

    fn take_info(&mut self, start: u64, from: u64, body: &[u8]) -> Result<Result<(), Malformed>, Error> {
        let invalid = |_| Error::HeaderInvalid { reason: "its Info is malformed" };
        let (info, room) = parse::info(body).map_err(invalid)?;
        self.info = Some(FoundInfo { info, start, duration_room: room.map(|room| from + room) });
        Ok(Ok(()))
    }

    fn take_tracks(&mut self, start: u64, from: u64, body: &[u8]) -> Result<Result<(), Malformed>, Error> {
        self.tracks_at = start;
        self.spots = silent::entries(body, from);
        self.tracks = parse::tracks(body).map_err(|bad| Error::HeaderInvalid {
            reason: match bad {
                BadTracks::Malformed => "its Tracks are malformed",
                BadTracks::Because(reason) => reason,
            },
        })?;
        self.silent = silent::hidden(body, &self.tracks);
        Ok(Ok(()))
    }

    fn take_seek_head(&mut self, body: &[u8]) -> Result<(), Malformed> {
        for child in children(body) {
            let (id::SEEK, seek) = child? else { continue };
            for child in children(seek) {
                let (id::SEEK_POSITION, position) = child? else { continue };
                let at = self.segment.checked_add(ebml::uint(position)?);
                if let Some(at) = at.filter(|_| self.index_at.len() < SEEKS_MAX) {
                    self.index_at.push(at);
                }
            }
        }
        Ok(())
    }

    fn take_tags(&mut self, start: u64, from: u64, body: &[u8]) -> Result<(), Malformed> {
        // Behind the header there is nothing to hide: a finish leaves those tags out.
        if self.header_end == 0 {
            let all = [&self.tracks[..], &self.silent].concat();
            self.spots.extend(silent::tags(body, from, &all));
            // A crash may have left an entry and its tag to be hidden, or one of them.
            for tag in silent::hidden_tags(body, &all)?.into_iter().chain(tags::decode(body, &self.silent)?) {
                let about = |track: &&mut Track| TagTarget::Track(track.number) == tag.target;
                let track = self.tracks.iter_mut().chain(&mut self.silent).find(about);
                if let Some(track) = track.filter(|_| tag.name == SOURCE_ID) {
                    track.source_id = tag.value;
                }
            }
        }
        let room = TAGS_MAX - self.tags.len();
        // Each element counts, so that their number is bounded as well.
        if self.tags_at.len() < TAGS_MAX {
            self.tags.extend(tags::decode(body, &self.tracks)?.into_iter().take(room));
            self.tags_at.push(start);
        }
        Ok(())
    }

    fn take_cues(&mut self, start: u64, body: &[u8]) -> Result<(), Malformed> {
        let raw = cues::decode(body)?;
        debug_assert!(raw.len() <= CUES_MAX, "bounded as it is decoded");
        self.cues = raw.into_iter().filter_map(|raw| self.cue(raw)).collect();
        self.cues_at = Some(start);
        Ok(())
    }

    fn cue(&self, raw: RawCue) -> Option<Cue> {
        Some(Cue {
            timestamp: self.timestamp(i128::from(raw.ticks))?,
            track: u8::try_from(raw.track).ok().and_then(TrackNumber::new)?,
            cluster_offset: self.segment.checked_add(raw.cluster)?,
            block_relative: raw.relative,
        })
    }

    fn timestamp(&self, ticks: i128) -> Option<Timestamp> {
        let tick_ns = i128::from(self.info.as_ref()?.info.tick_ns.get());
        ticks.checked_mul(tick_ns).and_then(|ns| i64::try_from(ns).ok()).map(Timestamp::from_ns)
    }

    /// A child of the cluster at hand: `None` if it is passed over.
    fn in_cluster(&mut self, at: u64, head: Head) -> Result<Option<Item>, Error> {
        let torn = Ok(Some(Item::Torn { at }));
        let Some(end) = self.end(at, head)? else { return torn };
        let from = at + head.length;
        let block = match head.id {
            id::TIMESTAMP => {
                let body = self.window.peek(from, 9)?;
                let ticks = usize::try_from(end - from).ok().and_then(|length| body.get(..length));
                let Some(Ok(ticks)) = ticks.map(ebml::uint) else { return torn };
                if let Some(cluster) = &mut self.cluster {
                    cluster.ticks = Some(ticks);
                }
                None
            }
            id::SIMPLE_BLOCK => {
                let Some((block, flags)) = self.block(from, end)? else { return torn };
                // The three bits that a SimpleBlock reserves are 0 (RFC 9559 §10.2).
                if flags & 0x70 != 0 {
                    return torn;
                }
                Some(Block { keyframe: flags & 0x80 != 0, ..block })
            }
            id::BLOCK_GROUP => {
                let Some(block) = self.block_group(from, end)? else { return torn };
                Some(block)
            }
            id::VOID | id::CRC32 | id::POSITION | id::PREV_SIZE | id::SILENT_TRACKS => None,
            _ => return torn,
        };
        self.position = end;
        Ok(block.map(|block| Item::Block { block, start: at }))
    }

    /// The block whose body is from `from` to `end`, and its flags; `None` for garbage.
    fn block(&mut self, from: u64, end: u64) -> Result<Option<(Block, u8)>, Error> {
        let bytes = self.window.peek(from, HEAD_BYTES_MAX)?;
        let Ok((number, length)) = ebml::vint(bytes) else { return Ok(None) };
        let Some(&[high, low, flags]) = bytes.get(length..length + 3) else { return Ok(None) };
        let offset = from + length as u64 + 3;
        let Some(payload_bytes) = end.checked_sub(offset) else { return Ok(None) };
        let track = u8::try_from(number).ok().and_then(TrackNumber::new);
        let track = track.filter(|track| self.tracks.iter().any(|known| known.number == *track));
        let ticks = self.cluster.as_ref().and_then(|cluster| cluster.ticks);
        let relative = i128::from(i16::from_be_bytes([high, low]));
        let timestamp = ticks.and_then(|ticks| self.timestamp(i128::from(ticks) + relative));
        let is_laced = flags & 0x06 != 0;
        let (Some(track), Some(timestamp), false) = (track, timestamp, is_laced) else { return Ok(None) };
        if !(1..=PACKET_BYTES_MAX).contains(&payload_bytes) {
            return Ok(None);
        }
        Ok(Some((Block { track, timestamp, keyframe: false, offset, payload_bytes }, flags)))
    }

    /// The one block of the group whose body is from `from` to `end`; a keyframe if it refers to no other.
    fn block_group(&mut self, from: u64, end: u64) -> Result<Option<Block>, Error> {
        let mut at = from;
        let mut found = None;
        let mut is_keyframe = true;
        while at < end {
            let Ok(head) = ebml::head(self.window.peek(at, HEAD_BYTES_MAX)?) else { return Ok(None) };
            let Some(size) = head.size else { return Ok(None) };
            let body = at + head.length;
            at = body + size;
            if at > end {
                return Ok(None);
            }
            match head.id {
                id::BLOCK if found.is_none() => {
                    let Some((block, _)) = self.block(body, at)? else { return Ok(None) };
                    found = Some(block);
                }
                id::BLOCK => return Ok(None),
                id::REFERENCE_BLOCK => is_keyframe = false,
                _ => {}
            }
        }
        Ok(found.map(|block| Block { keyframe: is_keyframe, ..block }))
    }
}
