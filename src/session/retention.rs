//! Which media of finished sessions goes next, and why. Media of a session that runs is none of it.

use std::time::Duration;

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

/// What a host keeps of finished sessions; what is absent is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionLimits {
    /// Media goes when it is that old.
    pub max_age: Option<Duration>,
    /// The oldest goes while all has more bytes.
    pub max_bytes: Option<u64>,
    /// The oldest goes while the disk has fewer bytes free.
    pub min_free_bytes: Option<u64>,
}

/// What a choice is made by.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Now, by the clock that finishes were stamped with.
    pub now: WallTime,
    /// Bytes free on the disk of the media; absent when they aren't known, and then no reason.
    pub free_bytes: Option<u64>,
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

/// The media that is to be removed next, and why; `None` when all may stay. `kept` is in the order of the
/// finishes; `may_go` leaves out what can't go now, since somebody reads it.
pub fn next_removal<'a>(
    kept: &'a [KeptMedia],
    limits: &RetentionLimits,
    room: Room,
    may_go: impl Fn(&KeptMedia) -> bool,
) -> Option<(&'a KeptMedia, RemovalReason)> {
    let free = || kept.iter().filter(|media| may_go(media));
    if let Some(settled) = free().find_map(|media| Some((media, media.removal?))) {
        return Some(settled);
    }
    let too_old = |media: &KeptMedia| {
        let age = media.finished_at.zip(limits.max_age);
        age.is_some_and(|(finished_at, max_age)| finished_at + max_age <= room.now)
    };
    if let Some(media) = free().find(|media| too_old(media)) {
        return Some((media, RemovalReason::MaxAge));
    }
    // What is on its way out already must not take others along.
    let staying = kept.iter().filter(|media| media.removal.is_none());
    let bytes = staying.map(|media| media.bytes).fold(0, u64::saturating_add);
    let reason = if limits.max_bytes.is_some_and(|max| bytes > max) {
        RemovalReason::MaxBytes
    } else if limits.min_free_bytes.zip(room.free_bytes).is_some_and(|(min, free)| free < min) {
        RemovalReason::MinFree
    } else {
        return None;
    };
    free().next().map(|media| (media, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SimulatedClock};

    const HOUR: Duration = Duration::from_secs(3600);

    fn media(name: &str, finished_at: WallTime, bytes: u64) -> KeptMedia {
        let session = name.parse().expect("a valid id");
        KeptMedia { session, finished_at: Some(finished_at), bytes, removal: None }
    }

    /// What goes, in order, when everything that is chosen but for `read` goes at once and gives its bytes
    /// back.
    fn gone(
        mut kept: Vec<KeptMedia>,
        limits: &RetentionLimits,
        mut room: Room,
        read: &str,
    ) -> Vec<(String, RemovalReason)> {
        let mut gone = Vec::new();
        while let Some((media, reason)) =
            next_removal(&kept, limits, room, |media| media.session.as_str() != read)
        {
            let media = media.clone();
            room.free_bytes = room.free_bytes.map(|free| free + media.bytes);
            kept.retain(|it| it.session != media.session);
            gone.push((media.session.to_string(), reason));
        }
        gone
    }

    fn three(now: WallTime) -> Vec<KeptMedia> {
        vec![media("a", now - HOUR * 3, 50), media("b", now - HOUR * 2, 30), media("c", now - HOUR, 20)]
    }

    fn named(names: &[&str], reason: RemovalReason) -> Vec<(String, RemovalReason)> {
        names.iter().map(|name| ((*name).to_owned(), reason)).collect()
    }

    #[test]
    fn without_limits_only_what_its_session_gave_up_goes() {
        let clock = SimulatedClock::at(WallTime::from_nanos(1_777_000_000_000_000_000));
        let room = Room { now: clock.wall(), free_bytes: Some(0) };
        let mut kept = three(clock.wall());
        assert_eq!(gone(kept.clone(), &RetentionLimits::default(), room, ""), []);
        kept[1].removal = Some(RemovalReason::Requested);
        let wanted = named(&["b"], RemovalReason::Requested);
        assert_eq!(gone(kept.clone(), &RetentionLimits::default(), room, ""), wanted);
        assert_eq!(gone(kept, &RetentionLimits::default(), room, "b"), [], "not while it is read");
    }

    #[test]
    fn media_goes_at_its_age_and_not_before() {
        let clock = SimulatedClock::at(WallTime::from_nanos(1_777_000_000_000_000_000));
        let limits = RetentionLimits { max_age: Some(HOUR * 4), ..RetentionLimits::default() };
        let kept = three(clock.wall());
        let at = |read: &str| gone(kept.clone(), &limits, Room { now: clock.wall(), free_bytes: None }, read);
        assert_eq!(at(""), []);
        clock.advance(Duration::from_secs(3599));
        assert_eq!(at(""), []);
        clock.advance(Duration::from_secs(1));
        assert_eq!(at(""), named(&["a"], RemovalReason::MaxAge));
        clock.advance(HOUR);
        assert_eq!(at(""), named(&["a", "b"], RemovalReason::MaxAge));
        assert_eq!(at("a"), named(&["b"], RemovalReason::MaxAge));
    }

    #[test]
    fn the_oldest_finish_goes_while_there_is_too_much_or_too_little_room() {
        let now = WallTime::from_nanos(1_777_000_000_000_000_000);
        // A step of the clock between the finishes changes nothing: their order counts.
        let mut kept = three(now);
        kept[0].finished_at = Some(now + HOUR * 1000);
        let bytes = |max| RetentionLimits { max_bytes: Some(max), ..RetentionLimits::default() };
        let free = |min| RetentionLimits { min_free_bytes: Some(min), ..RetentionLimits::default() };
        let with = |limits: &RetentionLimits, free_bytes, read| {
            gone(kept.clone(), limits, Room { now, free_bytes }, read)
        };
        let check = |limits: RetentionLimits, free_bytes, read, wanted: &[&str], reason| {
            let wanted = named(wanted, reason);
            assert_eq!(with(&limits, free_bytes, read), wanted, "{limits:?} {free_bytes:?} {read:?}");
        };
        check(bytes(100), Some(0), "", &[], RemovalReason::MaxBytes);
        check(bytes(99), Some(0), "", &["a"], RemovalReason::MaxBytes);
        check(bytes(49), None, "", &["a", "b"], RemovalReason::MaxBytes);
        check(bytes(99), None, "a", &["b"], RemovalReason::MaxBytes);
        check(free(10), Some(10), "", &[], RemovalReason::MinFree);
        check(free(10), Some(9), "", &["a"], RemovalReason::MinFree);
        check(free(70), Some(0), "", &["a", "b"], RemovalReason::MinFree);
        check(free(10), Some(0), "a", &["b"], RemovalReason::MinFree);
        check(free(1000), None, "", &[], RemovalReason::MinFree);
    }

    #[test]
    fn what_is_on_its_way_out_takes_no_other_along() {
        let now = WallTime::from_nanos(1_777_000_000_000_000_000);
        let limits = RetentionLimits { max_bytes: Some(60), ..RetentionLimits::default() };
        let mut kept = three(now);
        kept[0].removal = Some(RemovalReason::Requested);
        assert_eq!(gone(kept, &limits, Room { now, free_bytes: None }, "a"), []);
    }
}
