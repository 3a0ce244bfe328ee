//! Limits that are not settings: what a caller may send, and what one session may hold.

use std::time::Duration;

/// Characters of a session's id.
pub const ID_CHARS_MAX: usize = 64;
/// Characters of a session's name.
pub const NAME_CHARS_MAX: usize = 256;
/// Bytes of a session's JSON.
pub const SPEC_BYTES_MAX: usize = 64 * 1024;
/// Sources of a session.
pub const SOURCES_MAX: usize = 16;
/// Characters of a source's id, name or device id.
pub const SOURCE_TEXT_CHARS_MAX: usize = 256;
/// Gaps that the account of one source lists; further ones only count.
pub const GAPS_MAX: usize = 1000;
/// Warnings that a receipt carries.
pub const WARNINGS_MAX: usize = 100;
/// How long the id of a stop that overtook its start is refused.
pub const TOMBSTONE: Duration = Duration::from_mins(1);
/// Keys of stops that a session remembers; later ones are not.
pub const STOP_KEYS_MAX: usize = 16;
/// Tombstones that are kept; beyond it the oldest goes.
pub const TOMBSTONES_MAX: usize = 10_000;
