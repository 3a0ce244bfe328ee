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
    pub(super) jpeg_quality: u8,
    pub(super) sound: Sound,
    pub(super) stall_after: Duration,
    pub(super) queue: Arc<Queue>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) stop: Arc<StopOrder>,
    pub(super) wake: Wake,
    pub(super) events: SyncSender<Event>,
}

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
        let opened = self.open().and_then(|device| Ok((Track::new(self, device.as_ref())?, device)));
        let (mut track, mut device) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.refuse(error, closing),
        };
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
                Err(error) if track.is_empty() => {
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
            if track.is_empty() {
                return self.refuse(error, closing);
            }
            track.lost();
            self.degrade(&chain(&error));
            match self.reopen(&mut track) {
                Some(reopened) => {
                    track.reopened();
                    device = reopened;
                    self.ledger.opened(self.source, device.format().to_string(), device.timestamp_source());
                }
                None => break,
            }
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

    /// A source that delivered nothing at the end has a gap there, which no later frame tells of.
    fn account_for_the_end(&self, track: &Track) {
        let (Some(stop), Some(end)) = (self.stop.get(), track.end()) else { return };
        let silence = stop.since(end);
        if !track.is_lost() && silence <= track.arrivals().patience() {
            return;
        }
        let (state, why) = self.ledger.state_and_reason(self.source);
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
            self.leave_alone();
            if self.stop.get().is_some() {
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

    /// Leaves the lost device alone for a while, unless it may have come back or the stop comes.
    fn leave_alone(&self) {
        let until = SystemClock.now() + REOPEN_AFTER;
        while self.stop.get().is_none() && SystemClock.now() < until {
            if self.wake.wait(until.since(SystemClock.now())) && self.stop.get().is_none() {
                let device = &self.settings.device.label;
                return tracing::debug!(%device, "devices have changed: a lost one is tried at once");
            }
        }
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
