//! The product's HTTP calls, in the order and the words of its public contract, against the real
//! binary. What isn't in the contract is in the modules: limits and access.

#[path = "http/access.rs"]
mod access;
#[expect(dead_code, reason = "shared with the flows, which use more of it")]
#[path = "flows/agent.rs"]
mod agent;
#[path = "http/client.rs"]
mod client;
#[path = "http/health.rs"]
mod health;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/retries.rs"]
mod retries;
#[expect(dead_code, reason = "shared with the flows, which use more of it")]
#[path = "flows/site.rs"]
mod site;

use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Map, Value, json};
use shutterd::access::{Role, TokenFile};
use shutterd::api::convert::session_to_proto;
use shutterd::api::proto;
use tokio::task::spawn_blocking;

use agent::{Agent, eventually, patient, send, session};
use client::{Answer, Door, call};
use site::{Site, camera, faulty_camera, microphone};

/// The id of the contract's example.
const ID: &str = "65ea1530bb50af72b6e3dc1e";

/// "One Session object as the API documents it", but that it has time left.
fn documented() -> Map<String, Value> {
    let mut session: Value = serde_json::from_str(include_str!("data/session.json")).expect("JSON");
    session["meta"]["expires"] = "2099-05-01T11:30:00.000Z".into();
    session["unknownToThisVersion"] = serde_json::from_str(r#"{"kept":[1.50,null]}"#).expect("JSON");
    session.as_object().expect("an object").clone()
}

fn documented_proto() -> proto::Session {
    session_to_proto(&documented())
}

/// An agent with a camera, and its door.
async fn serve(settings: &str) -> (Agent, Door) {
    let agent = Agent::serve(&Site::new(settings, &[camera("cam"), microphone("mic")])).await;
    let door = Door::of(&agent).await;
    (agent, door)
}

/// "Errors have this body".
fn assert_error(answer: &Answer, code: u16) {
    assert_eq!(answer.code, code, "{answer:?}");
    let body = answer.json();
    let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["error", "status", "message"]);
    assert_eq!((&body["error"], &body["status"]), (&json!(true), &json!(code)));
    let message = body["message"].as_str().expect("a text");
    assert!(message.ends_with('.') && message.len() < 200, "{message:?}");
}

fn assert_not_found(answer: &Answer) {
    assert_error(answer, 404);
    assert_eq!(
        answer.body,
        r#"{"error":true,"status":404,"message":"The requested resource was not found."}"#
    );
}

// "The daemon must read it and write it back unchanged, unknown fields included."

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_written_as_it_was_read_with_the_members_that_the_agent_owns() {
    let (agent, door) = serve("").await;
    agent.start(documented_proto()).await.expect("it starts");
    let got = door.get(ID);
    assert_eq!(got.code, 200);
    let mut got = got.json();
    assert_eq!(got["state"], "active");
    assert_eq!(got["meta"]["workerState"], "working");
    let mut wanted = Value::Object(documented());
    for session in [&mut got, &mut wanted] {
        session["meta"].as_object_mut().expect("an object").remove("workerState");
        session["meta"].as_object_mut().expect("an object").remove("healthCheck");
    }
    assert_eq!(got, wanted);
    assert_eq!(got["unknownToThisVersion"].to_string(), r#"{"kept":[1.50,null]}"#);
}

// "Stop a session: POST /v1/sessions/:id/stop"
// "The session will transition to the finished state and its worker will be stopped, hence no more data
// will be collected." "The reply's body is the Session object with its new state."

#[tokio::test(flavor = "multi_thread")]
async fn code_200_when_stopped_with_the_session_in_its_new_state() {
    let (agent, door) = serve("").await;
    agent.start(documented_proto()).await.expect("it starts");
    agent.recorded(ID, 5, 0).await;
    let stopped = door.stop(ID);
    assert_eq!(stopped.code, 200, "{stopped:?}");
    let object = stopped.json();
    assert_eq!((&object["_id"], &object["state"]), (&json!(ID), &json!("finished")));
    assert_eq!(object["meta"]["workerState"], "stopped");
    assert!(object["duration"].as_f64().is_some_and(|seconds| seconds > 0.1), "{object}");
    for kept in ["name", "type", "timestamp", "config", "sources", "product", "user", "version"] {
        assert_eq!(object[kept], documented()[kept], "{kept}");
    }
    assert!(agent.site.workers().is_empty(), "its worker is stopped");
    assert_eq!(door.get(ID).json(), object);
    let receipt = agent.get(ID).await.expect("it is there").receipt.expect("a receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false));
    assert!(receipt.sources.iter().all(|source| source.lost == 0 && source.written == source.captured));
}

#[tokio::test(flavor = "multi_thread")]
async fn code_200_by_curl_as_the_documentation_has_it() {
    let (agent, door) = serve("").await;
    agent.start(documented_proto()).await.expect("it starts");
    let url = format!("http://{}/v1/sessions/{ID}/stop", door.http);
    let bearer = format!("Authorization: Bearer {}", door.token);
    let curl =
        Command::new("curl").args(["--silent", "--show-error", "-X", "POST", &url, "-H", &bearer]).output();
    let curl = curl.expect("curl is installed: scripts/install-deps.sh test");
    assert!(curl.status.success(), "{curl:?}");
    let object: Value = serde_json::from_slice(&curl.stdout).expect("a session");
    assert_eq!((&object["_id"], &object["state"]), (&json!(ID), &json!("finished")));
}

#[tokio::test(flavor = "multi_thread")]
async fn code_400_when_the_session_is_not_active() {
    let (agent, door) = serve("").await;
    agent.start(documented_proto()).await.expect("it starts");
    assert_eq!(door.stop(ID).code, 200);
    let again = door.stop(ID);
    assert_error(&again, 400);
    assert_eq!(again.json()["message"], "The session is not active.");
    agent.start(session("other", &["mic"])).await.expect("it starts");
    agent.stop("other").await.expect("it stops, by another way");
    assert_error(&door.stop("other"), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_401_without_a_valid_token() {
    let (agent, door) = serve("").await;
    agent.start(documented_proto()).await.expect("it starts");
    for (method, path) in [("GET", format!("/v1/sessions/{ID}")), ("POST", format!("/v1/sessions/{ID}/stop"))]
    {
        let wrong = format!("Bearer {}", "0".repeat(64));
        let basic = format!("Basic {}", door.token);
        let no_scheme = door.token.clone();
        for header in
            [None, Some(""), Some("Bearer"), Some("Bearer "), Some(&wrong), Some(&basic), Some(&no_scheme)]
        {
            let headers: Vec<_> = header.map(|value| ("Authorization", value)).into_iter().collect();
            let answer = call(door.http, method, &path, &headers, "");
            assert_error(&answer, 401);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert_eq!(answer.header("ratelimit-limit"), None, "a caller that nobody knows has no bucket");
        }
    }
    assert_eq!(door.get(ID).json()["state"], "active", "nobody stopped it");
}

#[tokio::test(flavor = "multi_thread")]
async fn code_404_when_there_is_no_such_session() {
    let (_agent, door) = serve("").await;
    let long = "a".repeat(65);
    for id in ["000000000000000000000000", "x", "-x", "a.b", "a%20b", "%2e%2e", "%ff", "a%2Fb", &long] {
        assert_not_found(&door.stop(id));
        assert_not_found(&door.get(id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_404_when_the_caller_may_not_act_on_it_not_told_apart() {
    let (agent, door) = serve("").await;
    agent.start(documented_proto()).await.expect("it starts");
    let tokens = agent.site.dir().join("state/tokens.json");
    let add = |name: &str, role, user: Option<&str>| {
        let mut file = TokenFile::lock(&tokens).expect("the file");
        file.add(name, role, user.map(str::to_owned), None).expect("it is added")
    };
    let others = door.with(&add("others", Role::Operator, Some("somebody-else")));
    let viewer = door.with(&add("viewer", Role::Viewer, None));
    eventually("the tokens are read", || others.get("x").code == 404 && viewer.get("x").code == 404).await;
    let plain = |answer: Answer| (answer.code, answer.body, answer.headers.len());
    let unknown = plain(others.stop("000000000000000000000000"));
    assert_not_found(&others.stop(ID));
    assert_eq!(plain(others.stop(ID)), unknown);
    assert_eq!(plain(others.get(ID)), unknown);
    // It may look, but not act.
    assert_eq!(viewer.get(ID).code, 200);
    assert_eq!(plain(viewer.stop(ID)), unknown);
    assert_eq!(door.get(ID).json()["state"], "active", "nobody stopped it");
    let own = door.with(&add("own", Role::Operator, documented()["user"].as_str()));
    eventually("the token is read", || own.get(ID).code == 200).await;
    assert_eq!(own.stop(ID).code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_429_beyond_the_rate_limit_by_a_token_bucket_with_its_headers() {
    let (agent, door) = serve("http.calls_max = 5\nhttp.window_seconds = 3600").await;
    agent.start(documented_proto()).await.expect("it starts");
    for remaining in (0..5).rev() {
        let answer = door.get(ID);
        assert_eq!(answer.code, 200);
        assert_eq!((answer.number("ratelimit-limit"), answer.number("ratelimit-remaining")), (5, remaining));
        assert_eq!(answer.header("ratelimit-policy"), Some("5;w=3600"));
        let reset = (5 - remaining) * 720;
        assert!((reset - 60..=reset).contains(&answer.number("ratelimit-reset")), "{answer:?}");
    }
    for _ in 0..2 {
        let refused = door.stop(ID);
        assert_error(&refused, 429);
        assert_eq!((refused.number("ratelimit-limit"), refused.number("ratelimit-remaining")), (5, 0));
        assert_eq!(refused.header("ratelimit-policy"), Some("5;w=3600"));
        assert!((3_540..=3_600).contains(&refused.number("ratelimit-reset")), "{refused:?}");
        assert!((660..=720).contains(&refused.number("retry-after")), "{refused:?}");
    }
    let found = agent.get(ID).await.expect("it is there").session.expect("a session");
    assert_eq!(found.state, "active", "what is refused does nothing");
    let tokens = agent.site.dir().join("state/tokens.json");
    let other = TokenFile::lock(&tokens).and_then(|mut file| file.add("other", Role::Viewer, None, None));
    let other = door.with(&other.expect("it is added"));
    eventually("each token has a bucket of its own", || other.get(ID).code == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_fills_again() {
    let (_agent, door) = serve("http.calls_max = 2\nhttp.window_seconds = 1").await;
    eventually("it is empty", || door.get("x").code == 429).await;
    eventually("it holds a call again", || door.get("x").code == 404).await;
}

// "The endpoints around it", of which this agent has one: "GET /v1/sessions/:id 200, 404".

#[tokio::test(flavor = "multi_thread")]
async fn no_other_path_and_no_other_method_is_taken() {
    let (_agent, door) = serve("").await;
    for path in ["/", "/v1/sessions", "/v1/sessions/", "/v1/sessions/x/start", "/v2/sessions/x"] {
        assert_not_found(&door.call("GET", path, &[]));
        assert_not_found(&door.call("POST", path, &[]));
    }
    assert_not_found(&door.call("POST", "/v1/sessions//stop", &[]));
    let stop = format!("/v1/sessions/{ID}/stop");
    for (method, path, allow) in [
        ("GET", stop.as_str(), "POST"),
        ("DELETE", stop.as_str(), "POST"),
        ("PATCH", "/v1/sessions/x", "GET,HEAD"),
        ("DELETE", "/v1/sessions/x", "GET,HEAD"),
        ("POST", "/healthz", "GET,HEAD"),
        ("PUT", "/readyz", "GET,HEAD"),
    ] {
        let answer = door.call(method, path, &[]);
        assert_error(&answer, 405);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

// Issue 3: "joins a running start or drain".

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_joins_a_running_start() {
    let silent = r#"{ at_frame = 0, frames = 1000000, fault = "stall" }"#;
    let site = Site::new("limits.start_timeout_ms = 60000", &[faulty_camera("cam", silent)]);
    let agent = Agent::serve(&site).await;
    let door = Door::of(&agent).await;
    let mut calls = agent.calls();
    let request = proto::StartSessionRequest { session: Some(session("s", &["cam"])), options: None };
    let start = tokio::spawn(async move { calls.start_session(request).await });
    eventually("the worker is there", || site.session_dir("s").exists()).await;
    let stopped = door.stop("s");
    assert_eq!(stopped.code, 200, "{stopped:?}");
    assert_eq!(stopped.json()["state"], "finished");
    let refused = patient("the start", start).await.expect("the call ran").expect_err("it never started");
    assert_eq!(refused.code(), tonic::Code::Aborted);
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_join_a_running_drain_and_are_answered_alike() {
    let (agent, door) = serve("limits.drain_timeout_ms = 25000").await;
    agent.start(documented_proto()).await.expect("it starts");
    let worker = agent.site.worker(ID);
    send(worker, Signal::STOP);
    let stop = |door: &Door| {
        let door = door.clone();
        spawn_blocking(move || door.stop(ID))
    };
    let first = stop(&door);
    eventually("the stop is accepted", || agent.site.log().contains("stop accepted")).await;
    let others = [stop(&door), stop(&door)];
    eventually("they have come", || agent.site.log().matches("stop called over HTTP").count() == 3).await;
    send(worker, Signal::CONT);
    let first = patient("the first", first).await.expect("the call ran");
    assert_eq!((first.code, &first.json()["state"]), (200, &json!("finished")));
    for other in others {
        let other = patient("a stop", other).await.expect("the call ran");
        assert_eq!((other.code, other.body), (200, first.body.clone()));
    }
    assert_eq!(agent.site.log().matches("stop accepted").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_cancels_nothing() {
    let (agent, door) = serve("limits.drain_timeout_ms = 25000").await;
    agent.start(documented_proto()).await.expect("it starts");
    agent.recorded(ID, 5, 0).await;
    let worker = agent.site.worker(ID);
    send(worker, Signal::STOP);
    let mut stream = client::connect(door.http);
    let head = format!(
        "POST /v1/sessions/{ID}/stop HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        door.token
    );
    std::io::Write::write_all(&mut stream, head.as_bytes()).expect("it is taken");
    eventually("the stop is accepted", || agent.site.log().contains("stop accepted")).await;
    drop(stream);
    send(worker, Signal::CONT);
    let receipt = agent.finished(ID).await.receipt.expect("a receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false));
    assert_error(&door.stop(ID), 400);
}

// Issue 3: "a retry after a lost answer gets the first answer, not 400".
