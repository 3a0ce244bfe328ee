//! How the packets of each source are encoded in the present file: a track has one encoding, so a source whose
//! format changes, or that comes late, begins a new file.

use std::collections::BTreeMap;

use super::begin::TrackSettings;
use super::ledger::Ledger;
use crate::matroska::Codec;
use crate::media::Packet;

/// The tracks of the present file.
pub(super) struct Formats {
    tracks: Vec<TrackSettings>,
    /// The encodings that the sources of the first file began with.
    first: BTreeMap<usize, Codec>,
    /// The encoding of each source, where it is not the first.
    revisions: BTreeMap<usize, u32>,
}

impl Formats {
    pub(super) fn new(tracks: Vec<TrackSettings>) -> Self {
        let first = tracks.iter().filter_map(|track| Some((track.source, track.codec.clone()?))).collect();
        Self { tracks, first, revisions: BTreeMap::new() }
    }

    /// The sources, with the tracks that a file has now.
    pub(super) fn tracks(&self) -> &[TrackSettings] {
        &self.tracks
    }

    /// Whether this packet fits into its track.
    pub(super) fn fits(&self, packet: &Packet) -> bool {
        let has_track = |track: &TrackSettings| track.source == packet.source && track.codec.is_some();
        self.revisions.get(&packet.source).copied().unwrap_or(0) == packet.revision
            && self.tracks.iter().any(has_track)
    }

    /// The next file is one for this packet.
    pub(super) fn follow(&mut self, packet: &Packet, ledger: &Ledger) {
        let (source, revision) = (packet.source, packet.revision);
        let codec = match revision {
            0 => self.first.get(&source).cloned().or_else(|| ledger.first_codec(source)),
            later => ledger.codec(source, later),
        };
        self.revisions.insert(source, revision);
        if let Some((track, codec)) = self.tracks.iter_mut().find(|track| track.source == source).zip(codec) {
            track.codec = Some(codec);
        }
    }
}
