//! The text of a record: JSON, and a checksum as its last member, so that a bit that the disk has turned is
//! never taken for what was written. Programs that know of no checksum read the text all the same, and
//! write theirs without one.

use thiserror::Error;

use super::Record;

/// In front of the checksum, and behind it.
const SUM: (&str, &str) = (",\"sum\":\"", "\"}");
/// Hex digits of a checksum, which is BLAKE3 of the text without it.
const SUM_CHARS: usize = 64;

/// A text that gives no record.
#[derive(Debug, Error)]
pub enum BodyError {
    /// It isn't what was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It is what was written, and this program doesn't understand it.
    #[error("{0}")]
    Unknown(serde_json::Error),
}

/// The text of `record`.
///
/// # Errors
/// There is something in it that JSON can't say.
pub fn write(record: &Record) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(record)?;
    let sum = blake3::hash(text.as_bytes()).to_hex();
    // The closing brace goes behind the checksum.
    text.pop();
    text.extend([SUM.0, sum.as_str(), SUM.1]);
    Ok(text)
}

/// The record that `text` is of.
///
/// # Errors
/// Why it gives none.
pub fn read(text: &str) -> Result<Record, BodyError> {
    let sum_holds = check(text)?;
    serde_json::from_str(text).map_err(|error| {
        if sum_holds { BodyError::Unknown(error) } else { BodyError::Damaged(error.to_string()) }
    })
}

/// Whether the text has a checksum, which is right then.
fn check(text: &str) -> Result<bool, BodyError> {
    let parts =
        text.strip_suffix(SUM.1).and_then(|rest| rest.split_at_checked(rest.len().checked_sub(SUM_CHARS)?));
    let Some((rest, sum)) = parts else { return Ok(false) };
    let Some(content) = rest.strip_suffix(SUM.0) else { return Ok(false) };
    let mut hasher = blake3::Hasher::new();
    hasher.update(content.as_bytes()).update(b"}");
    if hasher.finalize().to_hex().as_str() == sum {
        Ok(true)
    } else {
        Err(BodyError::Damaged("its checksum is wrong".to_owned()))
    }
}
