//! What the HTTP side takes, and how long: bodies, heads, connections, slow clients; and the probes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use shutterd::api::proto::WatchAgentRequest;
use tokio::task::spawn_blocking;

use crate::access::Calls;
use crate::agent::{Agent, eventually, patient, send, session};
use crate::client::{Door, call, connect, read};
use crate::site::{Site, microphone};
use crate::{assert_error, serve};

/// Far less than the time after which the agent gives up a slow connection.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Reads until the agent closes the connection; what it said before.
fn until_closed(mut stream: TcpStream) -> String {
    let mut said = String::new();
    // A reset closes it as well.
    let _ = stream.read_to_string(&mut said);
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_passed_over_up_to_a_limit() {
    let (agent, door) = serve("").await;
    agent.start(session("s", &["mic"])).await.expect("it starts");
    let bearer = format!("Bearer {}", door.token);
    let headers = [("Authorization", bearer.as_str())];
    let large = call(door.http, "POST", "/v1/sessions/s/stop", &headers, &"x".repeat(64 * 1024 + 1));
    assert_error(&large, 413);
    assert_eq!(door.get("s").json()["state"], "active", "what is refused does nothing");
    let small = call(door.http, "POST", "/v1/sessions/s/stop", &headers, &"x".repeat(64 * 1024));
    assert_eq!(small.code, 200, "{small:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_told() {
    let (agent, door) = serve("").await;
    agent.start(session("s", &["mic"])).await.expect("it starts");
    let mut stream = connect(door.http);
    let head = format!(
        "POST /v1/sessions/s/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nAuthorization: Bearer {}\r\n\r\n",
        door.token
    );
    stream.write_all(head.as_bytes()).expect("it is taken");
    let answer = patient("the answer", spawn_blocking(move || read(&mut stream))).await.expect("it is read");
    assert_error(&answer, 408);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_calls() {
    let (_agent, door) = serve("").await;
    let mut stream = connect(door.http);
    for _ in 0..20 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is taken");
        assert_eq!(read(&mut stream).code, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_long_or_no_http_is_refused() {
    let (_agent, door) = serve("").await;
    let many: String = (0..65).map(|at| format!("x-{at}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(20_000));
    for (head, code) in [
        (format!("GET /healthz HTTP/1.1\r\n{many}\r\n"), "431"),
        (format!("GET /healthz HTTP/1.1\r\n{long}\r\n"), "431"),
        ("\x16\x03\x01\x02".to_owned(), "400"),
        ("GET /healthz\r\n\r\n".to_owned(), "400"),
    ] {
        let mut stream = connect(door.http);
        // The agent may hang up before it has taken all of it.
        let _ = stream.write_all(head.as_bytes());
        let said = spawn_blocking(move || until_closed(stream)).await.expect("it is read");
        assert!(said.is_empty() || said.starts_with(&format!("HTTP/1.1 {code}")), "{code}: {said:?}");
    }
    assert_eq!(door.get("x").code, 404, "others are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_slow_or_unknown_keep_nobody_out_and_lose_their_places() {
    let (_agent, door) = serve("http.connections_max = 2").await;
    let mut probing = connect(door.http);
    probing.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is taken");
    assert_eq!(read(&mut probing).code, 200);
    let mut slow = connect(door.http);
    slow.write_all(b"GET /healthz HTTP/1.1\r\nx-slow: ").expect("it is taken");
    let asked_at = Instant::now();
    let asking = door.clone();
    let answer = patient("the call", spawn_blocking(move || asking.get("x"))).await.expect("the call ran");
    assert_eq!(answer.code, 404);
    assert!(asked_at.elapsed() < AT_ONCE, "it took {:?}", asked_at.elapsed());
    for stranger in [probing, slow] {
        let closed = spawn_blocking(move || until_closed(stranger));
        patient("the end of a stranger", closed).await.expect("it is read");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_shown_its_token_keeps_its_place() {
    let (_agent, door) = serve("http.connections_max = 2").await;
    let call =
        format!("GET /v1/sessions/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", door.token);
    let mut known = connect(door.http);
    known.write_all(call.as_bytes()).expect("it is taken");
    assert_eq!(read(&mut known).code, 404);
    for _ in 0..5 {
        let mut stranger = connect(door.http);
        stranger.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is taken");
        assert_eq!(read(&mut stranger).code, 200);
        known.write_all(call.as_bytes()).expect("it is still open");
        assert_eq!(read(&mut known).code, 404);
    }
}

/// A connection over which nothing comes but the beginning of HTTP/2; the agent has taken it.
fn greeted(door: &Door) -> TcpStream {
    let mut stream = connect(door.tcp);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("it is taken");
    stream.read_exact(&mut [0; 9]).expect("the agent greets back");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_connections_without_a_token_keep_nobody_out_and_lose_their_places() {
    let (agent, door) = serve("api.connections_max = 2").await;
    let strangers = [greeted(&door), greeted(&door)];
    let asked_at = Instant::now();
    let calls = Calls::open(&door).await.with(&door.token);
    let request = WatchAgentRequest { since: 0 };
    let mut events =
        patient("the call", calls.agent().watch_agent(request)).await.expect("it is let in").into_inner();
    assert!(asked_at.elapsed() < AT_ONCE, "it took {:?}", asked_at.elapsed());
    for stranger in strangers.into_iter().chain([greeted(&door), greeted(&door)]) {
        let closed = spawn_blocking(move || until_closed(stranger));
        patient("the end of a stranger", closed).await.expect("it is read");
    }
    agent.start(session("s", &["mic"])).await.expect("it starts");
    let event = patient("the stream goes on", events.message()).await.expect("it was not cut");
    assert!(event.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probes_need_no_token_and_tell_a_shutdown_from_a_death() {
    let site = Site::new("limits.drain_timeout_ms = 25000", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let door = Door::of(&agent).await;
    let probe = |path: &str| call(door.http, "GET", path, &[], "");
    eventually("it is ready", || probe("/readyz").code == 200).await;
    let idle = json!({
        "level": "absent", "subject": "agent", "about": "", "message": "no session: nothing is captured",
    });
    let well = json!({ "ready": true, "status": "ok", "reasons": [], "findings": [idle], "problems": [] });
    eventually("it is well", || probe("/readyz").json() == well).await;
    assert_eq!(probe("/healthz").json(), json!({ "alive": true, "status": "ok" }));
    agent.start(session("s", &["mic"])).await.expect("it starts");
    let worker = site.worker("s");
    send(worker, Signal::STOP);
    agent.signal(Signal::TERM);
    eventually("it drains", || site.log().contains("draining every session")).await;
    eventually("it is not ready", || probe("/readyz").code == 503).await;
    let told = probe("/readyz").json();
    assert_eq!(told["ready"], false);
    let reasons = told["reasons"].as_array().expect("a list");
    assert!(reasons.iter().any(|it| it.as_str().is_some_and(|it| it.contains("shutting down"))), "{told}");
    assert_eq!(probe("/healthz").code, 200, "it is alive");
    // A stop that comes now joins the drain.
    let late = door.clone();
    let stop = spawn_blocking(move || late.stop("s"));
    eventually("the stop has come", || site.log().contains("stop called over HTTP")).await;
    send(worker, Signal::CONT);
    assert_eq!(patient("the stop", stop).await.expect("the call ran").code, 200);
    assert_eq!(agent.exited().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_can_be_off() {
    let site = Site::new("", &[]);
    let path = site.dir().join("flow.toml");
    let config = std::fs::read_to_string(&path).expect("a config");
    let off = config.replace("http.listen = \"127.0.0.1:0\"", "http.listen = \"off\"");
    assert_ne!(off, config);
    std::fs::write(&path, off).expect("a config");
    let agent = Agent::serve(&site).await;
    eventually("it is ready", || site.log().contains(" ready ")).await;
    assert!(!site.log().contains(" http="), "{}", site.log());
    agent.end().await;
}
