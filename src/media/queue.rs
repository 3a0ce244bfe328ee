//! The bounded queue between the capturing threads of a session and the one that records.
//! A full queue refuses the newest packet and says so; it never makes a capturing thread wait.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::Packet;

/// How much a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Packets.
    pub packets_max: usize,
    /// Bytes of payload.
    pub bytes_max: usize,
}

/// What became of a packet that was pushed.
#[derive(Debug)]
pub enum Pushed {
    /// It is in the queue.
    Taken,
    /// The queue is full: the packet is given back.
    Full(Packet),
    /// The queue is closed: the packet is given back.
    Closed(Packet),
}

/// What a pop found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popped {
    /// Packets were taken out.
    Packets,
    /// There were none in the time given.
    Nothing,
    /// There are none, and there will be none.
    End,
}

/// A bounded queue of packets: many push, one pops.
#[derive(Debug)]
pub struct Queue {
    limits: QueueLimits,
    inner: Mutex<Inner>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    packets: VecDeque<Packet>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> Self {
        Self { limits, inner: Mutex::default(), filled: Condvar::new() }
    }

    /// Adds a packet at the end, or gives it back at once.
    pub fn push(&self, packet: Packet) -> Pushed {
        let mut inner = self.lock();
        let bytes = inner.bytes + packet.payload.len();
        if inner.closed {
            return Pushed::Closed(packet);
        }
        if inner.packets.len() >= self.limits.packets_max || bytes > self.limits.bytes_max {
            return Pushed::Full(packet);
        }
        inner.bytes = bytes;
        inner.packets.push_back(packet);
        drop(inner);
        self.filled.notify_one();
        Pushed::Taken
    }

    /// Moves every packet to the end of `into`, waiting at most `wait` for the first.
    pub fn pop_all(&self, into: &mut VecDeque<Packet>, wait: Duration) -> Popped {
        let inner = self.lock();
        let empty = |inner: &mut Inner| inner.packets.is_empty() && !inner.closed;
        let (mut inner, _) =
            self.filled.wait_timeout_while(inner, wait, empty).expect("no holder of this lock can panic");
        if inner.packets.is_empty() {
            return if inner.closed { Popped::End } else { Popped::Nothing };
        }
        inner.bytes = 0;
        into.append(&mut inner.packets);
        Popped::Packets
    }

    /// Refuses packets from now on; those inside can still be popped.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// Refuses packets from now on, and throws away those inside.
    pub fn discard(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.packets.clear();
        inner.bytes = 0;
        drop(inner);
        self.filled.notify_all();
    }

    /// Packets inside.
    pub fn len(&self) -> usize {
        self.lock().packets.len()
    }

    /// Whether there are none inside.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MonoTime;

    fn packet(payload_bytes: usize) -> Packet {
        let at = MonoTime::default();
        Packet { source: 0, timestamp: at, end: at, units: 1, revision: 0, payload: vec![0; payload_bytes] }
    }

    fn queue(packets_max: usize, bytes_max: usize) -> Queue {
        Queue::new(QueueLimits { packets_max, bytes_max })
    }

    #[test]
    fn a_full_queue_gives_the_newest_packet_back_and_takes_more_once_it_was_emptied() {
        for queue in [queue(2, 1000), queue(1000, 25)] {
            assert!(matches!(queue.push(packet(10)), Pushed::Taken));
            assert!(matches!(queue.push(packet(10)), Pushed::Taken));
            assert!(matches!(queue.push(packet(11)), Pushed::Full(packet) if packet.payload.len() == 11));
            let mut popped = VecDeque::new();
            assert_eq!(queue.pop_all(&mut popped, Duration::ZERO), Popped::Packets);
            assert_eq!((popped.len(), queue.len()), (2, 0));
            assert!(matches!(queue.push(packet(11)), Pushed::Taken));
        }
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_gives_out_what_it_holds() {
        let queue = queue(9, 1000);
        assert!(matches!(queue.push(packet(1)), Pushed::Taken));
        queue.close();
        assert!(matches!(queue.push(packet(1)), Pushed::Closed(_)));
        let mut popped = VecDeque::new();
        assert_eq!(queue.pop_all(&mut popped, Duration::ZERO), Popped::Packets);
        assert_eq!(queue.pop_all(&mut popped, Duration::ZERO), Popped::End);
        assert_eq!(popped.len(), 1);
    }

    #[test]
    fn a_discarded_queue_is_empty_and_closed() {
        let queue = queue(9, 1000);
        assert!(matches!(queue.push(packet(1)), Pushed::Taken));
        queue.discard();
        assert!(queue.is_empty());
        assert!(matches!(queue.push(packet(1)), Pushed::Closed(_)));
        assert_eq!(queue.pop_all(&mut VecDeque::new(), Duration::ZERO), Popped::End);
    }
}
