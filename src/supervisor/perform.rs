//! Carrying out what a session's machine has decided.

use std::sync::Arc;

use rustix::process::Signal;

use super::actor::Actor;
use super::blocking::apart;
use super::command::{Notice, SessionView};
use super::launch;
use super::live::Live;
use super::refusal::{Refusal, RefusalKind};
use crate::journal::{EndsRecord, JournalError, Record, StopRecord};
use crate::link::message::{Stop, ToWorker, to_worker};
use crate::session::machine::{Action, Event, Phase, StopMode};
use crate::session::{KeptMedia, Removal, RemovalReason, RemovalState, SessionId};

impl Actor {
    /// Carries out `actions` in their order. What the journal has to take goes there in one record,
    /// after the order to the worker has left.
    pub(super) fn perform(&mut self, id: &SessionId, actions: Vec<Action>) {
        let (mut journalled, mut published, mut follow) = (Vec::new(), false, None);
        for action in actions {
            match action {
                Action::JournalStart => journalled.push(Event::StartJournalled),
                Action::JournalStop => {
                    self.note_cause(id);
                    journalled.push(Event::StopJournalled);
                }
                Action::JournalFinish => {
                    self.write_receipt(id);
                    journalled.push(Event::FinishJournalled);
                }
                Action::Publish | Action::AnswerFinished => published = true,
                Action::Launch => {
                    self.bury_worker(id);
                    if let Err(refusal) = self.launch(id) {
                        self.live.entry(id.clone()).and_modify(|live| live.failure = Some(refusal));
                        follow = Some(Event::LaunchFailed);
                    }
                    published = true;
                }
                Action::SendStop(mode) => self.send_stop(id, mode),
                Action::Terminate => self.signal(id, Signal::TERM),
                Action::Kill => self.signal(id, Signal::KILL),
                Action::Repair => self.repair(id),
                Action::CancelRepair => self.cancel_repair(id),
                Action::ReleaseLeases => {
                    self.leases.release(id);
                    let now = self.clock.wall();
                    // A session that never had a worker held no device later than this.
                    self.live.entry(id.clone()).and_modify(|live| {
                        live.released_at.get_or_insert(now);
                    });
                }
                Action::AnswerStart(outcome) => self.answer_start(id, outcome),
                Action::AnswerReleased => self.answer_released(id),
                Action::AnswerStuck => {
                    self.answer_stuck(id);
                }
                Action::Discard => self.discard(id),
                Action::Arm(deadline) => {
                    self.live.entry(id.clone()).and_modify(|live| live.deadline = Some(deadline));
                }
                Action::Disarm => {
                    self.live.entry(id.clone()).and_modify(|live| live.deadline = None);
                }
            }
        }
        self.settle(id, journalled, published);
        if let Some(event) = follow {
            self.feed(id, event);
        }
    }

    /// The stop that is journalled bears the cause that came first, whoever asked for it.
    fn note_cause(&mut self, id: &SessionId) {
        let (at, at_wall) = (self.clock.now(), self.clock.wall());
        let Some(live) = self.live.get_mut(id) else { return };
        let Some(reason) = live.machine.cause() else { return };
        let stop = live.record.stop.get_or_insert(StopRecord { reason, abort: false, at, at_wall });
        stop.reason = reason;
    }

    /// After a step: the journal gets what has changed, watchers are told, a finished session goes.
    pub(super) fn settle(&mut self, id: &SessionId, journalled: Vec<Event>, published: bool) {
        let Some(live) = self.live.get_mut(id) else { return };
        let over = live.machine.is_over();
        if (published && !over) || !journalled.is_empty() {
            self.change += 1;
            live.record.change = self.change;
            live.record.account = Some(live.account.clone());
            if live.expires_at.is_some() || live.ends_at.is_some() {
                let (expires_at, ends_at) = (live.expires_at, live.ends_at);
                live.record.ends =
                    Some(EndsRecord { boot_id: self.processes.boot_id(), expires_at, ends_at });
            }
            live.record.forced = live.machine.is_forced();
            let worker_state = match live.record.receipt {
                Some(_) => live.machine.final_worker_state(),
                None => live.machine.worker_state(),
            };
            worker_state.as_str().clone_into(&mut live.record.worker_state);
            let record = live.record.clone();
            self.put(record, journalled);
        }
        if published {
            self.tell_watchers(id);
        }
        if self.live.get(id).is_some_and(|live| live.machine.phase() == Phase::Finished) {
            self.answer_finished(id);
            if let Some(live) = self.live.remove(id).filter(|live| !live.saved) {
                self.unsaved.keep(live.record);
            }
            tracing::info!(session = %id, "session finished");
        }
    }

    pub(super) fn put(&mut self, record: Record, events: Vec<Event>) {
        let id = record.spec.id().clone();
        let finished = record.receipt.clone().filter(|_| events.contains(&Event::FinishJournalled));
        let change = record.change;
        let worker = record.worker.clone();
        let kept = record.receipt.as_ref().and_then(KeptMedia::of);
        let written = self.journal.put(record);
        let (library, notices) = (self.library.clone(), self.notices.clone());
        self.tasks.spawn(async move {
            if let Some(receipt) = &finished {
                let (library, receipt) = (library.clone(), receipt.clone());
                let laid = apart(move || library.write_receipt(&receipt)).await;
                if let Ok(Err(error)) = laid {
                    tracing::error!(session = %id, %error, "receipt.json can't be written; the journal has the receipt");
                }
            }
            let outcome = written.await.unwrap_or(Err(JournalError::Closed));
            if finished.is_some() && outcome.is_ok() {
                let session = id.clone();
                let forgotten = apart(move || library.forget_last_account(&session)).await;
                if let Ok(Err(error)) = forgotten {
                    tracing::warn!(session = %id, %error, "what the worker left beside the media can't be removed");
                }
            }
            // An actor that has ended waits for nothing.
            let _ = notices.send(Notice::Journalled { id, worker, kept, change, events, outcome }).await;
        });
    }

    pub(super) fn on_journalled(
        &mut self,
        id: &SessionId,
        change: u64,
        events: Vec<Event>,
        outcome: Result<(), JournalError>,
    ) {
        if outcome.is_ok() {
            self.journalled = self.journalled.max(change);
            self.unsaved.taken(id, change);
            if let Some(live) = self.live.get_mut(id).filter(|_| events.contains(&Event::FinishJournalled)) {
                live.saved = true;
            }
        }
        self.note_journal(outcome.as_ref().err().map(|error| Refusal::journal(error).message));
        if let Err(error) = &outcome {
            let refusal = Refusal::journal(error);
            self.problem(Some(id), refusal.message.clone());
            if let Some(live) = self.live.get_mut(id) {
                live.account.warn(refusal.message.clone());
                if events.contains(&Event::StartJournalled) {
                    live.failure.get_or_insert(refusal);
                }
            }
        }
        for event in events {
            let failed = outcome.is_err() && event == Event::StartJournalled;
            self.feed(id, if failed { Event::StartNotJournalled } else { event });
        }
        if outcome.is_err() {
            self.unsaved.refused(id, change);
        }
    }

    /// Offers the journal what it has not taken.
    pub(super) fn save_again(&mut self) {
        for record in self.unsaved.offer_again() {
            self.put(record, Vec::new());
        }
    }

    pub(super) fn tell_watchers(&mut self, id: &SessionId) {
        if let Some(live) = self.live.get(id) {
            // Nobody may be watching.
            let _ = self.changes.send(Arc::new(self.view(live)));
        }
    }

    /// A live session as callers see it now.
    pub(super) fn view(&self, live: &Live) -> SessionView {
        SessionView { cursor: self.cursor(), ..live.view() }
    }

    /// A cursor within what the journal has, and before every finish and removal that has its count already
    /// and is not told yet.
    pub(super) fn cursor(&self) -> u64 {
        let closing =
            self.live.values().filter(|live| live.record.receipt.is_some() && !live.machine.is_over());
        let untold = closing.map(|live| live.record.change).chain(self.shelf.untold());
        untold.min().map_or(u64::MAX, |change| change.saturating_sub(1)).min(self.journalled)
    }

    fn launch(&mut self, id: &SessionId) -> Result<(), Refusal> {
        let (process, reaped) = self.processes.launch(id).map_err(|error| {
            let program = self.settings.worker.path.clone().unwrap_or_default();
            let message = format!(
                "no worker can be started ({}): {error}; check worker.path and the limits on processes",
                program.display()
            );
            Refusal::new(RefusalKind::Internal, "WORKER_NOT_LAUNCHED", message).about("session", id)
        })?;
        tracing::info!(session = %id, pid = process.pid(), "worker started");
        self.watch(id, process.pid(), reaped);
        let live = self.live.get_mut(id).expect("only live sessions have workers");
        live.record.worker = Some(process.identity());
        (live.identified, live.early, live.link) = (false, None, None);
        live.process = Some(process);
        Ok(())
    }

    /// Tells the actor when a worker has ended.
    pub(super) fn watch(
        &mut self,
        id: &SessionId,
        pid: u32,
        ended: impl Future<Output = String> + Send + 'static,
    ) {
        let (id, notices, library) = (id.clone(), self.notices.clone(), self.library.clone());
        self.tasks.spawn(async move {
            let status = tokio::select! {
                status = ended => status,
                // The daemon goes; the worker stays.
                () = notices.closed() => return,
            };
            let session = id.clone();
            let last = apart(move || library.last_account(&session)).await;
            let last = last.ok().flatten().filter(|last| last.is_of(pid)).map(Box::new);
            // An actor that has ended leaves the rest to the next daemon.
            let _ = notices.send(Notice::Exited { id, status, last }).await;
        });
    }

    fn send_stop(&mut self, id: &SessionId, mode: StopMode) {
        let Some(live) = self.live.get(id) else { return };
        let stop_at = live.record.stop.as_ref().map_or_else(|| self.clock.now(), |stop| stop.at).nanos();
        let stop = Stop { stop_at, abort: mode == StopMode::Abort };
        if let Some((_, to_worker)) = &live.link {
            // A worker that is gone or takes nothing is ended by its deadline.
            if to_worker.try_send(ToWorker { body: Some(to_worker::Body::Stop(stop)) }).is_err() {
                tracing::warn!(session = %id, "the worker takes no order");
            }
        }
    }

    fn signal(&mut self, id: &SessionId, signal: Signal) {
        let Some(live) = self.live.get_mut(id) else { return };
        tracing::warn!(session = %id, signal = launch::name_of(signal), "the worker missed its deadline");
        if live.machine.start_is_open() {
            live.failure.get_or_insert_with(|| Refusal::worker_silent(id));
        }
        if let Some(process) = &live.process {
            process.signal(id.as_str(), signal);
        }
    }

    /// Composes the receipt: from here on the session has one.
    fn write_receipt(&mut self, id: &SessionId) {
        let now = self.clock.wall();
        let Some(live) = self.live.get_mut(id) else { return };
        for source in live.account.sources.iter().filter(|source| !source.receipt.adds_up()) {
            tracing::error!(session = %id, source = source.receipt.id, "an account does not add up");
        }
        let mut receipt = live.receipt(Some(now));
        if live.record.spec.removes_media() && (live.uncounted || !receipt.files.is_empty()) {
            receipt.removal = Some(Removal {
                state: RemovalState::Pending,
                removed_at: None,
                reason: RemovalReason::Requested,
            });
        }
        live.record.duration_seconds = Some(live.account.captured_seconds);
        live.record.receipt = Some(receipt);
    }

    /// Deletes what a failed start left behind.
    fn discard(&mut self, id: &SessionId) {
        let forgotten = self.journal.remove(id.clone());
        let (library, own, notices) = (self.library.clone(), id.clone(), self.notices.clone());
        self.tasks.spawn(async move {
            let session = own.clone();
            let removed = apart(move || library.remove(&session)).await;
            if let Ok(Err(error)) = removed {
                tracing::error!(session = %own, %error, "what a failed start left behind can't be removed");
            }
            if let Ok(Err(error)) = forgotten.await {
                tracing::error!(session = %own, %error, "the journal can't forget a failed start");
            }
            // An actor that has ended answers nobody.
            let _ = notices.send(Notice::Discarded { id: own }).await;
        });
    }
}
