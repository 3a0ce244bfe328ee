//! What a packet holds, told from its bytes: frames of pictures, samples of sound.

use crate::matroska::Codec;

/// Bytes of a packet's beginning that [`units`] needs.
pub(super) const HEAD_BYTES: usize = 16;

/// Frames, or samples (per channel), of a packet of `payload_bytes` that begins with `head`.
pub(super) fn units(codec: &Codec, payload_bytes: u64, head: &[u8]) -> u64 {
    match codec {
        Codec::Flac { .. } => flac_samples(head).unwrap_or(0),
        Codec::Pcm { audio } => {
            let sample_bytes = u64::from(audio.channels) * u64::from(audio.bits.div_ceil(8));
            payload_bytes / sample_bytes.max(1)
        }
        _ => 1,
    }
}

/// Samples (per channel) of a FLAC frame, from its header (RFC 9639, section 9.1.1).
fn flac_samples(frame: &[u8]) -> Option<u64> {
    let code = u32::from(frame.get(2)? >> 4);
    // The coded number that stands before an explicit block size has as many bytes as UTF-8 would.
    let number_bytes = (frame.get(4)?.leading_ones() as usize).max(1);
    let explicit = |at: usize| frame.get(4 + number_bytes + at).copied().map(u64::from);
    match code {
        1 => Some(192),
        2..=5 => Some(576 << (code - 2)),
        6 => Some(explicit(0)? + 1),
        7 => Some((explicit(0)? << 8 | explicit(1)?) + 1),
        8..=15 => Some(256 << (code - 8)),
        _ => None,
    }
}
