//! `/healthz` and `/readyz`, for whoever probes: no token, no sessions' contents.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;
use tokio::time::timeout;

use super::answer;
use super::calls::Desk;
use crate::supervisor::{Refusal, ServingState};

/// A supervisor that takes longer is not ready.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The process serves.
pub(super) async fn alive() -> Response {
    answer::json(StatusCode::OK, &json!({ "alive": true }))
}

/// Whether the agent takes sessions, and if not, why; and what an operator has to see to.
pub(super) async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    let agent = timeout(ANSWER_TIMEOUT, desk.handle.agent()).await;
    let (mut reasons, problems) = match agent {
        Ok(Ok(agent)) => match agent.state {
            ServingState::Serving => (Vec::new(), agent.problems),
            ServingState::Draining => (vec!["the operator drains this host".to_owned()], agent.problems),
            ServingState::HandingOver => (vec!["the agent is being replaced".to_owned()], agent.problems),
            ServingState::Stopping => (vec![Refusal::shutting_down().message], agent.problems),
        },
        Ok(Err(refusal)) => (vec![refusal.message], Vec::new()),
        Err(_) => (vec!["the supervisor doesn't answer: restart the agent".to_owned()], Vec::new()),
    };
    reasons.extend(desk.handle.ills().borrow().iter().cloned());
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(status, &json!({ "ready": reasons.is_empty(), "reasons": reasons, "problems": problems }))
}
