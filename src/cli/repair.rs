//! `repair`: makes recordings whole that a crash has cut off, by an operator's hand.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::{Global, RepairArguments};
use super::damage::{place_json, places_text};
use super::exit::{FAILURE, Failure, NEEDS_REPAIR, NOT_FOUND, REFUSED};
use super::out;
use super::text::{plain, seconds};
use crate::recording::{Effect, Mended, RepairError, mend, recordings};
use crate::telemetry::chain;

/// What came of one file. The worst one decides how the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Whole,
    Repaired,
    NeedsRepair,
    BeingWritten,
    Failed,
}

impl Outcome {
    fn of(result: &Result<Mended, RepairError>, effect: Effect) -> Self {
        match result {
            Err(RepairError::Busy { .. }) => Self::BeingWritten,
            Err(_) => Self::Failed,
            Ok(mended) if mended.damaged_at.is_some() || !mended.damage.is_empty() => Self::Failed,
            Ok(mended) if mended.was_whole => Self::Whole,
            Ok(_) if effect == Effect::Check => Self::NeedsRepair,
            Ok(_) => Self::Repaired,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Repaired => "repaired",
            Self::NeedsRepair => "needs_repair",
            Self::BeingWritten => "being_written",
            Self::Failed => "failed",
        }
    }
}

/// Repairs the files and those of the directories, or says what would be done.
///
/// # Errors
/// There are none, one is being written, or one can't be made whole; the others are.
pub fn repair(global: &Global, arguments: &RepairArguments) -> Result<(), Failure> {
    let effect = if arguments.check { Effect::Check } else { Effect::Mend };
    let files = files(&arguments.paths)?;
    let (mut worst, mut objects) = (Outcome::Whole, Vec::new());
    for path in &files {
        let result = mend(path, effect);
        let outcome = Outcome::of(&result, effect);
        worst = worst.max(outcome);
        if global.json {
            objects.push(object(path, outcome, &result));
        } else {
            out::line(&format!("{}: {}", plain(&path.display().to_string()), sentence(&result, effect)))?;
        }
    }
    if global.json {
        out::json(&json!({ "files": objects }))?;
    }
    match worst {
        Outcome::Whole | Outcome::Repaired => Ok(()),
        Outcome::NeedsRepair => Err(Failure::silent(NEEDS_REPAIR)),
        Outcome::BeingWritten => Err(Failure::silent(REFUSED)),
        Outcome::Failed => Err(Failure::silent(FAILURE)),
    }
}

/// The recordings that `paths` name: files themselves, and what lies in directories.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let unreadable =
            |error: std::io::Error| Failure::new(NOT_FOUND, format!("{}: {error}", path.display()));
        if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let found = recordings(path).map_err(unreadable)?;
        if found.is_empty() {
            let message = format!("{} holds no recording", path.display());
            return Err(Failure::new(NOT_FOUND, message).hint("name a file, or the directory of a session"));
        }
        files.extend(found);
    }
    Ok(files)
}

fn sentence(result: &Result<Mended, RepairError>, effect: Effect) -> String {
    let mended = match result {
        Ok(mended) => mended,
        Err(error) => return plain(&chain(error)),
    };
    let packets = format!("{} packets, {}", mended.packets, seconds(mended.seconds));
    let cut = mended.cut_bytes;
    let damaged = match mended.damaged_bytes {
        0 => String::new(),
        bytes => format!("; {bytes} bytes in between can't be read, and stay"),
    };
    let damaged = if mended.damage.is_empty() {
        damaged
    } else {
        format!("{damaged}; damaged are {}", places_text(&mended.damage))
    };
    match (mended.damaged_at, effect) {
        (Some(at), _) => format!("was finished and is damaged from byte {at} on; left as it is"),
        (None, _) if mended.was_whole => format!("whole: {packets}{damaged}"),
        (None, Effect::Check) => format!("needs repair: would keep {packets}, and cut {cut} bytes{damaged}"),
        (None, Effect::Mend) => format!("repaired: kept {packets}, cut {cut} bytes{damaged}"),
    }
}

fn object(path: &Path, outcome: Outcome, result: &Result<Mended, RepairError>) -> Value {
    let path = path.display().to_string();
    match result {
        Ok(mended) => json!({
            "path": path,
            "outcome": outcome.word(),
            "packets": mended.packets,
            "seconds": mended.seconds,
            "bytes": mended.bytes,
            "cutBytes": mended.cut_bytes,
            "damagedBytes": mended.damaged_bytes,
            "damagedAt": mended.damaged_at,
            "damage": mended.damage.iter().map(place_json).collect::<Vec<_>>(),
        }),
        Err(error) => json!({ "path": path, "outcome": outcome.word(), "error": chain(error) }),
    }
}
