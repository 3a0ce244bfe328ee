//! The ledger: what each source captured and what became of it. Capturing threads and the recorder
//! write it, the worker's reports read it.

use std::sync::{Mutex, MutexGuard};

use super::segment_number;
use crate::clock::{Anchor, MonoTime, WallTime};
use crate::matroska::Codec;
use crate::session::device::{MediaType, TimestampSource};
use crate::session::{Account, Gap, MediaFile, SourceAccount, SourceReceipt, SourceState};

/// A clock that is off by more is told: 100 ppm are a third of a second in an hour.
const DRIFT_TOLD_PPM: f64 = 100.0;

/// The account of a session in the making.
#[derive(Debug)]
pub struct Ledger {
    anchor: Anchor,
    sources: Vec<Mutex<Entry>>,
    rest: Mutex<Rest>,
}

#[derive(Debug)]
struct Entry {
    account: SourceAccount,
    first: Option<MonoTime>,
    end: Option<MonoTime>,
    /// When its device has last answered, with a frame or without.
    answered_at: Option<MonoTime>,
    /// How its packets are encoded at first, once its device is open.
    first_codec: Option<Codec>,
    /// How its packets are encoded since its format changed, for each time that it did.
    codecs: Vec<Codec>,
    /// The account is closed: a device that hung and comes back changes nothing any more.
    settled: bool,
}

#[derive(Debug, Default)]
struct Rest {
    origin: Option<MonoTime>,
    files: Vec<MediaFile>,
    warnings: Vec<String>,
    durable: Durable,
}

/// What of a session is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// When the last durable packet was captured.
    pub at: Option<MonoTime>,
    /// Bytes that are durable, over all files.
    pub bytes: u64,
    /// Bytes that were written and are not durable yet.
    pub pending_bytes: u64,
}

impl Ledger {
    /// A ledger of `sources`: id, what it delivers, and the device's label.
    pub fn new(anchor: Anchor, sources: impl IntoIterator<Item = (String, MediaType, String)>) -> Self {
        let entry = |(id, media, device)| {
            let receipt = SourceReceipt::of(id, media, device);
            let (state, reason) = (SourceState::Starting, String::new());
            let account = SourceAccount { receipt, state, reason, durable_at: None };
            Mutex::new(Entry {
                account,
                first: None,
                end: None,
                answered_at: None,
                first_codec: None,
                codecs: Vec::new(),
                settled: false,
            })
        };
        Self { anchor, sources: sources.into_iter().map(entry).collect(), rest: Mutex::default() }
    }

    /// The wall clock time of `at`, by the clocks' offset when the session was admitted.
    pub fn wall_at(&self, at: MonoTime) -> WallTime {
        self.anchor.wall_at(at)
    }

    /// A device was opened, for the first time or anew.
    pub fn opened(&self, source: usize, format: String, timestamps: TimestampSource) {
        let mut entry = self.entry(source);
        entry.account.receipt.format = format;
        entry.account.receipt.timestamp_source = Some(timestamps);
    }

    /// The packets of a source are encoded so from now on; tells the number of this revision.
    pub fn changed(&self, source: usize, codec: Codec) -> u32 {
        let codecs = &mut self.entry(source).codecs;
        codecs.push(codec);
        u32::try_from(codecs.len()).expect("formats change far less often than that")
    }

    /// The packets of a source are encoded so at first.
    pub fn begins_as(&self, source: usize, codec: Codec) {
        self.entry(source).first_codec = Some(codec);
    }

    /// How the packets of a source are encoded at first; `None` while its device was never open.
    pub fn first_codec(&self, source: usize) -> Option<Codec> {
        self.entry(source).first_codec.clone()
    }

    /// How the packets of a source are encoded in a revision after the first.
    pub fn codec(&self, source: usize, revision: u32) -> Option<Codec> {
        let at = usize::try_from(revision).ok()?.checked_sub(1)?;
        self.entry(source).codecs.get(at).cloned()
    }

    /// A device was opened anew.
    pub fn restarted(&self, source: usize) {
        self.entry(source).account.receipt.restarts += 1;
    }

    /// `units` were captured, from `timestamp` until `end`.
    pub fn captured(&self, source: usize, timestamp: MonoTime, end: MonoTime, units: u64) {
        let wall = self.wall_at(timestamp);
        let mut entry = self.entry(source);
        if entry.settled {
            return;
        }
        entry.account.receipt.captured += units;
        entry.account.receipt.last_timestamp = Some(wall);
        entry.account.receipt.first_timestamp.get_or_insert(wall);
        entry.first.get_or_insert(timestamp);
        entry.end = entry.end.max(Some(end));
    }

    /// So many pictures are damaged, or came so broken that they are none.
    pub fn corrupt(&self, source: usize, count: u64) {
        if count > 0 {
            self.entry(source).account.receipt.corrupt += count;
        }
    }

    /// Whether a source's frames are stamped by its driver.
    pub fn stamps_by_driver(&self, source: usize) -> bool {
        self.entry(source).account.receipt.timestamp_source == Some(TimestampSource::Driver)
    }

    /// By how many parts per million a source's clock is fast against the host's.
    pub fn drifts(&self, source: usize, ppm: f64) {
        self.entry(source).account.receipt.drift_ppm = Some(ppm);
    }

    /// `units` that were captured found no room in the queue; tells whether they are the first ones.
    pub fn dropped(&self, source: usize, units: u64) -> bool {
        let mut entry = self.entry(source);
        if entry.settled {
            return false;
        }
        let first = entry.account.receipt.dropped == 0;
        entry.account.receipt.dropped += units;
        first
    }

    /// `units` were captured after the stop, which was heard of late: they don't count.
    pub fn retract(&self, source: usize, units: u64) {
        let receipt = &mut self.entry(source).account.receipt;
        receipt.captured = receipt.captured.saturating_sub(units);
    }

    /// As [`Ledger::retract`], for units that were in a file and are taken out of it.
    pub fn retract_written(&self, source: usize, units: u64) {
        let receipt = &mut self.entry(source).account.receipt;
        receipt.captured = receipt.captured.saturating_sub(units);
        receipt.written = receipt.written.saturating_sub(units);
    }

    /// What was captured after the stop doesn't count: `last` and `end` are the last packet's.
    pub fn ends_at(&self, source: usize, last: MonoTime, end: MonoTime) {
        let wall = self.wall_at(last);
        let mut entry = self.entry(source);
        if entry.account.receipt.last_timestamp.is_some_and(|told| told > wall) {
            entry.account.receipt.last_timestamp = Some(wall);
            entry.end = entry.end.min(Some(end));
        }
    }

    /// `units` that were durable can't be found on the disk any more.
    pub fn withdraw(&self, source: usize, units: u64) {
        let receipt = &mut self.entry(source).account.receipt;
        receipt.written = receipt.written.saturating_sub(units);
    }

    /// When the last frame of a source ends.
    pub fn end(&self, source: usize) -> Option<MonoTime> {
        self.entry(source).end
    }

    /// `units` that were captured will not become durable.
    pub fn lost(&self, source: usize, units: u64) {
        let mut entry = self.entry(source);
        if !entry.settled {
            entry.account.receipt.lost += units;
        }
    }

    /// `samples` of silence were filled in.
    pub fn filled(&self, source: usize, samples: u64) {
        let mut entry = self.entry(source);
        if !entry.settled {
            entry.account.receipt.filled += samples;
        }
    }

    /// `units` that were captured at `timestamp` are durable.
    pub fn written(&self, source: usize, units: u64, timestamp: MonoTime) {
        let account = &mut self.entry(source).account;
        account.receipt.written += units;
        account.durable_at = account.durable_at.max(Some(timestamp));
    }

    /// A source delivered nothing for a while.
    pub fn gap(&self, source: usize, gap: Gap) {
        let mut entry = self.entry(source);
        if !entry.settled {
            entry.account.receipt.add_gap(gap);
        }
    }

    /// The device of a source hangs at the end: what it may still bring changes nothing.
    pub fn give_up(&self, source: usize) {
        self.entry(source).settled = true;
    }

    /// A source is in a new state; tells whether it is another one.
    pub fn turn(&self, source: usize, state: SourceState, reason: &str) -> bool {
        let mut entry = self.entry(source);
        let turned = entry.account.state != state || entry.account.reason != reason;
        entry.account.state = state;
        reason.clone_into(&mut entry.account.reason);
        turned
    }

    /// The device of a source has answered at `now`, with a frame or without.
    pub fn answered(&self, source: usize, now: MonoTime) {
        self.entry(source).answered_at = Some(now);
    }

    /// When the device of a source has last answered.
    pub fn answered_at(&self, source: usize) -> Option<MonoTime> {
        self.entry(source).answered_at
    }

    /// The state of a source.
    pub fn state(&self, source: usize) -> SourceState {
        self.entry(source).account.state
    }

    /// The state of a source, and why it is degraded.
    pub fn state_and_reason(&self, source: usize) -> (SourceState, String) {
        let entry = self.entry(source);
        (entry.account.state, entry.account.reason.clone())
    }

    /// Sets the beginning of the media.
    pub fn begin(&self, origin: MonoTime) {
        self.rest().origin = Some(origin);
    }

    /// Seconds from the beginning of the media to `at`.
    pub fn seconds_at(&self, at: MonoTime) -> f64 {
        let origin = self.rest().origin.unwrap_or(at);
        at.since(origin).as_secs_f64()
    }

    /// A file is complete.
    pub fn file(&self, file: MediaFile) {
        let files = &mut self.rest().files;
        // One that had to be made whole may come after the one that follows it.
        let at = files.partition_point(|other| {
            segment_number(other.path.as_ref()) < segment_number(file.path.as_ref())
        });
        files.insert(at, file);
    }

    /// Something that an operator should know.
    pub fn warn(&self, warning: String) {
        let mut rest = self.rest();
        let mut account = Account { warnings: std::mem::take(&mut rest.warnings), ..Account::default() };
        account.warn(warning);
        rest.warnings = account.warnings;
    }

    /// More is durable, or waits to become so.
    pub fn durable(&self, durable: Durable) {
        let mut rest = self.rest();
        let at = durable.at.max(rest.durable.at);
        // The last words of a closed file may come after the first of the next one.
        let bytes = durable.bytes.max(rest.durable.bytes);
        rest.durable = Durable { at, bytes, ..durable };
    }

    /// What is durable.
    pub fn durability(&self) -> Durable {
        self.rest().durable
    }

    /// Counts what was captured and is neither written, dropped nor lost as lost. Only once nothing
    /// can become durable any more.
    pub fn settle(&self) {
        for source in &self.sources {
            let mut entry = source.lock().expect("no holder of this lock can panic");
            let receipt = &mut entry.account.receipt;
            receipt.lost = receipt.captured - receipt.written - receipt.dropped;
            entry.settled = true;
        }
    }

    /// Tells of clocks that run so differently that players which don't follow the times get out of step.
    pub fn tell_drifts(&self) {
        for source in &self.sources {
            let entry = source.lock().expect("no holder of this lock can panic");
            let receipt = &entry.account.receipt;
            let ppm = receipt.drift_ppm.unwrap_or(0.0);
            let warning = format!(
                "{}: its clock is {:.0} ppm {} than the host's; the times in the file follow it",
                receipt.device,
                ppm.abs(),
                if ppm > 0.0 { "faster" } else { "slower" }
            );
            drop(entry);
            if ppm.abs() >= DRIFT_TOLD_PPM {
                self.warn(warning);
            }
        }
    }

    /// The account as it is now.
    pub fn account(&self) -> Account {
        let entries: Vec<_> =
            self.sources.iter().map(|it| it.lock().expect("no holder of this lock can panic")).collect();
        let first = entries.iter().filter_map(|entry| entry.first).min();
        let end = entries.iter().filter_map(|entry| entry.end).max();
        let rest = self.rest();
        Account {
            sources: entries.iter().map(|entry| entry.account.clone()).collect(),
            files: rest.files.clone(),
            captured_seconds: first.zip(end).map_or(0.0, |(first, end)| end.since(first).as_secs_f64()),
            warnings: rest.warnings.clone(),
        }
    }

    fn entry(&self, source: usize) -> MutexGuard<'_, Entry> {
        self.sources[source].lock().expect("no holder of this lock can panic")
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().expect("no holder of this lock can panic")
    }
}
