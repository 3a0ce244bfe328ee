//! Packets that tell which they are, so that what is found in a file can be held against what was fed.

use std::num::NonZeroU64;

use shutterd::clock::MonoTime;
use shutterd::matroska::{AudioFormat, Codec};
use shutterd::session::device::MediaType;

/// Where in a payload its source and number are.
const NAME_AT: usize = 8;
/// Bytes of the shortest payload.
pub const PAYLOAD_BYTES_MIN: usize = 16;
/// A page of a file, and how many zeros in one of a picture may be a camera's own.
const PAGE_BYTES: usize = 4096;
const ZEROS_MIN: usize = 512;

/// The longest payload.
const PAYLOAD_BYTES_MAX: usize = 16_000;
/// Payloads begin at so many places of the filler.
const FILLER_STEPS: usize = 251;
/// What payloads are filled with: no zeros.
static FILLER: [u8; PAYLOAD_BYTES_MAX + FILLER_STEPS] = {
    let mut bytes = [0; PAYLOAD_BYTES_MAX + FILLER_STEPS];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = ((at * 7 + at / FILLER_STEPS) % 255) as u8 + 1;
        at += 1;
    }
    bytes
};

/// What a source delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Mjpeg,
    Flac,
    Pcm,
}

/// A packet that was handed to the recorder.
#[derive(Clone, Debug)]
pub struct Fed {
    pub source: usize,
    pub number: u32,
    pub timestamp: MonoTime,
    pub end: MonoTime,
    pub units: u64,
    pub payload: Vec<u8>,
}

impl Kind {
    pub fn media(self) -> MediaType {
        if self == Self::Mjpeg { MediaType::Video } else { MediaType::Audio }
    }

    pub fn codec(self, revision: u32) -> Codec {
        let rate_hz = 48_000 + revision;
        let audio = AudioFormat { rate_hz, channels: 1, bits: 16 };
        match self {
            Self::Mjpeg => {
                Codec::Mjpeg { width: 16 + revision, height: 16, frame_ns: NonZeroU64::new(33_000_000) }
            }
            Self::Pcm => Codec::Pcm { audio },
            Self::Flac => {
                let mut stream_info = [0; 34];
                // 20 bits of rate, 3 of channels less one, 5 of bits less one (RFC 9639 §8.2).
                stream_info[10..18].copy_from_slice(&(u64::from(rate_hz) << 44 | 15 << 36).to_be_bytes());
                Codec::Flac { audio, stream_info }
            }
        }
    }

    /// Units in a payload of so many bytes.
    pub fn units(self, payload_bytes: usize) -> u64 {
        match self {
            Self::Mjpeg => 1,
            Self::Flac => 256,
            Self::Pcm => payload_bytes as u64 / 2,
        }
    }

    /// How long that takes.
    pub fn length_ns(self, units: u64) -> u64 {
        if self == Self::Mjpeg { 33_000_000 } else { units * 1_000_000_000 / 48_000 }
    }

    /// The payload of a packet, about `payload_bytes` long.
    pub fn payload(self, source: usize, number: u32, payload_bytes: usize) -> Vec<u8> {
        let length = payload_bytes.clamp(PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX) & !1;
        let from = (number as usize * 31 + source * 7) % FILLER_STEPS;
        let mut bytes = FILLER[from..from + length].to_vec();
        bytes[NAME_AT] = source as u8 + 1;
        for (at, byte) in bytes[NAME_AT + 1..NAME_AT + 6].iter_mut().enumerate() {
            *byte = 0x40 | (number >> (6 * at)) as u8 & 0x3F;
        }
        match self {
            Self::Mjpeg => {
                bytes[..2].copy_from_slice(&[0xFF, 0xD8]);
                bytes[length - 2..].copy_from_slice(&[0xFF, 0xD9]);
            }
            // A frame of 256 samples (RFC 9639 §9.1.1) whose number fits into a byte.
            Self::Flac => {
                bytes[..5].copy_from_slice(&[0xFF, 0xF8, 0x89, 0x08, 0x01]);
                let crc = crc16(&bytes[..length - 2]).to_be_bytes();
                bytes[length - 2..].copy_from_slice(&crc);
            }
            Self::Pcm => {}
        }
        bytes
    }

    /// Whether `found` may be what a power cut has left of `payload`, which lay at `offset` of its file and was
    /// not durable: what is lost of a page is zeros, which nobody can tell from silence, nor a few of them from
    /// padding.
    pub fn may_be_left_of(self, payload: &[u8], offset: u64, found: &[u8]) -> bool {
        let zeros_max = match self {
            Self::Mjpeg => ZEROS_MIN - 1,
            Self::Flac => 0,
            Self::Pcm => PAGE_BYTES,
        };
        zeroed(payload, offset, found).is_some_and(|most| most <= zeros_max)
    }
}

/// How many bytes of one page of `payload` are zeros in `found`; `None` if it is another one.
pub fn zeroed(payload: &[u8], offset: u64, found: &[u8]) -> Option<usize> {
    let first = PAGE_BYTES - offset as usize % PAGE_BYTES;
    let (mut pages, mut most) = (vec![0; payload.len() / PAGE_BYTES + 2], 0);
    if payload.len() != found.len() {
        return None;
    }
    for (at, (_, is)) in payload.iter().zip(found).enumerate().filter(|(_, (was, is))| was != is) {
        let page: &mut usize = &mut pages[if at < first { 0 } else { 1 + (at - first) / PAGE_BYTES }];
        if *is != 0 {
            return None;
        }
        *page += 1;
        most = most.max(*page);
    }
    Some(most)
}

/// Source and number that a payload tells.
pub fn name(payload: &[u8]) -> Option<(usize, u32)> {
    let source = usize::from(*payload.get(NAME_AT)?).checked_sub(1)?;
    let digits = payload.get(NAME_AT + 1..NAME_AT + 6)?;
    let number = digits.iter().rev().fold(0, |number, digit| number << 6 | u32::from(digit & 0x3F));
    Some((source, number))
}

/// FLAC's CRC-16 (RFC 9639 §9.3).
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in bytes {
        crc = crc << 8 ^ CRC16[usize::from((crc >> 8) as u8 ^ *byte)];
    }
    crc
}

static CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x8005 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};
