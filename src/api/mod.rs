//! The gRPC control plane: `shutterd.v1.CaptureAgent`, health and reflection, on a Unix socket and on
//! TCP. Each call is a message to the supervisor; generated types stop here.

pub mod convert;
mod deadline;
mod explain;
mod guard;
mod limited;
mod media;
mod serve;
mod service;
mod status;
mod streams;

/// Generated from `proto/shutterd/v1/agent.proto`.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod proto {
    tonic::include_proto!("shutterd.v1");

    /// The compiled protos, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("agent_descriptor");
}

pub use guard::Guard;
pub use serve::{Api, ApiError, Bound, bind};
pub use service::About;
