//! Whether a payload that was never known to be durable is the one that was captured.
//!
//! After a power cut a file system may keep a file's length and lose its last pages: they read as zeros.

use super::header::Codec;

/// A page of the file, which is kept or lost as one.
const PAGE_BYTES: u64 = 4096;
/// Less than this many zeros in one page may be a camera's padding.
const ZEROS_MIN: usize = 512;

/// Whether a lost page shows in the payloads of a codec. In PCM it does not: silence is zeros.
pub(super) fn shows_loss(codec: &Codec) -> bool {
    matches!(codec, Codec::Mjpeg { .. } | Codec::Flac { .. })
}

/// Whether `payload`, which starts at `offset` of its file, shows no sign of a lost page.
pub(super) fn is_sound(codec: &Codec, offset: u64, payload: &[u8]) -> bool {
    match codec {
        Codec::Mjpeg { .. } => payload.starts_with(&[0xFF, 0xD8]) && !has_lost_page(offset, payload),
        Codec::Flac { .. } => payload.first() == Some(&0xFF) && crc16(payload) == 0,
        Codec::Pcm { .. } | Codec::Other(_) => true,
    }
}

fn has_lost_page(offset: u64, payload: &[u8]) -> bool {
    let first = usize::try_from(PAGE_BYTES - offset % PAGE_BYTES).expect("at most a page").min(payload.len());
    let (first, rest) = payload.split_at(first);
    let lost = |page: &[u8]| page.len() >= ZEROS_MIN && page.iter().all(|byte| *byte == 0);
    lost(first) || rest.chunks(4096).any(lost)
}

/// FLAC's CRC-16 (RFC 9639 §9.3): polynomial 0x8005 from zero; over a whole frame with its own CRC it is 0.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in bytes {
        crc = crc << 8 ^ CRC16_OF_BYTE[usize::from(crc.to_be_bytes()[0] ^ byte)];
    }
    crc
}

const CRC16_OF_BYTE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_u16;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x8005 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matroska::AudioFormat;

    const MJPEG: Codec = Codec::Mjpeg { width: 16, height: 16, frame_ns: None };
    const FLAC: Codec =
        Codec::Flac { audio: AudioFormat { rate_hz: 48_000, channels: 1, bits: 16 }, stream_info: [0; 34] };

    #[test]
    fn a_jpeg_with_a_page_of_zeros_lost_some() {
        let mut jpeg = vec![0x55; 20_000];
        jpeg[..2].copy_from_slice(&[0xFF, 0xD8]);
        assert!(is_sound(&MJPEG, 100, &jpeg));
        jpeg[8192 - 100..12_288 - 100].fill(0);
        assert!(!is_sound(&MJPEG, 100, &jpeg));
        assert!(is_sound(&MJPEG, 101, &jpeg), "zeros that are no page were captured as they are");
    }

    #[test]
    fn a_jpeg_whose_last_page_is_zeros_lost_its_end() {
        let mut jpeg = vec![0x55; 5000];
        jpeg[..2].copy_from_slice(&[0xFF, 0xD8]);
        jpeg[4096..].fill(0);
        assert!(!is_sound(&MJPEG, 0, &jpeg));
        assert!(is_sound(&MJPEG, 0, &jpeg[..4400]), "304 zeros may be padding");
        assert!(!is_sound(&MJPEG, 0, &[0; 300]), "no start of image");
    }

    #[test]
    fn a_flac_frame_is_sound_when_its_crc_says_so() {
        let mut frame = vec![0xFF, 0xF8, 0x69, 0x08, 0, 1, 2, 3];
        let crc = crc16(&frame);
        frame.extend_from_slice(&crc.to_be_bytes());
        assert!(is_sound(&FLAC, 0, &frame));
        frame[5] ^= 1;
        assert!(!is_sound(&FLAC, 0, &frame));
        assert!(!is_sound(&FLAC, 0, &[0; 100]), "zeros have a CRC of zero");
    }
}
