//! Deadlines: devices that hang, and workers that don't do what they are told. A stop always returns.

use std::time::Duration;

use rustix::process::Signal;
use shutterd::api::proto::{StopMode, StopSessionRequest};
use tokio::time::Instant;

use crate::agent::{Agent, drain, eventually, refusal, send, session, worker_state};
use crate::media::check;
use crate::site::{Site, camera, faulty_camera, microphone};

#[tokio::test]
async fn a_device_that_hangs_in_the_drain_holds_up_neither_the_stop_nor_the_other_source() {
    let hangs = r#"{ at_frame = 40, frames = 1000000, fault = "hang" }"#;
    let agent = Agent::serve(&Site::new("", &[faulty_camera("cam", hangs), microphone("mic")])).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 40, 80_000).await;
    let asked_at = Instant::now();
    let stopped = agent.stop("s").await.expect("it stops");
    let took = asked_at.elapsed();
    assert!(took < Duration::from_millis(2500), "about a second, not {took:?}");
    assert_eq!(worker_state(stopped.session.as_ref()), "stopped");
    let receipt = stopped.receipt.expect("its receipt");
    assert!(!receipt.forced, "{receipt:?}");
    assert_eq!(receipt.sources[0].captured, 40);
    assert_eq!(receipt.sources[1].lost, 0);
    assert!(!receipt.released_at.is_empty());
    assert!(!receipt.files[0].repaired);
    check(&agent.site, &receipt);
}

#[tokio::test]
async fn a_device_that_hangs_from_the_first_frame_fails_the_start_by_its_deadline() {
    let hangs = r#"{ at_frame = 0, frames = 1000000, fault = "hang" }"#;
    let site = Site::new("limits.start_timeout_ms = 500", &[faulty_camera("cam", hangs), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let asked_at = Instant::now();
    let failed = agent.start(session("s", &["mic", "cam"])).await.expect_err("the camera hangs");
    assert!(asked_at.elapsed() < Duration::from_secs(4), "it took {:?}", asked_at.elapsed());
    let (code, reason, about) = refusal(&failed);
    assert_eq!((code, reason.as_str()), (tonic::Code::FailedPrecondition, "START_TIMEOUT"), "{failed:?}");
    assert_eq!(about.get("device").map(String::as_str), Some("Camera cam"));
    assert!(site.workers().is_empty() && !site.session_dir("s").exists());
    agent.start(session("s", &["mic"])).await.expect("the id and the other device are free");
}

#[tokio::test]
async fn a_worker_that_misses_the_deadline_of_a_stop_is_killed_and_its_files_are_repaired() {
    let site = Site::new("limits.term_timeout_ms = 300", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 30, 48_000).await;
    let worker = site.worker("s");
    send(worker, Signal::STOP);
    let asked_at = Instant::now();
    let drain_timeout = prost_types::Duration { seconds: 0, nanos: 500_000_000 };
    let request = StopSessionRequest { drain_timeout: Some(drain_timeout), ..drain("s") };
    let stopped = agent.stop_with(request).await.expect("the stop is answered");
    let took = asked_at.elapsed();
    assert!(took >= Duration::from_millis(800) && took < Duration::from_secs(6), "it took {took:?}");
    assert!(site.workers().is_empty(), "the worker is gone");
    let log = site.log();
    let order = ["signal=\"SIGTERM\"", "signal=\"SIGKILL\""].map(|name| log.find(name));
    assert!(order[0].is_some() && order[0] < order[1], "SIGTERM, then SIGKILL: {log}");
    assert_eq!(worker_state(stopped.session.as_ref()), "failed");
    let receipt = stopped.receipt.clone().expect("its receipt");
    assert!(receipt.forced);
    assert_eq!(receipt.end_reason, "stop_requested");
    assert!(!receipt.released_at.is_empty());
    assert!(receipt.files[0].repaired);
    assert!(receipt.sources.iter().all(|source| source.at_least), "{receipt:?}");
    assert!(receipt.sources[0].written >= 30 && receipt.sources[1].written >= 48_000);
    check(&site, &receipt);
    let found = agent.get("s").await.expect("it is there");
    assert_eq!((found.session, found.receipt), (stopped.session, stopped.receipt));
    agent.start(session("next", &["cam", "mic"])).await.expect("the devices are free");
}

#[tokio::test]
async fn an_abort_and_a_second_signal_leave_a_worker_that_hangs_no_longer_than_sigterm_would() {
    let limits = "limits.drain_timeout_ms = 600000\nlimits.term_timeout_ms = 300";
    let site = Site::new(limits, &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    for (id, device) in [("one", "cam"), ("two", "mic")] {
        agent.start(session(id, &[device])).await.expect("it starts");
        agent.recorded(id, 10, 10_000).await;
        send(site.worker(id), Signal::STOP);
    }
    let mut events = agent.watch("one").await;
    let draining =
        crate::agent::until(&mut events, |event| worker_state(event.session.as_ref()) == "draining");
    let (drained, aborted) = tokio::join!(agent.stop("one"), async {
        draining.await;
        agent.stop_with(StopSessionRequest { mode: StopMode::Abort.into(), ..drain("one") }).await
    });
    let receipt = aborted.expect("the abort is answered").receipt.expect("its receipt");
    assert_eq!(drained.expect("so is the stop").receipt.as_ref(), Some(&receipt));
    assert!(receipt.forced && receipt.sources[0].written >= 10, "{receipt:?}");
    check(&site, &receipt);
    agent.signal(Signal::TERM);
    eventually("it drains", || site.log().contains("draining every session")).await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.exited().await.code(), Some(0));
    let receipt = Agent::serve(&site).await.finished("two").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("agent_shutdown", true));
    check(&site, &receipt);
}

#[tokio::test]
async fn a_worker_that_only_heeds_sigterm_still_drains() {
    let site = Site::new("limits.term_timeout_ms = 5000", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    agent.recorded("s", 10, 0).await;
    send(site.worker("s"), Signal::TERM);
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("agent_shutdown", false));
    assert_eq!(receipt.sources[0].lost, 0);
    check(&site, &receipt);
}
