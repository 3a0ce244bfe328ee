//! Which media of finished sessions goes next, and why. Media of a session that runs is none of it.

use std::path::{Path, PathBuf};
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
    /// The directory of its files; absent when none was counted.
    pub dir: Option<PathBuf>,
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
    /// The time by which ages are judged; absent when none can be, and then no reason.
    pub now: Option<WallTime>,
    /// Bytes free on the disk of the media; absent when they aren't known, and then no reason.
    pub free_bytes: Option<u64>,
}

/// What keeps media that would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing.
    Nothing,
    /// Somebody reads it, or its session isn't over: it can go soon.
    Use,
    /// It could not be removed, or is not where it should be: nobody knows when it goes, or whether it takes
    /// up room here.
    PutOff,
}

impl KeptMedia {
    /// What a finished session has; `None` when it has no media, or has none any more. A forced end may have
    /// left media that no repair could count, which is in no receipt.
    pub fn of(receipt: &Receipt) -> Option<Self> {
        let has_media = match receipt.removal.as_ref().map(|removal| removal.state) {
            Some(RemovalState::Pending) => true,
            Some(RemovalState::Removed) => false,
            None => !receipt.files.is_empty() || receipt.forced,
        };
        let dir = receipt.files.first().and_then(|file| Path::new(&file.path).parent());
        has_media.then(|| Self {
            session: receipt.session_id.clone(),
            finished_at: receipt.finalized_at,
            bytes: receipt.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add),
            dir: dir.map(Path::to_owned),
            removal: receipt.removal.as_ref().map(|removal| removal.reason),
        })
    }
}

/// The media that is to be removed next, and why; `None` when all may stay. `kept` is in the order of the
/// finishes.
pub fn next_removal<'a>(
    kept: &'a [KeptMedia],
    limits: &RetentionLimits,
    room: Room,
    hold: impl Fn(&KeptMedia) -> Hold,
) -> Option<(&'a KeptMedia, RemovalReason)> {
    let free = || kept.iter().filter(|media| hold(media) == Hold::Nothing);
    if let Some(settled) = free().find_map(|media| Some((media, media.removal?))) {
        return Some(settled);
    }
    let too_old = |media: &KeptMedia| {
        let age = media.finished_at.zip(limits.max_age).zip(room.now);
        age.is_some_and(|((finished_at, max_age), now)| finished_at + max_age <= now)
    };
    if let Some(media) = free().find(|media| too_old(media)) {
        return Some((media, RemovalReason::MaxAge));
    }
    // What is on its way out already must not take others along, and neither must what can't go.
    let (leaving, staying) = bytes_here(kept, &hold);
    let reason = if limits.max_bytes.is_some_and(|max| staying > max) {
        RemovalReason::MaxBytes
    } else if is_short(limits, room, leaving) && !is_short(limits, room, leaving.saturating_add(staying)) {
        RemovalReason::MinFree
    } else {
        return None;
    };
    free().find(|media| media.bytes > 0).map(|media| (media, reason))
}

/// Whether the disk would have too little room without any media, too. Then none is removed in vain.
pub fn is_out_of_reach(
    kept: &[KeptMedia],
    limits: &RetentionLimits,
    room: Room,
    hold: impl Fn(&KeptMedia) -> Hold,
) -> bool {
    let (leaving, staying) = bytes_here(kept, &hold);
    is_short(limits, room, leaving.saturating_add(staying))
}

/// Bytes that are known to take up room, of media that is on its way out and of the rest.
fn bytes_here(kept: &[KeptMedia], hold: impl Fn(&KeptMedia) -> Hold) -> (u64, u64) {
    let here = kept.iter().filter(|media| hold(media) != Hold::PutOff);
    here.fold((0, 0), |(leaving, staying): (u64, u64), media| match media.removal {
        Some(_) => (leaving.saturating_add(media.bytes), staying),
        None => (leaving, staying.saturating_add(media.bytes)),
    })
}

/// Whether the disk has too few bytes free, when it gets `back` some.
fn is_short(limits: &RetentionLimits, room: Room, back: u64) -> bool {
    let short = limits.min_free_bytes.zip(room.free_bytes);
    short.is_some_and(|(min, free)| free.saturating_add(back) < min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SimulatedClock};

    const HOUR: Duration = Duration::from_secs(3600);

    fn media(name: &str, finished_at: WallTime, bytes: u64) -> KeptMedia {
        let session = name.parse().expect("a valid id");
        KeptMedia { session, finished_at: Some(finished_at), bytes, dir: None, removal: None }
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
        let hold = |media: &KeptMedia| if media.session.as_str() == read { Hold::Use } else { Hold::Nothing };
        while let Some((media, reason)) = next_removal(&kept, limits, room, hold) {
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
        let room = Room { now: Some(clock.wall()), free_bytes: Some(0) };
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
        let at = |read: &str| {
            gone(kept.clone(), &limits, Room { now: Some(clock.wall()), free_bytes: None }, read)
        };
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
            gone(kept.clone(), limits, Room { now: Some(now), free_bytes }, read)
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
        check(free(100), Some(0), "", &["a", "b", "c"], RemovalReason::MinFree);
        check(free(101), Some(0), "", &[], RemovalReason::MinFree);
        let out_of_reach = |min| {
            let room = Room { now: None, free_bytes: Some(0) };
            is_out_of_reach(&kept, &free(min), room, |_| Hold::Nothing)
        };
        assert!(!out_of_reach(100) && out_of_reach(101));
    }

    #[test]
    fn media_that_no_repair_could_count_goes_by_its_age_alone() {
        let now = WallTime::from_nanos(1_777_000_000_000_000_000);
        let mut kept = three(now);
        kept[0].bytes = 0;
        let room = Room { now: Some(now), free_bytes: None };
        let bytes = RetentionLimits { max_bytes: Some(49), ..RetentionLimits::default() };
        assert_eq!(gone(kept.clone(), &bytes, room, ""), named(&["b"], RemovalReason::MaxBytes));
        let age = RetentionLimits { max_age: Some(HOUR * 3), ..RetentionLimits::default() };
        assert_eq!(gone(kept, &age, room, ""), named(&["a"], RemovalReason::MaxAge));
    }

    #[test]
    fn media_that_can_not_go_takes_no_other_along() {
        let now = WallTime::from_nanos(1_777_000_000_000_000_000);
        let put_off = |media: &KeptMedia| match media.session.as_str() {
            "a" => Hold::PutOff,
            _ => Hold::Nothing,
        };
        for removal in [None, Some(RemovalReason::MaxBytes)] {
            let mut kept = three(now);
            kept[0].removal = removal;
            let next = |limits: &RetentionLimits, free_bytes| {
                let next = next_removal(&kept, limits, Room { now: None, free_bytes }, put_off);
                next.map(|(media, reason)| (media.session.as_str(), reason))
            };
            let bytes = RetentionLimits { max_bytes: Some(50), ..RetentionLimits::default() };
            assert_eq!(next(&bytes, None), None, "50 bytes are left, whatever became of the others");
            let free = |min| RetentionLimits { min_free_bytes: Some(min), ..RetentionLimits::default() };
            assert_eq!(next(&free(50), Some(0)), Some(("b", RemovalReason::MinFree)));
            assert_eq!(next(&free(51), Some(0)), None, "what can't go gives no room");
        }
    }

    #[test]
    fn what_is_on_its_way_out_takes_no_other_along() {
        let now = WallTime::from_nanos(1_777_000_000_000_000_000);
        let limits = RetentionLimits { max_bytes: Some(60), ..RetentionLimits::default() };
        let mut kept = three(now);
        kept[0].removal = Some(RemovalReason::Requested);
        assert_eq!(gone(kept.clone(), &limits, Room { now: Some(now), free_bytes: None }, "a"), []);
        let limits = RetentionLimits { min_free_bytes: Some(50), ..RetentionLimits::default() };
        assert_eq!(gone(kept, &limits, Room { now: None, free_bytes: Some(0) }, "a"), []);
    }
}
