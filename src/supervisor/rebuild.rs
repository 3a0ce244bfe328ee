//! Records of sessions that the journal has lost, made of what lies beside their media. What only the
//! journal had is gone: the session's own JSON but for its sources, its user, the keys of its stops.

use serde_json::{Value, json};

use super::compose;
use crate::clock::{MonoTime, WallTime};
use crate::journal::Record;
use crate::link::{LastAccount, RepairReport};
use crate::session::device::MediaType;
use crate::session::limits::SOURCE_TEXT_CHARS_MAX;
use crate::session::{
    Account, EndReason, Receipt, SessionId, SessionSpec, SourceReceipt, StartOptions, WorkerState,
};

/// What a rebuilt session has in `meta.rebuiltFrom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Receipt,
    Media,
}

/// The record of a session whose receipt lies beside its media; the receipt stays as it is.
pub fn of_receipt(receipt: Receipt, now: WallTime) -> Record {
    record(receipt, Origin::Receipt, now)
}

/// The record of a session that has media and no receipt: of the account that its worker left, else of
/// what a repair found. `wall_at` tells times of that worker. `None` if nothing was found.
pub fn of_media(
    id: &SessionId,
    last: Option<LastAccount>,
    report: &RepairReport,
    now: WallTime,
    wall_at: impl Fn(MonoTime) -> WallTime,
) -> Option<Record> {
    let forced = last.is_none();
    let mut receipt = Receipt {
        session_id: id.clone(),
        end_reason: EndReason::WorkerFailed,
        forced,
        requested_at: None,
        released_at: Some(now),
        finalized_at: Some(now),
        sources: Vec::new(),
        files: Vec::new(),
        removal: None,
        warnings: Vec::new(),
    };
    let mut account = Account::default();
    match last {
        Some(last) => {
            // As of a worker that no daemon has heard: one that doesn't say why was told to stop.
            receipt.end_reason = last.reason.unwrap_or(EndReason::StopRequested);
            receipt.requested_at = Some(wall_at(last.stop_at));
            receipt.released_at = last.released_at.map(wall_at).or(receipt.released_at);
            account = last.account;
        }
        None if report.files.is_empty() && report.failures.is_empty() => return None,
        None => compose::settle(&mut account, report),
    }
    account.warn("the journal had lost this session: its account was rebuilt from its media".to_owned());
    receipt.sources = account.sources.into_iter().map(|source| source.receipt).collect();
    (receipt.files, receipt.warnings) = (account.files, account.warnings);
    Some(record(receipt, Origin::Media, now))
}

fn record(receipt: Receipt, origin: Origin, now: WallTime) -> Record {
    let seconds = receipt.files.iter().map(|file| file.duration_seconds).sum();
    let begun = receipt.sources.iter().filter_map(|source| source.first_timestamp).min();
    let state = if receipt.forced { WorkerState::Failed } else { WorkerState::Stopped };
    let created_at = begun.or(receipt.requested_at).or(receipt.finalized_at).unwrap_or(now);
    Record {
        duration_seconds: Some(seconds),
        forced: receipt.forced,
        health_check: receipt.sources.iter().filter_map(|source| source.last_timestamp).max(),
        worker_state: state.as_str().to_owned(),
        receipt: Some(receipt.clone()),
        ..Record::new(spec(&receipt, origin), StartOptions::default(), Vec::new(), created_at)
    }
}

fn spec(receipt: &Receipt, origin: Origin) -> SessionSpec {
    let sources: Vec<Value> = receipt.sources.iter().map(source).collect();
    let origin = match origin {
        Origin::Receipt => "receipt.json",
        Origin::Media => "media",
    };
    let bare = json!({ "_id": receipt.session_id, "meta": { "rebuiltFrom": origin } });
    let mut full = bare.clone();
    full["sources"] = sources.into();
    // A receipt may be of sources that no session could have.
    SessionSpec::from_json(full).or_else(|_| SessionSpec::from_json(bare)).expect("an id alone is a session")
}

fn source(source: &SourceReceipt) -> Value {
    let device = match source.media {
        MediaType::Video => "local_camera",
        MediaType::Audio => "local_microphone",
    };
    let name: String = source.device.chars().take(SOURCE_TEXT_CHARS_MAX).collect();
    json!({ "id": source.id, "type": source.media.to_string(), "device": device, "name": name })
}
