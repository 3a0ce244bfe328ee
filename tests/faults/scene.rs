//! What most rows begin with, and what they ask of a session while it runs.

use std::time::{Duration, Instant};

use shutterd::api::proto::{GetAgentRequest, Receipt, SessionEvent};

use crate::agent::{Agent, eventually, session, worker_state};
use crate::site::{Site, camera, microphone};

/// An agent that records a camera and a microphone as session `s`.
pub async fn recording(settings: &str) -> Agent {
    let site = Site::new(settings, &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    records(&agent).await;
    agent
}

/// Starts a camera and a microphone as session `s`.
pub async fn records(agent: &Agent) {
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 20, 30_000).await;
}

/// More of session `s` is durable than there is now.
pub async fn records_on(agent: &Agent) {
    let told = agent.until("s", |event| event.progress.is_some()).await;
    let now = told.progress.expect("it was just seen").sources;
    let written = |at: usize| now.get(at).map_or(0, |source| source.written);
    agent.recorded("s", written(0) + 20, written(1) + 30_000).await;
}

/// The agent's log says this.
pub async fn logged(agent: &Agent, text: &str) {
    eventually(text, || agent.site.log().contains(text)).await;
}

/// The session is in this state of its worker.
pub fn is(wanted: &'static str) -> impl Fn(&SessionEvent) -> bool {
    move |event| worker_state(event.session.as_ref()) == wanted
}

/// The state and the reason of a source in an event.
pub fn told_of(event: &SessionEvent, source: &str) -> Option<(String, String)> {
    let sources = &event.progress.as_ref()?.sources;
    let found = sources.iter().find(|it| it.id == source)?;
    Some((found.state.clone(), found.reason.clone()))
}

/// How long it takes until a source is told to be degraded, and why it is.
pub async fn degraded(agent: &Agent, source: &str) -> (Duration, String) {
    let since = Instant::now();
    let is_degraded =
        |event: &SessionEvent| told_of(event, source).is_some_and(|(state, _)| state == "degraded");
    let event = agent.until("s", is_degraded).await;
    (since.elapsed(), told_of(&event, source).map(|(_, reason)| reason).unwrap_or_default())
}

/// A source is told to work.
pub async fn works(agent: &Agent, source: &str) {
    let is_working =
        |event: &SessionEvent| told_of(event, source).is_some_and(|(state, _)| state == "working");
    agent.until("s", is_working).await;
}

/// Whether a warning of the receipt says this.
pub fn warns(receipt: &Receipt, text: &str) -> bool {
    receipt.warnings.iter().any(|warning| warning.contains(text))
}

/// What health finds of a subject, as `level: message`.
pub async fn found(agent: &Agent, subject: &str) -> Vec<String> {
    let answer = agent.calls().get_agent(GetAgentRequest {}).await.expect("the agent answers").into_inner();
    let findings = answer.health.map(|health| health.findings).unwrap_or_default().into_iter();
    let own = findings.filter(|finding| finding.subject == subject);
    own.map(|finding| format!("{}: {}", finding.level, finding.message)).collect()
}
