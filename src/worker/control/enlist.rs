//! The beginning of a worker: its signals, and the daemon that takes it on.

use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::TICK;
use crate::clock::{Clock, SystemClock};
use crate::link::message::to_worker;
use crate::link::{LINK_VERSION, WorkerSettings};
use crate::worker::connection::Connection;
use crate::worker::event::Event;

/// How long a worker waits to be taken on.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells of every SIGTERM. SIGINT is ignored: a terminal means the daemon, which then orders the stop.
pub(super) fn watch_signals(events: SyncSender<Event>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever().filter(|signal| *signal == SIGTERM) {
            if events.send(Event::Terminated).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Dials until the daemon takes the worker on; `None` when it won't, or when it is told to end.
pub(super) fn be_taken_on(connection: &mut Connection, inbox: &Receiver<Event>) -> Option<WorkerSettings> {
    let deadline = SystemClock.now() + WELCOME_TIMEOUT;
    while SystemClock.now() < deadline {
        connection.dial(false);
        let (number, message) = match inbox.recv_timeout(TICK) {
            Ok(Event::Link(number, message)) => (number, message),
            Ok(Event::LinkLost(number)) if connection.is_present(number) => {
                connection.lost();
                continue;
            }
            Ok(Event::Terminated) => return None,
            _ => continue,
        };
        match message.body {
            Some(to_worker::Body::Welcome(welcome)) if connection.is_present(number) => {
                if welcome.link_version != LINK_VERSION {
                    tracing::error!(
                        daemon = welcome.link_version,
                        worker = LINK_VERSION,
                        "link versions differ"
                    );
                    return None;
                }
                return serde_json::from_slice(&welcome.settings)
                    .inspect_err(|error| tracing::error!(%error, "the settings can't be read"))
                    .ok();
            }
            Some(to_worker::Body::Refused(refused)) => {
                tracing::error!(reason = refused.message, "the daemon refuses this worker");
                return None;
            }
            _ => {}
        }
    }
    tracing::error!("no daemon took this worker on in time");
    None
}
