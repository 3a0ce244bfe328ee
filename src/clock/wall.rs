//! Wall clock time, as people and the API write it.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A point of `CLOCK_REALTIME`; written as RFC 3339 with milliseconds and `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(Timestamp);

/// A text that is no RFC 3339 time.
#[derive(Debug, Error)]
#[error("{text:?} is no time: write RFC 3339 with a zone, like 2026-05-01T11:30:00.000Z")]
pub struct ParseWallError {
    text: String,
    source: jiff::Error,
}

impl WallTime {
    /// The point `ns` nanoseconds after 1970-01-01T00:00:00Z, held within the years that can be written.
    pub fn from_nanos(ns: i128) -> Self {
        let end = if ns < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Self(Timestamp::from_nanosecond(ns).unwrap_or(end))
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub fn nanos(self) -> i128 {
        self.0.as_nanosecond()
    }

    /// Nanoseconds that have passed since `earlier`: 0 if it is later, and never more than 584 years.
    pub fn nanos_since(self, earlier: Self) -> u64 {
        u64::try_from((self.nanos() - earlier.nanos()).max(0)).unwrap_or(u64::MAX)
    }
}

impl FromStr for WallTime {
    type Err = ParseWallError;

    fn from_str(text: &str) -> Result<Self, ParseWallError> {
        text.parse()
            .map(Self)
            .map_err(|source| ParseWallError { text: text.chars().take(64).collect(), source })
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;

    fn add(self, length: Duration) -> Self {
        Self::from_nanos(self.nanos().saturating_add_unsigned(length.as_nanos()))
    }
}

impl Sub<Duration> for WallTime {
    type Output = Self;

    fn sub(self, length: Duration) -> Self {
        Self::from_nanos(self.nanos().saturating_sub_unsigned(length.as_nanos()))
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}
