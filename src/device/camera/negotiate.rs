//! Opening a camera and agreeing on a format: the choice is ours, nokhwa asks the driver for it, and
//! where nokhwa can't, `v4l` does. Must never trust that a driver did as it was told: what counts is
//! what it says after the last opening.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use nokhwa::Camera;
use nokhwa::utils::{
    CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType, Resolution,
};
use v4l::capability::Flags;
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, Fraction};

use super::choice::{choose, meets, same_rate, wish_text};
use super::modes::{Interval, Mode, Offer};
use super::{Label, guarded};
use crate::device::DeviceError;
use crate::device::catalog::identity;
use crate::media::{PixelFormat, VideoFormat};
use crate::session::device::FormatWish;

/// Lines of an offer that an error tells.
const OFFERED_LINES_MAX: usize = 8;
/// The interval that is told where the driver tells none, in nanoseconds.
const INTERVAL_ASSUMED_NS: u64 = 33_333_333;

/// Opens the camera at `label.node`, which has to be at `bus` (anywhere, if that is empty), in the
/// format that `wish` asks for.
///
/// # Errors
/// It is missing, busy, forbidden, another one, or can't deliver the wish.
pub fn open(label: &Label, bus: &str, wish: &FormatWish) -> Result<(Device, VideoFormat), DeviceError> {
    let device = open_verified(label, bus)?;
    let offer =
        guarded(|| Offer::of(&device, wish)).map_err(|error| label.refusal("listing its formats", error))?;
    let refuse = || DeviceError::Format {
        device: label.device.clone(),
        wanted: wish_text(wish),
        offered: offered_text(&offer),
    };
    let choice = choose(&offer.modes, wish).ok_or_else(refuse)?;
    // Some drivers let one descriptor in at a time; nokhwa opens its own.
    close(label, device)?;
    if !offer.has_ranges {
        ask_by_nokhwa(label, &choice);
    }
    let device = open_verified(label, bus)?;
    let (mut mode, mut format) = read_back(label, &device)?;
    if !is_same(&mode, &choice) {
        ask_by_v4l(label, &device, &choice)?;
        (mode, format) = read_back(label, &device)?;
    }
    let pixel = mode.pixel().filter(|_| meets(&mode, wish)).ok_or_else(refuse)?;
    Ok((device, video_format(pixel, &mode, format.stride)))
}

/// Closes a device whose drop panics when `close(2)` fails.
pub fn close(label: &Label, device: Device) -> Result<(), DeviceError> {
    let drop = || {
        drop(device);
        Ok(())
    };
    guarded(drop).map_err(|error| label.refusal("closing", error))
}

fn open_verified(label: &Label, bus: &str) -> Result<Device, DeviceError> {
    let node = Path::new(&label.node);
    let device = Device::with_path(node).map_err(|error| label.refusal("opening", error))?;
    let known = guarded(|| device.query_caps()).map_err(|error| label.refusal("asking what it is", error))?;
    let id_path = identity::id_path(node);
    if !bus.is_empty() && bus != known.bus && id_path.as_deref() != Some(bus) {
        if id_path.is_none() && !identity::is_settled(node) {
            return Err(DeviceError::Missing { device: label.device.clone() });
        }
        let found = format!("{} at {}", identity::human_name(&known.card), id_path.unwrap_or(known.bus));
        return Err(DeviceError::Impostor { device: label.device.clone(), found });
    }
    if !known.capabilities.contains(Flags::VIDEO_CAPTURE | Flags::STREAMING) {
        let offered = format!("no streamed pictures ({})", identity::human_name(&known.card));
        return Err(DeviceError::Format {
            device: label.device.clone(),
            wanted: "pictures".to_owned(),
            offered,
        });
    }
    Ok(device)
}

/// Has nokhwa set the format. It can't for intervals other than 1/n, for devices that are in a
/// format it doesn't know, and for GREY: what it did shows in the read-back.
fn ask_by_nokhwa(label: &Label, choice: &Mode) {
    let format = match choice.pixel() {
        Some(PixelFormat::Mjpeg) => FrameFormat::MJPEG,
        Some(PixelFormat::Yuyv) => FrameFormat::YUYV,
        Some(PixelFormat::Nv12) => FrameFormat::NV12,
        Some(PixelFormat::Rgb24) => FrameFormat::RAWRGB,
        Some(PixelFormat::Grey) | None => return,
    };
    let (Some(number), Some(Interval { numerator: 1, denominator: rate })) =
        (identity::video_number(Path::new(&label.node)), choice.interval)
    else {
        return;
    };
    let exact = CameraFormat::new(Resolution::new(choice.width, choice.height), format, rate);
    let negotiate = || {
        let formats = [format];
        let request = RequestedFormat::with_formats(RequestedFormatType::Exact(exact), &formats);
        Camera::new(CameraIndex::Index(number), request).map(drop)
    };
    match catch_unwind(AssertUnwindSafe(negotiate)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(device = label.device, %error, "nokhwa could not set the format; v4l does");
        }
        Err(_) => tracing::debug!(device = label.device, "nokhwa panicked over the format; v4l sets it"),
    }
}

fn ask_by_v4l(label: &Label, device: &Device, choice: &Mode) -> Result<(), DeviceError> {
    let format = Format::new(choice.width, choice.height, choice.fourcc);
    guarded(|| device.set_format(&format)).map_err(|error| label.refusal("setting its format", error))?;
    if let Some(Interval { numerator, denominator }) = choice.interval {
        let params = Parameters::new(Fraction::new(numerator, denominator));
        // Not every driver has rates to set; the read-back shows what came of it.
        if let Err(error) = guarded(|| device.set_params(&params)) {
            tracing::debug!(device = label.device, %error, "the driver takes no frame rate");
        }
    }
    Ok(())
}

fn read_back(label: &Label, device: &Device) -> Result<(Mode, Format), DeviceError> {
    let format = guarded(|| device.format()).map_err(|error| label.refusal("reading its format", error))?;
    let interval = guarded(|| device.params()).ok().and_then(|params| Interval::new(params.interval));
    Ok((Mode { fourcc: format.fourcc, width: format.width, height: format.height, interval }, format))
}

fn is_same(mode: &Mode, choice: &Mode) -> bool {
    let rates = mode.interval.zip(choice.interval);
    (mode.fourcc, mode.width, mode.height) == (choice.fourcc, choice.width, choice.height)
        && rates.is_none_or(|(own, chosen)| same_rate(own.rate(), chosen.rate()))
}

fn video_format(pixel: PixelFormat, mode: &Mode, stride: u32) -> VideoFormat {
    let pixel_bytes = match pixel {
        PixelFormat::Mjpeg => 0,
        PixelFormat::Yuyv => 2,
        PixelFormat::Nv12 | PixelFormat::Grey => 1,
        PixelFormat::Rgb24 => 3,
    };
    let least = mode.width * pixel_bytes;
    VideoFormat {
        pixel,
        width: mode.width,
        height: mode.height,
        stride: if pixel == PixelFormat::Mjpeg { 0 } else { stride.max(least) },
        interval_ns: mode.interval.map_or(INTERVAL_ASSUMED_NS, Interval::nanos),
    }
}

/// The beginning of the offer; the catalogue has it all.
fn offered_text(offer: &Offer) -> String {
    let mut lines = offer.lines();
    let more = lines.len().saturating_sub(OFFERED_LINES_MAX);
    lines.truncate(OFFERED_LINES_MAX);
    match (lines.is_empty(), more) {
        (true, _) => "nothing".to_owned(),
        (false, 0) => lines.join("; "),
        (false, more) => format!("{}; and {more} more", lines.join("; ")),
    }
}
