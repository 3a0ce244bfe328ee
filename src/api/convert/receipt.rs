//! The receipt as a message, and back.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ConvertError;
use crate::api::proto;
use crate::clock::WallTime;
use crate::session::device::{MediaType, TimestampSource};
use crate::session::{
    EndReason, Gap, GapReason, MediaFile, Receipt, Removal, RemovalReason, RemovalState, SourceReceipt,
};

/// The receipt as a message. Times are cut to milliseconds, as in its JSON.
pub fn receipt_to_proto(receipt: &Receipt) -> proto::Receipt {
    proto::Receipt {
        session_id: receipt.session_id.to_string(),
        end_reason: receipt.end_reason.to_string(),
        forced: receipt.forced,
        requested_at: text_of(receipt.requested_at),
        released_at: text_of(receipt.released_at),
        finalized_at: text_of(receipt.finalized_at),
        sources: receipt.sources.iter().map(source_to_proto).collect(),
        files: receipt.files.iter().map(file_to_proto).collect(),
        removal: receipt.removal.as_ref().map(removal_to_proto),
        warnings: receipt.warnings.clone(),
    }
}

/// The receipt that a message holds.
///
/// # Errors
/// A word that this version doesn't know, or a text that is no time or id.
pub fn receipt_from_proto(receipt: proto::Receipt) -> Result<Receipt, ConvertError> {
    Ok(Receipt {
        session_id: receipt.session_id.parse().map_err(|_| unreadable("session_id", &receipt.session_id))?,
        end_reason: EndReason::from_word(&receipt.end_reason)
            .ok_or_else(|| unreadable("end_reason", &receipt.end_reason))?,
        forced: receipt.forced,
        requested_at: time_of("requested_at", &receipt.requested_at)?,
        released_at: time_of("released_at", &receipt.released_at)?,
        finalized_at: time_of("finalized_at", &receipt.finalized_at)?,
        sources: receipt.sources.into_iter().map(source_from_proto).collect::<Result<_, _>>()?,
        files: receipt.files.into_iter().map(file_from_proto).collect(),
        removal: receipt.removal.map(removal_from_proto).transpose()?,
        warnings: receipt.warnings,
    })
}

/// The media file as a message.
pub(super) fn file_to_proto(file: &MediaFile) -> proto::MediaFile {
    proto::MediaFile {
        path: file.path.clone(),
        bytes: file.bytes,
        blake3: file.blake3.clone(),
        duration_seconds: file.duration_seconds,
        repaired: file.repaired,
    }
}

fn file_from_proto(file: proto::MediaFile) -> MediaFile {
    MediaFile {
        path: file.path,
        bytes: file.bytes,
        blake3: file.blake3,
        duration_seconds: file.duration_seconds,
        repaired: file.repaired,
    }
}

fn source_to_proto(source: &SourceReceipt) -> proto::SourceReceipt {
    proto::SourceReceipt {
        id: source.id.clone(),
        r#type: source.media.to_string(),
        device: source.device.clone(),
        captured: source.captured,
        written: source.written,
        dropped: source.dropped,
        lost: source.lost,
        missed: source.missed,
        filled: source.filled,
        at_least: source.at_least,
        first_timestamp: text_of(source.first_timestamp),
        last_timestamp: text_of(source.last_timestamp),
        timestamp_source: match source.timestamp_source {
            Some(TimestampSource::Driver) => "driver".to_owned(),
            Some(TimestampSource::Arrival) => "arrival".to_owned(),
            None => String::new(),
        },
        gaps: source.gaps.iter().map(gap_to_proto).collect(),
        restarts: source.restarts,
        format: source.format.clone(),
        corrupt: source.corrupt,
        drift_ppm: source.drift_ppm,
    }
}

fn source_from_proto(source: proto::SourceReceipt) -> Result<SourceReceipt, ConvertError> {
    let timestamp_source = Some(&source.timestamp_source).filter(|word| !word.is_empty());
    Ok(SourceReceipt {
        media: word_of::<MediaType>("sources.type", &source.r#type)?,
        timestamp_source: timestamp_source
            .map(|word| word_of("sources.timestamp_source", word))
            .transpose()?,
        first_timestamp: time_of("sources.first_timestamp", &source.first_timestamp)?,
        last_timestamp: time_of("sources.last_timestamp", &source.last_timestamp)?,
        gaps: source.gaps.into_iter().map(gap_from_proto).collect::<Result<_, _>>()?,
        id: source.id,
        device: source.device,
        format: source.format,
        captured: source.captured,
        written: source.written,
        dropped: source.dropped,
        lost: source.lost,
        missed: source.missed,
        filled: source.filled,
        corrupt: source.corrupt,
        drift_ppm: source.drift_ppm,
        at_least: source.at_least,
        restarts: source.restarts,
    })
}

fn gap_to_proto(gap: &Gap) -> proto::Gap {
    proto::Gap {
        start_seconds: gap.start_seconds,
        duration_seconds: gap.duration_seconds,
        missed: gap.missed,
        reason: match gap.reason {
            GapReason::Sequence => "sequence",
            GapReason::Stalled => "stalled",
            GapReason::Lost => "lost",
            GapReason::Overrun => "overrun",
            GapReason::Restart => "restart",
            GapReason::Disk => "disk",
        }
        .to_owned(),
    }
}

fn gap_from_proto(gap: proto::Gap) -> Result<Gap, ConvertError> {
    Ok(Gap {
        start_seconds: gap.start_seconds,
        duration_seconds: gap.duration_seconds,
        missed: gap.missed,
        reason: word_of("sources.gaps.reason", &gap.reason)?,
    })
}

fn removal_to_proto(removal: &Removal) -> proto::Removal {
    proto::Removal {
        state: match removal.state {
            RemovalState::Pending => "pending",
            RemovalState::Removed => "removed",
        }
        .to_owned(),
        removed_at: text_of(removal.removed_at),
        reason: removal.reason.as_str().to_owned(),
    }
}

fn removal_from_proto(removal: proto::Removal) -> Result<Removal, ConvertError> {
    Ok(Removal {
        state: word_of("removal.state", &removal.state)?,
        removed_at: time_of("removal.removed_at", &removal.removed_at)?,
        reason: match removal.reason.as_str() {
            "" => RemovalReason::default(),
            word => word_of("removal.reason", word)?,
        },
    })
}

fn text_of(value: Option<impl fmt::Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn time_of(field: &str, text: &str) -> Result<Option<WallTime>, ConvertError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| unreadable(field, text))
}

/// The value that a word names in the receipt's JSON, which has the same words.
fn word_of<T: DeserializeOwned>(field: &str, word: &str) -> Result<T, ConvertError> {
    serde_json::from_value(Value::String(word.to_owned())).map_err(|_| unreadable(field, word))
}

fn unreadable(field: &str, value: &str) -> ConvertError {
    ConvertError::Unreadable { field: field.to_owned(), value: value.to_owned() }
}
