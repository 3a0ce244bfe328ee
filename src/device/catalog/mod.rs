//! The devices of this host, as people and rules know them.
//! Must never start a capture; what can't be opened is listed all the same.

mod cameras;
pub mod identity;
mod microphones;

use super::DeviceError;
use crate::session::device::FoundDevice;

/// The cameras and microphones of this host, cameras first. A driver that hangs hangs this call:
/// the caller bounds the process that makes it.
///
/// # Errors
/// `/dev` can't be read. A sound system that fails is logged and gives no microphones.
pub fn discover() -> Result<Vec<FoundDevice>, DeviceError> {
    let mut found = cameras::discover()?;
    match microphones::discover() {
        Ok(microphones) => found.extend(microphones),
        Err(error) => tracing::warn!(%error, "no microphones are listed: check that ALSA is installed"),
    }
    Ok(found)
}
