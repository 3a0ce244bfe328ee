//! `[[devices]]`: names for the host's devices, and virtual ones. A key that says nothing about the
//! kind of device it stands at is an error, so that no setting is without effect.

use std::collections::HashMap;

use config::{Value, ValueKind};

use super::ConfigError;
use super::layers::wrong_type;
use super::reader::{absolute, refused};
use super::table::{Table, one_of};
use crate::session::device::{Fault, FaultOrder, FormatWish, MediaType};
use crate::session::resolve::{ConfiguredDevice, Place, Traits};

/// Devices of a config.
const DEVICES_MAX: usize = 64;
/// Fault orders of one device.
const FAULTS_MAX: usize = 1000;
/// The keys of a device.
const DEVICE_KEYS: [&str; 14] = [
    "id",
    "name",
    "kind",
    "media",
    "match",
    "width",
    "height",
    "frame_rate",
    "pixel_format",
    "sample_rate",
    "channels",
    "path",
    "loop",
    "faults",
];
const TRAIT_KEYS: [&str; 5] = ["name", "node", "by_path", "by_id", "serial"];
const FAULT_KEYS: [&str; 3] = ["at_frame", "frames", "fault"];
const VIDEO_KEYS: [&str; 4] = ["width", "height", "frame_rate", "pixel_format"];
const AUDIO_KEYS: [&str; 2] = ["sample_rate", "channels"];

/// Reads the list.
pub fn devices(tables: &[Value]) -> Result<Vec<ConfiguredDevice>, ConfigError> {
    let mut devices: Vec<ConfiguredDevice> = Vec::new();
    let mut places: HashMap<String, String> = HashMap::new();
    if let Some(value) = tables.get(DEVICES_MAX) {
        let place = value.origin().unwrap_or("[[devices]]").to_owned();
        let advice = format!("at most {DEVICES_MAX} devices are taken");
        return Err(refused(place, "devices", format!("{} long", tables.len()), advice));
    }
    for (at, value) in tables.iter().enumerate() {
        let table = Table::new(format!("devices[{at}]"), value, &DEVICE_KEYS)?;
        let device = device(&table)?;
        let place = table.place_of("id").to_owned();
        if let Some(first) = places.insert(device.id.clone(), place.clone()) {
            return Err(ConfigError::DuplicateDevice { place, first, id: device.id });
        }
        devices.push(device);
    }
    Ok(devices)
}

fn device(table: &Table<'_>) -> Result<ConfiguredDevice, ConfigError> {
    let kinds = [
        ("camera", "camera"),
        ("microphone", "microphone"),
        ("synthetic", "synthetic"),
        ("replay", "replay"),
        ("pipe", "pipe"),
    ];
    let kind = table.required("kind", table.word("kind", &kinds)?, &one_of(&kinds))?;
    let medias = [("video", MediaType::Video), ("audio", MediaType::Audio)];
    let named = table.word("media", &medias)?;
    let media = match (kind, named) {
        ("camera", None | Some(MediaType::Video)) => MediaType::Video,
        ("microphone", None | Some(MediaType::Audio)) => MediaType::Audio,
        ("camera" | "microphone", Some(other)) => {
            let advice = format!("a {kind} delivers something else: leave it out");
            return Err(table.refused("media", format!("{:?}", other.to_string()), advice));
        }
        (_, named) => table.required("media", named, &one_of(&medias))?,
    };
    let kinds_of = [
        ("match", &["camera", "microphone"][..]),
        ("path", &["replay", "pipe"]),
        ("loop", &["replay"]),
        ("faults", &["synthetic"]),
    ];
    for (key, _) in kinds_of.iter().filter(|(_, kinds)| !kinds.contains(&kind)) {
        table.refuse(&[key], &format!("kind is {kind:?}"))?;
    }
    match media {
        MediaType::Video => table.refuse(&AUDIO_KEYS, "this device delivers video")?,
        MediaType::Audio => table.refuse(&VIDEO_KEYS, "this device delivers audio")?,
    }
    let id = table.text("id")?.filter(|id| !id.is_empty());
    Ok(ConfiguredDevice {
        id: table.required("id", id, "a text that a source can name as its deviceId")?,
        name: table.text("name")?.unwrap_or_default(),
        media,
        place: place(kind, table)?,
        wish: wish(table)?,
    })
}

fn place(kind: &str, table: &Table<'_>) -> Result<Place, ConfigError> {
    match kind {
        "synthetic" => Ok(Place::Synthetic(faults(table)?)),
        "replay" => {
            let path = table.required("path", table.text("path")?, "the absolute path of a file")?;
            absolute(&path).map_err(|advice| table.refused("path", format!("{path:?}"), advice))?;
            Ok(Place::Replay { path, again: table.boolean("loop")?.unwrap_or(false) })
        }
        "pipe" => {
            let path =
                table.required("path", table.text("path")?, "the absolute path of a FIFO, or \"fd:N\"")?;
            let number = path.strip_prefix("fd:").and_then(|number| number.parse::<u16>().ok());
            // The first three are a worker's own.
            if number.is_none_or(|number| number < 3) {
                let advice = |advice| format!("{advice}, or \"fd:N\" with an N from 3");
                absolute(&path).map_err(|it| table.refused("path", format!("{path:?}"), advice(it)))?;
            }
            Ok(Place::Pipe(path))
        }
        _ => Ok(Place::Real(traits(table)?)),
    }
}

fn traits(table: &Table<'_>) -> Result<Traits, ConfigError> {
    let expected = "at least one of name, node, by_path, by_id, serial, like match = { serial = \"1A2B\" }";
    let value = table.required("match", table.get("match"), expected)?;
    let inner = Table::new(table.path("match"), value, &TRAIT_KEYS)?;
    let mut texts = Vec::new();
    for key in TRAIT_KEYS {
        let text = inner.text(key)?;
        if text.as_deref() == Some("") {
            return Err(inner.refused(key, "\"\"".to_owned(), "name it, or leave it out".to_owned()));
        }
        texts.push(text);
    }
    if texts.iter().all(Option::is_none) {
        return Err(table.refused("match", "empty".to_owned(), format!("give {expected}")));
    }
    let mut texts = texts.into_iter();
    let mut next = || texts.next().flatten();
    Ok(Traits { name: next(), node: next(), by_path: next(), by_id: next(), serial: next() })
}

fn wish(table: &Table<'_>) -> Result<FormatWish, ConfigError> {
    let narrow = |key, min, max, unit| -> Result<Option<u32>, ConfigError> {
        let number = table.number(key, min, max, unit)?;
        Ok(number.map(|number| u32::try_from(number).expect("the range given is within 32 bits")))
    };
    let pixel_format = table.text("pixel_format")?;
    if let Some(code) = &pixel_format
        && !(code.len() == 4 && code.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '))
    {
        let advice =
            "use a V4L2 four-character code: \"MJPG\", \"YUYV\", \"NV12\", \"GREY\", \"RGB3\"".to_owned();
        return Err(table.refused("pixel_format", format!("{code:?}"), advice));
    }
    Ok(FormatWish {
        width: narrow("width", 16, 16_384, "pixels")?,
        height: narrow("height", 16, 16_384, "pixels")?,
        frame_rate: table.rate("frame_rate", 0.1, 1000.0)?,
        pixel_format,
        sample_rate: narrow("sample_rate", 8_000, 192_000, "hertz")?,
        channels: table
            .number("channels", 1, 8, "channels")?
            .map(|count| u16::try_from(count).expect("the range given ends at 8")),
    })
}

fn faults(table: &Table<'_>) -> Result<Vec<FaultOrder>, ConfigError> {
    let Some(value) = table.get("faults") else { return Ok(Vec::new()) };
    let expected = "a list like [{ at_frame = 100, frames = 30, fault = \"stall\" }]";
    let ValueKind::Array(items) = &value.kind else {
        return Err(wrong_type(
            table.place_of("faults").to_owned(),
            &table.path("faults"),
            value,
            expected.to_owned(),
        ));
    };
    if items.len() > FAULTS_MAX {
        let advice = format!("at most {FAULTS_MAX} orders are taken");
        return Err(table.refused("faults", format!("{} long", items.len()), advice));
    }
    let words = [
        ("stall", Fault::Stall),
        ("fail", Fault::Fail),
        ("vanish", Fault::Vanish),
        ("flood", Fault::Flood),
        ("hang", Fault::Hang),
        ("change", Fault::Change),
        ("slow", Fault::Slow),
        ("panic", Fault::Panic),
        ("dim", Fault::Dim),
    ];
    let count_max = u64::try_from(i64::MAX).expect("a positive number");
    let order = |(at, item): (usize, &Value)| {
        let item = Table::new(format!("{}[{at}]", table.path("faults")), item, &FAULT_KEYS)?;
        let at_frame = item.number("at_frame", 0, count_max, "frames")?;
        let frames = item.number("frames", 1, count_max, "frames")?;
        Ok(FaultOrder {
            at_frame: item.required(
                "at_frame",
                at_frame,
                "the count of the frame at which it begins, from 0",
            )?,
            frames: item.required("frames", frames, "for how many frames it lasts")?,
            fault: item.required("fault", item.word("fault", &words)?, &one_of(&words))?,
        })
    };
    items.iter().enumerate().map(order).collect()
}
