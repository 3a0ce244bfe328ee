//! Repairs what a dead worker left: each file of a session is cut behind its last whole packet,
//! finished, synced and counted. Repairing what is whole changes nothing.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use thiserror::Error;

use super::files::hash_of;
use super::host::{FileReader, Host, HostFile};
use super::segment_number;
use super::system::SystemHost;
use super::units::units;
use crate::clock::WallTime;
use crate::link::{RepairedFile, RepairedTrack};
use crate::matroska::{self, Codec, Next, Reader, RepairPlan, SOURCE_ID, Tag, TagTarget, Tally, TrackNumber};
use crate::session::MediaFile;
use crate::session::device::MediaType;

/// Name of the tag that a repaired file gets.
const REPAIRED: &str = "REPAIRED";
/// Bytes that are written anew at once.
const REWRITE_BYTES: usize = 1 << 20;

/// A file can't be repaired; it is left as it is.
#[derive(Debug, Error)]
pub enum RepairError {
    /// It can't be read or written.
    #[error("cannot repair {}: check the disk", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A worker or another repair has it.
    #[error("{} is being written: stop its session first", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// It is no file that could hold a recording.
    #[error("{} is a link or no file: name the recording itself", path.display())]
    NoFile {
        /// What was named.
        path: PathBuf,
    },
    /// It holds nothing that can be kept.
    #[error("cannot repair {}", path.display())]
    Media {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: matroska::Error,
    },
}

impl RepairError {
    fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Media { source: matroska::Error::Read { .. }, .. })
    }
}

/// Repairs every segment of the session that has `dir`, in the order of their numbers; of those below `before` only, since the
/// session goes on with that one. A file without any media is removed; one of `known`, which was finished, is
/// only counted.
///
/// # Errors
/// The directory can't be read. What can't be repaired is told beside the files that could.
pub fn repair_dir(
    dir: &Path,
    known: &[MediaFile],
    before: Option<u32>,
) -> Result<(Vec<RepairedFile>, Vec<RepairError>), RepairError> {
    repair_dir_on(&SystemHost, dir, known, before)
}

/// As [`repair_dir`], on any host.
///
/// # Errors
/// As [`repair_dir`].
pub fn repair_dir_on(
    host: &dyn Host,
    dir: &Path,
    known: &[MediaFile],
    before: Option<u32>,
) -> Result<(Vec<RepairedFile>, Vec<RepairError>), RepairError> {
    let io = |source| RepairError::Io { path: dir.to_owned(), source };
    let mut paths = match recordings_on(host, dir) {
        Ok(paths) => paths,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
        Err(error) => return Err(io(error)),
    };
    // What others have put there is not ours to mend, to count or to remove.
    let own = dir.file_name().map(|name| format!("{}-", name.to_string_lossy())).unwrap_or_default();
    let is_own =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&own));
    paths.retain(|path| segment_number(path).is_some() && is_own(path));
    let written_on = |path: &PathBuf| before.is_some_and(|before| segment_number(path) >= Some(before));
    paths.retain(|path| !written_on(path));
    let (mut repaired, mut failed) = (Vec::new(), Vec::new());
    for path in paths {
        match repair_file(host, &path, known) {
            Ok(file) if !file.is_empty() => repaired.push(file),
            // Players find no media in it, and complain.
            Ok(_) | Err(RepairError::Media { source: matroska::Error::HeaderIncomplete { .. }, .. }) => {
                host.remove(&path).map_err(io)?;
            }
            Err(error) => failed.push(error),
        }
    }
    host.sync_dir(dir).map_err(io)?;
    Ok((repaired, failed))
}

/// The recordings in `dir`, in the order of their numbers. Links are none.
///
/// # Errors
/// The directory can't be read.
pub fn recordings(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    recordings_on(&SystemHost, dir)
}

fn recordings_on(host: &dyn Host, dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let is_recording = |path: &Path| path.extension().is_some_and(|extension| extension == "mkv");
    let entries = host.entries(dir)?.into_iter();
    let files = entries.filter(|entry| entry.is_file && is_recording(&entry.path));
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.path).collect();
    paths.sort_by_cached_key(|path| (segment_number(path), path.clone()));
    Ok(paths)
}

/// Repairs a file. After an error of the disk nobody knows which of its bytes the disk has: each is written anew,
/// as it is read, and the repair begins again.
pub(super) fn repair_file(
    host: &dyn Host,
    path: &Path,
    known: &[MediaFile],
) -> Result<RepairedFile, RepairError> {
    let repaired = repair_once(host, path, known);
    if !repaired.as_ref().is_err_and(RepairError::is_of_the_disk) {
        return repaired;
    }
    tracing::warn!(path = %path.display(), "a repair met an error of the disk, and begins again");
    write_anew(host, path).map_err(|source| RepairError::Io { path: path.to_owned(), source })?;
    repair_once(host, path, known)
}

fn write_anew(host: &dyn Host, path: &Path) -> std::io::Result<()> {
    let file = host.open(path)?;
    let (mut bytes, mut at) = (vec![0; REWRITE_BYTES], 0);
    loop {
        let count = file.read_at(&mut bytes, at)?;
        if count == 0 {
            return Ok(());
        }
        file.write_at(&bytes[..count], at)?;
        at += count as u64;
    }
}

fn repair_once(host: &dyn Host, path: &Path, known: &[MediaFile]) -> Result<RepairedFile, RepairError> {
    let io = |source| RepairError::Io { path: path.to_owned(), source };
    let media = |source| RepairError::Media { path: path.to_owned(), source };
    let file = host.open(path).map_err(io)?;
    let file = &*file;
    // Somebody may be repairing it by hand.
    if let Err(error) = file.lock(FlockOperation::LockExclusive) {
        tracing::warn!(path = %path.display(), %error, "the file can't be locked");
    }
    let bytes = file.length().map_err(io)?;
    let same = |known: &&MediaFile| known.bytes == bytes && Path::new(&known.path) == path;
    if let Some(known) = known.iter().find(same) {
        let mut reader = Reader::open(BufReader::new(FileReader::new(file))).map_err(media)?;
        let (units, ends, tracks) = count(&mut reader).map_err(media)?;
        return Ok(RepairedFile { file: known.clone(), units, cut_bytes: 0, ends, tracks });
    }
    let mark = repaired_mark();
    let plan = matroska::repair(BufReader::new(FileReader::new(file)), std::slice::from_ref(&mark))
        .map_err(media)?;
    if plan.blocks() == 0 && !plan.is_empty() && plan.damaged_bytes == 0 && plan.damaged_at.is_none() {
        // Finished, it would be a file that players find no media in.
        return Err(media(matroska::Error::HeaderIncomplete { at: plan.file_bytes }));
    }
    apply(file, &plan).map_err(io)?;
    let mut reader = Reader::open(BufReader::new(FileReader::new(file))).map_err(media)?;
    let (units, ends, tracks) = count(&mut reader).map_err(media)?;
    let file = MediaFile {
        path: path.display().to_string(),
        bytes: plan.file_bytes,
        blake3: hash_of(file).map_err(io)?.to_hex().to_string(),
        duration_seconds: media_seconds(&plan),
        // A repair that nobody heard of is told by the file.
        repaired: !plan.is_empty() || reader.tags().contains(&mark),
    };
    Ok(RepairedFile { file, units, cut_bytes: plan.cut_bytes, ends, tracks })
}

/// The tag that a repaired file gets.
pub(super) fn repaired_mark() -> Tag {
    Tag { target: TagTarget::Segment, name: REPAIRED.to_owned(), value: "true".to_owned() }
}

/// Seconds from the first frame to the end of the last.
pub(super) fn media_seconds(plan: &RepairPlan) -> f64 {
    let first = plan.tallies.iter().filter_map(|tally| tally.first).min().unwrap_or_default();
    let length_ns = plan.duration_ns.saturating_sub(u64::try_from(first.ns()).unwrap_or(0));
    Duration::from_nanos(length_ns).as_secs_f64()
}

/// Cut, append, sync, then patch, and sync: stopped anywhere, the next repair comes to the same end.
pub(super) fn apply(file: &dyn HostFile, plan: &RepairPlan) -> std::io::Result<()> {
    // Cutting to the length that the file has gives room back that was reserved behind its end.
    let length = plan.truncate_to.map_or_else(|| file.length(), Ok)?;
    file.set_length(length)?;
    file.write_at(&plan.tail, length)?;
    file.sync_data()?;
    plan.patches.iter().try_for_each(|patch| file.write_at(&patch.bytes, patch.offset))?;
    file.sync_all()
}

/// By the id of the source.
type BySource<T> = Vec<(String, T)>;

/// What is found out of each track: what it holds, when its last packet is over, and what it says of itself.
type Counted = (BySource<u64>, BySource<WallTime>, Vec<RepairedTrack>);

/// Counts what each track holds, and looks when its last packet is over.
fn count(reader: &mut Reader<BufReader<FileReader<'_>>>) -> Result<Counted, matroska::Error> {
    let tracks: Vec<(TrackNumber, Codec)> =
        reader.tracks().iter().map(|track| (track.number, track.codec.clone())).collect();
    let mut counts = vec![0u64; tracks.len()];
    let mut tallies: Vec<Tally> = reader.tracks().iter().map(Tally::new).collect();
    let mut payload = Vec::new();
    while let Next::Block(block) = reader.next_block()? {
        let Some(at) = tracks.iter().position(|(number, _)| *number == block.track) else { continue };
        tallies[at].add(block.timestamp, block.payload_bytes);
        let codec = &tracks[at].1;
        if matches!(codec, Codec::Flac { .. }) {
            reader.payload(&block, &mut payload)?;
        }
        counts[at] += units(codec, block.payload_bytes, &payload);
    }
    let source_of = |number| {
        let own = |tag: &&matroska::Tag| tag.target == TagTarget::Track(number) && tag.name == SOURCE_ID;
        reader.tags().iter().find(own).map(|tag| tag.value.clone()).unwrap_or_default()
    };
    let zero = reader.info().wall_start.map(|zero| WallTime::from_nanos(i128::from(zero.unix_ns())));
    let ends = tallies
        .iter()
        .filter(|tally| tally.blocks > 0)
        .filter_map(|tally| Some((source_of(tally.track), zero? + Duration::from_nanos(tally.end_ns()))));
    let ends = ends.collect();
    let first = |tally: &Tally| {
        let since = u64::try_from(tally.first?.ns()).ok()?;
        Some(zero? + Duration::from_nanos(since))
    };
    let described = reader.tracks().iter().zip(&tallies).map(|(track, tally)| RepairedTrack {
        source: source_of(track.number),
        name: track.name.clone(),
        media: media_of(&track.codec),
        first: first(tally),
    });
    let silent = reader.silent_tracks().iter().map(|track| RepairedTrack {
        source: track.source_id.clone(),
        name: track.name.clone(),
        media: media_of(&track.codec),
        first: None,
    });
    let described = described.chain(silent).collect();
    let units = tracks.iter().zip(counts).map(|((number, _), count)| (source_of(*number), count)).collect();
    Ok((units, ends, described))
}

fn media_of(codec: &Codec) -> MediaType {
    if codec.is_video() { MediaType::Video } else { MediaType::Audio }
}
