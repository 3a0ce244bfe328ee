//! One session that is not finished, as the actor holds it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::command::{Reply, SessionView, Stopped, WaitFor};
use super::processes::Worker;
use super::refusal::Refusal;
use crate::clock::{MonoTime, WallTime};
use crate::journal::Record;
use crate::link::LastAccount;
use crate::link::message::{Hello, ToWorker};
use crate::session::machine::Machine;
use crate::session::{Account, DeadWorkers, EndReason, Receipt, SourceAccount, present};

/// A worker that waits to be taken on.
pub(super) struct Early {
    pub(super) hello: Hello,
    pub(super) pid: u32,
    pub(super) connection: u64,
    pub(super) to_worker: mpsc::Sender<ToWorker>,
}

/// A session's machine, what is known of it, and who waits for it.
pub(super) struct Live {
    pub(super) machine: Machine,
    pub(super) record: Record,
    pub(super) started_at: MonoTime,
    /// When it ends by itself: `CLOCK_BOOTTIME` of its expiry, monotonic time of its longest duration.
    pub(super) expires_at: Option<u64>,
    pub(super) ends_at: Option<MonoTime>,
    pub(super) deadline: Option<MonoTime>,
    pub(super) process: Option<Box<dyn Worker>>,
    /// The journal knows which process the worker is: only then may it touch a device.
    pub(super) identified: bool,
    /// A worker that has dialled in before that.
    pub(super) early: Option<Early>,
    pub(super) link: Option<(u64, mpsc::Sender<ToWorker>)>,
    /// How the worker ended, while what it said last is still on the link.
    pub(super) ended: Option<(String, Option<Box<LastAccount>>)>,
    /// The repair that runs, and the number of the file before which it ends.
    pub(super) repair: Option<(AbortHandle, Option<u32>)>,
    /// A repair has failed: there may be media that is in no account.
    pub(super) uncounted: bool,
    /// The session's account: what its dead workers left and what the present one reports.
    pub(super) account: Account,
    /// What the present worker has reported last.
    present: Option<Account>,
    /// Durable bytes in the files that are not complete, or all that the present worker has.
    pub(super) present_bytes: u64,
    /// Number of the present worker's first file.
    pub(super) first_segment: u32,
    /// When the present worker began to capture, as this daemon saw it.
    pub(super) working_since: MonoTime,
    /// When the present worker was heard last.
    pub(super) heard_at: MonoTime,
    pub(super) queued_packets: u64,
    pub(super) pending_bytes: u64,
    pub(super) released_at: Option<WallTime>,
    /// The journal has its receipt.
    pub(super) saved: bool,
    /// Why the start failed, once it has.
    pub(super) failure: Option<Refusal>,
    pub(super) start_waiters: Vec<Reply<Arc<SessionView>>>,
    pub(super) stop_waiters: Vec<(WaitFor, Reply<Stopped>)>,
}

impl Live {
    pub(super) fn new(machine: Machine, record: Record, now: MonoTime) -> Self {
        Self {
            machine,
            account: record.account.clone().unwrap_or_default(),
            record,
            started_at: now,
            expires_at: None,
            ends_at: None,
            deadline: None,
            process: None,
            identified: false,
            early: None,
            link: None,
            ended: None,
            repair: None,
            uncounted: false,
            present: None,
            present_bytes: 0,
            first_segment: 1,
            working_since: now,
            heard_at: now,
            queued_packets: 0,
            pending_bytes: 0,
            released_at: None,
            saved: false,
            failure: None,
            start_waiters: Vec::new(),
            stop_waiters: Vec::new(),
        }
    }

    /// The present worker's account counts from here on, beside that of dead ones.
    pub(super) fn take_account(&mut self, account: Account) {
        // What this daemon had to say is not the worker's to forget.
        let said = std::mem::take(&mut self.account.warnings);
        self.account = match &self.record.dead {
            Some(dead) => dead.join(&account, self.origin_wall()),
            None => account.clone(),
        };
        for warning in said {
            self.account.warn(warning);
        }
        self.present = Some(account);
    }

    /// No worker captures any more.
    pub(super) fn orphan(&mut self, reason: &str) {
        self.account.orphan(reason);
        // A repair that ends meanwhile joins anew what the worker has said last.
        if let Some(present) = &mut self.present {
            present.orphan(reason);
        }
    }

    /// The worker has died: what it left is no longer the present one's.
    pub(super) fn bury_worker(&mut self) {
        let complete: u64 = self.account.files.iter().map(|file| file.bytes).sum();
        self.present_bytes = self.durable_bytes().saturating_sub(complete);
        let dead = self.record.dead.take().unwrap_or_default();
        self.record.dead = Some(dead.followed_by(self.account.clone(), self.present.take().as_ref()));
    }

    /// What dead workers left was repaired, or can't be: the session's account with the outcome.
    pub(super) fn settle_dead(&mut self, settle: impl FnOnce(&mut DeadWorkers)) {
        let Some(dead) = &mut self.record.dead else { return };
        settle(dead);
        let warnings = dead.account.warnings.clone();
        if let Some(present) = self.present.take() {
            self.take_account(present);
        }
        for warning in warnings {
            self.account.warn(warning);
        }
    }

    /// Durable bytes of all files.
    pub(super) fn durable_bytes(&self) -> u64 {
        let dead = self.record.dead.iter().flat_map(|dead| &dead.account.files);
        dead.map(|file| file.bytes).sum::<u64>() + self.present_bytes
    }

    /// How long ago the last durable packet of a source was captured, or the worker began to capture.
    pub(super) fn durable_age(&self, source: &SourceAccount, now: MonoTime) -> Duration {
        now.since(source.durable_at.unwrap_or_default().max(self.working_since))
    }

    fn origin_wall(&self) -> Option<WallTime> {
        Some(self.record.anchor?.wall_at(self.record.origin?))
    }

    /// The session as callers see it now.
    pub(super) fn view(&self) -> SessionView {
        let machine = &self.machine;
        let (state, worker) = (machine.public_state(), machine.worker_state());
        let (duration, health) = (self.record.duration_seconds, self.record.health_check);
        SessionView {
            id: self.record.spec.id().clone(),
            change: self.record.change,
            cursor: self.record.change,
            object: present(&self.record.spec, state, worker, duration, health),
            receipt: self
                .record
                .receipt
                .clone()
                .or_else(|| self.record.stop.as_ref().map(|_| self.receipt(None))),
            finished: machine.is_over(),
            account: self.account.clone(),
            queued_packets: self.queued_packets,
            durable_bytes: self.durable_bytes(),
            pending_bytes: self.pending_bytes,
        }
    }

    /// The receipt as far as it can be written now.
    pub(super) fn receipt(&self, finalized_at: Option<WallTime>) -> Receipt {
        Receipt {
            session_id: self.record.spec.id().clone(),
            end_reason: self.machine.cause().unwrap_or(EndReason::StopRequested),
            forced: self.machine.is_forced(),
            requested_at: self.record.stop.as_ref().map(|stop| stop.at_wall),
            released_at: self.released_at,
            finalized_at,
            sources: self.account.sources.iter().map(|source| source.receipt.clone()).collect(),
            files: self.account.files.clone(),
            removal: None,
            warnings: self.account.warnings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::session::machine::PhaseLimits;
    use crate::session::{SessionSpec, SourceState, StartOptions};
    use crate::supervisor::compose;

    #[test]
    fn a_repair_that_ends_after_the_next_worker_has_died_calls_no_source_working() {
        let spec = json!({ "_id": "s", "sources": [{ "id": "cam", "device": "local_camera" }] });
        let spec = SessionSpec::from_json(spec).expect("a session");
        let mut account = compose::empty_account(&spec, &[]);
        account.sources.push(SourceAccount {
            receipt: crate::session::SourceReceipt::of(
                "cam".to_owned(),
                spec.sources()[0].media,
                String::new(),
            ),
            state: SourceState::Working,
            reason: String::new(),
            durable_at: None,
        });
        let record = Record::new(spec, StartOptions::default(), Vec::new(), WallTime::from_nanos(0));
        let second = Duration::from_secs(1);
        let limits = PhaseLimits {
            start: second,
            drain: second,
            term: second,
            kill: second,
            repair: second,
            close: second,
            backoff: second,
            steady: second,
            restarts: 3,
        };
        let (machine, _) = Machine::admit(limits, MonoTime::default());
        let mut live = Live::new(machine, record, MonoTime::default());
        live.take_account(account.clone());
        live.orphan("the first has died");
        live.bury_worker();
        live.take_account(account);
        live.orphan("the second has died");
        live.settle_dead(|dead| compose::settle_unrepaired(&mut dead.account));
        assert_eq!(live.account.sources[0].state, SourceState::Degraded);
    }
}
