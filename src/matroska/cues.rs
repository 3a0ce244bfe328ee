//! Where to start reading for a given time (RFC 9559 §5.1.5).

use super::ebml::{self, Malformed, children, id, put, put_uint};
use super::units::{CUES_MAX, Timestamp, TrackNumber};

/// One place in a file to start reading from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cue {
    /// The time of the block it leads to.
    pub timestamp: Timestamp,
    /// That block's track.
    pub track: TrackNumber,
    /// Where the block's cluster starts in the file.
    pub cluster_offset: u64,
    /// Where the block's element starts in the cluster's content, if the cue tells.
    pub block_relative: Option<u64>,
}

/// A block that a cue may lead to; offsets from the start of the file.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub track: TrackNumber,
    pub is_video: bool,
    pub ticks: u64,
    pub cluster: u64,
    /// From the start of the cluster's content.
    pub relative: u32,
}

/// The cues of a file that grows: in each cluster the first keyframe of every video track, else the first
/// block.
#[derive(Default)]
pub(super) struct CueList {
    cues: Vec<Candidate>,
    /// The cluster at hand and its first block that isn't video.
    fallback: Option<Candidate>,
    cluster: Option<u64>,
    /// Bit n: track n has its cue in this cluster.
    done: u128,
}

impl CueList {
    /// Takes note of a keyframe. Blocks come cluster by cluster.
    pub(super) fn keyframe(&mut self, block: Candidate) {
        if self.cluster != Some(block.cluster) {
            self.close();
            self.cluster = Some(block.cluster);
        }
        let bit = 1_u128 << block.track.get();
        if self.done & bit != 0 {
            return;
        }
        if block.is_video {
            self.done |= bit;
            self.push(block);
        } else if self.fallback.is_none() {
            self.fallback = Some(block);
        }
    }

    fn close(&mut self) {
        let fallback = self.fallback.take();
        if let (0, Some(block)) = (self.done, fallback) {
            self.push(block);
        }
        self.done = 0;
    }

    fn push(&mut self, block: Candidate) {
        if self.cues.len() < CUES_MAX {
            self.cues.push(block);
        }
    }

    /// The Cues element, in order of time, for a Segment whose content starts at `segment`; empty for no
    /// cues.
    pub(super) fn encode(mut self, segment: u64) -> Vec<u8> {
        self.close();
        self.cues.sort_by_key(|cue| (cue.ticks, cue.track, cue.cluster));
        let mut body = vec![];
        for cue in &self.cues {
            let mut place = vec![];
            put_uint(&mut place, id::CUE_TRACK, u64::from(cue.track.get()));
            put_uint(&mut place, id::CUE_CLUSTER_POSITION, cue.cluster - segment);
            put_uint(&mut place, id::CUE_RELATIVE_POSITION, u64::from(cue.relative));
            let mut point = vec![];
            put_uint(&mut point, id::CUE_TIME, cue.ticks);
            put(&mut point, id::CUE_TRACK_POSITIONS, &place);
            put(&mut body, id::CUE_POINT, &point);
        }
        let mut element = vec![];
        if !body.is_empty() {
            put(&mut element, id::CUES, &body);
        }
        element
    }
}

/// What a Cues element tells before the clusters it leads to have been read: positions count from the
/// Segment's content, relative ones from the cluster's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawCue {
    pub ticks: u64,
    pub track: u64,
    pub cluster: u64,
    pub relative: Option<u64>,
}

/// The cue points in the body of a Cues element, `CUES_MAX` of them at most.
pub(super) fn decode(body: &[u8]) -> Result<Vec<RawCue>, Malformed> {
    let mut cues = vec![];
    for child in children(body) {
        let (id::CUE_POINT, point) = child? else { continue };
        let mut ticks = 0;
        for child in children(point) {
            match child? {
                (id::CUE_TIME, body) => ticks = ebml::uint(body)?,
                (id::CUE_TRACK_POSITIONS, body) if cues.len() < CUES_MAX => cues.push(place(body, ticks)?),
                _ => {}
            }
        }
    }
    Ok(cues)
}

fn place(body: &[u8], ticks: u64) -> Result<RawCue, Malformed> {
    let mut cue = RawCue { ticks, track: 0, cluster: 0, relative: None };
    for child in children(body) {
        match child? {
            (id::CUE_TRACK, body) => cue.track = ebml::uint(body)?,
            (id::CUE_CLUSTER_POSITION, body) => cue.cluster = ebml::uint(body)?,
            (id::CUE_RELATIVE_POSITION, body) => cue.relative = Some(ebml::uint(body)?),
            _ => {}
        }
    }
    Ok(cue)
}
