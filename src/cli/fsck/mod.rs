//! `fsck`: checks the journal and the media against each other, and repairs what the agent would. Works
//! without an agent, and not beside one.

mod finding;
mod media;
mod progress;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::json;

use super::args::{FsckArguments, Global};
use super::exit::{FAILURE, Failure, NEEDS_REPAIR, NOT_FOUND, NOT_PERMITTED, REFUSED};
use super::out;
use super::text::{bytes, count};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Overrides, Settings};
use crate::daemon::{self, JOURNAL_FILE, Lock, LockHeld};
use crate::journal::{Journal, JournalError, Look, Past, look};
use crate::library::Library;
use crate::recording::Effect;

use finding::{Finding, Outcome};
use media::Checked;

/// Checks, and repairs unless that is unwanted.
///
/// # Errors
/// It can't be done, or something was found.
pub fn fsck(global: &Global, arguments: &FsckArguments) -> Result<(), Failure> {
    let effect = if arguments.check { Effect::Check } else { Effect::Mend };
    let settings = config::load(global.config.as_deref(), &Overrides::default())?;
    check_owner(&settings.state_dir)?;
    let _lock = Lock::take(&settings.state_dir, "state.lock").map_err(|error| {
        let code = if error.is::<LockHeld>() { REFUSED } else { FAILURE };
        Failure::new(code, format!("{error:#}"))
    })?;
    let library = daemon::library(&settings).map_err(|error| Failure::new(FAILURE, format!("{error:#}")))?;
    let (seen, journal, mut findings) = journal(&settings, &library, effect)?;
    let mut checked = media::check(&library, &seen, journal.as_ref())?;
    tell_unreadable(&seen, &checked, &mut findings);
    findings.append(&mut checked.findings);
    if let Some(journal) = journal {
        journal.close();
    }
    report(global, &checked, &findings)
}

/// What is written has to be the agent's, or it can't be read by it.
fn check_owner(state_dir: &Path) -> Result<(), Failure> {
    let found = std::fs::metadata(state_dir)
        .map_err(|error| Failure::new(NOT_FOUND, format!("state_dir {}: {error}", state_dir.display())))?;
    if found.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let message = format!("{} belongs to the user with the id {}", state_dir.display(), found.uid());
    Err(Failure::new(NOT_PERMITTED, message)
        .hint("run this as the agent's own user, like `runuser -u shutterd -- shutterd fsck`"))
}

/// Looks at the journal; opens it to write to, also where it was damaged, if that is wished.
fn journal(
    settings: &Settings,
    library: &Library,
    effect: Effect,
) -> Result<(Look, Option<Journal>, Vec<Finding>), Failure> {
    let path = settings.state_dir.join(JOURNAL_FILE);
    let unusable = |error: JournalError| Failure::new(FAILURE, error.to_string());
    let is_first = || !path.exists() && library.session_ids().is_ok_and(|ids| ids.is_empty());
    let mut findings = Vec::new();
    let found = look(&path).map_err(unusable)?;
    let Effect::Mend = effect else {
        if let Some(problem) = found.problem.as_ref().filter(|_| !is_first()) {
            findings.push(Finding::new("journal_damaged", Outcome::NeedsRepair, problem.as_str()));
        }
        return Ok((found, None, findings));
    };
    let (journal, past) = Journal::restore(&path, SystemClock.wall(), is_first).map_err(unusable)?;
    match past {
        Past::Damaged(damage) => {
            let (carried, kept) = (damage.carried, damage.kept_path.display());
            let message =
                format!("{}; {carried} records are carried over, the damaged file is {kept}", damage.problem);
            let (outcome, message) = if damage.has_more {
                (Outcome::Failed, message + ", and more records may have been in it")
            } else {
                (Outcome::Repaired, message)
            };
            findings.push(Finding::new("journal_damaged", outcome, message));
        }
        Past::Missing => findings.push(Finding::new("journal_missing", Outcome::Repaired, "there was none")),
        Past::Closed | Past::CutOff | Past::First => {}
    }
    // What it holds now, with what it could not carry over from before.
    let held = look(&path).map_err(unusable)?;
    Ok((Look { unreadable: found.unreadable, ..held }, Some(journal), findings))
}

/// A record that can't be read costs nothing more if its session was found again.
fn tell_unreadable(seen: &Look, checked: &Checked, findings: &mut Vec<Finding>) {
    for id in &seen.unreadable {
        let outcome = match checked.found.iter().find(|(found, _)| found.as_str() == id) {
            Some((_, outcome)) => *outcome,
            None => Outcome::Failed,
        };
        let mut finding = Finding::new("record_unreadable", outcome, "its record can't be read");
        finding.session = Some(id.clone());
        findings.push(finding);
    }
}

fn report(global: &Global, checked: &Checked, findings: &[Finding]) -> Result<(), Failure> {
    if global.json {
        let findings: Vec<_> = findings.iter().map(Finding::json).collect();
        let (sessions, files) = (checked.sessions, checked.files);
        out::json(
            &json!({ "sessions": sessions, "files": files, "bytes": checked.bytes, "findings": findings }),
        )?;
    } else {
        for finding in findings {
            out::line(&finding.line())?;
        }
        let sessions = count(checked.sessions, "session", "sessions");
        let files = count(checked.files, "file", "files");
        let wrong = match findings.len() {
            0 => "nothing is wrong".to_owned(),
            many => count(many, "thing was found", "things were found"),
        };
        out::line(&format!("{sessions}, {files} of {}: {wrong}", bytes(checked.bytes)))?;
    }
    match findings.iter().map(|finding| finding.outcome).max() {
        None | Some(Outcome::Left | Outcome::Repaired) => Ok(()),
        Some(Outcome::NeedsRepair) => Err(Failure::silent(NEEDS_REPAIR)),
        Some(Outcome::BeingWritten) => Err(Failure::silent(REFUSED)),
        Some(Outcome::Failed) => Err(Failure::silent(FAILURE)),
    }
}
