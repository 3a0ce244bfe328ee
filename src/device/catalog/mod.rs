//! The devices of this host, as people and rules know them.
//! Must never start a capture; what can't be opened is listed all the same.

mod cameras;
pub mod identity;
mod microphones;

use std::thread::{Builder, Scope};

use super::DeviceError;
use crate::link::ProbeLine;
use crate::session::device::{DeviceKey, FoundDevice};

/// What is asked for the microphones.
const SOUND: &str = "the sound system";

/// Tells the cameras and microphones of this host as they answer, each driver asked on a thread of its own:
/// one that hangs hangs this call, which the process's parent bounds, and keeps no other from being told.
///
/// # Errors
/// `/dev` can't be read. A sound system that fails is logged and gives no microphones.
pub fn search(tell: impl Fn(ProbeLine) + Sync) -> Result<(), DeviceError> {
    let cameras = cameras::unasked()?;
    std::thread::scope(|scope| {
        for camera in &cameras {
            let what = camera.path.to_string_lossy().into_owned();
            ask(scope, &tell, what, camera.describe(None), || camera.ask().into_iter().collect())?;
        }
        ask(scope, &tell, SOUND.to_owned(), None, microphones)
    })?;
    tell(ProbeLine::Complete);
    Ok(())
}

/// Where a camera is by now: the one whose place gives it this `key`, else the one that the link `by_id` leads
/// to. Nothing where that is not one alone.
pub fn camera(key: &DeviceKey, by_id: Option<&str>) -> Option<FoundDevice> {
    let nodes =
        cameras::unasked().inspect_err(|error| tracing::warn!(%error, "cameras can't be listed")).ok()?;
    cameras::find(&nodes, key, by_id)
}

fn ask<'scope>(
    scope: &'scope Scope<'scope, '_>,
    tell: &'scope (impl Fn(ProbeLine) + Sync),
    what: String,
    unasked: Option<FoundDevice>,
    find: impl FnOnce() -> Vec<FoundDevice> + Send + 'scope,
) -> Result<(), DeviceError> {
    let device = what.clone();
    tell(ProbeLine::Asking { what: what.clone(), unasked: unasked.map(Box::new) });
    Builder::new()
        .name("asking".to_owned())
        .spawn_scoped(scope, move || tell(ProbeLine::Answered { what, devices: find() }))
        .map(drop)
        .map_err(|source| DeviceError::Failed { device, doing: "starting a thread to ask it", source })
}

fn microphones() -> Vec<FoundDevice> {
    microphones::discover().unwrap_or_else(|error| {
        tracing::warn!(%error, "no microphones are listed: check that ALSA is installed");
        Vec::new()
    })
}
