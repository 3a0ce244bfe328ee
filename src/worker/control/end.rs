//! The end of a worker's session: ordered or by itself, in good order or before it began.

use super::{Control, Stage};
use crate::clock::{Clock, MonoTime, SystemClock};
use crate::device::Wake;
use crate::link::message::{Ending, Finished, Released, StartFailed, Working, from_worker::Body};
use crate::link::{LAST_ACCOUNT_DRAFT_NAME, LAST_ACCOUNT_NAME, LastAccount};
use crate::session::{Account, EndReason, SourceState};
use crate::telemetry::chain;
use crate::worker::connection::boot_id;
use crate::worker::report::account_json;

impl Control {
    /// The worker ends the session by itself.
    pub(super) fn end(&mut self, reason: EndReason, message: &str) {
        if !matches!(self.stage, Stage::Starting | Stage::Working) {
            return;
        }
        let at = SystemClock.now();
        tracing::info!(%reason, why = message, "the worker ends the session");
        let ending = Ending { reason: reason.to_string(), message: message.to_owned(), stop_at: at.nanos() };
        self.connection.tell(Body::Ending(ending.clone()));
        self.ending = Some(ending);
        self.order_stop(at);
    }

    /// Every device is closed.
    pub(super) fn tell_released(&mut self) {
        let is_news = self.released_at.is_none();
        let at = *self.released_at.get_or_insert(SystemClock.now());
        self.connection.tell(Body::Released(Released { at: at.nanos() }));
        if is_news {
            tracing::info!("every device is closed");
        }
    }

    /// Tells a daemon that has come since what was said to the one before.
    pub(super) fn tell_again(&mut self) {
        if self.recording {
            self.tell_working();
        }
        if let Some(ending) = self.ending.clone() {
            self.connection.tell(Body::Ending(ending));
        }
        if self.released_at.is_some() {
            self.tell_released();
        }
    }

    /// Packets are being recorded.
    pub(super) fn tell_working(&mut self) {
        let (origin, first_segment) = (self.origin.nanos(), self.first_segment);
        self.connection.tell(Body::Working(Working { origin, first_segment }));
    }

    pub(super) fn order_stop(&mut self, at: MonoTime) {
        if !self.stop.order(at) {
            return;
        }
        self.stop_ordered_at = Some(SystemClock.now());
        self.wakes.iter().for_each(Wake::ring);
        if matches!(self.stage, Stage::Starting | Stage::Working) {
            self.stage = Stage::Draining;
            tracing::info!("draining");
        }
        if self.stage == Stage::Draining && self.sources.all_closed() {
            self.tell_released();
            self.finalize();
        }
    }

    /// No more packets come: what is in the queue goes to the file, and the file becomes final.
    pub(super) fn finalize(&mut self) {
        self.stage = Stage::Finalizing;
        if !self.recording && !self.queue.is_empty() {
            // Stopped before every source had delivered: what the others did deliver is kept.
            if let Err(error) = self.record_from(self.sources.origin()) {
                self.ledger.warn(chain(&error));
            }
        }
        self.queue.close();
        if !self.recording {
            self.finish();
        }
    }

    pub(super) fn finish(&mut self) {
        self.ledger.settle();
        self.ledger.tell_drifts();
        let account = self.ledger.account();
        self.reports.send(&mut self.connection, &self.ledger, &self.queue);
        let (files, bytes) = (account.files.len(), account.files.iter().map(|file| file.bytes).sum::<u64>());
        let json = account_json(&account);
        self.leave_account(account);
        self.connection.tell(Body::Finished(Finished { account: json }));
        tracing::info!(files, bytes, "the media is final");
        self.stage = Stage::Done;
    }

    /// Leaves the account beside the media, for the case that no daemon hears it. It need not survive
    /// a power cut: then the files are repaired and counted.
    fn leave_account(&self, account: Account) {
        let dir = &self.settings.session_dir;
        let last = LastAccount {
            account,
            reason: self.ending.as_ref().and_then(|ending| EndReason::from_word(&ending.reason)),
            stop_at: self.stop.get().unwrap_or_else(|| SystemClock.now()),
            released_at: self.released_at,
            boot_id: boot_id(),
            pid: Some(std::process::id()),
        };
        let json = serde_json::to_vec(&last).expect("an account has nothing that JSON can't say");
        let draft = dir.join(LAST_ACCOUNT_DRAFT_NAME);
        let left =
            std::fs::write(&draft, json).and_then(|()| std::fs::rename(&draft, dir.join(LAST_ACCOUNT_NAME)));
        if let Err(error) = left {
            tracing::warn!(%error, "the account can't be left beside the media");
        }
    }

    /// The session can't start: every device is given back, then that is said.
    pub(super) fn fail_start(&mut self, reason: &str, source: Option<usize>, message: &str) {
        if self.stage != Stage::Starting {
            return;
        }
        self.stage = Stage::Failing;
        let settings = source.map(|source| &self.settings.sources[source]);
        self.failure = Some(StartFailed {
            reason: reason.to_owned(),
            source_id: settings.map(|it| it.id.clone()).unwrap_or_default(),
            device: settings.map(|it| it.device.label.clone()).unwrap_or_default(),
            message: message.to_owned(),
        });
        self.order_stop(SystemClock.now());
        tracing::warn!(reason, why = message, "the session can't start");
        self.queue.discard();
        if self.wakes.is_empty() || self.sources.all_closed() {
            self.give_up();
        }
    }

    pub(super) fn give_up(&mut self) {
        if let Some(failure) = self.failure.take() {
            self.connection.tell(Body::StartFailed(failure));
        }
        self.stage = Stage::Done;
        self.failed = true;
    }

    pub(super) fn start_timed_out(&mut self) {
        let silent = self.sources.silent();
        if self.settings.resumed && self.sources.any_delivers() {
            // They are heard once they deliver.
            for source in silent {
                self.ledger.turn(source, SourceState::Degraded, "it has delivered nothing since the restart");
                self.on_missing(source);
            }
            return;
        }
        let source = silent.first().copied();
        let label =
            source.map_or("a source", |source| &self.settings.sources[source].device.label).to_owned();
        let seconds = self.settings.start_timeout.as_secs_f64();
        let message = format!(
            "{label} has delivered no frame within {seconds} s: check that it works and is not paused"
        );
        self.fail_start("START_TIMEOUT", source, &message);
    }
}
