//! A session as it was handed in: its JSON, kept whole, and what the agent reads of it.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::device::{FormatWish, MediaType};
use super::limits::{NAME_CHARS_MAX, SOURCE_TEXT_CHARS_MAX, SOURCES_MAX, SPEC_BYTES_MAX};
use super::{ParseIdError, SessionId};
use crate::clock::WallTime;

/// A session as it was handed in. Its JSON object is kept as it is, number literals included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct SessionSpec {
    object: Map<String, Value>,
    id: SessionId,
    expires: Option<WallTime>,
    sources: Vec<SourceSpec>,
}

/// A source that is to be captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    /// Its id within the session.
    pub id: String,
    /// What a person calls the device.
    pub name: String,
    /// What it delivers.
    pub media: MediaType,
    /// The device that it names itself.
    pub device_id: Option<String>,
}

/// How a session is to be captured, beside what it says itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartOptions {
    /// It stops by itself after this long.
    pub max_duration: Option<Duration>,
    /// Formats asked for, by the id of the source.
    pub formats: Vec<(String, FormatWish)>,
}

/// A session that can't be taken as it is.
#[derive(Debug, Error)]
pub enum SpecError {
    /// The id is not usable.
    #[error(transparent)]
    Id(#[from] ParseIdError),
    /// A member is wrong.
    #[error("session{}{field} {problem}", if .field.is_empty() { "" } else { "." })]
    Field {
        /// The member, as `sources[1].id`; empty when it is the session as a whole.
        field: String,
        /// What is wrong with it and what would do.
        problem: String,
    },
    /// Its time is over.
    #[error(
        "session.meta.expires is {expires}, which has passed (it is {now}): start a session that has time left"
    )]
    Expired {
        /// When it ended by itself.
        expires: WallTime,
        /// When it was to be started.
        now: WallTime,
    },
}

/// An option that can't be taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("options.formats of source {source_id:?} {problem}")]
pub struct OptionsError {
    /// The source that the format is for.
    pub source_id: String,
    /// What is wrong with it and what would do.
    pub problem: String,
}

impl SpecError {
    /// The member that is wrong; empty when it is the session as a whole.
    pub fn field(&self) -> &str {
        match self {
            Self::Id(_) => "_id",
            Self::Field { field, .. } => field,
            Self::Expired { .. } => "meta.expires",
        }
    }
}

impl StartOptions {
    /// Checks what is asked for against the sources that are there.
    ///
    /// # Errors
    /// The first format that no source of this kind could have.
    pub fn check(&self, sources: &[SourceSpec]) -> Result<(), OptionsError> {
        let mut seen = HashSet::new();
        for (id, wish) in &self.formats {
            let wrong = |problem: &str| OptionsError { source_id: id.clone(), problem: problem.to_owned() };
            let source = sources.iter().find(|source| source.id == *id);
            let source =
                source.ok_or_else(|| wrong("is for nobody: name a source that the session lists"))?;
            if !seen.insert(id) {
                return Err(wrong("is there twice: give each source one format"));
            }
            check_format(source.media, wish).map_err(wrong)?;
        }
        Ok(())
    }
}

fn check_format(media: MediaType, wish: &FormatWish) -> Result<(), &'static str> {
    let picture = wish.width.is_some()
        || wish.height.is_some()
        || wish.frame_rate.is_some()
        || wish.pixel_format.is_some();
    let sound = wish.sample_rate.is_some() || wish.channels.is_some();
    if picture && media == MediaType::Audio {
        return Err("asks for pictures, but the source delivers sound: use sample_rate and channels");
    }
    if sound && media == MediaType::Video {
        return Err(
            "asks for sound, but the source delivers pictures: use width, height, frame_rate, pixel_format",
        );
    }
    if [wish.width, wish.height, wish.sample_rate, wish.channels.map(u32::from)].contains(&Some(0)) {
        return Err("asks for 0 of something: leave out what is the device's choice");
    }
    if wish.frame_rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return Err(
            "asks for a frame_rate that is no positive number: leave it out, or ask for frames a second",
        );
    }
    let is_code =
        |code: &String| code.len() == 4 && code.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if wish.pixel_format.as_ref().is_some_and(|code| !is_code(code)) {
        return Err("asks for a pixel_format that is no V4L2 four-character code, like MJPG or YUYV");
    }
    Ok(())
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> SpecError {
    SpecError::Field { field: field.into(), problem: problem.into() }
}

impl SessionSpec {
    /// Reads a session's JSON.
    ///
    /// # Errors
    /// The first member that can't be taken, and why.
    pub fn from_json(value: Value) -> Result<Self, SpecError> {
        let Value::Object(object) = value else {
            return Err(wrong("", "must be a JSON object"));
        };
        let id: SessionId = text(&object, "_id", "")?
            .ok_or_else(|| wrong("_id", "is missing: every session has an id"))?
            .parse()?;
        let name = text(&object, "name", "")?.unwrap_or_default();
        if name.chars().count() > NAME_CHARS_MAX {
            let count = name.chars().count();
            return Err(wrong(
                "name",
                format!("has {count} characters: at most {NAME_CHARS_MAX} are allowed"),
            ));
        }
        check_config(&object)?;
        let expires = expires(&object)?;
        let sources = sources(&object)?;
        let bytes = serde_json::to_vec(&object).map_or(usize::MAX, |json| json.len());
        if bytes > SPEC_BYTES_MAX {
            return Err(wrong("", format!("has {bytes} bytes: at most {SPEC_BYTES_MAX} are taken")));
        }
        Ok(Self { object, id, expires, sources })
    }

    /// The session's id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// When it ends by itself.
    pub fn expires(&self) -> Option<WallTime> {
        self.expires
    }

    /// The sources to be captured, in the session's order.
    pub fn sources(&self) -> &[SourceSpec] {
        &self.sources
    }

    /// The JSON as it was handed in.
    pub fn object(&self) -> &Map<String, Value> {
        &self.object
    }

    /// The media is to be removed once the session is finished.
    pub fn removes_media(&self) -> bool {
        self.object.get("config").and_then(|config| config.get("removeMedia")) == Some(&Value::Bool(true))
    }

    /// Checks what only a start needs: something to capture, and time left to do it.
    ///
    /// # Errors
    /// The member that rules a start out.
    pub fn check_start(&self, now: WallTime) -> Result<(), SpecError> {
        if self.sources.is_empty() {
            return Err(wrong(
                "sources",
                "lists nothing to capture: give it at least one with device local_camera or local_microphone",
            ));
        }
        match self.expires {
            Some(expires) if expires <= now => Err(SpecError::Expired { expires, now }),
            _ => Ok(()),
        }
    }

    /// Whether `other` asks for the same: equal but for what the agent owns.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let theirs = |object: &Map<String, Value>| {
            let mut object = object.clone();
            for owned in ["state", "duration"] {
                object.remove(owned);
            }
            if let Some(Value::Object(meta)) = object.get_mut("meta") {
                for owned in ["healthCheck", "workerState"] {
                    meta.remove(owned);
                }
            }
            // The agent gives a session without `meta` one of its own.
            let empty = |meta: &Value| meta.is_null() || meta.as_object().is_some_and(Map::is_empty);
            if object.get("meta").is_some_and(empty) {
                object.remove("meta");
            }
            object
        };
        theirs(&self.object) == theirs(&other.object)
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str, path: &str) -> Result<Option<&'a str>, SpecError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(format!("{path}{key}"), "must be a string")),
    }
}

fn expires(object: &Map<String, Value>) -> Result<Option<WallTime>, SpecError> {
    match object.get("meta") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(meta)) => text(meta, "expires", "meta.")?
            .map(|time| {
                time.parse().map_err(|error| wrong("meta.expires", format!("can't be read: {error}")))
            })
            .transpose(),
        Some(_) => Err(wrong("meta", "must be an object")),
    }
}

/// What decides over the removal of media must not be misread.
fn check_config(object: &Map<String, Value>) -> Result<(), SpecError> {
    match object.get("config") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(config)) => match config.get("removeMedia") {
            None | Some(Value::Null | Value::Bool(_)) => Ok(()),
            Some(_) => Err(wrong("config.removeMedia", "must be true or false")),
        },
        Some(_) => Err(wrong("config", "must be an object")),
    }
}

fn sources(object: &Map<String, Value>) -> Result<Vec<SourceSpec>, SpecError> {
    let list = match object.get("sources") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong("sources", "must be an array")),
    };
    if list.len() > SOURCES_MAX {
        return Err(wrong("sources", format!("has {}: at most {SOURCES_MAX} are allowed", list.len())));
    }
    let mut captured = Vec::new();
    let mut ids = HashSet::new();
    for (at, value) in list.iter().enumerate() {
        let path = format!("sources[{at}].");
        let Value::Object(object) = value else {
            return Err(wrong(format!("sources[{at}]"), "must be an object"));
        };
        if let Some(source) = source(object, &path)? {
            if !ids.insert(source.id.clone()) {
                return Err(wrong(format!("{path}id"), format!("{:?} is there twice", source.id)));
            }
            captured.push(source);
        }
    }
    Ok(captured)
}

/// Reads one source; `None` when it is not for this host to capture.
fn source(object: &Map<String, Value>, path: &str) -> Result<Option<SourceSpec>, SpecError> {
    let media = match text(object, "device", path)? {
        Some("local_camera") => MediaType::Video,
        Some("local_microphone") => MediaType::Audio,
        _ => return Ok(None),
    };
    match text(object, "type", path)? {
        Some(kind @ ("video" | "audio")) if kind != media.to_string() => {
            return Err(wrong(
                format!("{path}type"),
                format!("is {kind:?}, but its device delivers {media}"),
            ));
        }
        _ => {}
    }
    let short = |key: &str| -> Result<Option<String>, SpecError> {
        match text(object, key, path)? {
            Some(value) if value.chars().count() > SOURCE_TEXT_CHARS_MAX => Err(wrong(
                format!("{path}{key}"),
                format!("is longer than {SOURCE_TEXT_CHARS_MAX} characters"),
            )),
            value => Ok(value.filter(|value| !value.is_empty()).map(str::to_owned)),
        }
    };
    let id = short("id")?.ok_or_else(|| wrong(format!("{path}id"), "is missing: every source has an id"))?;
    let name = short("name")?.unwrap_or_default();
    Ok(Some(SourceSpec { id, name, media, device_id: short("deviceId")? }))
}

impl TryFrom<Value> for SessionSpec {
    type Error = SpecError;

    fn try_from(value: Value) -> Result<Self, SpecError> {
        Self::from_json(value)
    }
}

impl From<SessionSpec> for Value {
    fn from(spec: SessionSpec) -> Self {
        Self::Object(spec.object)
    }
}
