//! PCM as Matroska and WAV hold it: signed, little endian, interleaved.

use crate::media::{AudioFormat, SampleFormat};

/// The samples as little endian bytes at the sample's width: 2 bytes for S16, 3 for S24, 4 for S32.
/// Samples outside of the width lose their upper bits; devices hand over none.
pub fn encode(format: AudioFormat, interleaved: &[i32]) -> Vec<u8> {
    match format.sample {
        SampleFormat::S16 => packed::<2>(interleaved),
        SampleFormat::S24 => packed::<3>(interleaved),
        SampleFormat::S32 => packed::<4>(interleaved),
    }
}

fn packed<const WIDTH: usize>(samples: &[i32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(samples.len() * WIDTH);
    for sample in samples {
        bytes.extend_from_slice(&sample.to_le_bytes()[..WIDTH]);
    }
    bytes
}
