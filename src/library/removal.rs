//! Removal of a finished session's media: the files that its receipt names, segments of its own that no
//! repair could count, and the daemon's notes beside them. What else lies there stays. Every name is looked
//! up in the opened directory, and no link is followed.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, ResolveFlags, accessat, flock, fsync,
    openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;
use serde::Deserialize;
use thiserror::Error;

use super::{Library, RECEIPT_DRAFT_NAME, RECEIPT_NAME};
use crate::link::{LAST_ACCOUNT_DRAFT_NAME, LAST_ACCOUNT_NAME};
use crate::session::{Receipt, SessionId};

/// A longer receipt is none.
const RECEIPT_BYTES_MAX: u64 = 8 << 20;
/// Foreign entries that are told by name.
const FOREIGN_TOLD_MAX: usize = 10;

/// Media can't be removed, or not now. Nothing that isn't the session's was touched.
#[derive(Debug, Error)]
pub enum RemovalError {
    /// The receipt names a file of another directory.
    #[error(
        "{} is not in {}: set media_dir back to remove it, or remove it yourself", path.display(), dir.display()
    )]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// Where the session's media should be.
        dir: PathBuf,
    },
    /// There is no such directory.
    #[error(
        "{} is not there: mount its disk; if somebody has removed it, make an empty directory of that name",
        dir.display()
    )]
    Missing {
        /// The session's directory.
        dir: PathBuf,
    },
    /// Something else is in the directory's place.
    #[error("{} is a link, a mount or no directory: move it away, and the directory back", dir.display())]
    Replaced {
        /// The session's directory.
        dir: PathBuf,
    },
    /// Another session's directory is in its place.
    #[error(
        "{} has the receipt of another session: move it away, and the session's own back", dir.display()
    )]
    Foreign {
        /// The session's directory.
        dir: PathBuf,
    },
    /// Something else is in a file's place.
    #[error(
        "{} is a link or no file, and the media may be elsewhere: put the file back, or remove it yourself",
        path.display()
    )]
    Displaced {
        /// The file.
        path: PathBuf,
    },
    /// A worker or a repair still has a file.
    #[error("{} is being written by a worker or a repair: it stays until that has ended", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The disk won't let it go.
    #[error("cannot {doing} {}: {source}; check the disk, its permissions and mounts", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What lies in a session's directory.
#[derive(Default)]
struct Entries {
    media: Vec<String>,
    notes: Vec<&'static str>,
    foreign: Vec<String>,
    warnings: Vec<String>,
}

impl Library {
    /// Removes a finished session's media durably, and the receipt beside it, and says what an operator
    /// should know. Its directory stays, for [`Library::remove_dir`]: while there is none, nobody can tell
    /// removed media from a disk that isn't mounted. May be repeated.
    ///
    /// # Errors
    /// Why some of it is still there.
    pub fn remove_media(&self, receipt: &Receipt) -> Result<Vec<String>, RemovalError> {
        let path = self.session_dir(&receipt.session_id);
        let (dir, entries) = self.find_media(receipt)?;
        // The receipt goes last: as long as there is media, it explains it.
        unlink(&dir, &path, entries.media.iter().map(String::as_str))?;
        unlink(&dir, &path, entries.notes.iter().copied())?;
        let mut warnings = entries.warnings;
        if !entries.foreign.is_empty() {
            let (count, shown) = (entries.foreign.len(), FOREIGN_TOLD_MAX.min(entries.foreign.len()));
            warnings.push(format!(
                "{} keeps {count} entries that are not the session's: {}",
                path.display(),
                entries.foreign[..shown].join(", ")
            ));
        }
        Ok(warnings)
    }

    /// Looks whether a session's media is there and can be removed. To be asked before a removal is settled:
    /// what is settled is carried out whenever it becomes possible.
    ///
    /// # Errors
    /// Why it can't be removed now.
    pub fn check_removal(&self, receipt: &Receipt) -> Result<(), RemovalError> {
        let path = self.session_dir(&receipt.session_id);
        let (dir, _) = self.find_media(receipt)?;
        accessat(&dir, ".", Access::WRITE_OK, AtFlags::empty()).map_err(io_error("write to", &path))
    }

    fn find_media(&self, receipt: &Receipt) -> Result<(OwnedFd, Entries), RemovalError> {
        let path = self.session_dir(&receipt.session_id);
        let named = names(receipt, &path)?;
        let dir = self.open_dir(&receipt.session_id).map_err(|error| match error {
            Errno::NOENT => RemovalError::Missing { dir: path.clone() },
            Errno::LOOP | Errno::NOTDIR | Errno::XDEV => RemovalError::Replaced { dir: path.clone() },
            error => io_error("open", &path)(error),
        })?;
        let entries = look(&dir, &path, &receipt.session_id, &named)?;
        if entries.notes.contains(&RECEIPT_NAME) && is_anothers(&dir, &receipt.session_id) {
            return Err(RemovalError::Foreign { dir: path });
        }
        for name in &entries.media {
            check_unused(&dir, name, &path)?;
        }
        Ok((dir, entries))
    }

    /// Removes a session's directory, durably, if nothing is in it.
    ///
    /// # Errors
    /// The disk won't let it go.
    pub fn remove_dir(&self, session: &SessionId) -> io::Result<()> {
        let media_dir = self.open_media_dir()?;
        match unlinkat(&media_dir, session.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) => Ok(fsync(&media_dir)?),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A session's directory itself, not what a link in its place points to.
    pub(super) fn open_dir(&self, session: &SessionId) -> Result<OwnedFd, Errno> {
        let media_dir = self.open_media_dir()?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(&media_dir, session.as_str(), DIRECTORY, Mode::empty(), resolve)
    }

    fn open_media_dir(&self) -> Result<OwnedFd, Errno> {
        openat(CWD, &self.media_dir, DIRECTORY, Mode::empty())
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The names of the receipt's files, which all lie in `dir`: a worker that was taken over can't have
/// another session's media removed.
fn names(receipt: &Receipt, dir: &Path) -> Result<HashSet<String>, RemovalError> {
    let name = |file: &crate::session::MediaFile| {
        let path = Path::new(&file.path);
        let name = path.file_name().and_then(OsStr::to_str).filter(|name| name.ends_with(".mkv"));
        let own = name.filter(|_| path.parent() == Some(dir));
        let elsewhere = || RemovalError::Elsewhere { path: path.to_owned(), dir: dir.to_owned() };
        own.map(str::to_owned).ok_or_else(elsewhere)
    };
    receipt.files.iter().map(name).collect()
}

fn look(
    dir: &OwnedFd,
    path: &Path,
    session: &SessionId,
    named: &HashSet<String>,
) -> Result<Entries, RemovalError> {
    const NOTES: [&str; 4] = [LAST_ACCOUNT_NAME, LAST_ACCOUNT_DRAFT_NAME, RECEIPT_DRAFT_NAME, RECEIPT_NAME];
    let mut entries = Entries::default();
    for entry in Dir::read_from(dir).map_err(io_error("read", path))? {
        let entry = entry.map_err(io_error("read", path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        let stat = match statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(io_error("look at", &path.join(&name))(error)),
        };
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        match NOTES.iter().find(|note| **note == name) {
            Some(note) if is_file => entries.notes.push(*note),
            None if is_file && (named.contains(&name) || is_segment(&name, session)) => {
                if stat.st_nlink > 1 {
                    entries.warnings.push(format!(
                        "{} has another name elsewhere (a hard link): what it holds is still on the disk",
                        path.join(&name).display()
                    ));
                }
                entries.media.push(name);
            }
            None if named.contains(&name) => return Err(RemovalError::Displaced { path: path.join(name) }),
            _ => entries.foreign.push(format!("{name:?}")),
        }
    }
    entries.foreign.sort();
    Ok(entries)
}

/// Whether a worker of this session writes files of this name: one that no repair could count is in no
/// receipt, and media all the same.
pub(super) fn is_segment(name: &str, session: &SessionId) -> bool {
    let number = name.strip_prefix(session.as_str()).and_then(|rest| rest.strip_prefix('-'));
    let number = number.and_then(|rest| rest.strip_suffix(".mkv"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit()))
}

/// Whether the receipt that lies in `dir` is another session's. One that can't be read is nobody's.
fn is_anothers(dir: &OwnedFd, session: &SessionId) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(dir, RECEIPT_NAME, flags, Mode::empty()) else { return false };
    let mut json = Vec::new();
    if File::from(file).take(RECEIPT_BYTES_MAX).read_to_end(&mut json).is_err() {
        return false;
    }
    serde_json::from_slice(&json).is_ok_and(|told: Owned| told.session_id != *session)
}

/// What a receipt says of whose it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owned {
    session_id: SessionId,
}

/// Whoever writes a recording has it locked. A session that is finished gets no new writer.
fn check_unused(dir: &OwnedFd, name: &str, path: &Path) -> Result<(), RemovalError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened.map_err(io_error("open", &path.join(name)))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(RemovalError::Busy { path: path.join(name) }),
        // A file system without locks has no other writer that could be asked.
        _ => Ok(()),
    }
}

fn unlink<'a>(dir: &OwnedFd, path: &Path, names: impl Iterator<Item = &'a str>) -> Result<(), RemovalError> {
    for name in names {
        super::unlink(dir, name).map_err(io_error("remove", &path.join(name)))?;
    }
    fsync(dir).map_err(io_error("sync", path))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(Errno) -> RemovalError + use<> {
    let path = path.to_owned();
    move |error| RemovalError::Io { doing, path, source: error.into() }
}
