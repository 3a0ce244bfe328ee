//! What a worker will do: mostly what it should.

use std::time::Duration;

use super::seeds::Chance;
use super::world::millis;
use crate::session::EndReason;

/// What it will do.
pub(super) struct Plan {
    pub(super) dials_after: Duration,
    pub(super) works_after: Duration,
    pub(super) start: Start,
    /// From the first frame on.
    pub(super) crashes_after: Option<Duration>,
    pub(super) hangs_after: Option<Duration>,
    pub(super) ends_after: Option<(Duration, EndReason)>,
    pub(super) loses_link_after: Option<Duration>,
    pub(super) drains_for: Duration,
    pub(super) end: Ends,
    pub(super) minds_term: bool,
    /// How long SIGKILL doesn't end it; for ever, until the host is healed, if absent.
    pub(super) outlives_kill: Option<Duration>,
    pub(super) link_goes_first: bool,
    pub(super) repeats: bool,
    pub(super) lies: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Start {
    Works,
    Fails,
    Crashes,
    Hangs,
    WrongVersion,
    NeverDials,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Ends {
    Well,
    Hangs,
    Crashes,
    CrashesReleased,
    Unheard,
}

impl Plan {
    pub(super) fn draw(chance: &mut Chance, calm: bool) -> Self {
        let rarely = |chance: &mut Chance, times, range: std::ops::Range<u64>| {
            (chance.once_in(times) && !calm).then(|| millis(chance, range))
        };
        let start = match chance.within(0..24) {
            _ if calm => Start::Works,
            0 => Start::Fails,
            1 => Start::Crashes,
            2 => Start::Hangs,
            3 => Start::WrongVersion,
            4 => Start::NeverDials,
            _ => Start::Works,
        };
        let end = match chance.within(0..12) {
            _ if calm => Ends::Well,
            0 => Ends::Hangs,
            1 => Ends::Crashes,
            2 => Ends::CrashesReleased,
            3 => Ends::Unheard,
            _ => Ends::Well,
        };
        let reason = chance.one_of(&[EndReason::DiskFull, EndReason::SourceLost, EndReason::WorkerFailed]);
        let (slow, never) = (chance.once_in(6), chance.once_in(8));
        Self {
            dials_after: millis(chance, if slow { 0..4000 } else { 0..20 }),
            works_after: millis(chance, if slow { 0..9000 } else { 5..300 }),
            start,
            crashes_after: rarely(chance, 5, 0..20_000),
            hangs_after: rarely(chance, 10, 0..20_000),
            ends_after: rarely(chance, 8, 0..20_000).map(|after| (after, reason)),
            loses_link_after: rarely(chance, 5, 0..20_000),
            drains_for: millis(chance, if slow { 0..11_000 } else { 0..300 }),
            end,
            minds_term: !chance.once_in(4),
            outlives_kill: if never && !calm {
                None
            } else {
                Some(millis(chance, 0..if slow { 1500 } else { 5 }))
            },
            link_goes_first: chance.once_in(2),
            repeats: chance.once_in(5),
            lies: chance.once_in(15) && !calm,
        }
    }
}
