//! Receipts that the journal has not taken: a session that is finished without it is kept here, answered
//! with, and offered again until the journal has it. Nothing that was said is taken back.

use std::collections::BTreeMap;

use crate::journal::Record;
use crate::session::SessionId;

/// Finished sessions whose receipts the journal has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    sessions: BTreeMap<SessionId, Entry>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    /// The journal has it to write, and has not answered.
    offered: bool,
}

impl Unsaved {
    /// Keeps the record of a session that is finished while the journal still has it to write.
    pub(super) fn keep(&mut self, record: Record) {
        self.sessions.insert(record.spec.id().clone(), Entry { record, offered: true });
    }

    /// The journal has taken the session's record of this change, or a later one.
    pub(super) fn taken(&mut self, id: &SessionId, change: u64) {
        if self.sessions.get(id).is_some_and(|entry| entry.record.change <= change) {
            self.sessions.remove(id);
        }
    }

    /// The journal has refused the session's record of this change.
    pub(super) fn refused(&mut self, id: &SessionId, change: u64) {
        if let Some(entry) = self.sessions.get_mut(id).filter(|entry| entry.record.change <= change) {
            entry.offered = false;
        }
    }

    /// What is to be offered again. It counts as offered from here on.
    pub(super) fn offer_again(&mut self) -> Vec<Record> {
        let refused = self.sessions.values_mut().filter(|entry| !entry.offered);
        refused
            .map(|entry| {
                entry.offered = true;
                entry.record.clone()
            })
            .collect()
    }

    /// The record of `id`, if the journal has not taken it.
    pub(super) fn get(&self, id: &SessionId) -> Option<&Record> {
        self.sessions.get(id).map(|entry| &entry.record)
    }

    /// Every record that the journal has not taken.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.sessions.values().map(|entry| &entry.record)
    }
}
