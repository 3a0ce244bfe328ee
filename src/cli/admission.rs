//! `drain`, `undrain` and `handover`: what an operator orders of the agent as a whole, around its
//! maintenance and its upgrades.

use std::time::Duration;

use serde_json::json;

use super::args::Global;
use super::connection::{Connection, within};
use super::exit::Failure;
use super::out;
use super::session::ANSWER_WAIT;
use super::text::{count, seconds};
use crate::api::proto::{DrainRequest, HandoverRequest, UndrainRequest};

/// Has the agent take no new session.
///
/// # Errors
/// The agent doesn't answer, or is ending.
pub async fn drain(global: &Global) -> Result<(), Failure> {
    let connection = Connection::open(global).await?;
    let answer = connection.agent().drain(within(ANSWER_WAIT, DrainRequest {})).await?.into_inner();
    if global.json {
        return out::json_line(&json!({ "sessions": answer.sessions }));
    }
    out::line(&match answer.sessions {
        0 => "takes no new session; none is left".to_owned(),
        left => {
            format!("takes no new session; {} left, see `shutterd session list`", sessions(left, "is", "are"))
        }
    })
}

/// Has the agent take new sessions again.
///
/// # Errors
/// As [`drain`].
pub async fn undrain(global: &Global) -> Result<(), Failure> {
    let connection = Connection::open(global).await?;
    connection.agent().undrain(within(ANSWER_WAIT, UndrainRequest {})).await?;
    if global.json { out::json_line(&json!({})) } else { out::line("takes new sessions again") }
}

/// Announces that the agent is about to be replaced.
///
/// # Errors
/// As [`drain`].
pub async fn handover(global: &Global) -> Result<(), Failure> {
    let connection = Connection::open(global).await?;
    let answer = connection.agent().handover(within(ANSWER_WAIT, HandoverRequest {})).await?.into_inner();
    let expires_after =
        answer.expires_after.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or_default();
    if global.json {
        let expires_after = expires_after.as_secs_f64();
        return out::json_line(&json!({ "sessions": answer.sessions, "expiresAfterSeconds": expires_after }));
    }
    out::line(&format!(
        "replace the agent within {}, by `systemctl restart shutterd`: {} on; it takes no new session until then",
        seconds(expires_after.as_secs_f64()),
        sessions(answer.sessions, "records", "record"),
    ))
}

fn sessions(number: u32, one: &str, many: &str) -> String {
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    count(number, &format!("session {one}"), &format!("sessions {many}"))
}
