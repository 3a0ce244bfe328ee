//! What a worker's control thread is told by its other threads.

use std::time::Duration;

use crate::clock::MonoTime;
use crate::device::DeviceError;
use crate::link::message::ToWorker;
use crate::matroska::Codec;
use crate::recording::RecordError;

/// Something happened in a worker.
#[derive(Debug)]
pub(super) enum Event {
    /// The daemon says something, on the connection with this number.
    Link(u64, ToWorker),
    /// The connection with this number is gone.
    LinkLost(u64),
    /// SIGTERM.
    Terminated,
    /// A device is open; how its track is encoded, and the time between its frames.
    Opened(usize, Codec, Duration),
    /// A device can't be opened.
    OpenFailed(usize, DeviceError),
    /// The device of a source whose session goes on is gone; it is looked for.
    Missing(usize),
    /// A source has delivered its first frame.
    FirstFrame(usize, MonoTime),
    /// A source is degraded, or delivers again.
    Turned,
    /// A device is closed and everything of it is in the queue.
    Closed(usize),
    /// The recording can't go on.
    RecordFailed(RecordError),
    /// The recording is final, or could not be made so.
    Recorded(Result<(), RecordError>),
}
