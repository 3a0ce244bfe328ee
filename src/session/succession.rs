//! One session, several workers: when one dies and another goes on, their accounts become one.

use serde::{Deserialize, Serialize};

use super::limits::GAPS_MAX;
use super::{Account, Gap, GapReason, SourceAccount, SourceReceipt, SourceState};
use crate::clock::WallTime;

/// What the workers of a session that have died left to the one that goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadWorkers {
    /// Their accounts in one.
    pub account: Account,
    /// When what they recorded of each source is over, in the session's order, as far as a repair has
    /// found that out.
    pub ends: Vec<Option<WallTime>>,
    /// Their files were repaired and counted.
    pub repaired: bool,
}

impl DeadWorkers {
    /// The session's account: theirs and that of the `present` worker, with the gap in between. `origin` is
    /// the beginning of the media.
    pub fn join(&self, present: &Account, origin: Option<WallTime>) -> Account {
        let sources =
            self.account.sources.iter().zip(&present.sources).enumerate().map(|(at, (old, new))| {
                let begin = self.ends.get(at).copied().flatten().or(old.receipt.last_timestamp);
                let gap = begin.zip(new.receipt.first_timestamp).map(|(begin, end)| gap(begin, end, origin));
                SourceAccount { receipt: join(&old.receipt, &new.receipt, gap), ..new.clone() }
            });
        let mut account = Account {
            sources: sources.collect(),
            files: self.account.files.iter().chain(&present.files).cloned().collect(),
            captured_seconds: self.account.captured_seconds + present.captured_seconds,
            warnings: self.account.warnings.clone(),
        };
        present.warnings.iter().for_each(|warning| account.warn(warning.clone()));
        account
    }

    /// One more worker has died: `joined` is the session's account with its last report, `present` that
    /// report alone, if it gave any.
    #[must_use]
    pub fn followed_by(&self, joined: Account, present: Option<&Account>) -> Self {
        let delivered = |at: usize| {
            present.and_then(|it| it.sources.get(at)).is_some_and(|it| it.receipt.first_timestamp.is_some())
        };
        let known = |at: usize| self.ends.get(at).copied().flatten().filter(|_| !delivered(at));
        Self { ends: (0..joined.sources.len()).map(known).collect(), account: joined, repaired: false }
    }
}

impl Account {
    /// Nothing is delivered while there is no worker.
    pub fn orphan(&mut self, reason: &str) {
        for source in &mut self.sources {
            source.state = SourceState::Degraded;
            reason.clone_into(&mut source.reason);
        }
    }
}

fn gap(begin: WallTime, end: WallTime, origin: Option<WallTime>) -> Gap {
    let seconds = |from: WallTime, to: WallTime| to.nanos_since(from) as f64 / 1e9;
    Gap {
        start_seconds: origin.map_or(0.0, |origin| seconds(origin, begin)),
        duration_seconds: seconds(begin, end),
        missed: 0,
        reason: GapReason::Restart,
    }
}

/// `new` goes on where `old` ended.
fn join(old: &SourceReceipt, new: &SourceReceipt, gap: Option<Gap>) -> SourceReceipt {
    let gaps = old.gaps.iter().chain(&gap).chain(&new.gaps);
    SourceReceipt {
        captured: old.captured.saturating_add(new.captured),
        written: old.written.saturating_add(new.written),
        dropped: old.dropped.saturating_add(new.dropped),
        lost: old.lost.saturating_add(new.lost),
        missed: old.missed.saturating_add(new.missed),
        filled: old.filled.saturating_add(new.filled),
        corrupt: old.corrupt.saturating_add(new.corrupt),
        at_least: old.at_least || new.at_least,
        format: if new.format.is_empty() { old.format.clone() } else { new.format.clone() },
        first_timestamp: old.first_timestamp.or(new.first_timestamp),
        last_timestamp: new.last_timestamp.or(old.last_timestamp),
        timestamp_source: new.timestamp_source.or(old.timestamp_source),
        gaps: gaps.take(GAPS_MAX).cloned().collect(),
        restarts: old.restarts.saturating_add(new.restarts).saturating_add(1),
        ..new.clone()
    }
}
