//! What can go wrong with a recording's bytes.

use super::units::{Timestamp, TrackNumber};
use std::io;

/// Why bytes could not be written, read or repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's reader failed.
    #[error("cannot read the recording at byte {offset}; check the disk")]
    Read {
        /// Where in the file.
        offset: u64,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The bytes do not begin as a Matroska file does.
    #[error("this is no Matroska file: {reason}; nothing was changed")]
    NotMatroska {
        /// What is amiss.
        reason: &'static str,
    },
    /// The file ends, or turns to garbage, before its tracks are told: it holds no media.
    #[error("the recording's header ends at byte {at}, before any media; the file can be removed")]
    HeaderIncomplete {
        /// Up to where the file is whole.
        at: u64,
    },
    /// The header is whole but says something that no recording can be.
    #[error("the recording's header cannot be used: {reason}")]
    HeaderInvalid {
        /// What it says.
        reason: &'static str,
    },
    /// An unfinished file that this module did not write: it has no room for what a repair adds.
    #[error("the recording cannot be repaired in place: {reason}; remux it with another tool")]
    NotRepairable {
        /// What it lacks.
        reason: &'static str,
    },
    /// A track that cannot be described in a file.
    #[error("track {track} cannot be recorded: {reason}")]
    InvalidTrack {
        /// Which track.
        track: TrackNumber,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The header of a new file needs at least one track.
    #[error("a recording needs at least one track")]
    NoTracks,
    /// A packet or a tag names a track that the header does not list.
    #[error("the recording has no track {track}; list it in the header")]
    UnknownTrack {
        /// Which track.
        track: TrackNumber,
    },
    /// A packet from before the segment's time zero; choose an earlier zero.
    #[error("a packet of track {track} at {timestamp} is from before the segment's time zero")]
    BeforeZero {
        /// Which track.
        track: TrackNumber,
        /// The packet's time.
        timestamp: Timestamp,
    },
    /// A packet with no payload, or one longer than [`PACKET_BYTES_MAX`](super::PACKET_BYTES_MAX).
    #[error("a packet of track {track} has {payload_bytes} bytes; it takes 1 to {max}")]
    PacketSize {
        /// Which track.
        track: TrackNumber,
        /// Its length.
        payload_bytes: u64,
        /// The longest.
        max: u64,
    },
    /// An element that grew past its limit.
    #[error("the recording's {element} would take {bytes} bytes; the limit is {max}")]
    TooLarge {
        /// The element's name.
        element: &'static str,
        /// Its length.
        bytes: u64,
        /// The longest.
        max: u64,
    },
}
