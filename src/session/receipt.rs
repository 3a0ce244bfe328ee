//! The receipt: the account of a finished session, as callers, the journal and `receipt.json` have it.

use serde::{Deserialize, Serialize};

use super::device::{MediaType, TimestampSource};
use super::{EndReason, SessionId};
use crate::clock::WallTime;

/// The account of a finished session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Which session.
    pub session_id: SessionId,
    /// What ended it first.
    pub end_reason: EndReason,
    /// The worker had to be ended by force, or died; what was on disk was repaired and kept.
    pub forced: bool,
    /// When the stop was accepted, or the session ended by itself: nothing later was kept. Absent if its last
    /// worker died and nobody asked for a stop; later than the release if the stop came after that.
    pub requested_at: Option<WallTime>,
    /// When the last device was closed.
    pub released_at: Option<WallTime>,
    /// When the media became final.
    pub finalized_at: Option<WallTime>,
    /// A source each.
    pub sources: Vec<SourceReceipt>,
    /// The media files, in order.
    pub files: Vec<MediaFile>,
    /// Removal of the media; absent when it is kept.
    pub removal: Option<Removal>,
    /// What an operator should know, a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The account of one source, in frames for video and samples (per channel) for audio.
/// Once final, `captured = written + dropped + lost`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceReceipt {
    /// The source's id within the session.
    pub id: String,
    /// Pictures or sound.
    #[serde(rename = "type")]
    pub media: MediaType,
    /// Label and address of the device.
    pub device: String,
    /// The format, for people.
    pub format: String,
    /// Handed over by the driver, up to the stop.
    pub captured: u64,
    /// Durable in the files.
    pub written: u64,
    /// Refused by the worker's own full queue.
    pub dropped: u64,
    /// Captured, but not durable.
    pub lost: u64,
    /// Never handed over, by the driver's own count.
    pub missed: u64,
    /// Silence filled in for missing sound.
    pub filled: u64,
    /// Flagged as damaged by the driver, or no image; they are in the file.
    pub corrupt: u64,
    /// By how many parts per million its clock is fast against the host's; absent where that isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_ppm: Option<f64>,
    /// `captured` is the last report of a worker that died; there may have been more.
    pub at_least: bool,
    /// Wall clock time of the first frame.
    pub first_timestamp: Option<WallTime>,
    /// Wall clock time of the last frame.
    pub last_timestamp: Option<WallTime>,
    /// Where its timestamps come from; absent until the device was opened.
    pub timestamp_source: Option<TimestampSource>,
    /// Where it delivered nothing.
    pub gaps: Vec<Gap>,
    /// How often the device was opened anew.
    pub restarts: u32,
}

/// A time in which a source delivered nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Seconds from the beginning of the media.
    pub start_seconds: f64,
    /// How long, in seconds.
    pub duration_seconds: f64,
    /// Frames or samples that are missing, where that is known.
    pub missed: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why a source delivered nothing for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// The driver's count jumped.
    Sequence,
    /// The device delivered nothing.
    Stalled,
    /// The device was gone or failed.
    Lost,
    /// Sound came faster than it was taken.
    Overrun,
    /// The worker died, and a new one went on.
    Restart,
    /// It was captured, but the disk did not take it.
    Disk,
}

/// A media file of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MediaFile {
    /// Path on the capture host.
    pub path: String,
    /// Length.
    pub bytes: u64,
    /// BLAKE3 of the whole file, 64 hex digits.
    pub blake3: String,
    /// Seconds from its first frame to the end of its last.
    pub duration_seconds: f64,
    /// It was cut by a crash and repaired.
    #[serde(default)]
    pub repaired: bool,
}

/// Removal of the media of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// How far it is.
    pub state: RemovalState,
    /// When the media was removed.
    pub removed_at: Option<WallTime>,
    /// Why; receipts that don't say were written when there was one reason alone.
    #[serde(default)]
    pub reason: RemovalReason,
}

/// Why media is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalReason {
    /// The session's `config.removeMedia`.
    #[default]
    Requested,
    /// It was older than the host keeps media.
    MaxAge,
    /// All media together was more than the host keeps.
    MaxBytes,
    /// The disk had less room than the host keeps free.
    MinFree,
}

impl RemovalReason {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::MaxAge => "max_age",
            Self::MaxBytes => "max_bytes",
            Self::MinFree => "min_free",
        }
    }
}

/// How far a removal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovalState {
    /// Asked for, not done.
    Pending,
    /// Done.
    Removed,
}

impl SourceReceipt {
    /// A source of `device` that has captured nothing yet.
    pub fn of(id: String, media: MediaType, device: String) -> Self {
        Self {
            id,
            media,
            device,
            format: String::new(),
            captured: 0,
            written: 0,
            dropped: 0,
            lost: 0,
            missed: 0,
            filled: 0,
            corrupt: 0,
            drift_ppm: None,
            at_least: false,
            first_timestamp: None,
            last_timestamp: None,
            timestamp_source: None,
            gaps: Vec::new(),
            restarts: 0,
        }
    }
}
