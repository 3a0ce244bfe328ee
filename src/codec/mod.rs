//! Codecs: pictures to JPEG, sound to FLAC or PCM, and the structure of JPEG streams.
//! Must never read a device or a file, nor change what passes through.

mod error;
pub mod flac;
pub mod jpeg;
pub mod pcm;

pub use error::CodecError;
