//! Packets: frames encoded, owned, on their way to the file.

use crate::clock::MonoTime;

/// One encoded frame of one source.
#[derive(Debug)]
pub struct Packet {
    /// Which source, counted from 0 in the session's order.
    pub source: usize,
    /// When the picture, or the first sample, was captured.
    pub timestamp: MonoTime,
    /// When the picture ends, or the last sample: the timestamp and the length in time.
    pub end: MonoTime,
    /// Frames, or samples (per channel), that it holds and that the device captured.
    pub units: u64,
    /// Which encoding of its source it has: 0 for the first, one more each time the source's format changed.
    pub revision: u32,
    /// The bytes that go into the file.
    pub payload: Payload,
}

/// The bytes of a packet.
pub type Payload = Vec<u8>;
