//! JPEG: raw pictures are compressed to it, and streams of it are taken apart by their markers.
//! Must never decode a picture, nor change one that is JPEG already.

mod encoder;
mod markers;
mod splitter;

pub use encoder::Encoder;
pub use markers::{Walk, Walked, dimensions, length};
pub use splitter::Splitter;
