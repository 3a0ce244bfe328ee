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
use crate::session::health::{Health, Level};
use crate::supervisor::ServingState;

/// A supervisor that takes longer is not ready.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The process serves: also while it ends, drains, or has failed at something.
pub(super) async fn alive(State(desk): State<Arc<Desk>>) -> Response {
    let health = Arc::clone(&desk.handle.health().borrow());
    answer::json(StatusCode::OK, &json!({ "alive": true, "status": health.status() }))
}

/// Whether the agent takes sessions and does what it promises; and if not, why.
pub(super) async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    let agent = timeout(ANSWER_TIMEOUT, desk.handle.agent()).await;
    let (mut reasons, health, problems) = match agent {
        Ok(Ok(agent)) => {
            let closed = (agent.state != ServingState::Serving).then(|| agent.state.reason().to_owned());
            (Vec::from_iter(closed), agent.health, agent.problems)
        }
        Ok(Err(refusal)) => (vec![refusal.message], Health::default(), Vec::new()),
        Err(_) => {
            let hangs = "the supervisor doesn't answer: restart the agent".to_owned();
            (vec![hangs], Health::default(), Vec::new())
        }
    };
    reasons.extend(health.of(Level::Failed).map(|finding| finding.message.clone()));
    let is_ready = reasons.is_empty();
    let findings = health.findings.iter().map(|finding| {
        json!({
            "level": finding.level.as_str(),
            "subject": finding.subject.as_str(),
            "about": finding.about,
            "message": finding.message,
        })
    });
    let body = json!({
        "ready": is_ready,
        "status": health.status(),
        "reasons": reasons,
        "findings": findings.collect::<Vec<_>>(),
        "problems": problems,
    });
    answer::json(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}
