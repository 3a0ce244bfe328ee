//! One instant by both clocks.

use serde::{Deserialize, Serialize};

use super::{Clock, MonoTime, WallTime};

/// One instant by the monotonic and the wall clock: how every time of a session becomes wall time, so that
/// a step of the wall clock in mid-session changes none of them. Of no meaning after a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The instant by `CLOCK_MONOTONIC`.
    pub mono: MonoTime,
    /// The same by `CLOCK_REALTIME`.
    pub wall: WallTime,
}

impl Anchor {
    /// The present instant.
    pub fn now(clock: &(impl Clock + ?Sized)) -> Self {
        Self { mono: clock.now(), wall: clock.wall() }
    }

    /// The wall clock time of `at`.
    pub fn wall_at(&self, at: MonoTime) -> WallTime {
        if at > self.mono { self.wall + (at - self.mono) } else { self.wall - (self.mono - at) }
    }
}
