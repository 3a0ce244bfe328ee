//! The transitions, one function for each thing that can happen.

use super::{Action, Event, Force, Machine, Phase, StartOutcome, StopMode, StopRecord};
use crate::clock::MonoTime;
use crate::session::EndReason;

impl Machine {
    /// Takes what happened at `now` and says what is to be done, in this order. A session that is
    /// over is silent.
    pub fn step(&mut self, now: MonoTime, event: Event) -> Vec<Action> {
        if self.is_over() {
            return Vec::new();
        }
        let before = (self.public_state(), self.worker_state());
        let mut todo = Vec::new();
        match event {
            Event::StartJournalled => self.on_start_journalled(&mut todo),
            Event::StartNotJournalled => self.on_start_not_journalled(&mut todo),
            Event::LaunchFailed => self.on_launch_failed(now, &mut todo),
            Event::Linked => self.on_linked(&mut todo),
            Event::LinkLost => self.linked = false,
            Event::Working => self.on_working(now, &mut todo),
            Event::StartFailed => self.on_start_failed(now, &mut todo),
            Event::Silent => self.on_silent(now, &mut todo),
            Event::Degraded(degraded) => self.degraded = degraded,
            Event::StopRequested { reason, mode, drain } => {
                let drain = drain.unwrap_or(self.limits.drain);
                let longest = match mode {
                    StopMode::Drain => drain,
                    StopMode::Abort => drain.min(self.limits.term),
                };
                let deadline = now + longest;
                self.on_stop(reason, mode, now, deadline, &mut todo);
            }
            Event::WorkerEnds(reason) => self.on_worker_ends(reason, now, &mut todo),
            Event::StopJournalled => self.on_stop_journalled(&mut todo),
            Event::Released => self.on_released(now, &mut todo),
            Event::Accounted => self.accounted |= self.phase == Phase::Ending,
            Event::Exited => self.on_exited(now, &mut todo),
            Event::Repaired => self.on_repaired(now, &mut todo),
            Event::FinishJournalled => self.on_finish_journalled(&mut todo),
            Event::DeadlinePassed => self.on_deadline(now, &mut todo),
        }
        if before != (self.public_state(), self.worker_state()) {
            todo.push(Action::Publish);
        }
        todo
    }

    fn on_start_journalled(&mut self, todo: &mut Vec<Action>) {
        if self.phase == Phase::Admitted {
            self.phase = Phase::Starting;
            self.worker = true;
            todo.push(Action::Launch);
        }
    }

    fn on_start_not_journalled(&mut self, todo: &mut Vec<Action>) {
        if self.phase == Phase::Admitted {
            self.cause.get_or_insert(EndReason::StartFailed);
            self.discard(todo);
        }
    }

    /// Without a process there are no files that a repair could find.
    fn on_launch_failed(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        self.accounted |= self.worker && matches!(self.phase, Phase::Starting | Phase::Ending);
        self.on_exited(now, todo);
    }

    fn on_linked(&mut self, todo: &mut Vec<Action>) {
        self.linked = self.worker;
        if self.stop_ordered {
            self.send_stop(todo);
        }
    }

    fn on_working(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        match self.phase {
            Phase::Starting => {
                self.phase = Phase::Working;
                self.disarm(todo);
                self.answer_start(StartOutcome::Working, todo);
            }
            // One that is being ended already doesn't count.
            Phase::Restarting if self.worker && self.force == Force::Asked => {
                self.phase = Phase::Working;
                self.arm(now + self.limits.steady, todo);
                self.repair_if_due(todo);
            }
            // One that was taken up says so again: now it is known which files are its own.
            Phase::Working => self.repair_if_due(todo),
            _ => {}
        }
    }

    /// The worker ends itself; its exit is waited for, and then the session is discarded. One that was
    /// recovered was perhaps still starting: it is kept, since somebody may know of it.
    fn on_start_failed(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        match self.phase {
            Phase::Starting => {
                self.cause.get_or_insert(EndReason::StartFailed);
                self.phase = Phase::Ending;
                self.accounted = true;
                self.arm(now + self.limits.term, todo);
            }
            Phase::Working => self.on_worker_ends(EndReason::StartFailed, now, todo),
            // Its exit is waited for; then it is tried again.
            Phase::Restarting if self.worker && self.force == Force::Asked => {
                self.arm(now + self.limits.term, todo);
            }
            Phase::Ending => self.accounted = true,
            _ => {}
        }
    }

    fn on_stop(
        &mut self,
        reason: EndReason,
        mode: StopMode,
        now: MonoTime,
        deadline: MonoTime,
        todo: &mut Vec<Action>,
    ) {
        self.kept = true;
        self.cause.get_or_insert(reason);
        let harder = mode == StopMode::Abort && !self.abort;
        self.abort |= harder;
        match self.phase {
            Phase::Admitted => {
                self.answer_start(StartOutcome::Stopped, todo);
                self.release(todo);
                self.close(now, todo);
            }
            Phase::Restarting if !self.worker => {
                self.died = true;
                self.release(todo);
                self.journal_stop(todo);
                self.repair_and_close(now, todo);
            }
            Phase::Starting | Phase::Working | Phase::Restarting => {
                self.phase = Phase::Ending;
                self.order_stop(todo);
                self.journal_stop(todo);
                if self.force == Force::Asked {
                    self.arm(deadline, todo);
                }
                self.answer_start(StartOutcome::Stopped, todo);
            }
            Phase::Ending => {
                if harder || !self.stop_ordered {
                    self.order_stop(todo);
                }
                self.journal_stop(todo);
                if self.force == Force::Asked && self.deadline.is_none_or(|armed| deadline < armed) {
                    self.arm(deadline, todo);
                }
                self.answer_start(StartOutcome::Stopped, todo);
                self.answer_released(todo);
                if self.force == Force::Stuck {
                    todo.push(Action::AnswerStuck);
                }
            }
            Phase::Repairing => {
                self.journal_stop(todo);
                self.answer_released(todo);
            }
            Phase::Closing | Phase::Finished | Phase::Discarded => self.answer_released(todo),
        }
    }

    fn on_worker_ends(&mut self, reason: EndReason, now: MonoTime, todo: &mut Vec<Action>) {
        // A new worker that is being ended says why it ends, which is not why the session would.
        let told = self.phase == Phase::Restarting && self.worker && self.force == Force::Asked;
        if told || matches!(self.phase, Phase::Starting | Phase::Working) {
            self.kept = true;
            self.cause.get_or_insert(reason);
            self.phase = Phase::Ending;
            self.journal_stop(todo);
            self.arm(now + self.limits.drain, todo);
            self.answer_start(StartOutcome::Stopped, todo);
        }
    }

    fn on_stop_journalled(&mut self, todo: &mut Vec<Action>) {
        if self.stop_record == StopRecord::Asked {
            self.stop_record = StopRecord::Durable;
            self.answer_released(todo);
        }
    }

    /// A worker that closed its last device without being told to has ended, whatever it says. While
    /// it starts it may still open one again; its exit tells.
    fn on_released(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        if self.phase == Phase::Working {
            self.on_worker_ends(EndReason::WorkerFailed, now, todo);
        }
        if self.phase == Phase::Ending {
            self.release(todo);
        }
    }

    fn on_exited(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        if !self.worker {
            return;
        }
        self.worker = false;
        self.linked = false;
        match self.phase {
            Phase::Starting => {
                self.cause.get_or_insert(EndReason::StartFailed);
                self.discard(todo);
            }
            Phase::Ending if self.cause == Some(EndReason::StartFailed) && !self.kept => self.discard(todo),
            Phase::Working | Phase::Restarting if self.restarts < self.limits.restarts => {
                self.restart(now, todo);
            }
            Phase::Working | Phase::Restarting | Phase::Ending => {
                self.cause.get_or_insert(EndReason::WorkerFailed);
                self.died = !self.accounted;
                self.unrepaired |= self.died;
                self.release(todo);
                self.repair_and_close(now, todo);
            }
            _ => {}
        }
    }

    fn on_finish_journalled(&mut self, todo: &mut Vec<Action>) {
        if self.phase == Phase::Closing {
            self.finish(todo);
        }
    }

    fn on_deadline(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.phase {
            Phase::Admitted => {
                self.cause.get_or_insert(EndReason::StartFailed);
                self.discard(todo);
            }
            Phase::Starting => {
                self.cause.get_or_insert(EndReason::StartFailed);
                self.phase = Phase::Ending;
                self.harder(now, todo);
            }
            Phase::Ending => self.harder(now, todo),
            Phase::Repairing => {
                self.repairing = false;
                todo.push(Action::CancelRepair);
                self.close(now, todo);
            }
            Phase::Closing => self.finish(todo),
            Phase::Working => self.on_steady(todo),
            Phase::Restarting if self.worker => self.harder(now, todo),
            Phase::Restarting => self.launch_anew(now, todo),
            Phase::Finished | Phase::Discarded => self.disarm(todo),
        }
    }

    /// The worker missed its deadline: the next step of the ladder.
    pub(super) fn harder(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        match self.force {
            Force::Asked => {
                self.force = Force::Terminated;
                todo.push(Action::Terminate);
                self.arm(now + self.limits.term, todo);
            }
            Force::Terminated => {
                self.force = Force::Killed;
                todo.push(Action::Kill);
                self.arm(now + self.limits.kill, todo);
            }
            Force::Killed => {
                self.force = Force::Stuck;
                self.give_up_restarting(todo);
                self.disarm(todo);
                self.answer_start(StartOutcome::Failed, todo);
                todo.push(Action::AnswerStuck);
            }
            Force::Stuck => self.disarm(todo),
        }
    }

    fn discard(&mut self, todo: &mut Vec<Action>) {
        self.release(todo);
        self.disarm(todo);
        self.phase = Phase::Discarded;
        todo.push(Action::Discard);
        self.answer_start(StartOutcome::Failed, todo);
    }

    pub(super) fn close(&mut self, now: MonoTime, todo: &mut Vec<Action>) {
        self.phase = Phase::Closing;
        todo.push(Action::JournalFinish);
        self.arm(now + self.limits.close, todo);
    }

    fn finish(&mut self, todo: &mut Vec<Action>) {
        self.stop_record = StopRecord::Durable;
        self.answer_released(todo);
        self.disarm(todo);
        self.phase = Phase::Finished;
        todo.push(Action::AnswerFinished);
    }

    /// Orders the worker to stop, now or as soon as it is linked.
    fn order_stop(&mut self, todo: &mut Vec<Action>) {
        self.stop_ordered = true;
        self.send_stop(todo);
    }

    fn send_stop(&self, todo: &mut Vec<Action>) {
        if self.linked {
            todo.push(Action::SendStop(if self.abort { StopMode::Abort } else { StopMode::Drain }));
        }
    }

    pub(super) fn journal_stop(&mut self, todo: &mut Vec<Action>) {
        if self.stop_record == StopRecord::Absent {
            self.stop_record = StopRecord::Asked;
            todo.push(Action::JournalStop);
        }
    }

    pub(super) fn release(&mut self, todo: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.released, true) {
            todo.push(Action::ReleaseLeases);
            self.answer_released(todo);
        }
    }

    /// Answers who waits for the release, once it has happened and the stop is durable; whoever comes
    /// later is answered at once.
    fn answer_released(&mut self, todo: &mut Vec<Action>) {
        if self.released && self.stop_record == StopRecord::Durable {
            todo.push(Action::AnswerReleased);
        }
    }

    fn answer_start(&mut self, outcome: StartOutcome, todo: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.start_answered, true) {
            todo.push(Action::AnswerStart(outcome));
        }
    }

    pub(super) fn arm(&mut self, deadline: MonoTime, todo: &mut Vec<Action>) {
        self.deadline = Some(deadline);
        todo.push(Action::Arm(deadline));
    }

    pub(super) fn disarm(&mut self, todo: &mut Vec<Action>) {
        if self.deadline.take().is_some() {
            todo.push(Action::Disarm);
        }
    }
}
