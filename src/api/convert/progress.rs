//! How far a session is, as a message.

use super::receipt::file_to_proto;
use crate::api::proto;
use crate::session::{Account, SourceAccount};

/// The progress of a session whose worker reported `account`, with what waits in memory
/// (`queued_packets`), lies synced on disk (`durable_bytes`) or written but not synced
/// (`pending_bytes`).
pub fn progress_to_proto(
    account: &Account,
    queued_packets: u64,
    durable_bytes: u64,
    pending_bytes: u64,
) -> proto::Progress {
    proto::Progress {
        captured_seconds: account.captured_seconds,
        queued_packets,
        durable_bytes,
        pending_bytes,
        sources: account.sources.iter().map(source_to_proto).collect(),
        closed_files: account.files.iter().map(file_to_proto).collect(),
    }
}

fn source_to_proto(source: &SourceAccount) -> proto::SourceProgress {
    proto::SourceProgress {
        id: source.receipt.id.clone(),
        state: source.state.as_str().to_owned(),
        reason: source.reason.clone(),
        captured: source.receipt.captured,
        written: source.receipt.written,
    }
}
