//! What a recording asks of the host that it runs on: files, time and threads. It asks nobody else for them, so
//! that the same code runs against a modelled disk and a simulated clock.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::clock::Clock;

/// Files, time and threads. Errors are those of the system calls that the methods stand for.
pub trait Host: Clock {
    /// Makes a file that isn't there yet, to be read and written.
    ///
    /// # Errors
    /// Those of `open(2)`.
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn HostFile>>;

    /// Opens a file that is there, to be read and written.
    ///
    /// # Errors
    /// Those of `open(2)`.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn HostFile>>;

    /// What is found at `path`.
    ///
    /// # Errors
    /// Those of `stat(2)`.
    fn identity(&self, path: &Path) -> io::Result<Identity>;

    /// Takes a file's name away.
    ///
    /// # Errors
    /// Those of `unlink(2)`.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Whether there is a directory at `path`.
    fn is_dir(&self, path: &Path) -> bool;

    /// Makes a directory, or finds it, and sets its permission bits and group.
    ///
    /// # Errors
    /// Those of `mkdir(2)`, `open(2)`, `fchown(2)`, `fchmod(2)`.
    fn make_dir(&self, dir: &Path, mode: u32, group: Option<u32>) -> io::Result<()>;

    /// What is in a directory.
    ///
    /// # Errors
    /// Those of `readdir(3)`.
    fn entries(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Makes the entries of a directory durable.
    ///
    /// # Errors
    /// Those of `fsync(2)`.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Starts a thread.
    ///
    /// # Errors
    /// There is no room for one more.
    fn spawn(&self, name: &'static str, body: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Task>>;

    /// Waits until this thread is woken, or that long. It may return early.
    fn park(&self, at_most: Duration);
}

/// An open file. What is appended goes where the last append of this descriptor ended.
pub trait HostFile: fmt::Debug + Send + Sync {
    /// Appends the beginning of `first` and `second`; tells how many bytes.
    ///
    /// # Errors
    /// Those of `writev(2)`.
    fn append(&self, first: &[u8], second: &[u8]) -> io::Result<usize>;

    /// Writes over what is at `offset`, or behind the end.
    ///
    /// # Errors
    /// Those of `pwrite(2)`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads what is at `offset`; tells how many bytes, 0 at the end.
    ///
    /// # Errors
    /// Those of `pread(2)`.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The file's length.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file, and gives back what was reserved behind `length`.
    ///
    /// # Errors
    /// Those of `ftruncate(2)`.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes sure of room for `length` bytes from `from` on, without making the file longer.
    ///
    /// # Errors
    /// Those of `fallocate(2)`; `Unsupported` where the file system can't.
    fn reserve(&self, from: u64, length: u64) -> io::Result<()>;

    /// Makes the file's bytes and its length durable.
    ///
    /// # Errors
    /// Those of `fdatasync(2)`.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes all of the file durable.
    ///
    /// # Errors
    /// Those of `fsync(2)`.
    fn sync_all(&self) -> io::Result<()>;

    /// What this file is, whatever its name.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    fn identity(&self) -> io::Result<Identity>;

    /// Sets permission bits and group, whatever the umask.
    ///
    /// # Errors
    /// Those of `fchown(2)` and `fchmod(2)`.
    fn set_owner(&self, mode: u32, group: Option<u32>) -> io::Result<()>;

    /// Locks the file for as long as it is open.
    ///
    /// # Errors
    /// Those of `flock(2)`.
    fn lock(&self, operation: FlockOperation) -> io::Result<()>;
}

/// A thread that was started. One that is dropped goes on by itself.
pub trait Task: fmt::Debug + Send {
    /// Ends its waiting.
    fn wake(&self);

    /// Whether its end can be waited for without waiting.
    fn is_finished(&self) -> bool;

    /// Waits for its end.
    ///
    /// # Errors
    /// What it panicked with.
    fn join(self: Box<Self>) -> std::thread::Result<()>;
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(pub u64, pub u64);

/// What a directory says of one entry.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Where it is.
    pub path: PathBuf,
    /// It is a regular file, no link.
    pub is_file: bool,
}

/// A file that is read.
pub(super) struct FileReader<'a> {
    file: &'a dyn HostFile,
    at: u64,
}

impl<'a> FileReader<'a> {
    pub(super) fn new(file: &'a dyn HostFile) -> Self {
        Self::at(file, 0)
    }

    pub(super) fn at(file: &'a dyn HostFile, at: u64) -> Self {
        Self { file, at }
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for FileReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.file.length()?.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
