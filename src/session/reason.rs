//! What ended a session.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What ended a session first; later reasons change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// `StopSession`.
    StopRequested,
    /// `StopSession` with `ABORT`.
    Aborted,
    /// The start failed.
    StartFailed,
    /// `meta.expires` has passed.
    Expired,
    /// The start's `max_duration`, or the config's, has passed.
    MaxDuration,
    /// The agent was told to end.
    AgentShutdown,
    /// The disk has no room for more.
    DiskFull,
    /// Every source was lost for too long, or has come to its end.
    SourceLost,
    /// The worker died.
    WorkerFailed,
    /// No daemon was there for too long.
    Orphaned,
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::StopRequested,
        Self::Aborted,
        Self::StartFailed,
        Self::Expired,
        Self::MaxDuration,
        Self::AgentShutdown,
        Self::DiskFull,
        Self::SourceLost,
        Self::WorkerFailed,
        Self::Orphaned,
    ];

    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StopRequested => "stop_requested",
            Self::Aborted => "aborted",
            Self::StartFailed => "start_failed",
            Self::Expired => "expired",
            Self::MaxDuration => "max_duration",
            Self::AgentShutdown => "agent_shutdown",
            Self::DiskFull => "disk_full",
            Self::SourceLost => "source_lost",
            Self::WorkerFailed => "worker_failed",
            Self::Orphaned => "orphaned",
        }
    }

    /// The reason that the API's word names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
