//! What the replay plays: a file as a series of frames, each with its time from the begin of the file.

use std::io;
use std::time::Duration;

use crate::device::DeviceError;
use crate::media::{Body, Format};
use crate::session::device::FormatWish;

/// A file that can be played.
pub(super) trait Medium: Send {
    /// The format of all its frames.
    fn format(&self) -> Format;

    /// Reads the next frame; `None` at the end.
    fn advance(&mut self) -> Result<Option<Span>, DeviceError>;

    /// The frame that was read last.
    fn body(&self) -> Body<'_>;

    /// Goes back to the begin.
    fn rewind(&mut self) -> Result<(), DeviceError>;
}

/// When a frame is played, from the begin of the file, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: Duration,
    pub(super) length: Duration,
}

/// The name of the device in errors: its label and the file's path.
#[derive(Clone, Debug)]
pub(super) struct Label(String);

impl Label {
    pub(super) fn new(label: &str, path: &str) -> Self {
        Self(format!("{label} ({path})"))
    }

    pub(super) fn malformed(&self, problem: impl Into<String>) -> DeviceError {
        DeviceError::Malformed { device: self.0.clone(), problem: problem.into() }
    }

    pub(super) fn failed(&self, doing: &'static str, source: io::Error) -> DeviceError {
        DeviceError::Failed { device: self.0.clone(), doing, source }
    }

    pub(super) fn missing(&self) -> DeviceError {
        let remedy = "put the file at its path, or correct the path in the config";
        DeviceError::NotThere { device: self.0.clone(), remedy }
    }

    pub(super) fn denied(&self) -> DeviceError {
        DeviceError::Unreadable { device: self.0.clone() }
    }

    pub(super) fn other_format(&self, wish: &FormatWish, format: Format) -> DeviceError {
        let size = |side: Option<u32>| side.map_or_else(|| "any".to_owned(), |side| side.to_string());
        let rate = |rate: Option<f64>| rate.map_or_else(|| "any rate".to_owned(), |rate| format!("{rate}/s"));
        let wanted = match format {
            Format::Video(_) => {
                let code = wish.pixel_format.as_deref().unwrap_or("pictures");
                format!("{code} {}x{} at {}", size(wish.width), size(wish.height), rate(wish.frame_rate))
            }
            Format::Audio(_) => {
                format!("{} Hz, {} channels", size(wish.sample_rate), size(wish.channels.map(u32::from)))
            }
        };
        DeviceError::Format { device: self.0.clone(), wanted, offered: format.to_string() }
    }

    pub(super) fn ended(&self) -> DeviceError {
        DeviceError::Ended { device: self.0.clone() }
    }
}
