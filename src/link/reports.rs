//! What short-lived processes print for the daemon: JSON, a probe line by line, so that what it has found
//! is known although it hangs in the next device.

use serde::{Deserialize, Serialize};

use crate::clock::{MonoTime, WallTime};
use crate::session::device::{FoundDevice, MediaType};
use crate::session::{Account, EndReason, MediaFile};

/// The first line that a probe prints.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ProbeHead {
    /// [`LINK_VERSION`](super::LINK_VERSION) of the program that printed it.
    pub link_version: u32,
}

/// Each further line that a probe prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeLine {
    /// It is about to ask a driver, which may hang.
    Asking {
        /// The node, or what else is asked.
        what: String,
        /// The device as it is known unasked, if it seems to be one.
        unasked: Option<Box<FoundDevice>>,
    },
    /// The driver has answered.
    Answered {
        /// What was asked.
        what: String,
        /// The devices there.
        devices: Vec<FoundDevice>,
    },
    /// Everything was asked and has answered: the last line.
    Complete,
}

/// What a repair prints.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RepairReport {
    /// What the files hold.
    pub files: Vec<RepairedFile>,
    /// What could not be repaired, and why.
    pub failures: Vec<String>,
}

/// What a worker leaves beside its media for a daemon that wasn't there to hear it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LastAccount {
    /// The final account.
    pub account: Account,
    /// Why the worker ended the session, if it did so by itself.
    pub reason: Option<EndReason>,
    /// `CLOCK_MONOTONIC` of this boot after which nothing was kept.
    pub stop_at: MonoTime,
    /// `CLOCK_MONOTONIC` of this boot at which the last device was closed, if the worker saw it.
    pub released_at: Option<MonoTime>,
    /// The boot that these times belong to.
    pub boot_id: String,
    /// The worker that wrote it; older ones don't say.
    #[serde(default)]
    pub pid: Option<u32>,
}

impl LastAccount {
    /// Whether the worker with this pid can have written it: what an earlier one of the session left may still
    /// lie there.
    pub fn is_of(&self, pid: u32) -> bool {
        self.pid.is_none_or(|own| own == pid)
    }
}

/// Name of the file with a [`LastAccount`] in a session's directory.
pub const LAST_ACCOUNT_NAME: &str = ".account.json";
/// Its name while it is being written.
pub const LAST_ACCOUNT_DRAFT_NAME: &str = ".account.json.new";

/// What a repaired file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepairedFile {
    /// The file.
    pub file: MediaFile,
    /// Frames, or samples (per channel) including filled silence, by the id of the source.
    pub units: Vec<(String, u64)>,
    /// Bytes that were no whole packet and were cut.
    pub cut_bytes: u64,
    /// When the last packet of each source is over, by the clock that the file was begun with; sources
    /// without packets have none.
    #[serde(default)]
    pub ends: Vec<(String, WallTime)>,
    /// Its tracks, as it tells them itself.
    #[serde(default)]
    pub tracks: Vec<RepairedTrack>,
}

impl RepairedFile {
    /// Whether it holds no packet of any source.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.units.iter().all(|(_, units)| *units == 0)
    }
}

/// A track of a repaired file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepairedTrack {
    /// The source.
    pub source: String,
    /// What the source is called.
    pub name: String,
    /// Pictures or sound.
    pub media: MediaType,
    /// When its first packet was captured, by the clock that the file was begun with.
    pub first: Option<WallTime>,
}
