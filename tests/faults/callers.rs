//! R: callers that misbehave.

use std::time::Duration;

use tokio::task::JoinSet;
use tonic::Code;

use crate::agent::{Agent, drain, refusal, session};
use crate::row::Case::Here;
use crate::row::{Outcome, Row, Stopped};
use crate::site::{Site, camera, microphone};

/// The rows of this file.
pub const ROWS: &[Row] = &[
    Row { id: "R1", fault: "100 stops at once", case: Here(|| Box::pin(r1())) },
    Row { id: "R3", fault: "a stop of an unknown and of a finished session", case: Here(|| Box::pin(r3())) },
    Row { id: "R4", fault: "a stop with a deadline of 1 ms", case: Here(|| Box::pin(r4())) },
];

/// An agent that records a camera and a microphone as session `s`.
async fn recording() -> Agent {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 20, 30_000).await;
    agent
}

async fn r1() -> Outcome {
    let agent = recording().await;
    let mut stops = JoinSet::new();
    for _ in 0..100 {
        let mut calls = agent.calls();
        stops.spawn(async move { calls.stop_session(drain("s")).await });
    }
    let answers: Vec<_> =
        stops.join_all().await.into_iter().map(|answer| answer.expect("answered")).collect();
    let first = answers[0].get_ref().receipt.clone();
    assert!(answers.iter().all(|answer| answer.get_ref().receipt == first), "equal answers");
    assert_eq!(agent.site.log().matches("stop accepted").count(), 1, "one drain");
    Stopped::of(&agent, "s").await.holds_whole("one drain, 100 equal receipts")
}

async fn r3() -> Outcome {
    let agent = recording().await;
    let unknown = agent.stop("nobody").await.expect_err("there is none");
    assert_eq!(refusal(&unknown).0, Code::NotFound);
    let stopped = Stopped::of(&agent, "s").await;
    let again = agent.stop("s").await.expect("it is known");
    assert!(again.already_finished);
    assert_eq!(again.receipt.as_ref(), Some(&stopped.receipt));
    stopped.holds_whole("NOT_FOUND; the same receipt again")
}

async fn r4() -> Outcome {
    let agent = recording().await;
    let mut request = tonic::Request::new(drain("s"));
    request.set_timeout(Duration::from_millis(1));
    let cut = agent.calls().stop_session(request).await.expect_err("no drain takes a millisecond");
    assert!(matches!(cut.code(), Code::DeadlineExceeded | Code::Cancelled), "{cut:?}");
    let stopped = Stopped::of(&agent, "s").await;
    stopped.holds_whole(format!("{:?}, then the receipt", cut.code()))
}
