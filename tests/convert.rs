//! The way of a session's JSON and of a receipt into the API's messages and back.

#[path = "convert/anything.rs"]
mod anything;

use proptest::prelude::*;
use serde_json::{Map, Number, Value, json};
use shutterd::api::convert::{
    ConvertError, DEPTH_MAX, progress_to_proto, receipt_from_proto, receipt_to_proto, session_from_proto,
    session_to_proto,
};
use shutterd::api::proto;
use shutterd::session::device::{MediaType, TimestampSource};
use shutterd::session::{
    Account, EndReason, Gap, GapReason, MediaFile, Receipt, Removal, RemovalReason, RemovalState,
    SourceAccount, SourceReceipt, SourceState,
};

const SESSION: &str = include_str!("data/session.json");

fn object(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).expect("the test wrote JSON")
}

fn there_and_back(object: &Map<String, Value>) -> Map<String, Value> {
    session_from_proto(session_to_proto(object)).expect("what we wrote can be read")
}

#[test]
fn the_contracts_session_goes_into_fields_and_comes_back_in_its_order() {
    let session = object(SESSION);
    let message = session_to_proto(&session);
    assert_eq!(message.extra_json, "");
    assert_eq!(message.id, "65ea1530bb50af72b6e3dc1e");
    assert_eq!(message.duration, Some(120.0));
    assert_eq!(message.config.as_ref().and_then(|config| config.remove_media), Some(true));
    assert_eq!(message.sources[0].device, "local_camera");
    assert_eq!(message.meta.as_ref().map(|meta| meta.worker_state.as_str()), Some("working"));
    assert_eq!(message.version, Some(3));
    let back = session_from_proto(message).expect("what we wrote can be read");
    let lines = serde_json::to_string_pretty(&back).expect("JSON can be written");
    let first = serde_json::to_string_pretty(&session).expect("JSON can be written");
    assert_eq!(lines, first);
}

#[test]
fn number_literals_are_kept() {
    for literal in [
        "120",
        "120.0",
        "1.5",
        "1.50",
        "-0",
        "-0.0",
        "0",
        "1e3",
        "1E3",
        "1e+3",
        "1e300",
        "1e400",
        "0.1",
        "0.10000000000000000555",
        "9007199254740992",
        "9007199254740993",
        "1e-7",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "3.0",
    ] {
        for key in ["duration", "version", "name", "other"] {
            let json = format!("{{\"{key}\":{literal},\"meta\":{{\"expires\":{literal}}}}}");
            let back = there_and_back(&object(&json));
            assert_eq!(back, object(&json), "{json}");
        }
    }
}

#[test]
fn a_double_whose_literal_travels_apart_is_set_all_the_same() {
    let message = session_to_proto(&object(r#"{"duration": 120.0}"#));
    assert_eq!((message.duration, message.extra_json.as_str()), (Some(120.0), r#"{"duration":120.0}"#));
}

#[test]
fn what_fields_cannot_carry_travels_as_text() {
    for json in [
        r#"{"name": "", "type": null, "state": 7, "version": "3", "duration": "long"}"#,
        r#"{"config": null, "meta": [], "sources": {}}"#,
        r#"{"sources": []}"#,
        r#"{"sources": [1, {"id": "a"}]}"#,
        r#"{"sources": [{}, {"id": "", "zoom": 2.0, "deviceId": "cam"}]}"#,
        r#"{"config": {}, "meta": {}}"#,
        r#"{"config": {"removeMedia": "yes", "more": {"deep": [1]}}}"#,
        r#"{"extra_json": "{}", "extraJson": {"a": 1}, "id": "no underscore", "device_id": 1}"#,
        r#"{"meta": {"expires": null, "healthCheck": "", "extra_json": 1, "workerState": true}}"#,
        r#"{"config": {"$serde_json::private::Number": "12"}}"#,
        "{}",
    ] {
        assert_eq!(there_and_back(&object(json)), object(json), "{json}");
    }
}

#[test]
fn members_come_back_in_the_contracts_order_then_the_others() {
    let back = there_and_back(&object(r#"{"lab": 1, "version": 3, "zone": 2, "name": "n", "_id": "i"}"#));
    assert_eq!(back.keys().collect::<Vec<_>>(), ["_id", "name", "version", "lab", "zone"]);
}

#[test]
fn extra_members_win_and_objects_are_merged() {
    let message = proto::Session {
        name: "field".to_owned(),
        meta: Some(proto::SessionMeta { expires: "field".to_owned(), ..Default::default() }),
        extra_json: r#"{"name": "extra", "meta": {"lab": 7}}"#.to_owned(),
        ..Default::default()
    };
    let back = session_from_proto(message).expect("it is valid");
    assert_eq!(Value::Object(back), json!({"name": "extra", "meta": {"expires": "field", "lab": 7}}));
}

#[test]
fn an_extra_that_is_no_object_is_refused_by_name() {
    for text in ["[]", "7", "{", "null", "{} {}", "{\"a\":1e}"] {
        let second = proto::Source { extra_json: text.to_owned(), ..Default::default() };
        let message =
            proto::Session { sources: vec![proto::Source::default(), second], ..Default::default() };
        let error = session_from_proto(message).expect_err("it is no object");
        assert_eq!(error.field(), "sources[1].extra_json", "{text}");
        assert!(matches!(error, ConvertError::ExtraJson { .. }), "{error}");
    }
    let message = proto::Session {
        meta: Some(proto::SessionMeta { extra_json: "no".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let error = session_from_proto(message).expect_err("it is no object");
    assert!(error.to_string().starts_with("session.meta.extra_json must hold a JSON object"), "{error}");
}

#[test]
fn a_double_that_is_no_json_number_is_refused() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let message = proto::Session { duration: Some(value), ..Default::default() };
        let error = session_from_proto(message).expect_err("JSON has no such number");
        assert_eq!(error.field(), "duration");
    }
}

/// An object of `levels` levels, itself counted, whose innermost holds a number.
fn nested(levels: usize) -> String {
    format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels))
}

#[test]
fn nesting_is_bounded_and_what_is_taken_can_be_read_back_from_a_record() {
    let deepest = there_and_back(&object(&nested(DEPTH_MAX)));
    assert_eq!(deepest, object(&nested(DEPTH_MAX)));
    let record = json!({"record": {"session": deepest}}).to_string();
    serde_json::from_str::<Value>(&record).expect("a record with it can be read");

    let error =
        session_from_proto(session_to_proto(&object(&nested(DEPTH_MAX + 1)))).expect_err("it is too deep");
    assert!(matches!(error, ConvertError::TooDeep), "{error}");

    let source = proto::Source { extra_json: nested(DEPTH_MAX - 1), ..Default::default() };
    let message = proto::Session { sources: vec![source], ..Default::default() };
    let error = session_from_proto(message).expect_err("two levels of its own come on top");
    assert!(matches!(error, ConvertError::TooDeep), "{error}");

    let message = proto::Session { extra_json: nested(100_000), ..Default::default() };
    let error = session_from_proto(message).expect_err("the reader stops before the stack does");
    assert!(matches!(error, ConvertError::ExtraJson { .. }), "{error}");
}

fn receipt() -> Receipt {
    let time = |text: &str| Some(text.parse().expect("the test wrote a time"));
    Receipt {
        session_id: "65ea1530bb50af72b6e3dc1e".parse().expect("the test wrote an id"),
        end_reason: EndReason::StopRequested,
        forced: true,
        requested_at: time("2024-04-01T10:32:00.000Z"),
        released_at: None,
        finalized_at: time("2024-04-01T10:32:00.250Z"),
        sources: vec![SourceReceipt {
            id: "c1fcba18".to_owned(),
            media: MediaType::Audio,
            device: "Built-in Microphone (hw:0,0)".to_owned(),
            format: "48000 Hz stereo".to_owned(),
            captured: u64::MAX,
            written: 5,
            dropped: 4,
            lost: 3,
            missed: 2,
            filled: 1,
            corrupt: 6,
            drift_ppm: Some(-12.5),
            at_least: true,
            first_timestamp: time("2024-04-01T10:30:00.033Z"),
            last_timestamp: time("2024-04-01T10:31:59.967Z"),
            timestamp_source: Some(TimestampSource::Driver),
            gaps: vec![Gap {
                start_seconds: 1.5,
                duration_seconds: 0.25,
                missed: 7,
                reason: GapReason::Overrun,
            }],
            restarts: 2,
        }],
        files: vec![MediaFile {
            path: "/var/lib/shutterd/media/a.mkv".to_owned(),
            bytes: 1 << 40,
            blake3: "ab".repeat(32),
            duration_seconds: 119.967,
            repaired: true,
        }],
        removal: Some(Removal {
            state: RemovalState::Pending,
            removed_at: None,
            reason: RemovalReason::Requested,
        }),
        warnings: vec!["the disk was slow".to_owned()],
    }
}

#[test]
fn a_receipt_comes_back_equal() {
    let full = receipt();
    assert_eq!(receipt_from_proto(receipt_to_proto(&full)).expect("it is ours"), full);
    for end_reason in EndReason::ALL {
        let mut bare = Receipt { end_reason, removal: None, ..receipt() };
        bare.sources[0].timestamp_source = None;
        bare.sources[0].media = MediaType::Video;
        for reason in [GapReason::Sequence, GapReason::Stalled, GapReason::Lost] {
            bare.sources[0].gaps[0].reason = reason;
            assert_eq!(receipt_from_proto(receipt_to_proto(&bare)).expect("it is ours"), bare);
        }
    }
}

#[test]
fn a_receipt_has_the_members_that_its_readers_know() {
    let expected = json!({
        "sessionId": "65ea1530bb50af72b6e3dc1e",
        "endReason": "stop_requested",
        "forced": true,
        "requestedAt": "2024-04-01T10:32:00.000Z",
        "releasedAt": "2024-04-01T10:32:00.100Z",
        "finalizedAt": "2024-04-01T10:32:00.250Z",
        "sources": [{
            "id": "c1fcba18",
            "type": "audio",
            "device": "Built-in Microphone (hw:0,0)",
            "format": "48000 Hz stereo",
            "captured": u64::MAX,
            "written": 5,
            "dropped": 4,
            "lost": 3,
            "missed": 2,
            "filled": 1,
            "corrupt": 6,
            "driftPpm": -12.5,
            "atLeast": true,
            "firstTimestamp": "2024-04-01T10:30:00.033Z",
            "lastTimestamp": "2024-04-01T10:31:59.967Z",
            "timestampSource": "driver",
            "gaps": [{ "startSeconds": 1.5, "durationSeconds": 0.25, "missed": 7, "reason": "overrun" }],
            "restarts": 2,
        }],
        "files": [{
            "path": "/var/lib/shutterd/media/a.mkv",
            "bytes": 1_099_511_627_776_u64,
            "blake3": "abababababababababababababababababababababababababababababababab",
            "durationSeconds": 119.967,
            "repaired": true,
        }],
        "removal": { "state": "removed", "removedAt": "2024-04-02T00:00:00.000Z", "reason": "requested" },
        "warnings": ["the disk was slow"],
    });
    let time = |text: &str| Some(text.parse().expect("the test wrote a time"));
    let full = Receipt {
        released_at: time("2024-04-01T10:32:00.100Z"),
        removal: Some(Removal {
            state: RemovalState::Removed,
            removed_at: time("2024-04-02T00:00:00.000Z"),
            reason: RemovalReason::Requested,
        }),
        ..receipt()
    };
    assert_eq!(serde_json::to_value(&full).expect("it can be written"), expected);
    assert_eq!(serde_json::from_value::<Receipt>(expected).expect("it can be read"), full);
}

#[test]
fn a_receipt_of_a_later_version_names_what_cannot_be_read() {
    let mut message = receipt_to_proto(&receipt());
    message.end_reason = "eclipse".to_owned();
    let error = receipt_from_proto(message).expect_err("the word is unknown");
    assert_eq!(error.field(), "end_reason");
    let mut message = receipt_to_proto(&receipt());
    message.sources[0].first_timestamp = "noon".to_owned();
    let error = receipt_from_proto(message).expect_err("the text is no time");
    assert_eq!(error.field(), "sources.first_timestamp");
}

#[test]
fn progress_tells_each_sources_counts() {
    let Receipt { mut sources, files, .. } = receipt();
    let account = Account {
        sources: vec![SourceAccount {
            receipt: sources.remove(0),
            state: SourceState::Degraded,
            reason: "stalled".to_owned(),
            durable_at: None,
        }],
        files,
        captured_seconds: 4.5,
        warnings: Vec::new(),
    };
    let progress = progress_to_proto(&account, 1, 2, 3);
    assert_eq!((progress.queued_packets, progress.durable_bytes, progress.pending_bytes), (1, 2, 3));
    assert!((progress.captured_seconds - 4.5).abs() < f64::EPSILON);
    let source = &progress.sources[0];
    assert_eq!((source.state.as_str(), source.reason.as_str()), ("degraded", "stalled"));
    assert_eq!((source.captured, source.written), (u64::MAX, 5));
    assert_eq!(progress.closed_files[0].bytes, 1 << 40);
}
