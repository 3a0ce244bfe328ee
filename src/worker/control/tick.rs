//! What no event tells a worker: that time has passed.

use std::time::Duration;

use super::{Control, Stage};
use crate::clock::{Clock, SystemClock};
use crate::session::{EndReason, SourceState};

/// After the stop, a device that isn't closed by this time is left to the end of the process.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(700);
/// How much longer than 1.5 frame intervals a slow source gets for that.
const CLOSE_MARGIN: Duration = Duration::from_millis(200);
/// How much longer than a stall it takes until a driver counts as hanging.
const HANG_MARGIN: Duration = Duration::from_millis(500);

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
        let overdue = self.stop_ordered_at.is_some_and(|at| {
            SystemClock.now().since(at)
                > CLOSE_TIMEOUT.max(self.sources.longest_interval().mul_f64(1.5) + CLOSE_MARGIN)
        });
        match self.stage {
            // A device that hangs is released by the end of this process; that is when it is told.
            Stage::Draining if overdue => {
                tracing::warn!("a device doesn't close; it is left to the end of this process");
                self.ledger
                    .warn("a device did not close in time: it was released by ending its process".to_owned());
                self.finalize();
            }
            Stage::Failing if overdue => self.give_up(),
            Stage::Working | Stage::Draining | Stage::Finalizing => {
                self.reports.tick(&mut self.connection, &self.ledger, &self.queue);
            }
            _ => {}
        }
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
                tracing::warn!(device = %self.settings.sources[source].device.label, "source hangs in its driver");
                self.reports.send(&mut self.connection, &self.ledger, &self.queue);
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
}
