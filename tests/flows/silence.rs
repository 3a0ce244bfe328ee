//! Processes that are there and say nothing: a stopped daemon, a stopped worker.

use std::time::Duration;

use rustix::process::Signal;
use shutterd::api::proto::SessionMeta;
use shutterd::clock::{Clock, SystemClock};

use crate::agent::{Agent, eventually, send, session};
use crate::media::check;
use crate::site::{Site, camera, microphone};

#[tokio::test]
async fn a_worker_of_a_daemon_that_says_nothing_drains_after_its_grace() {
    let site = Site::new("limits.orphan_grace_ms = 1500", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    agent.recorded("s", 10, 0).await;
    let worker = site.worker("s");
    agent.signal(Signal::STOP);
    // Its parent is stopped and reaps nobody: a worker that has ended is a zombie, and holds nothing.
    let ended = || std::fs::read_link(format!("/proc/{worker}/exe")).is_err();
    eventually("the worker ends by itself", ended).await;
    agent.signal(Signal::CONT);
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("orphaned", false));
    check(&site, &receipt);
}

#[tokio::test]
async fn a_session_whose_worker_is_stopped_expires_though_others_go_on() {
    let site = Site::new(
        "limits.drain_timeout_ms = 500\nlimits.term_timeout_ms = 300",
        &[camera("cam"), camera("other"), microphone("mic")],
    );
    let agent = Agent::serve(&site).await;
    let mut expiring = session("s", &["cam"]);
    let expires = SystemClock.wall() + Duration::from_secs(3);
    expiring.meta = Some(SessionMeta { expires: expires.to_string(), ..Default::default() });
    agent.start(expiring).await.expect("it starts");
    agent.start(session("other", &["other", "mic"])).await.expect("it starts");
    agent.recorded("s", 10, 0).await;
    send(site.worker("s"), Signal::STOP);
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("expired", true));
    check(&site, &receipt);
    let other = agent.stop("other").await.expect("it stops").receipt.expect("its receipt");
    assert!(!other.forced && other.sources.iter().all(|source| source.gaps.is_empty()), "{other:?}");
}
