//! What a finished file gets: the index behind its last cluster, and the places in its header that then can
//! be filled.

use super::cues::CueList;
use super::ebml::{self, id, put, put_uint, put_void};
use super::error::Error;
use super::header::{Layout, SEEK_ROOM_BYTES, Track, duration_element};
use super::tags::{self, Tag};
use super::units::Patch;

/// The bytes behind the last cluster, and where their elements are.
pub(super) struct Tail {
    pub bytes: Vec<u8>,
    pub index: Index,
    /// The file's length with it.
    pub file_bytes: u64,
}

/// Where the elements behind the clusters are, from the start of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub cues: Option<u64>,
    pub tags: Option<u64>,
}

/// The Cues and Tags to append at `media_end`.
pub(super) fn build(
    layout: Layout,
    media_end: u64,
    cues: CueList,
    tags: &[Tag],
    tracks: &[Track],
) -> Result<Tail, Error> {
    let mut bytes = cues.encode(layout.segment);
    let tags_at = media_end + bytes.len() as u64;
    let cues_at = (!bytes.is_empty()).then_some(media_end);
    let tags = tags::encode(tags, tracks)?;
    bytes.extend_from_slice(&tags);
    let file_bytes = media_end + bytes.len() as u64;
    let tags_at = (!tags.is_empty()).then_some(tags_at);
    Ok(Tail { bytes, index: Index { cues: cues_at, tags: tags_at }, file_bytes })
}

/// The patches that turn the header of a growing file into that of a finished one. The Segment's size comes
/// last: a file whose Segment has a size is finished.
pub(super) fn patches(layout: Layout, index: Index, duration_ns: u64, file_bytes: u64) -> Vec<Patch> {
    let patch = |offset, bytes| Patch { offset, bytes, after: file_bytes };
    let mut patches = vec![patch(layout.segment, seek_head(layout, index))];
    if duration_ns > 0 {
        patches.push(patch(layout.duration, duration_element(duration_ns)));
    }
    patches.push(patch(layout.segment - 8, ebml::size8(file_bytes - layout.segment).to_vec()));
    patches
}

/// A SeekHead (RFC 9559 §5.1.1) that fills its room, with a Void behind it.
fn seek_head(layout: Layout, index: Index) -> Vec<u8> {
    let mut body = vec![];
    let places = [
        (id::INFO, Some(layout.info)),
        (id::TRACKS, Some(layout.tracks)),
        (id::TAGS, layout.tags),
        (id::CUES, index.cues),
        (id::TAGS, index.tags),
    ];
    for (element, offset) in places {
        let Some(offset) = offset else { continue };
        let mut seek = vec![];
        put(&mut seek, id::SEEK_ID, &element.to_be_bytes());
        put_uint(&mut seek, id::SEEK_POSITION, offset - layout.segment);
        put(&mut body, id::SEEK, &seek);
    }
    let mut bytes = vec![];
    put(&mut bytes, id::SEEK_HEAD, &body);
    // Five entries of at most 21 bytes and a head of 5 leave 18 bytes at least.
    let rest = SEEK_ROOM_BYTES - bytes.len();
    put_void(&mut bytes, rest);
    bytes
}
