//! What the daemon and its workers say to each other, as bytes: messages, their framing, the settings
//! of a worker. No I/O happens here; `supervisor` and `worker` own the two ends of the socket.

mod frame;
mod reports;
mod settings;

/// Generated from `proto/shutterd/link/v1/link.proto`.
#[expect(missing_docs, clippy::pedantic, reason = "generated code")]
pub mod message {
    tonic::include_proto!("shutterd.link.v1");
}

pub use frame::{Decoder, FrameError, MESSAGE_BYTES_MAX, encode};
pub use reports::{
    LAST_ACCOUNT_DRAFT_NAME, LAST_ACCOUNT_NAME, LastAccount, ProbeHead, ProbeLine, RepairReport,
    RepairedFile, RepairedTrack,
};
pub use settings::{Sound, SourceSettings, WorkerSettings};

/// The version of the link that this build speaks. Both ends must speak the same one.
pub const LINK_VERSION: u32 = 1;
