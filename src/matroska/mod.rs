//! Recordings as bytes: what to append to a Matroska file, what an existing one holds, and how a torn one is
//! mended. This module never opens a file, reads no clock and starts no thread; it turns packets into bytes
//! and bytes into blocks.
//!
//! ```text
//! 0        EBML header                          RFC 8794 §11.2
//!          Segment, 8-byte size                 unknown until the finish (RFC 8794 §6.2)
//!          ├ Void, 128 bytes                    SeekHead at the finish
//!          ├ Info                               Void of 11 bytes in it: Duration at the finish
//!          ├ Tracks, Tags                       what is known at the start; Voids at the finish where no packet came
//! n×4096   ├ Void                               pads the header to whole pages
//!          ├ Cluster, 8-byte size               unknown until closed and synced; ≤ 1 s, ≤ 32 MiB
//!          │   ├ CRC-32                         Void until it gets its size (RFC 8794 §11.3.1)
//!          │   └ Timestamp, SimpleBlock…        in the order of arrival
//!          ├ Cluster…
//!          ├ Cues                               at the finish, with the second Tags
//!          └ Tags
//! ```
//!
//! A file is made by one [`Writer`]: append the bytes of [`Writer::new`], then for each packet its [`Prefix`] and its
//! payload, then the [`Finish`]; write each [`Patch`] once the bytes before its `after` are durable. A file that was
//! left unfinished is mended by [`repair()`]. A [`Reader`] plays either, and one that still grows.
//!
//! Element names, ids and rules are those of RFC 9559 (Matroska) and RFC 8794 (EBML). One tick is 100 µs.

mod cues;
mod cut;
mod damage;
mod ebml;
mod error;
mod header;
mod parse;
mod reader;
mod repair;
mod silent;
mod sound;
mod tags;
mod tail;
mod tally;
mod units;
mod window;
mod writer;

pub use cues::Cue;
pub use cut::{Cut, cut_after};
pub use damage::{Damage, Place, Span, damage};
pub use error::Error;
pub use header::{AudioFormat, Codec, Header, Track};
pub use parse::Info;
pub use reader::{Block, Next, Reader};
pub use repair::{RepairPlan, repair};
pub use tags::{SOURCE_ID, Tag, TagTarget};
pub use tally::Tally;
pub use units::{
    CLUSTER_BYTES_MAX, CLUSTER_SPAN_NS, HEADER_ALIGN_BYTES, PACKET_BYTES_MAX, Patch, TAGS_BYTES_MAX, TICK_NS,
    Timestamp, TrackNumber, WallTime,
};
pub use writer::{Finish, Packet, Prefix, Writer};

#[cfg(test)]
mod tests;
