//! Pictures: MJPEG passes through byte for byte, raw formats become JPEG.

use std::time::Duration;

use super::Context;
use super::track::push;
use crate::clock::MonoTime;
use crate::codec::{CodecError, jpeg};
use crate::media::{Packet, PixelFormat, VideoFormat};

pub(super) struct Pictures {
    interval: Duration,
    encoder: Option<jpeg::Encoder>,
    revision: u32,
}

impl Pictures {
    pub(super) fn new(format: VideoFormat, quality: u8, revision: u32) -> Result<Self, CodecError> {
        let encoder = match format.pixel {
            PixelFormat::Mjpeg => None,
            _ => Some(jpeg::Encoder::new(format, quality)?),
        };
        Ok(Self { interval: Duration::from_nanos(format.interval_ns), encoder, revision })
    }

    /// Takes one picture in. One that can't be encoded is counted as lost and damaged.
    pub(super) fn take(&mut self, context: &Context, timestamp: MonoTime, bytes: &[u8], corrupt: bool) {
        let end = timestamp + self.interval;
        context.ledger.captured(context.source, timestamp, end, 1);
        let payload = match &mut self.encoder {
            None => {
                if corrupt || !bytes.starts_with(&[0xFF, 0xD8]) {
                    context.ledger.corrupt(context.source, 1);
                }
                bytes.to_vec()
            }
            Some(encoder) => match encoder.encode(bytes) {
                Ok(payload) => {
                    if corrupt {
                        context.ledger.corrupt(context.source, 1);
                    }
                    payload
                }
                Err(error) => {
                    tracing::debug!(%error, "a picture can't be encoded");
                    context.ledger.corrupt(context.source, 1);
                    return context.ledger.lost(context.source, 1);
                }
            },
        };
        push(
            context,
            Packet { source: context.source, timestamp, end, units: 1, revision: self.revision, payload },
        );
    }
}
