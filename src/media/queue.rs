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
    /// The queue is full, or closed: the packet is given back.
    Refused(Packet),
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
        if inner.closed || inner.packets.len() >= self.limits.packets_max || bytes > self.limits.bytes_max {
            return Pushed::Refused(packet);
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
