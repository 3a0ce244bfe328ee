//! Takes blocks out of a file that is still being written: they become padding, zeroed, and everything else
//! stays where it is. Their clusters have no checksum any more.

use std::io::{Read, Seek};

use super::ebml::id;
use super::error::Error;
use super::reader::{Block, ClusterAt, Item, Reader, SumAt};
use super::tally::Tally;
use super::units::{Patch, Timestamp};
use super::writer::cluster_end;

/// Bytes of a block that we write between its size and its payload: track, time, flags (RFC 9559 §10.2).
const BLOCK_HEAD_BYTES: u64 = 4;

/// What takes the blocks out.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Bytes to write; none changes a length. They wait for nothing.
    pub patches: Vec<Patch>,
    /// Bytes to write when the clusters that lose something have their sizes: their checksums are no more.
    pub unsealed: Vec<Patch>,
    /// What is taken out.
    pub removed: Vec<Block>,
    /// What stays, by track.
    pub kept: Vec<Tally>,
}

/// Plans how to take every block out that is stamped later than `last`. A file that we write is taken for
/// granted: blocks of other programs that are no SimpleBlocks stay.
///
/// # Errors
/// Those of [`Reader::open`].
pub fn cut_after<R: Read + Seek>(source: R, last: Timestamp) -> Result<Cut, Error> {
    let mut reader = Reader::open(source)?;
    let mut kept: Vec<Tally> = reader.tracks().iter().map(Tally::new).collect();
    let (mut patches, mut unsealed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    let mut cluster: Option<(ClusterAt, usize)> = None;
    loop {
        match reader.next_item()? {
            Item::Block { block, start } if block.timestamp > last && reader.is_simple(start)? => {
                let head = usize::try_from(BLOCK_HEAD_BYTES).expect("a few bytes");
                let body = usize::try_from(block.payload_bytes).expect("packets are limited") + head;
                let void = u8::try_from(id::VOID).expect("its id has one byte");
                patches.push(Patch { offset: start, bytes: vec![void], after: 0 });
                let offset = block.offset - BLOCK_HEAD_BYTES;
                patches.push(Patch { offset, bytes: vec![0; body], after: 0 });
                removed.push(block);
            }
            Item::Block { block, .. } => {
                if let Some(tally) = kept.iter_mut().find(|tally| tally.track == block.track) {
                    tally.add(block.timestamp, block.payload_bytes);
                }
            }
            Item::Cluster(next) => {
                let lost = |(_, before): &(ClusterAt, usize)| removed.len() > *before;
                if let Some((last, _)) = cluster.filter(lost).filter(|(last, _)| last.sum != SumAt::Nothing) {
                    unsealed.push(cluster_end(last.start, next.start, None));
                }
                cluster = Some((next, removed.len()));
            }
            Item::End { .. } | Item::Torn { .. } => return Ok(Cut { patches, unsealed, removed, kept }),
            Item::Element { .. } => {}
        }
    }
}
