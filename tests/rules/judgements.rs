//! What must be true of each step, whatever is ordered.

use super::*;

impl History {
    pub(super) fn judge_cause(
        &mut self,
        before: &Machine,
        event: Event,
        after: &Machine,
    ) -> Result<(), String> {
        let alive = matches!(before.phase(), Phase::Starting | Phase::Working)
            || (before.phase() == Phase::Restarting && self.worker && !before.is_being_replaced());
        match event {
            Event::StopRequested { reason, .. } if self.cause.is_none() => {
                require(after.cause() == Some(reason), "a stop is accepted in every state")?;
            }
            Event::WorkerEnds(reason) if alive => {
                require(after.cause() == Some(reason), "a worker's own end has its reason")?;
            }
            _ => {}
        }
        require(self.cause.is_none() || after.cause() == self.cause, "what ended it first stays")?;
        self.cause = after.cause();
        let goes_on =
            matches!(after.phase(), Phase::Admitted | Phase::Starting | Phase::Working | Phase::Restarting);
        require(goes_on == self.cause.is_none(), "it goes on exactly until something ends it")
    }

    pub(super) fn judge_orders(
        &self,
        before: &Machine,
        event: Event,
        actions: &[Action],
    ) -> Result<(), String> {
        let sent = actions.iter().any(|action| matches!(action, Action::SendStop(_)));
        let capturing = matches!(before.phase(), Phase::Starting | Phase::Working | Phase::Restarting);
        let hears = match event {
            Event::StopRequested { .. } => capturing,
            Event::Linked => self.stopped,
            _ => false,
        };
        require(sent || !(hears && self.linked), "a worker hears of the stop as soon as it can")
    }

    /// A stop bounds the drain that it begins or finds, of which `armed` was the deadline.
    pub(super) fn judge_drain(
        &self,
        before: &Machine,
        now: MonoTime,
        event: Event,
        armed: Option<MonoTime>,
    ) -> Result<(), String> {
        let Event::StopRequested { mode, drain, .. } = event else { return Ok(()) };
        if !self.worker || self.terminated {
            return Ok(());
        }
        let drain = drain.unwrap_or(self.limits.drain);
        let longest = if mode == StopMode::Abort { drain.min(self.limits.term) } else { drain };
        let due = self.armed.ok_or("a drain has a deadline")?;
        require(due <= now + longest, "a drain takes no longer than its stop allows")?;
        let prolonged = before.phase() == Phase::Ending && armed.is_some_and(|armed| armed < due);
        require(!prolonged, "no stop prolongs a drain")
    }

    /// What must be true in every state.
    pub(super) fn judge_state(&self, now: &Machine) -> Result<(), String> {
        use {PublicState as P, WorkerState as W};
        let stuck = now.is_stuck();
        let timed = match now.phase() {
            Phase::Admitted | Phase::Starting | Phase::Restarting | Phase::Repairing | Phase::Closing => true,
            Phase::Ending => !stuck,
            // A new worker has to last.
            Phase::Working => self.restarts > 0 && self.armed.is_some(),
            Phase::Finished | Phase::Discarded => false,
        };
        require(timed == self.armed.is_some(), "a phase has a timer exactly if it has a deadline")?;
        let fit = match (self.shown.0, self.shown.1) {
            (P::Active, W::Starting) => matches!(now.phase(), Phase::Admitted | Phase::Starting),
            (P::Active, W::Working) => now.phase() == Phase::Working && !self.degraded,
            (P::Active, W::Degraded) => {
                now.phase() == Phase::Restarting || (now.phase() == Phase::Working && self.degraded)
            }
            (P::Active, W::Draining) => now.phase() == Phase::Ending,
            (P::Processing, W::Finalizing) => {
                matches!(now.phase(), Phase::Ending | Phase::Repairing | Phase::Closing)
            }
            (P::Finished, W::Stopped) => now.is_over() && !self.terminated,
            (P::Finished, W::Failed) => now.is_over(),
            _ => false,
        };
        require(fit, "state and workerState go together")?;
        require(now.is_released() != self.leased, "leases are held exactly until the release")?;
        require(now.is_forced() || !self.terminated, "a worker that got a signal was ended by force")?;
        let durable = self.stop_asked_of_journal || !matches!(now.phase(), Phase::Ending | Phase::Repairing);
        require(!self.stopped || durable, "a stop that is waited for is journalled")?;
        let end = match now.phase() {
            Phase::Finished => Some(Action::AnswerFinished),
            Phase::Discarded => Some(Action::Discard),
            _ => None,
        };
        require(end == self.end, "every end is answered or discarded, and nothing else is")?;
        if end.is_some() {
            require(!self.leased && !self.worker, "at the end nothing is held and nobody runs")?;
            require(self.recovered || self.start.is_some(), "every start is answered before the end")?;
        }
        Ok(())
    }
}
