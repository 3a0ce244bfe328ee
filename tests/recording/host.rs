//! The host that a recorder of the model runs on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::fs::FlockOperation;
use shutterd::clock::{Clock, MonoTime, WallTime};
use shutterd::recording::{DirEntry, Host, HostFile, Identity, Ledger, Task};
use shutterd::session::Account;

use crate::disk::{Call, Disk, MEDIA_DIR, Outcome};
use crate::inode::{PAGE_BYTES, Survivors};
use crate::threads::Threads;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A modelled host; clones are the same.
#[derive(Clone, Debug)]
pub struct Model {
    pub threads: Arc<Threads>,
    disk: Arc<Mutex<Disk>>,
    cut: Arc<Mutex<Cut>>,
}

/// What a power cut leaves.
#[derive(Debug)]
pub struct Cut {
    pub survivors: Survivors,
    pub ledger: Option<Arc<Ledger>>,
    /// Files that are there, and contents of those that strangers have taken.
    pub left: Option<(crate::disk::Files, Vec<Vec<u8>>)>,
    /// What was promised by then.
    pub account: Option<Account>,
}

#[derive(Debug)]
struct Open {
    model: Model,
    inode: usize,
    cursor: Mutex<usize>,
    /// A sync by this descriptor has failed.
    failed: Mutex<bool>,
}

impl Model {
    pub fn new(threads: Arc<Threads>, disk: Disk, survivors: Survivors) -> Self {
        let cut = Cut { survivors, ledger: None, left: None, account: None };
        Self { threads, disk: Arc::new(Mutex::new(disk)), cut: Arc::new(Mutex::new(cut)) }
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no holder of this lock can panic")
    }

    pub fn cut(&self) -> MutexGuard<'_, Cut> {
        self.cut.lock().expect("no holder of this lock can panic")
    }

    /// The power goes now, unless it is gone.
    pub fn cut_off(&self) {
        let mut disk = self.disk();
        if !disk.is_off {
            let mut cut = self.cut();
            disk.is_off = true;
            cut.left = Some(disk.cut(cut.survivors));
            cut.account = cut.ledger.as_ref().map(|ledger| ledger.account());
        }
    }

    /// A call begins: others may go on before it, and it may fail, be slow, or the last one.
    fn call(&self, call: Call) -> io::Result<Option<Outcome>> {
        self.threads.look();
        let mut disk = self.disk();
        if disk.cut_in == Some(0) {
            drop(disk);
            self.cut_off();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if disk.is_off {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        disk.cut_in = disk.cut_in.map(|left| left - 1);
        let outcome = disk.outcome(call);
        if let Some(Outcome::Slow(ms)) = outcome {
            let length = Duration::from_millis(ms);
            disk.slow += length;
            drop(disk);
            self.threads.pass(length);
            if self.disk().is_off {
                return Err(io::Error::from_raw_os_error(EIO));
            }
        }
        match outcome {
            // A sync fails in its own way.
            Some(Outcome::Error(error)) if call != Call::Sync => Err(io::Error::from_raw_os_error(error)),
            outcome => Ok(outcome),
        }
    }

    fn opened(&self, inode: usize) -> Arc<dyn HostFile> {
        Arc::new(Open { model: self.clone(), inode, cursor: Mutex::new(0), failed: Mutex::new(false) })
    }
}

impl Clock for Model {
    fn now(&self) -> MonoTime {
        self.threads.clock().now()
    }

    fn wall(&self) -> WallTime {
        self.threads.clock().wall()
    }

    fn boot(&self) -> u64 {
        self.threads.clock().boot()
    }
}

impl Host for Model {
    fn create(&self, path: &Path, _mode: u32) -> io::Result<Arc<dyn HostFile>> {
        self.call(Call::Create)?;
        let mut disk = self.disk();
        if disk.find(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = disk.inodes.len();
        disk.name(path, Some(inode))?;
        disk.inodes.push(crate::inode::Inode::default());
        Ok(self.opened(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn HostFile>> {
        self.call(Call::Open)?;
        let inode = self.disk().find(path)?;
        Ok(self.opened(inode))
    }

    fn identity(&self, path: &Path) -> io::Result<Identity> {
        self.call(Call::Look)?;
        self.disk().find(path).map(|inode| Identity(0, inode as u64))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Call::Remove)?;
        let mut disk = self.disk();
        let inode = disk.find(path)?;
        disk.release(inode, 0);
        disk.name(path, None)
    }

    fn is_dir(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        self.call(Call::Look).is_ok() && name.is_some_and(|name| self.disk().dir(name).is_some())
    }

    fn make_dir(&self, dir: &Path, _mode: u32, _group: Option<u32>) -> io::Result<()> {
        self.call(Call::MakeDir)?;
        let name = dir.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::NotFound)?;
        let mut disk = self.disk();
        if disk.dir(name).is_none() {
            disk.add_dir(name.to_owned());
        }
        Ok(())
    }

    fn entries(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.call(Call::Open)?;
        let disk = self.disk();
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let at = disk.dir(name).ok_or(io::ErrorKind::NotFound)?;
        let entry = |(name, _)| DirEntry { path: dir.join::<PathBuf>(name), is_file: true };
        Ok(disk.names(at).into_iter().map(|(name, inode)| entry((name.into(), inode))).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(Call::SyncDir)?;
        let mut disk = self.disk();
        if dir == Path::new(MEDIA_DIR) {
            disk.sync_top();
            return Ok(());
        }
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let at = disk.dir(name).ok_or(io::ErrorKind::NotFound)?;
        disk.sync_dir(at);
        Ok(())
    }

    fn spawn(&self, _name: &'static str, body: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Task>> {
        self.call(Call::Spawn)?;
        self.threads.spawn(body)
    }

    fn park(&self, at_most: Duration) {
        self.threads.park(at_most);
    }
}

impl Open {
    fn sync(&self) -> io::Result<()> {
        if *self.failed.lock().expect("no holder of this lock can panic") {
            let violation = format!("inode {} is synced again by a descriptor that failed", self.inode);
            self.model.disk().violations.push(violation);
        }
        let begun = self.model.disk().inodes[self.inode].changes();
        let outcome = self.model.call(Call::Sync)?;
        let mut disk = self.model.disk();
        let disk = &mut *disk;
        let inode = &mut disk.inodes[self.inode];
        if let Some(Outcome::Error(error)) = outcome {
            inode.fail(begun, &mut disk.draw);
            *self.failed.lock().expect("no holder of this lock can panic") = true;
            return Err(io::Error::from_raw_os_error(error));
        }
        inode.flush(begun);
        Ok(())
    }
}

impl HostFile for Open {
    fn append(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let outcome = self.model.call(Call::Write)?;
        let mut cursor = self.cursor.lock().expect("no holder of this lock can panic");
        let mut bytes = [first, second].concat();
        // What a signal interrupts is written up to the end of a page.
        let first = PAGE_BYTES - *cursor % PAGE_BYTES;
        if outcome == Some(Outcome::Short) {
            bytes.truncate(first);
        }
        let mut disk = self.model.disk();
        let room = disk.allocate(self.inode, (*cursor + bytes.len()) as u64) as usize;
        if room <= *cursor {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        bytes.truncate(room - *cursor);
        disk.inodes[self.inode].write(*cursor, &bytes);
        *cursor += bytes.len();
        Ok(bytes.len())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let outcome = self.model.call(Call::Patch)?;
        let mut disk = self.model.disk();
        let end = offset + bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        if disk.allocate(self.inode, end) < end {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        // What lies in two pages may fail in the second.
        let first = (PAGE_BYTES - offset as usize % PAGE_BYTES).min(bytes.len());
        let short = outcome == Some(Outcome::Short) && first < bytes.len();
        let done = if short { first } else { bytes.len() };
        disk.inodes[self.inode].write(offset as usize, &bytes[..done]);
        if short { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.model.call(Call::Read)?;
        let disk = self.model.disk();
        let cache = &disk.inodes[self.inode].cache;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(cache.len());
        let count = bytes.len().min(cache.len() - from);
        bytes[..count].copy_from_slice(&cache[from..from + count]);
        Ok(count)
    }

    fn length(&self) -> io::Result<u64> {
        self.model.call(Call::Look)?;
        Ok(self.model.disk().inodes[self.inode].cache.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.model.call(Call::Length)?;
        let mut disk = self.model.disk();
        disk.release(self.inode, length);
        disk.inodes[self.inode].set_length(length as usize);
        Ok(())
    }

    fn reserve(&self, from: u64, length: u64) -> io::Result<()> {
        self.model.call(Call::Reserve)?;
        let mut disk = self.model.disk();
        if !disk.can_reserve {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let end = from + length;
        if disk.free.is_some_and(|free| free < end.saturating_sub(disk.inodes[self.inode].room)) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        disk.allocate(self.inode, end);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn identity(&self) -> io::Result<Identity> {
        self.model.call(Call::Look)?;
        Ok(Identity(0, self.inode as u64))
    }

    fn set_owner(&self, _mode: u32, _group: Option<u32>) -> io::Result<()> {
        self.model.call(Call::Owner).map(drop)
    }

    fn lock(&self, _operation: FlockOperation) -> io::Result<()> {
        Ok(())
    }
}
