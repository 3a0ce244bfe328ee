//! `session start`, `stop`, `show` and `list`.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::args::{StopArguments, Wait};
use super::connection::{Connection, within};
use super::exit::{FAILURE, Failure, USAGE};
use super::text::{bytes, plain, table};
use super::view::View;
use super::{out, show, watch};
use crate::api::convert::session_to_proto;
use crate::api::proto::{
    GetSessionRequest, ListSessionsRequest, StartOptions, StartSessionRequest, StopMode, StopSessionRequest,
    WaitFor,
};

/// Longest wait for an answer that needs no device.
pub const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// Longest wait for a start or a stop: beyond what the config lets the agent take.
pub const PHASE_WAIT: Duration = Duration::from_secs(20 * 60);
/// Longest session file, well above what an agent takes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Sessions of one page.
const PAGE_SIZE: u32 = 100;

/// Reads a session's JSON from a file, or from standard input when it is `-`.
///
/// # Errors
/// It can't be read, or is no JSON object.
pub fn read(path: &Path) -> Result<Map<String, Value>, Failure> {
    let mut text = Vec::new();
    let (name, read) = if path == Path::new("-") {
        ("standard input".to_owned(), std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut text))
    } else {
        let read =
            std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text));
        (path.display().to_string(), read)
    };
    let length = read.map_err(|error| Failure::new(USAGE, format!("{name} can't be read: {error}")))?;
    if length as u64 > FILE_BYTES_MAX {
        let limit = bytes(FILE_BYTES_MAX);
        return Err(Failure::new(USAGE, format!("{name} is longer than {limit}, which no session is")));
    }
    serde_json::from_slice(&text).map_err(|error| {
        Failure::new(USAGE, format!("{name} is no session: {error}; hand over its JSON object"))
    })
}

/// Starts the session and prints it.
///
/// # Errors
/// The agent refuses it.
pub async fn start(
    connection: &Connection,
    json: bool,
    object: &Map<String, Value>,
    max_duration: Option<Duration>,
) -> Result<(), Failure> {
    let answer =
        connection.agent().start_session(within(PHASE_WAIT, start_request(object, max_duration))).await?;
    let view = View::read(answer.into_inner().session, None)?;
    if json {
        return out::json(&view.session);
    }
    out::line(&show::session(&view))?;
    out::line(&format!("\nstop it with: shutterd session stop {}", plain(view.text("_id"))))
}

/// The request that starts a session.
pub fn start_request(object: &Map<String, Value>, max_duration: Option<Duration>) -> StartSessionRequest {
    StartSessionRequest {
        session: Some(session_to_proto(object)),
        options: max_duration
            .map(|length| StartOptions { max_duration: Some(duration(length)), formats: Vec::new() }),
    }
}

/// Stops the session and prints its receipt.
///
/// # Errors
/// There is no such session, or its devices are not known to be released.
pub async fn stop(connection: &Connection, json: bool, arguments: &StopArguments) -> Result<(), Failure> {
    let request = StopSessionRequest {
        session_id: arguments.id.clone(),
        drain_timeout: arguments.drain_timeout.map(duration),
        mode: if arguments.abort { StopMode::Abort } else { StopMode::Drain }.into(),
        wait_for: match arguments.wait {
            Wait::Released => WaitFor::Released,
            Wait::Finalized => WaitFor::Finalized,
        }
        .into(),
    };
    let mut agent = connection.agent();
    let stopped = agent.stop_session(within(PHASE_WAIT, request));
    let answer = if json { stopped.await } else { watch::drain(connection, &arguments.id, stopped).await }?
        .into_inner();
    let already_finished = answer.already_finished;
    let view = View::read(answer.session, answer.receipt)?;
    if json {
        let View { session, receipt } = &view;
        let stopped = json!({ "session": session, "receipt": receipt, "alreadyFinished": already_finished });
        out::json(&stopped)?;
    } else {
        if already_finished {
            out::line("this session was finished before\n")?;
        }
        out::line(&show::session(&view))?;
    }
    if view.is_released() {
        return Ok(());
    }
    let id = plain(view.text("_id"));
    Err(Failure::new(
        FAILURE,
        format!("session {id} is stopped, but its devices are not known to be released"),
    )
    .hint("`shutterd health` tells what is wrong"))
}

/// Prints the session.
///
/// # Errors
/// There is no such session.
pub async fn show(connection: &Connection, json: bool, id: String) -> Result<(), Failure> {
    let request = within(ANSWER_WAIT, GetSessionRequest { session_id: id });
    let answer = connection.agent().get_session(request).await?.into_inner();
    let view = View::read(answer.session, answer.receipt)?;
    if json { out::json(&view) } else { out::line(&show::session(&view)) }
}

/// Prints the sessions in these states that changed after `since`.
///
/// # Errors
/// The agent doesn't answer.
pub async fn list(
    connection: &Connection,
    json: bool,
    states: Vec<String>,
    since: u64,
) -> Result<(), Failure> {
    let Listed { views, starting, next_since } = all(connection, states, since).await?;
    if json {
        let starting: Vec<_> = starting.iter().map(|view| &view.session).collect();
        return out::json(&json!({ "sessions": views, "starting": starting, "nextSince": next_since }));
    }
    if views.is_empty() && starting.is_empty() {
        return out::line("no sessions");
    }
    let rows: Vec<Vec<String>> = views
        .iter()
        .chain(&starting)
        .map(|view| {
            let ended =
                view.receipt.as_ref().map(|receipt| receipt.end_reason.to_string()).unwrap_or_default();
            vec![
                plain(view.text("_id")),
                show::state(view),
                ended,
                plain(view.text("timestamp")),
                plain(view.text("name")),
            ]
        })
        .collect();
    out::line(&table(&["ID", "STATE", "ENDED BY", "CREATED", "NAME"], &[], &rows))
}

/// What a list of sessions answers.
pub struct Listed {
    /// Those that changed, oldest change first.
    pub views: Vec<View>,
    /// Those of which no change is noted yet: their devices are still being looked for.
    pub starting: Vec<View>,
    /// The cursor behind them.
    pub next_since: u64,
}

/// Every session in these states that changed after `since`, page by page.
///
/// # Errors
/// The agent doesn't answer.
pub async fn all(connection: &Connection, states: Vec<String>, since: u64) -> Result<Listed, Failure> {
    let mut agent = connection.agent();
    let mut listed = Listed { views: Vec::new(), starting: Vec::new(), next_since: since };
    loop {
        let cursor = listed.next_since;
        let request = ListSessionsRequest { states: states.clone(), since: cursor, page_size: PAGE_SIZE };
        let page = agent.list_sessions(within(ANSWER_WAIT, request)).await?.into_inner();
        for session in page.sessions {
            listed.views.push(View::read(session.session, session.receipt)?);
        }
        for session in page.starting {
            listed.starting.push(View::read(Some(session), None)?);
        }
        listed.next_since = page.next_since;
        // A cursor that stands still would go on for ever.
        if !page.has_more || page.next_since <= cursor {
            break;
        }
    }
    // Every page tells what is starting, and a session that has started meanwhile is in a list as well.
    let mut known: HashSet<String> = listed.views.iter().map(|view| view.text("_id").to_owned()).collect();
    listed.starting.retain(|view| known.insert(view.text("_id").to_owned()));
    Ok(listed)
}

/// A length of time as a message.
pub fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(length).expect("lengths that people write fit into 64 bits of seconds")
}
