//! Media of finished sessions: who reads it, and its removal. A removal goes through the journal twice:
//! before the first file goes it is pending there, and once all is durably gone it is removed. Whatever
//! ends the daemon in between, the next one goes on. One removal is under way at a time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::actor::Actor;
use super::answer::send;
use super::blocking::apart;
use super::command::{Notice, Reply, SessionView};
use super::compose;
use super::refusal::Refusal;
use super::scope::Scope;
use crate::clock::MonoTime;
use crate::journal::{JournalError, Record};
use crate::library::{Library, RemovalError};
use crate::session::limits::WARNINGS_MAX;
use crate::session::{
    AgeClock, Hold, KeptMedia, Removal, RemovalReason, RemovalState, Room, SessionId, is_out_of_reach,
    next_removal,
};

/// When a removal that has failed is tried again, at first; then after twice as long each time.
const RETRY: Duration = Duration::from_secs(60);
/// The longest time between two tries.
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// A file system may give the room of a removed file back that late: btrfs does with its next commit, after
/// 30 s (`btrfs(5)`), others after a transaction. What is measured earlier would have too much removed.
const GIVEN_BACK_AFTER: Duration = Duration::from_secs(60);

/// Told when the wall clock was set forward.
const CLOCK_SET: &str =
    "the clock was set forward: media goes by that age in a day; if it is wrong, set it back";
/// Told when nothing is removed for room.
const OUT_OF_REACH: &str = "the disk of media_dir would have less than retention.min_free_bytes free without any \
    media, too: none is removed for it; see what fills the disk, or lower the limit";

/// Somebody reads a session's media. As long as it is held, the media is not removed.
#[derive(Debug)]
pub struct Reading(#[expect(dead_code, reason = "that it is held is all it says")] Arc<()>);

/// How far a removal has come.
pub(super) enum RemovalNotice {
    /// The journal was asked for the session.
    Found { id: SessionId, reason: RemovalReason, found: Box<Result<Option<Record>, JournalError>> },
    /// The files were looked at: they can be removed, or not.
    Checked { record: Box<Record>, reason: RemovalReason, outcome: Result<(), RemovalError> },
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
    /// Bytes free on the disk as measured, and those of what was removed since; absent until then.
    free_bytes: Option<u64>,
    measuring: bool,
    /// Until then the disk may not have given back what was removed.
    given_back_at: MonoTime,
    /// The disk would have too little room without any media; that was told.
    out_of_reach: bool,
    ages: AgeClock,
    /// Removals that have failed.
    put_off: HashMap<SessionId, PutOff>,
}

/// A removal that has failed.
struct PutOff {
    until: MonoTime,
    wait: Duration,
    /// What a person has to do, if it is not simply passed over.
    problem: Option<String>,
}

impl Shelf {
    pub(super) fn new(kept: Vec<KeptMedia>, library: &Library) -> Self {
        let mut shelf = Self::default();
        for media in kept {
            shelf.add(Some(media), library);
        }
        shelf
    }

    /// The journal has the receipt of a session with this media. What lies in another media directory takes up
    /// no room in this one, and stays unless its session wants it removed.
    pub(super) fn add(&mut self, media: Option<KeptMedia>, library: &Library) {
        let Some(media) = media else { return };
        let is_here = media.dir.as_ref().is_none_or(|dir| *dir == library.session_dir(&media.session));
        let is_known = self.kept.iter().any(|it| it.session == media.session);
        if !is_known && (is_here || media.removal.is_some()) {
            self.kept.push(media);
        }
    }

    /// What was promised to be removed, and can't be: why.
    pub(super) fn unremoved(&self) -> Vec<(SessionId, String)> {
        let told = |(id, put_off): (&SessionId, &PutOff)| Some((id.clone(), put_off.problem.clone()?));
        let mut unremoved: Vec<_> = self.put_off.iter().filter_map(told).collect();
        unremoved.sort();
        unremoved
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
        let was_doubted = self.shelf.ages.is_doubted();
        let boot = Duration::from_nanos(self.clock.boot());
        let room =
            Room { now: self.shelf.ages.judge(self.clock.wall(), boot), free_bytes: self.shelf.free_bytes };
        if !was_doubted && self.shelf.ages.is_doubted() && self.settings.retention.max_age.is_some() {
            self.problem(None, CLOCK_SET.to_owned());
        }
        let hold = |media: &KeptMedia| match self.shelf.put_off.get(&media.session) {
            Some(put_off) if now < put_off.until => Hold::PutOff,
            _ if self.shelf.is_read(&media.session) || self.live.contains_key(&media.session) => Hold::Use,
            _ => Hold::Nothing,
        };
        let (kept, limits) = (&self.shelf.kept, &self.settings.retention);
        let out_of_reach = is_out_of_reach(kept, limits, room, hold);
        let due =
            next_removal(kept, limits, room, hold).map(|(media, reason)| (media.session.clone(), reason));
        if out_of_reach && !std::mem::replace(&mut self.shelf.out_of_reach, out_of_reach) {
            self.problem(None, OUT_OF_REACH.to_owned());
        }
        self.shelf.out_of_reach = out_of_reach;
        let Some((id, reason)) = due else { return };
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
                self.shelf.measuring = false;
                if self.is_given_back() {
                    self.shelf.free_bytes = free_bytes;
                    self.remove_what_is_due();
                }
            }
            RemovalNotice::Checked { record, reason, outcome } => self.on_checked(record, reason, outcome),
            RemovalNotice::Gone { record, outcome } => self.on_gone(record, outcome),
            RemovalNotice::Journalled { record, outcome } => self.on_removal_journalled(record, outcome),
        }
    }

    /// Has the room on the disk measured, if that decides anything. A disk that hangs is asked once.
    pub(super) fn measure_room(&mut self) {
        let unwanted = self.settings.retention.min_free_bytes.is_none() || self.shelf.measuring;
        if unwanted || !self.is_given_back() {
            return;
        }
        self.shelf.measuring = true;
        let (library, notices) = (self.library.clone(), self.notices.clone());
        self.tasks.spawn(async move {
            let space = apart(move || library.space()).await;
            let free_bytes = space.ok().and_then(Result::ok).map(|(free, _)| free);
            // An actor that has ended removes nothing.
            let _ = notices.send(Notice::Removal(RemovalNotice::Measured { free_bytes })).await;
        });
    }

    fn is_given_back(&self) -> bool {
        self.clock.now() >= self.shelf.given_back_at
    }

    fn on_found(
        &mut self,
        id: SessionId,
        reason: RemovalReason,
        found: Result<Option<Record>, JournalError>,
    ) {
        let record = match found {
            Ok(Some(record)) => Box::new(record),
            Ok(None) => return self.take_from_shelf(&id),
            Err(error) => return self.put_off(&id, &error),
        };
        let Some(receipt) = record.receipt.clone() else { return self.take_from_shelf(&id) };
        if receipt.removal.is_some() {
            return self.unlink(record);
        }
        let (library, notices) = (self.library.clone(), self.notices.clone());
        self.tasks.spawn(async move {
            if let Ok(outcome) = apart(move || library.check_removal(&receipt)).await {
                // An actor that has ended removes nothing.
                let _ =
                    notices.send(Notice::Removal(RemovalNotice::Checked { record, reason, outcome })).await;
            }
        });
    }

    /// What can't be removed is not promised to be: its disk may come back when there is room again.
    fn on_checked(
        &mut self,
        mut record: Box<Record>,
        reason: RemovalReason,
        outcome: Result<(), RemovalError>,
    ) {
        let id = record.spec.id().clone();
        match (outcome, record.receipt.as_mut()) {
            (Err(RemovalError::Missing { dir }), _) => {
                tracing::warn!(session = %id, dir = %dir.display(), "media is not there, and is passed over");
                self.pass_over(&id, RETRY_MAX, None);
                // Years of it may have been removed by hand: it must not keep the rest from its turn.
                self.remove_what_is_due();
            }
            (Err(error), _) => self.put_off(&id, &error),
            // Somebody has begun to read since it was chosen.
            (Ok(()), _) if self.shelf.is_read(&id) => self.shelf.under_way = None,
            (Ok(()), Some(receipt)) => {
                let (state, removed_at) = (RemovalState::Pending, None);
                receipt.removal = Some(Removal { state, removed_at, reason });
                self.journal_removal(record);
            }
            (Ok(()), None) => self.take_from_shelf(&id),
        }
    }

    /// Has the files removed.
    fn unlink(&mut self, record: Box<Record>) {
        let (library, notices) = (self.library.clone(), self.notices.clone());
        let Some(receipt) = record.receipt.clone() else { return };
        self.tasks.spawn(async move {
            let removed = apart(move || {
                library.check_removal(&receipt)?;
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
                let gone = apart(move || library.remove_dir(&session)).await;
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
        let reason = record.receipt.as_ref().and_then(|receipt| Some(receipt.removal.as_ref()?.reason));
        let entry = self.shelf.kept.iter_mut().find(|media| media.session == id);
        if is_removed(&record) {
            let files = record.receipt.as_ref().map(|receipt| receipt.files.len());
            tracing::info!(session = %id, reason = reason.map(RemovalReason::as_str), files, "media removed");
            let bytes = entry.map_or(0, |media| media.bytes);
            self.shelf.free_bytes = self.shelf.free_bytes.map(|free| free.saturating_add(bytes));
            self.shelf.given_back_at = self.clock.now() + GIVEN_BACK_AFTER;
            self.take_from_shelf(&id);
        } else {
            if let Some(media) = entry {
                media.removal = reason;
            }
            self.unlink(record);
        }
    }

    fn take_from_shelf(&mut self, id: &SessionId) {
        self.shelf.kept.retain(|media| media.session != *id);
        self.shelf.put_off.remove(id);
        self.shelf.under_way = None;
        self.remove_what_is_due();
    }

    /// It is tried again later; what is wrong is told once.
    fn put_off(&mut self, id: &SessionId, error: &impl std::fmt::Display) {
        let problem = format!("the media of session {id} can't be removed: {error}");
        let is_known = self.shelf.put_off.get(id).is_some_and(|it| it.problem.as_ref() == Some(&problem));
        if !is_known {
            self.problem(Some(id), problem.clone());
        }
        let wait = self.shelf.put_off.get(id).map_or(RETRY, |before| RETRY_MAX.min(before.wait * 2));
        self.pass_over(id, wait, Some(problem));
    }

    fn pass_over(&mut self, id: &SessionId, wait: Duration, problem: Option<String>) {
        let until = self.clock.now() + wait;
        self.shelf.put_off.insert(id.clone(), PutOff { until, wait, problem });
        self.shelf.under_way = None;
    }
}

fn is_removed(record: &Record) -> bool {
    let removal = record.receipt.as_ref().and_then(|receipt| receipt.removal.as_ref());
    removal.is_some_and(|removal| removal.state == RemovalState::Removed)
}
