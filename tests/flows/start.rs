//! The start: all or nothing, once for all who ask for the same, and one holder to a device.

use futures_util::future::join_all;
use shutterd::api::proto::StopMode;
use tonic::Code;

use crate::agent::{Agent, drain, eventually, refusal, session, worker_state};
use crate::media::check;
use crate::site::{Site, camera, faulty_camera, microphone};

/// The first read fails, and every one after it.
const FAILS: &str = r#"{ at_frame = 0, frames = 1000000, fault = "fail" }"#;
const SILENT: &str = r#"{ at_frame = 0, frames = 1000000, fault = "stall" }"#;

#[tokio::test]
async fn a_start_that_fails_on_one_device_leaves_nothing_behind() {
    let agent = Agent::serve(&Site::new("", &[microphone("mic"), faulty_camera("cam", FAILS)])).await;
    let failed = agent.start_soon(session("s", &["mic", "cam"])).await.expect_err("the camera fails");
    let (code, reason, about) = refusal(&failed);
    assert_eq!(code, Code::FailedPrecondition, "{failed:?}");
    assert!(failed.message().contains("Camera cam"), "{failed:?}");
    assert!(!reason.is_empty() && reason.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{reason}");
    assert_eq!(about.get("source").map(String::as_str), Some("cam"));
    assert_eq!(about.get("device").map(String::as_str), Some("Camera cam"));
    assert!(!agent.site.session_dir("s").exists(), "its directory is gone");
    assert!(agent.site.workers().is_empty(), "its worker is gone");
    assert_eq!(agent.get("s").await.expect_err("its id is free").code(), Code::NotFound);
    assert!(agent.list().await.is_empty());
    agent.start(session("s", &["mic"])).await.expect("the id and the device are free");
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    check(&agent.site, &receipt);
}

#[tokio::test]
async fn a_start_whose_device_stays_silent_fails_by_its_deadline_and_names_it() {
    let site = Site::new("limits.start_timeout_ms = 500", &[microphone("mic"), faulty_camera("cam", SILENT)]);
    let agent = Agent::serve(&site).await;
    let failed = agent.start(session("s", &["mic", "cam"])).await.expect_err("the camera is silent");
    let (code, reason, about) = refusal(&failed);
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "START_TIMEOUT"), "{failed:?}");
    assert_eq!(about.get("device").map(String::as_str), Some("Camera cam"));
    assert!(!site.session_dir("s").exists());
    agent.start(session("s", &["mic"])).await.expect("the id and the device are free");
}

#[tokio::test]
async fn a_failed_start_never_touches_media_that_was_there_before_it() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let old = site.session_dir("s").join("s-0001.mkv");
    std::fs::create_dir(site.session_dir("s")).expect("a directory of an older agent");
    std::fs::write(&old, b"media of an agent whose journal was lost").expect("a file in it");
    let refused = agent.start(session("s", &["mic"])).await.expect_err("there is media with this id");
    assert_eq!(refusal(&refused).1, "MEDIA_EXISTS", "{refused:?}");
    assert!(refused.message().contains(&site.session_dir("s").display().to_string()), "{refused:?}");
    assert!(old.exists(), "the media is still there");
}

#[tokio::test]
async fn starts_of_the_same_session_join_and_another_one_is_refused() {
    let agent = Agent::serve(&Site::new("", &[camera("cam"), microphone("mic")])).await;
    let starts = join_all((0..10).map(|_| agent.start(session("s", &["cam", "mic"])))).await;
    let started: Vec<_> = starts
        .into_iter()
        .map(|start| {
            let mut session = start.expect("every one joins");
            session.meta.as_mut().expect("its life").health_check.clear();
            session
        })
        .collect();
    assert!(started.iter().all(|session| *session == started[0]), "{started:?}");
    assert_eq!(worker_state(Some(&started[0])), "working");
    assert_eq!(agent.site.workers().len(), 1);
    assert_eq!(agent.site.log().matches("worker started").count(), 1);
    let mut other = session("s", &["cam", "mic"]);
    other.name = "Another visit".to_owned();
    let refused = agent.start(other).await.expect_err("this id is taken");
    assert_eq!(refusal(&refused).0, Code::AlreadyExists);
    agent.stop("s").await.expect("it stops");
    let finished =
        agent.start(session("s", &["cam", "mic"])).await.expect_err("a finished one stays finished");
    assert_eq!(refusal(&finished).0, Code::AlreadyExists);
}

#[tokio::test]
async fn of_two_sessions_that_want_one_device_exactly_one_gets_it() {
    const AT_ONCE: usize = 20;
    let microphones: Vec<String> = (0..AT_ONCE).map(|at| microphone(&format!("mic{at}"))).collect();
    let agent = Agent::serve(&Site::new("limits.sessions_max = 64", &microphones)).await;
    for round in 0..5 {
        join_all((0..AT_ONCE).map(|at| race(&agent, round, at))).await;
    }
    assert!(agent.site.workers().is_empty());
}

/// Two sessions race for one microphone; the winner is stopped again.
async fn race(agent: &Agent, round: usize, at: usize) {
    let device = format!("mic{at}");
    let ids = [format!("a-{round}-{at}"), format!("b-{round}-{at}")];
    let (first, second) =
        tokio::join!(agent.start(session(&ids[0], &[&device])), agent.start(session(&ids[1], &[&device])));
    let (winner, refused) = match (first, second) {
        (Ok(_), Err(refused)) => (&ids[0], refused),
        (Err(refused), Ok(_)) => (&ids[1], refused),
        both => panic!("exactly one has to win: {both:?}"),
    };
    let (code, reason, about) = refusal(&refused);
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "DEVICE_BUSY"));
    assert_eq!(about.get("holder"), Some(winner));
    assert!(refused.message().contains(winner.as_str()), "{refused:?}");
    let abort = shutterd::api::proto::StopSessionRequest { mode: StopMode::Abort.into(), ..drain(winner) };
    agent.stop_with(abort).await.expect("the winner stops");
}

#[tokio::test]
async fn a_start_whose_caller_goes_away_is_still_one_session() {
    let agent = Agent::serve(&Site::new("", &[camera("cam")])).await;
    let mut calls = agent.calls();
    let request =
        shutterd::api::proto::StartSessionRequest { session: Some(session("s", &["cam"])), options: None };
    let call = tokio::spawn(async move { calls.start_session(request).await });
    eventually("the worker is there", || agent.site.workers().len() == 1).await;
    call.abort();
    agent.start(session("s", &["cam"])).await.expect("who asks again joins it");
    assert_eq!(agent.site.workers().len(), 1);
    agent.stop("s").await.expect("it stops");
}
