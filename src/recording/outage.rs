//! While the disk takes nothing: what waits in memory for it, and what is lost by then.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::ledger::Ledger;
use crate::clock::MonoTime;
use crate::media::Packet;
use crate::session::{Gap, GapReason};

/// A file that failed before anything of it was durable is followed by the next one after so long at first.
const DELAY_MIN: Duration = Duration::from_millis(250);
/// And after so long at last.
const DELAY_MAX: Duration = Duration::from_secs(5);

/// Packets that wait for a file, in the order in which they came.
#[derive(Debug)]
pub(super) struct Backlog {
    packets: VecDeque<Packet>,
    bytes: usize,
    bytes_max: usize,
}

impl Backlog {
    /// One that takes so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { packets: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Bytes of what waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a packet; one that finds no room is given back.
    pub(super) fn push(&mut self, packet: Packet) -> Option<Packet> {
        if self.bytes + packet.payload.len() > self.bytes_max {
            return Some(packet);
        }
        self.bytes += packet.payload.len();
        self.packets.push_back(packet);
        None
    }

    /// Takes the oldest out.
    pub(super) fn pop(&mut self) -> Option<Packet> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.payload.len();
        Some(packet)
    }

    /// When the earliest was captured.
    pub(super) fn begin(&self) -> Option<MonoTime> {
        self.packets.iter().map(|packet| packet.timestamp).min()
    }

    /// Puts packets before the others, whatever room there is: they were in memory already.
    pub(super) fn push_front(&mut self, packets: impl DoubleEndedIterator<Item = Packet>) {
        for packet in packets.rev() {
            self.bytes += packet.payload.len();
            self.packets.push_front(packet);
        }
    }

    /// Takes out what was captured after `stop`.
    pub(super) fn cut_after(&mut self, stop: MonoTime) -> Vec<Packet> {
        self.bytes = 0;
        let packets = std::mem::take(&mut self.packets).into_iter();
        let (kept, late): (Vec<_>, _) = packets.partition(|packet| packet.timestamp <= stop);
        self.push_front(kept.into_iter());
        late
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}

/// How long the disk has been failing, and when it is tried again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) since: MonoTime,
    retry_at: MonoTime,
    delay: Duration,
}

impl Trouble {
    /// The first failure: it is tried again at once.
    pub(super) fn new(now: MonoTime) -> Self {
        Self { since: now, retry_at: now, delay: DELAY_MIN }
    }

    /// One more failure.
    pub(super) fn again(self, now: MonoTime) -> Self {
        Self { retry_at: now + self.delay, delay: (self.delay * 2).min(DELAY_MAX), ..self }
    }

    /// Whether it is time for the next try.
    pub(super) fn is_due(self, now: MonoTime) -> bool {
        now >= self.retry_at
    }
}

/// Where what was captured is lost: from the first packet to the end of the last, by source.
#[derive(Debug, Default)]
pub(super) struct Holes(BTreeMap<usize, (MonoTime, MonoTime)>);

impl Holes {
    /// This packet is lost.
    pub(super) fn add(&mut self, packet: &Packet) {
        let hole = self.0.entry(packet.source).or_insert((packet.timestamp, packet.end));
        *hole = (hole.0.min(packet.timestamp), hole.1.max(packet.end));
    }

    /// They are over: the ledger is told.
    pub(super) fn tell(&mut self, ledger: &Ledger) {
        for (source, (from, to)) in std::mem::take(&mut self.0) {
            let gap = Gap {
                start_seconds: ledger.seconds_at(from),
                duration_seconds: to.since(from).as_secs_f64(),
                missed: 0,
                reason: GapReason::Disk,
            };
            ledger.gap(source, gap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(at_ms: u64, payload_bytes: usize) -> Packet {
        let at = MonoTime::from_nanos(at_ms * 1_000_000);
        Packet { source: 0, timestamp: at, end: at, units: 1, revision: 0, payload: vec![0; payload_bytes] }
    }

    fn drained(mut backlog: Backlog) -> Vec<u64> {
        std::iter::from_fn(|| backlog.pop()).map(|packet| packet.timestamp.nanos() / 1_000_000).collect()
    }

    #[test]
    fn a_backlog_keeps_its_order_and_gives_back_what_it_has_no_room_for() {
        let mut backlog = Backlog::new(64);
        assert!(backlog.push(packet(30, 32)).is_none());
        assert!(backlog.push(packet(40, 32)).is_none());
        assert!(backlog.push(packet(50, 1)).is_some(), "it is full");
        backlog.push_front([packet(10, 1), packet(20, 1)].into_iter());
        assert_eq!(backlog.begin(), Some(MonoTime::from_nanos(10_000_000)));
        let late = backlog.cut_after(MonoTime::from_nanos(30_000_000));
        assert_eq!(late.len(), 1);
        assert!(backlog.push(packet(60, 30)).is_none(), "there is room again");
        assert_eq!(drained(backlog), [10, 20, 30, 60]);
    }

    #[test]
    fn a_disk_that_keeps_failing_is_tried_less_often() {
        let ms = |ms: u64| MonoTime::from_nanos(ms * 1_000_000);
        let first = Trouble::new(ms(0));
        assert!(first.is_due(ms(0)));
        let second = first.again(ms(0));
        assert!(!second.is_due(ms(249)) && second.is_due(ms(250)));
        let mut later = second;
        for _ in 0..10 {
            later = later.again(ms(1000));
        }
        assert!(!later.is_due(ms(5999)) && later.is_due(ms(6000)));
        assert_eq!(later.since, ms(0));
    }
}
