//! The clocks of the host.

use rustix::time::{ClockId, clock_gettime};

use super::{Clock, MonoTime, WallTime};

/// `CLOCK_MONOTONIC` and `CLOCK_REALTIME` of the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).expect("clocks that count from boot start at zero");
    let nanos = u64::try_from(time.tv_nsec).expect("nanoseconds of a second are positive");
    seconds * 1_000_000_000 + nanos
}

impl Clock for SystemClock {
    fn now(&self) -> MonoTime {
        MonoTime::from_nanos(nanos(ClockId::Monotonic))
    }

    fn wall(&self) -> WallTime {
        let time = clock_gettime(ClockId::Realtime);
        WallTime::from_nanos(i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec))
    }

    fn boot(&self) -> u64 {
        nanos(ClockId::Boottime)
    }
}
