//! Agents that end and crash: the next one knows every session, takes up what runs and repairs the
//! rest.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustix::process::Signal;
use shutterd::api::proto::{
    GetSessionResponse, ListSessionsRequest, Receipt, StartSessionRequest, StopSessionRequest,
};

use crate::agent::{Agent, drain, eventually, launch, patient, send, session, worker_state};
use crate::media::check;
use crate::site::{Site, camera, faulty_camera, microphone};

#[tokio::test]
async fn sessions_and_receipts_survive_a_restart() {
    let site = Site::new("worker.restarts_max = 0", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    for (id, devices) in [("one", ["cam"]), ("two", ["mic"]), ("three", ["cam"])] {
        agent.start(session(id, &devices)).await.expect("it starts");
        agent.stop(id).await.expect("it stops");
    }
    agent.start(session("killed", &["mic"])).await.expect("it starts");
    send(site.worker("killed"), Signal::KILL);
    agent.finished("killed").await;
    let (listed, shown) = (agent.list().await, agent.get("two").await.expect("it is there"));
    assert_eq!(listed.len(), 4);
    agent.end().await;
    let agent = Agent::serve(&site).await;
    assert_eq!(agent.list().await, listed);
    assert_eq!(agent.get("two").await.expect("it is there"), shown);
    let again = agent.stop("two").await.expect("it can be stopped again");
    assert!(again.already_finished);
    assert_eq!((again.session, again.receipt), (shown.session, shown.receipt));
}

#[tokio::test]
async fn a_receipt_that_a_crash_kept_from_the_media_is_put_there_by_the_next_agent() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["mic"])).await.expect("it starts");
    agent.recorded("s", 0, 10_000).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    agent.crash().await;
    let dir = site.session_dir("s");
    std::fs::remove_file(dir.join("receipt.json")).expect("as if it had not been written");
    std::fs::write(dir.join(".account.json"), b"{}").expect("as if it had not been removed");
    let agent = Agent::serve(&site).await;
    check(&site, &receipt);
    assert_eq!(agent.get("s").await.expect("it is there").receipt, Some(receipt));
}

#[tokio::test]
async fn a_crash_of_the_agent_costs_no_frame() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::recording(&site).await;
    let worker = site.worker("s");
    agent.crash().await;
    assert_eq!(site.worker("s"), worker, "the worker goes on");
    Agent::serve(&site).await.crash().await;
    let agent = Agent::serve(&site).await;
    let found = agent.get("s").await.expect("it was taken up");
    assert_eq!(found.session.as_ref().map(|session| session.state.as_str()), Some("active"));
    assert_eq!(worker_state(found.session.as_ref()), "working");
    agent.recorded("s", 60, 100_000).await;
    assert_eq!(site.workers(), [worker], "the same worker");
    let refused = agent.start(session("other", &["cam"])).await.expect_err("its device is still held");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    agent.start(session("s", &["cam", "mic"])).await.expect("the same start joins it");
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false));
    for source in &receipt.sources {
        assert!(source.gaps.is_empty() && source.restarts == 0 && !source.at_least, "{source:?}");
        assert_eq!((source.missed, source.dropped, source.lost, source.filled), (0, 0, 0, 0), "{source:?}");
    }
    check(&site, &receipt);
    assert!(site.workers().is_empty());
}

#[tokio::test]
async fn a_crash_of_the_agent_during_a_start_leaves_nothing_held() {
    let silent = r#"{ at_frame = 0, frames = 1000000, fault = "stall" }"#;
    let site =
        Site::new("limits.start_timeout_ms = 2000", &[faulty_camera("cam", silent), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let mut calls = agent.calls();
    let request = StartSessionRequest { session: Some(session("s", &["cam", "mic"])), options: None };
    let call = tokio::spawn(async move { calls.start_session(request).await });
    eventually("the worker made the session's directory", || site.session_dir("s").exists()).await;
    agent.crash().await;
    patient("the broken call", call).await.expect("the call ran").expect_err("nobody answers");
    let agent = Agent::serve(&site).await;
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!(receipt.end_reason, "start_failed", "{receipt:?}");
    assert!(!receipt.released_at.is_empty());
    check(&site, &receipt);
    assert!(site.workers().is_empty());
    agent.start(session("next", &["mic"])).await.expect("the device is free");
}

#[tokio::test]
async fn a_caller_that_was_away_finds_every_finish_behind_its_cursor() {
    let site = Site::new("", &[microphone("mic1"), microphone("mic2")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("one", &["mic1"])).await.expect("it starts");
    agent.start(session("two", &["mic2"])).await.expect("it starts");
    let since = |since| ListSessionsRequest { states: Vec::new(), since, page_size: 0 };
    let seen = agent.calls().list_sessions(since(0)).await.expect("a list").into_inner();
    assert_eq!(seen.sessions.len(), 2);
    agent.stop("one").await.expect("it stops");
    agent.end().await;
    let agent = Agent::serve(&site).await;
    let missed = agent.calls().list_sessions(since(seen.next_since)).await.expect("a list").into_inner();
    let found = |session: &GetSessionResponse| {
        let receipt = session.receipt.as_ref().map(|receipt| receipt.end_reason.clone());
        (session.session.as_ref().map(|it| it.id.clone()).unwrap_or_default(), receipt.unwrap_or_default())
    };
    let found: Vec<_> = missed.sessions.iter().map(found).collect();
    let wanted = [("one", "stop_requested"), ("two", "agent_shutdown")];
    assert_eq!(found, wanted.map(|(id, reason)| (id.to_owned(), reason.to_owned())));
    let rest = agent.calls().list_sessions(since(missed.next_since)).await.expect("a list").into_inner();
    assert!(rest.sessions.is_empty() && !rest.has_more);
}

#[tokio::test]
async fn a_crash_of_agent_and_worker_is_repaired_by_the_next_agent() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 30, 48_000).await;
    let worker = site.worker("s");
    agent.crash().await;
    send(worker, Signal::KILL);
    eventually("the worker is gone", || !site.workers().contains(&worker)).await;
    let agent = Agent::serve(&site).await;
    let finished = agent.finished("s").await;
    assert_eq!(worker_state(finished.session.as_ref()), "failed");
    let receipt = finished.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("worker_failed", true));
    assert!(receipt.sources[0].written >= 30 && receipt.sources[1].written >= 48_000, "{receipt:?}");
    assert!(receipt.files[0].repaired);
    assert!(finished.session.expect("its session").duration.is_some_and(|seconds| seconds > 1.0));
    check(&site, &receipt);
    agent.start(session("next", &["cam", "mic"])).await.expect("the devices are free");
}

/// An agent that finds a dead one's session, with `repair` in place of its repairs: the lines of a shell script
/// that ends with the program and its arguments. The receipt is that of the session.
async fn repaired_by(site: &Arc<Site>, repair: &str) -> Receipt {
    let agent = Agent::serve(site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    agent.recorded("s", 20, 0).await;
    let worker = site.worker("s");
    agent.crash().await;
    send(worker, Signal::KILL);
    eventually("the worker is gone", || !site.workers().contains(&worker)).await;
    let (script, program) = (site.dir().join("script"), env!("CARGO_BIN_EXE_shutterd"));
    let text =
        format!("#!/bin/sh\ncase $1 in repair) {repair} {program} \"$@\" ;; esac\nexec {program} \"$@\"\n");
    std::fs::write(&script, text).expect("a script");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("it can be run");
    let config = site.dir().join("flow.toml");
    let text = std::fs::read_to_string(&config).expect("the config");
    std::fs::write(&config, format!("worker.path = \"{}\"\n{text}", script.display()))
        .expect("it is changed");
    let agent = Agent::serve(site).await;
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert!(receipt.sources[0].written >= 20, "{receipt:?}\n{}", site.log());
    check(site, &receipt);
    receipt
}

/// What keeps a repair from its work for a moment must not have the receipt say that nothing is there.
#[tokio::test]
async fn a_repair_that_fails_is_tried_again() {
    let site = Site::new("", &[camera("cam")]);
    let tried = site.dir().join("tried");
    repaired_by(&site, &format!("mkdir {} && exit 1; exec", tried.display())).await;
    assert!(tried.exists(), "the first repair failed");
}

#[tokio::test]
async fn a_repair_whose_sync_fails_writes_everything_anew() {
    let site = Site::new("", &[camera("cam")]);
    let trace = site.dir().join("trace");
    let calls = "trace=fdatasync,pwrite64 -e inject=fdatasync:error=EIO:when=1";
    let receipt = repaired_by(&site, &format!("exec strace -f -qq -o {} -e {calls}", trace.display())).await;
    let told = std::fs::read_to_string(&trace).expect("what the repair did");
    let after = told.split_once("(INJECTED)").expect("its first sync failed").1;
    let bytes: u64 = after
        .lines()
        .take_while(|line| !line.contains("fdatasync"))
        .filter_map(|line| line.rsplit_once("= ")?.1.parse::<u64>().ok())
        .sum();
    assert_eq!(bytes, receipt.files[0].bytes, "before the next sync: {told}");
}

#[tokio::test]
async fn a_file_in_which_a_dead_worker_left_no_packet_is_none() {
    let site = Site::new("", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    let worker = site.worker("s");
    agent.crash().await;
    send(worker, Signal::KILL);
    eventually("the worker is dead", || site.workers().is_empty()).await;
    let path = site.session_dir("s").join("s-0001.mkv");
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("it has begun");
    file.set_len(shutterd::matroska::HEADER_ALIGN_BYTES).expect("it can be cut behind its header");
    let agent = Agent::serve(&site).await;
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.files.len(), receipt.sources[0].written), (0, 0), "{receipt:?}");
    assert!(!path.exists(), "no player could play it");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_crash_of_the_agent_in_mid_stop_still_ends_the_session() {
    let hangs = r#"{ at_frame = 30, frames = 1000000, fault = "hang" }"#;
    let site = Site::new("", &[faulty_camera("cam", hangs), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 25, 48_000).await;
    let mut calls = agent.calls();
    let call = tokio::spawn(async move { calls.stop_session(drain("s")).await });
    agent.until("s", |event| worker_state(event.session.as_ref()) == "draining").await;
    agent.crash().await;
    patient("the broken call", call).await.expect("the call ran").expect_err("nobody answers");
    eventually("the worker ends", || site.workers().is_empty()).await;
    let agent = Agent::serve(&site).await;
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false));
    assert!(receipt.sources[0].written == 30 && receipt.sources[1].written >= 48_000, "{receipt:?}");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_worker_that_never_comes_back_to_the_next_agent_can_be_stopped() {
    let site = Site::new("limits.term_timeout_ms = 300", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    agent.recorded("s", 10, 0).await;
    send(site.worker("s"), Signal::STOP);
    agent.crash().await;
    let agent = Agent::serve(&site).await;
    let drain_timeout = prost_types::Duration { seconds: 0, nanos: 300_000_000 };
    let request = StopSessionRequest { drain_timeout: Some(drain_timeout), ..drain("s") };
    let receipt = agent.stop_with(request).await.expect("the stop is answered").receipt.expect("its receipt");
    assert!(receipt.forced);
    check(&site, &receipt);
    assert!(site.workers().is_empty());
}

#[tokio::test]
async fn a_second_agent_on_the_same_state_refuses_to_start_and_names_the_first() {
    let site = Site::new("", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    let before = site.log().len();
    let status = patient("the second agent", launch(&site).wait()).await.expect("it can be waited for");
    assert_eq!(status.code(), Some(1));
    let said = site.log()[before..].to_owned();
    assert!(said.contains(&format!("pid {}", agent.pid())), "{said}");
    assert!(said.contains(&site.dir().join("state").display().to_string()), "{said}");
    agent.recorded("s", 10, 0).await;
    let receipt = agent.stop("s").await.expect("the first goes on").receipt.expect("its receipt");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_second_agent_on_the_same_runtime_directory_refuses_to_start_and_leaves_the_first_its_sockets() {
    let site = Site::new("", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    let (first, second) = (site.dir().join("flow.toml"), site.dir().join("second.toml"));
    let config = std::fs::read_to_string(&first).expect("the config");
    std::fs::write(&second, config.replace("/state\"", "/other-state\"")).expect("a config beside it");
    let refused = command(&site, &second, &["serve"]).await;
    assert_eq!(refused.status.code(), Some(1), "as on the same state directory");
    let said = String::from_utf8_lossy(&refused.stderr);
    for part in
        [&format!("pid {}", agent.pid()), &site.dir().join("run").display().to_string(), "runtime_dir"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    // A connection that is there already would outlive its socket.
    let shown = command(&site, &first, &["session", "show", "s"]).await;
    assert!(shown.status.success(), "{shown:?}");
    let worker = site.worker("s");
    agent.crash().await;
    let agent = Agent::serve(&site).await;
    agent.until("s", |event| worker_state(event.session.as_ref()) == "working").await;
    agent.recorded("s", 60, 0).await;
    assert_eq!(site.workers(), [worker], "the worker has found its socket again");
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert!(receipt.sources[0].gaps.is_empty(), "{receipt:?}");
    check(&site, &receipt);
}

/// How a command with this config ended, and what it said.
async fn command(site: &Site, config: &std::path::Path, words: &[&str]) -> std::process::Output {
    let mut command = tokio::process::Command::from(site.shutterd());
    command.arg("--config").arg(config).args(words).kill_on_drop(true);
    patient("a command", command.output()).await.expect("the binary runs")
}

#[tokio::test]
async fn an_agent_whose_state_cannot_be_used_says_why() {
    let site = Site::new("", &[]);
    std::fs::write(site.dir().join("state"), b"no directory").expect("a file in its place");
    let mut child = launch(&site);
    let status = patient("the agent", child.wait()).await.expect("it can be waited for");
    assert!(!status.success());
    assert!(site.log().contains("state_dir"), "{}", site.log());
}
