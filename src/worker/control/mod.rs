//! The control thread of a worker: it takes the session on, starts capturing and recording, carries
//! out the stop, and ends the process. Everything that happens reaches it as an [`Event`].
//!
//! ```text
//! dial ─► Welcome ─► open every device ─► first frame of each ─► record, Working
//!                          │ a failure: close all, StartFailed, exit
//! Stop, SIGTERM, expiry, no daemon, disk full ─► capture up to stopAt, close devices, Released
//!                                             ─► queue empty, file final, Finished, exit
//! ```

mod end;
mod enlist;
mod tick;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::capture;
use super::connection::Connection;
use super::event::Event;
use super::probe::start_log;
use super::record;
use super::report::Reports;
use super::sources::Sources;
use super::stop::StopOrder;
use crate::clock::{Anchor, Clock, MonoTime, Steps, SystemClock};
use crate::device::Wake;
use crate::link::message::{
    Ending, Opened, StartFailed, Stop, ToWorker, Welcome, from_worker::Body, to_worker,
};
use crate::link::{LINK_VERSION, WorkerSettings};
use crate::media::{Queue, QueueLimits};
use crate::recording::{self, HELD_BYTES_MAX, Ledger, Recorder, RecorderSettings, SystemHost};
use crate::session::{EndReason, SessionId};
use crate::telemetry::chain;
use enlist::{be_taken_on, watch_signals};

/// The longest time between two looks at clocks and the daemon.
const TICK: Duration = Duration::from_millis(100);
/// Events that may wait for this thread. A capturing thread that finds no room waits with its device.
const EVENTS_MAX: usize = 1024;
/// Packets that may wait in memory.
const QUEUE_PACKETS_MAX: usize = 16 * 1024;

/// Captures one session: the whole life of a worker process. `link` is the daemon's link socket.
pub fn run(link: &Path, session: &str) -> ExitCode {
    // A worker outlives its daemon and the daemon's terminal.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "already leads a session");
    }
    start_log();
    let Ok(session) = session.parse::<SessionId>() else {
        tracing::error!("no session id: a worker is started by the daemon only");
        return ExitCode::FAILURE;
    };
    let (events, inbox) = sync_channel(EVENTS_MAX);
    if let Err(error) = watch_signals(events.clone()) {
        tracing::error!(%error, "signals can't be watched");
        return ExitCode::FAILURE;
    }
    let mut connection = Connection::new(link, session, events.clone());
    let Some(settings) = be_taken_on(&mut connection, &inbox) else {
        return ExitCode::FAILURE;
    };
    let code = Control::begin(settings, connection, events).run(&inbox);
    tracing::debug!("worker ends");
    code
}

/// How far the worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Devices are being opened, or their first frames awaited.
    Starting,
    /// The start has failed; devices are being closed.
    Failing,
    /// Packets are being recorded.
    Working,
    /// The stop was ordered; devices are being closed.
    Draining,
    /// Devices are closed; the file is being made final.
    Finalizing,
    /// Everything is done.
    Done,
}

struct Control {
    settings: WorkerSettings,
    connection: Connection,
    events: SyncSender<Event>,
    stage: Stage,
    sources: Sources,
    wakes: Vec<Wake>,
    stop: Arc<StopOrder>,
    queue: Arc<Queue>,
    ledger: Arc<Ledger>,
    reports: Reports,
    recording: bool,
    /// Every source has been lost or degraded since then.
    all_lost_since: Option<MonoTime>,
    wall_steps: Steps,
    failed: bool,
    failure: Option<StartFailed>,
    /// The beginning of the session's media.
    origin: MonoTime,
    /// Number of this worker's first file.
    first_segment: u32,
    stop_ordered_at: Option<MonoTime>,
    /// What was said of the end, to be said again to a daemon that comes later.
    ending: Option<Ending>,
    released_at: Option<MonoTime>,
}

impl Control {
    fn begin(settings: WorkerSettings, connection: Connection, events: SyncSender<Event>) -> Self {
        let limits = QueueLimits { packets_max: QUEUE_PACKETS_MAX, bytes_max: settings.queue_bytes_max };
        let anchor = settings.anchor.unwrap_or_else(|| Anchor::now(&SystemClock));
        let sources = settings.sources.iter().map(|source| {
            let device = &source.device;
            (source.id.clone(), device.media, format!("{} ({})", device.label, device.key))
        });
        Self {
            ledger: Arc::new(Ledger::new(anchor, sources)),
            sources: Sources::new(settings.sources.len()),
            wakes: Vec::new(),
            stop: Arc::default(),
            queue: Arc::new(Queue::new(limits)),
            reports: Reports::new(),
            stage: Stage::Starting,
            recording: false,
            all_lost_since: None,
            wall_steps: Steps::default(),
            failed: false,
            failure: None,
            origin: MonoTime::default(),
            first_segment: 1,
            stop_ordered_at: None,
            ending: None,
            released_at: None,
            settings,
            connection,
            events,
        }
    }

    fn run(mut self, inbox: &Receiver<Event>) -> ExitCode {
        match recording::prepare(&self.recorder_settings()) {
            Ok(number) => self.first_segment = number,
            Err(error) => self.fail_start(error.reason(), None, &chain(&error)),
        }
        if self.stage == Stage::Starting
            && let Err(error) = self.start_capture()
        {
            self.fail_start(
                "OUT_OF_RESOURCES",
                None,
                &format!("the host has no room for this session: {error}"),
            );
        }
        let started_at = SystemClock.now();
        while self.stage != Stage::Done {
            match inbox.recv_timeout(TICK) {
                Ok(event) => self.on(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("this thread holds a sender"),
            }
            if self.stage == Stage::Starting
                && SystemClock.now().since(started_at) > self.settings.start_timeout
            {
                self.start_timed_out();
            }
            self.tick();
        }
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn start_capture(&mut self) -> std::io::Result<()> {
        for (source, settings) in self.settings.sources.iter().enumerate() {
            let wake = Wake::new()?;
            self.wakes.push(wake.clone());
            capture::start(capture::Context {
                source,
                settings: settings.clone(),
                resumed: self.settings.resumed,
                jpeg_quality: self.settings.jpeg_quality,
                sound: self.settings.sound,
                stall_after: self.settings.stall_after,
                queue: Arc::clone(&self.queue),
                ledger: Arc::clone(&self.ledger),
                stop: Arc::clone(&self.stop),
                wake,
                events: self.events.clone(),
            })?;
        }
        Ok(())
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Link(number, message) if self.connection.is_present(number) => {
                self.connection.heard();
                self.on_message(message);
            }
            Event::LinkLost(number) if self.connection.is_present(number) => self.connection.lost(),
            Event::Link(..) | Event::LinkLost(_) => {}
            Event::Terminated => self.on_terminated(),
            Event::Opened(source, codec, interval) => {
                if self.sources.opened(source, codec, interval) {
                    self.connection.tell(Body::Opened(Opened {}));
                }
            }
            Event::OpenFailed(source, error) => self.on_open_failed(source, &error),
            Event::Missing(source) => self.on_missing(source),
            Event::FirstFrame(source, timestamp) => {
                if self.sources.first_frame(source, timestamp) && self.stage == Stage::Starting {
                    self.start_recording();
                }
            }
            Event::Turned => self.reports.send(&mut self.connection, &self.ledger, &self.queue),
            Event::Closed(source) => self.on_closed(source),
            Event::RecordFailed(error) => {
                let reason = if error.is_full() { EndReason::DiskFull } else { EndReason::WorkerFailed };
                self.ledger.warn(chain(&error));
                self.end(reason, &chain(&error));
            }
            Event::Recorded(recorded) => self.on_recorded(recorded),
        }
    }

    fn on_message(&mut self, message: ToWorker) {
        match message.body {
            Some(to_worker::Body::Stop(Stop { stop_at, abort })) => {
                self.order_stop(MonoTime::from_nanos(stop_at));
                if abort {
                    self.queue.discard();
                }
            }
            Some(to_worker::Body::Welcome(Welcome { link_version, .. })) if link_version != LINK_VERSION => {
                let message = format!("the daemon speaks link version {link_version}, not {LINK_VERSION}");
                tracing::warn!(message, "no daemon is understood any more");
                self.end(EndReason::Orphaned, &message);
            }
            Some(to_worker::Body::Welcome(_)) => {
                self.reports.send(&mut self.connection, &self.ledger, &self.queue);
            }
            Some(to_worker::Body::Refused(refused)) => {
                tracing::warn!(reason = refused.message, "no daemon wants this session any more");
                self.end(EndReason::Orphaned, &refused.message);
            }
            Some(to_worker::Body::DevicesChanged(_)) => self.have_lost_tried(),
            Some(to_worker::Body::Heard(_)) | None => {}
        }
    }

    /// SIGTERM drains; during a drain it means that the drain took too long.
    fn on_terminated(&mut self) {
        if self.stop.get().is_some() {
            self.queue.discard();
        } else {
            self.end(EndReason::AgentShutdown, "SIGTERM");
        }
    }

    fn on_open_failed(&mut self, source: usize, error: &crate::device::DeviceError) {
        if self.stage == Stage::Starting {
            self.fail_start(error.reason(), Some(source), &chain(error));
        } else {
            self.ledger.warn(chain(error));
        }
    }

    /// A session that goes on does so without a source whose device is gone, as it would have in mid-session.
    fn on_missing(&mut self, source: usize) {
        if self.sources.missing(source) && self.stage == Stage::Starting {
            self.start_recording();
        }
    }

    fn on_closed(&mut self, source: usize) {
        self.sources.closed(source);
        if !self.sources.all_closed() {
            return;
        }
        match self.stage {
            Stage::Failing => self.give_up(),
            Stage::Working => self.end(EndReason::SourceLost, "every source has come to its end"),
            Stage::Draining => {
                self.tell_released();
            }
            Stage::Starting | Stage::Finalizing | Stage::Done => {}
        }
        if self.stage == Stage::Draining {
            self.finalize();
        }
    }

    fn on_recorded(&mut self, recorded: Result<(), crate::recording::RecordError>) {
        if let Err(error) = recorded {
            // Without an account the daemon has the files repaired and counted.
            tracing::error!(error = %chain(&error), "the file could not be made final");
            self.stage = Stage::Done;
            self.failed = true;
            return;
        }
        if self.stage != Stage::Finalizing {
            self.end(EndReason::WorkerFailed, "recording has ended early");
        }
        self.finish();
    }

    /// Every source that is waited for has delivered: the file begins with the earliest of them.
    fn start_recording(&mut self) {
        match self.record_from(self.sources.origin()) {
            Ok(()) => {
                self.stage = Stage::Working;
                self.tell_working();
                tracing::info!(file = self.first_segment, "every source delivers: recording");
            }
            Err(error) => self.fail_start(error.reason(), None, &chain(&error)),
        }
    }

    fn record_from(&mut self, origin: Option<MonoTime>) -> Result<(), crate::recording::RecordError> {
        let origin = origin.unwrap_or_else(|| SystemClock.now());
        let settings = self.recorder_settings();
        let tracks = self.sources.tracks(&self.settings.sources);
        let recorder = Recorder::begin(settings, tracks, Arc::clone(&self.ledger), origin)?;
        record::start(Arc::clone(&self.queue), recorder, Arc::clone(&self.stop), self.events.clone())
            .map_err(|source| crate::recording::RecordError::Io {
                doing: "start recording to",
                path: self.settings.session_dir.clone(),
                source,
            })?;
        self.recording = true;
        self.origin = self.settings.origin.unwrap_or(origin);
        self.ledger.begin(self.origin);
        Ok(())
    }

    fn recorder_settings(&self) -> RecorderSettings {
        let settings = &self.settings;
        RecorderSettings {
            host: Arc::new(SystemHost),
            session: settings.session.to_string(),
            name: settings.name.clone(),
            dir: settings.session_dir.clone(),
            file_mode: settings.file_mode,
            dir_mode: settings.dir_mode,
            group: settings.group,
            segment: settings.segment,
            sync_interval: settings.sync_interval,
            resumed: settings.resumed,
            give_up_after: settings.source_lost_after,
            held_bytes_max: HELD_BYTES_MAX,
            first_segment: self.first_segment,
        }
    }
}
