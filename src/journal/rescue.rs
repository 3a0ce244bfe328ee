//! A journal that is damaged is kept under another name, and what can still be read of it is carried over
//! into a new one. Must never write to the damaged file, nor leave a moment at which a crash loses either.
//!
//! ```text
//!  journal.sqlite.part    being written; one that an earlier start has left is thrown away
//!  journal.sqlite.new     whole and durable: from here on every start comes to the same end
//!  journal.sqlite{,-wal,-shm}  ──►  journal.damaged-<UTC>.sqlite{,-wal,-shm}
//!  journal.sqlite.new          ──►  journal.sqlite
//! ```

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, Statement, params};

use super::body;
use super::reserve::Reserve;
use super::rows::{OldRow, Reach, each_row, open_old, open_with_first_page};
use super::store::{SCHEMA, Store, check, damage};
use super::{JournalError, Record};
use crate::clock::WallTime;

/// What SQLite has beside a journal.
const BESIDE: [&str; 3] = ["", "-wal", "-shm"];
/// Changes that may have been given out beyond those that can still be read.
const CHANGES_MARGIN: u64 = 1 << 20;
/// A higher change was never given out: JSON's numbers end here.
const CHANGE_MAX: i64 = 1 << 53;
/// Sessions that are named of those whose record can't be read.
const UNREADABLE_MAX: usize = 1000;

/// What was found of an earlier daemon's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Past {
    /// It was closed in good order.
    Closed,
    /// It was not closed: a daemon was cut off. SQLite brings it to its last write; a log that was damaged
    /// since doesn't show.
    CutOff,
    /// There was none, and never had been.
    First,
    /// There was none, though there should be.
    Missing,
    /// It was damaged.
    Damaged(Damage),
}

/// What became of a damaged journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Where the damaged file is.
    pub kept_path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// Records that were carried over.
    pub carried: u64,
    /// Sessions whose records are there and can't be read, by what can be read of their ids.
    pub unreadable: Vec<String>,
    /// There may be more records, which nothing can be told of.
    pub has_more: bool,
}

/// A journal as it lies there.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// What is wrong with the file.
    pub problem: Option<String>,
    /// Sessions whose records can't be read.
    pub unreadable: Vec<String>,
    /// The records that can.
    pub records: Vec<Record>,
}

/// Opens the journal at `path`, whatever state it is in; `now` bounds the changes that were given out.
pub(super) fn restore(
    path: &Path,
    now: WallTime,
    is_first: impl FnOnce() -> bool,
) -> Result<(Store, Past), JournalError> {
    let resumed = conclude(path).map_err(|source| JournalError::file(path, source))?;
    let before = match state(path) {
        Past::Missing if is_first() => Past::First,
        before => before,
    };
    let opened = Store::open(path).and_then(|mut store| {
        store.check_records(path)?;
        // A flag in the header may make it one that nobody may write.
        store.check().map_err(|error| damage(path, error))?;
        Ok(store)
    });
    let (mut store, past) = match opened {
        Err(JournalError::Damaged { problem, .. }) => {
            let damage = replace(path, problem, now)?;
            (Store::open(path)?, Past::Damaged(damage))
        }
        opened => (opened?, before),
    };
    if matches!(past, Past::CutOff | Past::Missing) {
        let last = store.last_change()?;
        store.advance(beyond(last, now))?;
    }
    let past = match resumed {
        Some(kept_path) if !matches!(past, Past::Damaged(_)) => {
            let problem = "an earlier start was cut off while it replaced it".to_owned();
            Past::Damaged(Damage {
                kept_path,
                problem,
                carried: store.count()?,
                has_more: true,
                ..Damage::default()
            })
        }
        _ => past,
    };
    Ok((store, past))
}

/// Reads the journal at `path` as far as it can be read, and changes nothing.
///
/// # Errors
/// It can't be opened, or is a newer program's.
pub fn look(path: &Path) -> Result<Look, JournalError> {
    let mut look = Look::default();
    if matches!(state(path), Past::Missing) {
        look.problem = Some("there is none".to_owned());
        return Ok(look);
    }
    let old = open_old(path)?;
    match check(&old, path).map_err(|error| damage(path, error)) {
        Err(JournalError::Damaged { problem, .. }) => look.problem = Some(problem),
        checked => drop(checked?),
    }
    let each = |row: OldRow| {
        match row {
            OldRow::Read(record) => look.records.push(*record),
            OldRow::Unknown(_) => {}
            OldRow::Unreadable(id) => look.unreadable.push(id),
        }
        Ok(())
    };
    each_row(&old, each)?;
    if let (None, Some(id)) = (&look.problem, look.unreadable.first()) {
        look.problem = Some(format!("the record of session {id:?} can't be read"));
    }
    Ok(look)
}

fn state(path: &Path) -> Past {
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |it| it.len());
    match (bytes(path), bytes(&suffixed(path, "-wal"))) {
        (0, 0) => Past::Missing,
        (_, 0) => Past::Closed,
        _ => Past::CutOff,
    }
}

/// Makes a new journal of what can be read, and puts it in the damaged one's place.
fn replace(path: &Path, problem: String, now: WallTime) -> Result<Damage, JournalError> {
    let part = suffixed(path, ".part");
    let mut damage = Damage { problem, ..Damage::default() };
    let mut made = make(path, &part, &mut damage, now);
    if made.as_ref().is_err_and(JournalError::is_full) && Reserve::beside(path).give_back() {
        damage = Damage { problem: damage.problem, ..Damage::default() };
        made = make(path, &part, &mut damage, now);
    }
    if let Err(error) = made {
        // The next start makes it anew; what is left of it would only take room.
        let _ = fs::remove_file(&part);
        let path = path.to_owned();
        return Err(JournalError::NotReplaced { path, problem: damage.problem, source: Box::new(error) });
    }
    let file = |source| JournalError::file(path, source);
    fs::rename(&part, suffixed(path, ".new")).and_then(|()| sync_dir(path)).map_err(file)?;
    damage.kept_path = conclude(path).map_err(file)?.unwrap_or_default();
    Ok(damage)
}

/// Writes the new journal, durably.
fn make(path: &Path, part: &Path, damage: &mut Damage, now: WallTime) -> Result<(), JournalError> {
    let file = |source| JournalError::file(part, source);
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(part).map_err(file)?;
    let mut new = Connection::open(part)?;
    // Until it is whole nobody reads it: one sync at the end is enough.
    new.query_row("PRAGMA journal_mode = OFF", [], |_| Ok(()))?;
    new.pragma_update(None, "synchronous", "OFF")?;
    let transaction = new.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    let mut carrier = Carrier { put: prepare_put(&transaction)?, highest: 0 };
    // One that SQLite doesn't open at all has nothing that could be read.
    let opened = open_old(path).ok().map(|old| carrier.carry_all(&old, damage)).transpose()?;
    damage.has_more = opened != Some(Reach::All);
    if damage.carried == 0 && damage.has_more {
        // The first page says where everything else is, and is the same in every journal.
        if let Some(old) = open_with_first_page(path, SCHEMA) {
            let reached = carrier.carry_all(&old, damage)?;
            damage.has_more = reached == Reach::Some || state(path) == Past::CutOff;
        }
    }
    let last = as_stored(beyond(carrier.highest, now));
    drop(carrier);
    transaction.execute("UPDATE cursor SET last_change = ?1", [last])?;
    transaction.commit()?;
    new.close().map_err(|(_, error)| error)?;
    File::open(part).and_then(|file| file.sync_all()).map_err(file)
}

/// Writes rows into the new journal.
struct Carrier<'a> {
    put: Statement<'a>,
    /// The highest change that was read.
    highest: u64,
}

fn prepare_put(new: &Connection) -> Result<Statement<'_>, JournalError> {
    // A page that is there twice has an older state of a session too.
    Ok(new.prepare(
        "INSERT INTO session (id, change, finished, body) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE
         SET change = excluded.change, finished = excluded.finished, body = excluded.body
         WHERE excluded.change > session.change",
    )?)
}

impl Carrier<'_> {
    /// Carries over what can be reached.
    fn carry_all(&mut self, old: &Connection, damage: &mut Damage) -> Result<Reach, JournalError> {
        let cursor = old.query_row("SELECT last_change FROM cursor", [], |row| row.get::<_, i64>(0));
        let cursor = cursor.ok().filter(|change| *change <= CHANGE_MAX);
        self.highest = self.highest.max(cursor.and_then(|it| u64::try_from(it).ok()).unwrap_or(0));
        each_row(old, |row| self.carry(row, damage))
    }

    fn carry(&mut self, row: OldRow, damage: &mut Damage) -> Result<(), JournalError> {
        match row {
            OldRow::Read(mut record) => {
                self.highest = self.highest.max(record.change);
                let written = match self.write(&record)? {
                    Some(written) => written,
                    // Another session has its change: it gets one of its own, which nobody has seen.
                    None => {
                        self.highest += 1;
                        record.change = self.highest;
                        self.write(&record)?.unwrap_or(0)
                    }
                };
                damage.carried += written as u64;
            }
            OldRow::Unknown(row) => {
                self.highest = self.highest.max(u64::try_from(row.change).unwrap_or(0));
                self.put.execute(params![row.id, row.change, row.finished, row.body])?;
                damage.carried += 1;
            }
            OldRow::Unreadable(id) => {
                tracing::error!(session = id, "a record of the damaged journal can't be read");
                if damage.unreadable.len() < UNREADABLE_MAX {
                    damage.unreadable.push(id);
                }
            }
        }
        Ok(())
    }

    /// How many rows were written; `None` if another session has its change.
    fn write(&mut self, record: &Record) -> Result<Option<usize>, JournalError> {
        let id = record.spec.id().as_str();
        let refused = |error: serde_json::Error| JournalError::Refused {
            id: id.to_owned(),
            problem: error.to_string(),
        };
        let body = body::write(record).map_err(refused)?;
        let change = as_stored(record.change);
        match self.put.execute(params![id, change, record.is_finished(), body]) {
            Ok(written) => Ok(Some(written)),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Puts a new journal that is whole in the damaged one's place; where that is kept then. `None` when there is
/// no new one.
fn conclude(path: &Path) -> io::Result<Option<PathBuf>> {
    let new = suffixed(path, ".new");
    let made_at = match fs::metadata(&new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?.modified()?,
    };
    // The name comes from the new file, so that a start that goes on with this uses the same.
    let since = made_at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let kept = kept_path(path, WallTime::from_nanos(i128::try_from(since.as_nanos()).unwrap_or_default()));
    for beside in BESIDE {
        let (from, to) = (suffixed(path, beside), suffixed(&kept, beside));
        if !from.exists() {
            continue;
        }
        if to.exists() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there already", to.display()),
            ));
        }
        fs::set_permissions(&from, Permissions::from_mode(0o600))?;
        fs::rename(&from, &to)?;
    }
    sync_dir(path)?;
    fs::rename(&new, path)?;
    sync_dir(path)?;
    Ok(Some(kept))
}

/// `journal.damaged-20260501T113000.123Z.sqlite` beside `journal.sqlite`.
fn kept_path(path: &Path, at: WallTime) -> PathBuf {
    let name = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let at = at.to_string().replace(['-', ':'], "");
    path.with_file_name(format!("{}.damaged-{at}.{}", name(path.file_stem()), name(path.extension())))
}

/// The lowest change that was surely never given out: beyond every one that can be read, and, since no host
/// has a change each second from 1970 on, beyond the seconds since then.
fn beyond(highest: u64, now: WallTime) -> u64 {
    let seconds = u64::try_from(now.nanos() / 1_000_000_000).unwrap_or(0);
    (highest + CHANGES_MARGIN).max(seconds)
}

fn as_stored(change: u64) -> i64 {
    i64::try_from(change).unwrap_or(i64::MAX)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path.parent().ok_or(io::ErrorKind::InvalidFilename)?)?.sync_all()
}
