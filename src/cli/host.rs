//! `devices`, `health` and `check-config`: what an operator and monitoring ask about the host.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use super::args::Global;
use super::connection::{Connection, within};
use super::exit::{Failure, HEALTH_CRITICAL, HEALTH_UNKNOWN, HEALTH_WARNING};
use super::out;
use super::session::ANSWER_WAIT;
use super::text::{plain, table};
use super::view::device_json;
use crate::api::proto::{GetAgentRequest, GetAgentResponse, ListDevicesRequest};
use crate::config::{self, Overrides};

/// Longest wait for the answer to a health check.
const HEALTH_WAIT: Duration = Duration::from_secs(5);

/// Prints the host's devices.
///
/// # Errors
/// The agent doesn't answer.
pub async fn devices(global: &Global) -> Result<(), Failure> {
    let connection = Connection::open(global).await?;
    let request = within(ANSWER_WAIT, ListDevicesRequest {});
    let devices = connection.agent().list_devices(request).await?.into_inner().devices;
    if global.json {
        return out::json(&devices.iter().map(device_json).collect::<Vec<_>>());
    }
    if devices.is_empty() {
        return out::line("no cameras or microphones on this host");
    }
    let rows: Vec<Vec<String>> = devices
        .iter()
        .map(|device| {
            let holder = if device.held_by.is_empty() { "-" } else { device.held_by.as_str() };
            let cells: [&str; 6] =
                [&device.name, &device.r#type, &device.kind, holder, &device.node, &device.id];
            cells.map(plain).into()
        })
        .collect();
    out::line(&table(&["NAME", "TYPE", "KIND", "HELD BY", "NODE", "ID"], &[], &rows))
}

/// Asks the agent how it is, prints one line and answers with a monitoring plugin's code.
pub async fn health(global: &Global) -> ExitCode {
    let (code, word, text) = match check(global).await {
        Ok(checked) => checked,
        Err(failure) => (HEALTH_UNKNOWN, "UNKNOWN", failure.message()),
    };
    let text = plain(&text);
    let printed = if global.json {
        out::json_line(&json!({ "status": word, "message": text }))
    } else {
        out::line(&format!("{word}: {text}"))
    };
    match printed {
        Ok(()) => ExitCode::from(code),
        Err(failure) => failure.report(global.into()),
    }
}

async fn check(global: &Global) -> Result<(u8, &'static str, String), Failure> {
    let connection = Connection::open_public(global).await?;
    let request = within(HEALTH_WAIT, HealthCheckRequest { service: String::new() });
    let status = connection.health().check(request).await?.into_inner().status();
    // Details are welcome, but the check has answered already.
    let agent = connection.agent().get_agent(within(HEALTH_WAIT, GetAgentRequest {})).await;
    let agent = agent.map(tonic::Response::into_inner).ok();
    let details = agent.as_ref().map(details).unwrap_or_default();
    let degraded = agent.and_then(|agent| agent.health).is_some_and(|health| health.status == "degraded");
    Ok(match status {
        ServingStatus::Serving if degraded => (HEALTH_WARNING, "WARNING", format!("serving{details}")),
        ServingStatus::Serving => (0, "OK", format!("serving{details}")),
        ServingStatus::NotServing => (HEALTH_CRITICAL, "CRITICAL", format!("not serving{details}")),
        other => (HEALTH_UNKNOWN, "UNKNOWN", format!("the agent answers {}", other.as_str_name())),
    })
}

/// What is wrong, then what went wrong, then how busy the agent is.
fn details(agent: &GetAgentResponse) -> String {
    let findings = agent.health.iter().flat_map(|health| &health.findings);
    let mut parts: Vec<String> = findings
        .filter(|finding| finding.level != "absent")
        .map(|finding| {
            let about = if finding.about.is_empty() { &finding.subject } else { &finding.about };
            format!("{about}: {}", finding.message)
        })
        .collect();
    parts.extend(agent.problems.iter().map(|problem| format!("earlier: {problem}")));
    let load = format!(", {} of {} sessions", agent.sessions, agent.sessions_max);
    if parts.is_empty() { load } else { format!("{load}; {}", parts.join("; ")) }
}

/// Says whether the config can be used.
///
/// # Errors
/// What is wrong with it, and where.
pub fn check_config(global: &Global) -> Result<(), Failure> {
    config::load(global.config.as_deref(), &Overrides::default())?;
    let path = global.config.as_deref().unwrap_or(Path::new(config::DEFAULT_PATH));
    if global.json {
        out::json_line(&json!({ "path": path, "isThere": path.exists(), "isGood": true }))
    } else if path.exists() {
        out::line(&format!("{} is good", path.display()))
    } else {
        out::line(&format!("{} is not there; the defaults are good", path.display()))
    }
}
