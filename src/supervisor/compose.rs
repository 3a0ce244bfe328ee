//! From what a dead worker reported last and what its files hold to an account that adds up; and
//! from the journal's records to what callers see.

use super::command::SessionView;
use crate::clock::WallTime;
use crate::journal::Record;
use crate::link::RepairReport;
use crate::session::device::{DeviceSpec, MediaType};
use crate::session::{
    Account, DeadWorkers, PublicState, SessionSpec, SourceAccount, SourceReceipt, SourceState, WorkerState,
    present,
};

/// An account of sources that have captured nothing yet.
pub(super) fn empty_account(spec: &SessionSpec, devices: &[DeviceSpec]) -> Account {
    let sources = spec.sources().iter().zip(devices).map(|(source, device)| SourceAccount {
        receipt: SourceReceipt::of(
            source.id.clone(),
            source.media,
            format!("{} ({})", device.label, device.key),
        ),
        state: SourceState::Starting,
        reason: String::new(),
        durable_at: None,
    });
    Account { sources: sources.collect(), ..Account::default() }
}

/// Puts what a repair found in place of what the dead worker had still to say.
pub(super) fn settle(account: &mut Account, report: &RepairReport) {
    add_sources(account, report);
    for source in &mut account.sources {
        let receipt = &mut source.receipt;
        let own = |(id, _): &&(String, u64)| *id == receipt.id;
        let units: u64 =
            report.files.iter().flat_map(|file| file.units.iter().filter(own)).map(|(_, n)| n).sum();
        // Filled silence lies in the file as samples do, but was not captured.
        let filled = if receipt.media == MediaType::Audio { receipt.filled } else { 0 };
        receipt.settle_after_crash(units.saturating_sub(filled));
        source.state = SourceState::Released;
    }
    account.files = report.files.iter().map(|file| file.file.clone()).collect();
    let longest: f64 = account.files.iter().map(|file| file.duration_seconds).sum();
    account.captured_seconds = account.captured_seconds.max(longest);
    for file in report.files.iter().filter(|file| file.cut_bytes > 0) {
        account.warn(format!(
            "{} was repaired: {} bytes that were no whole packet were cut",
            file.file.path, file.cut_bytes
        ));
    }
    report.failures.iter().for_each(|failure| account.warn(failure.clone()));
}

/// Sources that nobody has accounted for, and that the files tell of.
fn add_sources(account: &mut Account, report: &RepairReport) {
    for track in report.files.iter().flat_map(|file| &file.tracks) {
        if account.sources.iter().any(|source| source.receipt.id == track.source) {
            continue;
        }
        let mut receipt = SourceReceipt::of(track.source.clone(), track.media, track.name.clone());
        receipt.first_timestamp = track.first;
        account.sources.push(SourceAccount {
            receipt,
            state: SourceState::Released,
            reason: String::new(),
            durable_at: None,
        });
    }
}

/// As [`settle`], for what workers left that have died while their session goes on.
pub(super) fn settle_dead(dead: &mut DeadWorkers, report: &RepairReport) {
    settle(&mut dead.account, report);
    dead.ends = dead.account.sources.iter().map(|source| end_of(&source.receipt.id, report)).collect();
    dead.repaired = true;
}

fn end_of(source: &str, report: &RepairReport) -> Option<WallTime> {
    let ends = report.files.iter().flat_map(|file| &file.ends);
    ends.filter(|(id, _)| id == source).map(|(_, end)| *end).max()
}

/// Makes an account add up whose files could not be repaired: what was durable is all that is sure.
pub(super) fn settle_unrepaired(account: &mut Account) {
    for source in &mut account.sources {
        let written = source.receipt.written;
        source.receipt.settle_after_crash(written);
        source.state = SourceState::Released;
    }
}

/// What a journalled session that is not live looks like.
pub(super) fn view_of(record: &Record) -> SessionView {
    let finished = record.receipt.is_some();
    let state = if finished { PublicState::Finished } else { PublicState::Active };
    let worker = match record.worker_state.as_str() {
        "failed" => WorkerState::Failed,
        _ if finished => WorkerState::Stopped,
        _ => WorkerState::Working,
    };
    SessionView {
        id: record.spec.id().clone(),
        change: record.change,
        cursor: record.change,
        object: present(&record.spec, state, worker, record.duration_seconds, record.health_check),
        receipt: record.receipt.clone(),
        finished,
        account: record.account.clone().unwrap_or_default(),
        queued_packets: 0,
        durable_bytes: 0,
        pending_bytes: 0,
    }
}
