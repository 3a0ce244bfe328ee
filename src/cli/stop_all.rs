//! `stop-all`, for a person in the room: ends every recording of this host and says so only when every
//! device is known to be closed. Must never sound calmer than what is known.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::args::Global;
use super::connection::{Connection, within};
use super::exit::{FAILURE, Failure};
use super::session::{Listed, all};
use super::text::{count, plain};
use super::view::View;
use super::{out, show};
use crate::api::proto::{StopMode, StopSessionRequest, WaitFor};

/// Longest wait for one session's devices.
const RELEASE_WAIT: Duration = Duration::from_secs(60);
/// How long sessions that begin meanwhile are stopped as well.
const SWEEP_WAIT: Duration = Duration::from_secs(120);
/// Between two looks at what is left.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What became of one session.
struct Outcome {
    id: String,
    name: String,
    /// The devices are closed; else why that isn't known.
    released: Result<(), String>,
}

/// Stops every session that records.
///
/// # Errors
/// The agent can't be asked, or some session is not known to have released its devices.
pub async fn stop_all(global: &Global) -> Result<(), Failure> {
    let unsure = |failure: Failure| {
        failure.hint(
            "it is NOT known whether anything is being recorded; `systemctl stop shutterd` ends the agent, \
             and a camera that is covered or unplugged sees nothing",
        )
    };
    let connection = Connection::open(global).await.map_err(unsure)?;
    let deadline = Instant::now() + SWEEP_WAIT;
    let mut outcomes: Vec<Outcome> = Vec::new();
    // What is left is told by the last look, after which nothing was left to be stopped.
    let left = loop {
        let recording = recording(&connection).await.map_err(unsure)?;
        let open = to_stop(&recording, &outcomes);
        if open.is_empty() || Instant::now() >= deadline {
            break recording;
        }
        if !global.json {
            out::line(&announcement(&open))?;
        }
        let stops = open.into_iter().map(|view| stop(&connection, view, global.json));
        let stopped = futures_util::future::join_all(stops).await;
        outcomes.retain(|known| stopped.iter().all(|outcome| outcome.id != known.id));
        outcomes.extend(stopped);
        sleep(LOOK_INTERVAL).await;
    };
    conclude(global.json, &outcomes, &left)
}

/// What records, and what is about to.
async fn recording(connection: &Connection) -> Result<Vec<View>, Failure> {
    let Listed { views, starting, .. } = all(connection, vec!["active".to_owned()], 0).await?;
    Ok(views.into_iter().chain(starting).collect())
}

/// Those of `recording` whose stop was not tried, or was answered though they record: an id may have been
/// started again. One that could not be stopped is told and not tried again.
fn to_stop<'a>(recording: &'a [View], outcomes: &[Outcome]) -> Vec<&'a View> {
    let has_failed = |view: &View| {
        outcomes.iter().any(|outcome| outcome.id == view.text("_id") && outcome.released.is_err())
    };
    recording.iter().filter(|view| !has_failed(view)).collect()
}

fn announcement(views: &[&View]) -> String {
    let mut text = format!("{} recording, stopping now:", count(views.len(), "session is", "sessions are"));
    for view in views {
        text.push_str(&format!("\n  {}  {}", plain(view.text("_id")), plain(view.text("name"))));
    }
    text
}

async fn stop(connection: &Connection, view: &View, json: bool) -> Outcome {
    let id = view.text("_id").to_owned();
    let request = StopSessionRequest {
        session_id: id.clone(),
        drain_timeout: None,
        mode: StopMode::Drain.into(),
        wait_for: WaitFor::Released.into(),
    };
    let answer = connection.agent().stop_session(within(RELEASE_WAIT, request)).await;
    let released = match answer {
        Ok(answer) => {
            let answer = answer.into_inner();
            match View::read(answer.session, answer.receipt) {
                Ok(view) if view.is_released() => Ok(()),
                Ok(_) => Err("it ends, but its devices are not known to be released".to_owned()),
                Err(failure) => Err(failure.message()),
            }
        }
        // A session that failed to start is gone, and its devices were given back.
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(Failure::from(status).message()),
    };
    if !json {
        let told = match &released {
            Ok(()) => out::line(&format!("stopped      {}: its devices are released", plain(&id))),
            Err(why) => out::line(&format!("NOT STOPPED  {}: {}", plain(&id), plain(why))),
        };
        // Nobody may read any more; the stop matters all the same.
        drop(told);
    }
    Outcome { id, name: view.text("name").to_owned(), released }
}

/// Says what came of it, and fails unless nothing is known to record.
fn conclude(json: bool, outcomes: &[Outcome], left: &[View]) -> Result<(), Failure> {
    let verdict = verdict(outcomes, left);
    if json {
        let sessions: Vec<_> = outcomes
            .iter()
            .map(|outcome| {
                json!({
                    "_id": outcome.id,
                    "name": outcome.name,
                    "released": outcome.released.is_ok(),
                    "error": outcome.released.as_ref().err(),
                })
            })
            .collect();
        let still: Vec<_> = left.iter().map(|view| view.text("_id")).collect();
        let is_quiet = verdict.is_ok();
        out::json(&json!({ "nothingIsRecorded": is_quiet, "sessions": sessions, "stillActive": still }))?;
    } else if verdict.is_ok() {
        out::line("nothing is being recorded any more")?;
    }
    verdict.map_err(|message| {
        Failure::new(FAILURE, message).hint(
            "`systemctl stop shutterd` ends the agent; a camera that is covered or unplugged sees nothing",
        )
    })
}

/// Nothing records: nothing is left, and every device is known to be released. Else what is wrong.
fn verdict(outcomes: &[Outcome], left: &[View]) -> Result<(), String> {
    if !left.is_empty() {
        let still = left.iter().map(|view| format!("{} ({})", plain(view.text("_id")), show::state(view)));
        let still: Vec<String> = still.collect();
        return Err(format!("STILL RECORDING, as far as is known: {}", still.join(", ")));
    }
    if outcomes.iter().any(|outcome| outcome.released.is_err()) {
        return Err("not every session is known to have released its devices".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str) -> View {
        let session = serde_json::from_value(json!({ "_id": id })).expect("an object");
        View { session, receipt: None }
    }

    fn outcome(id: &str, released: Result<(), String>) -> Outcome {
        Outcome { id: id.to_owned(), name: String::new(), released }
    }

    #[test]
    fn what_was_not_tried_or_records_again_is_stopped_and_what_failed_is_not_tried_for_ever() {
        let recording = ["new", "again", "stuck"].map(view);
        let outcomes =
            [outcome("again", Ok(())), outcome("stuck", Err("stuck".to_owned())), outcome("over", Ok(()))];
        let ids: Vec<&str> = to_stop(&recording, &outcomes).iter().map(|view| view.text("_id")).collect();
        assert_eq!(ids, ["new", "again"]);
    }

    #[test]
    fn silence_is_claimed_only_when_nothing_is_left_and_every_stop_was_answered() {
        let done = [outcome("s", Ok(()))];
        assert_eq!(verdict(&done, &[]), Ok(()));
        let left = verdict(&done, &[view("late")]).expect_err("it records");
        assert!(left.starts_with("STILL RECORDING") && left.contains("late"), "{left}");
        let unsure = verdict(&[outcome("s", Err("stuck".to_owned()))], &[]).expect_err("it is unsure");
        assert!(unsure.contains("not every session"), "{unsure}");
    }
}
