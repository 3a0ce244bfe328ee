//! What is promised, held against what is in the files.

use std::collections::{BTreeMap, BTreeSet};

use shutterd::clock::MonoTime;
use shutterd::link::RepairedFile;
use shutterd::recording::{RepairError, repair_dir_on};
use shutterd::session::{Account, GapReason, MediaFile};

use crate::disk::{Call, Disk, Files};
use crate::found::{Care, Feed, Found, source_id};
use crate::history::{History, Step};
use crate::host::Model;
use crate::run::session_dir;
use crate::threads::Threads;

/// Seconds that are told as floats.
const ROUNDING_SECONDS: f64 = 1e-6;

/// How a recorder has finished.
#[derive(Debug)]
pub struct Finish {
    pub result: Result<(), String>,
    pub account: Account,
    /// The power was gone by then.
    pub was_off: bool,
}

/// Who judges a history.
#[derive(Debug)]
pub struct Judge<'a> {
    pub history: &'a History,
    pub model: &'a Model,
    pub feed: &'a Feed,
}

impl Judge<'_> {
    /// Of a recording that was finished, with the power on.
    pub fn finished(&self, finish: &Finish, was_broken: bool) -> Result<(), String> {
        let Finish { result, account, .. } = finish;
        let mut files = self.model.disk().files();
        self.give_back(&mut files, &account.files);
        let told = self.read_told(&files, &account.files)?;
        let mut found = BTreeSet::new();
        for packet in told.values().flat_map(|file| &file.packets) {
            if !found.insert(*packet) {
                return Err(format!("packet {packet} is in two files"));
            }
        }
        self.is_not_late(&told, &account.warnings)?;
        for source in 0..self.feed.kinds.len() {
            let receipt = &account.sources[source].receipt;
            let (written, units) = (receipt.written, self.feed.units(&found, source));
            if written != units && result.is_ok() {
                return Err(format!(
                    "source {source}: {written} units are written, {units} are in the files"
                ));
            }
            if receipt.captured < written + receipt.lost {
                return Err(format!("source {source}: more than captured is told: {receipt:?}"));
            }
            if result.is_ok() && receipt.captured != written + receipt.lost {
                return Err(format!("source {source}: the account has a hole: {receipt:?}"));
            }
        }
        if let Err(error) = result {
            // Calls that fail keep a file from being made whole, and so does who takes it away while it is torn. With
            // the disk as it should be nothing does.
            let is_fault = |step: &Step| matches!(step, Step::Fault(_));
            let mut from_fault = self.history.steps.iter().skip_while(|step| !is_fault(step));
            let is_taken = from_fault.any(|step| matches!(step, Step::TakeDir | Step::TakeFile));
            let excused = !self.history.end.calm || was_broken || is_taken;
            return if excused { Ok(()) } else { Err(format!("the finish fails: {error}")) };
        }
        let strays: Vec<&String> = files.keys().filter(|path| !told.contains_key(*path)).collect();
        if !strays.is_empty() && !self.may_stay() {
            return Err(format!("nobody is told of {strays:?}"));
        }
        let lost = (0..self.feed.fed.len()).filter(|at| !found.contains(at) && !self.feed.is_late(*at));
        let lost: BTreeSet<usize> = lost.collect();
        self.is_told(&lost, account)?;
        if let Some(at) = lost.first()
            && self.history.loses_nothing()
            && !was_broken
        {
            let fed = &self.feed.fed[*at];
            return Err(format!("packet {} of source {} is lost for nothing", fed.number, fed.source));
        }
        Ok(())
    }

    /// What a stranger has taken once it was finished is nobody's loss but his.
    fn give_back(&self, files: &mut Files, told: &[MediaFile]) {
        let disk = self.model.disk();
        let taken = disk.inodes.iter().filter(|inode| inode.is_taken).map(|inode| &inode.cache);
        for bytes in taken {
            let hash = blake3::hash(bytes).to_hex();
            if let Some(file) = told.iter().find(|file| file.blake3 == hash.as_str()) {
                files.entry(file.path.clone()).or_insert_with(|| bytes.clone());
            }
        }
    }

    /// The files that the ledger tells of: each is what it says.
    fn read_told(&self, files: &Files, told: &[MediaFile]) -> Result<BTreeMap<String, Found>, String> {
        let mut read = BTreeMap::new();
        for file in told {
            let path = &file.path;
            let bytes = files.get(path).ok_or_else(|| format!("{path} is told and isn't there"))?;
            if bytes.len() as u64 != file.bytes {
                return Err(format!("{path} has {} bytes, told are {}", bytes.len(), file.bytes));
            }
            if blake3::hash(bytes).to_hex().as_str() != file.blake3 {
                return Err(format!("{path} has another hash than is told"));
            }
            let found = self.feed.find(bytes, Care::Whole).map_err(|error| format!("{path}: {error}"))?;
            if read.insert(path.clone(), found).is_some() {
                return Err(format!("{path} is told twice"));
            }
        }
        Ok(read)
    }

    /// Nothing later than the stop is in a file, but for those before the last, which is told.
    fn is_not_late(&self, told: &BTreeMap<String, Found>, warnings: &[String]) -> Result<(), String> {
        let is_warned = warnings.iter().any(|warning| warning.starts_with("the stop came late"));
        for (path, file) in told {
            let late = file.packets.iter().find(|at| self.feed.is_late(**at));
            if let Some(at) = late
                && !is_warned
            {
                return Err(format!("{path} holds packet {at}, which was captured after the stop"));
            }
        }
        Ok(())
    }

    /// An empty file stays where a call that was to remove it has failed, or strangers were at work.
    fn may_stay(&self) -> bool {
        self.history.steps.iter().any(|step| match step {
            Step::Fault(fault) => matches!(fault.call, Call::Remove),
            Step::TakeDir | Step::TakeFile => true,
            _ => false,
        })
    }

    /// Each loss lies in a gap.
    fn is_told(&self, lost: &BTreeSet<usize>, account: &Account) -> Result<(), String> {
        for fed in lost.iter().map(|at| &self.feed.fed[*at]) {
            let seconds = |at: MonoTime| at.since(self.feed.anchor.mono).as_secs_f64();
            let (from, to) = (seconds(fed.timestamp), seconds(fed.end));
            let is_told = account.sources[fed.source].receipt.gaps.iter().any(|gap| {
                gap.reason == GapReason::Disk
                    && gap.start_seconds <= from + ROUNDING_SECONDS
                    && gap.start_seconds + gap.duration_seconds >= to - ROUNDING_SECONDS
            });
            if !is_told {
                return Err(format!(
                    "no gap tells that packet {} of source {} is lost",
                    fed.number, fed.source
                ));
            }
        }
        Ok(())
    }

    /// Of what is left when the power was gone, once it is repaired.
    pub fn cut(&self, finish: Option<&Finish>) -> Result<(), String> {
        let (left, taken) = self.model.cut().left.clone().expect("the power is gone");
        let account = self.model.cut().account.clone().expect("there is a ledger");
        let known = if self.history.end.is_known { account.files.clone() } else { Vec::new() };
        let (files, repaired) = self.repair(&left, &known)?;
        let excused = taken.iter().filter_map(|bytes| self.feed.find(bytes, Care::Torn).ok());
        let excused: BTreeSet<usize> = excused.flat_map(|file| file.packets).collect();
        let mut found: BTreeSet<usize> = BTreeSet::new();
        for file in &repaired {
            let path = &file.file.path;
            let bytes = files.get(path).ok_or_else(|| format!("{path} is repaired and isn't there"))?;
            let told = (file.file.bytes, file.file.blake3.as_str());
            if told != (bytes.len() as u64, blake3::hash(bytes).to_hex().as_str()) {
                return Err(format!("{path} is not what its repair tells"));
            }
            // The copy of a file that was taken may be cut in its middle, where its clusters have their sizes.
            let care = if taken.is_empty() { Care::Repaired } else { Care::Torn };
            let read = self.feed.find(bytes, care).map_err(|error| format!("{path}: {error}"))?;
            for (source, units) in read.units.iter().enumerate() {
                let counted = file.units.iter().find(|(id, _)| *id == source_id(source));
                if care == Care::Repaired && counted.is_some_and(|(_, counted)| counted != units) {
                    return Err(format!("{path} has {units} units of source {source}: {:?}", file.units));
                }
            }
            found.extend(read.packets);
        }
        for file in &account.files {
            let whole = files.get(&file.path).is_some_and(|bytes| {
                bytes.len() as u64 == file.bytes && blake3::hash(bytes).to_hex().as_str() == file.blake3
            });
            if !whole && taken.is_empty() {
                return Err(format!("{} was finished, and the power cut has changed it", file.path));
            }
        }
        for source in 0..self.feed.kinds.len() {
            let written = account.sources[source].receipt.written;
            let all: BTreeSet<usize> = found.union(&excused).copied().collect();
            // What was durable and captured after the stop may be taken out again.
            let late = (0..self.feed.fed.len()).filter(|at| self.feed.is_late(*at));
            let all = all.into_iter().chain(late).collect();
            let units = self.feed.units(&all, source);
            if units < written {
                return Err(format!("source {source}: {written} units were durable, {units} are left"));
            }
        }
        match finish {
            Some(Finish { result: Ok(()), was_off: false, account }) => {
                let told = self.read_told(&files, &account.files);
                told.and_then(|told| self.is_not_late(&told, &account.warnings))
                    .or_else(|error| if taken.is_empty() { Err(error) } else { Ok(()) })
            }
            _ => Ok(()),
        }
    }

    /// Repairs what is left; the power may go once more meanwhile. A second repair changes nothing.
    fn repair(&self, left: &Files, known: &[MediaFile]) -> Result<(Files, Vec<RepairedFile>), String> {
        let mut left = left.clone();
        let end = &self.history.end;
        if let Some(cut_in) = end.cut_in_repair {
            let model = self.mounted(&left, 2);
            model.disk().cut_in = Some(cut_in);
            let _ = repair_dir_on(&model, &session_dir(), known, None);
            model.cut_off();
            left = model.cut().left.take().expect("the power is gone").0;
        }
        let mut repaired = self.repaired(&left, known)?;
        // What a repair has written is durable.
        let (files, first) = repaired;
        repaired = self.repaired(&files, known)?;
        let same =
            first.iter().map(|file| &file.file.blake3).eq(repaired.1.iter().map(|file| &file.file.blake3));
        if !same {
            return Err("a second repair changes a file".to_owned());
        }
        Ok(repaired)
    }

    fn repaired(&self, left: &Files, known: &[MediaFile]) -> Result<(Files, Vec<RepairedFile>), String> {
        let model = self.mounted(left, 3);
        let repaired = repair_dir_on(&model, &session_dir(), known, None);
        let (repaired, failed) = repaired.map_err(|error| format!("the repair fails: {error}"))?;
        // A file whose beginning is lost never had anything durable in it; what is left stays as it is.
        let is_headless = |error: &&RepairError| match error {
            RepairError::Media { path, .. } => {
                let (first, rest) = left[&path.display().to_string()].split_at(4096);
                first.iter().all(|byte| *byte == 0) && rest.iter().any(|byte| *byte != 0)
            }
            _ => false,
        };
        if let Some(error) = failed.iter().find(|error| !is_headless(error)) {
            let source = std::error::Error::source(error).map(ToString::to_string);
            return Err(format!("a repair fails: {error}: {source:?}"));
        }
        model.cut_off();
        let files = model.cut().left.take().expect("the power is gone").0;
        Ok((files, repaired))
    }

    fn mounted(&self, files: &Files, salt: u64) -> Model {
        let chance = self.history.chance ^ salt;
        Model::new(Threads::begin(chance), Disk::new(chance, files), self.history.end.survivors)
    }
}
