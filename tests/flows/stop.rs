//! The stop: one instant, one drain, however many ask for it and whoever goes away.

use std::time::Duration;

use futures_util::future::join_all;
use shutterd::api::proto::{Receipt, StopMode, StopSessionRequest, WaitFor};
use shutterd::clock::WallTime;
use tokio::time::{Instant, timeout};
use tonic::{Code, Request};

use crate::agent::{Agent, drain, eventually, patient, refusal, session, state, worker_state};
use crate::media::check;
use crate::site::{Site, camera, faulty_camera, microphone};

/// Delivers no frame at all.
const SILENT: &str = r#"{ at_frame = 0, frames = 1000000, fault = "stall" }"#;
/// The call for frame 30 never returns.
const HANGS: &str = r#"{ at_frame = 30, frames = 1000000, fault = "hang" }"#;

fn wall(text: &str) -> WallTime {
    text.parse().expect("times are RFC 3339")
}

fn receipt(receipt: Option<Receipt>) -> Receipt {
    receipt.expect("a finished session has a receipt")
}

#[tokio::test]
async fn twenty_stops_at_once_are_one_drain_with_equal_answers() {
    let agent = Agent::serve(&Site::new("", &[camera("cam"), microphone("mic")])).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 10, 10_000).await;
    let answers = join_all((0..20).map(|_| agent.stop("s"))).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("every stop is answered")).collect();
    let first = receipt(answers[0].receipt.clone());
    for answer in &answers {
        assert_eq!(answer.receipt.as_ref(), Some(&first));
        assert_eq!(answer.session, answers[0].session);
    }
    assert_eq!(first.end_reason, "stop_requested");
    assert!(!first.forced);
    assert_eq!(agent.site.log().matches("stop accepted").count(), 1);
    check(&agent.site, &first);
}

#[tokio::test]
async fn a_stop_of_a_finished_session_answers_with_the_same_receipt() {
    let agent = Agent::serve(&Site::new("", &[microphone("mic")])).await;
    agent.start(session("s", &["mic"])).await.expect("it starts");
    let first = agent.stop("s").await.expect("it stops");
    assert!(!first.already_finished);
    let again = agent.stop("s").await.expect("a finished session can be stopped");
    assert!(again.already_finished);
    assert_eq!((&again.receipt, &again.session), (&first.receipt, &first.session));
    let mut abort = drain("s");
    (abort.mode, abort.wait_for) = (StopMode::Abort.into(), WaitFor::Released.into());
    assert_eq!(agent.stop_with(abort).await.expect("nor does an abort change it"), again);
    let found = agent.get("s").await.expect("it is there");
    assert_eq!((found.session, found.receipt), (first.session, first.receipt));
}

#[tokio::test]
async fn a_stop_that_overtakes_its_start_keeps_it_from_starting() {
    let agent = Agent::serve(&Site::new("", &[microphone("mic")])).await;
    let unknown = agent.stop("late").await.expect_err("there is no such session");
    assert_eq!(refusal(&unknown).0, Code::NotFound);
    let refused = agent.start(session("late", &["mic"])).await.expect_err("it was stopped already");
    let (code, reason, about) = refusal(&refused);
    assert_eq!((code, reason.as_str()), (Code::Aborted, "STOPPED_BEFORE_START"));
    assert_eq!(about.get("session").map(String::as_str), Some("late"));
    assert!(agent.site.workers().is_empty());
    assert!(!agent.site.session_dir("late").exists());
    agent.start(session("other", &["mic"])).await.expect("another session may have the device");
}

#[tokio::test]
async fn a_session_that_is_stopped_while_it_starts_gives_its_devices_back_at_once() {
    let devices = [faulty_camera("cam", SILENT), microphone("mic")];
    let agent = Agent::serve(&Site::new("limits.start_timeout_ms = 60000", &devices)).await;
    let start = agent.start(session("s", &["cam", "mic"]));
    let stop = async {
        eventually("the worker is there", || agent.site.workers().len() == 1).await;
        eventually("the worker made the session's directory", || agent.site.session_dir("s").exists()).await;
        let asked_at = Instant::now();
        (agent.stop("s").await.expect("it stops"), asked_at.elapsed())
    };
    let (started, (stopped, took)) = tokio::join!(start, stop);
    assert_eq!(refusal(&started.expect_err("it never started")).0, Code::Aborted);
    assert!(took < Duration::from_secs(5), "the stop took {took:?}");
    assert_eq!(stopped.session.as_ref().map(|session| session.state.as_str()), Some("finished"));
    let receipt = receipt(stopped.receipt);
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false));
    assert!(!receipt.released_at.is_empty());
    let silent = &receipt.sources[0];
    assert_eq!((silent.captured, silent.written), (0, 0));
    check(&agent.site, &receipt);
    agent.start(session("next", &["mic"])).await.expect("the device is free");
}

#[tokio::test]
async fn a_stop_beside_its_start_leaves_nothing_running_whichever_comes_first() {
    let agent = Agent::serve(&Site::new("", &[microphone("mic")])).await;
    for round in 0..15 {
        let id = format!("s{round}");
        let (started, stopped) = tokio::join!(agent.start(session(&id, &["mic"])), agent.stop(&id));
        match (&started, &stopped) {
            (Err(refused), Ok(_)) => assert_eq!(refused.code(), Code::Aborted, "{refused:?}"),
            (Err(refused), Err(unknown)) => {
                assert_eq!((refused.code(), unknown.code()), (Code::Aborted, Code::NotFound), "{refused:?}");
            }
            (Ok(_), Ok(_)) => {}
            (Ok(_), Err(unknown)) => panic!("it runs, and {unknown:?}"),
        }
        if let Ok(answer) = stopped {
            assert_eq!(answer.session.expect("its session").state, "finished");
            assert!(!receipt(answer.receipt).released_at.is_empty(), "no device is held");
        }
    }
    assert!(agent.site.workers().is_empty());
}

#[tokio::test]
async fn a_session_finishes_though_its_stopper_has_gone_away() {
    let agent = Agent::serve(&Site::new("", &[faulty_camera("cam", HANGS), microphone("mic")])).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 25, 48_000).await;
    let mut calls = agent.calls();
    let call = tokio::spawn(async move { calls.stop_session(drain("s")).await });
    agent.until("s", |event| worker_state(event.session.as_ref()) == "draining").await;
    call.abort();
    assert!(call.await.expect_err("the call was dropped").is_cancelled());
    let finished = agent.finished("s").await;
    let receipt = receipt(finished.receipt);
    assert_eq!(receipt.end_reason, "stop_requested");
    check(&agent.site, &receipt);
}

#[tokio::test]
async fn a_stop_with_a_deadline_of_a_millisecond_goes_on_and_the_next_call_gets_its_result() {
    let agent = Agent::serve(&Site::new("", &[faulty_camera("cam", HANGS), microphone("mic")])).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 25, 48_000).await;
    let late = async |timeout_ms| {
        let mut request = Request::new(drain("s"));
        request.set_timeout(Duration::from_millis(timeout_ms));
        let late = patient("a short stop", agent.calls().stop_session(request)).await;
        // This client's library says CANCELLED where its own clock was faster than the agent's answer.
        let late = late.expect_err("this drain takes longer");
        let code = late.code();
        if code == Code::DeadlineExceeded {
            assert_eq!(refusal(&late).1, "DEADLINE_EXCEEDED");
        }
        assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&code), "{code:?}");
    };
    let mut events = agent.watch("s").await;
    let ends = ["draining", "finalizing", "stopped"];
    let draining =
        crate::agent::until(&mut events, |event| ends.contains(&worker_state(event.session.as_ref())));
    tokio::pin!(draining);
    // No stop but one of a millisecond has been asked for by then; a client that was held up for so long
    // has sent nothing and asks again.
    loop {
        late(1).await;
        if timeout(Duration::from_millis(500), &mut draining).await.is_ok() {
            break;
        }
    }
    late(200).await;
    let stopped = agent.stop("s").await.expect("the next call gets the result");
    let receipt = receipt(stopped.receipt);
    assert_eq!(receipt.end_reason, "stop_requested");
    assert_eq!(agent.site.log().matches("stop accepted").count(), 1);
    check(&agent.site, &receipt);
}

#[tokio::test]
async fn an_abort_keeps_what_is_durable_and_says_what_is_lost() {
    let site = Site::new("media.sync_ms = 1000", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 10, 10_000).await;
    let stopped = agent.stop_with(StopSessionRequest { mode: StopMode::Abort.into(), ..drain("s") }).await;
    let receipt = receipt(stopped.expect("it stops").receipt);
    assert_eq!(receipt.end_reason, "aborted");
    assert!(!receipt.forced);
    assert!(receipt.sources[0].written >= 10 && receipt.sources[1].written >= 10_000, "{receipt:?}");
    check(&site, &receipt);
}

#[tokio::test]
async fn an_abort_hastens_a_drain_that_is_under_way() {
    let agent = Agent::serve(&Site::new("", &[faulty_camera("cam", HANGS), microphone("mic")])).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 25, 48_000).await;
    let mut events = agent.watch("s").await;
    let draining =
        crate::agent::until(&mut events, |event| worker_state(event.session.as_ref()) == "draining");
    let (stopped, aborted) = tokio::join!(agent.stop("s"), async {
        draining.await;
        agent.stop_with(StopSessionRequest { mode: StopMode::Abort.into(), ..drain("s") }).await
    });
    let (stopped, aborted) = (stopped.expect("it stops"), aborted.expect("it aborts"));
    assert_eq!(stopped, aborted);
    let receipt = receipt(stopped.receipt);
    assert_eq!(receipt.end_reason, "stop_requested", "what ended it first counts");
    check(&agent.site, &receipt);
}

#[tokio::test]
async fn a_stop_that_waits_for_the_release_is_answered_before_or_at_the_end() {
    let agent = Agent::serve(&Site::new("", &[camera("cam"), microphone("mic")])).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 10, 10_000).await;
    let request = StopSessionRequest { wait_for: WaitFor::Released.into(), ..drain("s") };
    let released = agent.stop_with(request).await.expect("it stops");
    let state_then = released.session.expect("its session").state;
    assert!(["processing", "finished"].contains(&state_then.as_str()), "{state_then}");
    let then = receipt(released.receipt);
    assert!(!then.released_at.is_empty());
    agent.start(session("next", &["cam", "mic"])).await.expect("released means free");
    let finished = agent.until("s", |event| state(event) == "finished").await;
    let finished = receipt(finished.receipt);
    assert_eq!((finished.released_at.as_str(), finished.forced), (then.released_at.as_str(), false));
    check(&agent.site, &finished);
}

#[tokio::test]
async fn nothing_after_the_stop_is_kept_and_nothing_before_it_is_missing() {
    let agent = Agent::serve(&Site::new("", &[camera("cam"), microphone("mic")])).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 30, 48_000).await;
    let stopped = agent.stop("s").await.expect("it stops");
    let receipt = receipt(stopped.receipt);
    let requested_ms = wall(&receipt.requested_at).nanos() / 1_000_000;
    for source in &receipt.sources {
        let first_ms = wall(&source.first_timestamp).nanos() / 1_000_000;
        let last_ms = wall(&source.last_timestamp).nanos() / 1_000_000;
        // Times are cut to milliseconds, and the two processes read the clocks one after the other.
        assert!(
            last_ms <= requested_ms + 1,
            "{} was stamped after {}",
            source.last_timestamp,
            receipt.requested_at
        );
        assert_eq!((source.dropped, source.lost, source.timestamp_source.as_str()), (0, 0, "driver"));
        if source.r#type == "audio" {
            let length_ms = i128::from((source.captured + source.filled) * 1000 / 48_000);
            let end_ms = first_ms + length_ms;
            assert!((end_ms - requested_ms).abs() <= 3, "sound ends {} ms off", end_ms - requested_ms);
        } else {
            let before_ms = requested_ms - last_ms;
            assert!(before_ms <= 40, "the last picture is {before_ms} ms older than the stop");
            let due = (last_ms - first_ms + 5) * 30 / 1000 + 1;
            assert_eq!(i128::from(source.captured + source.missed), due, "a picture every 33 ms: {source:?}");
        }
    }
    check(&agent.site, &receipt);
}

#[tokio::test]
async fn sound_ends_with_the_last_sample_that_is_stamped_no_later_than_the_stop() {
    let rates = [44_100, 48_000, 96_000];
    let devices = rates.map(|rate| microphone(&format!("mic-{rate}")) + &format!("sample_rate = {rate}\n"));
    let site = Site::new("", &devices);
    let agent = Agent::serve(&site).await;
    for round in 0..3 {
        for rate in rates {
            let (id, device) = (format!("s-{rate}-{round}"), format!("mic-{rate}"));
            agent.start(session(&id, &[&device])).await.expect("it starts");
            agent.recorded(&id, 0, 10_000 * (round + 1)).await;
            let receipt = receipt(agent.stop(&id).await.expect("it stops").receipt);
            let sound = &receipt.sources[0];
            assert_eq!((sound.filled, sound.missed, sound.lost), (0, 0, 0), "{sound:?}");
            let (origin, stop_at) = instants(&site, &id);
            let due = u64::try_from((stop_at - origin) * rate / 1_000_000_000);
            let due = due.expect("it stops after it began") + 1;
            let counted = crate::media::count(receipt.files[0].path.as_ref())[0].1;
            // A sample's time is kept in whole nanoseconds, which may lie on either side of the stop.
            assert!(counted.abs_diff(due) <= 1, "{counted} samples, {due} up to the stop: {receipt:?}");
            check(&site, &receipt);
        }
    }
}

/// When the media of a session begins and when its stop was accepted, in nanoseconds of the monotonic clock, which
/// only the journal tells.
fn instants(site: &Site, id: &str) -> (i64, i64) {
    let journal =
        rusqlite::Connection::open(site.dir().join("state/journal.sqlite")).expect("the journal opens");
    let query =
        "SELECT json_extract(body, '$.origin'), json_extract(body, '$.stop.at') FROM session WHERE id = ?1";
    journal.query_row(query, [id], |row| Ok((row.get(0)?, row.get(1)?))).expect("it has the session")
}
