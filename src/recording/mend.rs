//! Repair by an operator's hand: one file at a time, and only looked at if so wished. Must never remove a
//! file, nor touch one that is being written.

use std::fs::{File, OpenOptions};
use std::io::BufReader;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::repair::{RepairError, apply, media_seconds, repaired_mark};
use crate::matroska::{self, Place, Reader};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Say what would be done, and change nothing.
    Check,
    /// Make the file whole.
    Mend,
}

/// A recording as it was found, and as it is when it was made whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Mended {
    /// Nothing was to be done.
    pub was_whole: bool,
    /// Packets that are kept, of all tracks.
    pub packets: u64,
    /// Seconds from the first frame to the end of the last.
    pub seconds: f64,
    /// The file's length, once it is whole.
    pub bytes: u64,
    /// Bytes at its end that are no whole packet: they are cut.
    pub cut_bytes: u64,
    /// Bytes in its middle that can't be read: they stay, and players pass over them.
    pub damaged_bytes: u64,
    /// Where a file that was finished can't be read on. It is left as it is.
    pub damaged_at: Option<u64>,
    /// What in it isn't what was written, by its own checksums. Only of a whole file it is looked for.
    pub damage: Vec<Place>,
}

/// Makes the recording at `path` whole, durably, or says what would be done.
///
/// # Errors
/// It is being written, can't be read or written, or holds nothing that can be kept. Then it is left as it
/// is.
pub fn mend(path: &Path, effect: Effect) -> Result<Mended, RepairError> {
    let io = |source| RepairError::Io { path: path.to_owned(), source };
    let media = |source| RepairError::Media { path: path.to_owned(), source };
    let file = open(path, effect)?;
    if file.metadata().map_err(io)?.len() == 0 {
        // A worker makes the file, then locks it, then writes: the lock of an empty one is not to be taken.
        return Err(media(matroska::Error::HeaderIncomplete { at: 0 }));
    }
    lock(&file, path, effect)?;
    let mark = repaired_mark();
    let plan = matroska::repair(BufReader::new(&file), std::slice::from_ref(&mark)).map_err(media)?;
    if plan.blocks() == 0 && !plan.is_empty() {
        return Err(media(matroska::Error::HeaderIncomplete { at: plan.file_bytes }));
    }
    if effect == Effect::Mend && !plan.is_empty() {
        apply(&file, &plan).map_err(io)?;
        // What was written is read again: only what can be read counts as mended.
        Reader::open(BufReader::new(&file)).map_err(media)?;
    }
    let is_whole = effect == Effect::Mend || plan.is_empty();
    let damage =
        if is_whole { matroska::damage(BufReader::new(&file)).map_err(media)?.places } else { Vec::new() };
    Ok(Mended {
        was_whole: plan.is_empty() && plan.damaged_at.is_none(),
        packets: plan.blocks(),
        seconds: media_seconds(&plan),
        bytes: plan.file_bytes,
        cut_bytes: plan.cut_bytes,
        damaged_bytes: plan.damaged_bytes,
        damaged_at: plan.damaged_at,
        damage,
    })
}

/// Opens a regular file. A link may lead out of a directory that others write to, and a pipe or a device is not
/// to be opened at all.
fn open(path: &Path, effect: Effect) -> Result<File, RepairError> {
    let io = |source| RepairError::Io { path: path.to_owned(), source };
    let no_file = || RepairError::NoFile { path: path.to_owned() };
    if !path.symlink_metadata().map_err(io)?.is_file() {
        return Err(no_file());
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(effect == Effect::Mend).custom_flags(flags.bits().cast_signed());
    let file = options.open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_file() { Ok(file) } else { Err(no_file()) }
}

/// Takes the lock that every writer of a recording holds.
fn lock(file: &File, path: &Path, effect: Effect) -> Result<(), RepairError> {
    let operation = match effect {
        Effect::Check => FlockOperation::NonBlockingLockShared,
        Effect::Mend => FlockOperation::NonBlockingLockExclusive,
    };
    flock(file, operation).map_err(|error| match error {
        Errno::WOULDBLOCK => RepairError::Busy { path: path.to_owned() },
        error => RepairError::Io { path: path.to_owned(), source: error.into() },
    })
}
