//! Files that were given up are made whole beside the recording, which goes on in another file.
//! Must never hold up the recording, nor lose a file whose name is gone.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::RecordError;
use super::begin::{RecorderSettings, TrackSettings, make_dir};
use super::files::write_all;
use super::host::{HostFile, Task};
use super::ledger::Ledger;
use super::repair::{RepairError, repair_file};
use crate::link::RepairedFile;
use crate::matroska::{self, Patch};
use crate::telemetry::chain;

/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// The whole file; `None` where it held no media.
type Outcome = Result<Option<RepairedFile>, RepairError>;

/// A file that is given up, and what is durable in it.
#[derive(Clone, Debug)]
pub(super) struct Torn {
    pub(super) path: PathBuf,
    pub(super) durable_bytes: u64,
    /// Units that are durable in it, by source.
    pub(super) durable_units: BTreeMap<usize, u64>,
    /// Patches below that, sizes and what takes out what came after the stop. A failed sync may have left them in
    /// the kernel's memory alone, as if they were on the disk: they are written again.
    pub(super) patches: Vec<Patch>,
    /// The file, where its name is gone: what it holds is kept by this alone.
    pub(super) nameless: Option<Arc<dyn HostFile>>,
}

/// The files of a recording that were given up.
pub(super) struct Salvages {
    settings: RecorderSettings,
    source_ids: BTreeMap<usize, String>,
    ledger: Arc<Ledger>,
    running: Vec<Salvage>,
    /// What could not be made whole yet.
    torn: Vec<Torn>,
}

/// A file that is being made whole.
struct Salvage {
    torn: Torn,
    thread: io::Result<Box<dyn Task>>,
    outcome: Receiver<Outcome>,
}

impl Salvages {
    pub(super) fn new(settings: RecorderSettings, tracks: &[TrackSettings], ledger: Arc<Ledger>) -> Self {
        let source_ids = tracks.iter().map(|track| (track.source, track.source_id.clone())).collect();
        Self { settings, source_ids, ledger, running: Vec::new(), torn: Vec::new() }
    }

    /// Begins to make a file whole.
    pub(super) fn begin(&mut self, torn: Torn) {
        let (tell, outcome) = sync_channel(1);
        let body = {
            let (torn, settings) = (torn.clone(), self.settings.clone());
            // Who doesn't wait for the outcome doesn't want it.
            move || drop(tell.send(torn.make_whole(&settings)))
        };
        let thread = self.settings.host.spawn("salvage", Box::new(body));
        self.running.push(Salvage { torn, thread, outcome });
    }

    /// Takes what is whole by now into the ledger.
    pub(super) fn look(&mut self) {
        self.collect(|thread| thread.is_finished());
    }

    /// Waits until every file is whole; what couldn't be mended before is tried once more.
    ///
    /// # Errors
    /// A file stays torn; what is durable in it still is.
    pub(super) fn end(mut self) -> Result<(), RecordError> {
        self.collect(|_| true);
        for torn in std::mem::take(&mut self.torn) {
            self.begin(torn);
        }
        self.collect(|_| true);
        self.torn.first().map_or(Ok(()), |torn| {
            Err(RecordError::io("finish", &torn.path, io::Error::other("its repair failed twice")))
        })
    }

    fn collect(&mut self, is_wanted: impl Fn(&dyn Task) -> bool) {
        for Salvage { torn, thread, outcome } in std::mem::take(&mut self.running) {
            let file = match thread {
                Ok(thread) if !is_wanted(&*thread) => {
                    self.running.push(Salvage { torn, thread: Ok(thread), outcome });
                    continue;
                }
                Ok(thread) => {
                    thread.join().expect("a repair doesn't panic");
                    outcome.recv().expect("a repair tells its outcome")
                }
                Err(source) => Err(RepairError::Io { path: torn.path.clone(), source }),
            };
            match file {
                Ok(whole) => self.keep(&torn, whole),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "a file is torn");
                    self.torn.push(torn);
                }
            }
        }
    }

    fn keep(&self, torn: &Torn, whole: Option<RepairedFile>) {
        for (source, durable) in &torn.durable_units {
            let id = &self.source_ids[source];
            let found = whole.iter().flat_map(|whole| &whole.units).find(|(of, _)| of == id);
            let units = durable.saturating_sub(found.map_or(0, |(_, units)| *units));
            if units > 0 {
                self.ledger.withdraw(*source, units);
                let path = torn.path.display();
                self.ledger.warn(format!("{path} holds less than the disk has promised"));
            }
        }
        if let Some(whole) = whole {
            self.ledger.file(whole.file);
        }
    }
}

impl Torn {
    /// A file without any media is removed.
    fn make_whole(&self, settings: &RecorderSettings) -> Outcome {
        let io = |source| RepairError::Io { path: self.path.clone(), source };
        let Some(nameless) = &self.nameless else { return self.repair(settings) };
        self.name_again(&**nameless, settings).map_err(io)?;
        self.repair(settings).inspect_err(|_| {
            // The next try copies it anew.
            let _ = settings.host.remove(&self.path);
        })
    }

    fn repair(&self, settings: &RecorderSettings) -> Outcome {
        let (host, path) = (&settings.host, &self.path);
        let io = |source| RepairError::Io { path: path.clone(), source };
        host.open(path).and_then(|file| self.cut(&*file)).map_err(io)?;
        match repair_file(&**host, path, &[]) {
            Ok(repaired) if !repaired.is_empty() => Ok(Some(repaired)),
            Ok(_) | Err(RepairError::Media { source: matroska::Error::HeaderIncomplete { .. }, .. }) => {
                host.remove(path).map(|()| None).map_err(io)
            }
            Err(error) => Err(error),
        }
    }

    /// Cuts the file behind what is durable, also when that has failed before, and writes anew what may not be.
    fn cut(&self, file: &dyn HostFile) -> io::Result<()> {
        file.set_length(self.durable_bytes)?;
        self.patches.iter().try_for_each(|patch| file.write_at(&patch.bytes, patch.offset))
    }

    /// Gives a file that somebody has removed its name again, by copying what it holds.
    fn name_again(&self, nameless: &dyn HostFile, settings: &RecorderSettings) -> io::Result<()> {
        make_dir(settings)?;
        let host = &settings.host;
        let file = host.create(&self.path, settings.file_mode)?;
        let copied = file.set_owner(settings.file_mode, settings.group).and_then(|()| {
            copy(nameless, &*file, self.durable_bytes)?;
            file.sync_all()?;
            host.sync_dir(&settings.dir)
        });
        copied.inspect_err(|_| {
            // The error that is told says more than a second one.
            let _ = host.remove(&self.path);
        })
    }
}

/// Appends the first `length` bytes of `from`.
fn copy(from: &dyn HostFile, to: &dyn HostFile, length: u64) -> io::Result<()> {
    let (mut piece, mut at) = (vec![0; COPY_BYTES], 0);
    while at < length {
        let wanted = usize::try_from(length - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        let count = from.read_at(&mut piece[..wanted], at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all(to, &piece[..count], &[])?;
        at += count as u64;
    }
    Ok(())
}
