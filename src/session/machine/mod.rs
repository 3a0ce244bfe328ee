//! The life of one session, as a pure state machine: [`Machine::step`] takes what happened and says
//! what is to be done. It must never do anything itself, nor ask what time it is.
//!
//! ```text
//!  Admitted ──journalled──► Starting ──every first frame──► Working
//!     │                        │  │                            │
//!     │                        │  │                            │ ▲
//!     │                        │  │  reaped with restarts left, │ │ every first frame
//!     │                        │  │                     silent  ▼ │
//!     │                        │  │                        Restarting ──none left──► Repairing
//!     │                        │  │                            │
//!     │ stop          failure, │  │ stop, expiry,              │ stop, expiry, worker's own end,
//!     │               deadline │  │ shutdown                   │ shutdown
//!     │                        ▼  ▼                            ▼
//!     │                       Ending ◄─────────────────────────┘   deadline: SIGTERM, SIGKILL, stuck
//!     │                        │  │ reaped without an account
//!     │       reaped, with its │  └────────► Repairing ───┐
//!     ▼                account ▼                          ▼
//!  Closing ◄───────────────────┴──────────────────────────┘   (the receipt is journalled)
//!     │
//!     ▼
//!  Finished          a start that failed and that nobody stopped ends in Discarded instead
//! ```

mod restart;
mod step;

use std::time::Duration;

use super::EndReason;
use super::view::{PublicState, WorkerState};
use crate::clock::MonoTime;

/// How long each phase of a session may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PhaseLimits {
    /// From the start until every source has delivered.
    pub start: Duration,
    /// From the stop until the worker is reaped, unless the stop says otherwise.
    pub drain: Duration,
    /// From SIGTERM until SIGKILL, and from an abort until SIGTERM.
    pub term: Duration,
    /// From SIGKILL until the worker counts as stuck in the kernel.
    pub kill: Duration,
    /// For the repair of what a dead worker left.
    pub repair: Duration,
    /// For the journal to take the receipt.
    pub close: Duration,
    /// The wait before the second start of a new worker in a row; each further one is twice as long.
    pub backoff: Duration,
    /// A new worker that has captured for this long has the restarts forgotten.
    pub steady: Duration,
    /// How many new workers in a row a session may have.
    pub restarts: u8,
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Its start is being journalled; no device is touched yet.
    Admitted,
    /// Its worker opens the devices and waits for their first frames.
    Starting,
    /// It captures.
    Working,
    /// Its worker has died or is being ended; a new one is waited for, or opens the devices.
    Restarting,
    /// Its worker drains, or is being ended.
    Ending,
    /// Its worker is gone without an account; the files are being repaired.
    Repairing,
    /// Its receipt is being journalled.
    Closing,
    /// It is over.
    Finished,
    /// It never was: its start failed and its id is free again.
    Discarded,
}

/// What an earlier daemon left of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    /// The stop that was accepted.
    pub cause: Option<EndReason>,
    /// Whether its worker is still there.
    pub worker: LeftWorker,
    /// Workers before that one died, and what they left was not repaired yet.
    pub unrepaired: bool,
}

/// What became of a worker while no daemon was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeftWorker {
    /// It runs.
    Alive,
    /// It has ended.
    Gone,
}

/// How hard a worker was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Force {
    /// Asked over the link.
    Asked,
    /// SIGTERM was sent.
    Terminated,
    /// SIGKILL was sent.
    Killed,
    /// It doesn't die: the kernel holds it, and it may hold devices.
    Stuck,
}

/// What a stop does with data in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopMode {
    /// It becomes durable.
    Drain,
    /// It is discarded and told as lost.
    Abort,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The start is durable in the journal.
    StartJournalled,
    /// The journal would not take the start.
    StartNotJournalled,
    /// No worker process could be made.
    LaunchFailed,
    /// The worker has dialled in and was taken on.
    Linked,
    /// The worker's connection is gone.
    LinkLost,
    /// Every source has delivered its first frame.
    Working,
    /// The worker could not start, and has given every device back.
    StartFailed,
    /// The worker captures and has not been heard of for too long.
    Silent,
    /// Some source delivers nothing, or all deliver again.
    Degraded(bool),
    /// Somebody or something ends the session.
    StopRequested {
        /// Why.
        reason: EndReason,
        /// What becomes of data in memory.
        mode: StopMode,
        /// How long the drain may take; the limits' if absent. An abort takes no longer than the
        /// limits give a worker after SIGTERM, and shortens a drain under way to that.
        drain: Option<Duration>,
    },
    /// The worker ends the session by itself.
    WorkerEnds(EndReason),
    /// The stop is durable in the journal, or the journal can't take it.
    StopJournalled,
    /// The worker has closed its last device.
    Released,
    /// The worker's files are final and accounted for.
    Accounted,
    /// The worker was reaped.
    Exited,
    /// The repair has ended, well or not.
    Repaired,
    /// The receipt is durable in the journal, or the journal can't take it.
    FinishJournalled,
    /// The time that was armed last has come.
    DeadlinePassed,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Make the start durable.
    JournalStart,
    /// Make a worker process.
    Launch,
    /// Order the worker to stop.
    SendStop(StopMode),
    /// Make the stop durable.
    JournalStop,
    /// Send SIGTERM to the worker.
    Terminate,
    /// Send SIGKILL to the worker.
    Kill,
    /// Repair the files that the worker left.
    Repair,
    /// End the repair.
    CancelRepair,
    /// Give the devices free.
    ReleaseLeases,
    /// Answer who waits for the start.
    AnswerStart(StartOutcome),
    /// Answer who waits for the release.
    AnswerReleased,
    /// Compose the receipt and make it durable.
    JournalFinish,
    /// Answer who waits for the end.
    AnswerFinished,
    /// Answer every stop that still waits: the worker can't be ended. Its devices may be held, unless
    /// [`Machine::is_released`]; then only its files aren't known to be final.
    AnswerStuck,
    /// Delete what the start left behind and forget the session.
    Discard,
    /// Tell watchers: the public state has changed.
    Publish,
    /// Wake at this time with `DeadlinePassed`; replaces the time armed before.
    Arm(MonoTime),
    /// Don't wake.
    Disarm,
}

/// How a start ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartOutcome {
    /// It captures.
    Working,
    /// It failed, every device was given back, its id is free; or its worker is stuck
    /// ([`Machine::is_stuck`]) and still holds both.
    Failed,
    /// It was stopped before it started: it is kept, and ends with a receipt.
    Stopped,
}

/// How far the stop has come into the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum StopRecord {
    Absent,
    Asked,
    Durable,
}

/// One session's life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    limits: PhaseLimits,
    phase: Phase,
    force: Force,
    cause: Option<EndReason>,
    abort: bool,
    /// The worker process was made, and not reaped yet.
    worker: bool,
    linked: bool,
    degraded: bool,
    start_answered: bool,
    /// A stop was accepted, so that the session is kept however its start went.
    kept: bool,
    stop_ordered: bool,
    stop_record: StopRecord,
    released: bool,
    accounted: bool,
    /// The last worker was reaped without an account.
    died: bool,
    /// New workers in a row.
    restarts: u8,
    /// A dead worker has left files that no repair has begun with.
    unrepaired: bool,
    /// A repair runs.
    repairing: bool,
    deadline: Option<MonoTime>,
}

impl Machine {
    /// A session whose devices were leased just now; the actions begin its life.
    pub fn admit(limits: PhaseLimits, now: MonoTime) -> (Self, Vec<Action>) {
        let deadline = now + limits.start;
        let machine = Self {
            limits,
            phase: Phase::Admitted,
            force: Force::Asked,
            cause: None,
            abort: false,
            worker: false,
            linked: false,
            degraded: false,
            start_answered: false,
            kept: false,
            stop_ordered: false,
            stop_record: StopRecord::Absent,
            released: false,
            accounted: false,
            died: false,
            restarts: 0,
            unrepaired: false,
            repairing: false,
            deadline: Some(deadline),
        };
        (machine, vec![Action::JournalStart, Action::Publish, Action::Arm(deadline)])
    }

    /// A session that an earlier daemon journalled as unfinished. Feed what it did meanwhile, as far as
    /// that is known ([`Event::WorkerEnds`], [`Event::Released`], [`Event::Accounted`]), and
    /// [`Event::Exited`] if its worker is gone: what nobody has seen die is not begun anew.
    pub fn recover(limits: PhaseLimits, now: MonoTime, left: Left) -> (Self, Vec<Action>) {
        let (mut machine, _) = Self::admit(limits, now);
        let Left { cause, worker, unrepaired } = left;
        machine.worker = true;
        machine.restarts = if worker == LeftWorker::Alive { 0 } else { limits.restarts };
        machine.unrepaired = unrepaired;
        machine.start_answered = true;
        machine.kept = true;
        machine.cause = cause;
        machine.abort = cause == Some(EndReason::Aborted);
        machine.stop_ordered = cause.is_some();
        if cause.is_some() {
            machine.stop_record = StopRecord::Durable;
        }
        machine.phase = if cause.is_some() { Phase::Ending } else { Phase::Working };
        machine.deadline = cause.map(|_| now + limits.drain);
        let timer = machine.deadline.map_or(Action::Disarm, Action::Arm);
        (machine, vec![Action::Publish, timer])
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What ended it first.
    pub fn cause(&self) -> Option<EndReason> {
        self.cause
    }

    /// Whether the devices are known to be closed.
    pub fn is_released(&self) -> bool {
        self.released
    }

    /// Whether the worker was ended by force, or died without an account.
    pub fn is_forced(&self) -> bool {
        self.force > Force::Asked || self.died
    }

    /// Whether the worker has given its final account.
    pub fn is_accounted(&self) -> bool {
        self.accounted
    }

    /// Whether who waits for the start has not been answered yet.
    pub fn start_is_open(&self) -> bool {
        !self.start_answered
    }

    /// Whether the worker can't be ended: it may hold devices.
    pub fn is_stuck(&self) -> bool {
        self.force == Force::Stuck && self.worker
    }

    /// Whether the worker, which is still there, is being ended so that a new one can go on.
    pub fn is_being_replaced(&self) -> bool {
        self.phase == Phase::Restarting && self.worker && self.force > Force::Asked
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Finished | Phase::Discarded)
    }

    /// The state that the public contract gives it.
    pub fn public_state(&self) -> PublicState {
        match self.phase {
            Phase::Finished | Phase::Discarded => PublicState::Finished,
            _ if self.released => PublicState::Processing,
            _ => PublicState::Active,
        }
    }

    /// The worker's state that the public contract gives it.
    pub fn worker_state(&self) -> WorkerState {
        match self.phase {
            Phase::Admitted | Phase::Starting => WorkerState::Starting,
            Phase::Working if !self.degraded => WorkerState::Working,
            Phase::Working | Phase::Restarting => WorkerState::Degraded,
            Phase::Ending if !self.released => WorkerState::Draining,
            Phase::Ending | Phase::Repairing | Phase::Closing => WorkerState::Finalizing,
            Phase::Finished | Phase::Discarded => self.final_worker_state(),
        }
    }

    /// The worker's state once the session is over.
    pub fn final_worker_state(&self) -> WorkerState {
        let failed =
            self.is_forced() || matches!(self.cause, Some(EndReason::StartFailed | EndReason::WorkerFailed));
        if failed { WorkerState::Failed } else { WorkerState::Stopped }
    }
}
