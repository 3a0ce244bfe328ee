//! A clock that stands still until it is moved.

use std::sync::Mutex;
use std::time::Duration;

use super::{Clock, MonoTime, WallTime};

/// A clock for tests: monotonic time moves by [`SimulatedClock::advance`], wall time moves with it
/// and can be stepped apart from it.
#[derive(Debug)]
pub struct SimulatedClock {
    hands: Mutex<(MonoTime, WallTime)>,
}

impl SimulatedClock {
    /// A clock that shows `wall`, one second after boot.
    pub fn at(wall: WallTime) -> Self {
        Self { hands: Mutex::new((MonoTime::from_nanos(1_000_000_000), wall)) }
    }

    /// Moves both clocks on by `length`.
    pub fn advance(&self, length: Duration) {
        let mut hands = self.lock();
        *hands = (hands.0 + length, hands.1 + length);
    }

    /// Sets the wall clock, as an operator or a time server would.
    pub fn step_wall(&self, wall: WallTime) {
        self.lock().1 = wall;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (MonoTime, WallTime)> {
        self.hands.lock().expect("no holder of this lock can panic")
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> MonoTime {
        self.lock().0
    }

    fn wall(&self) -> WallTime {
        self.lock().1
    }

    fn boot(&self) -> u64 {
        self.now().nanos()
    }
}
