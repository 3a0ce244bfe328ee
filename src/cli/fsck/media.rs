//! The media of every session against its record, and sessions that have media and no record.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Finding, Outcome};
use super::progress::Progress;
use crate::cli::damage::places_text;
use crate::cli::exit::{FAILURE, Failure};
use crate::clock::{Clock, SystemClock};
use crate::journal::{Journal, Look, Record};
use crate::library::Library;
use crate::link::RepairReport;
use crate::matroska::{Damage, Place};
use crate::recording::{Examined, examine, repair_dir};
use crate::session::{MediaFile, Receipt, SessionId};
use crate::supervisor::rebuild;
use crate::telemetry::chain;

/// What was looked at, and found.
#[derive(Default)]
pub struct Checked {
    /// Sessions with media or a record.
    pub sessions: usize,
    /// Files that were read.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Sessions that the journal didn't know, and what became of them.
    pub found: Vec<(SessionId, Outcome)>,
}

/// Checks all media. Without a journal to write to nothing is changed.
///
/// # Errors
/// The media directory can't be read, or the journal can't be written.
pub fn check(library: &Library, seen: &Look, journal: Option<&Journal>) -> Result<Checked, Failure> {
    let ids = library.session_ids().map_err(|error| {
        Failure::new(FAILURE, format!("media_dir {}: {error}", library.media_dir().display()))
    })?;
    let known: BTreeMap<&SessionId, &Record> =
        seen.records.iter().map(|record| (record.spec.id(), record)).collect();
    let mut checked = Checked::default();
    let mut receipts: Vec<Receipt> = Vec::new();
    for id in ids.iter().filter(|id| !known.contains_key(id)) {
        receipts.extend(checked.rebuild(library, id, journal)?);
    }
    for record in &seen.records {
        match &record.receipt {
            Some(receipt) => {
                checked.compare(library, receipt, journal.is_some());
                receipts.push(receipt.clone());
            }
            None => checked.unfinished(library, record.spec.id()),
        }
    }
    let sessions: BTreeSet<&SessionId> =
        known.keys().copied().chain(receipts.iter().map(|receipt| &receipt.session_id)).collect();
    checked.sessions = sessions.len();
    receipts.retain(|receipt| receipt.removal.is_none());
    let total = receipts.iter().flat_map(|receipt| &receipt.files).map(|file| file.bytes).sum();
    let mut progress = Progress::begin(total);
    for receipt in &receipts {
        progress.look_at(receipt.session_id.as_str());
        for file in &receipt.files {
            checked.read(&receipt.session_id, file, &mut progress);
        }
    }
    progress.end();
    Ok(checked)
}

impl Checked {
    /// A session that the journal doesn't know: its receipt, as it lies there or is made now.
    fn rebuild(
        &mut self,
        library: &Library,
        id: &SessionId,
        journal: Option<&Journal>,
    ) -> Result<Option<Receipt>, Failure> {
        let mut find = |kind, outcome, message: String| {
            self.findings.push(Finding::new(kind, outcome, message).of(id));
        };
        let done = if journal.is_some() { Outcome::Repaired } else { Outcome::NeedsRepair };
        match library.receipt(id) {
            Ok(Some(receipt)) => {
                find(
                    "record_missing",
                    done,
                    "the journal doesn't know it, and its receipt is there".to_owned(),
                );
                self.found.push((id.clone(), done));
                keep(journal, rebuild::of_receipt(receipt.clone(), SystemClock.wall()))?;
                return Ok(Some(receipt));
            }
            Ok(None) => {}
            Err(error) => {
                find("receipt_unreadable", done, format!("its receipt.json can't be read: {error}"));
            }
        }
        let segments = library.segments(id).unwrap_or_default();
        if segments.is_empty() {
            return Ok(None);
        }
        if library.is_being_written(id).unwrap_or(false) {
            find(
                "media_unaccounted",
                Outcome::BeingWritten,
                "the journal doesn't know it, and a worker records it".to_owned(),
            );
            return Ok(None);
        }
        let message =
            format!("the journal doesn't know it, and it has {} files without a receipt", segments.len());
        let Some(journal) = journal else {
            find("media_unaccounted", Outcome::NeedsRepair, message);
            self.found.push((id.clone(), Outcome::NeedsRepair));
            return Ok(None);
        };
        let last = library.last_account(id);
        let report = match &last {
            Some(_) => RepairReport::default(),
            None => match repair_dir(&library.session_dir(id), &[], None) {
                Ok((files, failures)) => {
                    RepairReport { files, failures: failures.iter().map(|error| chain(error)).collect() }
                }
                Err(error) => {
                    find("media_unaccounted", Outcome::Failed, format!("{message}: {}", chain(&error)));
                    return Ok(None);
                }
            },
        };
        let now = SystemClock.wall();
        let Some(record) = rebuild::of_media(id, last, &report, now, |_| now) else { return Ok(None) };
        let outcome = if report.failures.is_empty() { Outcome::Repaired } else { Outcome::Failed };
        let detail: String = report.failures.iter().map(|failure| format!("; {failure}")).collect();
        find("media_unaccounted", outcome, message + &detail);
        let receipt = record.receipt.clone();
        keep(Some(journal), record)?;
        self.found.push((id.clone(), outcome));
        if let Some(receipt) = &receipt {
            self.lay(library, receipt);
        }
        Ok(receipt)
    }

    /// The receipt beside the media says what the journal says.
    fn compare(&mut self, library: &Library, receipt: &Receipt, mends: bool) {
        if receipt.files.is_empty() || receipt.removal.is_some() {
            return;
        }
        let (kind, message) = match library.receipt(&receipt.session_id) {
            Ok(Some(beside)) if beside == *receipt => return,
            Ok(Some(_)) => ("receipt_differs", "its receipt.json isn't the journal's receipt".to_owned()),
            Ok(None) => ("receipt_missing", "there is no receipt.json beside its media".to_owned()),
            Err(error) => ("receipt_unreadable", format!("its receipt.json can't be read: {error}")),
        };
        let outcome = if mends { Outcome::Repaired } else { Outcome::NeedsRepair };
        let there = library.session_dir(&receipt.session_id).is_dir();
        let outcome = if there { outcome } else { Outcome::Failed };
        self.findings.push(Finding::new(kind, outcome, message).of(&receipt.session_id));
        if outcome == Outcome::Repaired {
            self.lay(library, receipt);
        }
    }

    fn lay(&mut self, library: &Library, receipt: &Receipt) {
        let laid =
            library.write_receipt(receipt).and_then(|()| library.forget_last_account(&receipt.session_id));
        if let Err(error) = laid {
            let message = format!("its receipt.json can't be written: {error}");
            self.findings
                .push(Finding::new("receipt_missing", Outcome::Failed, message).of(&receipt.session_id));
        }
    }

    fn unfinished(&mut self, library: &Library, id: &SessionId) {
        let (outcome, message) = if library.is_being_written(id).unwrap_or(false) {
            (Outcome::BeingWritten, "it is being recorded")
        } else {
            (Outcome::Left, "it is unfinished, and its worker is gone")
        };
        self.findings.push(Finding::new("session_unfinished", outcome, message).of(id));
    }

    /// One file against its receipt.
    fn read(&mut self, id: &SessionId, file: &MediaFile, progress: &mut Progress) {
        let finding = |kind, message: String| {
            Finding::new(kind, Outcome::Failed, message).of(id).at(file.path.as_str())
        };
        self.files += 1;
        self.bytes += file.bytes;
        let found = match examine(file, |count| progress.advance(count)) {
            Ok(Examined::Whole) => return,
            Ok(Examined::Missing) => finding("file_missing", "it is not there".to_owned()),
            Ok(Examined::Length { bytes }) => {
                finding("file_length", format!("it has {bytes} bytes instead of {}", file.bytes))
            }
            Ok(Examined::Rotten { damage }) => {
                let (message, places) = rotten(damage, file.bytes);
                let mut found = finding("file_damaged", format!("its checksum is wrong{message}"));
                found.places = places;
                found
            }
            Err(error) => finding("file_unreadable", format!("it can't be read: {error}")),
        };
        self.findings.push(found);
    }
}

/// What is told of a file whose checksum is wrong, and where in it that is.
fn rotten(damage: Result<Damage, String>, file_bytes: u64) -> (String, Vec<Place>) {
    let bare = |bytes| Place { bytes, media: Vec::new() };
    match damage {
        Err(header) => (format!(", and so is its header: {header}"), vec![bare(0..file_bytes)]),
        Ok(Damage { places, unchecked }) if places.is_empty() => {
            let places: Vec<Place> = unchecked.into_iter().map(bare).collect();
            (format!("; all is right by its own checksums but for {}", places_text(&places)), places)
        }
        Ok(Damage { places, .. }) => (format!("; damaged are {}", places_text(&places)), places),
    }
}

/// Has the journal keep a record, if it may be written.
fn keep(journal: Option<&Journal>, mut record: Record) -> Result<(), Failure> {
    let Some(journal) = journal else { return Ok(()) };
    let refused = |error: &dyn std::fmt::Display| Failure::new(FAILURE, error.to_string());
    let closed = || Failure::new(FAILURE, "the journal has closed");
    let last = journal.last_change().blocking_recv().map_err(|_| closed())?;
    record.change = last.map_err(|error| refused(&error))? + 1;
    let written = journal.put(record).blocking_recv().map_err(|_| closed())?;
    written.map_err(|error| refused(&error))
}
