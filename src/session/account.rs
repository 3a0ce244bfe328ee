//! What a worker reports: a receipt in the making, and the state of each source.

use serde::{Deserialize, Serialize};

use super::limits::{GAPS_MAX, WARNINGS_MAX};
use super::receipt::{Gap, MediaFile, SourceReceipt};
use crate::clock::MonoTime;

/// The account of a session while it is captured, and at its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// A source each, in the session's order.
    pub sources: Vec<SourceAccount>,
    /// Files that are complete.
    pub files: Vec<MediaFile>,
    /// Seconds from the first frame to the end of the last, over all sources.
    pub captured_seconds: f64,
    /// What an operator should know, a sentence each.
    pub warnings: Vec<String>,
}

/// One source in an account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceAccount {
    /// Its part of the receipt so far.
    pub receipt: SourceReceipt,
    /// How it is.
    pub state: SourceState,
    /// Why it is degraded; empty when it isn't.
    pub reason: String,
    /// When its last durable packet was captured, by `CLOCK_MONOTONIC` of this boot.
    #[serde(default)]
    pub durable_at: Option<MonoTime>,
}

/// How a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// Its first frame is awaited.
    Starting,
    /// It delivers.
    Working,
    /// It delivers nothing, and should.
    Degraded,
    /// Its device is closed.
    Released,
}

impl SourceState {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Working => "working",
            Self::Degraded => "degraded",
            Self::Released => "released",
        }
    }
}

impl Account {
    /// Adds a warning, once, up to the limit.
    pub fn warn(&mut self, warning: String) {
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// True while a source delivers nothing and should.
    pub fn is_degraded(&self) -> bool {
        self.sources.iter().any(|source| source.state == SourceState::Degraded)
    }
}

impl SourceReceipt {
    /// Lists a gap, up to the limit, and counts what it missed.
    pub fn add_gap(&mut self, gap: Gap) {
        self.missed = self.missed.saturating_add(gap.missed);
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(gap);
        }
    }

    /// Whether the account adds up: everything captured was written, dropped or lost.
    pub fn adds_up(&self) -> bool {
        let sum = u128::from(self.written) + u128::from(self.dropped) + u128::from(self.lost);
        u128::from(self.captured) == sum
    }

    /// Makes the account add up after a crash: what was captured and is not in the files is lost,
    /// and what the files hold beyond the last report was captured too. Holds for any numbers, since a
    /// worker that died may have reported any.
    pub fn settle_after_crash(&mut self, written: u64) {
        self.at_least = true;
        self.written = written;
        self.dropped = self.dropped.min(u64::MAX - written);
        self.captured = self.captured.max(written + self.dropped);
        self.lost = self.captured - self.written - self.dropped;
    }
}
