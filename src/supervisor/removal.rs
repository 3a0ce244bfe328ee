//! Media of finished sessions: who reads it, and its removal. A removal goes through the journal twice:
//! before the first file goes it is pending there, and once all is durably gone it is removed. Whatever
//! ends the daemon in between, the next one goes on. One removal is under way at a time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::actor::Actor;
use super::answer::send;
use super::command::{Notice, Reply, SessionView};
use super::compose;
use super::refusal::Refusal;
use super::scope::Scope;
use crate::clock::{Clock, MonoTime};
use crate::journal::{JournalError, Record};
use crate::library::RemovalError;
use crate::session::limits::WARNINGS_MAX;
use crate::session::{KeptMedia, Removal, RemovalReason, RemovalState, Room, SessionId, next_removal};

/// When a removal that has failed is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// Somebody reads a session's media. As long as it is held, the media is not removed.
#[derive(Debug)]
pub struct Reading(#[expect(dead_code, reason = "that it is held is all it says")] Arc<()>);

/// How far a removal has come.
pub(super) enum RemovalNotice {
    /// The journal was asked for the session.
    Found { id: SessionId, reason: RemovalReason, found: Box<Result<Option<Record>, JournalError>> },
    /// The files are gone, with what is to be told of it; or not.
    Gone { record: Box<Record>, outcome: Result<Vec<String>, RemovalError> },
    /// Bytes free on the disk of the media, if that could be found out.
    Measured { free_bytes: Option<u64> },
    /// The journal has taken the record, or not.
    Journalled { record: Box<Record>, outcome: Result<(), JournalError> },
}

/// The media that is kept.
#[derive(Default)]
pub(super) struct Shelf {
    /// Oldest finish first.
    kept: Vec<KeptMedia>,
    readings: HashMap<SessionId, Weak<()>>,
    under_way: Option<SessionId>,
    /// A change that the journal is being told, and watchers are not yet.
    untold: Option<u64>,
    /// Bytes free on the disk; absent until they are measured, and again since the last removal.
    free_bytes: Option<u64>,
    measuring: bool,
    /// Removals that have failed, and until when they wait.
    put_off: HashMap<SessionId, MonoTime>,
}

impl Shelf {
    pub(super) fn new(kept: Vec<KeptMedia>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// The journal has the receipt of a session with this media.
    pub(super) fn add(&mut self, media: Option<KeptMedia>) {
        let Some(media) = media else { return };
        if !self.kept.iter().any(|it| it.session == media.session) {
            self.kept.push(media);
        }
    }

    pub(super) fn untold(&self) -> Option<u64> {
        self.untold
    }

    fn reading(&mut self, id: &SessionId) -> Reading {
        let held = self.readings.get(id).and_then(Weak::upgrade).unwrap_or_default();
        self.readings.insert(id.clone(), Arc::downgrade(&held));
        Reading(held)
    }

    fn is_read(&self, id: &SessionId) -> bool {
        self.readings.get(id).is_some_and(|held| held.strong_count() > 0)
    }
}

impl Actor {
    /// Answers with a session whose media may be read, unless it is to be removed.
    pub(super) fn read(&mut self, id: SessionId, scope: Scope, reply: Reply<(Arc<SessionView>, Reading)>) {
        // Held from before the look: no removal begins meanwhile.
        let reading = self.shelf.reading(&id);
        let (found, looked) = oneshot::channel();
        self.get(id.clone(), scope, found);
        self.tasks.spawn(async move {
            let answer = looked.await.unwrap_or_else(|_| Err(Refusal::gone()));
            let answer = answer.and_then(|view| {
                let removal = view.receipt.as_ref().and_then(|receipt| receipt.removal.as_ref());
                match removal.filter(|_| view.finished) {
                    Some(removal) => Err(Refusal::media_removed(&id, removal)),
                    None => Ok((view, reading)),
                }
            });
            send(reply, answer);
        });
    }

    /// Begins with the next removal, if one is due.
    pub(super) fn remove_what_is_due(&mut self) {
        let now = self.clock.now();
        self.shelf.readings.retain(|_, held| held.strong_count() > 0);
        if self.shelf.under_way.is_some() {
            return;
        }
        let may_go = |media: &KeptMedia| {
            let waits = self.shelf.put_off.get(&media.session).is_some_and(|until| now < *until);
            !waits && !self.shelf.is_read(&media.session) && !self.live.contains_key(&media.session)
        };
        let room = Room { now: self.clock.wall(), free_bytes: self.shelf.free_bytes };
        let due = next_removal(&self.shelf.kept, &self.settings.retention, room, may_go);
        let Some((media, reason)) = due else { return };
        let id = media.session.clone();
        self.shelf.under_way = Some(id.clone());
        let (found, notices) = (self.journal.get(id.clone()), self.notices.clone());
        self.tasks.spawn(async move {
            let found = Box::new(found.await.unwrap_or(Err(JournalError::Closed)));
            // An actor that has ended leaves the rest to the next daemon.
            let _ = notices.send(Notice::Removal(RemovalNotice::Found { id, reason, found })).await;
        });
    }

    pub(super) fn on_removal(&mut self, notice: RemovalNotice) {
        match notice {
            RemovalNotice::Found { id, reason, found } => self.on_found(id, reason, *found),
            RemovalNotice::Measured { free_bytes } => {
                (self.shelf.free_bytes, self.shelf.measuring) = (free_bytes, false);
                self.remove_what_is_due();
            }
            RemovalNotice::Gone { record, outcome } => self.on_gone(record, outcome),
            RemovalNotice::Journalled { record, outcome } => self.on_removal_journalled(record, outcome),
        }
    }

    /// Has the room on the disk measured, if that decides anything. A disk that hangs is asked once.
    pub(super) fn measure_room(&mut self) {
        if self.settings.retention.min_free_bytes.is_none() || self.shelf.measuring {
            return;
        }
        self.shelf.measuring = true;
        let (library, notices) = (self.library.clone(), self.notices.clone());
        self.tasks.spawn(async move {
            let space = tokio::task::spawn_blocking(move || library.space()).await;
            let free_bytes = space.ok().and_then(Result::ok).map(|(free, _)| free);
            // An actor that has ended removes nothing.
            let _ = notices.send(Notice::Removal(RemovalNotice::Measured { free_bytes })).await;
        });
    }

    fn on_found(
        &mut self,
        id: SessionId,
        reason: RemovalReason,
        found: Result<Option<Record>, JournalError>,
    ) {
        let mut record = match found {
            Ok(Some(record)) => Box::new(record),
            Ok(None) => return self.take_from_shelf(&id),
            Err(error) => return self.put_off(&id, &error),
        };
        let Some(receipt) = record.receipt.as_mut() else { return self.take_from_shelf(&id) };
        match receipt.removal {
            Some(_) => self.unlink(record),
            // Somebody has begun to read since it was chosen.
            None if self.shelf.is_read(&id) => self.shelf.under_way = None,
            None => {
                let (state, removed_at) = (RemovalState::Pending, None);
                receipt.removal = Some(Removal { state, removed_at, reason });
                self.journal_removal(record);
            }
        }
    }

    /// Has the files removed.
    fn unlink(&mut self, record: Box<Record>) {
        let (library, notices) = (self.library.clone(), self.notices.clone());
        let Some(receipt) = record.receipt.clone() else { return };
        self.tasks.spawn(async move {
            let removed = tokio::task::spawn_blocking(move || {
                // As long as it lies there it says the same as the journal. A full disk is no reason to keep
                // media.
                if let Err(error) = library.write_receipt(&receipt) {
                    tracing::warn!(session = %receipt.session_id, %error, "receipt.json doesn't tell the removal");
                }
                library.remove_media(&receipt)
            });
            if let Ok(outcome) = removed.await {
                // An actor that has ended leaves the rest to the next daemon.
                let _ = notices.send(Notice::Removal(RemovalNotice::Gone { record, outcome })).await;
            }
        });
    }

    fn on_gone(&mut self, mut record: Box<Record>, outcome: Result<Vec<String>, RemovalError>) {
        let warnings = match outcome {
            Ok(warnings) => warnings,
            Err(error) => return self.put_off(&record.spec.id().clone(), &error),
        };
        let now = self.clock.wall();
        let Some(receipt) = record.receipt.as_mut() else { return };
        for warning in warnings {
            tracing::warn!(session = %receipt.session_id, warning, "media removed, but not all of its directory");
            if receipt.warnings.len() < WARNINGS_MAX && !receipt.warnings.contains(&warning) {
                receipt.warnings.push(warning);
            }
        }
        if let Some(removal) = receipt.removal.as_mut() {
            (removal.state, removal.removed_at) = (RemovalState::Removed, Some(now));
        }
        self.journal_removal(record);
    }

    fn journal_removal(&mut self, mut record: Box<Record>) {
        self.change += 1;
        record.change = self.change;
        self.shelf.untold = Some(self.change);
        let written = self.journal.put((*record).clone());
        let (library, notices) = (self.library.clone(), self.notices.clone());
        self.tasks.spawn(async move {
            let outcome = written.await.unwrap_or(Err(JournalError::Closed));
            if outcome.is_ok() && is_removed(&record) {
                let session = record.spec.id().clone();
                let gone = tokio::task::spawn_blocking(move || library.remove_dir(&session)).await;
                if let Ok(Err(error)) = gone {
                    tracing::warn!(session = %record.spec.id(), %error, "an empty directory can't be removed");
                }
            }
            // An actor that has ended leaves the rest to the next daemon.
            let _ = notices.send(Notice::Removal(RemovalNotice::Journalled { record, outcome })).await;
        });
    }

    fn on_removal_journalled(&mut self, record: Box<Record>, outcome: Result<(), JournalError>) {
        let id = record.spec.id().clone();
        self.shelf.untold = None;
        if let Err(error) = outcome {
            return self.put_off(&id, &error);
        }
        self.journalled = self.journalled.max(record.change);
        // Nobody may be watching.
        let view = compose::view_of(&record);
        let _ = self.changes.send(Arc::new(SessionView { cursor: self.cursor(), ..view }));
        if is_removed(&record) {
            let receipt = record.receipt.as_ref();
            let reason = receipt.and_then(|it| it.removal.as_ref()).map(|it| it.reason.as_str());
            let files = receipt.map(|it| it.files.len());
            tracing::info!(session = %id, reason, files, "media removed");
            self.take_from_shelf(&id);
        } else {
            self.unlink(record);
        }
    }

    fn take_from_shelf(&mut self, id: &SessionId) {
        self.shelf.kept.retain(|media| media.session != *id);
        self.shelf.put_off.remove(id);
        self.shelf.under_way = None;
        self.shelf.free_bytes = None;
        self.measure_room();
        self.remove_what_is_due();
    }

    /// It is tried again later; what is wrong is told once.
    fn put_off(&mut self, id: &SessionId, error: &impl std::fmt::Display) {
        self.shelf.under_way = None;
        if self.shelf.put_off.insert(id.clone(), self.clock.now() + RETRY).is_none() {
            self.problem(Some(id), format!("the media of session {id} can't be removed: {error}"));
        }
    }
}

fn is_removed(record: &Record) -> bool {
    let removal = record.receipt.as_ref().and_then(|receipt| receipt.removal.as_ref());
    removal.is_some_and(|removal| removal.state == RemovalState::Removed)
}
