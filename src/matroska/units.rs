//! The units that packets, blocks and patches are told in, and the limits they keep.

use std::fmt;

/// Nanoseconds in one tick of the file, its TimestampScale (RFC 9559 §5.1.2.9).
pub const TICK_NS: u64 = 100_000;
/// A cluster takes no packet whose timestamp is this many nanoseconds or more past its own.
pub const CLUSTER_SPAN_NS: u64 = 1_000_000_000;
/// A cluster that holds a block takes no further one that would make its content longer than this.
pub const CLUSTER_BYTES_MAX: u64 = 32 << 20;
/// The longest payload of one packet; a reader takes a longer one for garbage.
pub const PACKET_BYTES_MAX: u64 = 32 << 20;
/// The header is padded to a multiple of this, so that the first cluster starts on a page.
pub const HEADER_ALIGN_BYTES: u64 = 4096;
/// The longest Tags element that is written or read.
pub const TAGS_BYTES_MAX: u64 = 1 << 20;
/// The longest Info or Tracks element that is read.
pub(super) const HEADER_BYTES_MAX: u64 = 1 << 20;
/// The most cue points a file gets; clusters beyond have none.
pub(super) const CUES_MAX: usize = 1 << 16;
/// The longest Cues element that is read: `CUES_MAX` points of at most 48 bytes.
pub(super) const CUES_BYTES_MAX: u64 = 4 << 20;
/// The most tags kept of one file.
pub(super) const TAGS_MAX: usize = 1 << 14;
/// The most clusters that one repair gives a size.
pub(super) const PATCHES_MAX: usize = 1 << 16;

/// Nanoseconds since the segment's time zero. A file holds whole ticks of 100 µs, so what is read back is
/// rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The segment's time zero.
    pub const ZERO: Self = Self(0);

    /// A time `ns` nanoseconds after time zero, before it when negative.
    pub const fn from_ns(ns: i64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since time zero.
    pub const fn ns(self) -> i64 {
        self.0
    }

    /// The nearest tick, or `None` before time zero.
    pub(super) fn ticks(self) -> Option<u64> {
        let ns = u64::try_from(self.0).ok()?;
        Some((ns + TICK_NS / 2) / TICK_NS)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ns", self.0)
    }
}

/// Nanoseconds of wall clock since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(i64);

impl WallTime {
    /// Unix time of 2001-01-01T00:00:00Z, where Matroska dates begin (RFC 8794 §7.6), in nanoseconds.
    const DATE_EPOCH_NS: i64 = 978_307_200_000_000_000;

    /// A wall time `ns` nanoseconds after 1970-01-01T00:00:00Z.
    pub const fn from_unix_ns(ns: i64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub const fn unix_ns(self) -> i64 {
        self.0
    }

    pub(super) const fn date(self) -> i64 {
        self.0.saturating_sub(Self::DATE_EPOCH_NS)
    }

    pub(super) const fn from_date(date: i64) -> Self {
        Self(date.saturating_add(Self::DATE_EPOCH_NS))
    }
}

/// A track's number in its file, 1 to 126, which is what one byte of a block can say (RFC 9559 §10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackNumber(u8);

impl TrackNumber {
    /// The greatest track number.
    pub const MAX: u8 = 126;

    /// A track number, or `None` unless `number` is 1 to 126.
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// The number, 1 to 126.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for TrackNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Bytes to write over others of the same count, without changing the file's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where the first byte goes, counted from the start of the file.
    pub offset: u64,
    /// What to write there.
    pub bytes: Vec<u8>,
    /// Apply it once every byte of the file before this offset is durable.
    pub after: u64,
}
