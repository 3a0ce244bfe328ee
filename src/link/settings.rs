//! What a worker is told when it is taken on: everything it needs, so that it reads no config.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Anchor, MonoTime};
use crate::session::SessionId;
use crate::session::device::DeviceSpec;

/// The settings of one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerSettings {
    /// The session that it captures.
    pub session: SessionId,
    /// What people call the session.
    pub name: String,
    /// What to capture, in the session's order.
    pub sources: Vec<SourceSettings>,
    /// Where this session's files go; the worker makes it.
    pub session_dir: PathBuf,
    /// Permission bits of files.
    pub file_mode: u32,
    /// Permission bits of the directory.
    pub dir_mode: u32,
    /// Group of files and directory; the process's own if absent.
    pub group: Option<u32>,
    /// A new file is begun after this long.
    pub segment: Duration,
    /// What was written is made durable this often.
    pub sync_interval: Duration,
    /// Quality of JPEG for raw cameras, 1 to 100.
    pub jpeg_quality: u8,
    /// How sound is stored.
    pub sound: Sound,
    /// Bytes that may wait in memory.
    pub queue_bytes_max: usize,
    /// A start that takes longer fails.
    pub start_timeout: Duration,
    /// A source that delivers nothing for this long is degraded.
    pub stall_after: Duration,
    /// A session all of whose sources are lost for this long ends.
    pub source_lost_after: Duration,
    /// A worker that hears no daemon for this long drains and exits.
    pub orphan_grace: Duration,
    /// `CLOCK_BOOTTIME` in nanoseconds at which the session expires.
    pub expires_at: Option<u64>,
    /// How the session's times become wall time; the worker's own start if absent.
    #[serde(default)]
    pub anchor: Option<Anchor>,
    /// An earlier worker of this session has died: its files are there and stay.
    #[serde(default)]
    pub resumed: bool,
    /// The beginning of the session's media, which an earlier worker has recorded.
    #[serde(default)]
    pub origin: Option<MonoTime>,
}

/// One source to capture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceSettings {
    /// Its id within the session.
    pub id: String,
    /// What a person calls it.
    pub name: String,
    /// Its device.
    pub device: DeviceSpec,
}

/// How sound is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sound {
    /// FLAC: compressed without loss.
    Flac,
    /// PCM, as it comes.
    Pcm,
}
