//! The worker's end of the link: it dials the daemon, says who it is, and dials again when the daemon
//! is gone. A reading thread passes on what the daemon says.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crate::clock::{Clock, MonoTime, SystemClock};
use crate::link::message::{FromWorker, Hello, ToWorker, from_worker};
use crate::link::{Decoder, LINK_VERSION, encode};
use crate::session::SessionId;

use super::event::Event;

/// How long after losing the daemon it is dialled again, and again.
const REDIAL_AFTER: Duration = Duration::from_millis(200);
/// A daemon that takes a message no sooner than this is as good as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The way to the daemon, there or not.
pub(super) struct Connection {
    path: PathBuf,
    session: SessionId,
    events: SyncSender<Event>,
    stream: Option<UnixStream>,
    /// Number of the present connection; what is said on older ones no longer counts.
    number: u64,
    /// When the daemon last said something.
    heard_at: MonoTime,
    dialled_at: Option<MonoTime>,
}

impl Connection {
    /// A connection that is yet to be dialled.
    pub(super) fn new(path: &Path, session: SessionId, events: SyncSender<Event>) -> Self {
        let heard_at = SystemClock.now();
        Self { path: path.to_owned(), session, events, stream: None, number: 0, heard_at, dialled_at: None }
    }

    /// Dials the daemon unless it is there or was dialled just now; true when it is there anew.
    pub(super) fn dial(&mut self, configured: bool) -> bool {
        let now = SystemClock.now();
        if self.stream.is_some() || self.dialled_at.is_some_and(|at| now.since(at) < REDIAL_AFTER) {
            return false;
        }
        self.dialled_at = Some(now);
        match self.connect(configured) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "the daemon can't be reached");
                self.stream = None;
                false
            }
        }
    }

    /// Whether `number` is the present connection.
    pub(super) fn is_present(&self, number: u64) -> bool {
        self.stream.is_some() && self.number == number
    }

    /// The present connection is gone.
    pub(super) fn lost(&mut self) {
        self.stream = None;
    }

    /// The daemon has said something.
    pub(super) fn heard(&mut self) {
        self.heard_at = SystemClock.now();
    }

    /// For how long the daemon has said nothing; each report makes it say something.
    pub(super) fn absence(&self) -> Duration {
        SystemClock.now().since(self.heard_at)
    }

    /// Tells the daemon something, if it is there.
    pub(super) fn tell(&mut self, body: from_worker::Body) {
        let bytes = encode(&FromWorker { body: Some(body) });
        let Some(stream) = &mut self.stream else { return };
        if let Err(error) = stream.write_all(&bytes) {
            tracing::warn!(%error, "the daemon takes no message");
            self.lost();
        }
    }

    fn connect(&mut self, configured: bool) -> std::io::Result<()> {
        let stream = UnixStream::connect(&self.path)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        self.number += 1;
        let (number, reader, events) = (self.number, stream.try_clone()?, self.events.clone());
        std::thread::Builder::new().name("link".to_owned()).spawn(move || {
            read(reader, number, &events);
            // Nobody listens any more when the worker is at its end.
            let _ = events.send(Event::LinkLost(number));
        })?;
        self.stream = Some(stream);
        self.tell(from_worker::Body::Hello(hello(&self.session, configured)));
        Ok(())
    }
}

fn read(mut stream: UnixStream, number: u64, events: &SyncSender<Event>) {
    let mut decoder = Decoder::default();
    let mut buffer = [0; 4096];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        decoder.push(&buffer[..count]);
        loop {
            match decoder.next_message::<ToWorker>() {
                Ok(Some(message)) => {
                    if events.send(Event::Link(number, message)).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => return tracing::error!(%error, "the daemon is not understood"),
            }
        }
    }
}

fn hello(session: &SessionId, configured: bool) -> Hello {
    let pid = std::process::id();
    Hello {
        link_version: LINK_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        session_id: session.to_string(),
        pid,
        start_time: start_time().unwrap_or(0),
        boot_id: boot_id(),
        configured,
    }
}

/// What names this boot of the host.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Clock ticks after boot at which this process started (`proc_pid_stat(5)`, field 22).
fn start_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses that may hold anything; the third follows its end.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}
