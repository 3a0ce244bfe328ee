//! What can go wrong in a codec, told apart by what a caller can do about it.

use thiserror::Error;

/// A frame could not be encoded.
#[derive(Debug, Error)]
pub enum CodecError {
    /// The codec has no way to hold this format; choose another codec or another format.
    #[error("{codec} can't hold {format}: {reason}")]
    Format {
        /// Name of the codec.
        codec: &'static str,
        /// The format asked for.
        format: String,
        /// Which limit it breaks.
        reason: &'static str,
    },
    /// A frame of another size than the format's; the frame is lost, the next may be fine.
    #[error("{codec} got a frame of {found} {unit} where its format needs {wanted}")]
    Length {
        /// Name of the codec.
        codec: &'static str,
        /// Size of the frame.
        found: usize,
        /// Size that the format needs, or the largest that it allows.
        wanted: usize,
        /// What is counted: `bytes` or `samples`.
        unit: &'static str,
    },
    /// A sample outside of the format's depth: the device breaks its own format.
    #[error("{codec} got sample {sample}, which does not fit into {bits} bits")]
    Range {
        /// Name of the codec.
        codec: &'static str,
        /// The sample.
        sample: i32,
        /// Depth of the format.
        bits: u8,
    },
    /// A block after a short one, which can only be the stream's last.
    #[error("{codec} stream has ended with a short block: start a new stream")]
    Ended {
        /// Name of the codec.
        codec: &'static str,
    },
    /// The library refused.
    #[error("{codec} failed")]
    Library {
        /// Name of the codec.
        codec: &'static str,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
