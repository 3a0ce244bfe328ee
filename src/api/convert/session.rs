//! The session's JSON as a message, and back. A member that the message knows and can carry exactly
//! goes into its field; every other one travels as text in `extra_json` of its level, and on the way
//! back wins over the field. An object comes back equal, number literals included:
//!
//! ```text
//! {"_id": "65ea", "duration": 120.0, "lab": 7}  ->  id: "65ea", duration: 120
//!                                                   extra_json: {"duration": 120.0, "lab": 7}
//! ```

use serde_json::{Map, Number, Value};

use super::{ConvertError, DEPTH_MAX};
use crate::api::proto;

/// Whole numbers up to here are exact in a double (2^53).
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// The session's JSON object as a message. `duration` is also set where its literal can't be kept
/// (`120.0`), so that those who only know the field see the value.
pub fn session_to_proto(object: &Map<String, Value>) -> proto::Session {
    let (mut session, extra_json) = split(object, put_session);
    session.extra_json = extra_json;
    session
}

/// The JSON object that `session` was made of: the contract's members in the contract's order,
/// then the others.
///
/// # Errors
/// An `extra_json` that is no JSON object, a double that is no JSON number, or too deep a nesting.
pub fn session_from_proto(session: proto::Session) -> Result<Map<String, Value>, ConvertError> {
    let mut object = Map::new();
    set_text(&mut object, "_id", session.id);
    set_text(&mut object, "name", session.name);
    set_text(&mut object, "type", session.r#type);
    set_text(&mut object, "state", session.state);
    set_text(&mut object, "timestamp", session.timestamp);
    if let Some(value) = session.duration {
        let number = number_of(value)
            .ok_or_else(|| ConvertError::NotFinite { field: "duration".to_owned(), value })?;
        object.insert("duration".to_owned(), number.into());
    }
    if let Some(config) = session.config {
        object.insert("config".to_owned(), config_from_proto(config)?.into());
    }
    if !session.sources.is_empty() {
        let sources: Result<Vec<Value>, _> =
            session.sources.into_iter().enumerate().map(source_from_proto).collect();
        object.insert("sources".to_owned(), sources?.into());
    }
    if let Some(meta) = session.meta {
        object.insert("meta".to_owned(), meta_from_proto(meta)?.into());
    }
    set_text(&mut object, "product", session.product);
    set_text(&mut object, "user", session.user);
    if let Some(version) = session.version {
        object.insert("version".to_owned(), version.into());
    }
    merge(&mut object, &session.extra_json, "extra_json")?;
    if object.values().any(|value| is_deeper(value, DEPTH_MAX - 1)) {
        return Err(ConvertError::TooDeep);
    }
    Ok(object)
}

fn config_from_proto(config: proto::SessionConfig) -> Result<Map<String, Value>, ConvertError> {
    let mut object = Map::new();
    if let Some(remove) = config.remove_media {
        object.insert("removeMedia".to_owned(), remove.into());
    }
    merge(&mut object, &config.extra_json, "config.extra_json")?;
    Ok(object)
}

fn source_from_proto((at, source): (usize, proto::Source)) -> Result<Value, ConvertError> {
    let mut object = Map::new();
    set_text(&mut object, "id", source.id);
    set_text(&mut object, "name", source.name);
    set_text(&mut object, "type", source.r#type);
    set_text(&mut object, "device", source.device);
    set_text(&mut object, "deviceId", source.device_id);
    merge(&mut object, &source.extra_json, &format!("sources[{at}].extra_json"))?;
    Ok(object.into())
}

fn meta_from_proto(meta: proto::SessionMeta) -> Result<Map<String, Value>, ConvertError> {
    let mut object = Map::new();
    set_text(&mut object, "expires", meta.expires);
    set_text(&mut object, "healthCheck", meta.health_check);
    set_text(&mut object, "workerState", meta.worker_state);
    merge(&mut object, &meta.extra_json, "meta.extra_json")?;
    Ok(object)
}

/// Puts a member into a message; false when the message doesn't carry it exactly.
type Put<M> = fn(&mut M, &str, &Value) -> bool;

/// The message of `object`, and as JSON text what it doesn't carry.
fn split<M: Default>(object: &Map<String, Value>, put: Put<M>) -> (M, String) {
    let mut message = M::default();
    let mut extra = Map::new();
    for (key, value) in object {
        if !put(&mut message, key, value) {
            extra.insert(key.clone(), value.clone());
        }
    }
    let extra_json = if extra.is_empty() {
        String::new()
    } else {
        serde_json::to_string(&extra).expect("an object of JSON values can always be written")
    };
    (message, extra_json)
}

fn put_session(session: &mut proto::Session, key: &str, value: &Value) -> bool {
    match key {
        "_id" => put_text(&mut session.id, value),
        "name" => put_text(&mut session.name, value),
        "type" => put_text(&mut session.r#type, value),
        "state" => put_text(&mut session.state, value),
        "timestamp" => put_text(&mut session.timestamp, value),
        "duration" => put_double(&mut session.duration, value),
        "config" => put_message(&mut session.config, value, |object| {
            let (mut config, extra_json) = split(object, put_config);
            config.extra_json = extra_json;
            config
        }),
        "sources" => put_sources(&mut session.sources, value),
        "meta" => put_message(&mut session.meta, value, |object| {
            let (mut meta, extra_json) = split(object, put_meta);
            meta.extra_json = extra_json;
            meta
        }),
        "product" => put_text(&mut session.product, value),
        "user" => put_text(&mut session.user, value),
        "version" => put_integer(&mut session.version, value),
        _ => false,
    }
}

fn put_config(config: &mut proto::SessionConfig, key: &str, value: &Value) -> bool {
    match (key, value) {
        ("removeMedia", Value::Bool(remove)) => {
            config.remove_media = Some(*remove);
            true
        }
        _ => false,
    }
}

fn put_source(source: &mut proto::Source, key: &str, value: &Value) -> bool {
    match key {
        "id" => put_text(&mut source.id, value),
        "name" => put_text(&mut source.name, value),
        "type" => put_text(&mut source.r#type, value),
        "device" => put_text(&mut source.device, value),
        "deviceId" => put_text(&mut source.device_id, value),
        _ => false,
    }
}

fn put_meta(meta: &mut proto::SessionMeta, key: &str, value: &Value) -> bool {
    match key {
        "expires" => put_text(&mut meta.expires, value),
        "healthCheck" => put_text(&mut meta.health_check, value),
        "workerState" => put_text(&mut meta.worker_state, value),
        _ => false,
    }
}

/// An empty text can't be told from an absent one in proto3, so it isn't carried.
fn put_text(field: &mut String, value: &Value) -> bool {
    match value {
        Value::String(text) if !text.is_empty() => {
            field.clone_from(text);
            true
        }
        _ => false,
    }
}

fn put_integer(field: &mut Option<i64>, value: &Value) -> bool {
    let Some(integer) = value.as_i64() else { return false };
    let exact = matches!(value, Value::Number(literal) if *literal == Number::from(integer));
    if exact {
        *field = Some(integer);
    }
    exact
}

fn put_double(field: &mut Option<f64>, value: &Value) -> bool {
    *field = value.as_f64().filter(|double| double.is_finite());
    match (field.and_then(number_of), value) {
        (Some(number), Value::Number(literal)) => number == *literal,
        _ => false,
    }
}

fn put_message<M>(field: &mut Option<M>, value: &Value, convert: impl Fn(&Map<String, Value>) -> M) -> bool {
    *field = value.as_object().map(convert);
    field.is_some()
}

/// A list is carried whole, or not at all: when it is empty or holds anything but objects.
fn put_sources(field: &mut Vec<proto::Source>, value: &Value) -> bool {
    let Value::Array(list) = value else { return false };
    let objects: Option<Vec<_>> = list.iter().map(Value::as_object).collect();
    *field = objects.unwrap_or_default().into_iter().map(source_to_proto).collect();
    !field.is_empty()
}

fn source_to_proto(object: &Map<String, Value>) -> proto::Source {
    let (mut source, extra_json) = split(object, put_source);
    source.extra_json = extra_json;
    source
}

fn set_text(object: &mut Map<String, Value>, key: &str, text: String) {
    if !text.is_empty() {
        object.insert(key.to_owned(), text.into());
    }
}

/// The literal of a double: whole ones as integers up to 2^53, others as short as they can be.
fn number_of(double: f64) -> Option<Number> {
    if double.fract() == 0.0 && double.abs() <= WHOLE_MAX {
        Some(Number::from(double as i64))
    } else {
        Number::from_f64(double)
    }
}

/// Adds the members of `extra_json`; they win, but where both sides have an object (a client may
/// send `meta` in both ways) its members are added one by one.
fn merge(object: &mut Map<String, Value>, extra_json: &str, field: &str) -> Result<(), ConvertError> {
    if extra_json.is_empty() {
        return Ok(());
    }
    let extra: Map<String, Value> = serde_json::from_str(extra_json)
        .map_err(|source| ConvertError::ExtraJson { field: field.to_owned(), source })?;
    for (key, value) in extra {
        match (object.get_mut(&key), value) {
            (Some(Value::Object(present)), Value::Object(more)) => present.extend(more),
            (_, value) => {
                object.insert(key, value);
            }
        }
    }
    Ok(())
}

/// Whether arrays and objects are nested in `value` more than `levels` deep, itself counted.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let is_full = levels == 0;
    match value {
        Value::Array(list) => is_full || list.iter().any(|value| is_deeper(value, levels - 1)),
        Value::Object(object) => is_full || object.values().any(|value| is_deeper(value, levels - 1)),
        _ => false,
    }
}
