//! The agent's health as a message.

use crate::api::proto;
use crate::session::health::Health;

/// The agent's health.
pub fn health_to_proto(health: &Health) -> proto::Health {
    let findings = health.findings.iter().map(|finding| proto::HealthFinding {
        level: finding.level.as_str().to_owned(),
        subject: finding.subject.as_str().to_owned(),
        about: finding.about.clone(),
        message: finding.message.clone(),
    });
    proto::Health { status: health.status().to_owned(), findings: findings.collect() }
}
