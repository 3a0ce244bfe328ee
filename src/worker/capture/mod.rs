//! Capturing one source: a thread that opens its device, takes frames until the stop, and closes it.
//! Must never wait for the disk or the daemon.

mod arrivals;
mod listening;
mod pace;
mod picture;
mod sound;
mod track;

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crate::clock::{Clock, MonoTime, SystemClock};
use crate::device::{self, Device, DeviceError, Wake};
use crate::link::{Sound, SourceSettings};
use crate::media::{Queue, TimestampSource};
use crate::recording::Ledger;
use crate::session::{Gap, GapReason, SourceState};
use crate::telemetry::chain;

use super::crash::or_crash;
use super::event::Event;
use super::stop::StopOrder;
use track::Track;

/// How long a lost device is left alone before it is opened anew.
const REOPEN_AFTER: Duration = Duration::from_millis(500);

/// What a capturing thread works with.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) source: usize,
    pub(super) settings: SourceSettings,
    /// An earlier worker has captured it: its device may be gone meanwhile, and come back.
    pub(super) resumed: bool,
    pub(super) jpeg_quality: u8,
    pub(super) sound: Sound,
    pub(super) stall_after: Duration,
    pub(super) queue: Arc<Queue>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) stop: Arc<StopOrder>,
    pub(super) wake: Wake,
    pub(super) events: SyncSender<Event>,
}

/// An open device and its track.
type Opened = (Track, Box<dyn Device>);

/// How the taking of frames ended.
enum Taken {
    /// The stop has come and every frame up to it was taken.
    Stopped,
    /// The device has nothing more to give.
    Ended,
    /// The device failed.
    Lost(DeviceError),
}

/// Starts the thread of one source. It ends by itself after the stop, unless its device hangs.
pub(super) fn start(context: Context) -> std::io::Result<()> {
    let name = format!("capture-{}", context.source);
    std::thread::Builder::new().name(name).spawn(move || {
        let source = context.source;
        let events = context.events.clone();
        if or_crash("capture", || context.run()) == Closing::Hangs {
            // What still holds the device is ended with the process; until then it isn't closed.
            return;
        }
        // Nobody listens any more when the worker is at its end.
        let _ = events.send(Event::Closed(source));
    })?;
    Ok(())
}

impl Context {
    fn run(&self) -> Closing {
        let mut closing = Closing::Done;
        let began = SystemClock.now();
        let (mut track, mut device) = match self.first_open() {
            Ok(Some(opened)) => opened,
            Ok(None) => {
                self.account_for_absence(began);
                return closing;
            }
            Err(error) => return self.refuse(error, closing),
        };
        self.ledger.begins_as(self.source, track.codec().clone());
        self.ledger.opened(self.source, device.format().to_string(), device.timestamp_source());
        self.tell(Event::Opened(self.source, track.codec().clone(), track.interval()));
        loop {
            if self.stop.get().is_some() {
                // Stopped while it was opened: the device is not started after the stop.
                closing = closing.and(close(device));
                break;
            }
            let taken = match device.start() {
                Ok(()) => self.take(device.as_mut(), &mut track),
                Err(error) if track.is_empty() && !self.resumed => {
                    closing = closing.and(close(device));
                    return self.refuse(error, closing);
                }
                Err(error) => Taken::Lost(error),
            };
            closing = closing.and(close(device));
            let error = match taken {
                Taken::Stopped => break,
                Taken::Ended => {
                    tracing::info!(device = %self.settings.device.label, "source has ended");
                    break;
                }
                Taken::Lost(error) => error,
            };
            if track.is_empty() && !self.resumed {
                return self.refuse(error, closing);
            }
            if track.is_empty() {
                self.miss(&error);
            } else {
                track.lost();
            }
            self.degrade(&chain(&error));
            match self.reopen(&mut track) {
                Some(reopened) => {
                    if !track.is_empty() {
                        track.reopened();
                    }
                    device = reopened;
                    self.ledger.opened(self.source, device.format().to_string(), device.timestamp_source());
                }
                None => break,
            }
        }
        if track.is_empty() {
            self.account_for_absence(began);
        }
        self.account_for_the_end(&track);
        track.flush(self);
        self.ledger.turn(self.source, SourceState::Released, "");
        closing
    }

    fn refuse(&self, error: DeviceError, closing: Closing) -> Closing {
        self.tell(Event::OpenFailed(self.source, error));
        closing
    }

    /// Opens the device and makes its track. Where an earlier worker has captured it, this is tried until the
    /// stop, which gives `None`.
    fn first_open(&self) -> Result<Option<Opened>, DeviceError> {
        loop {
            let opened = self.open().and_then(|device| Ok((Track::new(self, device.as_ref())?, device)));
            let error = match opened {
                Ok(opened) => return Ok(Some(opened)),
                Err(error) if !self.resumed => return Err(error),
                Err(error) => error,
            };
            self.miss(&error);
            if !self.wait_to_reopen() {
                return Ok(None);
            }
        }
    }

    /// The device of a source that an earlier worker has captured is gone.
    fn miss(&self, error: &DeviceError) {
        let reason = chain(error);
        let is_news = self.ledger.state(self.source) != SourceState::Degraded;
        self.ledger.turn(self.source, SourceState::Degraded, &reason);
        if is_news {
            let device = &self.settings.device.label;
            tracing::warn!(%device, reason, "the session goes on without this source until it is back");
            self.ledger.warn(format!("{device} was not there when a new worker went on: {reason}"));
        }
        self.tell(Event::Missing(self.source));
    }

    /// A source that a new worker has never heard has a gap from its beginning to the stop.
    fn account_for_absence(&self, began: MonoTime) {
        self.ledger.turn(self.source, SourceState::Released, "");
        if let Some(stop) = self.stop.get() {
            self.gap(began, stop, 0, GapReason::Lost);
        }
    }

    /// A source that delivered nothing at the end has a gap there, which no later frame tells of.
    fn account_for_the_end(&self, track: &Track) {
        let (Some(stop), Some(end)) = (self.stop.get(), track.end()) else { return };
        let silence = stop.since(end);
        let (state, why) = self.ledger.state_and_reason(self.source);
        let is_told = state == SourceState::Degraded || track.is_lost();
        // What was told to be silent has a gap, however short: its last frame lasted a little longer.
        if !is_told && silence <= track.arrivals().patience() {
            return;
        }
        let reason = if track.is_lost() { GapReason::Lost } else { GapReason::Stalled };
        self.gap(end, stop, 0, reason);
        let why =
            if state == SourceState::Degraded { why } else { "the device delivered nothing".to_owned() };
        let label = &self.settings.device.label;
        self.ledger
            .warn(format!("{label} delivered nothing for the last {:.1} s: {why}", silence.as_secs_f64()));
    }

    fn open(&self) -> Result<Box<dyn Device>, DeviceError> {
        device::open(&self.settings.device, &self.wake)
    }

    /// Takes frames until the stop, the end, or a failure.
    fn take(&self, device: &mut dyn Device, track: &mut Track) -> Taken {
        loop {
            // Some drivers show only with their frames whether they stamp them.
            let timestamps = device.timestamp_source();
            let arrival = timestamps == TimestampSource::Arrival;
            let stop = self.stop.get();
            let now = SystemClock.now();
            self.ledger.answered(self.source, now);
            self.ledger.corrupt(self.source, device.broken());
            let last_call = stop.map(|at| at + track.interval().mul_f64(1.5));
            match device.next(last_call.unwrap_or_else(|| track.arrivals().wait_until(now))) {
                Ok(Some(frame)) => {
                    if self.stop.get().is_some_and(|at| frame.timestamp > at) {
                        return Taken::Stopped;
                    }
                    let reached_stop = track.take(self, &frame);
                    if device.timestamp_source() != timestamps {
                        self.ledger.opened(
                            self.source,
                            device.format().to_string(),
                            device.timestamp_source(),
                        );
                    }
                    if reached_stop {
                        return Taken::Stopped;
                    }
                }
                // Frames that are stamped on arrival and haven't arrived by now come after the stop.
                Ok(None) if stop.is_some_and(|_| arrival) => return Taken::Stopped,
                Ok(None) if last_call.is_some_and(|end| SystemClock.now() >= end) => return Taken::Stopped,
                Ok(None) => self.look_for_stall(track),
                Err(DeviceError::Ended { .. }) => return Taken::Ended,
                Err(error) => return Taken::Lost(error),
            }
        }
    }

    fn look_for_stall(&self, track: &Track) {
        if track.arrivals().is_silent(SystemClock.now()) {
            self.degrade("the device delivers nothing");
        }
    }

    /// Opens the lost device anew until it is back, or the stop comes.
    fn reopen(&self, track: &mut Track) -> Option<Box<dyn Device>> {
        loop {
            if !self.wait_to_reopen() {
                return None;
            }
            match self.open() {
                Ok(device) => {
                    let is_same = device.format() == track.format();
                    let changed = if is_same { Ok(()) } else { track.change_format(self, device.format()) };
                    match changed {
                        Ok(()) => {
                            self.ledger.restarted(self.source);
                            return Some(device);
                        }
                        Err(error) => self.degrade(&chain(&error)),
                    }
                    if close(device) == Closing::Hangs {
                        return None;
                    }
                }
                Err(error) => self.degrade(&chain(&error)),
            }
        }
    }

    /// Leaves the lost device alone for a while, unless it may have come back; false when the stop has come.
    fn wait_to_reopen(&self) -> bool {
        let until = SystemClock.now() + REOPEN_AFTER;
        while self.stop.get().is_none() && SystemClock.now() < until {
            if self.wake.wait(until.since(SystemClock.now())) && self.stop.get().is_none() {
                let device = &self.settings.device.label;
                tracing::debug!(%device, "devices have changed: a lost one is tried at once");
                return true;
            }
        }
        self.stop.get().is_none()
    }

    /// The source delivers nothing, and should.
    fn degrade(&self, reason: &str) {
        let was = self.ledger.state(self.source);
        if was == SourceState::Starting || !self.ledger.turn(self.source, SourceState::Degraded, reason) {
            return;
        }
        if was != SourceState::Degraded {
            tracing::warn!(device = %self.settings.device.label, reason, "source degraded");
        }
        self.tell(Event::Turned);
    }

    /// The source delivers; true when it was degraded until now.
    fn delivers(&self) -> bool {
        let was = self.ledger.state(self.source);
        if was == SourceState::Working {
            return false;
        }
        self.ledger.turn(self.source, SourceState::Working, "");
        if was != SourceState::Degraded {
            return false;
        }
        tracing::info!(device = %self.settings.device.label, "source delivers again");
        self.tell(Event::Turned);
        true
    }

    /// What is to be said of a source that delivers, "" for nothing.
    fn remark(&self, remark: &str) {
        let (state, before) = self.ledger.state_and_reason(self.source);
        if state != SourceState::Working || before == remark {
            return;
        }
        self.ledger.turn(self.source, SourceState::Working, remark);
        let device = &self.settings.device.label;
        if remark.is_empty() {
            tracing::info!(%device, "the source is as it should be again");
        } else {
            tracing::warn!(%device, remark, "something is wrong with a source");
            self.ledger.warn(format!("{device}: {remark}"));
        }
        self.tell(Event::Turned);
    }

    fn gap(&self, from: MonoTime, to: MonoTime, missed: u64, reason: GapReason) {
        let gap = Gap {
            start_seconds: self.ledger.seconds_at(from),
            duration_seconds: to.since(from).as_secs_f64(),
            missed,
            reason,
        };
        self.ledger.gap(self.source, gap);
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the worker is at its end.
        let _ = self.events.send(event);
    }
}

/// How the closing of a device went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// Nothing is held.
    Done,
    /// The library didn't come back: the device may be held until the process ends.
    Hangs,
}

impl Closing {
    fn and(self, other: Self) -> Self {
        if self == Self::Hangs { self } else { other }
    }
}

fn close(device: Box<dyn Device>) -> Closing {
    let Err(error) = device.close() else { return Closing::Done };
    tracing::warn!(error = %chain(&error), "closing a device");
    match error {
        DeviceError::Failed { source, .. } if source.kind() == std::io::ErrorKind::TimedOut => Closing::Hangs,
        _ => Closing::Done,
    }
}
