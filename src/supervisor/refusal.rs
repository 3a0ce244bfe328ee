//! Why a call was refused, told apart by what its caller can do about it.

use thiserror::Error;

use crate::session::resolve::ResolveError;
use crate::session::{LeaseConflict, OptionsError, Removal, SessionId, SpecError};

/// A call that can't be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal it is.
    pub kind: RefusalKind,
    /// The reason in capitals, for programs.
    pub reason: String,
    /// What happened and what to do, for people.
    pub message: String,
    /// What it is about: `session`, `source`, `device`, `holder`, `field`.
    pub about: Vec<(&'static str, String)>,
}

/// Kinds of refusals; each is one gRPC status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request itself is wrong.
    InvalidArgument,
    /// There is no such thing.
    NotFound,
    /// The id is taken.
    AlreadyExists,
    /// The host isn't in the state that the request needs.
    FailedPrecondition,
    /// Something has run out.
    ResourceExhausted,
    /// It was stopped before it was done.
    Aborted,
    /// A position beyond the end.
    OutOfRange,
    /// The caller may not do this.
    PermissionDenied,
    /// The agent isn't there for it now.
    Unavailable,
    /// The agent failed.
    Internal,
}

impl Refusal {
    /// A refusal that is about nothing in particular.
    pub fn new(kind: RefusalKind, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, reason: reason.to_owned(), message: message.into(), about: Vec::new() }
    }

    /// The same, about `value`.
    #[must_use]
    pub fn about(mut self, what: &'static str, value: impl ToString) -> Self {
        self.about.push((what, value.to_string()));
        self
    }

    /// There is no session with this id.
    pub fn not_found(session: &SessionId) -> Self {
        let message = format!("there is no session {session} on this host");
        Self::new(RefusalKind::NotFound, "SESSION_NOT_FOUND", message).about("session", session)
    }

    /// The journal has lost a session whose media is there, and is being looked at.
    pub fn being_found(session: &SessionId) -> Self {
        let message = format!(
            "the journal was damaged, and the media of session {session} is being looked at: ask again in a moment"
        );
        Self::new(RefusalKind::Unavailable, "SESSION_BEING_FOUND", message).about("session", session)
    }

    /// The media of a session was removed, or is about to be.
    pub fn media_removed(session: &SessionId, removal: &Removal) -> Self {
        let why = removal.reason.as_str();
        let message = match removal.removed_at {
            Some(at) => format!("the media of session {session} was removed at {at} ({why})"),
            None => format!("the media of session {session} is being removed ({why})"),
        };
        Self::new(RefusalKind::NotFound, "MEDIA_REMOVED", message).about("session", session)
    }

    /// The caller starts sessions of one user alone.
    pub fn other_user(session: &SessionId) -> Self {
        let message = "this token starts sessions of its own user alone: give the session that user";
        Self::new(RefusalKind::PermissionDenied, "OTHER_USER", message)
            .about("session", session)
            .about("field", "user")
    }

    /// A device is held by a session that the caller may not see.
    pub fn held_by_another_user(device: &str) -> Self {
        let message = format!("{device} is busy: a session of another user captures it");
        Self::new(RefusalKind::FailedPrecondition, "DEVICE_BUSY", message)
            .about("device", device)
            .about("holder", "another user")
    }

    /// The agent is on its way out.
    pub fn shutting_down() -> Self {
        let message = "the agent is shutting down: it takes no new session; try again when it is back";
        Self::new(RefusalKind::Unavailable, "SHUTTING_DOWN", message)
    }

    /// The agent has gone before it could answer.
    pub fn gone() -> Self {
        Self::new(RefusalKind::Unavailable, "AGENT_GONE", "the agent has ended before it could answer")
    }

    /// A session was stopped before it started.
    pub fn stopped_first(session: &SessionId) -> Self {
        let message = format!("session {session} was stopped before it started");
        Self::new(RefusalKind::Aborted, "STOPPED_BEFORE_START", message).about("session", session)
    }

    /// The journal can't be read or written.
    pub fn journal(error: &impl std::fmt::Display) -> Self {
        let message = format!("the journal failed: {error}; check the disk of the state directory");
        Self::new(RefusalKind::Internal, "JOURNAL_FAILED", message)
    }

    /// A session is finished, and what the journal has of it is not its receipt.
    pub fn receipt_not_saved(session: &SessionId) -> Self {
        let message = format!(
            "the journal has not taken the receipt of session {session}: check the disk of state_dir"
        );
        Self::new(RefusalKind::Internal, "JOURNAL_FAILED", message).about("session", session)
    }

    /// A caller's cursor is none of this journal's: waiting for it would miss what happens until then.
    pub fn cursor_ahead(since: u64, last: u64) -> Self {
        let message = format!(
            "since is {since}, but the last change is {last}: the journal was replaced; begin again with since 0"
        );
        Self::new(RefusalKind::OutOfRange, "CURSOR_AHEAD", message).about("field", "since")
    }

    /// The devices of a session may still be held, since its worker can't be ended.
    pub fn not_released(session: &SessionId) -> Self {
        let message = format!(
            "session {session} is stopped, but its worker is stuck in the kernel and may still hold its devices; \
             unplug them, or restart the host"
        );
        Self::new(RefusalKind::Internal, "DEVICE_NOT_RELEASED", message).about("session", session)
    }

    /// The devices of a session are released, but its worker can't be ended.
    pub fn stuck(session: &SessionId) -> Self {
        let message = format!(
            "session {session} is stopped and its devices are released, but its worker is stuck in the kernel, \
             perhaps in its disk; its files can't be made final until it ends"
        );
        Self::new(RefusalKind::Internal, "WORKER_STUCK", message).about("session", session)
    }

    /// A worker that didn't answer was ended.
    pub fn worker_silent(session: &SessionId) -> Self {
        let message = format!(
            "session {session} did not start: its worker gave no answer in time and was ended; the log says why"
        );
        Self::new(RefusalKind::Internal, "WORKER_TIMEOUT", message).about("session", session)
    }

    /// A worker has ended before its session started.
    pub fn worker_died(session: &SessionId, status: &str) -> Self {
        let message =
            format!("session {session} did not start: its worker has ended ({status}); the log says why");
        Self::new(RefusalKind::Internal, "WORKER_DIED", message).about("session", session)
    }

    /// What a worker says of a start that failed.
    pub fn start_failed(
        session: &SessionId,
        reason: &str,
        source: &str,
        device: &str,
        message: &str,
    ) -> Self {
        let kind = match reason {
            "DISK_FULL" | "USB_BANDWIDTH" | "OUT_OF_RESOURCES" => RefusalKind::ResourceExhausted,
            "INTERNAL" | "WORKER_DIED" | "WORKER_VERSION" | "WORKER_NOT_LAUNCHED" => RefusalKind::Internal,
            _ => RefusalKind::FailedPrecondition,
        };
        let mut refusal = Self::new(kind, reason, message).about("session", session);
        if !source.is_empty() {
            refusal = refusal.about("source", source);
        }
        if !device.is_empty() {
            refusal = refusal.about("device", device);
        }
        if reason == "DEVICE_BUSY" {
            refusal = refusal.about("holder", "another process");
        }
        refusal
    }
}

impl From<SpecError> for Refusal {
    fn from(error: SpecError) -> Self {
        let reason = match &error {
            SpecError::Expired { .. } => "SESSION_EXPIRED",
            SpecError::Id(_) | SpecError::Field { .. } => "INVALID_SESSION",
        };
        Self::new(RefusalKind::InvalidArgument, reason, error.to_string()).about("field", error.field())
    }
}

impl From<OptionsError> for Refusal {
    fn from(error: OptionsError) -> Self {
        Self::new(RefusalKind::InvalidArgument, "INVALID_OPTIONS", error.to_string())
            .about("field", "options.formats")
            .about("source", &error.source_id)
    }
}

impl From<LeaseConflict> for Refusal {
    fn from(conflict: LeaseConflict) -> Self {
        Self::new(RefusalKind::FailedPrecondition, "DEVICE_BUSY", conflict.to_string())
            .about("device", &conflict.device)
            .about("holder", &conflict.holder)
    }
}

impl From<ResolveError> for Refusal {
    fn from(error: ResolveError) -> Self {
        let message = error.to_string();
        match &error {
            ResolveError::Missing { source_id, wanted, .. } => {
                Self::new(RefusalKind::FailedPrecondition, "DEVICE_MISSING", message)
                    .about("source", source_id)
                    .about("device", wanted)
            }
            ResolveError::Ambiguous { source_id, wanted, .. } => {
                Self::new(RefusalKind::FailedPrecondition, "DEVICE_AMBIGUOUS", message)
                    .about("source", source_id)
                    .about("device", wanted)
            }
            ResolveError::Twice { second, device, .. } => {
                Self::new(RefusalKind::InvalidArgument, "DEVICE_TWICE", message)
                    .about("field", "sources")
                    .about("source", second)
                    .about("device", device)
            }
        }
    }
}
