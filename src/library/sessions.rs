//! What lies in the media directory, whatever the journal knows: sessions by their directories, receipts
//! beside media, media that is being written.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::removal::is_segment;
use super::{Library, RECEIPT_NAME};
use crate::session::{Receipt, SessionId};

/// A longer receipt is none: the journal keeps no longer one either.
const RECEIPT_BYTES_MAX: u64 = 8 << 20;

impl Library {
    /// Sessions whose directories lie there, in order: those whose name is an id. Links are none.
    ///
    /// # Errors
    /// The media directory can't be read.
    pub fn session_ids(&self) -> io::Result<Vec<SessionId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.media_dir)? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| name.parse::<SessionId>().ok());
            if let Some(id) = id.filter(|_| entry.file_type().is_ok_and(|it| it.is_dir())) {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// The receipt beside a session's media, if there is one.
    ///
    /// # Errors
    /// There is one that can't be read, or is another session's.
    pub fn receipt(&self, session: &SessionId) -> io::Result<Option<Receipt>> {
        let path = self.session_dir(session).join(RECEIPT_NAME);
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).expect("flags are few");
        let file = match File::options().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut json = Vec::new();
        file.take(RECEIPT_BYTES_MAX).read_to_end(&mut json)?;
        let receipt: Receipt = serde_json::from_slice(&json)?;
        if receipt.session_id != *session {
            let message = format!("it is the receipt of session {}", receipt.session_id);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Some(receipt))
    }

    /// Names of the recordings of a session's own workers, in order.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn segments(&self, session: &SessionId) -> io::Result<Vec<String>> {
        let mut names = self.files(session)?;
        names.retain(|name| is_segment(name, session));
        Ok(names)
    }

    /// Whether a worker or a repair has one of the session's recordings.
    ///
    /// # Errors
    /// One can't be opened.
    pub fn is_being_written(&self, session: &SessionId) -> io::Result<bool> {
        for name in self.segments(session)? {
            let file = match File::open(self.session_dir(session).join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            // A file system without locks has nobody that could be asked.
            if flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
