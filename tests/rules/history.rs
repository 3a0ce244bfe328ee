//! One life and the judge of its steps: what the design promises, written down apart from the machine.

mod judgements;

use shutterd::clock::MonoTime;
use shutterd::session::machine::{
    Action, Event, Left, LeftWorker, Machine, Phase, PhaseLimits, StartOutcome, StopMode,
};
use shutterd::session::{EndReason, PublicState, WorkerState};

/// Steps of the ladder from any state to its end: far more than there are.
const STEPS_MAX: usize = 16;

/// What was promised and done so far in one life: enough to judge its next step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct History {
    pub(super) recovered: bool,
    start_durable: bool,
    launched: bool,
    /// New workers since one has lasted.
    restarts: u8,
    limits: PhaseLimits,
    /// A process is, or may be, there.
    worker: bool,
    linked: bool,
    degraded: bool,
    leased: bool,
    pub(super) start: Option<StartOutcome>,
    /// Somebody stopped it, so that somebody waits for its end.
    stopped: bool,
    aborted: bool,
    pub(super) waiting: bool,
    stop_asked_of_journal: bool,
    stop_durable: bool,
    cause: Option<EndReason>,
    pub(super) terminated: bool,
    killed: bool,
    repairing: bool,
    /// A worker has died without an account, and no repair has begun since.
    unrepaired: bool,
    finish_asked_of_journal: bool,
    end: Option<Action>,
    pub(super) armed: Option<MonoTime>,
    shown: (PublicState, WorkerState),
}

/// A machine and all that is known of its life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Life {
    pub(super) machine: Machine,
    pub(super) history: History,
}

pub(super) fn require(holds: bool, promise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(promise.to_owned()) }
}

impl Life {
    pub(super) fn admit(limits: PhaseLimits, now: MonoTime) -> Self {
        let (machine, actions) = Machine::admit(limits, now);
        let armed = now + limits.start;
        assert_eq!(actions, [Action::JournalStart, Action::Publish, Action::Arm(armed)]);
        Self { history: History { armed: Some(armed), ..History::of(&machine, limits) }, machine }
    }

    pub(super) fn recover(limits: PhaseLimits, now: MonoTime, left: Left) -> Self {
        let (machine, actions) = Machine::recover(limits, now, left);
        let Left { cause, worker, unrepaired } = left;
        let armed = cause.map(|_| now + limits.drain);
        assert_eq!(actions, [Action::Publish, armed.map_or(Action::Disarm, Action::Arm)]);
        let stopped = cause.is_some();
        let history = History {
            recovered: true,
            start_durable: true,
            launched: true,
            restarts: if worker == LeftWorker::Alive { 0 } else { limits.restarts },
            unrepaired,
            worker: true,
            stopped,
            aborted: cause == Some(EndReason::Aborted),
            waiting: stopped,
            stop_asked_of_journal: stopped,
            stop_durable: stopped,
            cause,
            armed,
            ..History::of(&machine, limits)
        };
        Self { machine, history }
    }

    /// Takes a step and judges it.
    pub(super) fn step(&mut self, now: MonoTime, event: Event) -> Result<Vec<Action>, String> {
        let before = self.machine.clone();
        let actions = self.machine.step(now, event);
        self.history.judge(&before, now, event, &actions, &self.machine)?;
        Ok(actions)
    }

    /// Feeds `event` again and again, until the life is silent or it makes no difference.
    pub(super) fn exhaust(&mut self, event: Event) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            let before = self.clone();
            self.step(self.history.armed.unwrap_or_default(), event)?;
            if *self == before {
                return Ok(());
            }
        }
        Err(format!("{event:?} alone goes on for ever"))
    }
}

impl History {
    /// Of a life that has just begun.
    fn of(machine: &Machine, limits: PhaseLimits) -> Self {
        Self {
            recovered: false,
            start_durable: false,
            launched: false,
            restarts: 0,
            limits,
            worker: false,
            linked: false,
            degraded: false,
            leased: true,
            start: None,
            stopped: false,
            aborted: false,
            waiting: false,
            stop_asked_of_journal: false,
            stop_durable: false,
            cause: None,
            terminated: false,
            killed: false,
            repairing: false,
            unrepaired: false,
            finish_asked_of_journal: false,
            end: None,
            armed: None,
            shown: (machine.public_state(), machine.worker_state()),
        }
    }

    fn judge(
        &mut self,
        before: &Machine,
        now: MonoTime,
        event: Event,
        actions: &[Action],
        after: &Machine,
    ) -> Result<(), String> {
        if self.end.is_some() {
            return require(actions.is_empty() && before == after, "a session that is over is silent");
        }
        if event == Event::DeadlinePassed && self.armed.is_none_or(|armed| now < armed) {
            return require(
                actions.is_empty() && before == after,
                "a deadline that has not come does nothing",
            );
        }
        let answerable = !self.leased && self.stop_durable;
        let armed = self.armed;
        self.witness(before, now, event, after);
        let mut shown = self.shown;
        for action in actions {
            self.perform(*action, event, actions, after)
                .map_err(|promise| format!("{action:?}: {promise}"))?;
            if *action == Action::Publish {
                shown = (after.public_state(), after.worker_state());
            }
        }
        let news = (after.public_state(), after.worker_state());
        require(shown == news, "every change of the public state is published")?;
        let published = actions.iter().filter(|action| **action == Action::Publish).count();
        require(published == usize::from(news != self.shown), "only changes are published, once")?;
        let ranks = [PublicState::Active, PublicState::Processing, PublicState::Finished];
        let rank = |state| ranks.iter().position(|it| *it == state);
        require(rank(self.shown.0) <= rank(news.0), "the public state only moves on")?;
        self.shown = news;

        let stop = matches!(event, Event::StopRequested { .. });
        let answers = actions.contains(&Action::AnswerReleased);
        let due = !self.leased && self.stop_durable && (stop || !answerable);
        require(!due || answers, "who waits for the release hears of it at once")?;
        self.judge_cause(before, event, after)?;
        self.judge_orders(before, event, actions)?;
        self.judge_drain(before, now, event, armed)?;
        self.judge_state(after)
    }

    /// What the world did.
    fn witness(&mut self, before: &Machine, now: MonoTime, event: Event, after: &Machine) {
        let lasted = before.phase() == Phase::Working && before != after;
        match event {
            Event::Exited | Event::LaunchFailed if self.worker => {
                self.unrepaired |= !after.is_accounted() && after.phase() != Phase::Discarded;
                (self.worker, self.linked) = (false, false);
            }
            Event::StartJournalled => self.start_durable = true,
            Event::Linked => self.linked = self.worker,
            Event::LinkLost => self.linked = false,
            Event::Degraded(degraded) => self.degraded = degraded,
            Event::Repaired => self.repairing = false,
            Event::StopJournalled => self.stop_durable |= self.stop_asked_of_journal,
            Event::StopRequested { mode, .. } => {
                (self.stopped, self.waiting) = (true, true);
                self.aborted |= mode == StopMode::Abort;
            }
            Event::DeadlinePassed if self.armed.is_some_and(|armed| armed <= now) => {
                self.armed = None;
                if lasted {
                    self.restarts = 0;
                }
            }
            _ => {}
        }
    }

    /// What the machine ordered, one promise after the other.
    #[expect(clippy::too_many_lines, reason = "one arm for each action")]
    fn perform(
        &mut self,
        action: Action,
        event: Event,
        all: &[Action],
        after: &Machine,
    ) -> Result<(), String> {
        let once = |done: &mut bool| require(!std::mem::replace(done, true), "happens once");
        match action {
            Action::JournalStart => require(false, "the start is journalled at the admission only"),
            Action::Launch => {
                if std::mem::replace(&mut self.launched, true) {
                    self.restarts += 1;
                    require(
                        self.restarts <= self.limits.restarts,
                        "workers are started anew so often and no more",
                    )?;
                    require(
                        self.start == Some(StartOutcome::Working) || self.recovered,
                        "a start is tried once",
                    )?;
                }
                (self.terminated, self.killed) = (false, false);
                require(!std::mem::replace(&mut self.worker, true), "a session has one worker at a time")?;
                require(self.start_durable, "nothing is launched before its start is durable")?;
                require(!self.stopped && self.cause.is_none(), "nothing is launched after a stop")
            }
            Action::SendStop(mode) => {
                require(self.linked && self.stopped, "a stop is sent if one was ordered, over a link")?;
                require((mode == StopMode::Abort) == self.aborted, "one abort makes every order an abort")
            }
            Action::JournalStop => once(&mut self.stop_asked_of_journal),
            Action::Terminate => {
                once(&mut self.terminated)?;
                require(self.worker, "only a worker that is there gets a signal")
            }
            Action::Kill => {
                once(&mut self.killed)?;
                require(self.worker && self.terminated, "SIGKILL follows SIGTERM, while the worker is there")
            }
            Action::Repair => {
                let beside = after.phase() == Phase::Working;
                require(!self.worker || beside, "files are repaired after their writer is reaped")?;
                require(std::mem::take(&mut self.unrepaired), "only what a dead worker left is repaired")?;
                require(!std::mem::replace(&mut self.repairing, true), "one repair runs at a time")
            }
            Action::CancelRepair => {
                self.unrepaired = false;
                require(std::mem::take(&mut self.repairing), "only a repair can be cancelled")
            }
            Action::ReleaseLeases => {
                require(std::mem::take(&mut self.leased), "leases are released once")?;
                require(!self.worker || event == Event::Released, "leases outlive the use of the devices")
            }
            Action::AnswerStart(outcome) => {
                require(!self.recovered, "nobody waits for the start of a recovered session")?;
                require(self.start.replace(outcome).is_none(), "a start is answered once")?;
                let fits = match outcome {
                    StartOutcome::Working => event == Event::Working && after.phase() == Phase::Working,
                    StartOutcome::Stopped => !after.is_over() && after.cause().is_some(),
                    StartOutcome::Failed => after.phase() == Phase::Discarded || after.is_stuck(),
                };
                require(fits, "a start is answered with the truth")
            }
            Action::AnswerReleased => {
                let durable = self.stop_durable || all.contains(&Action::AnswerFinished);
                require(!self.leased && durable, "released is said when it is true and durable")
            }
            Action::JournalFinish => {
                once(&mut self.finish_asked_of_journal)?;
                require(!self.repairing && !self.unrepaired, "a receipt follows the repair")?;
                require(!self.worker && !self.leased, "a receipt follows the worker and the devices")
            }
            Action::AnswerFinished => {
                self.waiting = false;
                require(
                    self.finish_asked_of_journal,
                    "the end is answered after its receipt was journalled",
                )?;
                require(self.end.replace(action).is_none(), "a life ends once")
            }
            Action::AnswerStuck => {
                self.waiting = false;
                require(self.killed && after.is_stuck(), "only a worker that SIGKILL didn't end is stuck")
            }
            Action::Discard => {
                require(self.end.replace(action).is_none(), "a life ends once")?;
                require(!self.stopped && !self.recovered, "what was stopped or may be known is kept")?;
                require(after.cause() == Some(EndReason::StartFailed), "only a failed start is discarded")?;
                require(self.start != Some(StartOutcome::Working), "what has worked is kept")?;
                require(!self.finish_asked_of_journal, "what is discarded has no receipt")
            }
            Action::Publish => Ok(()),
            Action::Arm(at) => {
                self.armed = Some(at);
                Ok(())
            }
            Action::Disarm => {
                self.armed = None;
                Ok(())
            }
        }
    }
}
