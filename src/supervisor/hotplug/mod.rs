//! Devices that come and go: what udev and the directories of the nodes say makes workers try lost devices at
//! once, and has the host searched anew. An event is a hint and no more: nothing is believed of it, and no device
//! is touched here.

mod nodes;
mod uevents;

use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

use super::actor::Actor;
use super::command::Notice;
use crate::clock::MonoTime;
use crate::link::message::{DevicesChanged, ToWorker, to_worker};
use crate::session::device::FoundDevice;
use crate::session::resolve::{ConfiguredDevice, Place};
use nodes::Nodes;

/// Plugging one device in causes many events: after the first, the others are one for so long.
const QUIET: Duration = Duration::from_millis(50);
/// A directory that wasn't there is looked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// From an event to the search that it causes: by then udev has named what came.
const SETTLES: Duration = Duration::from_millis(500);

/// What is known of the host's devices.
#[derive(Default)]
pub(super) struct Catalog {
    /// As the last search that got an answer from every driver found them.
    devices: Option<Vec<FoundDevice>>,
    /// When they are to be searched for, since something has changed.
    search_at: Option<MonoTime>,
}

impl Catalog {
    /// Whether a search is due because something has changed.
    pub(super) fn is_due(&self, now: MonoTime) -> bool {
        self.search_at.is_some_and(|at| at <= now)
    }

    /// A search begins: what changes from here on asks for another.
    pub(super) fn searched(&mut self) {
        self.search_at = None;
    }

    /// Takes what a search has found in place of what was known; the devices that came and those that went.
    fn renew(&mut self, found: Vec<FoundDevice>) -> (Vec<FoundDevice>, Vec<FoundDevice>) {
        let Some(before) = self.devices.replace(found.clone()) else { return Default::default() };
        let without = |devices: &[FoundDevice], others: &[FoundDevice]| -> Vec<FoundDevice> {
            let is_other = |device: &&FoundDevice| others.iter().all(|other| other.key != device.key);
            devices.iter().filter(is_other).cloned().collect()
        };
        (without(&found, &before), without(&before, &found))
    }
}

/// Tells the actor when devices may have changed, until it has ended. `pipes` are those that the config names.
pub(super) async fn watch(pipes: Vec<PathBuf>, notices: mpsc::Sender<Notice>) {
    let (end, ending) = match std::io::pipe() {
        Ok(ends) => ends,
        Err(error) => return tracing::warn!(%error, "devices that come are not noticed: no pipe can be made"),
    };
    let looking = {
        let notices = notices.clone();
        tokio::task::spawn_blocking(move || look(pipes, &end, &notices))
    };
    notices.closed().await;
    drop(ending);
    if let Err(error) = looking.await {
        tracing::error!(%error, "watching for devices has failed");
    }
}

/// Waits for events, on a thread of its own, until the other side of `end` is closed.
fn look(pipes: Vec<PathBuf>, end: &PipeReader, notices: &mpsc::Sender<Notice>) {
    let uevents = uevents::listen();
    let uevents = uevents.inspect_err(|error| tracing::warn!(%error, "udev can't be heard")).ok();
    let nodes = Nodes::watch(pipes);
    let mut nodes = nodes.inspect_err(|error| tracing::warn!(%error, "device nodes can't be watched")).ok();
    loop {
        let mut watched = vec![end.as_fd()];
        watched.extend(uevents.as_ref().map(AsFd::as_fd));
        watched.extend(nodes.as_ref().map(AsFd::as_fd));
        if wait(&watched, LOOK_EVERY) {
            return;
        }
        let heard = uevents.as_ref().is_some_and(uevents::read);
        let seen = nodes.as_mut().is_some_and(|nodes| nodes.read() | nodes.rewatch());
        if (heard || seen)
            && (notices.blocking_send(Notice::DevicesChanged).is_err() || wait(&[end.as_fd()], QUIET))
        {
            return;
        }
    }
}

/// Waits until one of these can be read, at most so long; whether the first can.
fn wait(watched: &[BorrowedFd<'_>], length: Duration) -> bool {
    let mut polled: Vec<PollFd<'_>> =
        watched.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    // An interrupted wait is a short one.
    let _ = poll(&mut polled, Timespec::try_from(length).ok().as_ref());
    !polled[0].revents().is_empty()
}

/// The pipes that a config names.
pub(super) fn pipes(devices: &[ConfiguredDevice]) -> Vec<PathBuf> {
    let path = |device: &ConfiguredDevice| match &device.place {
        Place::Pipe(path) if path.starts_with('/') => Some(PathBuf::from(path)),
        _ => None,
    };
    devices.iter().filter_map(path).collect()
}

impl Actor {
    /// Devices may have come or gone: lost ones are tried now, and what there is is looked up soon.
    pub(super) fn on_devices_changed(&mut self) {
        let body = to_worker::Body::DevicesChanged(DevicesChanged {});
        for (_, to_worker) in self.live.values().filter_map(|live| live.link.as_ref()) {
            // One that takes nothing tries by itself, only later; a hint must leave room for the stop.
            if to_worker.capacity() == to_worker.max_capacity() {
                let _ = to_worker.try_send(ToWorker { body: Some(body.clone()) });
            }
        }
        let soon = self.clock.now() + SETTLES;
        self.host.catalog.search_at.get_or_insert(soon);
    }

    /// Tells which devices have come and gone since the search before.
    pub(super) fn renew_catalog(&mut self, found: Vec<FoundDevice>) {
        let (come, gone) = self.host.catalog.renew(found);
        for device in come {
            let FoundDevice { name, node, key, .. } = &device;
            tracing::info!(device = name, node, %key, "a device has come");
        }
        for device in gone {
            let session = self.leases.holder(&device.key).map(tracing::field::display);
            let FoundDevice { name, node, key, .. } = &device;
            tracing::info!(session, device = name, node, %key, "a device has gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::device::{DeviceKey, MediaType};

    fn device(key: &str, node: &str) -> FoundDevice {
        FoundDevice {
            key: DeviceKey(key.to_owned()),
            name: "Webcam".to_owned(),
            media: MediaType::Video,
            node: node.to_owned(),
            bus: key.to_owned(),
            by_path: None,
            by_id: None,
            serial: None,
            formats: Vec::new(),
        }
    }

    #[test]
    fn what_came_and_went_is_told_by_its_place_and_not_by_its_node() {
        let mut catalog = Catalog::default();
        let (one, two) = (device("camera:usb-1", "/dev/video0"), device("camera:usb-2", "/dev/video2"));
        let nothing = (Vec::new(), Vec::new());
        assert_eq!(catalog.renew(vec![one.clone()]), nothing, "the first search finds what there is");
        assert_eq!(catalog.renew(vec![one.clone(), two.clone()]), (vec![two.clone()], Vec::new()));
        assert_eq!(catalog.renew(vec![two.clone()]), (Vec::new(), vec![one]));
        assert_eq!(catalog.renew(vec![device("camera:usb-2", "/dev/video7")]), nothing);
    }

    #[tokio::test]
    async fn a_change_in_a_watched_directory_is_told_until_the_actor_has_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("camera");
        let (notices, mut inbox) = mpsc::channel(8);
        let watching = tokio::spawn(watch(vec![pipe.clone()], notices));
        let patience = Duration::from_secs(20);
        // The first look at the directory may come after the first change: it is made until it is seen.
        let told = tokio::time::timeout(patience, async {
            loop {
                std::fs::write(&pipe, "").expect("a file");
                std::fs::remove_file(&pipe).expect("it goes");
                tokio::select! {
                    notice = inbox.recv() => break notice,
                    () = tokio::task::yield_now() => {}
                }
            }
        });
        assert!(matches!(told.await.expect("it is told"), Some(Notice::DevicesChanged)));
        drop(inbox);
        tokio::time::timeout(patience, watching).await.expect("it ends").expect("it does not panic");
    }
}
