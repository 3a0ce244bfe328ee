//! Workers that die: what is on the disk is repaired and kept, and nobody else notices.

use rustix::process::Signal;
use tonic::Code;

use crate::agent::{Agent, eventually, refusal, send, session, worker_state};
use crate::media::{check, count};
use crate::site::{Site, camera, faulty_camera, microphone};

#[tokio::test]
async fn a_killed_worker_costs_its_session_nothing_that_was_durable_and_others_nothing_at_all() {
    let devices = [camera("cam1"), microphone("mic1"), camera("cam2"), microphone("mic2")];
    let site = Site::new("worker.restarts_max = 0", &devices);
    let agent = Agent::serve(&site).await;
    agent.start(session("dies", &["cam1", "mic1"])).await.expect("it starts");
    agent.start(session("lives", &["cam2", "mic2"])).await.expect("it starts");
    agent.recorded("dies", 30, 48_000).await;
    send(site.worker("dies"), Signal::KILL);
    let finished = agent.finished("dies").await;
    assert_eq!(worker_state(finished.session.as_ref()), "failed");
    let receipt = finished.receipt.clone().expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("worker_failed", true));
    assert!(receipt.sources.iter().all(|source| source.at_least), "{receipt:?}");
    assert!(receipt.files[0].repaired);
    assert!(!receipt.released_at.is_empty());
    let counted = count(receipt.files[0].path.as_ref());
    assert_eq!(counted[0], ("cam1".to_owned(), receipt.sources[0].written));
    assert!(receipt.sources[0].written >= 30 && receipt.sources[1].written >= 48_000, "{receipt:?}");
    check(&site, &receipt);
    let found = agent.get("dies").await.expect("it is there");
    assert_eq!((found.session, found.receipt), (finished.session, finished.receipt));

    agent.start(session("next", &["cam1", "mic1"])).await.expect("the devices are free");
    assert_eq!(worker_state(agent.get("lives").await.expect("it is there").session.as_ref()), "working");
    let receipt = agent.stop("lives").await.expect("it stops").receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false));
    assert!(
        receipt.sources.iter().all(|it| it.gaps.is_empty() && it.lost == 0 && it.dropped == 0),
        "{receipt:?}"
    );
    check(&site, &receipt);
}

#[tokio::test]
async fn a_worker_that_is_killed_while_it_starts_fails_the_start() {
    let silent = r#"{ at_frame = 0, frames = 1000000, fault = "stall" }"#;
    let site = Site::new("", &[faulty_camera("cam", silent), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let (started, ()) = tokio::join!(agent.start(session("s", &["cam", "mic"])), async {
        eventually("the worker made the session's directory", || site.session_dir("s").exists()).await;
        send(site.worker("s"), Signal::KILL);
    });
    let (code, reason, _) = refusal(&started.expect_err("its worker was killed"));
    assert_eq!((code, reason.as_str()), (Code::Internal, "WORKER_DIED"));
    assert!(!site.session_dir("s").exists(), "nothing is left behind");
    agent.start(session("s", &["mic"])).await.expect("the id and the device are free");
}

#[tokio::test]
async fn a_stop_of_a_session_whose_worker_was_just_killed_is_answered() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 10, 10_000).await;
    send(site.worker("s"), Signal::KILL);
    let stopped = agent.stop("s").await.expect("it stops");
    let receipt = stopped.receipt.expect("its receipt");
    // A new worker may have been on its way already, and then ends in good order.
    assert!(receipt.files[0].repaired, "{receipt:?}");
    assert!(["worker_failed", "stop_requested"].contains(&receipt.end_reason.as_str()), "{receipt:?}");
    check(&site, &receipt);
}
