//! Room on the journal's disk, kept for when the disk is full: what frees the disk has to be journalled
//! first.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

/// Commits of a few pages each, for the removal of some sessions' media.
const RESERVE_BYTES: u64 = 2 << 20;

/// A file that holds nothing but room.
#[derive(Default)]
pub struct Reserve {
    /// Absent where it can't be made: then there is no reserve.
    file: Option<File>,
    is_held: bool,
}

impl Reserve {
    /// The reserve of the journal at `path`, as it was left.
    pub fn beside(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push("-reserve");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&name);
        let file =
            file.inspect_err(|error| tracing::warn!(%error, "there is no room kept for the journal")).ok();
        let is_held = file.as_ref().and_then(|file| file.metadata().ok()).is_some_and(|it| it.len() > 0);
        Self { file, is_held }
    }

    /// Sets room aside, if there is any and it isn't set aside yet.
    pub fn take(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| !self.is_held) else { return };
        self.is_held = fallocate(file, FallocateFlags::empty(), 0, RESERVE_BYTES).is_ok();
        if !self.is_held {
            // A part of it may have been set aside; the next commit may need it.
            let _ = file.set_len(0);
        }
    }

    /// Gives the room back to the disk; whether there was any.
    pub fn give_back(&mut self) -> bool {
        let given = self.is_held && self.file.as_ref().is_some_and(|file| file.set_len(0).is_ok());
        self.is_held &= !given;
        given
    }
}
