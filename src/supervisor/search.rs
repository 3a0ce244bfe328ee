//! What a probe has told: the devices that have answered, and the drivers that have not.

use std::collections::BTreeMap;

use super::refusal::{Refusal, RefusalKind};
use crate::link::ProbeLine;
use crate::session::device::{FoundDevice, MediaType};

/// Lines that a probe may print.
const LINES_MAX: usize = 10_000;

/// A search for devices while it goes on.
#[derive(Debug, Default)]
pub(super) struct Search {
    lines: usize,
    devices: Vec<FoundDevice>,
    /// What was asked and has not answered, and what is known of it all the same.
    asked: BTreeMap<String, Option<FoundDevice>>,
    complete: bool,
}

/// The devices of the host, as far as their drivers have answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Cameras by their node, then microphones. A camera that hangs is among them as it is known unasked,
    /// so that no other is taken for the only one.
    pub(super) devices: Vec<FoundDevice>,
    /// What has not answered, and how that showed; for people.
    pub(super) doubt: Option<String>,
}

impl Search {
    /// Takes a line; whether there may be a next one.
    pub(super) fn take(&mut self, line: ProbeLine) -> bool {
        match line {
            ProbeLine::Asking { what, unasked } => {
                self.asked.insert(what, unasked.map(|device| *device));
            }
            ProbeLine::Answered { what, devices } => {
                self.asked.remove(&what);
                self.devices.extend(devices);
            }
            ProbeLine::Complete => self.complete = true,
        }
        self.lines += 1;
        !self.complete && self.lines < LINES_MAX
    }

    /// What was found by a probe that ended like this; `None` if it told too little to go by.
    pub(super) fn end(mut self, how: &str) -> Option<Found> {
        let doubt = match (self.complete, self.asked.is_empty()) {
            (true, _) => None,
            (false, true) => return None,
            (false, false) => {
                let silent: Vec<&str> = self.asked.keys().map(String::as_str).collect();
                Some(format!(
                    "the search for devices {how} at {}: unplug what hangs, or restart the host",
                    silent.join(", ")
                ))
            }
        };
        self.devices.extend(self.asked.into_values().flatten());
        self.devices.sort_by(|one, other| order(one).cmp(&order(other)));
        Some(Found { devices: self.devices, doubt })
    }
}

impl Found {
    /// A device that was not found is not known to be missing while something has not answered.
    pub(super) fn qualify(&self, refusal: Refusal) -> Refusal {
        let Some(doubt) = self.doubt.as_ref().filter(|_| refusal.reason == "DEVICE_MISSING") else {
            return refusal;
        };
        let message = format!("{}; but {doubt}", refusal.message);
        Refusal { about: refusal.about, ..Refusal::new(RefusalKind::Internal, "PROBE_FAILED", message) }
    }
}

/// Microphones stay in the order in which they were told.
fn order(device: &FoundDevice) -> (bool, usize, &str) {
    match device.media {
        MediaType::Video => (false, device.node.len(), &device.node),
        MediaType::Audio => (true, 0, ""),
    }
}
