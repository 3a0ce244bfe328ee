//! The two callbacks that cpal's thread runs, and what they leave for the reader.
//! Must never lock, allocate, log or wait while sound comes in.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use cpal::{Data, ErrorKind, InputCallbackInfo, StreamInstant};
use rtrb::{Consumer, Producer, RingBuffer};

use super::timeline::Period;
use crate::clock::{Clock, SystemClock};
use crate::device::Wake;
use crate::media::{AudioFormat, SampleFormat};

/// Sound that waits for a reader who is held up.
const RING: Duration = Duration::from_secs(4);
/// Two errors within this time are a device that failed, not one that stumbled.
const ERRORS_APART: Duration = Duration::from_millis(100);
/// Overruns in a row without a period between them: the device only fails.
const OVERRUNS_IN_ROW_MAX: u32 = 50;
/// How long a dead device's thread is held at each further error. A plugin whose server went away
/// reports 145,000 errors a second, and cpal's thread goes on until the stream is dropped.
const STORM_PAUSE: Duration = Duration::from_millis(20);

/// What the callbacks tell the reader beside the sound.
#[derive(Debug, Default)]
pub struct Notes {
    /// Why no more sound will come.
    death: OnceLock<cpal::Error>,
    /// Times that the driver's buffer ran over.
    overruns: AtomicU32,
    overruns_in_row: AtomicU32,
    /// Samples per channel that found the ring full.
    lost: AtomicU64,
    last_error_ns: AtomicU64,
}

/// The callbacks' end.
pub struct Writer {
    samples: Producer<i32>,
    periods: Producer<Period>,
    notes: Arc<Notes>,
    bell: Wake,
    format: AudioFormat,
    /// Samples per channel that were lost since the last period in the ring.
    lost: u32,
    overruns_seen: u32,
}

/// The reader's end.
pub struct Reader {
    samples: Consumer<i32>,
    periods: Consumer<Period>,
    notes: Arc<Notes>,
    /// The samples of the period that was read last.
    present: Vec<i32>,
    channels: u16,
}

/// A ring for sound of `format`; `bell` rings for every period and when no more will come.
pub fn ring(format: AudioFormat, bell: &Wake) -> (Writer, Reader) {
    let samples = usize::try_from(format.samples_in(RING)).expect("seconds of sound fit the memory");
    let (samples_in, samples_out) = RingBuffer::new(samples * usize::from(format.channels));
    // Drivers may make smaller periods than they were asked for: there is room for 4 times as many.
    let periods = samples.div_ceil(format.period_samples.max(1) as usize) * 4;
    let (periods_in, periods_out) = RingBuffer::new(periods);
    let notes = Arc::new(Notes::default());
    let writer = Writer {
        samples: samples_in,
        periods: periods_in,
        notes: notes.clone(),
        bell: bell.clone(),
        format,
        lost: 0,
        overruns_seen: 0,
    };
    let reader = Reader {
        samples: samples_out,
        periods: periods_out,
        notes,
        present: Vec::new(),
        channels: format.channels,
    };
    (writer, reader)
}

impl Writer {
    /// What the stream reports its errors to.
    pub fn error_callback(&self) -> impl FnMut(cpal::Error) + Send + 'static {
        let (notes, bell) = (self.notes.clone(), self.bell.clone());
        move |error| notes.take_error(error, &bell)
    }

    /// The data callback: keeps one period.
    pub fn keep(&mut self, data: &Data, info: &InputCallbackInfo) {
        let arrival = SystemClock.now();
        self.notes.overruns_in_row.store(0, Ordering::Relaxed);
        let samples = u32::try_from(data.len() / usize::from(self.format.channels)).unwrap_or(u32::MAX);
        let has_room = self.periods.slots() > 0 && self.samples.slots() >= data.len();
        if !has_room {
            self.lost = self.lost.saturating_add(samples);
            self.notes.lost.fetch_add(u64::from(samples), Ordering::Relaxed);
            return;
        }
        let room = self
            .samples
            .write_chunk_uninit(data.len())
            .expect("the room was looked at, and only the reader changes it");
        let bytes = data.bytes();
        match self.format.sample {
            SampleFormat::S16 => {
                room.fill_from_iter(bytes.as_chunks().0.iter().map(|b| i32::from(i16::from_ne_bytes(*b))))
            }
            // The upper byte of ALSA's 24 bit samples is undefined.
            SampleFormat::S24 => {
                room.fill_from_iter(bytes.as_chunks().0.iter().map(|b| (i32::from_ne_bytes(*b) << 8) >> 8))
            }
            SampleFormat::S32 => {
                room.fill_from_iter(bytes.as_chunks().0.iter().map(|b| i32::from_ne_bytes(*b)))
            }
        };
        let overruns = self.notes.overruns.load(Ordering::Relaxed);
        let stamp = info.timestamp();
        let period = Period {
            arrival,
            status_ns: nanos(stamp.callback),
            capture_ns: nanos(stamp.capture),
            samples,
            lost: std::mem::take(&mut self.lost),
            has_gap: overruns != std::mem::replace(&mut self.overruns_seen, overruns),
        };
        self.periods.push(period).expect("the room was looked at, and only the reader changes it");
        self.bell.ring();
    }
}

impl Reader {
    /// Takes the next period out of the ring; its samples are in [`Reader::present`] then.
    pub fn take(&mut self) -> Option<Period> {
        let period = self.periods.pop().ok()?;
        self.present.resize(period.samples as usize * usize::from(self.channels), 0);
        self.samples
            .pop_entire_slice(&mut self.present)
            .expect("a period's samples go into the ring before the period");
        Some(period)
    }

    /// The samples of the period that was taken last.
    pub fn present(&self) -> &[i32] {
        &self.present
    }

    /// Why no more sound will come, if that is so.
    pub fn death(&self) -> Option<&cpal::Error> {
        self.notes.death.get()
    }

    /// Samples per channel that the ring had no room for, and overruns of the driver.
    pub fn losses(&self) -> (u64, u32) {
        (self.notes.lost.load(Ordering::Relaxed), self.notes.overruns.load(Ordering::Relaxed))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the thread is cpal's and does nothing else any more: it is to be slowed"
)]
fn hold() {
    thread::sleep(STORM_PAUSE);
}

impl Notes {
    fn take_error(&self, error: cpal::Error, bell: &Wake) {
        if self.death.get().is_some() {
            return hold();
        }
        let is_fatal = match error.kind() {
            ErrorKind::DeviceNotAvailable | ErrorKind::StreamInvalidated => true,
            ErrorKind::Xrun => {
                self.overruns.fetch_add(1, Ordering::Relaxed);
                self.overruns_in_row.fetch_add(1, Ordering::Relaxed) >= OVERRUNS_IN_ROW_MAX
            }
            ErrorKind::RealtimeDenied | ErrorKind::DeviceChanged => false,
            _ => self.follows_another(),
        };
        if is_fatal {
            // Only cpal's thread gets here, so it is the first.
            let _ = self.death.set(error);
            bell.ring();
        }
    }

    fn follows_another(&self) -> bool {
        let now = SystemClock.now().nanos();
        let last = self.last_error_ns.swap(now, Ordering::Relaxed);
        last != 0 && u128::from(now.saturating_sub(last)) < ERRORS_APART.as_nanos()
    }
}

fn nanos(instant: StreamInstant) -> u64 {
    u64::try_from(instant.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bell() -> Wake {
        Wake::new().expect("an eventfd")
    }

    #[test]
    fn one_error_is_forgiven_and_two_at_once_are_not() {
        let (notes, bell) = (Notes::default(), bell());
        notes.take_error(ErrorKind::BackendError.into(), &bell);
        assert!(notes.death.get().is_none() && !bell.take());
        notes.take_error(ErrorKind::BackendError.into(), &bell);
        assert_eq!(notes.death.get().map(cpal::Error::kind), Some(ErrorKind::BackendError));
        assert!(bell.take());
    }

    #[test]
    fn a_device_that_is_gone_is_believed_at_once() {
        let (notes, bell) = (Notes::default(), bell());
        notes.take_error(ErrorKind::DeviceNotAvailable.into(), &bell);
        assert!(notes.death.get().is_some() && bell.take());
    }

    #[test]
    fn overruns_are_counted_and_fatal_only_without_end() {
        let (notes, bell) = (Notes::default(), bell());
        for _ in 0..OVERRUNS_IN_ROW_MAX {
            notes.take_error(ErrorKind::Xrun.into(), &bell);
        }
        assert!(notes.death.get().is_none());
        assert_eq!(notes.overruns.load(Ordering::Relaxed), OVERRUNS_IN_ROW_MAX);
        notes.take_error(ErrorKind::Xrun.into(), &bell);
        assert!(notes.death.get().is_some());
    }

    #[test]
    fn a_storm_of_errors_is_slowed_down() {
        let (notes, bell) = (Notes::default(), bell());
        notes.take_error(ErrorKind::DeviceNotAvailable.into(), &bell);
        let before = SystemClock.now();
        notes.take_error(ErrorKind::BackendError.into(), &bell);
        assert!(SystemClock.now() - before >= STORM_PAUSE);
    }
}
