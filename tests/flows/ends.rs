//! Sessions that end by themselves, at the time they were given.

use std::time::Duration;

use shutterd::api::proto::{Receipt, SessionMeta, StartOptions};
use shutterd::clock::{Clock, SystemClock, WallTime};

use crate::agent::{Agent, eventually, session};
use crate::media::check;
use crate::site::{Site, camera, microphone};

/// Seconds from the first frame to the stop.
fn captured_seconds(receipt: &Receipt) -> f64 {
    let wall = |text: &str| text.parse::<WallTime>().expect("times are RFC 3339").nanos();
    (wall(&receipt.requested_at) - wall(&receipt.sources[0].first_timestamp)) as f64 / 1e9
}

#[tokio::test]
async fn a_session_ends_when_it_expires() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let expires = SystemClock.wall() + Duration::from_secs(2);
    let mut expiring = session("s", &["cam", "mic"]);
    expiring.meta = Some(SessionMeta { expires: expires.to_string(), ..Default::default() });
    agent.start(expiring).await.expect("it starts");
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("expired", false));
    let requested: WallTime = receipt.requested_at.parse().expect("a time");
    let late_ms = (requested.nanos() - expires.nanos()) / 1_000_000;
    assert!((-2..=1500).contains(&late_ms), "it ended {late_ms} ms after its expiry");
    assert!(receipt.sources.iter().all(|source| source.written > 0 && source.lost == 0), "{receipt:?}");
    check(&site, &receipt);
    let again = agent.stop("s").await.expect("it can be stopped again");
    assert!(again.already_finished);
}

#[tokio::test]
async fn a_session_ends_after_its_longest_duration() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let options = StartOptions {
        max_duration: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
        formats: Vec::new(),
    };
    agent.start_with(session("s", &["cam", "mic"]), Some(options)).await.expect("it starts");
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("max_duration", false));
    let seconds = captured_seconds(&receipt);
    assert!((1.4..3.0).contains(&seconds), "it captured {seconds} s");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_longest_duration_goes_on_over_a_crash_of_the_agent() {
    let site = Site::new("", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    let options = StartOptions {
        max_duration: Some(prost_types::Duration { seconds: 4, nanos: 0 }),
        formats: Vec::new(),
    };
    agent.start_with(session("s", &["cam"]), Some(options)).await.expect("it starts");
    agent.recorded("s", 60, 0).await;
    agent.crash().await;
    let agent = Agent::serve(&site).await;
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!(receipt.end_reason, "max_duration");
    let seconds = captured_seconds(&receipt);
    assert!((3.9..5.5).contains(&seconds), "it captured {seconds} s");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_session_that_has_expired_while_no_agent_was_there_ends_all_the_same() {
    let site = Site::new("", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    let mut expiring = session("s", &["cam"]);
    let expires = SystemClock.wall() + Duration::from_secs(3);
    expiring.meta = Some(SessionMeta { expires: expires.to_string(), ..Default::default() });
    agent.start(expiring).await.expect("it starts");
    agent.recorded("s", 5, 0).await;
    agent.crash().await;
    eventually("the worker ends by itself", || site.workers().is_empty()).await;
    let agent = Agent::serve(&site).await;
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("expired", false));
    assert!(receipt.sources[0].written >= 80, "{receipt:?}");
    check(&site, &receipt);
}

#[tokio::test]
async fn an_orphan_drains_after_its_grace() {
    let site = Site::new("limits.orphan_grace_ms = 1000", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    agent.recorded("s", 10, 0).await;
    agent.crash().await;
    eventually("the worker ends by itself", || site.workers().is_empty()).await;
    let agent = Agent::serve(&site).await;
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("orphaned", false));
    assert!(receipt.sources[0].written >= 30 && !receipt.sources[0].at_least, "{receipt:?}");
    assert!(!receipt.requested_at.is_empty() && !receipt.released_at.is_empty(), "{receipt:?}");
    check(&site, &receipt);
}
