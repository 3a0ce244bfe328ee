//! What can go wrong with a device, told apart by what a caller can do about it.

use thiserror::Error;

/// A device could not be opened or read.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// There is no such device (any more).
    #[error("{device} is gone: check that it is plugged in and switched on")]
    Missing {
        /// Label and node of the device.
        device: String,
    },
    /// There is nothing at the path of a virtual device.
    #[error("{device} is not there: {remedy}")]
    NotThere {
        /// Label and path of the device.
        device: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The host may not read the file or the pipe of a virtual device.
    #[error("{device} can't be opened: permission denied; let the daemon's user read it")]
    Unreadable {
        /// Label and path of the device.
        device: String,
    },
    /// Nothing came through a pipe.
    #[error("nobody writes to {device}: start what writes to it, or name its width and height")]
    Unwritten {
        /// Label and path of the device.
        device: String,
    },
    /// Somebody else uses the device.
    #[error("{device} is busy: another process holds it; close that program (`fuser -v {node}` names it)")]
    Busy {
        /// Label and node of the device.
        device: String,
        /// The node, for the remedy.
        node: String,
    },
    /// The host may not open the device.
    #[error(
        "{device} can't be opened: permission denied; add the daemon's user to the group of {node} (video, audio)"
    )]
    Denied {
        /// Label and node of the device.
        device: String,
        /// The node, for the remedy.
        node: String,
    },
    /// The device can't deliver what was asked for.
    #[error("{device} can't deliver {wanted}: it offers {offered}")]
    Format {
        /// Label and node of the device.
        device: String,
        /// The format asked for.
        wanted: String,
        /// What it offers instead.
        offered: String,
    },
    /// The bus has no bandwidth left for this stream (ENOSPC from STREAMON).
    #[error(
        "{device} gets no bandwidth on its USB bus: ask for a smaller or compressed format, or move it to another port"
    )]
    Bandwidth {
        /// Label and node of the device.
        device: String,
    },
    /// Another device answers at this address.
    #[error("{device} is not the device that was asked for: {found} is at its place; refusing to record it")]
    Impostor {
        /// Label and node of the device.
        device: String,
        /// What was found there.
        found: String,
    },
    /// A replayed file or a pipe came to its end.
    #[error("{device} has ended")]
    Ended {
        /// Label of the device.
        device: String,
    },
    /// Data that is not what it should be (a file that is no MJPEG, a pipe without JPEG markers).
    #[error("{device} delivers no usable data: {problem}")]
    Malformed {
        /// Label of the device.
        device: String,
        /// What is wrong.
        problem: String,
    },
    /// Anything else that the driver or the library says.
    #[error("{device} failed while {doing}")]
    Failed {
        /// Label and node of the device.
        device: String,
        /// The call that failed.
        doing: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

impl DeviceError {
    /// The reason that an answer of the API carries.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::NotThere { .. } => "DEVICE_MISSING",
            Self::Busy { .. } => "DEVICE_BUSY",
            Self::Denied { .. } | Self::Unreadable { .. } => "DEVICE_DENIED",
            Self::Unwritten { .. } => "DEVICE_UNWRITTEN",
            Self::Format { .. } => "FORMAT_UNAVAILABLE",
            Self::Bandwidth { .. } => "USB_BANDWIDTH",
            Self::Impostor { .. } => "DEVICE_MISMATCH",
            Self::Ended { .. } => "DEVICE_ENDED",
            Self::Malformed { .. } => "DEVICE_MALFORMED",
            Self::Failed { .. } => "DEVICE_FAILED",
        }
    }
}
