//! `stop-all`, for a person in the room: ends every recording of this host and says so only when every
//! device is known to be closed. Must never sound calmer than what is known.

use std::time::Duration;

use serde_json::json;
use tonic::Code;

use super::args::Global;
use super::connection::{Connection, within};
use super::exit::{FAILURE, Failure};
use super::session::all;
use super::text::{count, plain};
use super::view::View;
use super::{out, show};
use crate::api::proto::{StopMode, StopSessionRequest, WaitFor};

/// Longest wait for one session's devices.
const RELEASE_WAIT: Duration = Duration::from_secs(60);
/// How often sessions that began meanwhile are stopped as well.
const ROUNDS_MAX: usize = 3;

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
    let mut outcomes: Vec<Outcome> = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let recording = recording(&connection).await.map_err(unsure)?;
        let fresh: Vec<View> = recording
            .into_iter()
            .filter(|view| outcomes.iter().all(|outcome| outcome.id != view.text("_id")))
            .collect();
        if fresh.is_empty() {
            break;
        }
        if !global.json {
            out::line(&announcement(&fresh))?;
        }
        let stops = fresh.into_iter().map(|view| stop(&connection, view, global.json));
        outcomes.extend(futures_util::future::join_all(stops).await);
    }
    let left = recording(&connection).await.map_err(unsure)?;
    conclude(global.json, &outcomes, &left)
}

async fn recording(connection: &Connection) -> Result<Vec<View>, Failure> {
    Ok(all(connection, vec!["active".to_owned()], 0).await?.0)
}

fn announcement(views: &[View]) -> String {
    let mut text = format!("{} recording, stopping now:", count(views.len(), "session is", "sessions are"));
    for view in views {
        text.push_str(&format!("\n  {}  {}", plain(view.text("_id")), plain(view.text("name"))));
    }
    text
}

async fn stop(connection: &Connection, view: View, json: bool) -> Outcome {
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

fn conclude(json: bool, outcomes: &[Outcome], left: &[View]) -> Result<(), Failure> {
    let is_quiet = left.is_empty() && outcomes.iter().all(|outcome| outcome.released.is_ok());
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
        out::json(&json!({ "nothingIsRecorded": is_quiet, "sessions": sessions, "stillActive": still }))?;
    }
    if !is_quiet {
        let still: Vec<String> =
            left.iter().map(|view| format!("{} ({})", plain(view.text("_id")), show::state(view))).collect();
        let message = if still.is_empty() {
            "not every session is known to have released its devices".to_owned()
        } else {
            format!("STILL RECORDING, as far as is known: {}", still.join(", "))
        };
        return Err(Failure::new(FAILURE, message).hint(
            "`systemctl stop shutterd` ends the agent; a camera that is covered or unplugged sees nothing",
        ));
    }
    if json { Ok(()) } else { out::line("nothing is being recorded any more") }
}
