//! Orders to misbehave, on the time line of a device: a device that is opened again in the same
//! process goes on counting where it would be had it never been closed, so that each order is carried
//! out once and what vanished comes back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use crate::clock::MonoTime;
use crate::session::device::{DeviceKey, Fault, FaultOrder};

/// Devices with orders that are remembered; further ones start anew when they are opened again.
const TIME_LINES_MAX: usize = 1024;

/// When the devices with orders began their first frame.
static TIME_LINES: Mutex<BTreeMap<DeviceKey, MonoTime>> = Mutex::new(BTreeMap::new());

/// The orders of one device.
#[derive(Debug)]
pub(super) struct Faults {
    key: DeviceKey,
    orders: Vec<FaultOrder>,
}

impl Faults {
    pub(super) fn new(key: DeviceKey, orders: Vec<FaultOrder>) -> Self {
        Self { key, orders }
    }

    /// What has to happen to frame `number`, and the first frame that it doesn't happen to any more.
    /// The first order that covers the frame counts.
    pub(super) fn at(&self, number: u64) -> Option<(Fault, u64)> {
        let end = |order: &FaultOrder| order.at_frame.saturating_add(order.frames);
        let order = self.orders.iter().find(|order| (order.at_frame..end(order)).contains(&number))?;
        Some((order.fault, end(order)))
    }

    /// When the device began, if it has orders and was started in this process before.
    pub(super) fn begun(&self) -> Option<MonoTime> {
        if self.orders.is_empty() { None } else { time_lines().get(&self.key).copied() }
    }

    /// Whether an order to change the format was carried out before frame `number`.
    pub(super) fn has_changed_before(&self, number: u64) -> bool {
        let ends = |order: &FaultOrder| order.at_frame.saturating_add(order.frames);
        self.orders.iter().any(|order| order.fault == Fault::Change && ends(order) <= number)
    }

    /// When the device begins: `now`, or when it was started first if it has orders.
    pub(super) fn begin(&self, now: MonoTime) -> MonoTime {
        if self.orders.is_empty() {
            return now;
        }
        let mut lines = time_lines();
        if lines.len() >= TIME_LINES_MAX && !lines.contains_key(&self.key) {
            return now;
        }
        *lines.entry(self.key.clone()).or_insert(now)
    }

    /// A flood moved the begin.
    pub(super) fn moved(&self, begin: MonoTime) {
        if let Some(line) = time_lines().get_mut(&self.key) {
            *line = begin;
        }
    }
}

fn time_lines() -> MutexGuard<'static, BTreeMap<DeviceKey, MonoTime>> {
    TIME_LINES.lock().expect("no holder of this lock can panic")
}
