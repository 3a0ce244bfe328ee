//! A stop that was heard of late: what was written since it was asked for is taken out again.

use std::collections::{BTreeMap, VecDeque};

use super::{BEFORE_ALL, Recorder, relative};
use crate::clock::MonoTime;
use crate::media::Packet;
use crate::recording::RecordError;
use crate::recording::begin::source_of;
use crate::recording::sync::Undone;

/// What was captured after the stop and is in the last file, durable or not.
#[derive(Debug, Default)]
pub(super) struct Late {
    stop: Option<MonoTime>,
    /// Units that were taken out of the file, by source.
    pub(super) units: BTreeMap<usize, u64>,
}

impl Late {
    /// The file that it was taken out of is no more, or can't be finished: what of it was not durable is handed
    /// back, since it must go into no other file, and doesn't count as taken out any more.
    pub(super) fn take_out(&mut self, undone: &mut Undone) -> Vec<Packet> {
        let Some(stop) = self.stop.take() else { return Vec::new() };
        let (late, kept): (VecDeque<Packet>, _) =
            undone.packets.drain(..).partition(|packet| packet.timestamp > stop);
        undone.packets = kept;
        let mut late = Vec::from(late);
        late.extend(undone.forgotten.extract_if(.., |packet| packet.timestamp > stop));
        for packet in &late {
            if let Some(units) = self.units.get_mut(&packet.source) {
                *units = units.saturating_sub(packet.units);
            }
        }
        for (source, units) in &self.units {
            if let Some(durable) = undone.durable_units.get_mut(source) {
                *durable = durable.saturating_sub(*units);
            }
        }
        late
    }
}

impl Recorder {
    /// A stop that was heard of late: what was written since it was asked for is taken out again.
    pub(super) fn cut_after(&mut self, stop: MonoTime) -> Result<Late, RecordError> {
        if self.full_until.is_some_and(|until| until > stop) {
            self.ledger.warn(
                "the stop came late: the file before the last holds more than was asked for".to_owned(),
            );
        }
        for packet in self.backlog.cut_after(stop) {
            self.retract(&packet);
        }
        let mut units = BTreeMap::new();
        let late = self.last.values().any(|(timestamp, _)| *timestamp > stop);
        if let Some(segment) = self.segment.as_mut().filter(|_| late) {
            let last = if stop < self.zero { BEFORE_ALL } else { relative(self.zero, stop) };
            let cut = segment.cut_after(last)?;
            tracing::warn!(
                packets = cut.removed.len(),
                "the stop came late: what was captured after it is taken out"
            );
            for (track, removed) in cut.removed {
                *units.entry(source_of(track)).or_default() += removed;
            }
            self.last = cut
                .last
                .into_iter()
                .map(|(track, last, end)| (source_of(track), (self.zero + last, self.zero + end)))
                .collect();
        }
        for (source, (last, end)) in &self.last {
            self.ledger.ends_at(*source, *last, *end);
        }
        Ok(Late { stop: Some(stop), units })
    }
}
