//! Where a finished file isn't what was written, as far as it tells itself: bytes that nothing explains, and
//! packets whose own checksum is wrong. A turned bit inside a picture doesn't show.

use std::io::{Read, Seek};
use std::ops::Range;

use super::error::Error;
use super::reader::{Next, Reader};
use super::sound::is_sound;

/// Ranges that are told of one file.
const RANGES_MAX: usize = 100;

/// The damaged ranges of a file, from its start; the last one may stand for all that follow.
///
/// # Errors
/// Those of [`Reader::open`]: then it is the header.
pub fn damaged_ranges<R: Read + Seek>(source: R) -> Result<Vec<Range<u64>>, Error> {
    let mut reader = Reader::open(source)?;
    let file_bytes = reader.file_bytes()?;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut payload = Vec::new();
    while ranges.len() < RANGES_MAX {
        match reader.next_block()? {
            Next::Block(block) => {
                let track = reader.tracks().iter().find(|track| track.number == block.track);
                let codec = track.expect("a reader gives blocks of its tracks only").codec.clone();
                reader.payload(&block, &mut payload)?;
                if !is_sound(&codec, block.offset, &payload) {
                    ranges.push(block.offset..block.offset + block.payload_bytes);
                }
            }
            Next::End { .. } => return Ok(ranges),
            Next::Torn { at } => match reader.skip_damage()? {
                Some(skipped) => ranges.push(at..at + skipped),
                None => {
                    ranges.push(at..file_bytes);
                    return Ok(ranges);
                }
            },
        }
    }
    Ok(ranges)
}
