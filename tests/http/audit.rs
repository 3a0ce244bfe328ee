//! The audit log: a line for each call that changes something or reads media, with who made it.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use super::*;
use crate::site::{faulty_camera, skip};

/// A user of this host that is neither root nor the agent's.
const STRANGER: u32 = 65_534;

/// The lines of the audit log.
fn lines(agent: &Agent) -> Vec<String> {
    let log = agent.site.log();
    log.lines().filter(|line| line.contains(" audit: call ")).map(str::to_owned).collect()
}

/// Asserts that one line of the audit log, and one alone, has all of `parts`.
fn assert_told(agent: &Agent, parts: &[&str]) {
    let lines = lines(agent);
    let count = lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count();
    assert_eq!(count, 1, "{parts:?} in {lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_changes_or_reads_something_is_told_with_its_caller_and_its_end() {
    let scene = Scene::set().await;
    let agent = &scene.agent;
    let own = format!("caller=\"uid {}\"", rustix::process::geteuid().as_raw());
    for call in ["call=\"StartSession\"", "call=\"StopSession\""] {
        assert_told(agent, &["session=mine", &own, "role=operator", call, "way=\"unix\"", "outcome=\"OK\""]);
    }
    let api = scene.add("api", Role::Operator, Some("u1"), None);
    let eye = scene.add("eye", Role::Viewer, None, None);
    scene.known(&eye).await;
    let before = lines(agent).len();
    let calls = scene.calls.with(&api);
    calls.make("GetSession", "mine", "u1").await.expect("it may look");
    calls.make("ReadMedia", "mine", "u1").await.expect("it may read");
    calls.make("ReadMedia", "theirs", "u1").await.expect_err("it is another user's");
    calls.make("Drain", "", "").await.expect_err("it is held to one user");
    scene.calls.with(&eye).make("StopSession", "mine", "u1").await.expect_err("it only looks");
    scene.calls.make("StopSession", "mine", "u1").await.expect_err("nobody knows who it is");
    scene.calls.with(&api).make("StopSession", "no id", "u1").await.expect_err("it is no id");
    assert_eq!(scene.door.with(&api).stop("mine").code, 400);
    assert_eq!(scene.door.with("wrong").stop("mine").code, 401);
    assert_eq!(scene.door.with(&eye).get("mine").code, 200);
    assert_eq!(scene.door.with(&eye).stop("mine").code, 404);
    let caller = "caller=\"api\" user=\"u1\" role=operator";
    assert_told(agent, &["session=mine", caller, "call=\"ReadMedia\"", "way=\"tcp\"", "outcome=\"OK\""]);
    let refused = ["outcome=\"NOT_FOUND\"", "reason=\"SESSION_NOT_FOUND\""];
    assert_told(agent, &[&["session=theirs", caller, "call=\"ReadMedia\""][..], &refused].concat());
    let forbidden = ["outcome=\"PERMISSION_DENIED\"", "reason=\"ROLE\""];
    assert_told(agent, &[&[caller, "call=\"Drain\""][..], &forbidden].concat());
    assert_told(agent, &[&["caller=\"eye\"", "call=\"StopSession\""][..], &forbidden].concat());
    assert_told(agent, &["call call=\"StopSession\" way=\"tcp\" outcome=\"UNAUTHENTICATED\""]);
    assert_told(agent, &[caller, "outcome=\"INVALID_ARGUMENT\""]);
    assert_told(agent, &["session=mine", caller, "call=\"StopSession\" way=\"http\" outcome=\"400\""]);
    assert_told(agent, &["call session=mine call=\"StopSession\" way=\"http\" outcome=\"401\""]);
    assert_told(agent, &["session=mine caller=\"eye\" role=viewer", "way=\"http\" outcome=\"404\""]);
    assert_eq!(lines(agent).len(), before + 9, "nobody who only looks is told: {:#?}", lines(agent));
    assert!(!agent.site.log().contains(&api), "no token is logged");
}

#[tokio::test]
async fn a_call_whose_caller_goes_away_is_told_too() {
    let silent = faulty_camera("cam", r#"{ at_frame = 0, frames = 1000000, fault = "stall" }"#);
    let agent = Agent::serve(&Site::new("", &[silent])).await;
    let mut calls = agent.calls();
    let request = proto::StartSessionRequest { session: Some(session("s", &["cam"])), options: None };
    let call = tokio::spawn(async move { calls.start_session(request).await });
    eventually("it has come", || agent.site.log().contains("session admitted")).await;
    call.abort();
    eventually("its end is told", || !lines(&agent).is_empty()).await;
    assert_told(
        &agent,
        &["session=s", "call=\"StartSession\"", "outcome=\"CANCELLED\" reason=\"NO_ANSWER\""],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_that_changes_or_reads_something_is_told_once_whoever_makes_it() {
    let scene = Scene::set().await;
    let wrong = "0".repeat(64);
    for (token, end) in [(&scene.door.token, ""), (&wrong, "outcome=\"UNAUTHENTICATED\"")] {
        let calls = scene.calls.with(token);
        for (name, least) in GRPC {
            let of_call = || {
                let told = format!("call=\"{name}\"");
                lines(&scene.agent).into_iter().filter(|it| it.contains(&told) && it.contains(end)).count()
            };
            let (before, all) = (of_call(), lines(&scene.agent).len());
            // Some of them are refused, which is told just as well.
            let _ = calls.make(name, "mine", "u1").await;
            let told = usize::from(least > Role::Viewer);
            assert_eq!((of_call() - before, lines(&scene.agent).len() - all), (told, told), "{name}");
        }
    }
    let log = scene.agent.site.log();
    assert!(!log.contains(&scene.door.token) && !log.contains(&wrong), "no token is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_the_transport_or_by_the_rate_limit_is_told_with_its_caller() {
    let settings = "api.message_bytes_max = 131072\nhttp.calls_max = 1\nhttp.window_seconds = 3600";
    let agent = Agent::serve(&Site::new(settings, &[microphone("mic")])).await;
    let door = Door::of(&agent).await;
    let long = session_of(&"u".repeat(200_000), "s", &["mic"]);
    agent.start(long).await.expect_err("it is too long");
    assert_told(&agent, &["caller=\"uid ", "call=\"StartSession\"", "reason=\"MESSAGE_TOO_LONG\""]);
    assert_eq!((door.get("s").code, door.stop("s").code), (404, 429));
    let parts = ["session=s", "caller=\"operator\"", "role=operator", "way=\"http\" outcome=\"429\""];
    assert_told(&agent, &parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_the_host_is_told_by_its_uid() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root may run a process of another user");
    }
    let agent = Agent::serve(&Site::new("", &[])).await;
    let dir = agent.site.dir();
    // For that user to come as far as the socket, by a program that it may run.
    set_permissions(dir, Permissions::from_mode(0o755)).expect("the test's directory is its own");
    let program = dir.join("shutterd");
    std::fs::copy(env!("CARGO_BIN_EXE_shutterd"), &program).expect("the binary can be copied");
    let server = format!("unix:{}", dir.join("run/api.sock").display());
    let mut command = Command::new(&program);
    command.current_dir("/").uid(STRANGER).gid(STRANGER).args(["--server", &server, "drain"]);
    let refused = command.output().expect("the binary runs");
    assert!(!refused.status.success(), "{refused:?}");
    let parts = ["caller=\"uid 65534\" call=\"Drain\"", "way=\"unix\"", "reason=\"PEER_UID\""];
    assert_told(&agent, &parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_reading_and_a_removal_and_a_drain_by_a_signal_are_told_with_their_session() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let config = Some(proto::SessionConfig { remove_media: Some(true), ..proto::SessionConfig::default() });
    agent.start(proto::Session { config, ..session("gone", &["mic"]) }).await.expect("it starts");
    agent.stop("gone").await.expect("it stops");
    eventually("the removal is told", || site.log().contains("media removed session=gone")).await;
    agent.start(session("kept", &["mic"])).await.expect("it starts");
    agent.stop("kept").await.expect("it stops");
    let request = proto::ReadMediaRequest { session_id: "kept".to_owned(), ..Default::default() };
    ended(agent.calls().read_media(request).await.expect("it may read")).await.expect("it is read");
    eventually("the end of the reading is told", || site.log().contains("media read session=kept")).await;
    agent.start(session("live", &["mic"])).await.expect("it starts");
    agent.signal(rustix::process::Signal::TERM);
    assert!(agent.exited().await.success());
    assert!(site.log().contains("stop accepted session=live reason=agent_shutdown"), "{}", site.log());
}
