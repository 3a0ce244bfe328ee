//! `session watch`: a line for each change until the session is finished; on a terminal one line that
//! moves, and a line for each change of state. The same beside a stop, while it drains.

use std::convert::Infallible;
use std::io::{IsTerminal, stderr, stdout};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at};
use tonic::{Response, Streaming};

use super::connection::Connection;
use super::exit::{Failure, UNAVAILABLE};
use super::text::{plain, seconds};
use super::view::{View, progress_json};
use super::{out, show};
use crate::api::proto::{SessionEvent, WatchSessionRequest};

/// Between two lines about a drain, where no terminal shows it move.
const DRAIN_LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Follows the session to its end.
///
/// # Errors
/// There is no such session, or the agent went away before it was finished.
pub async fn watch(connection: &Connection, json: bool, id: String) -> Result<(), Failure> {
    let request = WatchSessionRequest { session_id: id.clone() };
    let mut events = connection.agent().watch_session(request).await?.into_inner();
    let mut printer = Printer::new(json);
    while let Some(event) = events.message().await? {
        if printer.print(event)? {
            return Ok(());
        }
    }
    Err(Failure::new(UNAVAILABLE, format!("the agent went away before session {} was finished", plain(&id)))
        .hint(format!("`shutterd session show {}` tells how it ended, once an agent runs again", plain(&id))))
}

/// Waits for `stopped`, the answer to a stop of the session `id`, and tells meanwhile on standard error
/// how far the drain is: on a terminal by a line that moves, elsewhere by a line every few seconds.
pub async fn drain<T>(connection: &Connection, id: &str, stopped: impl Future<Output = T>) -> T {
    let bar = stderr().is_terminal().then(moving_line);
    let answer = tokio::select! {
        // The stop goes out first.
        biased;
        answer = stopped => answer,
        never = tell_drain(connection, id, bar.as_ref()) => match never {},
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    answer
}

async fn tell_drain(connection: &Connection, id: &str, bar: Option<&ProgressBar>) -> Infallible {
    let begun_at = Instant::now();
    let mut lines = interval_at(begun_at + DRAIN_LINE_INTERVAL, DRAIN_LINE_INTERVAL);
    let mut present = "stopping".to_owned();
    let request = WatchSessionRequest { session_id: id.to_owned() };
    // What can't be watched is stopped all the same.
    let mut events = connection.agent().watch_session(request).await.ok().map(Response::into_inner);
    loop {
        tokio::select! {
            event = next(&mut events) => match event.map(|event| (View::read(event.session, None), event.progress)) {
                Some((Ok(view), progress)) => present = show::progress(&view, progress.as_ref()),
                Some((Err(_), _)) => {}
                None => events = None,
            },
            _ = lines.tick() => if bar.is_none() {
                let passed = seconds(begun_at.elapsed().as_secs_f64());
                out::note(&format!("{}: {present}, {passed} after the stop", plain(id)));
            },
        }
        if let Some(bar) = bar {
            bar.set_message(present.clone());
        }
    }
}

/// The next event; none when the stream has ended, and never one where there is no stream.
async fn next(events: &mut Option<Streaming<SessionEvent>>) -> Option<SessionEvent> {
    match events {
        Some(events) => events.message().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// A line at the end of the terminal that moves.
fn moving_line() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is a constant"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// How changes are told.
enum Printer {
    Json,
    Lines { last: String },
    Moving { bar: ProgressBar, state: String },
}

impl Printer {
    fn new(json: bool) -> Self {
        if json {
            return Self::Json;
        }
        if !(stdout().is_terminal() && stderr().is_terminal()) {
            return Self::Lines { last: String::new() };
        }
        Self::Moving { bar: moving_line(), state: String::new() }
    }

    /// Tells one change; true when it was the last.
    fn print(&mut self, event: SessionEvent) -> Result<bool, Failure> {
        let view = View::read(event.session, event.receipt)?;
        let is_finished = view.is_finished();
        match self {
            Self::Json => {
                let progress = event.progress.as_ref().map_or(Value::Null, progress_json);
                out::json_line(&json!({
                    "change": event.change,
                    "session": view.session,
                    "receipt": view.receipt,
                    "progress": progress,
                }))?;
            }
            Self::Lines { last } => {
                let line = show::progress(&view, event.progress.as_ref());
                if *last != line {
                    out::line(&line)?;
                    *last = line;
                }
            }
            Self::Moving { bar, state } => {
                bar.set_message(show::progress(&view, event.progress.as_ref()));
                let now = show::state(&view);
                if *state != now {
                    bar.suspend(|| out::line(&now))?;
                    *state = now;
                }
                if is_finished {
                    bar.finish_and_clear();
                }
            }
        }
        if is_finished
            && !matches!(self, Self::Json)
            && let Some(receipt) = &view.receipt
        {
            out::line(&format!("\n{}", show::receipt(&view, receipt)))?;
        }
        Ok(is_finished)
    }
}
