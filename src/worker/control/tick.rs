//! What no event tells a worker: that time has passed.

use std::time::Duration;

use super::{Control, Stage};
use crate::clock::{Clock, Step, SystemClock};
use crate::session::{EndReason, Gap, GapReason, SourceState};

/// After the stop, a device that hasn't answered for this long is left to the end of the process. One that
/// answers is behind with what it has captured, and goes on until the stop.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(700);
/// How much longer than 1.5 frame intervals a slow source gets for that.
const CLOSE_MARGIN: Duration = Duration::from_millis(200);
/// How much longer than a stall it takes until a driver counts as hanging.
const HANG_MARGIN: Duration = Duration::from_millis(500);
/// The longest that two clocks may be read apart.
const LOOK_MAX: Duration = Duration::from_millis(10);

impl Control {
    /// Looks at what no event tells: the daemon's absence, the expiry, devices that don't close.
    pub(super) fn tick(&mut self) {
        if self.connection.dial(true) {
            self.tell_again();
        }
        if self.connection.absence() > self.settings.orphan_grace {
            self.end(EndReason::Orphaned, "no daemon");
        }
        if self.settings.expires_at.is_some_and(|at| SystemClock.boot() >= at) {
            self.end(EndReason::Expired, "the session has expired");
        }
        self.look_for_hang();
        self.look_for_loss();
        self.look_at_the_wall_clock();
        match self.stage {
            // A device that hangs is released by the end of this process; that is when it is told.
            Stage::Draining if self.only_hanging_are_open() => {
                for source in self.sources.open() {
                    self.give_up_source(source);
                }
                self.finalize();
            }
            Stage::Failing if self.only_hanging_are_open() => self.give_up(),
            Stage::Working | Stage::Draining | Stage::Finalizing => {
                self.reports.tick(&mut self.connection, &self.ledger, &self.queue);
            }
            _ => {}
        }
    }

    /// Whether the stop has come, and no device that isn't closed has answered since for too long.
    fn only_hanging_are_open(&self) -> bool {
        let Some(ordered) = self.stop_ordered_at else { return false };
        let now = SystemClock.now();
        self.sources.open().into_iter().all(|source| {
            let answered = self.ledger.answered_at(source).map_or(ordered, |at| at.max(ordered));
            let interval = self.sources.interval(source);
            now.since(answered) > CLOSE_TIMEOUT.max(interval.mul_f64(1.5) + CLOSE_MARGIN)
        })
    }

    /// A device hangs at the end: what it has delivered is kept, and what is missing is told.
    fn give_up_source(&self, source: usize) {
        let device = &self.settings.sources[source].device.label;
        tracing::warn!(%device, "a device doesn't close; it is left to the end of this process");
        let silence = self.ledger.end(source).zip(self.stop.get());
        if let Some((end, stop)) = silence.filter(|(end, stop)| stop.since(*end) > self.settings.stall_after)
        {
            let gap = Gap {
                start_seconds: self.ledger.seconds_at(end),
                duration_seconds: stop.since(end).as_secs_f64(),
                missed: 0,
                reason: GapReason::Stalled,
            };
            self.ledger.gap(source, gap);
        }
        self.ledger.give_up(source);
        self.ledger.warn(format!("{device} did not close in time: it was released by ending its process"));
    }

    /// A capturing thread tells of its own silence, unless it hangs in the driver; then this is told here.
    fn look_for_hang(&mut self) {
        if self.stage != Stage::Working {
            return;
        }
        let now = SystemClock.now();
        for source in 0..self.settings.sources.len() {
            let limit = self.settings.stall_after + HANG_MARGIN;
            let silent = self.ledger.answered_at(source).is_some_and(|at| now.since(at) > limit);
            let working = self.ledger.state(source) == SourceState::Working;
            if silent
                && working
                && self.ledger.turn(source, SourceState::Degraded, "the device's driver does not answer")
            {
                tracing::warn!(device = %self.settings.sources[source].device.label, "a source's driver does not answer");
                self.reports.send(&mut self.connection, &self.ledger, &self.queue);
            }
        }
    }

    /// Devices may have come or gone: who waits for one looks now.
    pub(super) fn have_lost_tried(&self) {
        for (source, wake) in self.wakes.iter().enumerate() {
            if self.ledger.state(source) == SourceState::Degraded {
                wake.ring();
            }
        }
    }

    /// Ends the session when every source has been lost for too long.
    pub(super) fn look_for_loss(&mut self) {
        let count = self.settings.sources.len();
        let delivers =
            |source| matches!(self.ledger.state(source), SourceState::Working | SourceState::Starting);
        if self.stage != Stage::Working || (0..count).any(delivers) {
            self.all_lost_since = None;
            return;
        }
        let since = *self.all_lost_since.get_or_insert(SystemClock.now());
        if SystemClock.now().since(since) > self.settings.source_lost_after {
            self.end(EndReason::SourceLost, "no source has delivered for too long");
        }
    }

    /// A step of the wall clock changes nothing that is recorded, but times beside it no longer agree with it.
    fn look_at_the_wall_clock(&mut self) {
        let boot_ns = SystemClock.boot();
        let wall = SystemClock.wall();
        // Held up between the two, this thread can't tell how they stand to each other.
        if Duration::from_nanos(SystemClock.boot() - boot_ns) > LOOK_MAX {
            return;
        }
        let (direction, length) = match self.wall_steps.look(boot_ns, wall) {
            None => return,
            Some(Step::Forward(length)) => ("forward", length),
            Some(Step::Back(length)) => ("back", length),
        };
        let seconds = length.as_secs_f64();
        tracing::warn!(direction, seconds, "the host's wall clock was set");
        self.ledger.warn(format!(
            "the host's wall clock was set {direction} by {seconds:.1} s, {:.1} s after the beginning; \
             the times of this session go on from before",
            self.ledger.seconds_at(SystemClock.now())
        ));
    }
}
