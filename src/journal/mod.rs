//! The daemon's durable memory: a record per session, in SQLite, on a thread of its own. A write is
//! answered once it would survive a power cut; writes that wait together share one commit.
//! Must never be waited for by whoever must not be late: every call returns at once with a receiver.
//!
//! ```text
//!  session   id (primary key) · change (unique, ascending) · finished (0, 1) · body (JSON, a Record, and its checksum)
//!  cursor    one row: the highest change ever written, so that none is used twice after a removal
//!  PRAGMA user_version = the schema's version
//! ```
//!
//! Beside the file lies one that only holds room, for when the disk is full.

mod body;
mod error;
#[cfg(test)]
pub(crate) mod played;
mod record;
mod rescue;
mod reserve;
mod rows;
mod store;
mod writer;

use std::path::Path;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{Sender, channel, error::TrySendError};
use tokio::sync::oneshot;

use crate::clock::WallTime;
use crate::session::{KeptMedia, SessionId};

pub use error::JournalError;
pub use record::{EndsRecord, Record, Records, StopRecord, WorkerIdentity};
pub use rescue::{Damage, Look, Past, look};
use store::Store;
use writer::{Command, Reply, Write, run};

/// Commands that may wait for the writer; a further one is refused as busy.
const QUEUE_COMMANDS_MAX: usize = 1024;

/// What a call is answered with.
pub type Answer<T> = oneshot::Receiver<Result<T, JournalError>>;

/// The journal. It is closed, and its thread joined, when it goes out of scope.
#[derive(Debug)]
pub struct Journal {
    commands: Option<Sender<Command>>,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the journal at `path`, or makes it there, readable by its owner only. Blocks.
    ///
    /// # Errors
    /// A file that can't be opened or made, that is damaged, or whose schema is newer than this program.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        Self::of(Store::open(path)?, path)
    }

    /// As [`Journal::open`], also where the file is damaged: it is kept under another name, and a new one begun
    /// with what can still be read of it. The highest change is then one that was surely never given out at
    /// `now`. `is_first` is asked where there is no journal: whether there never was one. Blocks.
    ///
    /// # Errors
    /// A file that can't be opened or made, or whose schema is newer than this program.
    pub fn restore(
        path: &Path,
        now: WallTime,
        is_first: impl FnOnce() -> bool,
    ) -> Result<(Self, Past), JournalError> {
        let (store, past) = rescue::restore(path, now, is_first)?;
        Ok((Self::of(store, path)?, past))
    }

    fn of(store: Store, path: &Path) -> Result<Self, JournalError> {
        let (commands, queue) = channel(QUEUE_COMMANDS_MAX);
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || run(store, queue))
            .map_err(|source| JournalError::file(path, source))?;
        Ok(Self { commands: Some(commands), writer: Some(writer) })
    }

    /// Writes `record` in place of an earlier one of its session; answered when it is durable.
    /// Its `change` is higher than any before, or its own again when a write is repeated.
    pub fn put(&self, record: Record) -> Answer<()> {
        self.submit(|reply| Command::Write(Write::Put(Box::new(record)), reply))
    }

    /// Removes the record of `id`, if there is one; answered when that is durable.
    pub fn remove(&self, id: SessionId) -> Answer<()> {
        self.submit(|reply| Command::Write(Write::Remove(id), reply))
    }

    /// The record of `id`.
    pub fn get(&self, id: SessionId) -> Answer<Option<Record>> {
        self.submit(|reply| Command::Get(id, reply))
    }

    /// The first `limit` records that changed after `since`, by their change.
    pub fn list(&self, since: u64, limit: usize) -> Answer<Records> {
        self.submit(|reply| Command::List { since, limit, reply })
    }

    /// The `limit` records that changed last, the last first.
    pub fn latest(&self, limit: usize) -> Answer<Records> {
        self.submit(|reply| Command::Latest { limit, reply })
    }

    /// Every record without a receipt, by its change.
    pub fn unfinished(&self) -> Answer<Records> {
        self.submit(Command::Unfinished)
    }

    /// The ids of every record, also of one that can't be read.
    pub fn ids(&self) -> Answer<Vec<String>> {
        self.submit(Command::Ids)
    }

    /// The media of finished sessions that was not removed, by the session's last change.
    pub fn kept(&self) -> Answer<Vec<KeptMedia>> {
        self.submit(Command::Kept)
    }

    /// The highest change ever written, 0 for none; it never falls.
    pub fn last_change(&self) -> Answer<u64> {
        self.submit(Command::LastChange)
    }

    /// Writes something that changes nothing, and reads; answered when both were done, durably.
    pub fn check(&self) -> Answer<()> {
        self.submit(Command::Check)
    }

    /// Performs what waits, closes the file and joins the thread. Blocks.
    pub fn close(self) {
        drop(self);
    }

    fn submit<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let command = command(reply);
        let commands = self.commands.as_ref().expect("only drop takes it");
        match commands.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(command)) => command.refuse(JournalError::Busy),
            Err(TrySendError::Closed(command)) => command.refuse(JournalError::Closed),
        }
        answer
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.commands.take();
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            tracing::error!("the journal's thread panicked");
        }
    }
}
