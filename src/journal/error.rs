//! What can go wrong with the journal.

use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    #[error("journal {}: it is damaged ({problem}): move it away, and start with a new one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
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
    /// SQLite can't do it: no room, an I/O error, a lock held by somebody else.
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
        matches!(self, Self::Sqlite(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }
}

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}
