//! The journal's file. Every call here blocks.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, ffi, params,
};

use super::body::{self, BodyError};
use super::reserve::Reserve;
use super::writer::Write;
use super::{JournalError, Record, Records};
use crate::session::{KeptMedia, SessionId};

/// The newest schema that is known.
const SCHEMA_VERSION: i64 = 1;
/// No program ever has a schema beyond this one: what says so is damaged.
const SCHEMA_VERSION_MAX: i64 = 100;
/// Records of one answer.
const LIST_RECORDS_MAX: usize = 1000;
/// Unreadable records that one answer names.
const SKIPPED_MAX: usize = 1000;
/// Bytes of a record: the spec's limit, and 16 sources with 1000 gaps each.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Bytes to which the write-ahead log is cut back.
const LOG_BYTES_MAX: i64 = 4 << 20;
/// How long a lock of somebody who looks into the file is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(1);

pub(super) const SCHEMA: &str = "
    CREATE TABLE session (
        id TEXT PRIMARY KEY NOT NULL,
        change INTEGER NOT NULL UNIQUE,
        finished INTEGER NOT NULL CHECK (finished IN (0, 1)),
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX session_unfinished ON session (change) WHERE finished = 0;
    CREATE TABLE cursor (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        last_change INTEGER NOT NULL
    ) STRICT;
    INSERT INTO cursor (id, last_change) VALUES (1, 0);
    PRAGMA user_version = 1;
";

/// Sessions that have a receipt, and media that was not removed, as [`KeptMedia::of`] has it.
const HAS_MEDIA: &str = "finished = 1 AND CASE WHEN json_valid(body)
    THEN CASE json_extract(body, '$.receipt.removal.state')
        WHEN 'pending' THEN 1 WHEN 'removed' THEN 0
        ELSE json_array_length(body, '$.receipt.files') > 0 OR json_extract(body, '$.receipt.forced') END
    ELSE 0 END";

/// The open file.
pub struct Store {
    connection: Connection,
    reserve: Reserve,
}

impl Store {
    /// Opens the file at `path`, or makes it.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        make_private(path).map_err(|source| JournalError::file(path, source))?;
        let mut reserve = Reserve::beside(path);
        let connection = match connect(path) {
            // On a full disk SQLite can't even make its log, and says so in several ways.
            Err(JournalError::Sqlite(_) | JournalError::NoRoom(_)) if reserve.give_back() => connect(path)?,
            connection => connection?,
        };
        // SQLite makes its log's name durable, but lets it be where it can't open the directory.
        sync_dir(path).map_err(|source| JournalError::file(path, source))?;
        reserve.take();
        Ok(Self { connection, reserve })
    }

    /// Rows that are in no file.
    #[cfg(test)]
    pub fn in_memory() -> Self {
        let connection = Connection::open_in_memory().expect("there is memory");
        connection.execute_batch(SCHEMA).expect("the schema is valid");
        Self { connection, reserve: Reserve::default() }
    }

    /// Reads every record.
    ///
    /// # Errors
    /// One is not what was written.
    pub fn check_records(&self, path: &Path) -> Result<(), JournalError> {
        self.look_at_records().map_err(|error| damage(path, error)).and_then(|damaged| match damaged {
            None => Ok(()),
            Some(problem) => Err(JournalError::Damaged { path: path.to_owned(), problem }),
        })
    }

    /// Lets the highest change be `change` at least.
    pub fn advance(&mut self, change: u64) -> Result<(), JournalError> {
        let change = i64::try_from(change).unwrap_or(i64::MAX);
        self.connection.execute("UPDATE cursor SET last_change = max(last_change, ?1)", [change])?;
        Ok(())
    }

    /// Performs `writes` in one commit; a result each. One that is refused doesn't harm the others.
    pub fn write(&mut self, writes: &[Write]) -> Vec<Result<(), JournalError>> {
        let mut outcome = self.try_write(writes);
        if outcome.as_ref().is_err_and(JournalError::is_full) && self.reserve.give_back() {
            tracing::warn!("the journal's disk is full: the room that was kept for that is used");
            outcome = self.try_write(writes);
        }
        if outcome.is_ok() {
            self.reserve.take();
        }
        outcome.unwrap_or_else(|error| vec![Err(error); writes.len()])
    }

    /// The record of `id`.
    pub fn get(&self, id: &SessionId) -> Result<Option<Record>, JournalError> {
        let mut query = self.connection.prepare_cached("SELECT id, body FROM session WHERE id = ?1")?;
        let found = query.query_row([id.as_str()], |row| Ok(read(row))).optional()?;
        found.transpose()
    }

    /// The first `limit` readable records that changed after `since`.
    pub fn list(&self, since: u64, limit: usize) -> Result<Records, JournalError> {
        let since = i64::try_from(since).unwrap_or(i64::MAX);
        let sql = "SELECT id, body FROM session WHERE change > ?1 ORDER BY change";
        self.select(sql, since, limit.min(LIST_RECORDS_MAX))
    }

    /// The `limit` readable records that changed last, the last first.
    pub fn latest(&self, limit: usize) -> Result<Records, JournalError> {
        let sql = "SELECT id, body FROM session WHERE change > ?1 ORDER BY change DESC";
        self.select(sql, i64::MIN, limit.min(LIST_RECORDS_MAX))
    }

    /// The ids of every record.
    pub fn ids(&self) -> Result<Vec<String>, JournalError> {
        let mut query = self.connection.prepare("SELECT id FROM session")?;
        let ids = query.query_map([], |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// How many records there are.
    pub fn count(&self) -> Result<u64, JournalError> {
        let count: i64 = self.connection.query_row("SELECT count(*) FROM session", [], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Every readable record without a receipt: sessions at once are limited, so these are too.
    pub fn unfinished(&self) -> Result<Records, JournalError> {
        let sql = "SELECT id, body FROM session WHERE finished = 0 AND change > ?1 ORDER BY change";
        self.select(sql, i64::MIN, usize::MAX)
    }

    /// The media that is kept, by the last change of its session.
    pub fn kept(&self) -> Result<Vec<KeptMedia>, JournalError> {
        let sql = format!("SELECT id, body FROM session WHERE {HAS_MEDIA} ORDER BY change");
        let mut query = self.connection.prepare(&sql)?;
        let mut rows = query.query([])?;
        let mut kept = Vec::new();
        while let Some(row) = rows.next()? {
            match read(row) {
                Ok(record) => kept.extend(record.receipt.as_ref().and_then(KeptMedia::of)),
                Err(error) => {
                    let session = text(row, 0).unwrap_or_default();
                    tracing::error!(session, %error, "the media of a record that can't be read is kept");
                }
            }
        }
        Ok(kept)
    }

    /// The highest change ever written.
    pub fn last_change(&self) -> Result<u64, JournalError> {
        let mut query = self.connection.prepare_cached("SELECT last_change FROM cursor")?;
        let change: i64 = query.query_row([], |row| row.get(0))?;
        Ok(u64::try_from(change).unwrap_or(0))
    }

    /// Writes what is there already, and reads it: whether the disk takes and gives.
    pub fn check(&mut self) -> Result<(), JournalError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("UPDATE cursor SET last_change = last_change", [])?;
        transaction.commit()?;
        self.last_change().map(|_| ())
    }

    /// Closes the file; its log is merged into it.
    pub fn close(self) {
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the journal was not closed in good order; nothing written is lost");
        }
    }

    fn look_at_records(&self) -> Result<Option<String>, JournalError> {
        let mut query = self.connection.prepare("SELECT id, body FROM session")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let id = text(row, 0).unwrap_or_default();
            let problem = match text(row, 1).map(|body| body::read(&body)) {
                None => "it is no text".to_owned(),
                Some(Err(error @ BodyError::Damaged(_))) => error.to_string(),
                // It is a newer program's to read.
                Some(Err(BodyError::Unknown(_))) => continue,
                // The other columns are in indexes, by which SQLite has checked them.
                Some(Ok(record)) if record.spec.id().as_str() == id => continue,
                Some(Ok(_)) => "it is another session's".to_owned(),
            };
            return Ok(Some(format!("the record of session {id:?}: {problem}")));
        }
        // A journal has one cursor, whatever it lacks.
        self.last_change().map(|_| None)
    }

    fn try_write(&mut self, writes: &[Write]) -> Result<Vec<Result<(), JournalError>>, JournalError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut results = Vec::with_capacity(writes.len());
        for write in writes {
            let result = match write {
                Write::Put(record) => put(&transaction, record),
                Write::Remove(id) => remove(&transaction, id),
            };
            // A full disk or an I/O error rolls back what came before as well.
            if transaction.is_autocommit() {
                return Err(result.err().unwrap_or(JournalError::Closed));
            }
            results.push(result);
        }
        transaction.commit()?;
        Ok(results)
    }

    fn select(&self, sql: &str, since: i64, limit: usize) -> Result<Records, JournalError> {
        let mut query = self.connection.prepare_cached(sql)?;
        let mut rows = query.query([since])?;
        let mut found = Records::default();
        while found.records.len() < limit && found.skipped.len() < SKIPPED_MAX {
            let Some(row) = rows.next()? else { break };
            match read(row) {
                Ok(record) => found.records.push(record),
                Err(error) => {
                    let session = text(row, 0).unwrap_or_default();
                    tracing::error!(session, %error, "a record of the journal is skipped");
                    found.skipped.push(session);
                }
            }
        }
        Ok(found)
    }
}

fn put(transaction: &Transaction<'_>, record: &Record) -> Result<(), JournalError> {
    let id = record.spec.id().as_str();
    let refused = |problem| JournalError::Refused { id: id.to_owned(), problem };
    let body = body::write(record).map_err(|error| refused(error.to_string()))?;
    if body.len() > BODY_BYTES_MAX {
        return Err(refused(format!("it has {} bytes, at most {BODY_BYTES_MAX} are kept", body.len())));
    }
    let change =
        i64::try_from(record.change).map_err(|_| refused(format!("change {} is too high", record.change)))?;
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO session (id, change, finished, body) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE
         SET change = excluded.change, finished = excluded.finished, body = excluded.body",
    )?;
    upsert.execute(params![id, change, record.is_finished(), body]).map_err(|error| {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => refused(format!("change {change} is another session's")),
            _ => error.into(),
        }
    })?;
    let mut advance = transaction.prepare_cached("UPDATE cursor SET last_change = max(last_change, ?1)")?;
    advance.execute([change])?;
    Ok(())
}

fn remove(transaction: &Transaction<'_>, id: &SessionId) -> Result<(), JournalError> {
    let mut delete = transaction.prepare_cached("DELETE FROM session WHERE id = ?1")?;
    delete.execute([id.as_str()])?;
    Ok(())
}

/// Reads `id, body`.
fn read(row: &Row<'_>) -> Result<Record, JournalError> {
    let unreadable = |problem| JournalError::Unreadable { id: text(row, 0).unwrap_or_default(), problem };
    let body = text(row, 1).ok_or_else(|| unreadable("it is no text".to_owned()))?;
    let record = body::read(&body).map_err(|error| unreadable(error.to_string()))?;
    if text(row, 0).as_deref() != Some(record.spec.id().as_str()) {
        return Err(unreadable(format!("it is that of session {}", record.spec.id())));
    }
    Ok(record)
}

fn text(row: &Row<'_>, column: usize) -> Option<String> {
    row.get_ref(column).ok()?.as_str().ok().map(str::to_owned)
}

/// Makes an empty file that only its owner can read; SQLite gives its log the same mode.
fn make_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        // Asked here, so that one that may not be written is never taken for damaged.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().write(true).open(path).map(|_| ())
        }
        Err(error) => Err(error),
    }
}

/// Makes the names of the file and its log durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path.parent().ok_or(io::ErrorKind::InvalidFilename)?)?.sync_all()
}

fn connect(path: &Path) -> Result<Connection, JournalError> {
    let mut connection = Connection::open(path)?;
    prepare(&mut connection, path).map_err(|error| damage(path, error))?;
    Ok(connection)
}

/// Sets durability, checks the file and its version, and makes the tables of a new one.
fn prepare(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
    // A file that is refused stays as it is, its log included.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(LOCK_WAIT)?;
    let found = check(connection, path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    // In this mode a commit is one append to the log and one fdatasync of it.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
    if found == 0 {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(SCHEMA)?;
        transaction.commit()?;
    }
    // An index changes nothing that is stored: programs that don't know it keep it up.
    let index = format!("CREATE INDEX IF NOT EXISTS session_media ON session (change) WHERE {HAS_MEDIA}");
    connection.execute(&index, [])?;
    Ok(())
}

/// Whether SQLite finds nothing wrong with the file; its version.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<i64, JournalError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if (SCHEMA_VERSION + 1..SCHEMA_VERSION_MAX).contains(&found) {
        return Err(JournalError::NewerSchema { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    if !(0..=SCHEMA_VERSION).contains(&found) {
        let problem = format!("its schema is version {found}, which none has");
        return Err(JournalError::Damaged { path: path.to_owned(), problem });
    }
    let check: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    match check.as_str() {
        "ok" => Ok(found),
        _ => Err(JournalError::Damaged { path: path.to_owned(), problem: check }),
    }
}

/// Says of an error that it means damage, where it does.
pub(super) fn damage(path: &Path, error: JournalError) -> JournalError {
    match error {
        JournalError::Sqlite(inner) if means_damage(&inner) => {
            JournalError::Damaged { path: path.to_owned(), problem: inner.to_string() }
        }
        error => error,
    }
}

/// What SQLite says of a file that can be read and written is the file's fault, unless the disk, the memory
/// or another process is to blame.
fn means_damage(error: &rusqlite::Error) -> bool {
    let elsewhere = [
        ErrorCode::SystemIoFailure,
        ErrorCode::DiskFull,
        ErrorCode::DatabaseBusy,
        ErrorCode::DatabaseLocked,
        ErrorCode::FileLockingProtocolFailed,
        ErrorCode::PermissionDenied,
        ErrorCode::CannotOpen,
        ErrorCode::OutOfMemory,
        ErrorCode::OperationInterrupted,
    ];
    // The end of a file that was cut.
    let is_cut =
        error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_SHORT_READ);
    is_cut || error.sqlite_error_code().is_none_or(|code| !elsewhere.contains(&code))
}
