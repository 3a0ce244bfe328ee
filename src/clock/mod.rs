//! Time as the whole program uses it: monotonic nanoseconds for every decision, wall time for people.
//! Must never let a wall clock decide anything; a step of it changes names and receipts, not recordings.

mod anchor;
mod simulated;
mod steps;
mod system;
mod wall;

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use anchor::Anchor;
pub use simulated::SimulatedClock;
pub use steps::{Step, Steps};
pub use system::SystemClock;
pub use wall::{ParseWallError, WallTime};

/// A point of `CLOCK_MONOTONIC` in nanoseconds since boot (`clock_gettime(2)`): the same in every
/// process of the host, never set, never stepped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MonoTime(u64);

/// What tells the time; handed in wherever time is read, so that tests can move it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present point of the monotonic clock.
    fn now(&self) -> MonoTime;
    /// The present wall clock time.
    fn wall(&self) -> WallTime;
    /// `CLOCK_BOOTTIME` in nanoseconds: as monotonic, but it goes on while the host is suspended.
    fn boot(&self) -> u64;

    /// The wall clock time at which the monotonic clock showed `at`, by the present offset of the two.
    fn wall_at(&self, at: MonoTime) -> WallTime {
        Anchor { mono: self.now(), wall: self.wall() }.wall_at(at)
    }
}

impl MonoTime {
    /// The point `ns` nanoseconds after boot.
    pub const fn from_nanos(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since boot.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// How long `earlier` lies before this point; zero when it lies after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for MonoTime {
    type Output = Self;

    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for MonoTime {
    type Output = Self;

    fn sub(self, length: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for MonoTime {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}
