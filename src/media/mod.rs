//! What flows through a worker: frames as devices hand them over, packets as files hold them, and
//! the bounded queue between the two. Must never touch a device or a file.

mod frame;
mod packet;
mod queue;

pub use frame::{AudioFormat, Body, Format, Frame, PixelFormat, SampleFormat, TimestampSource, VideoFormat};
pub use packet::{Packet, Payload};
pub use queue::{Popped, Pushed, Queue, QueueLimits};
