//! The files of a session: packets in, durable bytes out, and a count of both.
//! Must never wait for a device, and never call anything durable that a sync has not returned for.

mod begin;
mod examine;
mod files;
mod formats;
mod hash;
mod host;
mod ledger;
mod mend;
mod outage;
mod recorder;
mod repair;
mod salvage;
mod segment;
mod sync;
mod system;
mod units;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use begin::{HELD_BYTES_MAX, RecorderSettings, TrackSettings, prepare};
pub use examine::{Examined, examine};
pub use hash::FileHash;
pub use host::{DirEntry, Host, HostFile, Identity, Task};
pub use ledger::{Durable, Ledger};
pub use mend::{Effect, Mended, mend};
pub use recorder::Recorder;
pub use repair::{RepairError, recordings, repair_dir, repair_dir_on};
pub use system::SystemHost;

/// The number in the name of a segment, `<session>-<number>.mkv`; `None` for other names.
fn segment_number(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".mkv")?.rsplit_once('-')?.1.parse().ok()
}

/// A recording can't go on.
#[derive(Debug, Error)]
pub enum RecordError {
    /// There is no room.
    #[error("no space left for {}: free some, or set media_dir to a larger disk", path.display())]
    DiskFull {
        /// The file that has no room.
        path: PathBuf,
    },
    /// The directory or the file can't be made or written.
    #[error("cannot {doing} {}: check the disk, its permissions and mounts", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The packets make no file: an error of this program.
    #[error("cannot write {}", path.display())]
    Media {
        /// The file.
        path: PathBuf,
        /// What the writer said.
        source: crate::matroska::Error,
    },
}

impl RecordError {
    /// The reason that an answer of the API carries.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::DiskFull { .. } => "DISK_FULL",
            Self::Io { .. } => "MEDIA_DIR_UNUSABLE",
            Self::Media { .. } => "INTERNAL",
        }
    }

    /// Whether there is no room.
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }

    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { doing, path, source },
        }
    }
}
