//! How a session's files begin: its directory, the names and numbers of files, their headers.

use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::host::Host;
use super::ledger::Ledger;
use super::segment::Segment;
use super::{RecordError, segment_number};
use crate::clock::MonoTime;
use crate::link::LAST_ACCOUNT_NAME;
use crate::matroska::{self, Codec, Header, Tag, TagTarget, Track, TrackNumber};

/// Bytes of packets that a worker keeps in memory until they are durable.
pub const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How and where a session is recorded.
#[derive(Clone, Debug)]
pub struct RecorderSettings {
    /// Whose files, time and threads are used.
    pub host: Arc<dyn Host>,
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
    /// What the disk refuses stays in memory for so long; then the recording ends.
    pub give_up_after: Duration,
    /// Bytes of packets that are kept in memory until they are durable. Of more than that in a file the oldest
    /// have only their count kept; while there is no file, what finds no room is lost.
    pub held_bytes_max: usize,
    /// Number of the first file, from [`prepare`].
    pub first_segment: u32,
}

/// One source and its track.
#[derive(Clone, Debug)]
pub struct TrackSettings {
    /// Which source, counted from 0 in the session's order.
    pub source: usize,
    /// The source's id.
    pub source_id: String,
    /// What a person calls it.
    pub name: String,
    /// How its packets are encoded; `None` while nothing has come of it: then it has no track.
    pub codec: Option<Codec>,
}

/// Makes the session's directory, or finds it there: empty, or with the files of an earlier worker. A
/// test of whether anything can be recorded. Returns the number of the first file.
///
/// # Errors
/// It can't be made, or holds files already and the session isn't resumed.
pub fn prepare(settings: &RecorderSettings) -> Result<u32, RecordError> {
    let RecorderSettings { host, dir, .. } = settings;
    let failed = |error| RecordError::io("create", dir, error);
    make_dir(settings).map_err(failed)?;
    let entries = host.entries(dir).map_err(|error| RecordError::io("read", dir, error))?;
    if !settings.resumed && !entries.is_empty() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    // What an earlier worker said of its end is not this one's.
    match host.remove(&dir.join(LAST_ACCOUNT_NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    Ok(entries.iter().filter_map(|entry| segment_number(&entry.path)).max().unwrap_or(0) + 1)
}

/// Makes the session's directory, durably, unless it is there.
pub(super) fn make_dir(settings: &RecorderSettings) -> io::Result<()> {
    let RecorderSettings { host, dir, .. } = settings;
    host.make_dir(dir, settings.dir_mode, settings.group)?;
    dir.parent().map_or(Ok(()), |parent| host.sync_dir(parent))
}

/// Makes file `number` with its header; `zero` is its time zero.
pub(super) fn create(
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
        tracks: tracks.iter().filter_map(mkv_track).collect(),
        tags: vec![
            segment_tag("SESSION_ID", settings.session.clone()),
            segment_tag("SESSION_NAME", settings.name.clone()),
            segment_tag("DATE_RECORDED", wall.to_string()),
        ],
    };
    Segment::create(path, &header, settings, ledger, bytes_before)
}

fn mkv_track(track: &TrackSettings) -> Option<Track> {
    Some(Track {
        number: track_number(track.source),
        uid: NonZeroU64::new(u64::from_le_bytes(random())).unwrap_or(NonZeroU64::MIN),
        name: track.name.clone(),
        source_id: track.source_id.clone(),
        codec: track.codec.clone()?,
    })
}

/// The source whose packets a track holds.
pub(super) fn source_of(track: TrackNumber) -> usize {
    usize::from(track.get()) - 1
}

/// The track of a source.
pub(super) fn track_number(source: usize) -> TrackNumber {
    let number = u8::try_from(source + 1).ok().and_then(TrackNumber::new);
    number.expect("a session has far fewer sources than a file can have tracks")
}

/// Gaps that a file's tags list for each track; the receipt lists more.
const TAGGED_GAPS_MAX: usize = 200;

/// A tag per track that lists its gaps, as JSON.
pub(super) fn gap_tags(ledger: &Ledger) -> Vec<Tag> {
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
