//! A worker has died, or is ended because it hangs: a new one goes on with the session, and what the dead
//! one left is repaired meanwhile.

use std::time::Duration;

use super::{Action, Force, Machine, Phase};
use crate::clock::MonoTime;
use crate::session::EndReason;

/// The longest wait before a restart is the shortest, doubled so often.
const BACKOFF_DOUBLINGS_MAX: u8 = 4;

impl Machine {
    /// A worker that hangs is ended, and then counts as one that has died.
    pub(super) fn on_silent(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        if self.phase == Phase::Working {
            self.phase = Phase::Restarting;
            self.harder(now, todo);
        }
    }

    /// The worker has died with restarts left.
    pub(super) fn restart(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        self.unrepaired = true;
        self.phase = Phase::Restarting;
        self.arm(now + self.backoff(), todo);
        self.restarts += 1;
    }

    /// The wait before it is over.
    pub(super) fn launch_anew(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        self.worker = true;
        self.force = Force::Asked;
        todo.push(Action::Launch);
        self.arm(now + self.limits.start, todo);
    }

    /// A new worker has lasted.
    pub(super) fn on_steady(&mut self, todo: &mut Vec<Action>) {
        self.restarts = 0;
        self.disarm(todo);
    }

    /// A worker that can't be ended may hold its devices: no other could open them.
    pub(super) fn give_up_restarting(&mut self, todo: &mut Vec<Action>) {
        if self.phase == Phase::Restarting {
            self.cause.get_or_insert(EndReason::WorkerFailed);
            self.kept = true;
            self.phase = Phase::Ending;
            self.journal_stop(todo);
        }
    }

    /// The first new worker is started at once; a session whose workers go on dying waits longer each time.
    fn backoff(&self) -> Duration {
        match self.restarts {
            0 => Duration::ZERO,
            again => self.limits.backoff * (1 << (again - 1).min(BACKOFF_DOUBLINGS_MAX)),
        }
    }

    /// While a new worker works, what the dead ones left is repaired beside it. Before it works it is not
    /// known yet which files are its own.
    pub(super) fn repair_if_due(&mut self, todo: &mut Vec<Action>) {
        let due = matches!(self.phase, Phase::Working | Phase::Repairing);
        if due && self.unrepaired && !self.repairing {
            self.unrepaired = false;
            self.repairing = true;
            todo.push(Action::Repair);
        }
    }

    /// The last worker is gone: the receipt follows once every file is final.
    pub(super) fn repair_and_close(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        if !self.unrepaired && !self.repairing {
            return self.close(now, todo);
        }
        // A second repair gets what the first has left of the time.
        if self.phase != Phase::Repairing {
            self.phase = Phase::Repairing;
            self.arm(now + self.limits.repair, todo);
        }
        self.repair_if_due(todo);
    }

    pub(super) fn on_repaired(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.repairing, false) {
            return;
        }
        if self.phase == Phase::Repairing {
            self.repair_and_close(now, todo);
        } else {
            self.repair_if_due(todo);
        }
    }
}
