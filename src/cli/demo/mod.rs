//! `demo`: an agent of its own records a synthetic camera and microphone for a few seconds. However it
//! ends, by signal too, the session is stopped and the agent ended.

mod agent;
mod site;

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio::time::Instant;

use agent::Agent;
use site::Site;

use super::args::{DemoArguments, Global};
use super::connection::{Connection, within};
use super::exit::{FAILURE, Failure, NOT_FOUND};
use super::session::{PHASE_WAIT, start_request};
use super::text::{bytes, plain};
use super::view::View;
use super::{out, show};
use crate::api::proto::{SessionEvent, StopMode, StopSessionRequest, WaitFor, WatchSessionRequest};

/// The session ends by itself this much later than the demo would stop it.
const MARGIN: Duration = Duration::from_secs(60);
/// What is said when a signal came before the first frame.
const INTERRUPTED: &str = "interrupted before anything was recorded";

/// Records for `arguments.seconds` and shows what came out.
///
/// # Errors
/// The agent doesn't come up, or refuses.
pub async fn demo(global: &Global, arguments: &DemoArguments) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::new(FAILURE, format!("signals can't be watched: {error}")))?;
    let site = Site::prepare(arguments.dir.as_deref())?;
    let say = |text: &str| if global.json { out::note(text) } else { drop(out::line(text)) };
    say(&format!("everything is in   {}", site.dir.display()));
    let mut agent = Agent::launch(&site)?;
    let length = Duration::from_secs(arguments.seconds);
    let told =
        record(&site, &mut agent, length, &mut signals, &say).await.and_then(|view| tell(global, &view));
    let ended = agent.end().await;
    site.clear();
    told.and(ended)
}

/// The whole demo, from the agent's coming up to the finished session.
async fn record(
    site: &Site,
    agent: &mut Agent,
    length: Duration,
    signals: &mut Signals,
    say: &impl Fn(&str),
) -> Result<View, Failure> {
    let connection = tokio::select! {
        connection = agent.serving(&site.socket_path) => connection?,
        _ = signals.next() => return Err(Failure::new(FAILURE, INTERRUPTED)),
    };
    say(&format!("the agent answers  {}", connection.address()));
    let session = site::session()?;
    let id = session.get("_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    if start(&connection, &session, length, signals).await? {
        say(&format!("recording session  {id}\n"));
        follow(&connection, &id, length, signals).await;
        return stop(&connection, id).await;
    }
    stop(&connection, id).await.map_err(|failure| match failure.code() {
        NOT_FOUND => Failure::new(FAILURE, INTERRUPTED),
        _ => failure,
    })
}

/// Starts the session; false when a signal came first.
async fn start(
    connection: &Connection,
    session: &Map<String, Value>,
    length: Duration,
    signals: &mut Signals,
) -> Result<bool, Failure> {
    let mut agent = connection.agent();
    let request = start_request(session, Some(length + MARGIN));
    tokio::select! {
        started = agent.start_session(within(PHASE_WAIT, request)) => started.map(|_| true).map_err(Failure::from),
        _ = signals.next() => Ok(false),
    }
}

/// Shows the progress until `length` has passed, the session has ended or a signal comes.
async fn follow(connection: &Connection, id: &str, length: Duration, signals: &mut Signals) {
    let bar = ProgressBar::new(millis(length.as_secs_f64()));
    bar.set_style(ProgressStyle::with_template("{bar:40} {msg}").expect("the template is a constant"));
    let end = Instant::now() + length;
    let request = WatchSessionRequest { session_id: id.to_owned() };
    let mut events = match connection.agent().watch_session(request).await {
        Ok(events) => Some(events.into_inner()),
        Err(_) => None,
    };
    loop {
        let next = async {
            match &mut events {
                Some(events) => events.message().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = next => match event {
                Ok(Some(event)) if is_finished(&event) => break,
                Ok(Some(event)) => advance(&bar, &event),
                // The stop tells what is wrong.
                Ok(None) | Err(_) => break,
            },
            () = tokio::time::sleep_until(end) => break,
            _ = signals.next() => break,
        }
    }
    bar.finish_and_clear();
}

fn is_finished(event: &SessionEvent) -> bool {
    event.session.as_ref().is_some_and(|session| session.state == "finished")
}

fn advance(bar: &ProgressBar, event: &SessionEvent) {
    if let Some(progress) = &event.progress {
        bar.set_position(millis(progress.captured_seconds));
        let (durable, waiting) = (bytes(progress.durable_bytes), show::waiting(progress.queued_packets));
        bar.set_message(format!("{durable} durable, {waiting}"));
    }
}

fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0).round().max(0.0) as u64
}

async fn stop(connection: &Connection, id: String) -> Result<View, Failure> {
    let request = StopSessionRequest {
        session_id: id,
        drain_timeout: None,
        mode: StopMode::Drain.into(),
        wait_for: WaitFor::Finalized.into(),
    };
    let answer = connection.agent().stop_session(within(PHASE_WAIT, request)).await?.into_inner();
    View::read(answer.session, answer.receipt)
}

fn tell(global: &Global, view: &View) -> Result<(), Failure> {
    if global.json {
        out::json(view)?;
    } else {
        out::line(&show::session(view))?;
        let files = view.receipt.iter().flat_map(|receipt| &receipt.files);
        for file in files {
            out::line(&format!("\nlook at it with:\n  {}", ffprobe(Path::new(&file.path))))?;
        }
    }
    if view.is_released() {
        return Ok(());
    }
    Err(Failure::new(
        FAILURE,
        format!("session {} is not known to have released its devices", plain(view.text("_id"))),
    ))
}

/// The command that counts what is in the file with a reader that isn't ours.
fn ffprobe(path: &Path) -> String {
    let quoted = path.display().to_string().replace('\'', r"'\''");
    format!(
        "ffprobe -hide_banner -count_packets -show_entries \
         stream=codec_type,codec_name,width,height,nb_read_packets:format=duration '{quoted}'"
    )
}
