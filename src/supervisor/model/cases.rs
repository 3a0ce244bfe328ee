//! What the histories have found, each as a small case of its own.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::daemon::Mood;
use super::history::{History, play_with};
use super::plan::{Ends, Plan, Start};
use crate::session::machine::StopMode;
use crate::session::{SessionId, SessionSpec, StartOptions};
use crate::supervisor::command::{StopRequest, WaitFor};

const SECOND: Duration = Duration::from_secs(1);

/// One that does all that it should.
fn good() -> Plan {
    Plan {
        dials_after: Duration::from_millis(5),
        works_after: Duration::from_millis(50),
        start: Start::Works,
        crashes_after: None,
        hangs_after: None,
        ends_after: None,
        loses_link_after: None,
        drains_for: Duration::from_millis(20),
        end: Ends::Well,
        minds_term: true,
        outlives_kill: Some(Duration::ZERO),
        link_goes_first: true,
        repeats: false,
        lies: false,
    }
}

fn id() -> SessionId {
    "s".parse().expect("an id")
}

impl History {
    fn plan(&self, plans: impl IntoIterator<Item = Plan>) {
        let mut facts = self.world.facts();
        facts.calm = true;
        facts.plans.extend(plans);
    }

    fn start_s(&self, daemon: &super::daemon::Daemon) {
        let source = json!({ "id": "a", "type": "video", "device": "local_camera", "deviceId": "one" });
        let session = json!({ "_id": "s", "sources": [source] });
        let spec = SessionSpec::from_json(session).expect("a session");
        self.calls.start(&daemon.agent.handle, spec, StartOptions::default());
    }

    fn stop_s(&self, daemon: &super::daemon::Daemon) {
        let (mode, drain, wait, key) = (StopMode::Drain, None, WaitFor::Finalized, None);
        self.calls.stop(&daemon.agent.handle, id(), StopRequest { mode, drain, wait, key });
    }

    fn refuse_writes(&self, length: Duration) {
        let now = Instant::now();
        self.mood.send_replace(Mood { stands_until: now, refuses_until: now + length, refuses_all: false });
    }
}

/// A worker that hung leaves its account when it is ended; the one that follows it dies before it is taken on.
#[test]
fn the_last_words_of_a_dead_worker_are_not_taken_for_those_of_the_next() {
    let played = play_with(0, |history| {
        Box::pin(async move {
            let daemon = history.begin().await;
            let hangs = Plan { hangs_after: Some(SECOND), ..good() };
            history.plan([hangs, Plan { start: Start::NeverDials, ..good() }, good()]);
            history.start_s(&daemon);
            sleep(SECOND * 45).await;
            history.stop_s(&daemon);
            history.settle(daemon).await;
        })
    });
    played.unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// The journal takes neither the stop nor the receipt of a session that was stopped before its first frame.
#[test]
fn a_session_that_was_called_finished_before_its_first_frame_is_known_to_the_next_daemon() {
    let played = play_with(0, |mut history| {
        Box::pin(async move {
            let daemon = history.begin().await;
            history.plan([Plan { works_after: SECOND * 5, ..good() }]);
            history.start_s(&daemon);
            sleep(SECOND).await;
            history.refuse_writes(SECOND * 8);
            history.stop_s(&daemon);
            sleep(SECOND * 6).await;
            history.kill(daemon).await;
            sleep(SECOND * 3).await;
            let daemon = history.begin().await;
            history.calls.get(&daemon.agent.handle, id());
            history.settle(daemon).await;
        })
    });
    played.unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// The journal has the start, and refuses which process the worker is.
#[test]
fn a_worker_that_the_journal_does_not_know_is_found_by_the_next_daemon() {
    let played = play_with(0, |mut history| {
        Box::pin(async move {
            let daemon = history.begin().await;
            history.plan([good()]);
            history.start_s(&daemon);
            sleep(Duration::from_millis(2)).await;
            history.refuse_writes(SECOND * 3);
            sleep(SECOND * 2).await;
            assert!(
                history.rows.record(&id()).is_some_and(|record| record.worker.is_none()),
                "it was refused"
            );
            history.kill(daemon).await;
            sleep(SECOND * 2).await;
            let daemon = history.begin().await;
            sleep(SECOND).await;
            let record = history.rows.record(&id());
            assert!(record.is_some_and(|record| !record.is_finished()), "its worker records on");
            history.stop_s(&daemon);
            history.settle(daemon).await;
        })
    });
    played.unwrap_or_else(|wrong| panic!("{wrong}"));
}
