//! From refusals to gRPC statuses, in one place.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::convert::ConvertError;
use crate::access::Caller;
use crate::session::ParseIdError;
use crate::supervisor::{Refusal, RefusalKind};

/// `domain` of `google.rpc.ErrorInfo`.
const DOMAIN: &str = "shutterd";
/// Bytes of a message, and of what it is about. All of it travels in headers, twice, encoded, and
/// clients take as little as 8 KiB of those.
const MESSAGE_BYTES_MAX: usize = 1024;
const ABOUT_BYTES_MAX: usize = 256;

/// The name of a code, as `google.rpc.Code` spells it.
pub(super) const fn code_word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The status of a refusal, with its `ErrorInfo`.
pub(super) fn status(refusal: Refusal) -> Status {
    let code = match refusal.kind {
        RefusalKind::InvalidArgument => Code::InvalidArgument,
        RefusalKind::NotFound => Code::NotFound,
        RefusalKind::AlreadyExists => Code::AlreadyExists,
        RefusalKind::FailedPrecondition => Code::FailedPrecondition,
        RefusalKind::ResourceExhausted => Code::ResourceExhausted,
        RefusalKind::Aborted => Code::Aborted,
        RefusalKind::OutOfRange => Code::OutOfRange,
        RefusalKind::PermissionDenied => Code::PermissionDenied,
        RefusalKind::Unavailable => Code::Unavailable,
        RefusalKind::Internal => Code::Internal,
    };
    let about: HashMap<String, String> = refusal
        .about
        .into_iter()
        .map(|(what, value)| (what.to_owned(), cut(value, ABOUT_BYTES_MAX)))
        .collect();
    let details = ErrorDetails::with_error_info(refusal.reason, DOMAIN, about);
    Status::with_error_details(code, cut(refusal.message, MESSAGE_BYTES_MAX), details)
}

/// `text`, or as much of it as `bytes_max` holds.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}

/// A field of the request is wrong.
pub(super) fn invalid(field: &str, message: impl Into<String>) -> Status {
    status(Refusal::new(RefusalKind::InvalidArgument, "INVALID_REQUEST", message).about("field", field))
}

/// The session's id is no id.
pub(super) fn invalid_id(error: &ParseIdError) -> Status {
    status(
        Refusal::new(RefusalKind::InvalidArgument, "INVALID_SESSION_ID", error.to_string())
            .about("field", "session_id"),
    )
}

/// The session can't be read from its message.
pub(super) fn unreadable(error: &ConvertError) -> Status {
    status(
        Refusal::new(RefusalKind::InvalidArgument, "INVALID_SESSION", error.to_string())
            .about("field", error.field()),
    )
}

/// What is about nothing in particular.
pub(super) fn bare(code: Code, reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, cut(message.to_owned(), MESSAGE_BYTES_MAX), details)
}

/// Nobody knows who calls.
pub(super) fn unauthenticated(message: &str) -> Status {
    bare(Code::Unauthenticated, "UNAUTHENTICATED", message)
}

/// The peer of a Unix socket is somebody else's process.
pub(super) fn stranger() -> Status {
    let message = "only root and the agent's own user may use this socket: use TCP with a token";
    bare(Code::PermissionDenied, "PEER_UID", message)
}

/// The call's deadline has passed.
pub(super) fn late() -> Status {
    let message = "the call's deadline has passed; what it asked for goes on: ask again";
    bare(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message)
}

/// The caller may not make this call.
pub(super) fn forbidden(caller: &Caller, call: &str) -> Status {
    let held = caller.user.as_ref().map_or("", |_| " that is held to one user");
    let message = format!(
        "the token {:?} has the role {}{held}, which may not call {call}: use another token",
        caller.name, caller.role
    );
    status(Refusal::new(RefusalKind::PermissionDenied, "ROLE", cut(message, MESSAGE_BYTES_MAX)))
}
