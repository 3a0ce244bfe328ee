//! One file: made, appended to, finished. Room for its end is reserved from the start, so that a full
//! disk can't keep a file from being finished.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::RecordError;
use super::begin::RecorderSettings;
use super::files::{hash_of, sync_parent, write_all};
use super::hash::FileHash;
use super::host::{FileReader, Host, HostFile};
use super::ledger::Ledger;
use super::sync::{Syncer, Undone};
use super::units;
use crate::matroska::{self, Finish, Header, Patch, Tag, Writer};
use crate::media::Packet;
use crate::session::MediaFile;

/// Bytes that stay reserved behind the file's end, for what finishing it appends.
const RESERVE_BYTES: u64 = 1024 * 1024;
/// Bytes that are reserved at once.
const RESERVE_STEP_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of a cluster's size field and checksum, and how far they lie behind the cluster's beginning.
const CLUSTER_END_BYTES: u64 = 14;
const CLUSTER_END_AT: u64 = 4;

/// A file that is being written.
pub(super) struct Segment {
    host: Arc<dyn Host>,
    path: PathBuf,
    file: Arc<dyn HostFile>,
    writer: Writer,
    hash: FileHash,
    syncer: Syncer,
    /// Bytes up to which the disk has promised room; `None` where the file system can't.
    reserved: Option<u64>,
    media: Option<(matroska::Timestamp, matroska::Timestamp)>,
    /// A write has failed half way: the file's end is not what the writer thinks.
    torn: bool,
    /// What has taken blocks out: the hash that was built is not the file's then.
    cut: Vec<Patch>,
}

/// A file that can't be gone on with, cut behind what is durable of it.
pub(super) struct Abandoned {
    /// Why.
    pub(super) error: RecordError,
    pub(super) path: PathBuf,
    /// What is durable of it, and what isn't.
    pub(super) undone: Undone,
    /// What was written over others of its bytes and may not be durable.
    pub(super) patches: Vec<Patch>,
    /// The file, where its name is gone: what it holds is kept by this alone.
    pub(super) nameless: Option<Arc<dyn HostFile>>,
}

/// What was taken out of a file, and where it ends now.
pub(super) struct CutAway {
    /// Units of each packet that was taken out.
    pub(super) removed: Vec<(matroska::TrackNumber, u64)>,
    /// For each track that still holds something, the last packet's time and end since the file's zero.
    pub(super) last: Vec<(matroska::TrackNumber, Duration, Duration)>,
}

impl Segment {
    /// Makes the file `path` and writes its header.
    pub(super) fn create(
        path: PathBuf,
        header: &Header,
        settings: &RecorderSettings,
        ledger: &Arc<Ledger>,
        bytes_before: u64,
    ) -> Result<Self, RecordError> {
        let failed = |doing| {
            let path = path.clone();
            move |error| RecordError::io(doing, &path, error)
        };
        let file = settings.host.create(&path, settings.file_mode).map_err(failed("create"))?;
        Self::begin(file, path.clone(), header, settings, ledger, bytes_before).inspect_err(|_| {
            // What is left of it is no recording; the error that is told says more than a second one.
            let _ = settings.host.remove(&path);
        })
    }

    fn begin(
        file: Arc<dyn HostFile>,
        path: PathBuf,
        header: &Header,
        settings: &RecorderSettings,
        ledger: &Arc<Ledger>,
        bytes_before: u64,
    ) -> Result<Self, RecordError> {
        let failed = |doing| {
            let path = path.clone();
            move |error| RecordError::io(doing, &path, error)
        };
        file.set_owner(settings.file_mode, settings.group).map_err(failed("set the owner of"))?;
        // Whoever would repair or remove the file sees that it is being written, for as long as this process
        // has it open.
        if let Err(error) = file.lock(FlockOperation::NonBlockingLockExclusive) {
            tracing::warn!(path = %path.display(), %error, "the file can't be locked");
        }
        let (writer, bytes) =
            Writer::new(header).map_err(|source| RecordError::Media { path: path.clone(), source })?;
        let host = Arc::clone(&settings.host);
        let syncer = Syncer::start(settings, Arc::clone(&file), Arc::clone(ledger), bytes_before)
            .map_err(failed("start syncing"))?;
        let (hash, reserved, media) = (FileHash::new(bytes.len() as u64), Some(0), None);
        let (torn, cut) = (false, Vec::new());
        let mut segment = Self { host, path, file, writer, hash, syncer, reserved, media, torn, cut };
        segment.reserve(bytes.len() as u64 + RESERVE_BYTES)?;
        segment.append(&bytes, &[])?;
        segment.syncer.appended(bytes.len() as u64, None);
        sync_parent(&*segment.host, &segment.path)?;
        Ok(segment)
    }

    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a sync has made packets of it durable.
    pub(super) fn has_durable_packets(&self) -> bool {
        self.syncer.has_durable_packets()
    }

    /// Whether it holds no packet.
    pub(super) fn is_empty(&self) -> bool {
        self.media.is_none()
    }

    /// Removes a file that holds no packet, and tells what of those that were taken out was not durable.
    pub(super) fn remove(self) -> Undone {
        if let Err(error) = self.host.remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "an empty file can't be removed");
        }
        self.syncer.abandon()
    }

    /// Whether the file is not to be found at its path any more.
    pub(super) fn is_nameless(&self) -> bool {
        is_nameless(&*self.host, &self.path, &*self.file)
    }

    /// The file's length.
    pub(super) fn bytes(&self) -> u64 {
        self.writer.file_bytes()
    }

    /// Bytes of packets that are kept in memory because they aren't durable.
    pub(super) fn held_bytes(&self) -> usize {
        self.syncer.held_bytes()
    }

    /// The error that a sync ended with.
    pub(super) fn sync_error(&self) -> Option<RecordError> {
        self.syncer.take_error().map(|error| RecordError::io("sync", &self.path, error))
    }

    /// Appends one packet; `timestamp` and `end` are relative to the file's beginning. A packet that it can't
    /// append is given back.
    pub(super) fn write(
        &mut self,
        track: matroska::TrackNumber,
        timestamp: matroska::Timestamp,
        end: matroska::Timestamp,
        packet: Packet,
    ) -> Result<(), Box<(RecordError, Packet)>> {
        if let Err(error) = self.append_packet(track, timestamp, &packet) {
            return Err(Box::new((error, packet)));
        }
        let (first, last) = self.media.unwrap_or((timestamp, end));
        self.media = Some((first.min(timestamp), last.max(end)));
        self.syncer.appended(self.writer.file_bytes(), Some(packet));
        Ok(())
    }

    fn append_packet(
        &mut self,
        track: matroska::TrackNumber,
        timestamp: matroska::Timestamp,
        packet: &Packet,
    ) -> Result<(), RecordError> {
        let (payload_bytes, payload_crc32) = (packet.payload.len() as u64, crc32fast::hash(&packet.payload));
        self.reserve(self.writer.file_bytes() + payload_bytes + RESERVE_BYTES)?;
        let prefix = self
            .writer
            .packet(matroska::Packet { track, timestamp, keyframe: true, payload_bytes, payload_crc32 })
            .map_err(|source| RecordError::Media { path: self.path.clone(), source })?;
        if let Some(patch) = prefix.closed {
            self.patch(patch);
        }
        if let Some(cluster) = prefix.opened {
            self.hash.expect_patch(cluster + CLUSTER_END_AT, CLUSTER_END_BYTES);
        }
        self.append(&prefix.bytes, &packet.payload)
    }

    /// Takes out what is stamped later than `last`: it is gone from the disk once the file is finished.
    pub(super) fn cut_after(&mut self, last: matroska::Timestamp) -> Result<CutAway, RecordError> {
        let failed = |error| RecordError::io("cut", &self.path, error);
        let cut = matroska::cut_after(BufReader::new(FileReader::new(&*self.file)), last)
            .map_err(|source| RecordError::Media { path: self.path.clone(), source })?;
        let mut removed = Vec::new();
        for block in &cut.removed {
            let Some(codec) = self.writer.codec(block.track) else { continue };
            let mut head = [0; units::HEAD_BYTES];
            let length = head.len().min(usize::try_from(block.payload_bytes).unwrap_or(head.len()));
            FileReader::at(&*self.file, block.offset).read_exact(&mut head[..length]).map_err(failed)?;
            removed.push((block.track, units::units(codec, block.payload_bytes, &head[..length])));
        }
        let write = |patch: &Patch| self.file.write_at(&patch.bytes, patch.offset);
        if let Err(error) = cut.patches.iter().try_for_each(write) {
            tracing::warn!(path = %self.path.display(), %error, "what came after the stop can't be taken out yet");
            // It is tried again when the file is made whole.
            self.torn = true;
        }
        // What they write over may still have to be written itself.
        cut.unsealed.iter().for_each(|patch| self.syncer.patch(patch.clone()));
        let first = cut.kept.iter().filter_map(|tally| tally.first).min();
        let end = cut.kept.iter().map(matroska::Tally::end_ns).max().unwrap_or(0);
        let end = matroska::Timestamp::from_ns(i64::try_from(end).unwrap_or(i64::MAX));
        self.media = first.map(|first| (first, end));
        self.cut = cut.patches.into_iter().chain(cut.unsealed).collect();
        let after = |at: matroska::Timestamp| Duration::from_nanos(u64::try_from(at.ns()).unwrap_or(0));
        let last = |tally: &matroska::Tally| {
            Some((tally.track, after(tally.last?), Duration::from_nanos(tally.end_ns())))
        };
        let last = cut.kept.iter().filter_map(last).collect();
        self.writer.cut(cut.kept);
        Ok(CutAway { removed, last })
    }

    /// Finishes the file: its end, its patches, everything durable, the directory too. A file that can't be
    /// finished is given up.
    pub(super) fn finish(self, tags: &[Tag]) -> Result<MediaFile, Box<Abandoned>> {
        let Self { host, path, file, writer, hash, mut syncer, media, torn, cut, .. } = self;
        let (first, last) = media.unwrap_or((matroska::Timestamp::ZERO, matroska::Timestamp::ZERO));
        let duration = Duration::from_nanos(u64::try_from(last.ns()).unwrap_or(0));
        let finish = writer.finish(Some(duration), tags);
        let finished = finish
            .map_err(|source| RecordError::Media { path: path.clone(), source })
            .and_then(|finish| write_end(&*host, &path, &*file, &mut syncer, hash, finish, torn))
            .and_then(|(bytes, hash)| {
                let read = |error| RecordError::io("read", &path, error);
                Ok((bytes, if cut.is_empty() { hash } else { hash_of(&*file).map_err(read)? }))
            });
        match finished {
            Ok((bytes, hash)) => Ok(MediaFile {
                path: path.display().to_string(),
                bytes,
                blake3: hash.to_hex().to_string(),
                duration_seconds: Duration::from_nanos(u64::try_from(last.ns() - first.ns()).unwrap_or(0))
                    .as_secs_f64(),
                repaired: false,
            }),
            Err(error) => Err(Box::new(abandon(error, &*host, path, file, syncer, cut))),
        }
    }

    /// Gives the file up: what is durable of it stays, what isn't is handed back.
    pub(super) fn abandon(self, error: RecordError) -> Abandoned {
        abandon(error, &*self.host, self.path, self.file, self.syncer, self.cut)
    }

    fn patch(&mut self, patch: Patch) {
        self.hash.patch(patch.offset, &patch.bytes);
        self.syncer.patch(patch);
    }

    fn append(&mut self, first: &[u8], second: &[u8]) -> Result<(), RecordError> {
        self.hash.append(first);
        self.hash.append(second);
        write_all(&*self.file, first, second).map_err(|error| {
            self.torn = true;
            RecordError::io("write", &self.path, error)
        })
    }

    /// Makes sure that the disk has room up to `until`.
    fn reserve(&mut self, until: u64) -> Result<(), RecordError> {
        let Some(reserved) = self.reserved.filter(|reserved| *reserved < until) else {
            return Ok(());
        };
        let needed = until - reserved;
        let promise = |length| self.file.reserve(reserved, length).map(|()| length);
        // A disk that is nearly full is used up to its end.
        let promised = promise(needed.max(RESERVE_STEP_BYTES)).or_else(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => promise(needed),
            _ => Err(error),
        });
        match promised {
            Ok(length) => self.reserved = Some(reserved + length),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.reserved = None,
            Err(error) => return Err(RecordError::io("reserve room for", &self.path, error)),
        }
        Ok(())
    }
}

fn abandon(
    error: RecordError,
    host: &dyn Host,
    path: PathBuf,
    file: Arc<dyn HostFile>,
    syncer: Syncer,
    patches: Vec<Patch>,
) -> Abandoned {
    let mut undone = syncer.abandon();
    // What takes something out comes last: it takes the checksum of its cluster away.
    let mut patches = [std::mem::take(&mut undone.patches), patches].concat();
    let durable_bytes = undone.durable_bytes;
    // What lies behind is written elsewhere, and must not be found here too.
    if let Err(error) = file.set_length(durable_bytes) {
        tracing::warn!(path = %path.display(), %error, "a file that is given up can't be cut");
    }
    // A cluster that isn't whole any more is closed anew.
    patches.retain(|patch| patch.offset < durable_bytes && patch.after <= durable_bytes);
    let nameless = is_nameless(host, &path, &*file).then_some(file);
    Abandoned { error, path, undone, patches, nameless }
}

/// Whether a file is not to be found at `path` any more: somebody has removed it, or moved it away.
fn is_nameless(host: &dyn Host, path: &Path, file: &dyn HostFile) -> bool {
    match (host.identity(path), file.identity()) {
        (Ok(named), Ok(own)) => named != own,
        (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
        (Ok(_), Err(_)) => false,
    }
}

/// Writes what comes last, and makes it all durable: the file's length, and the hash that was built.
fn write_end(
    host: &dyn Host,
    path: &Path,
    file: &dyn HostFile,
    syncer: &mut Syncer,
    mut hash: FileHash,
    finish: Finish,
    torn: bool,
) -> Result<(u64, blake3::Hash), RecordError> {
    let failed = |doing| move |error| RecordError::io(doing, path, error);
    if torn {
        return Err(failed("finish")(io::Error::other("a write to it has failed before")));
    }
    write_all(file, &finish.tail, &[]).map_err(failed("write the end of"))?;
    hash.append(&finish.tail);
    syncer.appended(finish.file_bytes, None);
    for patch in finish.patches {
        hash.patch(patch.offset, &patch.bytes);
        syncer.patch(patch);
    }
    file.set_length(finish.file_bytes).map_err(failed("trim"))?;
    syncer.finish().map_err(failed("sync"))?;
    if is_nameless(host, path, file) {
        return Err(failed("keep")(gone()));
    }
    sync_parent(host, path)?;
    Ok((finish.file_bytes, hash.finish()))
}

/// Why a file that can't be found at its path can't be gone on with.
pub(super) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "somebody has removed it, or moved it away")
}
