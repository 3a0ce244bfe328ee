//! Tracks that never got a packet: players complain of them. A finished file has a Void in the place of each.
//! Only the heads of its TrackEntry and of its Tag in the header are written over, so that a reader that knows
//! of it still finds what they said.

use super::ebml::{self, Child, Malformed, children, id};
use super::header::Track;
use super::parse;
use super::tags::{self, Tag, TagTarget};
use super::tally::Tally;
use super::units::{Patch, TrackNumber};

/// An element of the header that is about one track, and its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    track: TrackNumber,
    at: u64,
    head_bytes: u64,
    body_bytes: u64,
}

impl Spot {
    /// A Void's size field has the bytes of its head but one; more than 8 can't be told.
    fn new(track: TrackNumber, from: u64, child: &Child<'_>) -> Option<Self> {
        let (head_bytes, body_bytes) = (child.head.length, child.body.len() as u64);
        (head_bytes <= 9).then_some(Self { track, at: from + child.at, head_bytes, body_bytes })
    }

    fn hide(self, after: u64) -> Patch {
        Patch { offset: self.at, bytes: ebml::void_head(self.head_bytes, self.body_bytes), after }
    }
}

/// The entries in the body of a Tracks element, which starts at `from`.
pub(super) fn entries(body: &[u8], from: u64) -> Vec<Spot> {
    let spot = |child: Child<'_>| match child.head.id {
        id::TRACK_ENTRY => Spot::new(parse::track(child.body).ok()?.number, from, &child),
        _ => None,
    };
    children(body).places().map_while(Result::ok).filter_map(spot).collect()
}

/// The tags about one track in the body of a Tags element, which starts at `from`.
pub(super) fn tags(body: &[u8], from: u64, tracks: &[Track]) -> Vec<Spot> {
    let spot = |child: Child<'_>| match (child.head.id, tags::target(child.body, tracks)) {
        (id::TAG, Ok(Some(TagTarget::Track(track)))) => Spot::new(track, from, &child),
        _ => None,
    };
    children(body).places().map_while(Result::ok).filter_map(spot).collect()
}

/// The tracks without a packet. Of a file without any packet none is: it has to have a track.
pub(super) fn of(tallies: &[Tally]) -> Vec<TrackNumber> {
    let silent: Vec<TrackNumber> =
        tallies.iter().filter(|tally| tally.blocks == 0).map(|tally| tally.track).collect();
    if silent.len() == tallies.len() { vec![] } else { silent }
}

/// What hides the `silent` tracks, once everything before `after` is durable.
pub(super) fn patches(silent: &[TrackNumber], spots: &[Spot], after: u64) -> Vec<Patch> {
    let hidden = spots.iter().filter(|spot| silent.contains(&spot.track));
    hidden.map(|spot| spot.hide(after)).collect()
}

/// The tags that are about what the file still lists.
pub(super) fn without(silent: &[TrackNumber], tags: &[Tag]) -> Vec<Tag> {
    let is_kept = |tag: &&Tag| !silent.iter().any(|track| tag.target == TagTarget::Track(*track));
    tags.iter().filter(is_kept).cloned().collect()
}

/// The tracks that are hidden in the body of a Tracks element which lists `tracks`.
pub(super) fn hidden(body: &[u8], tracks: &[Track]) -> Vec<Track> {
    let voids = children(body).filter_map(|child| child.ok().filter(|(id, _)| *id == id::VOID));
    let is_new = |track: &Track| tracks.iter().all(|known| known.number != track.number);
    voids.filter_map(|(_, body)| parse::track(body).ok()).filter(is_new).collect()
}

/// The tags about one of `tracks` that are hidden in the body of a Tags element.
pub(super) fn hidden_tags(body: &[u8], tracks: &[Track]) -> Result<Vec<Tag>, Malformed> {
    let mut found = vec![];
    for child in children(body) {
        let (id::VOID, tag) = child? else { continue };
        // Any other Void holds nothing that could be read.
        if let Ok(Some(TagTarget::Track(_))) = tags::target(tag, tracks) {
            found.extend(tags::of_one(tag, tracks).unwrap_or_default());
        }
    }
    Ok(found)
}
