//! The session of the product's contract over the wire: it goes in as JSON and comes out equal, but
//! for what the agent owns, also from an agent that was started anew.

use serde_json::{Map, Value, json};
use shutterd::api::convert::{session_from_proto, session_to_proto};
use shutterd::api::proto::{Session, SessionEvent, WatchAgentRequest};
use tonic::Code;

use crate::agent::until;
use crate::host::{Host, assert_refused};
use crate::site::{Site, camera};

const CONTRACT: &str = include_str!("../data/session.json");

/// The contract's session with members that no proto knows and literals that no double keeps.
fn contract(id: &str) -> Map<String, Value> {
    let mut session: Map<String, Value> = serde_json::from_str(CONTRACT).expect("the contract is JSON");
    session.insert("_id".to_owned(), json!(id));
    session["meta"]["expires"] = json!("2999-05-01T11:30:00.000Z");
    let more: Map<String, Value> = serde_json::from_str(
        r#"{
            "huge": 123456789012345678901234567890,
            "exact": 0.1000000000000000055511151231257827,
            "tenth": 1.10, "exponent": 1e5, "below": -0.0,
            "empty": "", "nothing": null, "list": [1, [2.50, {"deep": "ü"}], []], "schema": {},
            "escaped": "a\u0000b\ud83c\udfa5\n"
        }"#,
    )
    .expect("JSON");
    session.extend(more.clone());
    for member in ["config", "meta"] {
        session[member].as_object_mut().expect("an object").extend(more.clone());
    }
    let sources = session["sources"].as_array_mut().expect("an array");
    sources[0].as_object_mut().expect("an object").extend(more);
    sources.push(json!({ "id": "elsewhere", "device": "screen_share", "region": [0, 0, 640.0, 360] }));
    sources.push(json!({ "anything": "else" }));
    session
}

/// Without what the agent owns.
fn theirs(session: &Map<String, Value>) -> Map<String, Value> {
    let mut session = session.clone();
    for owned in ["state", "duration"] {
        session.remove(owned);
    }
    if let Some(Value::Object(meta)) = session.get_mut("meta") {
        meta.remove("healthCheck");
        meta.remove("workerState");
    }
    session
}

fn back(session: Option<Session>) -> Map<String, Value> {
    session_from_proto(session.expect("an answer has its session")).expect("it can be read back")
}

/// Text, so that literals are compared and not what they mean.
fn text(session: &Map<String, Value>) -> String {
    serde_json::to_string(session).expect("JSON")
}

#[tokio::test]
async fn the_contracts_session_comes_out_as_it_went_in_and_also_after_a_restart() {
    let camera = camera("cam").replace("Camera cam", "Integrated Webcam");
    let site = Site::new("", &[camera]);
    let host = Host::serve(&site).await;
    let given = contract("65ea1530bb50af72b6e3dc1e");
    let started = host.start(session_to_proto(&given)).await.expect("the contract's session starts");
    let started = back(Some(started));
    assert_eq!(text(&theirs(&started)), text(&theirs(&given)));
    assert_eq!(started["state"], "active");
    assert_eq!(started["meta"]["workerState"], "working");

    // Whoever starts it again joins it; whoever changes a literal asks for another session.
    let joined = host.start(session_to_proto(&given)).await.expect("the same session is joined");
    assert_eq!(text(&theirs(&back(Some(joined)))), text(&theirs(&given)));
    let mut other = given.clone();
    other["tenth"] = serde_json::from_str("1.1").expect("JSON");
    let status = host.start(session_to_proto(&other)).await.expect_err("1.1 is not 1.10");
    assert_refused(
        "another literal",
        &status,
        Code::AlreadyExists,
        "SESSION_EXISTS",
        &[("session", "65ea1530bb50af72b6e3dc1e")],
    );

    host.recorded("65ea1530bb50af72b6e3dc1e", &[("c1fcba18-15ec-457c-a1de-fcbb87aeaa0e", 10)]).await;
    let stopped = host.stop("65ea1530bb50af72b6e3dc1e").await;
    let mut receipt = stopped.receipt.expect("a receipt");
    let finished = back(stopped.session);
    assert_eq!(text(&theirs(&finished)), text(&theirs(&given)));
    assert_eq!(finished["state"], "finished");
    assert_eq!(finished["meta"]["workerState"], "stopped");
    let seconds = finished["duration"].as_f64().expect("seconds");
    assert!((seconds - receipt.files[0].duration_seconds).abs() < 0.002, "{seconds} of {receipt:?}");
    assert!(finished["meta"]["healthCheck"].as_str().is_some_and(|time| time.ends_with('Z')));
    let ids: Vec<_> = receipt.sources.iter().map(|source| source.id.as_str()).collect();
    assert_eq!(ids, ["c1fcba18-15ec-457c-a1de-fcbb87aeaa0e"], "what is elsewhere is not captured");
    // Its media goes, as it asks for: that is the one thing of a receipt that changes.
    let is_removed = |event: &SessionEvent| {
        event.receipt.as_ref().and_then(|it| it.removal.as_ref()).is_some_and(|it| it.state == "removed")
    };
    let watched = host.calls().watch_agent(WatchAgentRequest { since: 0 }).await.expect("it can be watched");
    receipt.removal = until(&mut watched.into_inner(), is_removed).await.receipt.expect("a receipt").removal;
    host.end().await;

    let host = Host::serve(&site).await;
    let later = host.get("65ea1530bb50af72b6e3dc1e").await;
    assert_eq!(text(&back(later.session)), text(&finished));
    assert_eq!(later.receipt, Some(receipt));
    let listed = host.list().await;
    assert_eq!(listed.len(), 1);
    assert_eq!(text(&back(listed[0].session.clone())), text(&finished));
    let status =
        host.start(session_to_proto(&given)).await.expect_err("a finished session isn't started again");
    assert_refused("again", &status, Code::AlreadyExists, "SESSION_EXISTS", &[]);
    host.end().await;
}

#[tokio::test]
async fn a_session_without_a_life_of_its_own_is_given_one() {
    let host = Host::serve(&Site::new("", &[camera("cam")])).await;
    let given = json!({ "_id": "bare", "sources": [{ "id": "a", "device": "local_camera" }], "meta": null, "config": null });
    let Value::Object(given) = given else { unreachable!("an object") };
    let started = host.start(session_to_proto(&given)).await.expect("little is enough");
    let started = back(Some(started));
    assert_eq!(started["meta"]["workerState"], "working");
    host.start(session_to_proto(&started)).await.expect("what came out may go in again");
    host.stop("bare").await;
    host.end().await;
}
