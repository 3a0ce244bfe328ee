//! The agent's end: every session is drained, nothing is left running, and somebody is told who is
//! waited for.

use rustix::process::Signal;
use shutterd::api::proto::{Receipt, StartSessionRequest, WatchAgentRequest};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::agent::{Agent, eventually, patient, send, session, state, until};
use crate::media::check;
use crate::site::{Site, camera, faulty_camera, microphone};

/// Ends an agent with three sessions by `signal` and checks what is left.
async fn drains_three_sessions(signal: Signal) {
    let site = Site::new("", &[camera("cam1"), camera("cam2"), microphone("mic1"), microphone("mic2")]);
    let agent = Agent::serve(&site).await;
    let sessions: [(&str, &[&str]); 3] =
        [("one", &["cam1", "mic1"]), ("two", &["cam2"]), ("three", &["mic2"])];
    for (id, devices) in sessions {
        agent.start(session(id, devices)).await.expect("it starts");
    }
    for (id, _) in sessions {
        agent.recorded(id, 5, 5_000).await;
    }
    agent.signal(signal);
    let status = agent.exited().await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(site.processes().is_empty(), "nothing runs: {:?}", site.processes());
    let next = Agent::serve(&site).await;
    for (id, _) in sessions {
        let receipt = receipt_of(&next, id).await;
        assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("agent_shutdown", false));
        assert!(receipt.sources.iter().all(|source| source.lost == 0 && source.dropped == 0), "{receipt:?}");
        check(&site, &receipt);
    }
}

async fn receipt_of(agent: &Agent, id: &str) -> Receipt {
    let found = agent.get(id).await.expect("the journal has it");
    assert_eq!(found.session.expect("its session").state, "finished");
    found.receipt.expect("its receipt")
}

#[tokio::test]
async fn sigterm_drains_every_session() {
    drains_three_sessions(Signal::TERM).await;
}

#[tokio::test]
async fn sigint_drains_every_session() {
    drains_three_sessions(Signal::INT).await;
}

#[tokio::test]
async fn sigterm_ends_a_session_that_still_starts() {
    let silent = r#"{ at_frame = 0, frames = 1000000, fault = "stall" }"#;
    let site =
        Site::new("limits.start_timeout_ms = 60000", &[faulty_camera("cam", silent), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let mut calls = agent.calls();
    let request = StartSessionRequest { session: Some(session("s", &["cam", "mic"])), options: None };
    let call = tokio::spawn(async move { calls.start_session(request).await });
    eventually("the worker made the session's directory", || site.session_dir("s").exists()).await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.exited().await.code(), Some(0));
    let refused = patient("the start", call).await.expect("the call ran").expect_err("it never started");
    assert_eq!(refused.code(), tonic::Code::Aborted, "{refused:?}");
    assert!(site.processes().is_empty());
    let receipt = receipt_of(&Agent::serve(&site).await, "s").await;
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("agent_shutdown", false));
    check(&site, &receipt);
}

#[tokio::test]
async fn who_watches_sees_the_end_of_a_shutdown() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    let mut one = agent.watch("s").await;
    let all = agent.calls().watch_agent(WatchAgentRequest { since: 0 }).await;
    let mut all = all.expect("the agent can be watched").into_inner();
    agent.signal(Signal::TERM);
    let seen = until(&mut one, |event| state(event) == "finished").await;
    assert_eq!(seen.receipt.as_ref().map(|receipt| receipt.end_reason.as_str()), Some("agent_shutdown"));
    let told = until(&mut all, |event| state(event) == "finished").await;
    assert_eq!(told, seen);
    let end = patient("the end of the watch", all.message()).await;
    assert!(matches!(end, Ok(None)), "{end:?}");
    assert_eq!(agent.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_slow_drain_is_told_and_no_start_is_taken_meanwhile() {
    let site = Site::new("limits.drain_timeout_ms = 25000", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("slow", &["cam"])).await.expect("it starts");
    agent.recorded("slow", 5, 0).await;
    let worker = site.worker("slow");
    send(worker, Signal::STOP);
    agent.signal(Signal::TERM);
    eventually("it drains", || site.log().contains("draining every session")).await;
    let refused = agent.start(session("late", &["mic"])).await.expect_err("it takes no session any more");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    assert_eq!(agent.health().await, Some(ServingStatus::NotServing));
    let stop = agent.calls();
    let asked = tokio::spawn(async move { stop.clone().stop_session(crate::agent::drain("slow")).await });
    let told = || {
        site.log().lines().any(|line| line.contains("still draining") && line.contains("slow (draining for"))
    };
    eventually("the log says who is left", told).await;
    send(worker, Signal::CONT);
    let status = agent.exited().await;
    assert_eq!(status.code(), Some(0));
    let answer = patient("the stop", asked).await.expect("the call ran").expect("it joined the drain");
    let receipt = answer.into_inner().receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("agent_shutdown", false));
    check(&site, &receipt);
}

#[tokio::test]
async fn a_second_signal_aborts_the_drain() {
    let site = Site::new("limits.drain_timeout_ms = 25000", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    agent.recorded("s", 10, 0).await;
    let worker = site.worker("s");
    send(worker, Signal::STOP);
    agent.signal(Signal::TERM);
    eventually("it drains", || site.log().contains("draining every session")).await;
    agent.signal(Signal::INT);
    eventually("it aborts", || site.log().contains("aborting every session")).await;
    send(worker, Signal::CONT);
    assert_eq!(agent.exited().await.code(), Some(0));
    let receipt = receipt_of(&Agent::serve(&site).await, "s").await;
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("agent_shutdown", false));
    assert!(receipt.sources[0].written >= 10);
    check(&site, &receipt);
}
