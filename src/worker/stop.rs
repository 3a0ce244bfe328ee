//! The order to stop, as every capturing thread sees it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::MonoTime;

/// The instant after which nothing is kept; set once.
#[derive(Debug)]
pub(super) struct StopOrder(AtomicU64);

impl Default for StopOrder {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl StopOrder {
    /// Orders the stop, unless it was ordered before; tells whether it is the first.
    pub(super) fn order(&self, at: MonoTime) -> bool {
        self.0.compare_exchange(u64::MAX, at.nanos(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The instant, once it was ordered.
    pub(super) fn get(&self) -> Option<MonoTime> {
        match self.0.load(Ordering::Acquire) {
            u64::MAX => None,
            nanos => Some(MonoTime::from_nanos(nanos)),
        }
    }
}
