//! From one file to the next: because the present one is long enough, doesn't fit what comes, or fails.

use std::io;

use super::{HEADROOM, ROTATE_AGAIN_AFTER, Recorder};
use crate::clock::MonoTime;
use crate::media::Packet;
use crate::recording::RecordError;
use crate::recording::begin::{create, gap_tags, make_dir};
use crate::recording::outage::Trouble;
use crate::recording::salvage::Torn;
use crate::recording::segment::{Abandoned, Segment};
use crate::recording::sync::Undone;
use crate::telemetry::chain;

impl Recorder {
    /// A source has another format: a file has one for each track, so the next file begins with `packet`.
    pub(super) fn change_format(&mut self, packet: Packet) -> Result<(), RecordError> {
        self.formats.follow(&packet, &self.ledger);
        self.backlog.push_front(std::iter::once(packet));
        if let Some(full) = self.segment.take() {
            self.close(full);
        }
        self.go_on(self.settings.host.now())
    }

    /// A file without a packet is none: players find no media in it, and complain.
    pub(super) fn finish_file(&self, segment: Segment) -> Result<Undone, Box<Abandoned>> {
        if segment.is_empty() {
            return Ok(segment.remove());
        }
        self.ledger.file(segment.finish(&gap_tags(&self.ledger))?);
        Ok(Undone::default())
    }

    /// Finishes a file that others follow; one that can't be finished is given up.
    pub(super) fn close(&mut self, full: Segment) {
        tracing::info!(file = %full.path().display(), "segment closed");
        let last = self.last.values().map(|(timestamp, _)| *timestamp).max();
        self.full_until = self.full_until.max(last);
        let bytes = full.bytes();
        match self.finish_file(full) {
            Ok(_) => self.bytes_before += bytes,
            Err(abandoned) => drop(self.give_up(*abandoned)),
        }
    }

    /// The present file can't be gone on with; `packet` found no place in it.
    pub(super) fn fail_over(
        &mut self,
        error: RecordError,
        packet: Option<Packet>,
    ) -> Result<(), RecordError> {
        let Some(segment) = self.segment.take() else { return Ok(()) };
        self.backlog.push_front(packet.into_iter());
        let error = self.give_up(segment.abandon(error));
        let now = self.settings.host.now();
        if self.trouble.is_some_and(|trouble| now.since(trouble.since) >= self.settings.give_up_after) {
            // Files can be begun, but none holds anything.
            return Err(error);
        }
        self.go_on(now)
    }

    /// What is durable of a file is made whole, what isn't goes before what waits for the next file.
    pub(super) fn give_up(&mut self, abandoned: Abandoned) -> RecordError {
        let Abandoned { error, path, undone, patches, nameless } = abandoned;
        let Undone { durable_bytes, durable_units, durable_at, packets, forgotten, .. } = undone;
        tracing::error!(error = %chain(&error), "a file can't be gone on with");
        self.ledger.warn(format!("{}; the recording went on in another file", chain(&error)));
        self.bytes_before += durable_bytes;
        self.full_until = self.full_until.max(durable_at);
        // The directory may be gone too, and whoever makes it anew first may fail to make that durable.
        self.dir_is_made &= nameless.is_none();
        for packet in &forgotten {
            self.lose(packet);
        }
        self.backlog.push_front(packets.into_iter());
        let now = self.settings.host.now();
        let lasting = self.trouble.filter(|_| durable_units.is_empty());
        self.trouble = Some(lasting.map_or_else(|| Trouble::new(now), |trouble| trouble.again(now)));
        self.salvages.begin(Torn { path, durable_bytes, durable_units, patches, nameless });
        error
    }

    /// Begins the next file, if it is time for that. While nothing waits for it nobody knows where it has to begin:
    /// what comes next may have been captured long ago.
    pub(super) fn go_on(&mut self, now: MonoTime) -> Result<(), RecordError> {
        if self.backlog.is_empty() || self.trouble.is_some_and(|trouble| !trouble.is_due(now)) {
            return Ok(());
        }
        self.open_next(now)
    }

    /// Begins the next file with what waits for it.
    pub(super) fn open_next(&mut self, now: MonoTime) -> Result<(), RecordError> {
        let zero = self.backlog.begin().unwrap_or(now) - HEADROOM;
        self.dir_is_made &= self.settings.host.is_dir(&self.settings.dir);
        let made = if self.dir_is_made { Ok(()) } else { make_dir(&self.settings) };
        self.dir_is_made = made.is_ok();
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
    pub(super) fn not_yet(&mut self, error: RecordError, now: MonoTime) -> Result<(), RecordError> {
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

    pub(super) fn create(&self, number: u32, zero: MonoTime) -> Result<Segment, RecordError> {
        create(&self.settings, self.formats.tracks(), &self.ledger, zero, number, self.bytes_before)
    }

    pub(super) fn rotate(&mut self, next: MonoTime) -> Result<(), RecordError> {
        let Some(full) = self.segment.take() else { return Ok(()) };
        let (before, zero) = (self.bytes_before, next - HEADROOM);
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
                drop(fresh.remove());
                self.go_on(self.settings.host.now())
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
