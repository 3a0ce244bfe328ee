//! Between the messages of the API and what the rest of the program speaks: the session's JSON and
//! the types of `session`. Generated types stop here. Must never lose a member or a digit.

mod health;
mod progress;
mod receipt;
mod session;

use thiserror::Error;

pub use health::health_to_proto;
pub use progress::progress_to_proto;
pub use receipt::{receipt_from_proto, receipt_to_proto};
pub use session::{session_from_proto, session_to_proto};

/// Levels of nested objects and arrays that a session may have. serde_json reads at most 127, and
/// what is taken in must also be read back from inside the journal's and the link's records.
pub const DEPTH_MAX: usize = 100;

/// A message that can't be read.
#[derive(Debug, Error)]
pub enum ConvertError {
    /// A field `extra_json` holds something else.
    #[error("session.{field} must hold a JSON object: {source}")]
    ExtraJson {
        /// The field, as `sources[1].extra_json`.
        field: String,
        /// What the reader stumbled over.
        source: serde_json::Error,
    },
    /// A double is infinite or no number.
    #[error("session.{field} is {value}: JSON has no such number, send a finite one")]
    NotFinite {
        /// The field, as `duration`.
        field: String,
        /// What it holds.
        value: f64,
    },
    /// The session is nested too deep.
    #[error("session is nested more than {DEPTH_MAX} levels deep: send fewer")]
    TooDeep,
    /// A field of a receipt holds a value that this version doesn't know.
    #[error(
        "receipt.{field} is {value:?}, which this version of shutterd can't read: use the agent's own version"
    )]
    Unreadable {
        /// The field, as `end_reason`.
        field: String,
        /// What it holds.
        value: String,
    },
}

impl ConvertError {
    /// The field of the session or the receipt that can't be read, as `sources[1].extra_json`; empty
    /// for the whole.
    pub fn field(&self) -> &str {
        match self {
            Self::ExtraJson { field, .. }
            | Self::NotFinite { field, .. }
            | Self::Unreadable { field, .. } => field,
            Self::TooDeep => "",
        }
    }
}
