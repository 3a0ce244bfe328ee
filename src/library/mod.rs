//! Where media lies: paths of sessions and files, receipts beside them, removal, durable reads.
//! Must never write media, and never touch anything but a session's own directory.

mod removal;
mod sessions;

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, fsync, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::link::{LAST_ACCOUNT_DRAFT_NAME, LAST_ACCOUNT_NAME, LastAccount};
use crate::session::{Receipt, RemovalState, SessionId};

pub use removal::RemovalError;

/// Name of the receipt's file beside the media.
pub const RECEIPT_NAME: &str = "receipt.json";
/// Its name while it is being written.
const RECEIPT_DRAFT_NAME: &str = ".receipt.json.new";
/// A longer account is none.
const LAST_ACCOUNT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The media of every session on this host.
#[derive(Clone, Debug)]
pub struct Library {
    media_dir: PathBuf,
    file_mode: u32,
    group: Option<u32>,
}

impl Library {
    /// The library below `media_dir`; receipts get `file_mode` and `group`.
    pub fn new(media_dir: PathBuf, file_mode: u32, group: Option<u32>) -> Self {
        Self { media_dir, file_mode, group }
    }

    /// Where every session has its directory.
    pub fn media_dir(&self) -> &Path {
        &self.media_dir
    }

    /// Where a session's files are.
    pub fn session_dir(&self, session: &SessionId) -> PathBuf {
        self.media_dir.join(session.as_str())
    }

    /// Puts the receipt beside the media, whole and durable or not at all. A session without a
    /// directory has no media and gets no receipt there.
    ///
    /// # Errors
    /// The disk won't take it.
    pub fn write_receipt(&self, receipt: &Receipt) -> io::Result<()> {
        let dir = match self.open_dir(&receipt.session_id) {
            Err(Errno::NOENT) => return Ok(()),
            dir => dir?,
        };
        // What has the draft's name may be a link to what isn't ours.
        unlink(&dir, RECEIPT_DRAFT_NAME)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(self.file_mode);
        let mut file = File::from(openat(&dir, RECEIPT_DRAFT_NAME, flags, mode)?);
        if self.group.is_some() {
            fchown(&file, None, self.group)?;
        }
        file.set_permissions(Permissions::from_mode(self.file_mode))?;
        let mut json = serde_json::to_vec_pretty(receipt)?;
        json.push(b'\n');
        file.write_all(&json)?;
        file.sync_all()?;
        renameat(&dir, RECEIPT_DRAFT_NAME, &dir, RECEIPT_NAME)?;
        Ok(fsync(&dir)?)
    }

    /// As [`Library::write_receipt`], where an earlier daemon had no time to finish that, or the removal of
    /// the media.
    ///
    /// # Errors
    /// The disk won't take it.
    pub fn complete_receipt(&self, receipt: &Receipt) -> io::Result<()> {
        if receipt.removal.as_ref().is_some_and(|removal| removal.state == RemovalState::Removed) {
            return self.remove_dir(&receipt.session_id);
        }
        let beside = self
            .open_dir(&receipt.session_id)
            .and_then(|dir| statat(&dir, RECEIPT_NAME, AtFlags::SYMLINK_NOFOLLOW));
        if matches!(beside, Err(Errno::NOENT)) {
            self.write_receipt(receipt)?;
        }
        self.forget_last_account(&receipt.session_id)
    }

    /// Removes what a worker left, once the journal has the receipt that was made of it.
    ///
    /// # Errors
    /// The disk won't let it go.
    pub fn forget_last_account(&self, session: &SessionId) -> io::Result<()> {
        let dir = match self.open_dir(session) {
            Err(Errno::NOENT) => return Ok(()),
            dir => dir?,
        };
        // A worker that was ended while it wrote has left a draft.
        unlink(&dir, LAST_ACCOUNT_DRAFT_NAME)?;
        Ok(unlink(&dir, LAST_ACCOUNT_NAME)?)
    }

    /// What a worker left for a daemon that wasn't there to hear it; what can't be read isn't there.
    pub fn last_account(&self, session: &SessionId) -> Option<LastAccount> {
        let file = File::open(self.session_dir(session).join(LAST_ACCOUNT_NAME)).ok()?;
        let mut json = Vec::new();
        file.take(LAST_ACCOUNT_BYTES_MAX).read_to_end(&mut json).ok()?;
        serde_json::from_slice(&json).ok()
    }

    /// Removes a session's directory and all that is in it, durably. One that isn't there is removed.
    ///
    /// # Errors
    /// The disk won't let it go.
    pub fn remove(&self, session: &SessionId) -> io::Result<()> {
        match fs::remove_dir_all(self.session_dir(session)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(&self.media_dir)?.sync_all(),
        }
    }

    /// Up to `count` bytes of the media file `name` from `offset` on; fewer at the file's end.
    ///
    /// # Errors
    /// The file isn't there, or can't be read.
    pub fn read(&self, session: &SessionId, name: &str, offset: u64, count: usize) -> io::Result<Vec<u8>> {
        let plain = name.ends_with(".mkv") && !name.contains('/') && !name.starts_with('.');
        if !plain {
            return Err(io::Error::new(io::ErrorKind::NotFound, "a media file's name ends with .mkv"));
        }
        let mut file = File::open(self.session_dir(session).join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::with_capacity(count);
        file.take(count as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Names of a session's media files, in order.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn files(&self, session: &SessionId) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.session_dir(session)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".mkv") {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Bytes free and in all on the disk of the media (`statvfs(3)`).
    ///
    /// # Errors
    /// The directory isn't there.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        let disk = rustix::fs::statvfs(&self.media_dir)?;
        Ok((disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize))
    }
}

/// Takes a name out of a directory, if it is there.
fn unlink(dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        unlinked => unlinked,
    }
}
