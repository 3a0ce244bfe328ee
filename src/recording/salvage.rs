//! Files that were given up are made whole beside the recording, which goes on in another file.
//! Must never hold up the recording, nor lose a file whose name is gone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::RecordError;
use super::begin::{RecorderSettings, TrackSettings, make_dir};
use super::files::set_owner;
use super::ledger::Ledger;
use super::repair::{RepairError, repair_file};
use crate::link::RepairedFile;
use crate::matroska::{self, Patch};
use crate::telemetry::chain;

/// The whole file; `None` where it held no media.
type Outcome = Result<Option<RepairedFile>, RepairError>;

/// A file that is given up, and what is durable in it.
#[derive(Clone, Debug)]
pub(super) struct Torn {
    pub(super) path: PathBuf,
    pub(super) durable_bytes: u64,
    /// Units that are durable in it, by source.
    pub(super) durable_units: BTreeMap<usize, u64>,
    /// What takes out what was captured after the stop: it is written again, since a failed sync may have
    /// dropped it.
    pub(super) patches: Vec<Patch>,
    /// The file, where its name is gone: what it holds is kept by this alone.
    pub(super) nameless: Option<Arc<File>>,
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
    thread: io::Result<JoinHandle<Outcome>>,
}

impl Salvages {
    pub(super) fn new(settings: RecorderSettings, tracks: &[TrackSettings], ledger: Arc<Ledger>) -> Self {
        let source_ids = tracks.iter().map(|track| (track.source, track.source_id.clone())).collect();
        Self { settings, source_ids, ledger, running: Vec::new(), torn: Vec::new() }
    }

    /// Begins to make a file whole.
    pub(super) fn begin(&mut self, torn: Torn) {
        let thread = std::thread::Builder::new().name("salvage".to_owned()).spawn({
            let (torn, settings) = (torn.clone(), self.settings.clone());
            move || torn.make_whole(&settings)
        });
        self.running.push(Salvage { torn, thread });
    }

    /// Takes what is whole by now into the ledger.
    pub(super) fn look(&mut self) {
        self.collect(JoinHandle::is_finished);
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

    fn collect(&mut self, is_wanted: impl Fn(&JoinHandle<Outcome>) -> bool) {
        for Salvage { torn, thread } in std::mem::take(&mut self.running) {
            let file = match thread {
                Ok(thread) if !is_wanted(&thread) => {
                    self.running.push(Salvage { torn, thread: Ok(thread) });
                    continue;
                }
                Ok(thread) => thread.join().expect("a repair doesn't panic"),
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
        let Self { path, durable_bytes, .. } = self;
        let io = |source| RepairError::Io { path: path.clone(), source };
        if let Some(nameless) = &self.nameless {
            self.name_again(nameless, settings).map_err(io)?;
        } else {
            // Also when that has failed before.
            let opened = OpenOptions::new().write(true).open(path);
            opened.and_then(|file| file.set_len(*durable_bytes)).map_err(io)?;
        }
        if !self.patches.is_empty() {
            let opened = OpenOptions::new().write(true).open(path);
            let write = |file: File| {
                self.patches.iter().try_for_each(|patch| file.write_all_at(&patch.bytes, patch.offset))
            };
            opened.and_then(write).map_err(io)?;
        }
        match repair_file(path, &[]) {
            Ok(repaired) if !repaired.is_empty() => Ok(Some(repaired)),
            Ok(_) | Err(RepairError::Media { source: matroska::Error::HeaderIncomplete { .. }, .. }) => {
                std::fs::remove_file(path).map(|()| None).map_err(io)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a file that somebody has removed its name again, by copying what it holds.
    fn name_again(&self, nameless: &File, settings: &RecorderSettings) -> io::Result<()> {
        make_dir(settings)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(settings.file_mode);
        let mut file = options.open(&self.path)?;
        let copied = set_owner(&file, settings.file_mode, settings.group).and_then(|()| {
            let mut source = nameless;
            source.rewind()?;
            io::copy(&mut source.take(self.durable_bytes), &mut file)?;
            file.sync_all()?;
            File::open(&settings.dir)?.sync_all()
        });
        copied.inspect_err(|_| {
            // The error that is told says more than a second one.
            let _ = std::fs::remove_file(&self.path);
        })
    }
}
