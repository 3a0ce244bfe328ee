//! What is done to a file as a whole.

use std::io;
use std::path::Path;

use super::RecordError;
use super::host::{FileReader, Host, HostFile};

/// Makes the name of a file durable.
pub(super) fn sync_parent(host: &dyn Host, path: &Path) -> Result<(), RecordError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    host.sync_dir(dir).map_err(|error| RecordError::io("sync", dir, error))
}

/// The hash of a file, read from its beginning to its end.
pub(super) fn hash_of(file: &dyn HostFile) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(FileReader::new(file))?;
    Ok(hasher.finalize())
}

/// Writes both, one after the other, at the file's end.
pub(super) fn write_all(file: &dyn HostFile, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
    while !first.is_empty() || !second.is_empty() {
        match file.append(first, second) {
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
