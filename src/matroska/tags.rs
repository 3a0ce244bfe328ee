//! Named texts about the whole recording or one track (RFC 9559 §5.1.8).

use super::ebml::{self, Malformed, children, id, put, put_uint};
use super::error::Error;
use super::header::Track;
use super::units::{TAGS_BYTES_MAX, TAGS_MAX, TrackNumber};

/// The name of the tag that holds a track's source id.
pub const SOURCE_ID: &str = "SOURCE_ID";

/// One named text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// What it is about.
    pub target: TagTarget,
    /// Its name: capitals and underscores, by custom.
    pub name: String,
    /// Its text, without NUL.
    pub value: String,
}

/// What a tag is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TagTarget {
    /// The whole file.
    Segment,
    /// One track; the file says it by the track's UID.
    Track(TrackNumber),
}

/// A Tags element with one Tag for each target, in the order in which targets first appear; empty for no
/// tags.
pub(super) fn encode(tags: &[Tag], tracks: &[Track]) -> Result<Vec<u8>, Error> {
    let mut targets: Vec<TagTarget> = vec![];
    for tag in tags {
        if !targets.contains(&tag.target) {
            targets.push(tag.target);
        }
    }
    let mut body = vec![];
    for target in targets {
        let mut about = vec![];
        if let TagTarget::Track(number) = target {
            let track = tracks.iter().find(|track| track.number == number);
            let track = track.ok_or(Error::UnknownTrack { track: number })?;
            put_uint(&mut about, id::TAG_TRACK_UID, track.uid.get());
        }
        let mut one = vec![];
        put(&mut one, id::TARGETS, &about);
        for tag in tags.iter().filter(|tag| tag.target == target) {
            let mut simple = vec![];
            put(&mut simple, id::TAG_NAME, tag.name.as_bytes());
            put(&mut simple, id::TAG_STRING, tag.value.as_bytes());
            put(&mut one, id::SIMPLE_TAG, &simple);
        }
        put(&mut body, id::TAG, &one);
    }
    let bytes = body.len() as u64;
    if bytes > TAGS_BYTES_MAX || tags.len() > TAGS_MAX {
        return Err(Error::TooLarge { element: "tags", bytes, max: TAGS_BYTES_MAX });
    }
    let mut element = vec![];
    if !body.is_empty() {
        put(&mut element, id::TAGS, &body);
    }
    Ok(element)
}

/// The tags in the body of a Tags element. Tags about anything but the file or one of `tracks` are left out.
pub(super) fn decode(body: &[u8], tracks: &[Track]) -> Result<Vec<Tag>, Malformed> {
    let mut tags = vec![];
    for child in children(body) {
        let (id::TAG, tag) = child? else { continue };
        let room = TAGS_MAX - tags.len();
        tags.extend(of_one(tag, tracks)?.into_iter().take(room));
    }
    Ok(tags)
}

/// What one Tag element tells; nothing if it is about anything but the file or one of `tracks`.
pub(super) fn of_one(tag: &[u8], tracks: &[Track]) -> Result<Vec<Tag>, Malformed> {
    let mut tags = vec![];
    let Some(target) = target(tag, tracks)? else { return Ok(tags) };
    for child in children(tag) {
        let (id::SIMPLE_TAG, simple) = child? else { continue };
        tags.push(simple_tag(simple, target)?);
    }
    Ok(tags)
}

/// What a Tag element is about, `None` for anything but the file or one of `tracks`.
pub(super) fn target(tag: &[u8], tracks: &[Track]) -> Result<Option<TagTarget>, Malformed> {
    let mut target = Some(TagTarget::Segment);
    for child in children(tag) {
        let (id::TARGETS, targets) = child? else { continue };
        for child in children(targets) {
            let (id::TAG_TRACK_UID, body) = child? else { continue };
            let uid = ebml::uint(body)?;
            let track = tracks.iter().find(|track| track.uid.get() == uid);
            target = track.map(|track| TagTarget::Track(track.number));
        }
    }
    Ok(target)
}

fn simple_tag(body: &[u8], target: TagTarget) -> Result<Tag, Malformed> {
    let mut tag = Tag { target, name: String::new(), value: String::new() };
    for child in children(body) {
        match child? {
            (id::TAG_NAME, body) => tag.name = ebml::string(body),
            (id::TAG_STRING, body) => tag.value = ebml::string(body),
            _ => {}
        }
    }
    Ok(tag)
}
