//! The thread that makes a segment durable: it syncs what was appended, says so in the ledger, and
//! only then gives closed clusters their sizes. What isn't durable yet stays in memory, so that it can be
//! written anew elsewhere. After a failed sync it never syncs that file again.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::begin::RecorderSettings;
use super::host::{Host, HostFile, Task};
use super::ledger::{Durable, Ledger};
use crate::clock::MonoTime;
use crate::matroska::Patch;
use crate::media::Packet;

/// A packet that was appended to a segment and is not durable yet.
#[derive(Debug)]
struct Appended {
    /// Without its payload, once too much waits.
    packet: Packet,
    /// Its payload is gone from memory.
    forgotten: bool,
    /// The file's length with it.
    until: u64,
}

/// What of a segment is durable that can't be gone on with, and what isn't.
#[derive(Debug, Default)]
pub(super) struct Undone {
    /// The file's durable length.
    pub(super) durable_bytes: u64,
    /// Units that are durable, by source.
    pub(super) durable_units: BTreeMap<usize, u64>,
    /// When the last packet that is durable was captured.
    pub(super) durable_at: Option<MonoTime>,
    /// Patches that were written, which a later sync was to make durable.
    pub(super) patches: Vec<Patch>,
    /// The packets that aren't durable, in the order in which they came.
    pub(super) packets: VecDeque<Packet>,
    /// Packets, without payload, that aren't durable and can't be written again.
    pub(super) forgotten: Vec<Packet>,
}

/// The two ends of a segment's way to the disk.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<Box<dyn Task>>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<dyn HostFile>,
    ledger: Arc<Ledger>,
    /// Durable bytes of the files before this one.
    bytes_before: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    appended: u64,
    durable: u64,
    durable_units: BTreeMap<usize, u64>,
    durable_at: Option<MonoTime>,
    packets: VecDeque<Appended>,
    /// Bytes of payload in `packets`, and how many there may be: while the disk is slow, what is forgotten is in
    /// the file all the same.
    held_bytes: usize,
    held_bytes_max: usize,
    /// How many of `packets`, from the oldest on, are forgotten.
    forgotten: usize,
    patches: VecDeque<Patch>,
    /// Those that were written since the last sync began.
    written: Vec<Patch>,
    ending: bool,
    /// A sync has failed: what it was to make durable may be gone from memory, so none is tried again. Or a patch
    /// has, without which the file isn't what it should be.
    failed: bool,
    error: Option<io::Error>,
}

impl Syncer {
    /// Begins to sync `file`, as often as the settings say.
    pub(super) fn start(
        settings: &RecorderSettings,
        file: Arc<dyn HostFile>,
        ledger: Arc<Ledger>,
        bytes_before: u64,
    ) -> io::Result<Self> {
        let state = Mutex::new(State { held_bytes_max: settings.held_bytes_max, ..State::default() });
        let shared = Arc::new(Shared { file, ledger, bytes_before, state });
        let body = {
            let (host, shared, interval) =
                (Arc::clone(&settings.host), Arc::clone(&shared), settings.sync_interval);
            move || shared.run(&*host, interval)
        };
        let thread = settings.host.spawn("sync", Box::new(body))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The file has `length` bytes now; `packet` is the last of them, if it is one.
    pub(super) fn appended(&self, length: u64, packet: Option<Packet>) {
        let mut state = self.shared.lock();
        state.appended = length;
        if let Some(packet) = packet {
            state.hold(packet, length);
        }
    }

    /// `patch` is to be applied once the bytes before it are durable.
    pub(super) fn patch(&self, patch: Patch) {
        self.shared.lock().patches.push_back(patch);
    }

    /// Whether packets are durable.
    pub(super) fn has_durable_packets(&self) -> bool {
        !self.shared.lock().durable_units.is_empty()
    }

    /// Bytes of payload that are kept in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.shared.lock().held_bytes
    }

    /// The error that a sync has ended with: nothing after it is durable.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.shared.lock().error.take()
    }

    /// Makes everything durable, patches included, and ends the thread.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.end();
        self.shared.sync()?;
        self.shared.sync_all()
    }

    /// Ends the thread; tells what is not durable, to be written elsewhere. Unless a sync has failed, one more
    /// is tried first.
    pub(super) fn abandon(mut self) -> Undone {
        self.end();
        // Its error tells nothing new: the file is given up already.
        let _ = self.shared.sync();
        let mut state = self.shared.lock();
        let mut undone = Undone {
            durable_bytes: state.durable,
            durable_units: std::mem::take(&mut state.durable_units),
            durable_at: state.durable_at,
            patches: std::mem::take(&mut state.written),
            ..Undone::default()
        };
        for Appended { packet, forgotten, .. } in state.packets.drain(..) {
            if forgotten {
                undone.forgotten.push(packet);
            } else {
                undone.packets.push_back(packet);
            }
        }
        undone
    }

    fn end(&mut self) {
        self.shared.lock().ending = true;
        if let Some(thread) = self.thread.take() {
            thread.wake();
            thread.join().expect("the sync thread doesn't panic");
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.end();
    }
}

impl State {
    fn hold(&mut self, packet: Packet, until: u64) {
        self.held_bytes += packet.payload.len();
        self.packets.push_back(Appended { packet, forgotten: false, until });
        while self.held_bytes > self.held_bytes_max && self.forgotten < self.packets.len() {
            let oldest = &mut self.packets[self.forgotten];
            self.held_bytes -= std::mem::take(&mut oldest.packet.payload).len();
            oldest.forgotten = true;
            self.forgotten += 1;
        }
    }

    /// Takes out the packets that lie before `until`, which are durable now.
    fn release(&mut self, until: u64) -> Vec<Packet> {
        let count = self.packets.iter().take_while(|packet| packet.until <= until).count();
        let packets: Vec<Packet> = self.packets.drain(..count).map(|appended| appended.packet).collect();
        self.held_bytes -= packets.iter().map(|packet| packet.payload.len()).sum::<usize>();
        self.forgotten = self.forgotten.saturating_sub(count);
        for packet in &packets {
            *self.durable_units.entry(packet.source).or_default() += packet.units;
            self.durable_at = self.durable_at.max(Some(packet.timestamp));
        }
        packets
    }
}

impl Shared {
    fn run(&self, host: &dyn Host, interval: Duration) {
        loop {
            host.park(interval);
            if self.is_over() {
                return;
            }
            if let Err(error) = self.sync() {
                self.lock().error = Some(error);
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        let state = self.lock();
        state.ending || state.error.is_some()
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
        self.guarded(|file| file.sync_data())?;
        let mut state = self.lock();
        state.durable = until;
        state.written.clear();
        let packets = state.release(until);
        let pending_bytes = state.appended - until;
        let ready = state.patches.iter().take_while(|patch| patch.after <= until).count();
        let patches: Vec<Patch> = state.patches.drain(..ready).collect();
        state.written.clone_from(&patches);
        drop(state);
        for packet in &packets {
            self.ledger.written(packet.source, packet.units, packet.timestamp);
        }
        let last = packets.iter().map(|packet| packet.timestamp).max();
        self.ledger.durable(Durable { at: last, bytes: self.bytes_before + until, pending_bytes });
        self.guarded(|file| patches.iter().try_for_each(|patch| file.write_at(&patch.bytes, patch.offset)))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.guarded(|file| file.sync_all())
    }

    fn guarded(&self, call: impl Fn(&dyn HostFile) -> io::Result<()>) -> io::Result<()> {
        call(&*self.file).inspect_err(|_| self.lock().failed = true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(units: u64, payload_bytes: usize) -> Packet {
        let at = MonoTime::default();
        Packet { source: 0, timestamp: at, end: at, units, revision: 0, payload: vec![0; payload_bytes] }
    }

    #[test]
    fn of_more_than_the_window_the_oldest_are_forgotten_but_counted_when_they_are_durable() {
        let mut state = State { held_bytes_max: 64, ..State::default() };
        for number in 1..=3 {
            state.hold(packet(number, 32), number);
        }
        let held = |state: &State| -> Vec<bool> { state.packets.iter().map(|it| !it.forgotten).collect() };
        assert_eq!(held(&state), [false, true, true]);
        assert_eq!(state.release(1).len(), 1);
        state.hold(packet(4, 1), 4);
        assert_eq!(held(&state), [false, true, true], "the first that is left");
        assert_eq!(state.release(4).len(), 3);
        assert_eq!((state.held_bytes, state.forgotten), (0, 0));
        assert_eq!(state.durable_units[&0], 1 + 2 + 3 + 4);
    }
}
