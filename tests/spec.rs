//! A session as callers hand it in: what is read, what is kept, what is refused and by which member.

#[path = "spec/times.rs"]
mod times;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use shutterd::clock::{Clock, MonoTime, SimulatedClock, SystemClock, WallTime};
use shutterd::session::device::MediaType;
use shutterd::session::{EndReason, PublicState, SessionId, SessionSpec, WorkerState, present};

const SAMPLE: &str = include_str!("data/session.json");

fn sample() -> Value {
    serde_json::from_str(SAMPLE).expect("the sample is JSON")
}

/// The sample with the value at `pointer` replaced, or added to its object.
fn sample_with(pointer: &str, value: Value) -> Value {
    let mut session = sample();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
    match session.pointer_mut(parent).expect("the sample has the parent") {
        Value::Object(object) => {
            object.insert(key.to_owned(), value);
        }
        Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
        other => panic!("{other} has no members"),
    }
    session
}

fn read(session: Value) -> SessionSpec {
    SessionSpec::from_json(session).expect("a session")
}

fn time(text: &str) -> WallTime {
    text.parse().expect("a time")
}

fn camera(id: &str) -> Value {
    json!({ "id": id, "name": "Integrated Webcam", "type": "video", "device": "local_camera" })
}

#[test]
fn the_sample_is_read() {
    let spec = read(sample());
    assert_eq!(spec.id().as_str(), "65ea1530bb50af72b6e3dc1e");
    assert_eq!(spec.expires(), Some(time("2024-05-01T11:30:00Z")));
    assert!(spec.removes_media());
    let [source] = spec.sources() else { panic!("one source: {:?}", spec.sources()) };
    assert_eq!(source.id, "c1fcba18-15ec-457c-a1de-fcbb87aeaa0e");
    assert_eq!(source.name, "Integrated Webcam");
    assert_eq!((source.media, source.device_id.as_deref()), (MediaType::Video, None));
}

#[test]
fn the_sample_is_written_as_it_was_read_members_in_order_too() {
    let compact = |json: &str| json.split('\n').map(str::trim).collect::<String>();
    let written = serde_json::to_string(&read(sample())).expect("it can be written");
    let unspaced = |json: &str| compact(json).replace("\": ", "\":").replace("{ ", "{").replace(" }", "}");
    assert_eq!(written, unspaced(SAMPLE));
    let again: SessionSpec = serde_json::from_str(&written).expect("it can be read again");
    assert_eq!(again, read(sample()));
}

#[test]
fn number_literals_and_unknown_members_are_kept() {
    let text =
        r#"{"_id":"a","version":3.0,"x":[120,120.0,-0,0.10,1e-7,12345678901234567890123],"y":{"z":null}}"#;
    let spec: SessionSpec = serde_json::from_str(text).expect("a session");
    assert_eq!(serde_json::to_string(&spec).expect("it can be written"), text);
}

/// `serde_json` reads it so; the number is the same, and it stays as it is from there on.
#[test]
fn an_exponent_is_spelt_one_way_and_kept_otherwise() {
    let text = r#"{"_id":"a","duration":1e2,"x":[1E2,1e+2,1.50e3]}"#;
    let kept = r#"{"_id":"a","duration":1e+2,"x":[1e+2,1e+2,1.50e+3]}"#;
    for text in [text, kept] {
        let spec: SessionSpec = serde_json::from_str(text).expect("a session");
        assert_eq!(serde_json::to_string(&spec).expect("it can be written"), kept);
    }
}

#[test]
fn unknown_words_are_kept_and_sources_for_others_are_not_captured() {
    let mut session = sample_with("/type", json!("replay_analysis"));
    session["state"] = json!("paused");
    session["sources"] = json!([
        { "id": "r", "device": "remote_camera", "type": "video" },
        { "id": "r", "device": "remote_camera" },
        {},
        { "id": "m", "device": "local_microphone", "type": "audio", "deviceId": "hw:1" },
        { "id": "d", "device": "local_camera", "type": "depth" },
        { "id": "n", "device": "local_camera" },
    ]);
    let spec = read(session.clone());
    let captured: Vec<_> = spec.sources().iter().map(|source| (source.id.as_str(), source.media)).collect();
    assert_eq!(captured, [("m", MediaType::Audio), ("d", MediaType::Video), ("n", MediaType::Video)]);
    assert_eq!(spec.sources()[0].device_id.as_deref(), Some("hw:1"));
    assert_eq!(Value::from(spec), session);
}

#[test]
fn every_session_that_can_not_be_taken_names_the_member() {
    let long = |count: usize| "x".repeat(count);
    let sources = |list: Vec<Value>| sample_with("/sources", Value::Array(list));
    let table = [
        (json!([]), ""),
        (json!("65ea1530bb50af72b6e3dc1e"), ""),
        (Value::Null, ""),
        (json!({}), "_id"),
        (sample_with("/_id", json!(7)), "_id"),
        (sample_with("/_id", Value::Null), "_id"),
        (sample_with("/_id", json!("../../etc/passwd")), "_id"),
        (sample_with("/_id", json!(long(1024 * 1024))), "_id"),
        (sample_with("/name", json!(long(257))), "name"),
        (sample_with("/name", json!("ü".repeat(257))), "name"),
        (sample_with("/name", json!(["a"])), "name"),
        (sample_with("/config", json!("removeMedia")), "config"),
        (sample_with("/config/removeMedia", json!("true")), "config.removeMedia"),
        (sample_with("/config/removeMedia", json!(1)), "config.removeMedia"),
        (sample_with("/meta", json!([])), "meta"),
        (sample_with("/meta/expires", json!(1_714_563_000)), "meta.expires"),
        (sample_with("/meta/expires", json!("tomorrow")), "meta.expires"),
        (sample_with("/meta/expires", json!("2024-05-01T11:30:00")), "meta.expires"),
        (sample_with("/meta/expires", json!("2024-13-01T11:30:00Z")), "meta.expires"),
        (sample_with("/sources", json!({})), "sources"),
        (sources((0..17).map(|at| camera(&at.to_string())).collect()), "sources"),
        (sources(vec![json!("camera")]), "sources[0]"),
        (sources(vec![camera("a"), Value::Null]), "sources[1]"),
        (sources(vec![camera("a"), camera("b"), camera("a")]), "sources[2].id"),
        (sample_with("/sources/0/id", json!(1)), "sources[0].id"),
        (sample_with("/sources/0/id", json!("")), "sources[0].id"),
        (sample_with("/sources/0/id", Value::Null), "sources[0].id"),
        (sample_with("/sources/0/id", json!(long(257))), "sources[0].id"),
        (sample_with("/sources/0/name", json!(false)), "sources[0].name"),
        (sample_with("/sources/0/name", json!(long(257))), "sources[0].name"),
        (sample_with("/sources/0/device", json!({})), "sources[0].device"),
        (sample_with("/sources/0/type", json!("audio")), "sources[0].type"),
        (sample_with("/sources/0/type", json!(1)), "sources[0].type"),
        (sample_with("/sources/0/device", json!("local_microphone")), "sources[0].type"),
        (sample_with("/sources/0/deviceId", json!(0)), "sources[0].deviceId"),
        (sample_with("/sources/0/deviceId", json!(long(257))), "sources[0].deviceId"),
        (sample_with("/product", json!(long(64 * 1024))), ""),
    ];
    for (session, field) in table {
        let shown: String = session.to_string().chars().take(300).collect();
        let error = SessionSpec::from_json(session).err().unwrap_or_else(|| panic!("{field} of {shown}"));
        assert_eq!(error.field(), field, "{error}: {shown}");
        let message = error.to_string();
        let named = message.contains(field.trim_start_matches('_')) && message.starts_with("session");
        assert!(named && !message.contains("session. "), "{message}");
        assert!(message.len() < 600, "a message stays short: {} bytes", message.len());
    }
}

#[test]
fn limits_are_inclusive() {
    for session in [
        sample_with("/name", json!("ü".repeat(256))),
        sample_with("/_id", json!("x".repeat(64))),
        sample_with("/sources/0/name", json!("ü".repeat(256))),
        sample_with("/sources", (0..16).map(|at| camera(&at.to_string())).collect()),
        sample_with("/product", json!("x".repeat(63 * 1024))),
    ] {
        read(session);
    }
}

#[test]
fn an_absent_member_and_null_are_the_same() {
    for member in ["name", "config", "sources", "meta"] {
        let mut session = sample();
        session[member] = Value::Null;
        read(session.clone());
        session.as_object_mut().expect("an object").remove(member);
        read(session);
    }
}

#[test]
fn an_id_is_safe_as_a_file_name() {
    let good = ["a", "0", "65ea1530bb50af72b6e3dc1e", "A-b_c", "9--__"];
    for text in good {
        assert_eq!(text.parse::<SessionId>().expect("an id").to_string(), text);
    }
    let long = "x".repeat(65);
    let bad = [
        "",
        ".",
        "..",
        "../a",
        "a/b",
        "/",
        "a\\b",
        "a.b",
        "a b",
        " a",
        "a\n",
        "a\0",
        "\0",
        "-a",
        "_a",
        "ü",
        "a\u{301}",
        "\u{ff21}",
        "a\u{202e}b",
        "%2e%2e",
        "~",
        "$HOME",
        "a:b",
        &long,
    ];
    for text in bad {
        let error = text.parse::<SessionId>().expect_err(text).to_string();
        assert!(!error.contains(['\0', '\n', '\u{202e}']), "what is shown is escaped: {error:?}");
        assert!(serde_json::from_value::<SessionId>(json!(text)).is_err(), "{text:?}");
    }
}

#[test]
fn a_start_needs_something_to_capture_and_time_left() {
    let now = time("2024-05-01T11:29:59.999Z");
    read(sample()).check_start(now).expect("a millisecond is left");
    for late in ["2024-05-01T11:30:00Z", "2024-05-01T11:30:00.001Z", "2038-01-19T03:14:08Z"] {
        let error = read(sample()).check_start(time(late)).expect_err(late);
        assert_eq!(error.field(), "meta.expires");
    }
    for nothing in [json!([]), Value::Null, json!([{ "id": "r", "device": "remote_camera" }])] {
        let error = read(sample_with("/sources", nothing)).check_start(now).expect_err("nothing to capture");
        assert_eq!(error.field(), "sources");
    }
    let mut endless = sample();
    endless["meta"] = json!({});
    read(endless).check_start(time("2124-01-01T00:00:00Z")).expect("without an expiry there is time");
}

#[test]
fn a_session_asks_for_the_same_if_only_what_the_agent_owns_differs() {
    let spec = read(sample());
    let seen = |health| {
        let meta = present(&spec, PublicState::Processing, WorkerState::Finalizing, Some(1.5), health);
        read(Value::Object(meta))
    };
    assert!(spec.asks_the_same(&spec));
    assert!(spec.asks_the_same(&seen(None)));
    assert!(seen(Some(time("2024-05-01T11:30:00Z"))).asks_the_same(&spec));

    let mut reordered = sample();
    let name = reordered.as_object_mut().expect("an object").shift_remove("name").expect("a name");
    reordered["name"] = name;
    assert!(read(reordered).asks_the_same(&spec));

    for (pointer, value) in [
        ("/name", json!("another")),
        ("/type", json!("another")),
        ("/unknown", json!(true)),
        ("/version", json!(4)),
        ("/meta/expires", json!("2025-05-01T11:30:00.000Z")),
        ("/meta/unknown", json!(1)),
        ("/config/removeMedia", json!(false)),
        ("/sources", json!([camera("a")])),
    ] {
        assert!(!spec.asks_the_same(&read(sample_with(pointer, value))), "{pointer}");
    }
}

#[test]
fn what_the_agent_showed_of_a_session_without_meta_asks_for_the_same() {
    for meta in [None, Some(Value::Null), Some(json!({}))] {
        let mut session = sample();
        session.as_object_mut().expect("an object").shift_remove("meta");
        if let Some(meta) = meta {
            session["meta"] = meta;
        }
        let spec = read(session);
        let shown = present(&spec, PublicState::Active, WorkerState::Working, None, None);
        assert!(spec.asks_the_same(&read(Value::Object(shown))));
    }
}

#[test]
fn a_session_is_shown_with_the_members_that_the_agent_owns_and_no_other_change() {
    let spec = read(sample());
    let shown = present(
        &spec,
        PublicState::Finished,
        WorkerState::Stopped,
        Some(12.345_678),
        Some(time("2024-05-01T11:29:00.25Z")),
    );
    let mut expected = sample();
    expected["state"] = json!("finished");
    expected["duration"] = json!(12.346);
    expected["meta"]["workerState"] = json!("stopped");
    expected["meta"]["healthCheck"] = json!("2024-05-01T11:29:00.250Z");
    assert_eq!(Value::Object(shown.clone()), expected);
    let order = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
    assert_eq!(order(&shown), order(spec.object()), "members stay where they were");

    let shown = present(&spec, PublicState::Active, WorkerState::Degraded, None, None);
    let mut expected = sample();
    expected["meta"]["workerState"] = json!("degraded");
    assert_eq!(Value::Object(shown), expected, "duration and health check stay until they are known");
    let shown = present(&spec, PublicState::Active, WorkerState::Working, Some(f64::NAN), None);
    assert_eq!(shown["duration"], json!(120), "what is no number is not shown");
}

#[test]
fn every_end_reason_is_the_same_word_everywhere() {
    for reason in EndReason::ALL {
        assert_eq!(json!(reason), json!(reason.as_str()));
        assert_eq!(EndReason::from_word(reason.as_str()), Some(reason));
    }
    assert_eq!(EndReason::from_word("finished"), None);
}
