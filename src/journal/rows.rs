//! What can still be read of a journal, row by row, whatever is wrong with it. Must never write to it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB, OpenFlags, Row};

use super::body::{self, BodyError};
use super::{JournalError, Record};

/// Bytes of a file that is held in memory.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// Rows between two damaged places that are looked for one by one.
const GAP_ROWS_MAX: usize = 1_000_000;

/// A row of a damaged journal.
pub enum OldRow {
    /// It is what was written.
    Read(Box<Record>),
    /// It is what a newer program wrote.
    Unknown(RawRow),
    /// It is named by what can be read of its id.
    Unreadable(String),
}

/// Which rows could be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every one.
    All,
    /// Some are behind what can't be read, and nobody knows how many.
    Some,
}

/// A row as it is stored.
pub struct RawRow {
    /// The session.
    pub id: String,
    /// Its change.
    pub change: i64,
    /// It has its receipt.
    pub finished: bool,
    /// The text of its record.
    pub body: String,
}

/// Opens a journal for reading alone, its log included.
pub fn open_old(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let old = Connection::open_with_flags(path, flags)?;
    old.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(old)
}

/// As [`open_old`], in memory, without the log, and with the first page of an empty journal of this schema.
/// `None` if that is no journal either.
pub fn open_with_first_page(path: &Path, schema: &str) -> Option<Connection> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)).ok()?;
    let mut empty = Connection::open_in_memory().ok()?;
    empty.execute_batch(schema).ok()?;
    let pages = empty.serialize(MAIN_DB).ok()?;
    // The size of a page, in the header of the file (<https://sqlite.org/fileformat2.html>, 1.3).
    let page_bytes = usize::from(u16::from_be_bytes([*pages.get(16)?, *pages.get(17)?]));
    bytes.get_mut(..page_bytes)?.copy_from_slice(pages.get(..page_bytes)?);
    let count = u32::try_from(bytes.len() / page_bytes).ok()?;
    bytes[28..32].copy_from_slice(&count.to_be_bytes());
    let mut old = Connection::open_in_memory().ok()?;
    old.deserialize_read_exact(MAIN_DB, bytes.as_slice(), bytes.len(), true).ok()?;
    Some(old)
}

/// Gives every row that can be reached: upwards to the first damaged place, downwards to the last, and what
/// lies between them one by one.
pub fn each_row(
    old: &Connection,
    mut take: impl FnMut(OldRow) -> Result<(), JournalError>,
) -> Result<Reach, JournalError> {
    const COLUMNS: &str = "SELECT rowid, id, change, finished, body FROM session NOT INDEXED";
    let upwards = walk(old, &format!("{COLUMNS} ORDER BY rowid"), |_| false, &mut take)?;
    let End::Broken { last } = upwards else { return Ok(Reach::All) };
    let low = last.unwrap_or(0);
    let downwards = walk(old, &format!("{COLUMNS} ORDER BY rowid DESC"), |rowid| rowid <= low, &mut take)?;
    let End::Broken { last: Some(high) } = downwards else { return Ok(Reach::Some) };
    let Ok(mut one) = old.prepare(&format!("{COLUMNS} WHERE rowid = ?1")) else { return Ok(Reach::Some) };
    for rowid in (low + 1..high).take(GAP_ROWS_MAX) {
        if let Ok(mut rows) = one.query([rowid])
            && let Ok(Some(row)) = rows.next()
        {
            take(old_row(row))?;
        }
    }
    Ok(Reach::Some)
}

/// How a walk ended.
enum End {
    /// Nothing is left in this direction.
    Reached,
    /// What comes after this row can't be read.
    Broken { last: Option<i64> },
}

/// Walks until the rows end, are known, or can't be read.
fn walk(
    old: &Connection,
    sql: &str,
    is_known: impl Fn(i64) -> bool,
    take: &mut impl FnMut(OldRow) -> Result<(), JournalError>,
) -> Result<End, JournalError> {
    let mut last = None;
    let Ok(mut query) = old.prepare(sql) else { return Ok(End::Broken { last }) };
    let Ok(mut rows) = query.query([]) else { return Ok(End::Broken { last }) };
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(End::Reached),
            Err(_) => return Ok(End::Broken { last }),
        };
        let Ok(rowid) = row.get::<_, i64>(0) else { return Ok(End::Broken { last }) };
        if is_known(rowid) {
            return Ok(End::Reached);
        }
        last = Some(rowid);
        take(old_row(row))?;
    }
}

fn old_row(row: &Row<'_>) -> OldRow {
    let text = |column| row.get_ref(column).ok().and_then(|it| it.as_str().ok().map(str::to_owned));
    let id = text(1).unwrap_or_default();
    let Some(body) = text(4) else { return OldRow::Unreadable(id) };
    match body::read(&body) {
        Ok(record) => OldRow::Read(Box::new(record)),
        Err(BodyError::Damaged(_)) => OldRow::Unreadable(id),
        Err(BodyError::Unknown(_)) => match (row.get(2), row.get(3)) {
            (Ok(change), Ok(finished)) => OldRow::Unknown(RawRow { id, change, finished, body }),
            _ => OldRow::Unreadable(id),
        },
    }
}
