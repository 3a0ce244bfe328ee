//! Leases: which session holds which device. A session gets all it needs, or none.

use std::collections::HashMap;

use thiserror::Error;

use super::SessionId;
use super::device::{DeviceKey, DeviceSpec};

/// The devices that are held, and by whom.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    holders: HashMap<DeviceKey, SessionId>,
}

/// A device is held by another session.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{device} is busy: session {holder} captures it; stop that session first")]
pub struct LeaseConflict {
    /// Label of the device.
    pub device: String,
    /// The session that holds it.
    pub holder: SessionId,
}

impl Leases {
    /// Gives `session` every device of `devices`, or none.
    ///
    /// # Errors
    /// The first device that another session holds.
    pub fn acquire(&mut self, session: &SessionId, devices: &[DeviceSpec]) -> Result<(), LeaseConflict> {
        for device in devices {
            if let Some(holder) = self.holder(&device.key).filter(|holder| *holder != session) {
                return Err(LeaseConflict { device: device.label.clone(), holder: holder.clone() });
            }
        }
        for device in devices {
            self.holders.insert(device.key.clone(), session.clone());
        }
        Ok(())
    }

    /// Takes back every device of `session`; how many it held.
    pub fn release(&mut self, session: &SessionId) -> usize {
        let before = self.holders.len();
        self.holders.retain(|_, holder| holder != session);
        before - self.holders.len()
    }

    /// The session that holds `device`.
    pub fn holder(&self, device: &DeviceKey) -> Option<&SessionId> {
        self.holders.get(device)
    }
}
