//! Watching: the present state first, then every change, and never a finish that is missed.

use std::collections::{BTreeMap, BTreeSet};

use shutterd::api::proto::{SessionEvent, WatchAgentRequest, WatchSessionRequest};
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::agent::{PATIENCE, session, state, until, worker_state};
use crate::host::{Host, assert_refused};
use crate::site::{Site, camera};

fn id(event: &SessionEvent) -> &str {
    event.session.as_ref().map_or("", |session| session.id.as_str())
}

async fn next(events: &mut Streaming<SessionEvent>) -> Option<SessionEvent> {
    let event = timeout(PATIENCE, events.message()).await.expect("the stream goes on");
    event.expect("the stream does not fail")
}

async fn watch_agent(host: &Host, since: u64) -> Streaming<SessionEvent> {
    host.calls()
        .watch_agent(WatchAgentRequest { since })
        .await
        .expect("the agent can be watched")
        .into_inner()
}

fn site() -> std::sync::Arc<Site> {
    let devices: Vec<String> = (0..6).map(|at| camera(&format!("cam{at}"))).collect();
    Site::new("", &devices)
}

#[tokio::test]
async fn a_watch_begins_with_the_present_state_and_ends_with_the_finish() {
    let host = Host::serve(&site()).await;
    host.start(session("s1", &["cam0"])).await.expect("the session starts");
    let mut events = host.watch("s1").await;
    let first = next(&mut events).await.expect("the present state");
    assert_eq!((state(&first), worker_state(first.session.as_ref())), ("active", "working"));
    assert!(first.progress.is_some() && first.receipt.is_none(), "{first:?}");
    host.stop("s1").await;
    let (mut states, mut last, mut change) = (vec!["active".to_owned()], first, 0);
    while let Some(event) = next(&mut events).await {
        if states.last().is_some_and(|last| last != state(&event)) {
            states.push(state(&event).to_owned());
        }
        assert!(event.change >= change, "changes only grow");
        change = event.change;
        last = event;
    }
    assert_eq!(states, ["active", "processing", "finished"]);
    assert!(last.receipt.is_some() && last.progress.is_none(), "the last event has the receipt: {last:?}");
    assert_eq!(last.receipt, host.get("s1").await.receipt);

    // A session that is finished is one event, and the end.
    let mut events = host.watch("s1").await;
    let only = next(&mut events).await.expect("the present state");
    assert_eq!((state(&only), &only.receipt), ("finished", &last.receipt));
    assert!(next(&mut events).await.is_none());
    let request = WatchSessionRequest { session_id: "nobody".to_owned() };
    let status = host.calls().watch_session(request).await.expect_err("there is no such session");
    assert_refused("nobody", &status, Code::NotFound, "SESSION_NOT_FOUND", &[("session", "nobody")]);
    host.end().await;
}

#[tokio::test]
async fn a_watch_of_a_start_that_fails_ends() {
    let silent = "[[devices]]\nid = \"silent\"\nkind = \"synthetic\"\nmedia = \"video\"\n\
                  faults = [{ at_frame = 0, frames = 100000, fault = \"stall\" }]\n";
    let host = Host::serve(&Site::new("limits.start_timeout_ms = 1500", &[silent.to_owned()])).await;
    let start = host.start(session("s1", &["silent"]));
    let watched = async {
        let request = WatchSessionRequest { session_id: "s1".to_owned() };
        let mut events = loop {
            if let Ok(events) = host.calls().watch_session(request.clone()).await {
                break events.into_inner();
            }
        };
        let mut last = None;
        while let Some(event) = next(&mut events).await {
            last = Some(event);
        }
        last.expect("the present state came")
    };
    let (started, last) = tokio::join!(start, watched);
    let about = [("session", "s1"), ("source", "silent")];
    assert_refused(
        "a silent camera",
        &started.expect_err("no frame"),
        Code::FailedPrecondition,
        "START_TIMEOUT",
        &about,
    );
    assert_eq!((state(&last), worker_state(last.session.as_ref())), ("finished", "failed"));
    host.assert_nothing_is_left("a start that failed").await;
    host.end().await;
}

#[tokio::test]
async fn a_watch_of_the_agent_misses_no_finish() {
    let host = Host::serve(&site()).await;
    let before = watch_agent(&host, 0).await;
    let rounds = async {
        for round in 0..3 {
            let (one, other) = (format!("s{round}0"), format!("s{round}1"));
            host.start(session(&one, &["cam0"])).await.expect("the session starts");
            host.start(session(&other, &["cam1"])).await.expect("the session starts");
            tokio::join!(host.stop(&one), host.stop(&other));
        }
    };
    // One that comes and goes all the time, with the last change that it saw.
    let restless = async {
        let (mut since, mut finished) = (0, BTreeSet::new());
        while finished.len() < 6 {
            let mut events = watch_agent(&host, since).await;
            let event = next(&mut events).await.expect("the agent is there");
            assert!(event.change >= since, "the cursor never goes back");
            since = event.change;
            if state(&event) == "finished" {
                assert!(event.receipt.is_some(), "a finish has its receipt");
                finished.insert(id(&event).to_owned());
            }
        }
    };
    let mut patient = before;
    let steady = async {
        let (mut told, mut finished) = (Vec::new(), BTreeMap::new());
        while finished.len() < 6 {
            let event = next(&mut patient).await.expect("the agent is there");
            if state(&event) == "finished" {
                *finished.entry(id(&event).to_owned()).or_insert(0) += 1;
            }
            told.push(event);
        }
        assert!(finished.values().all(|times| *times == 1), "each finish is told once: {finished:?}");
        told
    };
    let all = async { tokio::join!(rounds, restless, steady) };
    let ((), (), told) = Box::pin(timeout(PATIENCE, all)).await.expect("every finish is told");
    // Whoever went away right before a finish is told of it when it is back.
    for pair in told.windows(2).filter(|pair| state(&pair[1]) == "finished") {
        let mut events = watch_agent(&host, pair[0].change).await;
        let missed = until(&mut events, |event| id(event) == id(&pair[1])).await;
        assert_eq!((state(&missed), &missed.receipt), ("finished", &pair[1].receipt));
    }
    host.end().await;
}

#[tokio::test]
async fn a_watch_of_the_agent_begins_where_the_caller_was_and_ends_with_the_agent() {
    let host = Host::serve(&site()).await;
    host.start(session("s1", &["cam0"])).await.expect("the session starts");
    host.stop("s1").await;
    host.start(session("s2", &["cam1"])).await.expect("the session starts");
    let mut events = watch_agent(&host, 0).await;
    let first = next(&mut events).await.expect("the oldest change");
    assert_eq!((id(&first), state(&first)), ("s1", "finished"));
    let second = until(&mut events, |event| id(event) == "s2").await;
    assert_eq!(state(&second), "active");
    let mut events = watch_agent(&host, first.change).await;
    assert_eq!(id(&next(&mut events).await.expect("what came after")), "s2");
    let end = host.end();
    let watched = async {
        let mut last = None;
        while let Some(event) = next(&mut events).await {
            last = Some(event);
        }
        last.expect("the drain is told")
    };
    let ((), last) = tokio::join!(end, watched);
    assert_eq!((id(&last), state(&last)), ("s2", "finished"));
    assert_eq!(last.receipt.expect("a receipt").end_reason, "agent_shutdown");
}
