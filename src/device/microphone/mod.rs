//! Microphones: PCMs of ALSA, captured by cpal, whose thread fills a ring that the reader empties.
//! Must never wait for that thread without a deadline: a PCM plugin can block it for ever.

mod capture;
mod choice;
mod name;
mod timeline;

use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, DeviceId, ErrorKind, HostId, StreamConfig};

use super::wait::{Waited, wait};
use super::{Device, DeviceError, Wake};
use crate::clock::MonoTime;
use crate::media::{AudioFormat, Body, Format, Frame, TimestampSource};
use crate::session::device::{Address, DeviceSpec, FormatWish};
use capture::{Reader, ring};
use choice::Choice;
use timeline::Timeline;

/// How long the end of cpal's thread is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often cpal's thread looks at a PCM that gives no events.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// An open microphone.
struct Microphone {
    label: Label,
    stream: Option<cpal::Stream>,
    reader: Reader,
    timeline: Timeline,
    format: AudioFormat,
    wake: Wake,
    /// Rung by the callbacks, apart from `wake`: news of sound must not look like an interruption.
    bell: Wake,
}

/// What errors call a microphone.
struct Label {
    device: String,
    pcm: String,
}

/// Opens the microphone of `spec`.
///
/// # Errors
/// The PCM is missing, busy, forbidden, or can't deliver the wish.
pub fn open(spec: &DeviceSpec, wake: &Wake) -> Result<Box<dyn Device>, DeviceError> {
    let Address::Microphone { pcm } = &spec.address else {
        unreachable!("the caller opens microphones by microphone addresses");
    };
    let label = Label { device: format!("{} ({pcm})", spec.label), pcm: pcm.clone() };
    let bell = Wake::new().map_err(|source| label.failed("making a bell", source))?;
    let device = find(&label)?;
    let choice = negotiate(&label, &device, &spec.wish)?;
    let (stream, reader, format) = build(&label, &device, &choice, &bell)?;
    let stamps = name::stamps(&label.pcm);
    Ok(Box::new(Microphone {
        timeline: Timeline::new(format.sample_rate, stamps),
        label,
        stream: Some(stream),
        reader,
        format,
        wake: wake.clone(),
        bell,
    }))
}

impl Device for Microphone {
    fn format(&self) -> Format {
        Format::Audio(self.format)
    }

    fn timestamp_source(&self) -> TimestampSource {
        self.timeline.source()
    }

    fn start(&mut self) -> Result<(), DeviceError> {
        let stream = self.stream.as_ref().expect("a microphone is closed only by giving it up");
        stream.play().map_err(|error| self.label.refusal("starting", error))
    }

    fn next(&mut self, deadline: MonoTime) -> Result<Option<Frame<'_>>, DeviceError> {
        let period = loop {
            if let Some(period) = self.reader.take() {
                // The caller comes back to look at its orders either way.
                self.wake.take();
                break period;
            }
            if let Some(error) = self.reader.death() {
                return Err(self.label.refusal("capturing", error.clone()));
            }
            match wait(self.bell.as_fd(), &self.wake, deadline) {
                Ok(Waited::Ready) => drop(self.bell.take()),
                Ok(Waited::Rung | Waited::Expired) => return Ok(None),
                Err(source) => return Err(self.label.failed("waiting", source)),
            }
        };
        let timestamp = self.timeline.stamp(&period);
        Ok(Some(Frame { timestamp, sequence: None, body: Body::Sound(self.reader.present()) }))
    }

    fn close(mut self: Box<Self>) -> Result<(), DeviceError> {
        self.release()
    }
}

impl Microphone {
    /// Ends cpal's thread and closes the PCM on a thread of its own: a PCM plugin that is stuck keeps
    /// both for ever, and the process has to end to get rid of them.
    fn release(&mut self) -> Result<(), DeviceError> {
        let Some(stream) = self.stream.take() else { return Ok(()) };
        let (lost, overruns) = self.reader.losses();
        if lost > 0 || overruns > 0 {
            tracing::warn!(
                device = self.label.device,
                lost,
                overruns,
                "sound was lost; the gaps show in its timestamps"
            );
        }
        let (done, closed) = sync_channel(1);
        let close = move || {
            drop(stream);
            // Nobody listens any more when the deadline came first.
            let _ = done.send(());
        };
        let closer = thread::Builder::new().name("microphone-close".to_owned()).spawn(close);
        let closer = closer.map_err(|source| self.label.failed("closing", source))?;
        match closed.recv_timeout(CLOSE_TIMEOUT) {
            Err(RecvTimeoutError::Timeout) => {
                let stuck = io::Error::new(io::ErrorKind::TimedOut, "the sound system does not let go of it");
                return Err(self.label.failed("closing", stuck));
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
        }
        let ended = closer.join();
        ended.map_err(|_| self.label.failed("closing", io::Error::other("the sound library panicked")))
    }
}

impl Drop for Microphone {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::warn!(%error, "a microphone did not close well");
        }
    }
}

fn find(label: &Label) -> Result<cpal::Device, DeviceError> {
    let host = cpal::host_from_id(HostId::Alsa).map_err(|error| label.refusal("loading ALSA", error))?;
    let by_name = |pcm: String| host.device_by_id(&DeviceId::new(HostId::Alsa, pcm));
    name::spellings(&label.pcm).into_iter().find_map(by_name).ok_or_else(|| {
        let device = label.device.clone();
        if name::card_dir(&label.pcm).is_some_and(|card| card.is_dir()) && !name::can_open_cards() {
            // ALSA hides the cards whose control node it may not open.
            DeviceError::Denied { device, node: "/dev/snd".to_owned() }
        } else {
            DeviceError::Missing { device }
        }
    })
}

fn negotiate(label: &Label, device: &cpal::Device, wish: &FormatWish) -> Result<Choice, DeviceError> {
    let ranges =
        device.supported_input_configs().map_err(|error| label.refusal("listing its formats", error))?;
    let ranges: Vec<_> = ranges.collect();
    choice::choose(&ranges, wish).ok_or_else(|| DeviceError::Format {
        device: label.device.clone(),
        wanted: choice::wish_text(wish),
        offered: choice::offer_text(&ranges),
    })
}

/// Builds the stream with the period that was asked for, else with the driver's own.
fn build(
    label: &Label,
    device: &cpal::Device,
    choice: &Choice,
    bell: &Wake,
) -> Result<(cpal::Stream, Reader, AudioFormat), DeviceError> {
    let mut format = AudioFormat {
        sample: choice.sample,
        sample_rate: choice.sample_rate,
        channels: choice.channels,
        period_samples: choice.period_samples,
    };
    let attempt = |buffer_size| {
        let (mut writer, reader) = ring(format, bell);
        let config = StreamConfig { channels: choice.channels, sample_rate: choice.sample_rate, buffer_size };
        let on_error = writer.error_callback();
        let on_data = move |data: &cpal::Data, info: &cpal::InputCallbackInfo| writer.keep(data, info);
        let stream = device.build_input_stream_raw(
            config,
            choice.cpal_format,
            on_data,
            on_error,
            Some(LOOK_INTERVAL),
        )?;
        Ok::<_, cpal::Error>((stream, reader))
    };
    let built = match attempt(BufferSize::Fixed(choice.period_samples)) {
        Err(error) if error.kind() == ErrorKind::UnsupportedConfig => attempt(BufferSize::Default),
        other => other,
    };
    let (stream, reader) = built.map_err(|error| label.refusal("opening", error))?;
    format.period_samples = stream.buffer_size().unwrap_or(choice.period_samples);
    Ok((stream, reader, format))
}

impl Label {
    /// What a failed call means to the caller.
    fn refusal(&self, doing: &'static str, error: cpal::Error) -> DeviceError {
        let device = self.device.clone();
        match error.kind() {
            ErrorKind::DeviceNotAvailable | ErrorKind::StreamInvalidated => DeviceError::Missing { device },
            ErrorKind::DeviceBusy => DeviceError::Busy { device, node: "/dev/snd/*".to_owned() },
            ErrorKind::PermissionDenied => DeviceError::Denied { device, node: "/dev/snd".to_owned() },
            _ => DeviceError::Failed { device, doing, source: io::Error::other(error) },
        }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> DeviceError {
        DeviceError::Failed { device: self.device.clone(), doing, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_named_by_its_cause() {
        let label = Label { device: "desk (hw:CARD=x,DEV=0)".to_owned(), pcm: "hw:CARD=x,DEV=0".to_owned() };
        let refusal = |kind: ErrorKind| label.refusal("opening", kind.into());
        assert!(matches!(refusal(ErrorKind::DeviceBusy), DeviceError::Busy { .. }));
        assert!(matches!(refusal(ErrorKind::DeviceNotAvailable), DeviceError::Missing { .. }));
        assert!(matches!(refusal(ErrorKind::PermissionDenied), DeviceError::Denied { .. }));
        assert!(matches!(refusal(ErrorKind::BackendError), DeviceError::Failed { doing: "opening", .. }));
    }
}
