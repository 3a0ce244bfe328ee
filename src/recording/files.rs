//! What is done to a file or a directory as a whole.

use std::fs::{File, Permissions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

use super::RecordError;

/// Permission bits and group as the settings say, whatever the umask.
pub(super) fn set_owner(file: &File, mode: u32, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        fchown(file, None, group)?;
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), RecordError> {
    File::open(dir).and_then(|opened| opened.sync_all()).map_err(|error| RecordError::io("sync", dir, error))
}

/// The hash of a file, read from its beginning to its end.
pub(super) fn hash_of(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}

/// Writes both, one after the other, at the file's end.
pub(super) fn write_all(mut file: &File, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
    while !first.is_empty() || !second.is_empty() {
        match file.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                let of_first = count.min(first.len());
                first = &first[of_first..];
                second = &second[count - of_first..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
