//! Walks through a file block by block, as far as it is whole. Never holds more than one header element and
//! one window.
//!
//! Inside clusters it is strict, since what it can't explain may be what a crash left behind: an element that
//! is unknown, runs past its parent or past the file, a block of no listed track, with lacing or without
//! payload counts as garbage.

mod walk;

use super::cues::Cue;
use super::ebml::{self, HEAD_BYTES_MAX, SUM_BYTES, id};
use super::error::Error;
use super::header::{Layout, SEEK_ROOM_BYTES, Track};
use super::parse::Info;
use super::silent::Spot;
use super::tags::{SOURCE_ID, Tag, TagTarget};
use super::units::{PACKET_BYTES_MAX, TICK_NS, Timestamp, TrackNumber};
use super::window::Window;
use std::io::{Read, Seek};
use walk::is_level1;

/// Bytes of a cluster that are read at once to be summed up.
const PIECE_BYTES: usize = 64 * 1024;

/// One packet in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its track.
    pub track: TrackNumber,
    /// Its time; before zero only in files of others.
    pub timestamp: Timestamp,
    /// Whether it can be decoded without any other.
    pub keyframe: bool,
    /// Where its payload starts, from the start of the file.
    pub offset: u64,
    /// The payload's length, 1 to [`PACKET_BYTES_MAX`] bytes.
    pub payload_bytes: u64,
}

/// What comes next in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A whole block.
    Block(Block),
    /// Nothing: the file ends here, with nothing torn. A recording that still grows may have more later.
    End {
        /// The end, from the start of the file.
        at: u64,
    },
    /// Nothing that is whole: the file ends within an element, or garbage follows.
    Torn {
        /// Up to here everything is whole.
        at: u64,
    },
}

/// A step through the file at its first and second level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Cluster(ClusterAt),
    /// `start` is where the block's element starts.
    Block {
        block: Block,
        start: u64,
    },
    /// Any other element of the Segment, whole and passed over.
    Element {
        id: u32,
        start: u64,
    },
    End {
        at: u64,
    },
    Torn {
        at: u64,
    },
}

/// Where a cluster is and what it says of its length; offsets from the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClusterAt {
    pub start: u64,
    pub content: u64,
    /// Where its size says that it ends.
    pub end: Option<u64>,
    pub size_bytes: u64,
    pub sum: SumAt,
}

/// What a cluster begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SumAt {
    /// Anything else: it has no place for a checksum.
    Nothing,
    /// A Void in its place.
    Room,
    /// A CRC-32 element.
    Sum(u32),
}

impl ClusterAt {
    pub(super) fn has_sum(&self) -> bool {
        matches!(self.sum, SumAt::Sum(_))
    }
}

struct InCluster {
    at: ClusterAt,
    ticks: Option<u64>,
}

struct FoundInfo {
    info: Info,
    /// Where the element starts, and where it has room for a Duration.
    start: u64,
    duration_room: Option<u64>,
}

/// A Matroska file, read from its start on. Its header is known once it is open.
pub struct Reader<R> {
    window: Window<R>,
    /// Where the Segment's content starts, how long its size field is and where it says that the Segment
    /// ends.
    segment: u64,
    segment_size_bytes: u64,
    segment_end: Option<u64>,
    position: u64,
    cluster: Option<InCluster>,
    info: Option<FoundInfo>,
    tracks: Vec<Track>,
    tracks_at: u64,
    /// Tracks that a finish has hidden, since they have no packet, and what in the header is about one track.
    silent: Vec<Track>,
    spots: Vec<Spot>,
    tags: Vec<Tag>,
    /// Where the Tags elements are that `tags` come from.
    tags_at: Vec<u64>,
    cues: Vec<Cue>,
    cues_at: Option<u64>,
    /// Where the SeekHead says that Cues and Tags are.
    index_at: Vec<u64>,
    /// Where the header ends, and how many of the tags and Tags elements are in it.
    header_end: u64,
    header_tags: (usize, usize),
}

impl<R: Read + Seek> Reader<R> {
    /// Reads the header: everything in front of the first cluster, or up to the padding behind Tracks.
    ///
    /// # Errors
    /// [`Error::NotMatroska`], [`Error::HeaderIncomplete`] when there is no media, [`Error::HeaderInvalid`].
    pub fn open(source: R) -> Result<Self, Error> {
        let mut window = Window::new(source)?;
        let ebml_end = walk::ebml_header(&mut window)?;
        let head = ebml::head(window.peek(ebml_end, HEAD_BYTES_MAX)?);
        let head = head.map_err(|_| Error::HeaderIncomplete { at: ebml_end })?;
        if head.id != id::SEGMENT {
            return Err(Error::NotMatroska { reason: "no Segment follows the EBML header" });
        }
        let segment = ebml_end + head.length;
        let mut reader = Self {
            window,
            segment,
            segment_size_bytes: head.size_bytes,
            segment_end: head.size.map(|bytes| segment + bytes),
            position: segment,
            cluster: None,
            info: None,
            tracks: vec![],
            tracks_at: 0,
            silent: vec![],
            spots: vec![],
            tags: vec![],
            tags_at: vec![],
            cues: vec![],
            cues_at: None,
            index_at: vec![],
            header_end: 0,
            header_tags: (0, 0),
        };
        reader.header()?;
        Ok(reader)
    }

    fn header(&mut self) -> Result<(), Error> {
        loop {
            match self.next_item()? {
                Item::Cluster(cluster) => {
                    self.position = cluster.start;
                    self.cluster = None;
                    break;
                }
                Item::Element { id: id::VOID, .. } if !self.tracks.is_empty() => break,
                Item::Element { .. } => {}
                Item::Block { .. } => unreachable!("a cluster comes before its blocks"),
                Item::End { at } | Item::Torn { at } => return Err(Error::HeaderIncomplete { at }),
            }
        }
        if self.tracks.is_empty() || self.info.is_none() {
            return Err(Error::HeaderInvalid {
                reason: "Info or Tracks are not in front of the first cluster",
            });
        }
        self.header_end = self.position;
        self.header_tags = (self.tags.len(), self.tags_at.len());
        for tag in self.tags.iter().filter(|tag| tag.name == SOURCE_ID) {
            if let Some(track) =
                self.tracks.iter_mut().find(|track| tag.target == TagTarget::Track(track.number))
            {
                track.source_id.clone_from(&tag.value);
            }
        }
        Ok(())
    }

    /// What the file says about itself.
    pub fn info(&self) -> &Info {
        &self.info.as_ref().expect("an open reader has it").info
    }

    /// The file's tracks, at least one.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// The tracks that the file had when it was begun, and that it doesn't list since it was finished: they have
    /// no packet.
    pub fn silent_tracks(&self) -> &[Track] {
        &self.silent
    }

    /// The tags read so far: the header's, and those at the end once [`load_index`](Self::load_index) or
    /// reading got there.
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// The cues, in the order of the file, once [`load_index`](Self::load_index) or reading got there.
    pub fn cues(&self) -> &[Cue] {
        &self.cues
    }

    /// Whether the file says where it ends, which it does once it is finished.
    pub fn is_finished(&self) -> bool {
        self.segment_end.is_some()
    }

    /// Reads the cues and tags that the SeekHead leads to, without the clusters in front of them. Reading
    /// goes on where it was. What isn't whole is left out.
    ///
    /// # Errors
    /// The source can't be read.
    pub fn load_index(&mut self) -> Result<(), Error> {
        for at in std::mem::take(&mut self.index_at) {
            if at >= self.window.file_bytes(at)? {
                continue;
            }
            let Ok(head) = ebml::head(self.window.peek(at, HEAD_BYTES_MAX)?) else { continue };
            if matches!(head.id, id::CUES | id::TAGS) {
                self.element(at, head)?;
            }
        }
        Ok(())
    }

    /// Goes on with the first cluster.
    pub fn rewind(&mut self) {
        self.position = self.header_end;
        self.cluster = None;
    }

    /// Goes on with a cue's cluster. If there is none, the next step is [`Next::Torn`].
    pub fn go_to(&mut self, cue: &Cue) {
        self.position = cue.cluster_offset;
        self.cluster = None;
    }

    /// The next block, whichever track it is of. After [`Next::End`] and [`Next::Torn`] a further call looks
    /// again.
    ///
    /// # Errors
    /// [`Error::Read`] when the caller's reader fails, as from every method here.
    pub fn next_block(&mut self) -> Result<Next, Error> {
        loop {
            match self.next_item()? {
                Item::Block { block, .. } => return Ok(Next::Block(block)),
                Item::End { at } => return Ok(Next::End { at }),
                Item::Torn { at } => return Ok(Next::Torn { at }),
                Item::Cluster(_) | Item::Element { .. } => {}
            }
        }
    }

    /// After [`Next::Torn`] within a cluster that was closed: goes on behind that cluster. Returns how many
    /// bytes were passed over, `None` when the file ends with them or nothing that can be read follows.
    ///
    /// # Errors
    /// The source can't be read.
    pub fn skip_damage(&mut self) -> Result<Option<u64>, Error> {
        let Some(end) = self.cluster.as_ref().and_then(|cluster| cluster.at.end) else { return Ok(None) };
        let file_bytes = self.window.file_bytes(end)?;
        let goes_on = match ebml::head(self.window.peek(end, HEAD_BYTES_MAX)?) {
            Ok(head) => is_level1(head.id),
            Err(_) => end == file_bytes,
        };
        if !goes_on {
            return Ok(None);
        }
        let skipped = end - self.position;
        self.position = end;
        self.cluster = None;
        Ok(Some(skipped))
    }

    /// Whether what is in a cluster is what its checksum was made of; `None` without one.
    pub(super) fn is_intact(&mut self, cluster: &ClusterAt) -> Result<Option<bool>, Error> {
        let (SumAt::Sum(told), Some(end)) = (cluster.sum, cluster.end) else { return Ok(None) };
        let (mut at, mut sum) = (cluster.content + SUM_BYTES, crc32fast::Hasher::new());
        let mut piece = vec![0; PIECE_BYTES];
        while at < end {
            let length = usize::try_from(end - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            if !self.window.read(at, &mut piece[..length])? {
                return Ok(Some(false));
            }
            sum.update(&piece[..length]);
            at += length as u64;
        }
        Ok(Some(sum.finalize() == told))
    }

    /// Goes on behind a closed cluster.
    pub(super) fn pass(&mut self, cluster: &ClusterAt) {
        self.position = cluster.end.unwrap_or(self.position);
        self.cluster = None;
    }

    /// Whether the element at `start` is a SimpleBlock.
    pub(super) fn is_simple(&mut self, start: u64) -> Result<bool, Error> {
        let id = u8::try_from(ebml::id::SIMPLE_BLOCK).expect("its id has one byte");
        Ok(self.window.peek(start, 1)?.first() == Some(&id))
    }

    /// Replaces what is in `out` with a block's payload.
    ///
    /// # Errors
    /// The source can't be read, or is shorter than it was.
    pub fn payload(&mut self, block: &Block, out: &mut Vec<u8>) -> Result<(), Error> {
        let length = block.payload_bytes.min(PACKET_BYTES_MAX);
        out.resize(usize::try_from(length).expect("packets are limited"), 0);
        if self.window.read(block.offset, out)? {
            return Ok(());
        }
        let source = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        Err(Error::Read { offset: block.offset, source })
    }

    /// Where the parts of the header are, if it is one of ours with room for what the finish adds.
    pub(super) fn layout(&self) -> Option<Layout> {
        let FoundInfo { info, start, duration_room } = self.info.as_ref()?;
        let ours = info.tick_ns.get() == TICK_NS
            && self.segment_size_bytes == 8
            && *start == self.segment + SEEK_ROOM_BYTES as u64;
        let tags = self.tags_at[..self.header_tags.1].first().copied();
        let duration = (*duration_room)?;
        ours.then_some(Layout { segment: self.segment, info: *start, tracks: self.tracks_at, tags, duration })
    }

    /// What in the header is about one track.
    pub(super) fn spots(&self) -> &[Spot] {
        &self.spots
    }

    /// Where the Segment says that it ends.
    pub(super) fn segment_end(&self) -> Option<u64> {
        self.segment_end
    }

    /// Where the first cluster starts, if there is one.
    pub(super) fn header_end(&self) -> u64 {
        self.header_end
    }

    /// The tags read so far that aren't the header's.
    pub(super) fn late_tags(&self) -> &[Tag] {
        &self.tags[self.header_tags.0..]
    }

    /// The file's length.
    pub(super) fn file_bytes(&mut self) -> Result<u64, Error> {
        self.window.file_bytes(u64::MAX)
    }

    /// Whether the file has exactly `bytes` at `at`.
    pub(super) fn has(&mut self, at: u64, bytes: &[u8]) -> Result<bool, Error> {
        let mut found = vec![0; bytes.len()];
        Ok(self.window.read(at, &mut found)? && found == bytes)
    }
}
