//! The thread that makes a segment durable: it syncs what was appended, says so in the ledger, and
//! only then gives closed clusters their sizes. After a failed sync it never syncs that file again.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ledger::{Durable, Ledger};
use crate::clock::MonoTime;
use crate::matroska::Patch;

/// What was appended to a segment and is not durable yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    pub(super) source: usize,
    pub(super) units: u64,
    pub(super) timestamp: MonoTime,
    /// The file's length with it.
    pub(super) until: u64,
}

/// The two ends of a segment's way to the disk.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<File>,
    ledger: Arc<Ledger>,
    /// Durable bytes of the files before this one.
    bytes_before: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    appended: u64,
    durable: u64,
    packets: VecDeque<Appended>,
    patches: VecDeque<Patch>,
    ending: bool,
    /// A sync has failed: what it was to make durable may be gone from memory, so none is tried again.
    failed: bool,
    error: Option<io::Error>,
}

impl Syncer {
    /// Begins to sync `file` every `interval`.
    pub(super) fn start(
        file: Arc<File>,
        ledger: Arc<Ledger>,
        bytes_before: u64,
        interval: Duration,
    ) -> io::Result<Self> {
        let state = Mutex::default();
        let shared = Arc::new(Shared { file, ledger, bytes_before, state, changed: Condvar::new() });
        let thread = std::thread::Builder::new().name("sync".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(interval)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The file has `length` bytes now; `packet` is the last of them, if it is one.
    pub(super) fn appended(&self, length: u64, packet: Option<Appended>) {
        let mut state = self.shared.lock();
        state.appended = length;
        state.packets.extend(packet);
    }

    /// `patch` is to be applied once the bytes before it are durable.
    pub(super) fn patch(&self, patch: Patch) {
        self.shared.lock().patches.push_back(patch);
    }

    /// The error that a sync has ended with: nothing after it is durable.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.shared.lock().error.take()
    }

    /// Makes everything durable, patches included, and ends the thread.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.end();
        self.shared.sync()?;
        self.shared.sync_all()
    }

    fn end(&mut self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the sync thread doesn't panic");
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn run(&self, interval: Duration) {
        loop {
            let state = self.lock();
            let (state, _) = self
                .changed
                .wait_timeout_while(state, interval, |state| !state.ending)
                .expect("no holder of this lock can panic");
            if state.ending || state.error.is_some() {
                return;
            }
            drop(state);
            if let Err(error) = self.sync() {
                self.lock().error = Some(error);
                return;
            }
        }
    }

    /// Makes durable what is appended by now, and applies the patches that waited for it.
    fn sync(&self) -> io::Result<()> {
        let until = {
            let mut state = self.lock();
            if state.failed {
                return Err(state
                    .error
                    .take()
                    .unwrap_or_else(|| io::Error::other("a sync of it has failed before")));
            }
            if state.appended == state.durable && state.patches.is_empty() {
                return Ok(());
            }
            state.appended
        };
        self.guarded(File::sync_data)?;
        let mut state = self.lock();
        state.durable = until;
        let mut last = None;
        while state.packets.front().is_some_and(|packet| packet.until <= until) {
            let packet = state.packets.pop_front().expect("it was just seen");
            self.ledger.written(packet.source, packet.units, packet.timestamp);
            last = last.max(Some(packet.timestamp));
        }
        let pending_bytes = state.appended - until;
        let ready = state.patches.iter().take_while(|patch| patch.after <= until).count();
        let patches: Vec<Patch> = state.patches.drain(..ready).collect();
        drop(state);
        self.ledger.durable(Durable { at: last, bytes: self.bytes_before + until, pending_bytes });
        patches.iter().try_for_each(|patch| self.file.write_all_at(&patch.bytes, patch.offset))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.guarded(File::sync_all)
    }

    fn guarded(&self, sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
        sync(&self.file).inspect_err(|_| self.lock().failed = true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }
}
