//! A few kilobytes of a long file at a time.

use super::error::Error;
use std::io::{ErrorKind, Read, Seek, SeekFrom};

/// Bytes that are read at once.
pub(super) const WINDOW_BYTES: usize = 4096;

/// A caller's reader, looked at through a small buffer.
pub(super) struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    /// Where the buffer starts in the file.
    start: u64,
    file_bytes: u64,
}

impl<R: Read + Seek> Window<R> {
    pub(super) fn new(source: R) -> Result<Self, Error> {
        let mut window = Self { source, buffer: vec![], start: 0, file_bytes: 0 };
        window.measure()?;
        Ok(window)
    }

    fn measure(&mut self) -> Result<(), Error> {
        let end = self.source.seek(SeekFrom::End(0));
        self.file_bytes = end.map_err(|source| Error::Read { offset: self.file_bytes, source })?;
        Ok(())
    }

    /// The file's length; measured again when it is shorter than `wanted`, since a recording grows.
    pub(super) fn file_bytes(&mut self, wanted: u64) -> Result<u64, Error> {
        if self.file_bytes < wanted {
            self.measure()?;
        }
        Ok(self.file_bytes)
    }

    /// `count` bytes from `at`, fewer at the end of the file; `count` is at most 4096.
    pub(super) fn peek(&mut self, at: u64, count: usize) -> Result<&[u8], Error> {
        debug_assert!(count <= WINDOW_BYTES, "more than a window");
        let from = at.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let held = from.filter(|from| from.checked_add(count).is_some_and(|end| end <= self.buffer.len()));
        let from = if let Some(from) = held {
            from
        } else {
            self.buffer.resize(WINDOW_BYTES, 0);
            self.start = at;
            let read = fill(&mut self.source, at, &mut self.buffer);
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            read?;
            0
        };
        let end = self.buffer.len().min(from + count);
        Ok(&self.buffer[from..end])
    }

    /// Fills `out` from `at`; false if the file ends before.
    pub(super) fn read(&mut self, at: u64, out: &mut [u8]) -> Result<bool, Error> {
        Ok(fill(&mut self.source, at, out)? == out.len())
    }
}

fn fill<R: Read + Seek>(source: &mut R, at: u64, out: &mut [u8]) -> Result<usize, Error> {
    let failed = |source| Error::Read { offset: at, source };
    source.seek(SeekFrom::Start(at)).map_err(failed)?;
    let mut filled = 0;
    while filled < out.len() {
        match source.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(filled)
}
