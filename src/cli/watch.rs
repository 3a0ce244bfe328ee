//! `session watch`: a line for each change until the session is finished; on a terminal one line that
//! moves, and a line for each change of state.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::connection::Connection;
use super::exit::{Failure, UNAVAILABLE};
use super::text::plain;
use super::view::{View, progress_json};
use super::{out, show};
use crate::api::proto::{SessionEvent, WatchSessionRequest};

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
        if !(std::io::stdout().is_terminal() && std::io::stderr().is_terminal()) {
            return Self::Lines { last: String::new() };
        }
        let bar = ProgressBar::new_spinner();
        bar.set_style(
            ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is a constant"),
        );
        bar.enable_steady_tick(Duration::from_millis(200));
        Self::Moving { bar, state: String::new() }
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
