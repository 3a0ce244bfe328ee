//! shutterd records the cameras and microphones of a session, drains on stop, and says what it kept.

pub mod access;
pub mod api;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod daemon;
pub mod device;
pub mod http;
pub mod journal;
pub mod library;
pub mod link;
pub mod matroska;
pub mod media;
pub mod recording;
pub mod session;
pub mod supervisor;
pub mod telemetry;
pub mod worker;
