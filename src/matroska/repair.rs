//! Mends a file that was left unfinished: what to cut, append and write over. Applying it is the caller's
//! part.
//!
//! ```text
//! first walk   where the media ends: behind the last block that is whole and sound
//! second walk  what is up to there: cues, counts, the sizes of clusters
//! ```
//!
//! A file whose Segment has its size is finished and never cut: damage in it is no crash's doing.

use super::cues::{Candidate, CueList};
use super::ebml::id;
use super::error::Error;
use super::reader::{Block, ClusterAt, Item, Reader, SumAt};
use super::silent;
use super::sound::{is_sound, shows_loss};
use super::tags::Tag;
use super::tail::{self, Index};
use super::tally::{self, Tally};
use super::units::{CLUSTER_SPAN_NS, PATCHES_MAX, Patch, TICK_NS};
use super::writer::{cluster_end, cluster_size};
use std::io::{Read, Seek};

/// How to make a file whole, and what it then holds.
///
/// To apply it: cut, append, sync, then write the patches in order, and sync. A plan that was applied only in
/// part, in this order, leaves a file whose plan leads to the same end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairPlan {
    /// Cut the file to this length first.
    pub truncate_to: Option<u64>,
    /// Then append these.
    pub tail: Vec<u8>,
    /// Then write these over what is there, in this order.
    pub patches: Vec<Patch>,
    /// The file's length after that.
    pub file_bytes: u64,
    /// What is thrown away because it isn't whole; an index that is written anew doesn't count.
    pub cut_bytes: u64,
    /// What can't be read inside closed clusters. It stays in the file, and players pass over it.
    pub damaged_bytes: u64,
    /// Where a finished file can't be read on. It is left as it is.
    pub damaged_at: Option<u64>,
    /// What the file holds, in the order of the tracks that it lists.
    pub tallies: Vec<Tally>,
    /// The recording's length, as its header tells or else as its blocks do, in nanoseconds.
    pub duration_ns: u64,
}

impl RepairPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.truncate_to.is_none() && self.tail.is_empty() && self.patches.is_empty()
    }

    /// Blocks of all tracks together.
    pub fn blocks(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.blocks).sum()
    }
}

/// Plans how to mend a file. `tags` are written at its end unless it has some there already.
///
/// # Errors
/// Those of [`Reader::open`], and [`Error::NotRepairable`] for an unfinished file that another program wrote.
pub fn repair<R: Read + Seek>(source: R, tags: &[Tag]) -> Result<RepairPlan, Error> {
    let mut reader = Reader::open(source)?;
    let file_bytes = reader.file_bytes()?;
    let survey = survey(&mut reader)?;
    let is_finished = reader.segment_end() == Some(file_bytes);
    let layout = reader.layout();
    let count = count(&mut reader, survey.media_end, is_finished)?;

    let end_ns = tally::end_ns(&count.tallies);
    let told_ns = reader.info().duration.and_then(|told| u64::try_from(told.as_nanos()).ok());
    // A file that lost more than a cluster since its header was finished is as long as what is left.
    let told_ns = told_ns.filter(|told| is_finished || told.abs_diff(end_ns) <= CLUSTER_SPAN_NS);
    // What can't be read may be all that there is of a track.
    let is_damaged = survey.damaged_bytes > 0 || (is_finished && survey.torn_at.is_some());
    let mut silent = if is_damaged { vec![] } else { silent::of(&count.tallies) };
    // Those that are hidden may still have their tags.
    silent.extend(reader.silent_tracks().iter().map(|track| track.number));
    let mut plan = RepairPlan {
        truncate_to: None,
        tail: vec![],
        patches: vec![],
        file_bytes,
        cut_bytes: 0,
        damaged_bytes: survey.damaged_bytes,
        damaged_at: survey.torn_at.filter(|_| is_finished),
        duration_ns: told_ns.unwrap_or(end_ns),
        tallies: count.tallies,
    };
    match layout {
        _ if plan.damaged_at.is_some() => {}
        Some(layout) if is_finished => {
            plan.patches = count.sizes;
            plan.patches.extend(silent::patches(&silent, reader.spots(), file_bytes));
            plan.patches.extend(tail::patches(layout, survey.index, plan.duration_ns, file_bytes));
        }
        None if is_finished => {}
        Some(layout) if count.has_room => {
            let late = reader.late_tags();
            let tags = silent::without(&silent, if late.is_empty() { tags } else { late });
            let tail = tail::build(layout, survey.media_end, count.cues, &tags, reader.tracks())?;
            plan.file_bytes = tail.file_bytes;
            plan.patches = count.sizes;
            plan.patches.extend(silent::patches(&silent, reader.spots(), tail.file_bytes));
            plan.patches.extend(tail::patches(layout, tail.index, plan.duration_ns, tail.file_bytes));
            if file_bytes != tail.file_bytes || !reader.has(survey.media_end, &tail.bytes)? {
                plan.truncate_to = Some(survey.media_end).filter(|end| *end < file_bytes);
                plan.tail = tail.bytes;
            }
            plan.cut_bytes = survey.cut_bytes(file_bytes);
        }
        _ => {
            return Err(Error::NotRepairable {
                reason: "it was written by another program and never finished",
            });
        }
    }
    keep_changes(&mut reader, &mut plan)?;
    Ok(plan)
}

/// Leaves out the patches that would write what is there.
fn keep_changes<R: Read + Seek>(reader: &mut Reader<R>, plan: &mut RepairPlan) -> Result<(), Error> {
    let mut changes = vec![];
    for patch in std::mem::take(&mut plan.patches) {
        if !reader.has(patch.offset, &patch.bytes)? {
            // What a plan appends or leaves is durable before any of its patches.
            changes.push(Patch { after: plan.file_bytes, ..patch });
        }
    }
    plan.patches = changes;
    Ok(())
}

struct Survey {
    media_end: u64,
    torn_at: Option<u64>,
    /// Where the elements behind the last cluster begin, and where the Cues and Tags among them are.
    index_from: Option<u64>,
    index: Index,
    damaged_bytes: u64,
}

impl Survey {
    /// Bytes behind the media that are neither whole blocks nor index.
    fn cut_bytes(&self, file_bytes: u64) -> u64 {
        match (self.index_from, self.torn_at) {
            (None, _) => file_bytes - self.media_end,
            (Some(from), None) => from - self.media_end,
            (Some(from), Some(torn)) => (from - self.media_end) + (file_bytes - torn),
        }
    }
}

/// The first walk: where the media ends and what follows it.
fn survey<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Survey, Error> {
    reader.rewind();
    let media_end = reader.header_end();
    let mut survey =
        Survey { media_end, torn_at: None, index_from: None, index: Index::default(), damaged_bytes: 0 };
    let mut cluster: Option<ClusterAt> = None;
    let mut payload = vec![];
    loop {
        let item = reader.next_item()?;
        let (Item::Cluster(ClusterAt { start: at, .. })
        | Item::Block { start: at, .. }
        | Item::Element { start: at, .. }
        | Item::End { at }
        | Item::Torn { at }) = item;
        // A closed cluster counts to its end, with whatever stands behind its last block.
        if let Some(end) = cluster.and_then(|cluster| cluster.end).filter(|end| *end <= at) {
            survey.media_end = end;
            cluster = None;
        }
        match item {
            Item::Cluster(found) => {
                cluster = Some(found);
                (survey.index, survey.index_from) = (Index::default(), None);
            }
            Item::Block { block, .. } => {
                let is_closed = cluster.is_some_and(|cluster| cluster.end.is_some());
                if is_closed || block_is_sound(reader, &block, &mut payload)? {
                    survey.media_end = block.offset + block.payload_bytes;
                }
            }
            Item::Element { id, start } => {
                survey.index_from.get_or_insert(start);
                match id {
                    id::CUES => survey.index.cues = Some(start),
                    id::TAGS => survey.index.tags = Some(start),
                    _ => {}
                }
            }
            Item::End { .. } => return Ok(survey),
            Item::Torn { at } => {
                let Some(skipped) = reader.skip_damage()? else {
                    survey.torn_at = Some(at);
                    return Ok(survey);
                };
                survey.damaged_bytes += skipped;
            }
        }
    }
}

fn block_is_sound<R: Read + Seek>(
    reader: &mut Reader<R>,
    block: &Block,
    payload: &mut Vec<u8>,
) -> Result<bool, Error> {
    let track = reader.tracks().iter().find(|track| track.number == block.track);
    let codec = track.expect("a reader gives blocks of its tracks only").codec.clone();
    if !shows_loss(&codec) {
        return Ok(true);
    }
    reader.payload(block, payload)?;
    Ok(is_sound(&codec, block.offset, payload))
}

struct Count {
    cues: CueList,
    tallies: Vec<Tally>,
    /// Sizes for the clusters that have none or a wrong one.
    sizes: Vec<Patch>,
    /// Whether each of them has a field of 8 bytes for it, and they aren't too many.
    has_room: bool,
}

/// The second walk: what is in front of `media_end`.
fn count<R: Read + Seek>(reader: &mut Reader<R>, media_end: u64, is_finished: bool) -> Result<Count, Error> {
    reader.rewind();
    let videos: Vec<bool> = reader.tracks().iter().map(|track| track.codec.is_video()).collect();
    let tallies = reader.tracks().iter().map(Tally::new).collect();
    let mut count = Count { cues: CueList::default(), tallies, sizes: vec![], has_room: true };
    let mut cluster: Option<ClusterAt> = None;
    loop {
        match reader.next_item()? {
            Item::Cluster(next) if next.start < media_end => {
                if let Some(cluster) = cluster.replace(next) {
                    count.close(cluster, next.start, is_finished);
                }
            }
            Item::Block { block, start } if start < media_end => {
                let at = count.tallies.iter().position(|tally| tally.track == block.track);
                let at = at.expect("a reader gives blocks of its tracks only");
                count.tallies[at].add(block.timestamp, block.payload_bytes);
                let cluster = cluster.expect("a block comes after its cluster");
                if block.keyframe {
                    count.cue(&block, start, cluster, videos[at]);
                }
            }
            Item::Torn { .. } if reader.skip_damage()?.is_some() => {}
            Item::Element { start, .. } if start < media_end => {}
            _ => break,
        }
    }
    if let Some(cluster) = cluster {
        count.close(cluster, media_end, is_finished);
    }
    Ok(count)
}

impl Count {
    fn cue(&mut self, block: &Block, start: u64, cluster: ClusterAt, is_video: bool) {
        let ticks = u64::try_from(block.timestamp.ns()).map(|ns| ns / TICK_NS);
        let relative = u32::try_from(start - cluster.content);
        if let (Ok(ticks), Ok(relative)) = (ticks, relative) {
            let cluster = cluster.start;
            self.cues.keyframe(Candidate { track: block.track, is_video, ticks, cluster, relative });
        }
    }

    fn close(&mut self, cluster: ClusterAt, end: u64, is_finished: bool) {
        let is_right = cluster.end == Some(end) || (is_finished && cluster.end.is_some());
        if is_right {
            return;
        }
        if cluster.size_bytes != 8 || cluster.content != cluster.start + 12 || self.sizes.len() >= PATCHES_MAX
        {
            self.has_room = false;
            return;
        }
        self.sizes.push(match cluster.sum {
            SumAt::Nothing => cluster_size(cluster.start, end),
            // Whether this is what was written nobody knows any more.
            SumAt::Room | SumAt::Sum(_) => cluster_end(cluster.start, end, None),
        });
    }
}
