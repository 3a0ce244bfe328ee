//! Framing: each message is its length (4 bytes, little endian) and its bytes.

use prost::Message;
use thiserror::Error;

/// The longest message that either end takes.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
const LENGTH_BYTES: usize = 4;

/// Bytes that are no message.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The length is beyond the limit.
    #[error("a link message of {bytes} bytes: at most {MESSAGE_BYTES_MAX} are taken")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The bytes are no message of this kind.
    #[error("a link message that can't be read")]
    Malformed(#[from] prost::DecodeError),
}

/// The bytes of `message` on the wire.
pub fn encode(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + length);
    let prefix = u32::try_from(length).expect("messages are far below 4 GiB");
    bytes.extend(prefix.to_le_bytes());
    message.encode(&mut bytes).expect("a vector takes any length");
    bytes
}

/// Finds messages in a stream of bytes; holds at most one message that is not complete.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes in bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message, or `None` until more bytes come.
    ///
    /// # Errors
    /// The stream is no stream of messages; it can't be used further.
    pub fn next_message<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let bytes = u32::from_le_bytes(*prefix) as usize;
        if bytes > MESSAGE_BYTES_MAX {
            return Err(FrameError::TooLong { bytes });
        }
        let end = LENGTH_BYTES + bytes;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let message = M::decode(&self.buffer[LENGTH_BYTES..end])?;
        self.buffer.drain(..end);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::message::{FromWorker, Working, from_worker};
    use proptest::prelude::*;

    #[test]
    fn messages_cut_anywhere_come_out_whole() {
        let message =
            FromWorker { body: Some(from_worker::Body::Working(Working { origin: 7, first_segment: 2 })) };
        let stream: Vec<u8> = (0..3).flat_map(|_| encode(&message)).collect();
        for step in 1..stream.len() {
            let mut decoder = Decoder::default();
            let mut count = 0;
            for piece in stream.chunks(step) {
                decoder.push(piece);
                while let Some(found) =
                    decoder.next_message::<FromWorker>().expect("what was encoded can be read")
                {
                    assert_eq!(found, message);
                    count += 1;
                }
            }
            assert_eq!(count, 3);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_message::<FromWorker>() {}
        }
    }
}
