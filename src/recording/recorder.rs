//! The recorder of a session: one segment after the other, each with a track per source.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::num::NonZeroU64;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::ledger::Ledger;
use super::segment::{Segment, set_owner, sync_dir};
use super::{RecordError, segment_number};
use crate::clock::MonoTime;
use crate::link::LAST_ACCOUNT_NAME;
use crate::matroska::{self, Codec, Header, Tag, TagTarget, Track, TrackNumber};
use crate::media::Packet;

/// A packet may be this much older than the first one of its file.
const SLACK: Duration = Duration::from_millis(500);
/// A source that is behind is waited for so long before a new file is begun: what it still brings has to go
/// where its time is. Silence isn't filled in for longer, so that nothing older comes.
const LAGGARD_WAIT: Duration = Duration::from_secs(60);

/// How and where a session is recorded.
#[derive(Clone, Debug)]
pub struct RecorderSettings {
    /// The session's id: the files' name begins with it.
    pub session: String,
    /// What people call the session.
    pub name: String,
    /// Where the files go.
    pub dir: PathBuf,
    /// Permission bits of files.
    pub file_mode: u32,
    /// Permission bits of the directory.
    pub dir_mode: u32,
    /// Group of both.
    pub group: Option<u32>,
    /// A new file is begun after this long.
    pub segment: Duration,
    /// What was written is made durable this often.
    pub sync_interval: Duration,
    /// An earlier worker of the session has left files: they stay, and the numbers go on.
    pub resumed: bool,
    /// Number of the first file, from [`Recorder::prepare`].
    pub first_segment: u32,
}

/// One source's track.
#[derive(Clone, Debug)]
pub struct TrackSettings {
    /// Which source, counted from 0 in the session's order.
    pub source: usize,
    /// The source's id.
    pub source_id: String,
    /// What a person calls it.
    pub name: String,
    /// How its packets are encoded.
    pub codec: Codec,
}

/// Writes a session's packets, in the order in which they come.
pub struct Recorder {
    settings: RecorderSettings,
    tracks: Vec<TrackSettings>,
    ledger: Arc<Ledger>,
    segment: Segment,
    /// The monotonic time that is the present file's zero.
    zero: MonoTime,
    number: u32,
    bytes_before: u64,
    /// Timestamp and end of the last packet of each source that was written.
    last: BTreeMap<usize, (MonoTime, MonoTime)>,
    /// The latest timestamp in the file before the present one.
    full_until: Option<MonoTime>,
    /// A file could not be finished: the daemon has to repair and count what there is.
    failed: bool,
}

impl Recorder {
    /// Makes the session's directory and its first file, whose time zero is `origin`.
    ///
    /// # Errors
    /// The directory or the file can't be made.
    pub fn begin(
        settings: RecorderSettings,
        tracks: Vec<TrackSettings>,
        ledger: Arc<Ledger>,
        origin: MonoTime,
    ) -> Result<Self, RecordError> {
        let number = settings.first_segment;
        let segment = create(&settings, &tracks, &ledger, origin, number, 0)?;
        Ok(Self {
            settings,
            tracks,
            ledger,
            segment,
            zero: origin,
            number,
            bytes_before: 0,
            last: BTreeMap::new(),
            full_until: None,
            failed: false,
        })
    }

    /// Makes the session's directory, or finds it there: empty, or with the files of an earlier worker. A
    /// test of whether anything can be recorded. Returns the number of the first file.
    ///
    /// # Errors
    /// It can't be made, or holds files already and the session isn't resumed.
    pub fn prepare(settings: &RecorderSettings) -> Result<u32, RecordError> {
        let dir = &settings.dir;
        let failed = |error| RecordError::io("create", dir, error);
        DirBuilder::new()
            .mode(settings.dir_mode)
            .create(dir)
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists if settings.resumed || dir.read_dir()?.next().is_none() => {
                    Ok(())
                }
                _ => Err(error),
            })
            .map_err(failed)?;
        // What an earlier worker said of its end is not this one's.
        match std::fs::remove_file(dir.join(LAST_ACCOUNT_NAME)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let last = last_number(dir).map_err(|error| RecordError::io("read", dir, error))?;
        let opened = File::open(dir).map_err(failed)?;
        set_owner(&opened, settings.dir_mode, settings.group)
            .map_err(|error| RecordError::io("set the owner of", dir, error))?;
        dir.parent().map_or(Ok(()), sync_dir)?;
        Ok(last + 1)
    }

    /// Appends one packet; a new file is begun when the present one is long enough.
    ///
    /// # Errors
    /// The disk is full, or failed.
    pub fn write(&mut self, packet: &Packet) -> Result<(), RecordError> {
        if let Some(error) = self.segment.sync_error() {
            return Err(error);
        }
        let age = packet.timestamp.since(self.zero);
        let due = age >= self.settings.segment && !self.is_waiting(packet.timestamp);
        if due || age >= self.settings.segment + LAGGARD_WAIT {
            self.rotate(packet.timestamp)?;
        }
        if self.zero.since(packet.timestamp) > SLACK {
            self.refuse(packet);
            return Ok(());
        }
        self.last.insert(packet.source, (packet.timestamp, packet.end));
        let track = track_number(packet.source);
        let timestamp = self.relative(packet.timestamp);
        let end = self.relative(packet.end);
        self.segment.write(track, timestamp, end, packet)
    }

    /// Whether a source is so far behind `next` that a file that begins there would be too late for it.
    fn is_waiting(&self, next: MonoTime) -> bool {
        let behind = self.last.values().map(|(_, end)| next.since(*end));
        behind.into_iter().any(|behind| behind > SLACK && behind < LAGGARD_WAIT)
    }

    /// The file that this packet belongs into is finished.
    fn refuse(&self, packet: &Packet) {
        self.ledger.lost(packet.source, packet.units);
        self.ledger.warn("some of what a source delivered came too late for its file".to_owned());
    }

    /// A packet that was captured after the stop is not written, and doesn't count.
    pub fn retract(&self, packet: &Packet) {
        self.ledger.retract(packet.source, packet.units);
    }

    /// The error that the background sync has met since the last packet.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<(), RecordError> {
        self.segment.sync_error().map_or(Ok(()), Err)
    }

    /// Finishes the last file; everything is durable when it returns, and nothing that is stamped later than
    /// `stop` is in it.
    ///
    /// # Errors
    /// The disk failed; what was durable before still is.
    pub fn finish(mut self, stop: Option<MonoTime>) -> Result<(), RecordError> {
        if self.failed {
            let source = std::io::Error::other("an earlier file of the session could not be finished");
            return Err(RecordError::Io { doing: "finish", path: self.settings.dir, source });
        }
        let removed = stop.map_or(Ok(Vec::new()), |stop| self.cut_after(stop))?;
        let tags = gap_tags(&self.ledger);
        let file = self.segment.finish(&tags)?;
        self.ledger.file(file);
        for (track, units) in removed {
            self.ledger.retract_written(source_of(track), units);
        }
        Ok(())
    }

    /// A stop that was heard of late: what was written since it was asked for is taken out again.
    fn cut_after(&mut self, stop: MonoTime) -> Result<Vec<(TrackNumber, u64)>, RecordError> {
        if self.full_until.is_some_and(|until| until > stop) {
            self.ledger.warn(
                "the stop came late: the file before the last holds more than was asked for".to_owned(),
            );
        }
        let mut removed = Vec::new();
        if self.last.values().any(|(timestamp, _)| *timestamp > stop) {
            let cut = self.segment.cut_after(self.relative(stop))?;
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
        self.bytes_before += self.segment.bytes();
        let zero = next - SLACK;
        let segment =
            create(&self.settings, &self.tracks, &self.ledger, zero, self.number + 1, self.bytes_before)?;
        let full = std::mem::replace(&mut self.segment, segment);
        tracing::info!(file = %full.path().display(), "segment closed");
        let path = full.path().to_owned();
        let file = full.finish(&gap_tags(&self.ledger)).inspect_err(|error| {
            tracing::error!(file = %path.display(), %error, "a file can't be finished");
            self.failed = true;
        })?;
        self.ledger.file(file);
        self.full_until = self.last.values().map(|(timestamp, _)| *timestamp).max();
        self.number += 1;
        self.zero = zero;
        Ok(())
    }

    fn relative(&self, at: MonoTime) -> matroska::Timestamp {
        matroska::Timestamp::from_ns(i64::try_from(at.since(self.zero).as_nanos()).unwrap_or(i64::MAX))
    }
}

/// The highest number of a file in `dir`, 0 without any.
fn last_number(dir: &Path) -> std::io::Result<u32> {
    let names = dir.read_dir()?.map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())));
    let numbers = names.map(|name| name.map(|name| segment_number(&name).unwrap_or(0)));
    numbers.reduce(|one, other| Ok(one?.max(other?))).unwrap_or(Ok(0))
}

fn create(
    settings: &RecorderSettings,
    tracks: &[TrackSettings],
    ledger: &Arc<Ledger>,
    zero: MonoTime,
    number: u32,
    bytes_before: u64,
) -> Result<Segment, RecordError> {
    let path = settings.dir.join(format!("{}-{number:04}.mkv", settings.session));
    let wall = ledger.wall_at(zero);
    let segment_tag =
        |name: &str, value: String| Tag { target: TagTarget::Segment, name: name.to_owned(), value };
    let header = Header {
        title: if settings.name.is_empty() { settings.session.clone() } else { settings.name.clone() },
        writing_app: concat!("shutterd ", env!("CARGO_PKG_VERSION")).to_owned(),
        wall_start: matroska::WallTime::from_unix_ns(i64::try_from(wall.nanos()).unwrap_or(i64::MAX)),
        segment_uuid: random(),
        tracks: tracks.iter().map(mkv_track).collect(),
        tags: vec![
            segment_tag("SESSION_ID", settings.session.clone()),
            segment_tag("SESSION_NAME", settings.name.clone()),
            segment_tag("DATE_RECORDED", wall.to_string()),
        ],
    };
    Segment::create(path, &header, settings, ledger, bytes_before)
}

fn mkv_track(track: &TrackSettings) -> Track {
    Track {
        number: track_number(track.source),
        uid: NonZeroU64::new(u64::from_le_bytes(random())).unwrap_or(NonZeroU64::MIN),
        name: track.name.clone(),
        source_id: track.source_id.clone(),
        codec: track.codec.clone(),
    }
}

fn source_of(track: TrackNumber) -> usize {
    usize::from(track.get()) - 1
}

fn track_number(source: usize) -> TrackNumber {
    let number = u8::try_from(source + 1).ok().and_then(TrackNumber::new);
    number.expect("a session has far fewer sources than a file can have tracks")
}

/// Gaps that a file's tags list for each track; the receipt lists more.
const TAGGED_GAPS_MAX: usize = 200;

/// A tag per track that lists its gaps, as JSON.
fn gap_tags(ledger: &Ledger) -> Vec<Tag> {
    let sources = ledger.account().sources;
    let gapped = sources.iter().enumerate().filter(|(_, source)| !source.receipt.gaps.is_empty());
    gapped
        .filter_map(|(at, source)| {
            let gaps = &source.receipt.gaps;
            let value = serde_json::to_string(&gaps[..gaps.len().min(TAGGED_GAPS_MAX)]).ok()?;
            Some(Tag { target: TagTarget::Track(track_number(at)), name: "GAPS".to_owned(), value })
        })
        .collect()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel has had enough entropy since it booted");
    bytes
}
