//! The recorder of a session: one file after the other, each with a track per source. A file that can't be
//! gone on with is given up; the next one begins with what was not durable in it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::RecordError;
use super::begin::{RecorderSettings, TrackSettings, create, gap_tags, make_dir, source_of, track_number};
use super::formats::Formats;
use super::ledger::Ledger;
use super::outage::{Backlog, Holes, Trouble};
use super::salvage::Salvages;
use super::segment::{Abandoned, Segment};
use crate::clock::{Clock, MonoTime, SystemClock};
use crate::matroska::{self, TrackNumber};
use crate::media::Packet;
use crate::telemetry::chain;

/// A packet may be this much older than the first one of its file.
const SLACK: Duration = Duration::from_millis(500);
/// A source that is behind is waited for so long before a new file is begun: what it still brings has to go
/// where its time is. Silence isn't filled in for longer, so that nothing older comes.
const LAGGARD_WAIT: Duration = Duration::from_secs(60);
/// A new file that can't be begun while the present one still takes packets is tried again after this.
const ROTATE_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The longest time between two looks at whether somebody has removed the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
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
        Ok(Self {
            settings,
            formats: Formats::new(tracks),
            ledger,
            segment: Some(segment),
            backlog: Backlog::default(),
            trouble: None,
            holes: Holes::default(),
            salvages,
            zero: origin,
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
        let now = SystemClock.now();
        self.salvages.look();
        let Some(segment) = &self.segment else { return self.go_on(now) };
        if let Some(error) = segment.sync_error() {
            return self.fail_over(error, None);
        }
        if segment.has_durable_packets() {
            self.trouble = None;
        }
        if now.since(self.looked_at) >= LOOK_EVERY {
            self.looked_at = now;
            if segment.is_nameless() {
                let error = io::Error::new(io::ErrorKind::NotFound, "somebody has removed it");
                let error = RecordError::io("keep", segment.path(), error);
                return self.fail_over(error, None);
            }
        }
        Ok(())
    }

    /// A packet that was captured after the stop is not written, and doesn't count.
    pub fn retract(&self, packet: &Packet) {
        self.ledger.retract(packet.source, packet.units);
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
        let removed = stop.map_or(Ok(Vec::new()), |stop| self.cut_after(stop))?;
        for attempt in 0..FINISH_TRIES {
            if let Some(segment) = self.segment.take() {
                self.holes.tell(&self.ledger);
                match segment.finish(&gap_tags(&self.ledger)) {
                    Ok(file) => self.ledger.file(file),
                    // What was taken out of it may not be durable.
                    Err(abandoned) if !removed.is_empty() => return Err(abandoned.error),
                    Err(abandoned) => drop(self.give_up(*abandoned)),
                }
            }
            if self.backlog.is_empty() {
                break;
            }
            std::thread::park_timeout(FINISH_AGAIN_AFTER * attempt);
            if let Err(error) = self.open_next(SystemClock.now()) {
                tracing::warn!(%error, "the last packets find no file");
            }
        }
        while let Some(packet) = self.backlog.pop() {
            self.lose(&packet);
        }
        self.holes.tell(&self.ledger);
        for (track, units) in removed {
            self.ledger.retract_written(source_of(track), units);
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
        if self.zero.since(packet.timestamp) > SLACK {
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

    /// A source has another format: a file has one for each track, so the next file begins with `packet`.
    fn change_format(&mut self, packet: Packet) -> Result<(), RecordError> {
        self.formats.follow(&packet, &self.ledger);
        self.backlog.push_front(std::iter::once(packet));
        if let Some(full) = self.segment.take() {
            self.close(full);
        }
        self.go_on(SystemClock.now())
    }

    /// Finishes a file that others follow; one that can't be finished is given up.
    fn close(&mut self, full: Segment) {
        tracing::info!(file = %full.path().display(), "segment closed");
        self.full_until = self.last.values().map(|(timestamp, _)| *timestamp).max();
        let bytes = full.bytes();
        match full.finish(&gap_tags(&self.ledger)) {
            Ok(file) => {
                self.bytes_before += bytes;
                self.ledger.file(file);
            }
            Err(abandoned) => drop(self.give_up(*abandoned)),
        }
    }

    /// The present file can't be gone on with; `packet` found no place in it.
    fn fail_over(&mut self, error: RecordError, packet: Option<Packet>) -> Result<(), RecordError> {
        let Some(segment) = self.segment.take() else { return Ok(()) };
        self.backlog.push_front(packet.into_iter());
        let error = self.give_up(segment.abandon(error));
        let now = SystemClock.now();
        if self.trouble.is_some_and(|trouble| now.since(trouble.since) >= self.settings.give_up_after) {
            // Files can be begun, but none holds anything.
            return Err(error);
        }
        self.go_on(now)
    }

    /// What is durable of a file is made whole, what isn't goes before what waits for the next file.
    fn give_up(&mut self, abandoned: Abandoned) -> RecordError {
        let Abandoned { error, torn, packets, forgotten } = abandoned;
        tracing::error!(error = %chain(&error), "a file can't be gone on with");
        self.ledger.warn(format!("{}; the recording went on in another file", chain(&error)));
        self.bytes_before += torn.durable_bytes;
        for packet in &forgotten {
            self.lose(packet);
        }
        self.backlog.push_front(packets.into_iter());
        let now = SystemClock.now();
        let lasting = self.trouble.filter(|_| torn.durable_units.is_empty());
        self.trouble = Some(lasting.map_or_else(|| Trouble::new(now), |trouble| trouble.again(now)));
        self.salvages.begin(torn);
        error
    }

    /// Begins the next file, if it is time for that.
    fn go_on(&mut self, now: MonoTime) -> Result<(), RecordError> {
        if self.trouble.is_some_and(|trouble| !trouble.is_due(now)) {
            return Ok(());
        }
        self.open_next(now)
    }

    /// Begins the next file with what waits for it.
    fn open_next(&mut self, now: MonoTime) -> Result<(), RecordError> {
        let zero = self.backlog.begin().unwrap_or(now) - SLACK;
        let made = if self.settings.dir.is_dir() { Ok(()) } else { make_dir(&self.settings) };
        let created = made
            .map_err(|error| RecordError::io("create", &self.settings.dir, error))
            .and_then(|()| self.create(self.number + 1, zero));
        let segment = match created {
            Ok(segment) => segment,
            Err(error) => return self.not_yet(error, now),
        };
        tracing::info!(file = %segment.path().display(), "the recording goes on");
        self.segment = Some(segment);
        self.number += 1;
        self.zero = zero;
        while self.segment.is_some()
            && let Some(packet) = self.backlog.pop()
        {
            self.append(packet)?;
        }
        self.holes.tell(&self.ledger);
        Ok(())
    }

    /// No file can be begun: it is tried again later, unless the disk is full or has failed for too long.
    fn not_yet(&mut self, error: RecordError, now: MonoTime) -> Result<(), RecordError> {
        if let RecordError::Io { source, .. } = &error
            && source.kind() == io::ErrorKind::AlreadyExists
        {
            // What a failed try has left.
            self.number += 1;
        }
        let trouble = self.trouble.unwrap_or_else(|| Trouble::new(now)).again(now);
        self.trouble = Some(trouble);
        if error.is_full() || now.since(trouble.since) >= self.settings.give_up_after {
            return Err(error);
        }
        tracing::warn!(error = %chain(&error), "no file can be begun: what is captured waits in memory");
        self.ledger.warn(chain(&error));
        Ok(())
    }

    fn create(&self, number: u32, zero: MonoTime) -> Result<Segment, RecordError> {
        create(&self.settings, self.formats.tracks(), &self.ledger, zero, number, self.bytes_before)
    }

    /// A stop that was heard of late: what was written since it was asked for is taken out again.
    fn cut_after(&mut self, stop: MonoTime) -> Result<Vec<(TrackNumber, u64)>, RecordError> {
        if self.full_until.is_some_and(|until| until > stop) {
            self.ledger.warn(
                "the stop came late: the file before the last holds more than was asked for".to_owned(),
            );
        }
        for packet in self.backlog.cut_after(stop) {
            self.retract(&packet);
        }
        let mut removed = Vec::new();
        let late = self.last.values().any(|(timestamp, _)| *timestamp > stop);
        if let Some(segment) = self.segment.as_mut().filter(|_| late) {
            let cut = segment.cut_after(relative(self.zero, stop))?;
            tracing::warn!(
                packets = cut.removed.len(),
                "the stop came late: what was captured after it is taken out"
            );
            removed = cut.removed;
            self.last = cut
                .last
                .into_iter()
                .map(|(track, last, end)| (source_of(track), (self.zero + last, self.zero + end)))
                .collect();
        }
        for (source, (last, end)) in &self.last {
            self.ledger.ends_at(*source, *last, *end);
        }
        Ok(removed)
    }

    fn rotate(&mut self, next: MonoTime) -> Result<(), RecordError> {
        let Some(full) = self.segment.take() else { return Ok(()) };
        let (before, zero) = (self.bytes_before, next - SLACK);
        // A file that can't be finished has fewer bytes that count: then this one is begun anew.
        self.bytes_before += full.bytes();
        let fresh = self.create(self.number + 1, zero);
        self.bytes_before = before;
        match fresh {
            Ok(fresh) => {
                self.close(full);
                if self.backlog.is_empty() && self.trouble.is_none() {
                    (self.segment, self.zero) = (Some(fresh), zero);
                    self.number += 1;
                    return Ok(());
                }
                // What the file before lacks is older than this one's zero.
                fresh.remove();
                self.go_on(SystemClock.now())
            }
            // The present file still takes packets.
            Err(error) if error.is_full() => {
                self.segment = Some(full);
                Err(error)
            }
            Err(error) => {
                self.segment = Some(full);
                self.rotate_from = next + ROTATE_AGAIN_AFTER;
                tracing::warn!(error = %chain(&error), "no new file can be begun: the present one goes on");
                self.ledger.warn(chain(&error));
                Ok(())
            }
        }
    }
}

fn relative(zero: MonoTime, at: MonoTime) -> matroska::Timestamp {
    matroska::Timestamp::from_ns(i64::try_from(at.since(zero).as_nanos()).unwrap_or(i64::MAX))
}
