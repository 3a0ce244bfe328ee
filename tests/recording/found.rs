//! What is in the files, read from their bytes.

use std::collections::BTreeSet;
use std::io::Cursor;

use shutterd::clock::{Anchor, MonoTime, WallTime};
use shutterd::matroska::{Next, Reader, SOURCE_ID, TagTarget};

use crate::media::{self, Fed, Kind};

/// A time in a file is a whole tick of 100 µs.
const TICK_NS: u64 = 100_000;

/// What was fed to a recorder.
#[derive(Debug)]
pub struct Feed {
    pub kinds: Vec<Kind>,
    pub anchor: Anchor,
    pub fed: Vec<Fed>,
    /// What was captured later is taken out again.
    pub stop: Option<MonoTime>,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Found {
    /// Packets that are what was fed, by their place in the feed, in the order of the file.
    pub packets: Vec<usize>,
    /// Units by source, of all that is in the file.
    pub units: Vec<u64>,
    /// It says where it ends, and ends there.
    pub is_finished: bool,
}

/// How well a file has to be what was fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Whole, finished, each packet as it was.
    Whole,
    /// What a repair after a power cut keeps.
    Repaired,
    /// What can be read of it.
    Torn,
}

pub fn source_id(source: usize) -> String {
    format!("source-{source}")
}

impl Feed {
    /// Reads a file.
    pub fn find(&self, bytes: &[u8], care: Care) -> Result<Found, String> {
        let mut reader =
            Reader::open(Cursor::new(bytes)).map_err(|error| format!("can't be read: {error}"))?;
        let sources = reader.tracks().iter().map(|track| {
            let own = |tag: &&shutterd::matroska::Tag| {
                tag.target == TagTarget::Track(track.number) && tag.name == SOURCE_ID
            };
            let id = reader.tags().iter().find(own).map(|tag| tag.value.clone()).unwrap_or_default();
            (0..self.kinds.len()).find(|source| source_id(*source) == id).map(|source| (track.number, source))
        });
        let sources: Option<Vec<_>> = sources.collect();
        let sources = sources.ok_or("a track has no source")?;
        let zero = reader.info().wall_start.ok_or("it has no beginning")?.unix_ns();
        let mut found = Found { units: vec![0; self.kinds.len()], ..Found::default() };
        let mut payload = Vec::new();
        let mut torn = None;
        loop {
            let block = match reader.next_block().map_err(|error| error.to_string())? {
                Next::Block(block) => block,
                Next::End { .. } => break,
                Next::Torn { .. } if care == Care::Torn => break,
                Next::Torn { at } => return Err(format!("is torn at {at}")),
            };
            let track = sources.iter().find(|(number, _)| *number == block.track);
            let source = track.ok_or("a block has no track")?.1;
            if let Err(error) = reader.payload(&block, &mut payload) {
                if care == Care::Torn {
                    break;
                }
                return Err(error.to_string());
            }
            found.units[source] += self.kinds[source].units(payload.len());
            match self.place(source, &payload) {
                Some(at) => {
                    let told = i128::from(zero) + i128::from(block.timestamp.ns());
                    self.is_on_time(at, WallTime::from_nanos(told))?;
                    // What lies before a packet that is whole is kept, whatever it is: nobody knows that it was never
                    // durable.
                    torn = None;
                    found.packets.push(at);
                }
                None if care == Care::Whole => return Err(format!("source {source}: a packet is another")),
                None if care == Care::Repaired && !self.may_be_torn(source, block.offset, &payload) => {
                    torn = Some(format!("source {source}: a torn packet of {} bytes is kept", payload.len()));
                }
                None => {}
            }
        }
        if let Some(torn) = torn {
            return Err(torn);
        }
        found.is_finished = reader.is_finished();
        if care != Care::Torn && !found.is_finished {
            return Err("is not finished".to_owned());
        }
        self.is_in_order(&found)?;
        Ok(found)
    }

    fn place(&self, source: usize, payload: &[u8]) -> Option<usize> {
        let (named, number) = media::name(payload)?;
        let at = self.fed.iter().position(|fed| (fed.source, fed.number) == (named, number))?;
        (named == source && self.fed[at].payload == payload).then_some(at)
    }

    fn may_be_torn(&self, source: usize, offset: u64, payload: &[u8]) -> bool {
        let own = self.fed.iter().filter(|fed| fed.source == source);
        let is_late = |fed: &Fed| self.stop.is_some_and(|stop| fed.timestamp > stop);
        own.into_iter().any(|fed| {
            self.kinds[source].may_be_left_of(&fed.payload, offset, payload)
                || is_late(fed) && media::zeroed(&fed.payload, offset, payload).is_some()
        })
    }

    fn is_on_time(&self, at: usize, told: WallTime) -> Result<(), String> {
        let fed = &self.fed[at];
        let wall = self.anchor.wall_at(fed.timestamp);
        let off = told.nanos_since(wall).max(wall.nanos_since(told));
        if off > TICK_NS {
            return Err(format!("packet {} of source {} is {off} ns off", fed.number, fed.source));
        }
        Ok(())
    }

    fn is_in_order(&self, found: &Found) -> Result<(), String> {
        for source in 0..self.kinds.len() {
            let numbers = found.packets.iter().map(|at| &self.fed[*at]).filter(|fed| fed.source == source);
            let numbers: Vec<u32> = numbers.map(|fed| fed.number).collect();
            if !numbers.is_sorted_by(|one, next| one < next) {
                return Err(format!("the packets of source {source} are out of order: {numbers:?}"));
            }
        }
        Ok(())
    }

    /// Units of these packets, of one source.
    pub fn units(&self, packets: &BTreeSet<usize>, source: usize) -> u64 {
        let fed = packets.iter().map(|at| &self.fed[*at]);
        fed.filter(|fed| fed.source == source).map(|fed| fed.units).sum()
    }

    /// Whether a packet was captured after the stop.
    pub fn is_late(&self, at: usize) -> bool {
        self.stop.is_some_and(|stop| self.fed[at].timestamp > stop)
    }
}
