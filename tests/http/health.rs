//! Health, as every probe tells it: gRPC, HTTP, the command line and the session say the same, and it gets well
//! by itself.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use tokio::task::spawn_blocking;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::agent::{Agent, eventually, patient, session, worker_state};
use crate::client::{Door, call};
use crate::site::{Site, faulty_camera, microphone};

/// What the probes say.
#[derive(Debug, PartialEq)]
struct Told {
    grpc: Option<ServingStatus>,
    ready: u16,
    status: String,
    exit: Option<i32>,
}

fn told(grpc: ServingStatus, ready: u16, status: &str, exit: i32) -> Told {
    Told { grpc: Some(grpc), ready, status: status.to_owned(), exit: Some(exit) }
}

async fn ask(agent: &Agent, door: &Door) -> (Told, Value, String) {
    let (http, site) = (door.http, std::sync::Arc::clone(&agent.site));
    let asked = spawn_blocking(move || {
        let ready = call(http, "GET", "/readyz", &[], "");
        assert_eq!(call(http, "GET", "/healthz", &[], "").code, 200, "it is alive whatever happens");
        let socket = format!("unix:{}", site.dir().join("run/api.sock").display());
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_shutterd"));
        let output = command.args(["--server", &socket, "health"]).output().expect("it can be run");
        (ready.code, ready.json(), output)
    });
    let (ready, body, output) = patient("the probes", asked).await.expect("they ran");
    let told = Told {
        grpc: agent.health().await,
        ready,
        status: body["status"].as_str().unwrap_or_default().to_owned(),
        exit: output.status.code(),
    };
    (told, body, String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asks until the probes agree on this; the body of `/readyz` and the line of the command then.
async fn becomes(agent: &Agent, door: &Door, wanted: Told) -> (Value, String) {
    let deadline = tokio::time::Instant::now() + crate::agent::PATIENCE;
    loop {
        let (told, body, line) = ask(agent, door).await;
        if told == wanted {
            return (body, line);
        }
        assert!(tokio::time::Instant::now() < deadline, "{told:?} instead of {wanted:?}: {body}, {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_delivers_nothing_degrades_then_fails_and_is_well_again_by_itself() {
    let stalls = r#"{ at_frame = 60, frames = 300, fault = "stall" }"#;
    let site = Site::new("health.durable_age_ms = 4000", &[faulty_camera("cam", stalls), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let door = Door::of(&agent).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    becomes(&agent, &door, told(ServingStatus::Serving, 200, "ok", 0)).await;
    let (body, line) = becomes(&agent, &door, told(ServingStatus::Serving, 200, "degraded", 1)).await;
    let found = &body["findings"][0];
    assert_eq!(
        (found["level"].as_str(), found["subject"].as_str()),
        (Some("degraded"), Some("source")),
        "{body}"
    );
    assert!(found["about"].as_str().is_some_and(|about| about.contains("Camera cam")), "{body}");
    assert!(line.starts_with("WARNING: ") && line.contains("Camera cam"), "{line}");
    let shown = agent.get("s").await.expect("it is there");
    assert_eq!(worker_state(shown.session.as_ref()), "degraded");
    let (body, line) = becomes(&agent, &door, told(ServingStatus::NotServing, 503, "failed", 2)).await;
    assert!(body["reasons"][0].as_str().is_some_and(|reason| reason.contains("4 s")), "{body}");
    assert!(line.starts_with("CRITICAL: "), "{line}");
    becomes(&agent, &door, told(ServingStatus::Serving, 200, "ok", 0)).await;
    let shown = agent.get("s").await.expect("it is there");
    assert_eq!(worker_state(shown.session.as_ref()), "working");
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_takes_nothing_fails_and_is_well_again_by_itself() {
    let site = Site::new("limits.journal_timeout_ms = 500", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let door = Door::of(&agent).await;
    becomes(&agent, &door, told(ServingStatus::Serving, 200, "ok", 0)).await;
    let journal = site.dir().join("state/journal.sqlite");
    let held = rusqlite::Connection::open(journal).expect("the journal can be opened");
    held.execute_batch("BEGIN IMMEDIATE").expect("it can be held");
    let refused = agent.start(session("s", &["mic"])).await.expect_err("it can't be journalled");
    assert_eq!(crate::agent::refusal(&refused).1, "JOURNAL_FAILED", "{refused:?}");
    let (body, _) = becomes(&agent, &door, told(ServingStatus::NotServing, 503, "failed", 2)).await;
    assert_eq!(body["findings"][0]["subject"], "journal", "{body}");
    held.execute_batch("ROLLBACK").expect("it can be let go");
    becomes(&agent, &door, told(ServingStatus::Serving, 200, "ok", 0)).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_directory_that_is_gone_fails_and_is_well_again_by_itself() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let door = Door::of(&agent).await;
    becomes(&agent, &door, told(ServingStatus::Serving, 200, "ok", 0)).await;
    std::fs::remove_dir_all(site.media_dir()).expect("it can be removed");
    let (body, _) = becomes(&agent, &door, told(ServingStatus::NotServing, 503, "failed", 2)).await;
    assert_eq!(body["findings"][0]["subject"], "disk", "{body}");
    std::fs::create_dir(site.media_dir()).expect("it can be made");
    becomes(&agent, &door, told(ServingStatus::Serving, 200, "ok", 0)).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_devices_cannot_be_looked_for_is_degraded() {
    let site = Site::unshared("", &[]);
    let script = site.dir().join("worker.sh");
    let real = env!("CARGO_BIN_EXE_shutterd");
    std::fs::write(&script, format!("#!/bin/sh\n[ \"$1\" != probe ] && exec {real} \"$@\"\nexit 1\n"))
        .expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
    let config = site.dir().join("flow.toml");
    let text = std::fs::read_to_string(&config).expect("a config");
    std::fs::write(&config, format!("{text}\n[worker]\npath = \"{}\"\n", script.display()))
        .expect("a config");
    let site = std::sync::Arc::new(site);
    let agent = Agent::serve(&site).await;
    let door = Door::of(&agent).await;
    let (body, _) = becomes(&agent, &door, told(ServingStatus::Serving, 200, "degraded", 1)).await;
    assert_eq!(body["findings"][0]["subject"], "probe", "{body}");
    eventually("the log says why", || site.log().contains("probe")).await;
    agent.end().await;
}
