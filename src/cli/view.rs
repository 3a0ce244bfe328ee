//! What the agent answered, as this program prints it: the contract's JSON, the receipt's JSON, and
//! the same manner (camelCase) for what only gRPC tells.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::connection::lost;
use super::exit::Failure;
use crate::api::convert::{receipt_from_proto, session_from_proto};
use crate::api::proto;
use crate::session::Receipt;

/// A session, and its account once there is one.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// The session's JSON.
    pub session: Map<String, Value>,
    /// Its account.
    pub receipt: Option<Receipt>,
}

impl View {
    /// Reads an answer.
    ///
    /// # Errors
    /// There is no session in it, or something that this version can't read.
    pub fn read(session: Option<proto::Session>, receipt: Option<proto::Receipt>) -> Result<Self, Failure> {
        let session = session_from_proto(session.ok_or_else(|| lost("session"))?)?;
        Ok(Self { session, receipt: receipt.map(receipt_from_proto).transpose()? })
    }

    /// A text member of the session, empty when it has none.
    pub fn text(&self, key: &str) -> &str {
        self.session.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// A text member of the session's `meta`, empty when it has none.
    pub fn meta(&self, key: &str) -> &str {
        let value = self.session.get("meta").and_then(|meta| meta.get(key));
        value.and_then(Value::as_str).unwrap_or_default()
    }

    /// The session is over.
    pub fn is_finished(&self) -> bool {
        self.text("state") == "finished"
    }

    /// The agent says that every device is closed: only then is a session `processing`.
    pub fn is_released(&self) -> bool {
        self.text("state") == "processing"
            || self.receipt.as_ref().is_some_and(|receipt| receipt.released_at.is_some())
    }

    /// What a person calls the source `id`; the id when it has no name.
    pub fn source_name<'a>(&'a self, id: &'a str) -> &'a str {
        let has_id = |source: &&Value| source.get("id").and_then(Value::as_str) == Some(id);
        let source = self.sources().iter().find(has_id);
        let name = source.and_then(|source| source.get("name")).and_then(Value::as_str);
        name.filter(|name| !name.is_empty()).unwrap_or(id)
    }

    /// The session's sources, as they were handed in.
    pub fn sources(&self) -> &[Value] {
        self.session.get("sources").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Progress as JSON.
pub fn progress_json(progress: &proto::Progress) -> Value {
    let sources = progress.sources.iter().map(|source| {
        json!({
            "id": source.id,
            "state": source.state,
            "reason": source.reason,
            "captured": source.captured,
            "written": source.written,
        })
    });
    let files = progress.closed_files.iter().map(|file| {
        json!({
            "path": file.path,
            "bytes": file.bytes,
            "blake3": file.blake3,
            "durationSeconds": file.duration_seconds,
            "repaired": file.repaired,
        })
    });
    json!({
        "capturedSeconds": progress.captured_seconds,
        "queuedPackets": progress.queued_packets,
        "durableBytes": progress.durable_bytes,
        "pendingBytes": progress.pending_bytes,
        "sources": sources.collect::<Vec<_>>(),
        "closedFiles": files.collect::<Vec<_>>(),
    })
}

/// A device as JSON.
pub fn device_json(device: &proto::Device) -> Value {
    json!({
        "id": device.id,
        "name": device.name,
        "type": device.r#type,
        "kind": device.kind,
        "node": device.node,
        "bus": device.bus,
        "serial": device.serial,
        "formats": device.formats,
        "heldBy": device.held_by,
    })
}
