//! What a device is to the rules: a name, a stable key, an address. No device is touched here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a source or a device delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaType {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// Where the timestamps of a source come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampSource {
    /// Stamped by the driver at capture.
    Driver,
    /// Stamped when the worker got the frame.
    Arrival,
}

/// The stable identity of a device on this host: what a lease is held on. Two names of the same
/// hardware have the same key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceKey(pub String);

/// The format that a session or the host's config asks for; what is absent is the device's choice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", default, deny_unknown_fields)]
pub struct FormatWish {
    /// Pixels a row.
    pub width: Option<u32>,
    /// Rows.
    pub height: Option<u32>,
    /// Frames a second.
    pub frame_rate: Option<f64>,
    /// V4L2 four-character code: `MJPG`, `YUYV`, `NV12`, `GREY`, `RGB3`.
    pub pixel_format: Option<String>,
    /// Samples a second, in hertz.
    pub sample_rate: Option<u32>,
    /// Channels of sound.
    pub channels: Option<u16>,
}

/// Where a worker finds a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Address {
    /// A V4L2 capture node such as `/dev/video0`, and what must be true of it when it is opened, so
    /// that another camera that got this number is never taken for it.
    Camera {
        /// Path of the node.
        node: String,
        /// The bus position (`ID_PATH` or V4L2 `bus_info`) that the node must still have.
        bus: String,
        /// The link below `/dev/v4l/by-id`, where a serial number makes it this one camera's, by which it is
        /// found at another bus position.
        #[serde(default)]
        by_id: Option<String>,
    },
    /// A PCM of ALSA, such as `hw:CARD=Loopback,DEV=1`.
    Microphone {
        /// Name of the PCM.
        pcm: String,
    },
    /// A generated picture or tone.
    Synthetic {
        /// Orders to misbehave, for tests.
        #[serde(default)]
        faults: Vec<FaultOrder>,
    },
    /// A recording of ours, an MJPEG or a WAV file, played at its own pace.
    Replay {
        /// Path of the file.
        path: String,
        /// Start again from the beginning at the end; else the source ends there.
        #[serde(rename = "loop", default)]
        again: bool,
    },
    /// MJPEG or PCM (signed 16 bit little endian) read from a FIFO or an inherited descriptor.
    Pipe {
        /// Path of the FIFO, or `fd:N`.
        path: String,
    },
}

/// An order to a virtual device to misbehave from a frame on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct FaultOrder {
    /// Count of the frame at which it begins, from 0.
    pub at_frame: u64,
    /// For how many frames it lasts.
    pub frames: u64,
    /// What happens.
    pub fault: Fault,
}

/// Ways in which a virtual device misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing is delivered.
    Stall,
    /// Every read fails with EIO.
    Fail,
    /// The device is gone (ENODEV), also for those who open it anew.
    Vanish,
    /// As `vanish`, and then it delivers pictures or sound of half the size or rate.
    Change,
    /// Frames come as fast as they are taken.
    Flood,
    /// A call into the device never returns.
    Hang,
    /// A frame takes several times its length to be handed over.
    Slow,
    /// The device's code panics.
    Panic,
    /// A camera in the dark: it exposes four times as long, and gives a quarter of the pictures. Sound goes on.
    Dim,
}

/// A device that a source was resolved to: everything a worker needs to open it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// What a lease is held on.
    pub key: DeviceKey,
    /// What a person calls it.
    pub label: String,
    /// What it delivers.
    pub media: MediaType,
    /// Where it is.
    pub address: Address,
    /// The format asked for.
    #[serde(default)]
    pub wish: FormatWish,
}

/// A device that was found on the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundDevice {
    /// Stable identity: `camera:<ID_PATH or bus_info>`, `microphone:<card id and device>`.
    pub key: DeviceKey,
    /// What a person calls it, as the driver says.
    pub name: String,
    /// What it delivers.
    pub media: MediaType,
    /// `/dev/videoN`, or the PCM's name.
    pub node: String,
    /// The bus position: `ID_PATH`, else V4L2 `bus_info`; for microphones the card's id.
    pub bus: String,
    /// The link below `/dev/v4l/by-path` or `/dev/snd/by-path`, where udev made one.
    pub by_path: Option<String>,
    /// The link below `/dev/v4l/by-id` or `/dev/snd/by-id`, where udev made one.
    pub by_id: Option<String>,
    /// The hardware's serial number, where it tells one.
    pub serial: Option<String>,
    /// Formats that it can deliver, as text for people.
    #[serde(default)]
    pub formats: Vec<String>,
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Video => "video",
            Self::Audio => "audio",
        })
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
