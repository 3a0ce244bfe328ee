//! Taking up sessions that an earlier daemon left unfinished: their workers dial in again, or are
//! found dead and what they left is repaired.

use std::time::Duration;

use super::actor::Actor;
use super::blocking::apart;
use super::live::Live;
use crate::clock::MonoTime;
use crate::journal::{Journal, Record};
use crate::library::Library;
use crate::session::machine::{Event, Left, LeftWorker, Machine, StopMode};
use crate::session::{EndReason, Receipt, SessionId, WorkerState};

/// Sessions whose receipts may not lie beside the media yet: no more end at once.
const LATEST: usize = 256;

/// Puts receipts beside the media where an earlier daemon crashed between the journal and that. A disk
/// that takes longer than `wait` gets them later.
///
/// # Errors
/// The journal can't be read.
pub(super) async fn complete_receipts(
    journal: &Journal,
    library: &Library,
    wait: Duration,
) -> anyhow::Result<()> {
    let records = journal.latest(LATEST).await??.records;
    let library = library.clone();
    let completed = apart(move || {
        for receipt in records.iter().filter_map(|record| record.receipt.as_ref()) {
            if let Err(error) = library.complete_receipt(receipt) {
                tracing::error!(session = %receipt.session_id, %error, "receipt.json can't be written; the journal has the receipt");
            }
        }
    });
    if tokio::time::timeout(wait, completed).await.is_err() {
        tracing::warn!(
            "the media directory is slow: receipts of sessions that finished last may be missing there"
        );
    }
    Ok(())
}

impl Actor {
    /// When a journalled session ends by itself: as its start has mapped it, unless the host was booted
    /// since; then only the wall clock tells.
    fn ends_of(&self, record: &Record) -> (Option<u64>, Option<MonoTime>) {
        if let Some(ends) = record.ends.as_ref().filter(|ends| ends.boot_id == self.processes.boot_id()) {
            return (ends.expires_at, ends.ends_at);
        }
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let expires_at =
            record.spec.expires().map(|at| self.clock.boot().saturating_add(at.nanos_since(wall)));
        let longest = [record.options.max_duration, self.settings.limits.max_duration];
        let age = Duration::from_nanos(wall.nanos_since(record.created_at));
        let ends_at = longest.into_iter().flatten().min().map(|length| now + length.saturating_sub(age));
        (expires_at, ends_at)
    }

    /// A start that was cut off before anything was recorded, and that nobody has stopped.
    fn never_began(&self, record: &Record) -> bool {
        let recorded = self.library.files(record.spec.id()).map_or(true, |files| !files.is_empty());
        record.stop.is_none() && record.worker_state == "starting" && !recorded
    }

    /// There is no half-started session: its id is free again.
    fn forget(&mut self, id: &SessionId) {
        tracing::warn!(session = %id, "a start was cut off before anything was recorded: it counts as failed");
        // Nobody is served yet: no start of this id can come between.
        if let Err(error) = self.library.remove(id) {
            tracing::warn!(session = %id, %error, "what a cut-off start left behind can't be removed");
        }
        let (forgotten, id) = (self.journal.remove(id.clone()), id.clone());
        self.tasks.spawn(async move {
            if let Ok(Err(error)) = forgotten.await {
                tracing::error!(session = %id, %error, "the journal can't forget a cut-off start");
            }
        });
    }

    /// What was called finished stays finished, also where the journal has lost that.
    fn take_receipt(&mut self, mut record: Record, receipt: Receipt) {
        tracing::warn!(session = %receipt.session_id, "the journal has no receipt of it, and receipt.json lies there");
        self.change += 1;
        record.change = self.change;
        record.forced = receipt.forced;
        let state = if receipt.forced { WorkerState::Failed } else { WorkerState::Stopped };
        state.as_str().clone_into(&mut record.worker_state);
        record.duration_seconds = Some(receipt.files.iter().map(|file| file.duration_seconds).sum());
        record.receipt = Some(receipt);
        self.unsaved.keep(record.clone());
        self.put(record, vec![Event::FinishJournalled]);
    }

    /// Takes up one session of the journal that has no receipt.
    pub(super) fn take_up(&mut self, record: Record) {
        let id: SessionId = record.spec.id().clone();
        let now = self.clock.now();
        let pid = record.worker.as_ref().map(|worker| worker.pid);
        let alive = self.processes.adopt(&id, record.worker.as_ref());
        let left = Left {
            cause: record.stop.as_ref().map(|stop| stop.reason),
            worker: if alive.is_some() { LeftWorker::Alive } else { LeftWorker::Gone },
            unrepaired: record.dead.as_ref().is_some_and(|dead| !dead.repaired),
        };
        let (machine, actions) = Machine::recover(self.limits(), now, left);
        let dead = alive.is_none();
        if dead && let Ok(Some(receipt)) = self.library.receipt(&id) {
            return self.take_receipt(record, receipt);
        }
        if dead && self.never_began(&record) {
            return self.forget(&id);
        }
        let aborted = record.stop.as_ref().is_some_and(|stop| stop.abort);
        let mut live = Live::new(machine, record, now);
        live.identified = true;
        (live.expires_at, live.ends_at) = self.ends_of(&live.record);
        if self.leases.acquire(&id, &live.record.devices).is_err() {
            tracing::error!(session = %id, "two unfinished sessions of the journal hold one device");
        }
        match alive {
            Some((process, ended)) => {
                tracing::info!(session = %id, pid = process.pid(), "session taken up: its worker is awaited");
                self.watch(&id, process.pid(), ended);
                live.record.worker = Some(process.identity());
                live.process = Some(process);
            }
            None => tracing::warn!(session = %id, "session taken up: its worker is gone"),
        }
        self.live.insert(id.clone(), live);
        self.perform(&id, actions);
        if aborted {
            let event =
                Event::StopRequested { reason: EndReason::Aborted, mode: StopMode::Abort, drain: None };
            self.feed(&id, event);
        }
        if dead {
            let last = self.library.last_account(&id);
            if let Some(last) = last.filter(|last| pid.is_none_or(|pid| last.is_of(pid))) {
                self.hear_last(&id, last);
            }
            self.feed(&id, Event::Exited);
        }
    }
}
