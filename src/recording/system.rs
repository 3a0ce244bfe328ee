//! The host as it is.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use super::host::{DirEntry, Host, HostFile, Identity, Task};
use crate::clock::{Clock, MonoTime, SystemClock, WallTime};

/// The kernel's files, clocks and threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemHost;

impl Clock for SystemHost {
    fn now(&self) -> MonoTime {
        SystemClock.now()
    }

    fn wall(&self) -> WallTime {
        SystemClock.wall()
    }

    fn boot(&self) -> u64 {
        SystemClock.boot()
    }
}

impl Host for SystemHost {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn HostFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode);
        Ok(Arc::new(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn HostFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn identity(&self, path: &Path) -> io::Result<Identity> {
        std::fs::metadata(path).map(|found| Identity(found.dev(), found.ino()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn make_dir(&self, dir: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
        match DirBuilder::new().mode(mode).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        File::open(dir)?.set_owner(mode, group)
    }

    fn entries(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let entry = |entry: io::Result<std::fs::DirEntry>| {
            let entry = entry?;
            Ok(DirEntry { path: entry.path(), is_file: entry.file_type()?.is_file() })
        };
        dir.read_dir()?.map(entry).collect()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn spawn(&self, name: &'static str, body: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Task>> {
        Ok(Box::new(std::thread::Builder::new().name(name.to_owned()).spawn(body)?))
    }

    fn park(&self, at_most: Duration) {
        std::thread::park_timeout(at_most);
    }
}

impl HostFile for File {
    fn append(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let mut file = self;
        file.write_vectored(&[IoSlice::new(first), IoSlice::new(second)])
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn reserve(&self, from: u64, length: u64) -> io::Result<()> {
        Ok(fallocate(self, FallocateFlags::KEEP_SIZE, from, length)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.metadata().map(|own| Identity(own.dev(), own.ino()))
    }

    fn set_owner(&self, mode: u32, group: Option<u32>) -> io::Result<()> {
        if group.is_some() {
            fchown(self, None, group)?;
        }
        self.set_permissions(Permissions::from_mode(mode))
    }

    fn lock(&self, operation: FlockOperation) -> io::Result<()> {
        Ok(flock(self, operation)?)
    }
}

impl Task for JoinHandle<()> {
    fn wake(&self) {
        self.thread().unpark();
    }

    fn is_finished(&self) -> bool {
        JoinHandle::is_finished(self)
    }

    fn join(self: Box<Self>) -> std::thread::Result<()> {
        JoinHandle::join(*self)
    }
}
