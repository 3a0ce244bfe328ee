//! Cameras: V4L2 devices, found and set up by nokhwa, read on `v4l` with a deadline.
//! Must never wait in the driver: every wait is a `poll(2)` that the wake and a deadline end.

mod choice;
mod fd;
mod frames;
pub mod modes;
mod negotiate;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::io::Errno;
use v4l::buffer::{Metadata, Type};
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};

use super::wait::{Waited, wait};
use super::{Device, DeviceError, Wake, catalog};
use crate::clock::MonoTime;
use crate::media::{Format, Frame, PixelFormat, TimestampSource};
use crate::session::device::{Address, DeviceSpec};
use frames::Frames;

/// Buffers that are asked for: 267 ms at 30 frames a second for a worker that is held up.
const BUFFERS: u32 = 8;
/// Below this a driver has nowhere to write while we read.
const BUFFERS_MIN: u32 = 2;
/// Bounds the wait inside of `v4l`, which follows a `poll(2)` that said there is a frame.
const DEQUEUE_TIMEOUT: Duration = Duration::from_millis(50);

/// An open camera. The stream borrows nothing: it holds the device's handle.
struct Camera {
    label: Label,
    device: Option<v4l::Device>,
    stream: Option<Stream<'static>>,
    wake: Wake,
    frames: Frames,
    /// The stream queued its buffer but got none: `next` must not queue it again.
    is_requeued: bool,
    first: First,
}

/// The first frame is copied, because it may be one to skip.
enum First {
    Awaited { has_skipped: bool },
    Taken(Vec<u8>, Metadata),
    Given,
}

/// What errors call a camera.
struct Label {
    device: String,
    node: String,
}

/// Opens the camera of `spec`; its buffers are allocated, so nobody else can stream from it.
///
/// # Errors
/// The camera is missing, busy, forbidden, another one than meant, or can't deliver the wish.
pub fn open(spec: &DeviceSpec, wake: &Wake) -> Result<Box<dyn Device>, DeviceError> {
    let Address::Camera { node, bus, by_id } = &spec.address else {
        unreachable!("the caller opens cameras by camera addresses");
    };
    let labelled = |node: &str| Label { device: format!("{} ({node})", spec.label), node: node.to_owned() };
    let (label, opened) = match negotiate::open(&labelled(node), bus, &spec.wish) {
        // Plugged in again it may have another node, and at another port another place.
        Err(error @ (DeviceError::Missing { .. } | DeviceError::Impostor { .. })) => {
            let Some(found) = catalog::camera(&spec.key, by_id.as_deref()) else { return Err(error) };
            let label = labelled(&found.node);
            tracing::info!(device = %label.device, "the camera is found at another node");
            let opened = negotiate::open(&label, &found.bus, &spec.wish)?;
            (label, opened)
        }
        opened => (labelled(node), opened?),
    };
    let (device, format) = opened;
    let allocated = guarded(|| Stream::with_buffers(&device, Type::VideoCapture, BUFFERS));
    let mut stream = allocated.map_err(|error| label.refusal("allocating buffers", error))?;
    stream.set_timeout(DEQUEUE_TIMEOUT);
    Ok(Box::new(Camera {
        label,
        device: Some(device),
        stream: Some(stream),
        wake: wake.clone(),
        frames: Frames::new(format),
        is_requeued: false,
        first: First::Awaited { has_skipped: false },
    }))
}

impl Device for Camera {
    fn format(&self) -> Format {
        Format::Video(self.frames.format())
    }

    fn timestamp_source(&self) -> TimestampSource {
        self.frames.stamps()
    }

    fn start(&mut self) -> Result<(), DeviceError> {
        let stream = self.stream.as_mut().expect("a camera is closed only by giving it up");
        // `next` queues the stream's first buffer itself; the others are queued here. A driver that
        // granted fewer than asked for refuses the first index that it doesn't have.
        for index in 1..BUFFERS {
            match CaptureStream::queue(stream, index as usize) {
                Ok(()) => {}
                Err(error) if is(&error, Errno::INVAL) && index >= BUFFERS_MIN => break,
                Err(error) => return Err(self.label.refusal("queueing buffers", error)),
            }
        }
        stream.start().map_err(|error| self.label.refusal("starting", error))
    }

    fn next(&mut self, deadline: MonoTime) -> Result<Option<Frame<'_>>, DeviceError> {
        if let First::Awaited { .. } = self.first {
            self.take_first(deadline)?;
            return Ok(match &self.first {
                First::Taken(bytes, metadata) => Some(self.frames.frame(bytes, metadata)),
                First::Awaited { .. } | First::Given => None,
            });
        }
        self.first = First::Given;
        if !self.is_ready(deadline)? {
            return Ok(None);
        }
        let stream = self.stream.as_mut().expect("a camera is closed only by giving it up");
        match CaptureStream::next(stream) {
            Ok((buffer, metadata)) => Ok(Some(self.frames.frame(buffer, metadata))),
            Err(error) if is_passing(&error) => {
                self.is_requeued = true;
                Ok(None)
            }
            Err(error) => Err(self.label.refusal("reading", error)),
        }
    }

    fn close(mut self: Box<Self>) -> Result<(), DeviceError> {
        self.release()
    }
}

impl Camera {
    /// Waits for a frame; false when there is none until `deadline` or the wake rang.
    fn is_ready(&mut self, deadline: MonoTime) -> Result<bool, DeviceError> {
        let device = self.device.as_ref().expect("a camera is closed only by giving it up");
        let stream = self.stream.as_mut().expect("a camera is closed only by giving it up");
        loop {
            let waited = wait(fd::of(device), &self.wake, deadline);
            if waited.map_err(|error| self.label.refusal("waiting", error))? != Waited::Ready {
                return Ok(false);
            }
            if !self.is_requeued {
                return Ok(true);
            }
            // `v4l` gives no way to the bytes of this one frame: it shows as a gap in the sequence.
            match CaptureStream::dequeue(stream) {
                Ok(_) => self.is_requeued = false,
                Err(error) if is_passing(&error) => return Ok(false),
                Err(error) => return Err(self.label.refusal("reading", error)),
            }
        }
    }

    /// Takes the first frame. A loopback driver begins with a buffer that was never written: it says
    /// that a compressed picture fills it to the last byte, and counts it far before the next.
    fn take_first(&mut self, deadline: MonoTime) -> Result<(), DeviceError> {
        while let First::Awaited { has_skipped } = self.first {
            if !self.is_ready(deadline)? {
                return Ok(());
            }
            let is_mjpeg = self.frames.format().pixel == PixelFormat::Mjpeg;
            let stream = self.stream.as_mut().expect("a camera is closed only by giving it up");
            match CaptureStream::next(stream) {
                Ok((buffer, metadata))
                    if is_mjpeg && !has_skipped && metadata.bytesused as usize >= buffer.len() =>
                {
                    self.first = First::Awaited { has_skipped: true };
                }
                Ok((buffer, metadata)) => self.first = First::Taken(buffer.to_vec(), *metadata),
                Err(error) if is_passing(&error) => self.is_requeued = true,
                Err(error) => return Err(self.label.refusal("reading", error)),
            }
        }
        Ok(())
    }

    /// Stops the stream, frees the buffers and closes the descriptor, whatever of it fails.
    fn release(&mut self) -> Result<(), DeviceError> {
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        let stopped = match guarded(|| stream.stop()) {
            // A device that was unplugged has nothing left to stop.
            Err(error) if is(&error, Errno::NODEV) => Ok(()),
            other => other.map_err(|error| self.label.refusal("stopping", error)),
        };
        let free = || {
            drop(stream);
            Ok(())
        };
        let freed = guarded(free).map_err(|error| self.label.refusal("freeing buffers", error));
        let closed = self.device.take().map_or(Ok(()), |device| negotiate::close(&self.label, device));
        stopped.and(freed).and(closed)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::warn!(%error, "a camera did not close well");
        }
    }
}

impl Label {
    /// What a failed call means to the caller.
    fn refusal(&self, doing: &'static str, source: io::Error) -> DeviceError {
        let (device, node) = (self.device.clone(), self.node.clone());
        match Errno::from_io_error(&source) {
            Some(Errno::NODEV | Errno::NXIO | Errno::NOENT) => DeviceError::Missing { device },
            Some(Errno::BUSY) => DeviceError::Busy { device, node },
            Some(Errno::ACCESS | Errno::PERM) => DeviceError::Denied { device, node },
            Some(Errno::NOSPC) => DeviceError::Bandwidth { device },
            _ => DeviceError::Failed { device, doing, source },
        }
    }
}

/// Runs a call into `v4l`, which panics on values that it doesn't know and on errors in its drops.
pub fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let refused = || Err(io::Error::other("the driver's answer is not one that the v4l crate knows"));
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| refused())
}

/// Errors of a read after which the stream goes on.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_named_by_its_cause() {
        let label = Label { device: "desk (/dev/video0)".to_owned(), node: "/dev/video0".to_owned() };
        let refusal = |errno: Errno| label.refusal("starting", errno.into());
        assert!(matches!(refusal(Errno::NODEV), DeviceError::Missing { .. }));
        assert!(matches!(refusal(Errno::NOENT), DeviceError::Missing { .. }));
        assert!(matches!(refusal(Errno::BUSY), DeviceError::Busy { .. }));
        assert!(matches!(refusal(Errno::ACCESS), DeviceError::Denied { .. }));
        assert!(matches!(refusal(Errno::NOSPC), DeviceError::Bandwidth { .. }));
        assert!(matches!(refusal(Errno::IO), DeviceError::Failed { doing: "starting", .. }));
    }

    #[test]
    fn a_panic_in_the_crate_below_is_an_error() {
        let result: io::Result<()> = guarded(|| panic!("as v4l does"));
        assert!(result.is_err());
    }
}
