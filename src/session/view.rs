//! A session as its callers see it: its own JSON, with the members that the agent owns filled in.

use serde_json::{Map, Number, Value};

use super::SessionSpec;
use crate::clock::WallTime;

/// `state` of the public contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublicState {
    /// Devices are, or may be, held.
    Active,
    /// Nothing is collected any more; the media is being made final.
    Processing,
    /// Over, with a receipt.
    Finished,
}

/// `meta.workerState` of the public contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkerState {
    /// Some source has not delivered yet.
    Starting,
    /// Every source delivers.
    Working,
    /// Some source delivers nothing.
    Degraded,
    /// A stop was accepted, devices are being released.
    Draining,
    /// Devices are released, the media is being made final.
    Finalizing,
    /// Ended in good order.
    Stopped,
    /// Ended by force, or never started.
    Failed,
}

impl PublicState {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Processing => "processing",
            Self::Finished => "finished",
        }
    }
}

impl WorkerState {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Working => "working",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Finalizing => "finalizing",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// The session's JSON as it is now. `duration` in seconds replaces the session's own once given;
/// `health_check` is the time of the last durable packet.
pub fn present(
    spec: &SessionSpec,
    state: PublicState,
    worker: WorkerState,
    duration: Option<f64>,
    health_check: Option<WallTime>,
) -> Map<String, Value> {
    let mut object = spec.object().clone();
    object.insert("state".to_owned(), state.as_str().into());
    if let Some(seconds) = duration.and_then(seconds_literal) {
        object.insert("duration".to_owned(), Value::Number(seconds));
    }
    if !matches!(object.get("meta"), Some(Value::Object(_))) {
        object.insert("meta".to_owned(), Value::Object(Map::new()));
    }
    if let Some(Value::Object(meta)) = object.get_mut("meta") {
        meta.insert("workerState".to_owned(), worker.as_str().into());
        if let Some(time) = health_check {
            meta.insert("healthCheck".to_owned(), time.to_string().into());
        }
    }
    object
}

/// Seconds to the millisecond, as a person would write them: whole ones without a point.
fn seconds_literal(seconds: f64) -> Option<Number> {
    let millis = (seconds * 1000.0).round();
    if millis % 1000.0 == 0.0 {
        Some(Number::from((millis / 1000.0) as i64))
    } else {
        Number::from_f64(millis / 1000.0)
    }
}
