//! Whether a source delivers: how its frames came of late, and from when on their absence is an alarm.

use std::time::Duration;

use crate::clock::MonoTime;

/// Intervals without a frame after which something is wrong.
const INTERVALS_MISSED: u32 = 3;
/// The longest wait for a frame before something else is looked at.
const POLL: Duration = Duration::from_millis(100);

/// The arrivals of one source's frames.
#[derive(Debug)]
pub(super) struct Arrivals {
    last: Option<MonoTime>,
    /// Time between frames of late.
    observed_ns: f64,
    /// Silence that is always borne.
    stall_after: Duration,
}

impl Arrivals {
    /// Of a source whose frames should come each `nominal`.
    pub(super) fn new(nominal: Duration, stall_after: Duration) -> Self {
        Self { last: None, observed_ns: nominal.as_secs_f64() * 1e9, stall_after }
    }

    /// A frame came.
    pub(super) fn came(&mut self, now: MonoTime) {
        if let Some(last) = self.last.replace(now) {
            let interval = now.since(last).as_secs_f64() * 1e9;
            // A stall says nothing of the rate at which the device delivers.
            let interval = interval.min(self.observed_ns * f64::from(INTERVALS_MISSED));
            self.observed_ns += (interval - self.observed_ns) / 16.0;
        }
    }

    /// Nanoseconds between frames as they came of late.
    pub(super) fn observed_ns(&self) -> f64 {
        self.observed_ns
    }

    /// The longest silence that is none to speak of.
    pub(super) fn patience(&self) -> Duration {
        self.stall_after.max(Duration::from_nanos(self.observed_ns as u64) * INTERVALS_MISSED)
    }

    /// Whether nothing has come for too long; a source that never delivered is starting.
    pub(super) fn is_silent(&self, now: MonoTime) -> bool {
        self.last.is_some_and(|last| now.since(last) >= self.patience())
    }

    /// How long a frame is waited for now: not beyond the moment at which its absence is an alarm.
    pub(super) fn wait_until(&self, now: MonoTime) -> MonoTime {
        let poll = now + POLL;
        let alarm = self.last.map(|last| last + self.patience()).filter(|alarm| *alarm > now);
        alarm.map_or(poll, |alarm| alarm.min(poll))
    }
}

#[cfg(test)]
mod tests;
