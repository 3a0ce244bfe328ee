//! A retry with its `Idempotency-Key`, which the contract leaves open.

use super::*;

#[tokio::test(flavor = "multi_thread")]

async fn a_retry_with_its_key_gets_the_first_answer() {
    let (agent, door) = serve("").await;
    agent.start(documented_proto()).await.expect("it starts");
    agent.start(session("other", &["mic"])).await.expect("it starts");
    let first = door.stop_with_key(ID, "k-1");
    assert_eq!(first.code, 200);
    for _ in 0..3 {
        let again = door.stop_with_key(ID, "k-1");
        assert_eq!((again.code, &again.body), (200, &first.body));
    }
    assert_error(&door.stop_with_key(ID, "k-2"), 400);
    assert_error(&door.stop(ID), 400);
    // The key is the session's own, and the token's.
    assert_eq!(door.stop_with_key("other", "k-1").json()["_id"], "other");
    let tokens = agent.site.dir().join("state/tokens.json");
    let other = TokenFile::lock(&tokens).and_then(|mut file| file.add("other", Role::Operator, None, None));
    let other = door.with(&other.expect("it is added"));
    eventually("the token is read", || other.get(ID).code == 200).await;
    assert_error(&other.stop_with_key(ID, "k-1"), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_during_the_drain_joins_it_and_both_keys_are_remembered() {
    let (agent, door) = serve("limits.drain_timeout_ms = 25000").await;
    agent.start(documented_proto()).await.expect("it starts");
    let worker = agent.site.worker(ID);
    send(worker, Signal::STOP);
    let stop = |key: &'static str| {
        let door = door.clone();
        spawn_blocking(move || door.stop_with_key(ID, key))
    };
    let first = stop("one");
    eventually("the stop is accepted", || agent.site.log().contains("stop accepted")).await;
    let (retry, joined) = (stop("one"), stop("two"));
    eventually("they have come", || agent.site.log().matches("stop called over HTTP").count() == 3).await;
    send(worker, Signal::CONT);
    let first = patient("the first", first).await.expect("the call ran");
    assert_eq!(first.code, 200);
    for answer in [retry, joined] {
        assert_eq!(patient("a stop", answer).await.expect("the call ran").body, first.body);
    }
    for key in ["one", "two"] {
        let again = door.stop_with_key(ID, key);
        assert_eq!((again.code, &again.body), (200, &first.body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_the_first_answer_also_from_an_agent_that_was_killed_in_between() {
    let (agent, door) = serve("limits.drain_timeout_ms = 25000").await;
    let site = Arc::clone(&agent.site);
    agent.start(documented_proto()).await.expect("it starts");
    agent.recorded(ID, 5, 0).await;
    let worker = site.worker(ID);
    send(worker, Signal::STOP);
    let lost = {
        let door = door.clone();
        spawn_blocking(move || std::panic::catch_unwind(|| door.stop_with_key(ID, "k")).is_err())
    };
    eventually("the stop is in the journal", || {
        let journal = rusqlite::Connection::open(site.dir().join("state/journal.sqlite"));
        let kept = journal.and_then(|journal| {
            let record: String = journal.query_row("SELECT body FROM session", [], |row| row.get(0))?;
            Ok(record.contains("stop_keys\":[\""))
        });
        kept.unwrap_or(false)
    })
    .await;
    agent.crash().await;
    assert!(patient("the first", lost).await.expect("the call ran"), "its answer is lost");
    let agent = Agent::serve(&site).await;
    let door = Door::of(&agent).await;
    send(worker, Signal::CONT);
    agent.finished(ID).await;
    let retried = door.stop_with_key(ID, "k");
    assert_eq!((retried.code, &retried.json()["state"]), (200, &json!("finished")));
    assert_error(&door.stop_with_key(ID, "other"), 400);
    agent.end().await;
    let agent = Agent::serve(&site).await;
    assert_eq!(Door::of(&agent).await.stop_with_key(ID, "k").body, retried.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_is_refused_and_stops_nothing() {
    let (agent, door) = serve("").await;
    agent.start(documented_proto()).await.expect("it starts");
    for key in ["", &"k".repeat(256)] {
        assert_error(&door.stop_with_key(ID, key), 400);
    }
    let path = format!("/v1/sessions/{ID}/stop");
    assert_error(&door.call("POST", &path, &[("Idempotency-Key", "a"), ("Idempotency-Key", "b")]), 400);
    assert_eq!(door.get(ID).json()["state"], "active");
    assert_eq!(door.stop_with_key(ID, &"k".repeat(255)).code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_remembers_sixteen_keys() {
    let (agent, door) = serve("limits.drain_timeout_ms = 25000").await;
    agent.start(documented_proto()).await.expect("it starts");
    let worker = agent.site.worker(ID);
    send(worker, Signal::STOP);
    let mut stops = Vec::new();
    for at in 0..17 {
        let other = door.clone();
        stops.push(spawn_blocking(move || other.stop_with_key(ID, &format!("k{at}"))));
        let come = || agent.site.log().matches("stop called over HTTP").count() == at + 1;
        eventually("the stop has come", come).await;
    }
    send(worker, Signal::CONT);
    for stop in stops {
        assert_eq!(patient("a stop", stop).await.expect("the call ran").code, 200);
    }
    let remembered = (0..17).filter(|at| door.stop_with_key(ID, &format!("k{at}")).code == 200).count();
    assert_eq!(remembered, 16);
}
