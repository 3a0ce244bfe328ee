//! Which media of finished sessions goes next, and why. Media of a session that runs is none of it.

use super::{Receipt, RemovalReason, RemovalState, SessionId};
use crate::clock::WallTime;

/// The media of a finished session that was not removed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMedia {
    /// Whose it is.
    pub session: SessionId,
    /// When it became final.
    pub finished_at: Option<WallTime>,
    /// Bytes of its files.
    pub bytes: u64,
    /// Why it is to go, once that is settled.
    pub removal: Option<RemovalReason>,
}

impl KeptMedia {
    /// What a finished session has; `None` when it has no media, or has none any more. Media that no repair
    /// could count is in no receipt: only its session can have it removed.
    pub fn of(receipt: &Receipt) -> Option<Self> {
        let has_media = match receipt.removal.as_ref().map(|removal| removal.state) {
            Some(RemovalState::Pending) => true,
            Some(RemovalState::Removed) => false,
            None => !receipt.files.is_empty(),
        };
        has_media.then(|| Self {
            session: receipt.session_id.clone(),
            finished_at: receipt.finalized_at,
            bytes: receipt.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add),
            removal: receipt.removal.as_ref().map(|removal| removal.reason),
        })
    }
}

/// The media that is to be removed next, and why; `None` when all may stay. Of `kept`, `may_go` leaves
/// out what can't go now, since somebody reads it.
pub fn next_removal(
    kept: &[KeptMedia],
    may_go: impl Fn(&KeptMedia) -> bool,
) -> Option<(&KeptMedia, RemovalReason)> {
    kept.iter().filter(|media| may_go(media)).find_map(|media| Some((media, media.removal?)))
}
