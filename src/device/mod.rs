//! Devices: opening, reading and closing cameras, microphones and virtual devices.
//! Must never write media or decide about a session; runs only in workers and probes.

mod camera;
mod catalog;
mod error;
mod microphone;
mod pipe;
mod replay;
mod synthetic;
mod wait;
mod wake;

use crate::clock::MonoTime;
use crate::media::{Format, Frame, TimestampSource};
use crate::session::device::{Address, DeviceSpec};

pub use catalog::search;
pub use error::DeviceError;
pub use wake::Wake;

/// An open device. Dropping it closes it; [`Device::close`] closes it and tells how that went.
pub trait Device: Send {
    /// The format that was agreed on; fixed while the device is open.
    fn format(&self) -> Format;

    /// Where its timestamps come from.
    fn timestamp_source(&self) -> TimestampSource;

    /// Starts the capture (`VIDIOC_STREAMON`, the stream's start).
    ///
    /// # Errors
    /// The driver's refusal, named.
    fn start(&mut self) -> Result<(), DeviceError>;

    /// The next frame, or `None` when there was none until `deadline` or the device's [`Wake`] rang.
    /// After an error other than the end of a replay the device has to be closed.
    ///
    /// # Errors
    /// The device is gone, or failed.
    fn next(&mut self, deadline: MonoTime) -> Result<Option<Frame<'_>>, DeviceError>;

    /// Pictures that came so broken since the last call that they are none.
    fn broken(&mut self) -> u64 {
        0
    }

    /// Stops the capture and closes every descriptor; nothing is held when it returns.
    ///
    /// # Errors
    /// The driver refused; the descriptors are closed all the same.
    fn close(self: Box<Self>) -> Result<(), DeviceError>;
}

/// Opens the device of `spec`; `wake` interrupts its waits.
///
/// # Errors
/// The device is missing, busy, another one than meant, or can't deliver the format asked for.
pub fn open(spec: &DeviceSpec, wake: &Wake) -> Result<Box<dyn Device>, DeviceError> {
    match &spec.address {
        Address::Camera { .. } => camera::open(spec, wake),
        Address::Microphone { .. } => microphone::open(spec, wake),
        Address::Synthetic { .. } => synthetic::open(spec, wake),
        Address::Replay { .. } => replay::open(spec, wake),
        Address::Pipe { .. } => pipe::open(spec, wake),
    }
}
