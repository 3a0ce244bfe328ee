//! Files that hold secrets or decide who gets in: regular files of this user or root that nobody else
//! can read, replaced as a whole. Must never follow a link or wait for a FIFO.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::iter;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::getuid;
use thiserror::Error;

/// A file that decides who gets in can't be used.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The file can't be read.
    #[error("{}: can't be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file can't be made.
    #[error("{}: can't be made: {source}; does its directory exist, and is it writable?", path.display())]
    NotMade {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others than its owner can read or write it.
    #[error("{}: others can read or write it (mode {mode:04o}): run chmod 600 on it, and replace its tokens first if it may have been read", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no regular file, or somebody else's.
    #[error("{}: {problem}", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What it is.
        problem: String,
    },
    /// Its content is not what it should be.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
}

/// Opens `path` and checks whose it is.
pub(super) fn open(path: &Path) -> Result<File, AccessError> {
    let unreadable = |source| AccessError::Unreadable { path: path.to_owned(), source };
    let not_ours = |problem| AccessError::NotOurs { path: path.to_owned(), problem };
    // A link could lead to a file of somebody else; a FIFO must not hold up the start.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(not_ours("it is no regular file: remove it".to_owned()));
    }
    let (owner, own) = (meta.uid(), getuid().as_raw());
    // Root may see to the file of the daemon's user: whoever owns the directory decides anyhow.
    let dirs = || path.parent().and_then(|dir| fs::metadata(dir).ok()).map(|dir| dir.uid());
    if owner != own && owner != 0 && !(own == 0 && dirs() == Some(owner)) {
        return Err(not_ours(format!("it belongs to uid {owner}: run chown {own} on it")));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(AccessError::Exposed { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    Ok(file)
}

/// At most `bytes_max` bytes of `file`, and one more if there are more.
pub(super) fn read(file: &File, path: &Path, bytes_max: u64) -> Result<Vec<u8>, AccessError> {
    let mut bytes = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|source| AccessError::Unreadable { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// Puts a file with these bytes at `path`: mode 0600, complete and durable before it has its name, and
/// whoever owns the directory owns it, so that root can write it for the daemon's user.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), AccessError> {
    let replaced = || {
        let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?.to_string_lossy();
        let dir = path.parent().ok_or(ErrorKind::InvalidFilename)?;
        let temporary = dir.join(format!(".{name}.{}.new", random_hex::<8>()?));
        let result = write_new(&temporary, dir, bytes)
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| File::open(dir)?.sync_all());
        if result.is_err() {
            // What failed is the error to tell; a file left behind does no harm.
            let _ = fs::remove_file(&temporary);
        }
        result
    };
    replaced().map_err(|source| AccessError::NotMade { path: path.to_owned(), source })
}

fn write_new(path: &Path, dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let owner = fs::metadata(dir)?;
    if getuid().is_root() && owner.uid() != 0 {
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// As many random bytes, as hex.
pub(super) fn random_hex<const BYTES: usize>() -> io::Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let digits = bytes.iter().flat_map(|byte| iter::once(byte >> 4).chain(iter::once(byte & 15)));
    Ok(digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect())
}
