//! What can go wrong with the journal.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};
use thiserror::Error;

/// The journal can't do what was asked. Several writes that shared a commit share its error.
#[derive(Clone, Debug, Error)]
pub enum JournalError {
    /// The file can't be opened or made.
    #[error("journal {}: {source}; does its directory exist, and is it writable?", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// The file is no journal, or damaged.
    #[error("journal {}: it is damaged ({problem}): the agent's next start, or `shutterd fsck`, goes on with what can be read", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file is damaged, and no new one can be made. It is as it was.
    #[error("journal {}: it is damaged ({problem}), and no new one can be made: {source}; see to the disk, nothing is lost", path.display())]
    NotReplaced {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// Why there is no new one.
        source: Box<JournalError>,
    },
    /// The file was written by a newer program.
    #[error("journal {}: its schema is version {found}, this program knows up to {known}: start the newer program again", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that is known.
        known: i64,
    },
    /// There is no room for what SQLite has to write, also beside a journal that is only read.
    #[error("journal: its disk is full ({0}): make room on the disk of state_dir")]
    NoRoom(#[source] Arc<rusqlite::Error>),
    /// SQLite can't do it: an I/O error, a lock held by somebody else.
    #[error("journal: {0}")]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// One record can't be read; the others can.
    #[error("journal: the record of session {id} can't be read: {problem}")]
    Unreadable {
        /// The session.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
    /// One record can't be written.
    #[error("journal: the record of session {id} can't be written: {problem}")]
    Refused {
        /// The session.
        id: String,
        /// Why not.
        problem: String,
    },
    /// Too many commands wait for the disk.
    #[error("journal: too many writes wait for the disk: try again later")]
    Busy,
    /// The journal's thread has ended.
    #[error("journal: it is closed")]
    Closed,
}

impl JournalError {
    pub(super) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::NoRoom(_))
    }
}

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        let is_full = error.sqlite_error().is_some_and(|it| {
            // The log's index, which SQLite has in a file of its own, finds no room.
            it.code == ErrorCode::DiskFull || it.extended_code == ffi::SQLITE_IOERR_SHMSIZE
        });
        if is_full { Self::NoRoom(Arc::new(error)) } else { Self::Sqlite(Arc::new(error)) }
    }
}
