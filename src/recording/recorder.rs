//! The recorder of a session: one file after the other, each with a track per source. A file that can't be
//! gone on with is given up; the next one begins with what was not durable in it.

mod late;
mod next_file;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use late::Late;

use super::RecordError;
use super::begin::{RecorderSettings, TrackSettings, create, track_number};
use super::formats::Formats;
use super::ledger::Ledger;
use super::outage::{Backlog, Holes, Trouble};
use super::salvage::Salvages;
use super::segment::{Segment, gone};
use crate::clock::MonoTime;
use crate::matroska;
use crate::media::Packet;

/// A file's zero lies so long before its first packet: another source may bring older ones.
const HEADROOM: Duration = Duration::from_secs(1);
/// A source that is so far behind is waited for before a new file is begun.
const SLACK: Duration = Duration::from_millis(500);
/// A source that is behind is waited for so long before a new file is begun: what it still brings has to go
/// where its time is. Silence isn't filled in for longer, so that nothing older comes.
const LAGGARD_WAIT: Duration = Duration::from_secs(60);
/// A new file that can't be begun while the present one still takes packets is tried again after this.
const ROTATE_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The longest time between two looks at whether somebody has removed the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Everything in a file is stamped later.
const BEFORE_ALL: matroska::Timestamp = matroska::Timestamp::from_ns(-1);
/// How often the last file is tried to be finished, and how long after the first failure.
const FINISH_TRIES: u32 = 4;
const FINISH_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Writes a session's packets, in the order in which they come.
pub struct Recorder {
    settings: RecorderSettings,
    formats: Formats,
    ledger: Arc<Ledger>,
    /// The present file; `None` while the disk takes none.
    segment: Option<Segment>,
    /// Packets that wait for a file.
    backlog: Backlog,
    trouble: Option<Trouble>,
    holes: Holes,
    salvages: Salvages,
    /// The monotonic time that is the present file's zero.
    zero: MonoTime,
    /// The directory's own name is durable, unless somebody has taken it away.
    dir_is_made: bool,
    number: u32,
    bytes_before: u64,
    /// Timestamp and end of the last packet of each source that was written.
    last: BTreeMap<usize, (MonoTime, MonoTime)>,
    /// The latest timestamp in the file before the present one.
    full_until: Option<MonoTime>,
    rotate_from: MonoTime,
    looked_at: MonoTime,
}

impl Recorder {
    /// Makes the first file, whose time zero is `origin`, in the directory that [`prepare`] has made.
    ///
    /// [`prepare`]: super::prepare
    ///
    /// # Errors
    /// The file can't be made.
    pub fn begin(
        settings: RecorderSettings,
        tracks: Vec<TrackSettings>,
        ledger: Arc<Ledger>,
        origin: MonoTime,
    ) -> Result<Self, RecordError> {
        let number = settings.first_segment;
        let segment = create(&settings, &tracks, &ledger, origin, number, 0)?;
        let salvages = Salvages::new(settings.clone(), &tracks, Arc::clone(&ledger));
        let backlog = Backlog::new(settings.held_bytes_max);
        Ok(Self {
            settings,
            formats: Formats::new(tracks),
            ledger,
            segment: Some(segment),
            backlog,
            trouble: None,
            holes: Holes::default(),
            salvages,
            zero: origin,
            dir_is_made: true,
            number,
            bytes_before: 0,
            last: BTreeMap::new(),
            full_until: None,
            rotate_from: origin,
            looked_at: origin,
        })
    }

    /// Appends one packet; a new file is begun when the present one is long enough, or fails.
    ///
    /// # Errors
    /// The disk is full, or has failed for too long.
    pub fn write(&mut self, packet: Packet) -> Result<(), RecordError> {
        self.check().inspect_err(|_| self.lose(&packet))?;
        if self.segment.is_none() {
            if let Some(packet) = self.backlog.push(packet) {
                self.lose(&packet);
            }
            return Ok(());
        }
        let age = packet.timestamp.since(self.zero);
        let due = age >= self.settings.segment && !self.is_waiting(packet.timestamp);
        if (due || age >= self.settings.segment + LAGGARD_WAIT) && packet.timestamp >= self.rotate_from {
            self.rotate(packet.timestamp).inspect_err(|_| self.lose(&packet))?;
        }
        self.append(packet)
    }

    /// Looks after what no packet tells: errors of the background sync, a file whose name is gone, a disk that
    /// may take something again.
    ///
    /// # Errors
    /// As [`Recorder::write`].
    pub fn check(&mut self) -> Result<(), RecordError> {
        let now = self.settings.host.now();
        self.salvages.look();
        let Some(segment) = &self.segment else { return self.go_on(now) };
        if let Some(error) = segment.sync_error() {
            return self.fail_over(error, None);
        }
        if segment.has_durable_packets() {
            self.trouble = None;
        }
        if now.since(self.looked_at) < LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = now;
        self.look_for_name()
    }

    /// A file that is not to be found at its path any more can't be gone on with.
    fn look_for_name(&mut self) -> Result<(), RecordError> {
        match self.segment.as_ref().filter(|segment| segment.is_nameless()) {
            Some(segment) => {
                let error = RecordError::io("keep", segment.path(), gone());
                self.fail_over(error, None)
            }
            None => Ok(()),
        }
    }

    /// Bytes of packets that are in memory because they aren't durable.
    pub fn held_bytes(&self) -> usize {
        self.backlog.bytes() + self.segment.as_ref().map_or(0, Segment::held_bytes)
    }

    /// A packet that was captured after the stop is not written, and doesn't count.
    pub fn retract(&self, packet: &Packet) {
        self.ledger.retract(packet.source, packet.units);
    }

    fn retract_all(&self, packets: &[Packet]) {
        for packet in packets {
            self.retract(packet);
        }
    }

    /// This packet can't be kept: it is counted, and the receipt tells where it is missing.
    pub fn lose(&mut self, packet: &Packet) {
        self.ledger.lost(packet.source, packet.units);
        self.holes.add(packet);
    }

    /// Finishes the last file; everything is durable when it returns, and nothing that is stamped later than
    /// `stop` is in it. What no file takes even now is lost.
    ///
    /// # Errors
    /// A file could not be made whole; what was durable in it still is.
    pub fn finish(mut self, stop: Option<MonoTime>) -> Result<(), RecordError> {
        if let Err(error) = self.look_for_name() {
            tracing::warn!(%error, "the last packets find no file");
        }
        let mut late = stop.map_or(Ok(Late::default()), |stop| self.cut_after(stop))?;
        for attempt in 0..FINISH_TRIES {
            if self.segment.is_none() && !self.backlog.is_empty() {
                self.settings.host.park(FINISH_AGAIN_AFTER * attempt);
                if let Err(error) = self.open_next(self.settings.host.now()) {
                    tracing::warn!(%error, "the last packets find no file");
                }
            }
            if let Some(segment) = self.segment.take() {
                self.holes.tell(&self.ledger);
                match self.finish_file(segment) {
                    Ok(mut undone) => self.retract_all(&late.take_out(&mut undone)),
                    Err(mut abandoned) => {
                        self.retract_all(&late.take_out(&mut abandoned.undone));
                        drop(self.give_up(*abandoned));
                    }
                }
            }
            if self.backlog.is_empty() {
                break;
            }
        }
        while let Some(packet) = self.backlog.pop() {
            self.lose(&packet);
        }
        self.holes.tell(&self.ledger);
        for (source, units) in late.units {
            self.ledger.retract_written(source, units);
        }
        self.salvages.end()
    }

    /// Whether a source is so far behind `next` that a file that begins there would be too late for it.
    fn is_waiting(&self, next: MonoTime) -> bool {
        let behind = self.last.values().map(|(_, end)| next.since(*end));
        behind.into_iter().any(|behind| behind > SLACK && behind < LAGGARD_WAIT)
    }

    fn append(&mut self, packet: Packet) -> Result<(), RecordError> {
        if self.segment.is_some() && !self.formats.fits(&packet) {
            return self.change_format(packet);
        }
        let Some(segment) = &mut self.segment else {
            if let Some(packet) = self.backlog.push(packet) {
                self.lose(&packet);
            }
            return Ok(());
        };
        if packet.timestamp < self.zero {
            // The file that this packet belongs into is finished.
            self.lose(&packet);
            self.ledger.warn("some of what a source delivered came too late for its file".to_owned());
            return Ok(());
        }
        let (source, timestamp, end) = (packet.source, packet.timestamp, packet.end);
        let (zero, track) = (self.zero, track_number(source));
        match segment.write(track, relative(zero, timestamp), relative(zero, end), packet) {
            Ok(()) => {
                self.last.insert(source, (timestamp, end));
                Ok(())
            }
            Err(refused) => match *refused {
                (error @ RecordError::Io { .. }, packet) => self.fail_over(error, Some(packet)),
                (error, packet) => {
                    self.lose(&packet);
                    Err(error)
                }
            },
        }
    }
}

fn relative(zero: MonoTime, at: MonoTime) -> matroska::Timestamp {
    matroska::Timestamp::from_ns(i64::try_from(at.since(zero).as_nanos()).unwrap_or(i64::MAX))
}
