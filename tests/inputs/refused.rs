//! Sessions and options that can't be taken: a clear error each, and nothing left behind.

use std::sync::Arc;

use shutterd::api::proto::{
    GetSessionRequest, ListSessionsRequest, ReadMediaRequest, Session, SessionConfig, SessionMeta, Source,
    SourceFormat, StartOptions, StopSessionRequest, WatchSessionRequest,
};
use tonic::Code::{FailedPrecondition, InvalidArgument};
use tonic::{Code, Status};

use crate::agent::{drain, session};
use crate::host::{Host, assert_refused};
use crate::site::{Site, camera, microphone};

/// A start that is refused.
struct Case {
    what: &'static str,
    session: Session,
    options: StartOptions,
    code: Code,
    reason: &'static str,
    about: Vec<(&'static str, &'static str)>,
}

fn site() -> Arc<Site> {
    let named = |id: &str| camera(id).replace(&format!("Camera {id}"), "Hall");
    let devices = [camera("cam"), microphone("mic"), named("hall-1"), named("hall-2")];
    Site::new("limits.start_timeout_ms = 2000", &devices)
}

fn plain() -> Session {
    session("s1", &["cam", "mic"])
}

/// A case that is made of a session that could be started.
fn case(what: &'static str, field: &'static str, change: impl FnOnce(&mut Session)) -> Case {
    let mut session = plain();
    change(&mut session);
    let (code, reason, about) = (InvalidArgument, "INVALID_SESSION", vec![("field", field)]);
    Case { what, session, options: StartOptions::default(), code, reason, about }
}

fn with_id(what: &'static str, id: &str) -> Case {
    case(what, "_id", |session| id.clone_into(&mut session.id))
}

/// A case whose session has this in the `extra_json` of its top level.
fn extra(field: &'static str, json: &'static str) -> Case {
    case(json, field, |session| json.clone_into(&mut session.extra_json))
}

fn option(
    what: &'static str,
    about: &[(&'static str, &'static str)],
    change: impl FnOnce(&mut StartOptions),
) -> Case {
    let mut options = StartOptions::default();
    change(&mut options);
    let (code, reason) = (InvalidArgument, "INVALID_REQUEST");
    Case { what, session: plain(), options, code, reason, about: about.to_vec() }
}

fn format(change: impl FnOnce(&mut SourceFormat)) -> SourceFormat {
    let mut format = SourceFormat { source_id: "cam".to_owned(), ..Default::default() };
    change(&mut format);
    format
}

async fn assert_all_refused(host: &Host, cases: Vec<Case>) {
    for case in cases {
        let Case { what, session, options, code, reason, about } = case;
        match host.start_soon(session, Some(options)).await {
            Ok(session) => panic!("{what} was taken: {session:?}"),
            Err(status) => assert_refused(what, &status, code, reason, &about),
        }
        host.assert_nothing_is_left(what).await;
    }
}

#[tokio::test]
async fn a_session_that_cannot_be_read_is_refused_by_its_field() {
    let host = Host::serve(&site()).await;
    let cases = vec![
        with_id("an empty id", ""),
        with_id("a slash", "a/b"),
        with_id("the parent directory", ".."),
        with_id("a way out", "../../etc/passwd"),
        with_id("a hidden name", ".hidden"),
        with_id("an option", "-rf"),
        with_id("NUL", "a\0b"),
        with_id("another alphabet", "séance"),
        with_id("a newline", "a\nb"),
        with_id("65 characters", &"a".repeat(65)),
        with_id("a million characters", &"a".repeat(1_000_000)),
        case("a name of 257 characters", "name", |session| session.name = "ü".repeat(257)),
        case("too many bytes", "", |session| {
            session.extra_json = format!("{{\"x\":\"{}\"}}", "y".repeat(70_000));
        }),
        case("17 sources", "sources", |session| {
            session.sources = (0..17).map(|at| Source { id: at.to_string(), ..Default::default() }).collect();
        }),
        case("a duration that is no number", "duration", |session| session.duration = Some(f64::NAN)),
        case("an expiry that is no time", "meta.expires", |session| {
            session.meta = Some(SessionMeta { expires: "tomorrow".to_owned(), ..Default::default() });
        }),
        case("an expiry that has passed", "meta.expires", |session| {
            session.meta =
                Some(SessionMeta { expires: "2024-05-01T11:30:00.000Z".to_owned(), ..Default::default() });
        })
        .because("SESSION_EXPIRED"),
    ];
    assert_all_refused(&host, cases).await;
    host.end().await;
}

#[tokio::test]
async fn sources_that_cannot_be_captured_are_refused_by_their_field() {
    let host = Host::serve(&site()).await;
    let cases = vec![
        case("no sources", "sources", |session| session.sources.clear()),
        case("only foreign sources", "sources", |session| {
            session.sources.iter_mut().for_each(|source| source.device = "screen_share".to_owned());
        }),
        case("an id twice", "sources[1].id", |session| session.sources[1].id = "cam".to_owned()),
        case("a source without an id", "sources[0].id", |session| session.sources[0].id.clear()),
        case("a camera that delivers sound", "sources[0].type", |session| {
            session.sources[0].r#type = "audio".to_owned();
        }),
        case("a long device id", "sources[0].deviceId", |session| {
            session.sources[0].device_id = "d".repeat(257);
        }),
        case("one device for two sources", "sources", |session| {
            session.sources.push(Source { id: "again".to_owned(), ..session.sources[0].clone() });
        })
        .because("DEVICE_TWICE")
        .about(&[("source", "again"), ("device", "Camera cam")]),
        case("a device that is not there", "", |session| {
            session.sources[0].device_id = "no-such-camera".to_owned();
        })
        .failed("DEVICE_MISSING", &[("source", "cam"), ("device", "no-such-camera")]),
        case("a microphone as a camera", "", |session| session.sources[0].device_id = "mic".to_owned())
            .failed("DEVICE_MISSING", &[("source", "cam"), ("device", "mic")]),
        case("a name that two devices have", "", |session| {
            (session.sources[0].name, session.sources[0].device_id) = ("Hall".to_owned(), String::new());
        })
        .failed("DEVICE_AMBIGUOUS", &[("source", "cam"), ("device", "Hall")]),
        case("a name that nobody has, among three cameras", "", |session| {
            (session.sources[0].name, session.sources[0].device_id) = ("Attic".to_owned(), String::new());
        })
        .failed("DEVICE_AMBIGUOUS", &[("source", "cam"), ("device", "Attic")]),
    ];
    assert_all_refused(&host, cases).await;
    host.end().await;
}

#[tokio::test]
async fn json_beside_the_fields_is_held_to_the_same_rules() {
    let host = Host::serve(&site()).await;
    let mut cases = vec![
        extra("sources", r#"{"sources": 5}"#),
        extra("sources[0]", r#"{"sources": [5]}"#),
        extra("sources[0].device", r#"{"sources": [{"id": "x", "device": 1}]}"#),
        extra("meta", r#"{"meta": []}"#),
        extra("meta.expires", r#"{"meta": {"expires": 5}}"#),
        extra("config", r#"{"config": "no"}"#),
        extra("config.removeMedia", r#"{"config": {"removeMedia": "yes"}}"#),
        extra("name", r#"{"name": 7}"#),
        extra("_id", r#"{"_id": 7}"#),
        extra("_id", r#"{"_id": "../s1"}"#),
        extra("extra_json", "[1]"),
        extra("extra_json", "5"),
        extra("extra_json", "null"),
        extra("extra_json", r#""text""#),
        extra("extra_json", "{"),
        extra("extra_json", r#"{"a": 1} {"b": 2}"#),
        extra("extra_json", r#"{"a": NaN}"#),
    ];
    cases.push(case("too deep", "", |session| {
        session.extra_json = format!("{{\"a\":{}{}}}", "[".repeat(110), "]".repeat(110));
    }));
    cases.push(case("far too deep", "extra_json", |session| {
        session.extra_json = format!("{{\"a\":{}{}}}", "[".repeat(9000), "]".repeat(9000));
    }));
    cases.push(case("a setting that is no boolean", "config.removeMedia", |session| {
        session.config =
            Some(SessionConfig { remove_media: None, extra_json: r#"{"removeMedia": 1}"#.to_owned() });
    }));
    cases.push(case("settings that are no object", "config.extra_json", |session| {
        session.config = Some(SessionConfig { remove_media: Some(true), extra_json: "true".to_owned() });
    }));
    cases.push(case("a life that is no object", "meta.extra_json", |session| {
        session.meta = Some(SessionMeta { extra_json: "[]".to_owned(), ..Default::default() });
    }));
    for (field, json) in [
        ("sources[1].extra_json", "[]"),
        ("sources[1].id", r#"{"id": 5}"#),
        ("sources[1].name", r#"{"name": {}}"#),
        ("sources[1].deviceId", r#"{"deviceId": 7}"#),
        ("sources[1].type", r#"{"type": 7}"#),
    ] {
        cases.push(case(json, field, |session| session.sources[1].extra_json = json.to_owned()));
    }
    assert_all_refused(&host, cases).await;
    host.end().await;
}

#[tokio::test]
async fn options_that_cannot_be_had_are_refused() {
    let host = Host::serve(&site()).await;
    let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let mut cases = Vec::new();
    for (what, length) in [
        ("no time at all", seconds(0, 0)),
        ("negative time", seconds(-1, 0)),
        ("a little negative time", seconds(0, -1)),
        ("more than a year", seconds(366 * 24 * 3600, 0)),
        ("time beyond measure", seconds(i64::MAX, 999_999_999)),
    ] {
        let field = [("field", "options.max_duration")];
        cases.push(option(what, &field, |options| options.max_duration = length));
    }
    let field = [("field", "options.formats")];
    for (what, format) in [
        ("no width", format(|format| format.width = Some(0))),
        ("no height", format(|format| format.height = Some(0))),
        ("no frames", format(|format| format.frame_rate = Some(0.0))),
        ("negative frames", format(|format| format.frame_rate = Some(-30.0))),
        ("frames that are no number", format(|format| format.frame_rate = Some(f64::NAN))),
        ("endless frames", format(|format| format.frame_rate = Some(f64::INFINITY))),
        ("no code of four characters", format(|format| format.pixel_format = Some("motion".to_owned()))),
        ("a code without end", format(|format| format.pixel_format = Some("x".repeat(100_000)))),
        ("sound of a camera", format(|format| format.sample_rate = Some(48_000))),
        ("channels of a camera", format(|format| format.channels = Some(1))),
        ("no samples", for_microphone(|format| format.sample_rate = Some(0))),
        ("no channels", for_microphone(|format| format.channels = Some(0))),
        ("pictures of a microphone", for_microphone(|format| format.width = Some(640))),
        ("a source that is not listed", format(|format| format.source_id = "nobody".to_owned())),
        ("a source's name without end", format(|format| format.source_id = "n".repeat(500_000))),
    ] {
        cases.push(option(what, &field, |options| options.formats.push(format)));
    }
    cases.push(option("two formats of one source", &field, |options| {
        options.formats =
            vec![format(|format| format.width = Some(640)), format(|format| format.height = Some(480))];
    }));
    for case in &mut cases {
        case.reason = if case.about == field { "INVALID_OPTIONS" } else { "INVALID_REQUEST" };
    }
    for (what, format) in [
        ("a compression that nobody has", format(|format| format.pixel_format = Some("H264".to_owned()))),
        ("a picture beyond measure", format(|format| format.width = Some(100_000))),
        ("frames beyond measure", format(|format| format.frame_rate = Some(1e6))),
        ("samples beyond measure", for_microphone(|format| format.sample_rate = Some(4_000_000))),
        ("channels beyond measure", for_microphone(|format| format.channels = Some(200))),
        ("channels that no field holds", for_microphone(|format| format.channels = Some(70_000))),
    ] {
        let source = if format.source_id == "cam" { "cam" } else { "mic" };
        let case = option(what, &[], |options| options.formats.push(format));
        cases.push(case.failed("FORMAT_UNAVAILABLE", &[("session", "s1"), ("source", source)]));
    }
    assert_all_refused(&host, cases).await;
    host.end().await;
}

fn for_microphone(change: impl FnOnce(&mut SourceFormat)) -> SourceFormat {
    let mut format = SourceFormat { source_id: "mic".to_owned(), ..Default::default() };
    change(&mut format);
    format
}

#[tokio::test]
async fn an_id_that_is_none_is_refused_by_every_call() {
    let host = Host::serve(&site()).await;
    let long = "a".repeat(1_000_000);
    for id in ["", "a/b", "..", "../s1", "a\0b", "séance", &long] {
        let session_id = id.to_owned();
        let refused = |status: Status| {
            let what = &id[..id.len().min(8)];
            assert_refused(what, &status, InvalidArgument, "INVALID_SESSION_ID", &[("field", "session_id")]);
        };
        let mut calls = host.calls();
        refused(calls.stop_session(drain(id)).await.expect_err("a stop"));
        refused(
            calls
                .get_session(GetSessionRequest { session_id: session_id.clone() })
                .await
                .expect_err("a look"),
        );
        let request = WatchSessionRequest { session_id: session_id.clone() };
        refused(calls.watch_session(request).await.expect_err("a watch"));
        let request = ReadMediaRequest { session_id, ..Default::default() };
        refused(calls.read_media(request).await.expect_err("a reading"));
    }
    host.assert_nothing_is_left("all of these").await;
    host.end().await;
}

#[tokio::test]
async fn a_stop_or_a_list_with_a_wrong_number_is_refused() {
    let host = Host::serve(&site()).await;
    let mut calls = host.calls();
    for (seconds, nanos) in [(0, 0), (-5, 0), (0, -1), (i64::MIN, i32::MIN), (i64::MAX, 0)] {
        let drain_timeout = Some(prost_types::Duration { seconds, nanos });
        let request = StopSessionRequest { drain_timeout, ..drain("s1") };
        let status = calls.stop_session(request).await.expect_err("no such time");
        assert_refused("a stop", &status, InvalidArgument, "INVALID_REQUEST", &[("field", "drain_timeout")]);
    }
    // None of them was a stop: the id is free.
    host.start(session("s1", &["cam"])).await.expect("the session starts");
    host.stop("s1").await;
    let request = ListSessionsRequest { page_size: 101, ..Default::default() };
    let status = calls.list_sessions(request).await.expect_err("too large a page");
    assert_refused("a list", &status, InvalidArgument, "INVALID_REQUEST", &[("field", "page_size")]);
    host.end().await;
}

#[tokio::test]
async fn a_message_stays_short_however_many_devices_have_one_name() {
    let name = "ホール".repeat(80);
    let named = |id: usize| camera(&format!("c{id}")).replace(&format!("Camera c{id}"), &name);
    let devices: Vec<String> = (0..40).map(named).collect();
    let host = Host::serve(&Site::new("", &devices)).await;
    let mut wanted = session("s1", &["c0"]);
    (wanted.sources[0].name, wanted.sources[0].device_id) = (name.clone(), String::new());
    let status = host.start_soon(wanted, None).await.expect_err("forty devices have this name");
    assert_refused("one name", &status, FailedPrecondition, "DEVICE_AMBIGUOUS", &[("source", "c0")]);
    host.end().await;
}

impl Case {
    fn because(mut self, reason: &'static str) -> Self {
        self.reason = reason;
        self
    }

    fn about(mut self, more: &[(&'static str, &'static str)]) -> Self {
        self.about.extend(more);
        self
    }

    /// The request is well formed, but the host can't do it.
    fn failed(mut self, reason: &'static str, about: &[(&'static str, &'static str)]) -> Self {
        (self.code, self.reason, self.about) = (FailedPrecondition, reason, about.to_vec());
        self
    }
}
