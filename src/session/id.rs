//! The id of a session: parsed once at the edge, safe as a file name from there on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::limits::ID_CHARS_MAX;

/// A session's id: 1 to 64 ASCII letters, digits, `-` and `_`, beginning with a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(String);

/// A text that is no session id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "session id {shown:?} is not valid: use 1 to 64 letters, digits, '-' and '_', beginning with a letter or digit"
)]
pub struct ParseIdError {
    shown: String,
}

impl SessionId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let fits = (1..=ID_CHARS_MAX).contains(&text.len());
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        let begins = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if fits && begins && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError { shown: text.chars().take(ID_CHARS_MAX).collect() })
        }
    }
}

impl TryFrom<String> for SessionId {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
